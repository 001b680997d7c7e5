"""Amends, cancels, several commands in one turn, and client ids: what every adapter makes of them."""

from decimal import Decimal

import pytest
from conformance_desk import At, behaviour
from conformance_reasons import NOT_IN_PLACE

from host.api import (
    AmendOrder,
    AmendRejected,
    AmendSupport,
    CancelRejected,
    ExchangeError,
    OrderAccepted,
    OrderAmended,
    OrderCancelled,
    OrderExpired,
    OrderFilled,
    OrderRejected,
    OrderStatus,
    RejectReason,
    RequestUnanswered,
    Side,
)
from host.core.client_id import ClientIdMaker

NOTHING = Decimal(0)
NEVER_WAS = (OrderRejected, OrderExpired)


async def queue_of_two(at: At, qty: Decimal) -> Decimal:
    """Place c1 inside the spread, and the rival's order behind it; return the price."""
    place = await at.rest("c1", steps=-0.5, qty=qty)
    assert place.price is not None
    at.site.rival(at.symbol, Side.BUY, at.qty, place.price)
    return place.price


@behaviour("amend: another price, to the end of the queue", absent=NOT_IN_PLACE)
async def test_an_amend_to_another_price_goes_to_the_end_of_its_queue(at: At) -> None:
    place = await at.rest("c1")
    price = at.price(-0.5)
    at.site.rival(at.symbol, Side.BUY, at.qty, price)
    at.amend(place, price, at.qty)
    amended = await at.about("c1", OrderAmended)
    assert (amended.price, amended.qty) == (price, at.qty)
    at.take(price, at.qty)
    found = await at.found("c1")
    assert (found.price, found.qty, found.filled) == (price, at.qty, NOTHING)


@behaviour("amend: less at the same price, the venue's rule", absent=NOT_IN_PLACE)
async def test_an_amend_to_less_keeps_its_place_where_the_venue_has_it_so(at: At) -> None:
    price = await queue_of_two(at, at.qty)
    await at.about("c1", OrderAccepted)
    at.send(AmendOrder("c1", at.symbol, Side.BUY, price, at.qty / 2))
    amended = await at.about("c1", OrderAmended)
    assert (amended.price, amended.qty) == (price, at.qty / 2)
    at.take(price, at.qty / 2)
    found = await at.found("c1")
    assert found.filled == (at.qty / 2 if at.column.keeps_place else 0)


@behaviour("amend: more, to the end of the queue", absent=NOT_IN_PLACE)
async def test_an_amend_to_more_goes_to_the_end_of_the_queue(at: At) -> None:
    price = await queue_of_two(at, at.qty)
    await at.about("c1", OrderAccepted)
    at.send(AmendOrder("c1", at.symbol, Side.BUY, price, at.qty * 2))
    amended = await at.about("c1", OrderAmended)
    assert (amended.price, amended.qty) == (price, at.qty * 2)
    at.take(price, at.qty)
    found = await at.found("c1")
    assert (found.qty, found.filled) == (at.qty * 2, NOTHING)


@behaviour("amend: of a done order, refused", absent=NOT_IN_PLACE)
async def test_an_amend_of_an_order_that_is_done_is_refused(at: At) -> None:
    place = await at.rest("c1")
    at.cancel("c1")
    await at.about("c1", OrderCancelled)
    at.amend(place, at.price(25), at.qty)
    refused = await at.about("c1", AmendRejected)
    assert refused.reason is RejectReason.UNKNOWN_ORDER


@behaviour("amend: off the grid, the order stays as it is", absent=NOT_IN_PLACE)
async def test_an_amend_that_is_refused_leaves_the_order_as_it_is(at: At) -> None:
    place = await at.rest("c1")
    tick = at.instruments[at.symbol].tick_size
    at.amend(place, at.price(25) + tick / 2, at.qty)
    refused = await at.about("c1", AmendRejected)
    assert refused.reason is RejectReason.INVALID_PRICE
    found = await at.found("c1")
    assert (found.price, found.status) == (place.price, OrderStatus.OPEN)


