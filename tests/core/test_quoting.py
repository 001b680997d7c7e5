"""From wanted quotes to the next step of each slot: rounding, tolerance, waiting, backing off."""

from decimal import Decimal
from math import inf, nan

import pytest
from core_tools import BTC, BUY, SELL, both, instrument, top
from hypothesis import given
from hypothesis import strategies as st

from host.api import BookTop, Order, OrderStatus, OrderType, Quote, Side, TimeInForce
from host.core.quoting import FIRST_BACKOFF_NS, MAX_BACKOFF_NS, QuoteLane, Slot, Step

D = Decimal
S = OrderStatus
TICKS = ["0.5", "0.1", "0.01", "0.00001", "1", "25", "0.0003"]


def lane(tick: str = "0.5", *, bps: float = 0.0, ticks: int = 0, **more: object) -> QuoteLane:
    return QuoteLane(instrument(tick_size=D(tick), **more), bps, ticks)


def wanted(lane: QuoteLane, side: Side, level: int = 0) -> Decimal | None:
    slot = lane.slot(side, level)
    return lane.price(slot.wanted_ticks) if slot.wanted_ticks else None


def working(
    lane: QuoteLane,
    price: str,
    qty: str = "1",
    *,
    side: Side = BUY,
    status: OrderStatus = S.OPEN,
    filled: str = "0",
) -> Slot:
    """Return a slot whose order is in the market, or on its way there."""
    slot = lane.slot(side, 0)
    gtc = TimeInForce.GTC
    slot.order = Order(
        "td1", "mm", "acc", BTC, side, OrderType.LIMIT, gtc, D(price), D(qty), status, D(filled), slot=0
    )
    slot.sent_ticks = lane.ticks(D(price))
    return slot


def step(lane: QuoteLane, slot: Slot, now_ns: int = 0) -> Step:
    return slot.step(lane.tolerance(slot.wanted_ticks), now_ns)


# -- prices and sizes ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tick", "bid", "ask", "rounded"),
    [
        ("0.5", 99.7, 100.2, ("99.5", "100.5")),
        ("0.5", 99.5, 100.5, ("99.5", "100.5")),
        ("0.1", 0.3, 0.3, ("0.3", "0.3")),
        ("0.1", 0.7, 0.7, ("0.7", "0.7")),
        ("0.1", 0.1 + 0.2, 0.1 + 0.2, ("0.3", "0.3")),
        ("0.01", 61800.29, 61800.31, ("61800.29", "61800.31")),
        ("0.00001", 0.03417, 0.03418, ("0.03417", "0.03418")),
        ("25", 99.0, 101.0, ("75", "125")),
    ],
)
def test_a_bid_is_rounded_down_and_an_ask_up_to_the_tick(
    tick: str, bid: float, ask: float, rounded: tuple[str, str]
) -> None:
    quoting = lane(tick)
    assert quoting.want(0, both(bid, ask), None) == ""
    assert (wanted(quoting, BUY), wanted(quoting, SELL)) == (D(rounded[0]), D(rounded[1]))


@given(
    tick=st.sampled_from(TICKS),
    count=st.integers(1, 10**7),
)
def test_a_price_on_the_grid_stays_where_it_is(tick: str, count: int) -> None:
    quoting = lane(tick)
    price = float(count * D(tick))
    quoting.want(0, both(price, price), None)
    assert wanted(quoting, BUY) == wanted(quoting, SELL) == count * D(tick)
    assert quoting.ticks(count * D(tick)) == count


