"""The look at both orders of a quote at once answers as the checks of one and then the other do."""

import math
from decimal import Decimal
from typing import NamedTuple

from hypothesis import example, given
from hypothesis import strategies as st
from test_risk import BUY, MS, NOW, SECOND, SELL, Desk

from host.api import BookTop

LIMITS = {
    "node": {"max_orders_per_second": 4, "price_collar_bps": 100.0, "max_data_age_ms": 500},
    "instances": {"mm": {"max_order_notional": "103", "max_orders_per_second": 5}},
}


class Look(NamedTuple):
    """Two orders that are to move, the market by then, and the time since the look before."""

    buy: int
    sell: int
    bid: float
    ask: float
    age_ms: int = 0
    wait_ms: int = 300
    is_killed: bool = False
    qty: str = "1"


CENT = Decimal("0.01")
MARKETS = st.sampled_from([(99.0, 101.0), (97.0, 103.0), (99.99, 100.0), (0.0, 200.0), (-1.0, 201.0)])
odd = st.sampled_from([0.0, -1.0, math.nan, math.inf, -math.inf])
looks = st.builds(
    lambda buy, sell, market, *rest: Look(buy, sell, *market, *rest),
    st.integers(9_700, 10_300),
    st.integers(9_700, 10_300),
    MARKETS | MARKETS | MARKETS | st.tuples(odd, st.just(101.0)) | st.tuples(st.just(99.0), odd),
    st.sampled_from([0, 0, 0, 500, 501]),
    st.sampled_from([1, 100, 400, 1000]),
    st.sampled_from([False] * 9 + [True]),
    st.sampled_from(["1"] * 9 + ["1.05"]),
)


def desk_of_two_orders() -> tuple[Desk, Desk]:
    """Return two engines that know the same two resting orders and have passed their size."""
    desks = Desk(LIMITS), Desk(LIMITS)
    for desk in desks:
        assert desk.check(BUY, "99.50") is None
        desk.rest(BUY, "99.50")
        desk.rest(SELL, "100.50")
    return desks


@given(st.lists(looks, max_size=20))
@example([Look(9_950, 10_050, 99.0, 101.0)])
@example([Look(10_101, 10_102, 99.0, 101.0)])
@example([Look(9_890, 9_895, 99.0, 101.0), *[Look(9_950, 10_050, 99.0, 101.0, wait_ms=1)] * 2])
@example([Look(9_950, 10_050, 0.0, 200.0)])
@example([Look(9_950, 10_050, 99.0, 101.0, qty="1.05")])
@example([Look(9_898, 9_899, 99.0, 101.0)])
@example([Look(9_950, 10_150, 97.0, 103.0), Look(10_050, 10_099, 97.0, 103.0)])
@example([Look(9_950, 10_050, 99.0, 101.0, wait_ms=1)] * 3)
def test_a_pair_passes_only_where_both_orders_would_and_is_counted_alike(story: list[Look]) -> None:
    quick, plain = desk_of_two_orders()
    now_ns = NOW + SECOND
    for look in story:
        now_ns += look.wait_ms * MS
        top = BookTop("BTC-USDT", look.bid, 10.0, look.ask, 10.0, now_ns, now_ns - look.age_ms * MS)
        prices = look.buy * CENT, look.sell * CENT
        qty = Decimal(look.qty)
        for desk in (quick, plain):
            desk.engine.set_kill("node", look.is_killed, "test")
            for order in desk.orders.values():
                order.qty = qty
        lane, other = quick.lane(), plain.lane()
        passed = lane.pass_repriced_pair(look.buy * 0.01, look.sell * 0.01, qty, top, now_ns)
        answers = [
            other.check_reprice(order, price, top, now_ns)
            for order, price in zip(plain.orders.values(), prices, strict=True)
        ]
        if passed:
            assert answers == [None, None]
        else:  # nothing was counted: asked one after the other it says the same
            assert answers == [
                lane.check_reprice(order, price, top, now_ns)
                for order, price in zip(quick.orders.values(), prices, strict=True)
            ]


def test_an_ordinary_pair_passes() -> None:
    quick, _ = desk_of_two_orders()
    top = BookTop("BTC-USDT", 99.0, 10.0, 101.0, 10.0, NOW, NOW)
    assert quick.lane().pass_repriced_pair(99.4, 100.6, Decimal(1), top, NOW + SECOND // 2)
