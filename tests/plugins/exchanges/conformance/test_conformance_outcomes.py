"""Outcomes that are not known, requests that come too late, and clocks that disagree."""

import asyncio

import pytest
from conformance_desk import At, behaviour
from conformance_reasons import NO_LINE, NOT_IN_PLACE
from exchange_tools import eventually

from host.api import (
    AmendRejected,
    AmendSupport,
    CancelRejected,
    ExchangeError,
    OrderAccepted,
    OrderCancelled,
    OrderRejected,
    OrderStatus,
    RejectReason,
    RequestUnanswered,
)
from venue.protocols.faults import FaultKind

NO_PROTOCOL = ("paper here", "paper away")
NO_5XX = {"the house protocol has no server errors: it answers, or the line breaks": NO_PROTOCOL}
NO_BATCHES = {
    "Binance takes no batch over the WebSocket: orders go one by one": ("binance spot", "binance usdm"),
    "the house protocol has no batches": NO_PROTOCOL,
}
NO_TIMESTAMPS = {"a deadline travels as a span of time: no clock is compared": NO_PROTOCOL}


async def is_unknown(at: At, client_id: str) -> None:
    """Wait for the word that an outcome is not known, or for a push that tells it; never for a refusal."""
    await at.about(client_id, RequestUnanswered, OrderAccepted)
    assert not at.told(client_id, OrderRejected)


def is_sent_once(at: At, client_id: str) -> bool:
    """Return whether the venue, where it keeps a log, got an order once."""
    if not at.column.protocol:
        return True
    return len([line for line in at.venue.lines("place", "batch") if line.client_id == client_id]) == 1


@behaviour("unknown: the answer is lost, asking finds the order", answer_timeout_ms=200.0)
async def test_an_order_whose_answer_was_lost_is_found_by_asking(at: At) -> None:
    at.site.lose_answer()
    place = at.place("c1")
    await is_unknown(at, "c1")
    at.site.behave()
    found = await at.found("c1")
    assert (found.status, found.price, found.qty) == (OrderStatus.OPEN, place.price, place.qty)
    assert is_sent_once(at, "c1") and at.site.open_ids() == {"c1"}


@behaviour("unknown: the request is lost, asking finds nothing", absent=NO_LINE, answer_timeout_ms=200.0)
async def test_an_order_that_never_arrived_is_unknown_until_asking_finds_nothing(at: At) -> None:
    at.site.lose_request()
    at.place("c1")
    told = await at.about("c1", RequestUnanswered, OrderRejected, OrderAccepted)
    assert isinstance(told, RequestUnanswered), told
    await eventually(lambda: set(at.channels().values()) == {True}, "a line to ask by")
    await at.not_found("c1")
    assert not at.site.open_ids()


@behaviour("unknown: 5xx with the order accepted", absent=NO_5XX, order_entry="rest")
async def test_a_server_error_says_nothing_of_the_order(at: At) -> None:
    at.venue.fault(FaultKind.SERVER_ERROR, request="place", count=1)
    at.place("c1")
    await is_unknown(at, "c1")
    assert (await at.found("c1")).status is OrderStatus.OPEN
    assert is_sent_once(at, "c1")


@behaviour("unknown: 5xx with nothing done", absent=NO_5XX)
async def test_a_server_error_without_effect_is_unknown_as_well(at: At) -> None:
    at.venue.fault(FaultKind.SERVER_ERROR, request="place", count=1, is_executed=False)
    at.place("c1")
    await at.about("c1", RequestUnanswered)
    await at.not_found("c1")
    assert not at.told("c1", OrderRejected) and is_sent_once(at, "c1")


@behaviour("unknown: the line breaks after an order", absent=NO_LINE, answer_timeout_ms=20_000.0)
async def test_an_order_under_way_when_the_line_breaks_is_unknown_at_once(at: At) -> None:
    at.place("c1")
    at.site.cut()
    await is_unknown(at, "c1")
    await eventually(lambda: set(at.channels().values()) == {True}, "up again")
    if "c1" in at.site.open_ids():
        assert (await at.found("c1")).status is OrderStatus.OPEN
    else:
        await at.not_found("c1")


@behaviour("unknown: a cancel whose answer is lost", absent=NO_5XX, answer_timeout_ms=200.0)
async def test_a_cancel_whose_outcome_is_unknown_is_found_by_asking(at: At) -> None:
    await at.rest("c1")
    at.venue.fault(FaultKind.SERVER_ERROR, request="cancel", count=1)
    at.cancel("c1")
    await at.about("c1", RequestUnanswered, OrderCancelled)
    assert not at.told("c1", CancelRejected)
    assert (await at.found("c1")).status is OrderStatus.CANCELLED


