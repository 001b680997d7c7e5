"""Accounting against the identities that define it and against an independent model in fractions."""

import decimal
from decimal import Decimal
from fractions import Fraction

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from host.api import Instrument, InstrumentKind, Side
from host.core.accounting import (
    STEP,
    AccountingError,
    Holding,
    apply_fill,
    average_price,
    balance_changes,
    fees_in_settle,
    signed_value,
    start_day,
    total,
    unrealised,
)

DAY_NS = 86_400_000_000_000


def make_instrument(kind: InstrumentKind, contract_size: str = "1") -> Instrument:
    return Instrument(
        symbol="BTC-USDT",
        kind=kind,
        base="BTC",
        quote="USDT",
        tick_size=Decimal("0.01"),
        lot_size=Decimal("0.00001"),
        contract_size=Decimal(contract_size),
    )


SPOT = make_instrument(InstrumentKind.SPOT)
LINEAR = make_instrument(InstrumentKind.LINEAR, "0.001")
INVERSE = make_instrument(InstrumentKind.INVERSE, "100")

Fills = list[tuple[Side, Decimal, Decimal]]
prices = st.decimals(min_value="0.00000001", max_value="999999.99999999", places=8)
quantities = st.decimals(min_value="0.00000001", max_value="99999.99999999", places=8)
few_quantities = st.sampled_from([Decimal(text) for text in ("1", "2", "3", "0.7", "0.00000001")])
"""Few enough that fills often bring a holding back to exactly flat."""
fills = st.lists(st.tuples(st.sampled_from(Side), prices, few_quantities | quantities), max_size=30)
instruments = st.sampled_from([SPOT, LINEAR, INVERSE])


def book(instrument: Instrument, sequence: Fills) -> tuple[Holding, list[Decimal]]:
    holding = Holding()
    return holding, [apply_fill(holding, instrument, side, price, qty) for side, price, qty in sequence]


def exact_sum(values: list[Decimal]) -> Fraction:
    return sum((Fraction(value) for value in values), Fraction(0))


def signed(side: Side, qty: Decimal) -> Decimal:
    return qty if side is Side.BUY else qty.copy_negate()


@given(instruments, fills, prices)
def test_realised_plus_unrealised_is_cash_plus_the_value_held(
    instrument: Instrument, sequence: Fills, mark: Decimal
) -> None:
    holding, realised = book(instrument, sequence)
    held = signed_value(instrument, mark, holding.qty)
    assert Fraction(holding.realised) + Fraction(unrealised(holding, instrument, mark)) == (
        Fraction(holding.cash) + Fraction(held)
    )
    assert Fraction(holding.realised) == exact_sum(realised)


@given(instruments, fills)
def test_quantity_and_cash_are_the_sums_of_the_fills(instrument: Instrument, sequence: Fills) -> None:
    holding, _ = book(instrument, sequence)
    values = [signed_value(instrument, price, signed(side, qty)) for side, price, qty in sequence]
    assert Fraction(holding.qty) == exact_sum([signed(side, qty) for side, _, qty in sequence])
    assert Fraction(holding.cash) == -exact_sum(values)
    assert Fraction(holding.volume) == exact_sum([qty for _, _, qty in sequence])
    assert holding.fills == len(sequence)


@given(instruments, fills, prices)
def test_closing_flat_leaves_no_cost_and_all_profit_realised(
    instrument: Instrument, sequence: Fills, price: Decimal
) -> None:
    holding, _ = book(instrument, sequence)
    if holding.qty:
        closing = Side.SELL if holding.qty > 0 else Side.BUY
        apply_fill(holding, instrument, closing, price, abs(holding.qty))
    assert holding.qty == 0
    assert holding.open_cost == 0
    assert holding.realised == holding.cash
    assert average_price(holding, instrument) == 0