@given(
    tick=st.sampled_from(TICKS),
    price=st.floats(1e-3, 1e6),
    best=st.integers(2, 10**6),
    spread=st.integers(1, 50),
)
def test_a_quote_never_crosses_the_top_and_never_betters_the_wish(
    tick: str, price: float, best: int, spread: int
) -> None:
    quoting = lane(tick)
    book = BookTop(BTC, float(best * D(tick)), 1.0, float((best + spread) * D(tick)), 1.0)
    quoting.want(0, both(price, price), book)
    bid, ask = wanted(quoting, BUY), wanted(quoting, SELL)
    slack = D(tick) * D("0.001")
    if bid is not None:
        assert bid <= D(price) + slack
        assert bid < (best + spread) * D(tick)
    assert ask is not None
    assert ask >= D(price) - slack
    assert ask > best * D(tick)


def test_a_bid_through_the_ask_rests_one_tick_below_it_and_an_ask_one_above_the_bid() -> None:
    quoting = lane()
    quoting.want(0, both(150.0, 50.0), top(100.0))
    assert (wanted(quoting, BUY), wanted(quoting, SELL)) == (D(100), D(100))


def test_sizes_are_rounded_down_to_the_lot() -> None:
    quoting = lane()
    quoting.want(0, Quote(99.0, D("1.29"), 101.0, D("0.09")), None)
    assert quoting.bids[0].wanted_qty == D("1.2")
    assert wanted(quoting, SELL) is None  # less than one lot is nothing


@pytest.mark.parametrize("price", [nan, inf, -inf, 0.0, -1.0, 1e308])
def test_a_price_that_is_none_is_named_and_nothing_is_wanted_there(price: float) -> None:
    quoting = lane()
    quoting.want(0, both(99.0, 101.0), None)
    assert quoting.want(0, both(price, 102.0), None) == f"bid price must be a positive number, was {price!r}"
    assert (wanted(quoting, BUY), wanted(quoting, SELL)) == (None, D(102))
    assert quoting.want(0, both(98.0, price), None) == f"ask price must be a positive number, was {price!r}"
    assert (wanted(quoting, BUY), wanted(quoting, SELL)) == (D(98), None)


@pytest.mark.parametrize("qty", ["NaN", "sNaN", "Infinity", "-Infinity"])
def test_a_size_that_is_none_is_named_and_nothing_is_wanted_there(qty: str) -> None:
    quoting = lane()
    assert quoting.want(0, Quote(99.0, D(qty), 101.0, D(1)), None) == (
        f"bid quantity must be a number, was {qty}"
    )
    assert (wanted(quoting, BUY), wanted(quoting, SELL)) == (None, D(101))
    assert quoting.want(0, Quote(99.0, D(1), 101.0, D(qty)), None) == (
        f"ask quantity must be a number, was {qty}"
    )
    assert (wanted(quoting, BUY), wanted(quoting, SELL)) == (D(99), None)


@pytest.mark.parametrize("qty", ["0", "-1"])
def test_no_size_or_no_price_leaves_a_side_empty(qty: str) -> None:
    quoting = lane()
    quoting.want(0, both(99.0, 101.0), None)
    assert quoting.want(0, Quote(99.0, D(qty), None, D(1)), None) == ""
    assert (wanted(quoting, BUY), wanted(quoting, SELL)) == (None, None)


def test_levels_are_kept_apart() -> None:
    quoting = lane()
    quoting.grow(3)
    for level in range(3):
        quoting.want(level, both(99.0 - level, 101.0 + level), None)
    assert [wanted(quoting, BUY, level) for level in range(3)] == [D(99), D(98), D(97)]
    assert [wanted(quoting, SELL, level) for level in range(3)] == [D(101), D(102), D(103)]
    assert [(slot.side, slot.level) for slot in quoting.slots()] == [
        *((BUY, level) for level in range(3)),
        *((SELL, level) for level in range(3)),
    ]


# -- steps ---------------------------------------------------------------------------------------


def test_an_empty_slot_places_what_is_wanted_and_else_does_nothing() -> None:
    quoting = lane()
    slot = quoting.bids[0]
    assert step(quoting, slot) is Step.NOTHING
    quoting.want(0, both(99.0, None), None)
    assert step(quoting, slot) is Step.PLACE