@behaviour("amend: support is told before it is tried")
async def test_what_amends_the_venue_has_is_told_and_kept(at: At) -> None:
    place = await at.rest("c1")
    if at.adapter.amend_support is AmendSupport.NONE:
        with pytest.raises(ExchangeError, match="nothing was sent"):
            at.amend(place, at.price(25), at.qty)
        assert at.site.open_ids() == {"c1"}
    else:
        at.amend(place, at.price(25), at.qty)
        await at.about("c1", OrderAmended)


@behaviour("cancel: of a part-filled order tells what filled")
async def test_a_cancel_of_a_part_filled_order_tells_what_was_filled(at: At) -> None:
    place = await at.rest("c1", steps=-0.5)
    assert place.price is not None
    at.take(place.price, at.qty / 2)
    await at.about("c1", OrderFilled)
    at.cancel("c1")
    cancelled = await at.about("c1", OrderCancelled)
    assert cancelled.filled == at.qty / 2 == at.filled("c1")


@behaviour("cancel: of a done order, refused")
async def test_a_cancel_of_an_order_that_is_done_is_refused(at: At) -> None:
    await at.rest("c1")
    at.cancel("c1")
    await at.about("c1", OrderCancelled)
    at.cancel("c1")
    refused = await at.about("c1", CancelRejected)
    assert refused.reason is RejectReason.UNKNOWN_ORDER
    at.cancel("never")
    refused = await at.about("never", CancelRejected)
    assert refused.reason is RejectReason.UNKNOWN_ORDER


@behaviour("cancel all: of one turn, nothing stays")
async def test_cancels_of_everything_in_one_turn_leave_nothing_open(at: At) -> None:
    ids = [f"c{number}" for number in range(5)]
    for number, client_id in enumerate(ids):
        await at.rest(client_id, steps=20 + number)
    for client_id in ids:
        at.cancel(client_id)
    for client_id in ids:
        assert (await at.about(client_id, OrderCancelled)).filled == 0
    assert not at.site.open_ids() and not at.host.of(CancelRejected)


@behaviour("batch: each of a turn has its own outcome")
async def test_of_several_commands_in_one_turn_each_has_its_own_outcome(at: At) -> None:
    await at.rest("c1")
    await at.rest("c2", steps=21)
    at.place("c3", steps=22)
    at.cancel("c1")
    at.cancel("gone")
    at.place("poor", qty=at.qty * 1_000_000)
    at.cancel("c2")
    assert (await at.about("gone", CancelRejected)).reason is RejectReason.UNKNOWN_ORDER
    await at.about("poor", OrderRejected)
    for client_id in ("c1", "c2"):
        await at.about(client_id, OrderCancelled)
    await at.about("c3", OrderAccepted)
    assert at.site.open_ids() == {"c3"}


@behaviour("client id: the longest of ours is taken")
async def test_the_longest_of_our_ids_comes_back_as_it_was(at: At) -> None:
    longest = ClientIdMaker("tandem", 16**7 - 1, 16**3 - 1)
    client_id = longest.make()
    client_id += "f" * (32 - len(client_id))
    at.place(client_id)
    await at.about(client_id, OrderAccepted)
    found = await at.found(client_id)
    assert found.client_id == client_id
    at.cancel(client_id)
    await at.about(client_id, OrderCancelled)


@behaviour("client id: a duplicate is not a second order")
async def test_a_client_id_that_is_in_use_makes_no_second_order(at: At) -> None:
    first = await at.rest("c1")
    await at.about("c1", OrderAccepted)
    at.place("c1", steps=30)
    told = await at.about("c1", OrderRejected, RequestUnanswered)
    # Refused as what it is, or in doubt: then asking finds the first one, which is ours.
    if isinstance(told, OrderRejected):
        assert told.reason is RejectReason.DUPLICATE_ID
    found = await at.found("c1")
    assert found.price == first.price
    assert [record.order.price for record in at.site.records.open()] == [first.price]