@given(instruments, fills)
def test_average_cost_agrees_with_a_model_in_fractions(instrument: Instrument, sequence: Fills) -> None:
    holding, realised = book(instrument, sequence)
    size = Fraction(instrument.contract_size)
    qty, entry, profit = Fraction(0), Fraction(0), Fraction(0)  # entry: mean of price, or of 1/price

    for side, price, fill_qty in sequence:
        is_inverse = instrument.kind is InstrumentKind.INVERSE
        worth = 1 / Fraction(price) if is_inverse else Fraction(price)
        change = Fraction(signed(side, fill_qty))
        if qty * change >= 0:
            entry = (entry * abs(qty) + worth * abs(change)) / (abs(qty) + abs(change))
        else:
            closed = min(abs(qty), abs(change)) * (1 if qty > 0 else -1)
            gain = size * closed * (worth - entry)
            profit += -gain if is_inverse else gain
            if abs(change) > abs(qty):
                entry = worth
        qty += change

    # Each fill rounds at most two values by half a step, and a rounded cost is carried on.
    tolerance = Fraction(STEP) * 2 * (len(sequence) + 1)
    assert Fraction(holding.qty) == qty
    assert abs(exact_sum(realised) - profit) <= tolerance
    model_cost = size * qty * entry * (-1 if instrument.kind is InstrumentKind.INVERSE else 1)
    assert abs(Fraction(holding.open_cost) - model_cost) <= tolerance


@given(fills, prices, st.lists(st.sampled_from(["BTC", "USDT", "BNB"]), min_size=30, max_size=30))
def test_spot_balances_move_by_the_fills_and_their_fees(
    sequence: Fills, mark: Decimal, fee_currencies: list[str]
) -> None:
    holding, balances = Holding(), {"BTC": Fraction(0), "USDT": Fraction(0), "BNB": Fraction(0)}
    for (side, price, qty), currency in zip(sequence, fee_currencies, strict=False):
        fee = Decimal("0.00012345")
        realised = apply_fill(holding, SPOT, side, price, qty, fee, currency)
        for name, change in balance_changes(SPOT, side, price, qty, fee, currency, realised).items():
            balances[name] += Fraction(change)
    fees = {name: Fraction(fee) for name, fee in holding.fees.items()}
    assert balances["BTC"] == Fraction(holding.qty) - fees.get("BTC", 0)
    assert balances["USDT"] == Fraction(holding.cash) - fees.get("USDT", 0)
    assert balances["BNB"] == -fees.get("BNB", 0)
    # What the account would be worth, sold at the mark: the total says the same.
    assert Fraction(total(holding, SPOT, mark)) == balances["USDT"] + balances["BTC"] * Fraction(mark)


@given(fills)
def test_results_do_not_depend_on_the_threads_decimal_context(sequence: Fills) -> None:
    expected, _ = book(SPOT, sequence)
    with decimal.localcontext() as context:
        context.prec = 3
        context.rounding = decimal.ROUND_UP
        holding, _ = book(SPOT, sequence)
        marked = total(holding, SPOT, Decimal("123.456789"))
    assert holding == expected
    assert marked == total(expected, SPOT, Decimal("123.456789"))


def test_a_linear_position_is_worth_its_contracts() -> None:
    holding = Holding()
    apply_fill(holding, LINEAR, Side.BUY, Decimal(60000), Decimal(10))
    assert average_price(holding, LINEAR) == 60000
    assert unrealised(holding, LINEAR, Decimal(61000)) == 10  # 10 contracts × 0.001 BTC × 1000
    assert apply_fill(holding, LINEAR, Side.SELL, Decimal(61000), Decimal(4)) == 4
    assert holding.qty == 6


def test_an_inverse_long_earns_base_currency_when_the_price_rises() -> None:
    holding = Holding()
    apply_fill(holding, INVERSE, Side.BUY, Decimal(40000), Decimal(10))
    assert average_price(holding, INVERSE) == 40000
    # 10 contracts × 100 USD × (1/40000 − 1/50000)
    assert unrealised(holding, INVERSE, Decimal(50000)) == Decimal("0.005")
    assert apply_fill(holding, INVERSE, Side.SELL, Decimal(50000), Decimal(10)) == Decimal("0.005")