def test_a_wobble_within_the_tolerance_sends_nothing() -> None:
    quoting = lane(ticks=1)
    slot = working(quoting, "99")
    for price, expected in [
        (99.0, Step.NOTHING),
        (99.5, Step.NOTHING),
        (98.5, Step.NOTHING),
        (100.0, Step.AMEND),
    ]:
        quoting.want(0, both(price, None), None)
        assert step(quoting, slot) is expected


def test_the_tolerance_is_the_larger_of_bps_and_ticks() -> None:
    quoting = lane("0.01", bps=10.0, ticks=3)
    assert quoting.tolerance(1000) == 3
    assert quoting.tolerance(10_000) == 10


def test_a_slot_without_a_wish_cancels_what_is_not_yet_being_cancelled() -> None:
    quoting = lane()
    for status in (S.PENDING_NEW, S.OPEN, S.PARTIALLY_FILLED, S.PENDING_AMEND):
        assert step(quoting, working(quoting, "99", status=status)) is Step.CANCEL
    for status in (S.PENDING_CANCEL, S.UNKNOWN):
        assert step(quoting, working(quoting, "99", status=status)) is Step.NOTHING


@pytest.mark.parametrize("status", [S.PENDING_NEW, S.PENDING_CANCEL, S.PENDING_AMEND, S.UNKNOWN])
def test_a_slot_waits_while_its_last_request_is_unanswered(status: OrderStatus) -> None:
    quoting = lane()
    slot = working(quoting, "99", status=status)
    quoting.want(0, both(95.0, None), None)
    assert step(quoting, slot) is Step.NOTHING


def test_another_size_is_amended_without_tolerance() -> None:
    quoting = lane(ticks=5)
    slot = working(quoting, "99", "1")
    quoting.want(0, both(99.0, None, "1.1"), None)
    assert step(quoting, slot) is Step.AMEND


@pytest.mark.parametrize(
    ("filled", "expected"),
    [("0.5", Step.NOTHING), ("0.1", Step.NOTHING), ("0.6", Step.AMEND), ("0.9", Step.AMEND)],
)
def test_a_part_fill_is_topped_up_once_less_than_half_is_left(filled: str, expected: Step) -> None:
    quoting = lane()
    slot = working(quoting, "99", "1", status=S.PARTIALLY_FILLED, filled=filled)
    quoting.want(0, both(99.0, None, "1"), None)
    assert step(quoting, slot) is expected


def test_a_part_fill_with_more_left_than_wanted_is_cut() -> None:
    quoting = lane()
    slot = working(quoting, "99", "2", status=S.PARTIALLY_FILLED, filled="0.5")
    quoting.want(0, both(99.0, None, "1"), None)
    assert step(quoting, slot) is Step.AMEND


def test_backing_off_doubles_up_to_a_limit_and_never_delays_a_cancel() -> None:
    quoting = lane()
    slot = working(quoting, "99")
    delays = []
    for _ in range(10):
        slot.back_off(0)
        delays.append(slot.backoff_until_ns)
    assert delays[:3] == [FIRST_BACKOFF_NS, 2 * FIRST_BACKOFF_NS, 4 * FIRST_BACKOFF_NS]
    assert delays[-1] == MAX_BACKOFF_NS
    quoting.want(0, both(98.0, None), None)
    assert step(quoting, slot, MAX_BACKOFF_NS - 1) is Step.NOTHING
    assert step(quoting, slot, MAX_BACKOFF_NS) is Step.AMEND
    slot.clear()
    assert step(quoting, slot, 0) is Step.CANCEL


def test_backing_off_delays_the_next_order() -> None:
    quoting = lane()
    quoting.want(0, both(99.0, None), None)
    slot = quoting.bids[0]
    slot.back_off(0)
    assert step(quoting, slot, FIRST_BACKOFF_NS - 1) is Step.NOTHING
    assert step(quoting, slot, FIRST_BACKOFF_NS) is Step.PLACE