@behaviour(
    "unknown: an amend whose answer is lost",
    absent={**NO_5XX, **NOT_IN_PLACE},
    answer_timeout_ms=200.0,
)
async def test_an_amend_whose_outcome_is_unknown_is_found_by_asking(at: At) -> None:
    assert at.adapter.amend_support is AmendSupport.NATIVE
    place = await at.rest("c1")
    at.venue.fault(FaultKind.SERVER_ERROR, request="amend", count=1)
    at.amend(place, at.price(25), at.qty)
    await eventually(lambda: at.venue.lines("amend"), "the amend")
    found = await at.found("c1")
    assert (found.price, found.status) == (at.price(25), OrderStatus.OPEN)
    assert not at.told("c1", AmendRejected)


@behaviour("unknown: half of a batch's answer is lost", absent=NO_BATCHES, answer_timeout_ms=300.0)
async def test_what_a_batchs_answer_leaves_out_is_unknown_until_asked(at: At) -> None:
    at.venue.fault(FaultKind.HALF_BATCH, count=1)
    ids = [f"c{number}" for number in range(6)]
    for number, client_id in enumerate(ids):
        at.place(client_id, steps=20 + number)
    for client_id in ids:
        await is_unknown(at, client_id)
        assert (await at.found(client_id)).status is OrderStatus.OPEN
        assert is_sent_once(at, client_id)
    assert [fault["struck"] for fault in at.venue.server.faults.listed().values()] == [1]
    assert at.site.open_ids() == set(ids)


@behaviour("window: an order that is late is refused by the venue", answer_timeout_ms=10_000.0)
async def test_an_order_that_arrives_after_its_deadline_is_refused_by_the_venue(at: At) -> None:
    at.site.hold_order(500.0)
    at.place("c1", in_s=0.25)
    told = await at.about("c1", OrderRejected, RequestUnanswered, OrderAccepted)
    # OKX's 51149 is one of those after which it has to be asked.
    assert isinstance(told, RequestUnanswered) or told.reason is RejectReason.EXPIRED_REQUEST, told
    at.site.behave()
    if isinstance(told, RequestUnanswered):
        await at.not_found("c1")
    assert not at.site.open_ids() and not at.told("c1", OrderAccepted)


@behaviour("window: what is too late already is not sent", absent=NO_TIMESTAMPS)
async def test_an_order_that_is_too_late_already_is_not_sent(at: At) -> None:
    with pytest.raises(ExchangeError, match="nothing was sent"):
        at.place("c1", in_s=-1.0)
    await at.rest("c2")
    assert [line.client_id for line in at.venue.lines("place")] == ["c2"]


@behaviour("window: ends by the deadline, on the venue's clock", absent=NO_TIMESTAMPS)
async def test_the_window_of_an_order_ends_no_later_than_its_deadline(at: At) -> None:
    begun_ns = at.host.now_ns()
    at.place("c1", in_s=2.0)
    deadline_ns = at.host.now_ns() + 2_000_000_000
    await at.about("c1", OrderAccepted)
    (line,) = at.venue.lines("place")
    assert line.valid_ns is not None and line.timestamp_ns is not None
    assert begun_ns < line.timestamp_ns + line.valid_ns <= deadline_ns


@behaviour("clock: a refusal has it measured, then orders go", absent=NO_TIMESTAMPS, answer_timeout_ms=500.0)
async def test_a_refusal_for_the_time_has_the_clock_measured_and_is_told(at: At) -> None:
    # Further off than any venue takes: OKX allows 30 s.
    at.venue.fault(FaultKind.CLOCK_SKEW, skew_ms=60_000.0)
    at.place("c0")
    told = await at.about("c0", OrderRejected, RequestUnanswered)
    assert isinstance(told, RequestUnanswered) or told.reason is RejectReason.EXPIRED_REQUEST
    if isinstance(told, RequestUnanswered):
        await at.not_found("c0")  # refused for its time as well, the first time
    for number in range(1, 1_000):
        try:
            at.place(f"c{number}")
        except ExchangeError:  # the clock is being measured
            await asyncio.sleep(0.001)
            continue
        told = await at.about(f"c{number}", OrderRejected, RequestUnanswered, OrderAccepted)
        if isinstance(told, OrderAccepted):
            return
    raise AssertionError("no order went after the clock was measured")


@behaviour(
    "clock: not known well enough, no order but a cancel",
    absent=NO_TIMESTAMPS,
)
async def test_while_the_clock_is_not_known_no_order_is_sent_and_a_cancel_is(at: At) -> None:
    await at.rest("c1")
    # Days without a measurement: nobody knows what the clocks have done.
    at.host.shift_ns += 10 * 86_400_000_000_000
    with pytest.raises(ExchangeError, match="clock"):
        at.place("c2")
    at.cancel("c1")
    await at.about("c1", OrderCancelled, CancelRejected, RequestUnanswered)
    assert at.venue.lines("cancel") and not [
        line for line in at.venue.lines("place") if line.client_id == "c2"
    ]
