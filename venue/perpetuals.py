"""What a perpetual position is worth, at which price its account could not carry it, what funding costs.

Formulas hold for cross margin and one position per symbol. For an inverse contract values are in
the base currency, which a contract is worth less of as the price rises.
"""

from decimal import Decimal
from typing import Final

from msgspec import Struct

from host.api import Instrument, InstrumentKind

__all__ = ["MAINTENANCE_RATE", "FundingPayment", "liquidation_price", "position_value", "unrealised_profit"]

MAINTENANCE_RATE: Final = Decimal("0.005")
"""Maintenance margin as a fraction of a position's value. Real venues raise it in steps with the size."""

_ZERO = Decimal(0)


class FundingPayment(Struct, frozen=True):
    """What an account got (negative: paid) for the position that it held at a funding time."""

    account: str
    symbol: str
    currency: str
    amount: Decimal
    rate: Decimal
    ts_ns: int


def position_value(instrument: Instrument, qty: Decimal, price: Decimal) -> Decimal:
    """Return what `qty` (signed) is worth at `price`, in settlement currency and with its sign."""
    if instrument.kind is InstrumentKind.INVERSE:
        return qty * instrument.contract_size / price
    return qty * instrument.contract_size * price


def unrealised_profit(instrument: Instrument, qty: Decimal, entry: Decimal, mark: Decimal) -> Decimal:
    """Return what closing the position at `mark` would bring, in settlement currency."""
    if not qty or not entry or not mark:
        return _ZERO
    gain = position_value(instrument, qty, mark) - position_value(instrument, qty, entry)
    return -gain if instrument.kind is InstrumentKind.INVERSE else gain


def liquidation_price(
    instrument: Instrument, qty: Decimal, entry: Decimal, balance: Decimal, rate: Decimal = MAINTENANCE_RATE
) -> Decimal:
    """Return the price at which `balance` and the position's loss meet its maintenance margin.

    `balance` is what the wallet holds without this position's unrealised profit. Zero where no
    price does: a long that the balance covers down to nothing, or an inverse short up to any price.
    """
    if not qty or not entry:
        return _ZERO
    size, side = abs(qty) * instrument.contract_size, 1 if qty > 0 else -1
    if instrument.kind is InstrumentKind.INVERSE:
        # balance + side·size·(1/entry − 1/p) = rate·size/p
        worth = balance + side * size / entry
        price = size * (side + rate) / worth if worth else _ZERO
    else:
        # balance + side·size·(p − entry) = rate·size·p
        price = (side * size * entry - balance) / (size * (side - rate))
    return max(price, _ZERO)
