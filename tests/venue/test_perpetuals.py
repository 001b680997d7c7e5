"""Worth, liquidation and funding of perpetual positions."""

from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from venue_tools import D, Venue, instrument, place

from host.api import InstrumentKind, Side
from venue.ledger import Funded, Ledger
from venue.perpetuals import MAINTENANCE_RATE, liquidation_price, position_value, unrealised_profit

LINEAR = instrument(InstrumentKind.LINEAR)
INVERSE = instrument(InstrumentKind.INVERSE, symbol="BTC-USD-PERP", quote="USD", contract_size=D(100))
_amounts = st.decimals("0.1", "1000", places=1)


@pytest.mark.parametrize("kind", [LINEAR, INVERSE])
@given(qty=_amounts, entry=_amounts, balance=_amounts, is_long=st.booleans())
def test_at_the_liquidation_price_nothing_but_the_maintenance_margin_is_left(
    kind: object, qty: Decimal, entry: Decimal, balance: Decimal, is_long: bool
) -> None:
    position = qty if is_long else -qty
    market = LINEAR if kind is LINEAR else INVERSE
    price = liquidation_price(market, position, entry, balance)
    if not price:
        return  # no price liquidates it
    left = balance + unrealised_profit(market, position, entry, price)
    margin = abs(position_value(market, position, price)) * MAINTENANCE_RATE

    assert abs(left - margin) <= (abs(left) + abs(margin) + balance) * Decimal("1e-20")


def test_position_that_its_balance_covers_down_to_nothing_is_never_liquidated() -> None:
    assert liquidation_price(LINEAR, D(1), D(100), D(100)) == 0
    assert liquidation_price(LINEAR, D(1), D(100), D(50)) > 0
    assert liquidation_price(LINEAR, D(0), D(100), D(50)) == 0


def test_profit_of_an_inverse_long_rises_with_the_price() -> None:
    assert unrealised_profit(INVERSE, D(10), D(100), D(200)) == 5
    assert unrealised_profit(INVERSE, D(-10), D(100), D(200)) == -5
    assert unrealised_profit(LINEAR, D(-10), D(100), D(90)) == 100


def test_funding_moves_money_between_the_sides_and_survives_a_restart(tmp_path: Path) -> None:
    def venue() -> Venue:
        return Venue(LINEAR, ledger=Ledger(tmp_path / "log"))

    running = venue()
    symbol = LINEAR.symbol
    running.send("a", place("maker", Side.SELL, "100", "2", symbol=symbol))
    running.send("b", place("taker", Side.BUY, "100", "1", symbol=symbol))
    running.send("b", place("bid", Side.BUY, "80", "1", symbol=symbol))
    before = {name: running.exchange.account(name).balances["USDT"] for name in "ab"}
    running.exchange.funding.schedule(1_000, D("0.01"), running.now_ns)
    running.exchange.step(running.now_ns + 1_000)
    after = {name: running.exchange.account(name).balances["USDT"] for name in "ab"}

    assert {name: after[name] - before[name] for name in "ab"} == {"a": D("0.9"), "b": D("-0.9")}
    assert [each.amount for each in running.exchange.funding.take()] == [D("0.9"), D("-0.9")]
    assert sum(isinstance(line, Funded) for line in Ledger(tmp_path / "log").history()) == 2
    again = venue()
    assert {name: again.exchange.account(name).balances["USDT"] for name in "ab"} == after


def test_leverage_of_a_symbol_goes_before_the_accounts() -> None:
    venue = Venue(LINEAR, balances={"USDT": D(100)})
    account = venue.exchange.account("a")
    account.set_leverage(LINEAR.symbol, D(50))
    venue.send("a", place("x", Side.BUY, "100", "10", symbol=LINEAR.symbol))

    assert account.leverage_of(LINEAR.symbol) == 50 and account.leverage_of("other") == 10
    assert account.margins(LINEAR.symbol) == (0, 20) and account.locked("USDT") == 20
    assert account.order_values(LINEAR.symbol) == (1000, 0)
