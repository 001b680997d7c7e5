"""What makes an order that the venue could not take: its grid, its smallest and its largest."""

from decimal import Decimal
from typing import Final

from host.api import Instrument, OrderRequest, OrderType

__all__ = ["request_fault", "size_fault"]

_ZERO: Final = Decimal(0)


def request_fault(request: OrderRequest, instrument: Instrument) -> tuple[str, str] | None:
    """Return the field of a request that cannot be, and why."""
    if not _is_on_grid(request.qty, instrument.lot_size):
        return "qty", (
            f"quantity must be a positive multiple of the lot {instrument.lot_size} "
            f"of {instrument.symbol}, was {request.qty}"
        )
    if request.type is OrderType.MARKET:
        if request.price is not None:
            return "price", f"a market order has no price, was {request.price}"
        fault = _qty_fault(instrument, request.qty)
        return None if fault is None else ("qty", fault)
    if request.price is None or not _is_on_grid(request.price, instrument.tick_size):
        return "price", (
            f"price must be a positive multiple of the tick {instrument.tick_size} "
            f"of {instrument.symbol}, was {request.price}"
        )
    fault = size_fault(instrument, request.price, request.qty)
    return None if fault is None else ("qty", fault)


def size_fault(instrument: Instrument, price: Decimal, qty: Decimal) -> str | None:
    """Return why a limit order of this size cannot be."""
    fault = _qty_fault(instrument, qty)
    if fault is not None:
        return fault
    notional = instrument.notional(price, qty)
    if notional < instrument.min_notional:
        return (
            f"notional must be at least {instrument.min_notional} {instrument.quote} "
            f"for {instrument.symbol}, was {notional}"
        )
    return None


def _qty_fault(instrument: Instrument, qty: Decimal) -> str | None:
    if qty < instrument.min_qty:
        return f"quantity must be at least {instrument.min_qty} of {instrument.symbol}, was {qty}"
    if instrument.max_qty is not None and qty > instrument.max_qty:
        return f"quantity must be at most {instrument.max_qty} of {instrument.symbol}, was {qty}"
    return None


def _is_on_grid(value: Decimal, step: Decimal) -> bool:
    # Not `value % step`, which raises where the quotient has more digits than the context.
    return value.is_finite() and value > _ZERO and (value / step).to_integral_value() * step == value
