"""Exact accounting of one holding: quantity, cost, cash, profit and fees, in Decimal.

One idea carries it all: the *signed value* of a quantity, in settlement currency. For spot and
linear contracts it is quantity × contract size × price; for inverse contracts it is −quantity ×
contract size / price, because being long them is being short of base currency per unit of quote.
A fill moves its signed value from `cash` to the holding, average cost decides how much of the
holding's `open_cost` a reduction releases, and so at every mark, to the last digit:

    realised + unrealised(mark) = cash + signed value of qty at mark
    realised = cash + open_cost

All sums and products are exact: the context traps `Inexact`, and never the calling thread's own
context is used. The two divisions (inverse values, released cost) are rounded half-even to `STEP`
once, and what was rounded is booked on both sides, so that nothing is ever lost between them.
Venues book inverse profit in 1E-8 of a coin; their rounding of each fill, at most half of that,
stays in the balances that they report and not in here.
"""

from decimal import (
    ROUND_HALF_EVEN,
    Context,
    Decimal,
    DecimalException,
    DivisionByZero,
    Inexact,
    InvalidOperation,
    Overflow,
)

from msgspec import Struct

from host.api import Instrument, InstrumentKind, Side, TandemError

__all__ = [
    "EXACT",
    "STEP",
    "AccountingError",
    "Holding",
    "apply_fill",
    "average_price",
    "balance_changes",
    "exact_add",
    "fees_in_settle",
    "signed_value",
    "start_day",
    "total",
    "unrealised",
]

STEP = Decimal("1E-18")
"""Smallest amount that a division is rounded to, ten digits below what venues book."""

_DAY_NS = 86_400_000_000_000
_ZERO = Decimal(0)
_TRAPS = [InvalidOperation, DivisionByZero, Overflow]
EXACT = Context(prec=60, rounding=ROUND_HALF_EVEN, traps=[*_TRAPS, Inexact])
# Plain operators (and unary minus) round to the thread's context: only copy_negate() is used on money.
# Rounding to STEP needs a context that may be inexact; 80 digits keep the division itself far
# below the step for every value that EXACT can hold.
_ROUNDED = Context(prec=80, rounding=ROUND_HALF_EVEN, traps=_TRAPS)
_DISPLAY = Context(prec=15, rounding=ROUND_HALF_EVEN, traps=_TRAPS)
_add, _subtract, _multiply = EXACT.add, EXACT.subtract, EXACT.multiply


def exact_add(left: Decimal, right: Decimal) -> Decimal:
    """Return the sum to the last digit; raise `Inexact` rather than round."""
    return _add(left, right)


class AccountingError(TandemError):
    """A fill cannot be booked exactly: a price or quantity is not a sane number. Nothing changed."""


class Holding(Struct):
    """What a series of fills in one symbol built up; an instance and its account each keep one.

    `qty` is signed, in base units (contracts for inverse), and counts fills alone: a fee taken in
    the base currency of a spot symbol stands in `fees`, not here. `open_cost` is the signed cost of
    `qty` and `cash` the net flow of all fills before fees, both in settlement currency.
    `volume` is the traded quantity. `day` (days since the Unix epoch) and `day_start` are the last
    UTC day that `start_day` opened and the total profit at that moment.
    """

    qty: Decimal = _ZERO
    open_cost: Decimal = _ZERO
    cash: Decimal = _ZERO
    fees: dict[str, Decimal] = {}
    volume: Decimal = _ZERO
    fills: int = 0
    day: int = 0
    day_start: Decimal = _ZERO

    @property
    def realised(self) -> Decimal:
        """Return the profit of what was closed, in settlement currency, before fees."""
        return _add(self.cash, self.open_cost)


def signed_value(instrument: Instrument, price: Decimal, qty: Decimal) -> Decimal:
    """Return what `qty` at `price` is worth in settlement currency; negative for an inverse long.

    Raises `DecimalException` where the product is not exact in 60 digits, or `price` is 0 (inverse).
    """
    if instrument.kind is InstrumentKind.INVERSE:
        return _divide(_multiply(qty, instrument.contract_size).copy_negate(), price)
    value = _multiply(price, qty)
    return value if instrument.contract_size == 1 else _multiply(value, instrument.contract_size)


