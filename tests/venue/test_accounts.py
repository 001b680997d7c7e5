"""Accounts: what orders lock, what fills move, and that nothing is lost or made."""

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from venue_tools import instrument

from host.api import InstrumentKind, OrderType, Side, TimeInForce
from venue.accounts import Account
from venue.market import VenueOrder

D = Decimal
SPOT = instrument()
LINEAR = instrument(InstrumentKind.LINEAR)
INVERSE = instrument(InstrumentKind.INVERSE, lot_size=D(1), contract_size=D(100))


def order(side: Side, price: str, qty: str, order_id: int = 1) -> VenueOrder:
    return VenueOrder(order_id, "a", "c", "s", side, OrderType.LIMIT, TimeInForce.GTC, D(price), D(qty))


def test_spot_bid_locks_its_cost_and_the_fee() -> None:
    account = Account("a", {"USDT": D(1000)})
    bid = order(Side.BUY, "100", "2")

    account.lock(SPOT, bid)
    assert account.locked("USDT") == D("200.4")

    bid.filled = D(1)
    account.lock(SPOT, bid)
    assert account.locked("USDT") == D("100.2")

    bid.is_open = False
    account.lock(SPOT, bid)
    assert account.locked("USDT") == 0


def test_spot_order_beyond_the_balance_falls_short_by_the_difference() -> None:
    account = Account("a", {"USDT": D(100), "BTC": D(1)})

    assert account.shortfall(SPOT, order(Side.BUY, "100", "1"), D(100), D(1)) == D("0.2")
    assert account.shortfall(SPOT, order(Side.SELL, "100", "1.5"), D(100), D("1.5")) == D("0.5")
    assert account.shortfall(SPOT, order(Side.SELL, "100", "1"), D(100), D(1)) == 0


def test_amended_order_may_use_what_it_already_locks() -> None:
    account = Account("a", {"USDT": D("100.2")})
    bid = order(Side.BUY, "100", "1")
    account.lock(SPOT, bid)

    assert account.shortfall(SPOT, bid, D(99), D(1)) == 0
    assert account.shortfall(SPOT, bid, D(101), D(1)) == D("1.002")


@pytest.mark.parametrize(
    ("in_base", "fee", "usdt", "btc"), [(False, "0.2", "899.8", "1"), (True, "0.002", "900", "0.998")]
)
def test_spot_buy_pays_its_fee_in_quote_or_base(in_base: bool, fee: str, usdt: str, btc: str) -> None:
    account = Account("a", {"USDT": D(1000)}, is_fee_in_base=in_base)

    paid, currency = account.fee_for(SPOT, Side.BUY, D(100), D(1), SPOT.taker_fee)
    account.apply_fill(SPOT, Side.BUY, D(100), D(1), paid, currency)

    assert (paid, currency) == (D(fee), "BTC" if in_base else "USDT")
    assert account.balances == {"USDT": D(usdt), "BTC": D(btc)}


def test_linear_profit_is_realised_when_the_position_closes() -> None:
    account = Account("a", {"USDT": D(1000)})
    account.apply_fill(LINEAR, Side.BUY, D(100), D(2), D(0), "USDT")
    account.apply_fill(LINEAR, Side.SELL, D(110), D(1), D(0), "USDT")

    assert account.balances["USDT"] == 1010
    [position] = account.snapshot(0).positions
    assert (position.qty, position.entry_price) == (D(1), D(100))


def test_position_that_turns_over_takes_the_new_price() -> None:
    account = Account("a", {"USDT": D(1000)})
    account.apply_fill(LINEAR, Side.BUY, D(100), D(1), D(0), "USDT")
    account.apply_fill(LINEAR, Side.SELL, D(90), D(3), D(0), "USDT")

    assert account.balances["USDT"] == 990
    [position] = account.snapshot(0).positions
    assert (position.qty, position.entry_price) == (D(-2), D(90))


def test_inverse_profit_is_paid_in_the_base_currency() -> None:
    # 10 contracts of 100 USDT: 0.1 BTC at 10,000 and 0.05 BTC at 20,000.
    account = Account("a", {"BTC": D(1)})
    account.apply_fill(INVERSE, Side.BUY, D(10_000), D(10), D(0), "BTC")
    [position] = account.snapshot(0).positions
    account.apply_fill(INVERSE, Side.SELL, D(20_000), D(10), D(0), "BTC")

    assert position.entry_price == 10_000
    assert account.balances["BTC"] == D("1.05")


def test_margin_counts_the_worse_side_once() -> None:
    account = Account("a", {"USDT": D(100)}, leverage=D(10))
    account.apply_fill(LINEAR, Side.BUY, D(100), D(2), D(0), "USDT")
    account.lock(LINEAR, order(Side.BUY, "100", "1", 1))
    account.lock(LINEAR, order(Side.SELL, "100", "3", 2))

    # Long 200 and bids 100 make 300; asks 300 less the 200 they close make 100.
    assert account.locked("USDT") == 30


def test_position_can_be_closed_without_free_funds() -> None:
    account = Account("a", {"USDT": D(20)}, leverage=D(10))
    account.apply_fill(LINEAR, Side.BUY, D(100), D(2), D(0), "USDT")

    assert account.free("USDT") == 0
    assert account.shortfall(LINEAR, order(Side.SELL, "100", "2"), D(100), D(2)) == 0
    assert account.shortfall(LINEAR, order(Side.BUY, "100", "0.1"), D(100), D("0.1")) == 1


_trades = st.lists(
    st.tuples(st.sampled_from(Side), st.integers(1, 400), st.integers(1, 30)), min_size=1, max_size=25
)


@given(_trades, st.sampled_from([SPOT, LINEAR, INVERSE]))
def test_two_sides_of_the_same_trades_conserve_every_currency(
    trades: list[tuple[Side, int, int]], traded: object
) -> None:
    assert traded in (SPOT, LINEAR, INVERSE)
    market = next(each for each in (SPOT, LINEAR, INVERSE) if each is traded)
    start = {"USDT": D(1000), "BTC": D(1000)}
    one, other = Account("one", start), Account("other", start)
    paid = {"USDT": D(0), "BTC": D(0)}
    prices = []
    for side, half_ticks, lots in trades:
        price, qty = half_ticks * market.tick_size, lots * market.lot_size
        prices.append(price)
        for account, own_side, rate in (
            (one, side, market.maker_fee),
            (other, side.opposite, market.taker_fee),
        ):
            fee, currency = account.fee_for(market, own_side, price, qty, rate)
            account.apply_fill(market, own_side, price, qty, fee, currency)
            paid[currency] += fee
    position = one.position(market.symbol)
    assert position == -other.position(market.symbol)
    if position:
        # Close both at the same price, so that all profit is realised.
        side = Side.SELL if position > 0 else Side.BUY
        for account, own_side in ((one, side), (other, side.opposite)):
            account.apply_fill(market, own_side, prices[-1], abs(position), D(0), market.settle)
    for currency, amount in paid.items():
        assert one.balances[currency] + other.balances[currency] + amount == 2000
