"""What a venue checks about an order before it looks at funds: grid, limits, notional, price band."""

from decimal import Decimal

from host.api import Instrument, RejectReason

__all__ = ["Refusal", "check_order", "mid_price"]

Refusal = tuple[RejectReason, str]
"""Why, as a stable code and in words that name the limit and the value."""

_ZERO = Decimal(0)
_MAX_NUMBER = Decimal("1e15")
"""No price or quantity is larger; beyond it exact arithmetic would run out of digits."""


def check_order(
    instrument: Instrument, price: Decimal | None, qty: Decimal, reference: Decimal | None
) -> Refusal | None:
    """Return why an order with this price and total quantity is refused, or None if it may pass.

    `price` is None for a market order. `reference` is the price that the band and a market order's
    notional are measured against; without one (an empty market) neither is checked.
    """
    return (
        _check_qty(instrument, qty)
        or (None if price is None else _check_price(instrument, price, reference))
        or _check_notional(instrument, price if price is not None else reference, qty)
    )


def mid_price(best_bid: Decimal | None, best_ask: Decimal | None) -> Decimal | None:
    """Return the middle of the book, the one side there is, or None for an empty book."""
    if best_bid is None or best_ask is None:
        return best_ask if best_bid is None else best_bid
    return (best_bid + best_ask) / 2


def _check_qty(instrument: Instrument, qty: Decimal) -> Refusal | None:
    reason = RejectReason.INVALID_QTY
    if not (qty.is_finite() and _ZERO < qty <= _MAX_NUMBER):
        return reason, f"{instrument.symbol}: quantity must be above 0 and at most {_MAX_NUMBER}, was {qty}"
    if qty % instrument.lot_size:
        return reason, f"{instrument.symbol}: quantity must be a multiple of {instrument.lot_size}, was {qty}"
    if qty < instrument.min_qty:
        return reason, f"{instrument.symbol}: quantity must be at least {instrument.min_qty}, was {qty}"
    if instrument.max_qty is not None and qty > instrument.max_qty:
        return reason, f"{instrument.symbol}: quantity must be at most {instrument.max_qty}, was {qty}"
    return None


def _check_price(instrument: Instrument, price: Decimal, reference: Decimal | None) -> Refusal | None:
    reason = RejectReason.INVALID_PRICE
    if not (price.is_finite() and _ZERO < price <= _MAX_NUMBER):
        return reason, f"{instrument.symbol}: price must be above 0 and at most {_MAX_NUMBER}, was {price}"
    if price % instrument.tick_size:
        return reason, f"{instrument.symbol}: price must be a multiple of {instrument.tick_size}, was {price}"
    band = instrument.price_band
    if band is None or reference is None:
        return None
    low, high = reference * band.down, reference * band.up
    if low <= price <= high:
        return None
    return RejectReason.PRICE_BAND, f"{instrument.symbol}: price must be in {low} to {high}, was {price}"


def _check_notional(instrument: Instrument, price: Decimal | None, qty: Decimal) -> Refusal | None:
    if price is None:
        return None
    notional = instrument.notional(price, qty)
    if notional >= instrument.min_notional:
        return None
    return (
        RejectReason.MIN_NOTIONAL,
        f"{instrument.symbol}: price × quantity must be at least {instrument.min_notional}, was {notional}",
    )