def apply_fill(
    holding: Holding,
    instrument: Instrument,
    side: Side,
    price: Decimal,
    qty: Decimal,
    fee: Decimal = _ZERO,
    fee_currency: str = "",
) -> Decimal:
    """Book one fill and return the profit that it realised, in settlement currency, before fees.

    `qty` is positive; `fee` is positive when paid. A fill beyond flat closes the whole position and
    opens the other way with the rest. Raises `AccountingError` and leaves `holding` as it was.
    """
    try:
        signed_qty = qty if side is Side.BUY else qty.copy_negate()
        value = signed_value(instrument, price, signed_qty)
        held, cost = holding.qty, holding.open_cost
        new_qty = _add(held, signed_qty)
        if (held >= 0) is (signed_qty >= 0) or not held:
            new_cost = _add(cost, value)
        elif not new_qty:
            new_cost = _ZERO
        elif (new_qty > 0) is (held > 0):
            # A reduction releases the same share of the cost as of the quantity.
            new_cost = _add(cost, _divide(_ROUNDED.multiply(cost, signed_qty), held))
        else:
            new_cost = signed_value(instrument, price, new_qty)
        new_cash = _subtract(holding.cash, value)
        realised = _subtract(_subtract(new_cost, cost), value)
        new_volume = _add(holding.volume, qty)
        if not (qty > 0 and new_cost.is_finite() and new_cash.is_finite() and fee.is_finite()):
            raise InvalidOperation("not a number to account with")  # quiet NaNs trap nothing
        if fee:
            new_fee = _add(holding.fees.get(fee_currency, _ZERO), fee)
            holding.fees[fee_currency] = new_fee
    except DecimalException as error:
        raise AccountingError(
            f"fill of {instrument.symbol}: price and quantity must be above 0 and their product exact in "
            f"{EXACT.prec} digits, was {side} {qty} at {price}, fee {fee}; check the venue's report"
        ) from error
    holding.qty, holding.open_cost, holding.cash = new_qty, new_cost, new_cash
    holding.volume = new_volume
    holding.fills += 1
    return realised


def unrealised(holding: Holding, instrument: Instrument, mark: Decimal) -> Decimal:
    """Return the profit of the open quantity at `mark`, in settlement currency, before fees."""
    if not holding.qty:
        return _ZERO
    return _subtract(signed_value(instrument, mark, holding.qty), holding.open_cost)


def average_price(holding: Holding, instrument: Instrument) -> Decimal:
    """Return the average entry price in quote per base, to 15 digits; 0 when flat.

    For inverse contracts it is the harmonic mean, as venues state it. For display: profit is
    computed from `open_cost`, which is exact.
    """
    if not holding.qty:
        return _ZERO
    size = _multiply(holding.qty, instrument.contract_size)
    if instrument.kind is InstrumentKind.INVERSE:
        return _DISPLAY.divide(size.copy_negate(), holding.open_cost)
    return _DISPLAY.divide(holding.open_cost, size)


def fees_in_settle(holding: Holding, instrument: Instrument, mark: Decimal) -> Decimal:
    """Return the fees paid, in settlement currency, the symbol's other currency converted at `mark`.

    Fees in a third currency are left out: `holding.fees` lists them.
    """
    fees = holding.fees
    if not fees:
        return _ZERO
    if instrument.kind is InstrumentKind.INVERSE:
        paid, other = fees.get(instrument.base, _ZERO), fees.get(instrument.quote)
        return paid if other is None else _add(paid, _divide(other, mark))
    paid, other = fees.get(instrument.quote, _ZERO), fees.get(instrument.base)
    return paid if other is None else _add(paid, _multiply(other, mark))


def total(holding: Holding, instrument: Instrument, mark: Decimal) -> Decimal:
    """Return realised + unrealised profit less fees at `mark`, in settlement currency.

    It equals cash plus the value of what is held, so a spot fee taken in base currency counts as the
    base currency that is missing.
    """
    profit = _add(holding.realised, unrealised(holding, instrument, mark))
    return _subtract(profit, fees_in_settle(holding, instrument, mark))


def start_day(holding: Holding, ts_ns: int, total_now: Decimal) -> bool:
    """Open the UTC day of `ts_ns` with `total_now` as its base; return False if it is open already."""
    day = ts_ns // _DAY_NS
    if day <= holding.day:
        return False
    holding.day, holding.day_start = day, total_now
    return True


def balance_changes(
    instrument: Instrument,
    side: Side,
    price: Decimal,
    qty: Decimal,
    fee: Decimal,
    fee_currency: str,
    realised: Decimal,
) -> dict[str, Decimal]:
    """Return by how much one fill changes each currency's balance.

    Spot: base ± `qty`, quote ∓ value. Derivatives: settlement currency + `realised` (the result of
    `apply_fill` on the *account's* holding: venues net the instances of one account). The fee comes
    off its own currency, also where that is the base just bought.
    """
    if instrument.kind is InstrumentKind.SPOT:
        signed_qty = qty if side is Side.BUY else qty.copy_negate()
        changes = {
            instrument.base: _multiply(signed_qty, instrument.contract_size),
            instrument.quote: signed_value(instrument, price, signed_qty).copy_negate(),
        }
    else:
        changes = {instrument.settle: realised}
    if fee:
        changes[fee_currency] = _subtract(changes.get(fee_currency, _ZERO), fee)
    return changes


def _divide(numerator: Decimal, denominator: Decimal) -> Decimal:
    return _ROUNDED.quantize(_ROUNDED.divide(numerator, denominator), STEP)