def test_an_inverse_average_is_the_harmonic_mean() -> None:
    holding, _ = book(
        INVERSE, [(Side.SELL, Decimal(40000), Decimal(1)), (Side.SELL, Decimal(60000), Decimal(1))]
    )
    assert average_price(holding, INVERSE) == 48000


def test_a_fill_beyond_flat_closes_all_and_opens_the_rest_at_its_own_price() -> None:
    holding = Holding()
    apply_fill(holding, SPOT, Side.BUY, Decimal(100), Decimal(2))
    assert apply_fill(holding, SPOT, Side.SELL, Decimal(110), Decimal(5)) == 20
    assert holding.qty == -3
    assert average_price(holding, SPOT) == 110


def test_fees_stay_in_their_own_currency_and_are_converted_at_the_mark() -> None:
    holding = Holding()
    apply_fill(holding, SPOT, Side.BUY, Decimal(100), Decimal(2), Decimal("0.002"), "BTC")
    apply_fill(holding, SPOT, Side.SELL, Decimal(100), Decimal(1), Decimal("0.1"), "USDT")
    apply_fill(holding, SPOT, Side.SELL, Decimal(100), Decimal(1), Decimal("-0.05"), "USDT")
    apply_fill(holding, SPOT, Side.SELL, Decimal(100), Decimal(1), Decimal("7"), "BNB")
    assert holding.fees == {"BTC": Decimal("0.002"), "USDT": Decimal("0.05"), "BNB": Decimal(7)}
    assert fees_in_settle(holding, SPOT, Decimal(200)) == Decimal("0.45")


def test_inverse_fees_in_quote_are_converted_to_base() -> None:
    holding = Holding()
    apply_fill(holding, INVERSE, Side.BUY, Decimal(40000), Decimal(1), Decimal("0.001"), "BTC")
    apply_fill(holding, INVERSE, Side.BUY, Decimal(40000), Decimal(1), Decimal("4"), "USDT")
    assert fees_in_settle(holding, INVERSE, Decimal(40000)) == Decimal("0.0011")


def test_a_derivative_moves_its_settlement_currency_by_profit_less_fee() -> None:
    changes = balance_changes(
        INVERSE, Side.SELL, Decimal(50000), Decimal(10), Decimal("0.001"), "BTC", Decimal("0.005")
    )
    assert changes == {"BTC": Decimal("0.004")}


@pytest.mark.parametrize(
    ("price", "qty"),
    [
        ("NaN", "1"),
        ("Infinity", "1"),
        ("0", "1"),
        ("1", "0"),
        ("1", "-1"),
        ("1." + "1" * 50, "1." + "1" * 50),
    ],
)
def test_a_fill_that_cannot_be_booked_exactly_is_refused_and_changes_nothing(price: str, qty: str) -> None:
    holding = Holding()
    apply_fill(holding, INVERSE, Side.BUY, Decimal(40000), Decimal(1), Decimal(1), "BTC")
    before = msgspec.msgpack.encode(holding)
    instrument = INVERSE if price == "0" else LINEAR
    with pytest.raises(AccountingError, match="fill of BTC-USDT"):
        apply_fill(holding, instrument, Side.BUY, Decimal(price), Decimal(qty), Decimal(1), "BTC")
    assert msgspec.msgpack.encode(holding) == before


def test_a_day_is_opened_once() -> None:
    holding = Holding()
    assert start_day(holding, 3 * DAY_NS + 5, Decimal(10))
    assert not start_day(holding, 4 * DAY_NS - 1, Decimal(11))
    assert not start_day(holding, 2 * DAY_NS, Decimal(12))
    assert holding.day_start == 10
    assert start_day(holding, 4 * DAY_NS, Decimal(13))
    assert (holding.day, holding.day_start) == (4, Decimal(13))


def test_a_holding_survives_encoding() -> None:
    holding, _ = book(
        SPOT, [(Side.BUY, Decimal("0.1"), Decimal("0.3")), (Side.SELL, Decimal(3), Decimal("0.1"))]
    )
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(holding), type=Holding) == holding
