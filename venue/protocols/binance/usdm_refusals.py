"""The matching engine's refusals in the words that Binance's futures have for them."""

from typing import Final

from host.api import Instrument, RejectReason
from venue.protocols.binance.errors import BinanceRefusal
from venue.protocols.binance.security import late
from venue.validation import Refusal

__all__ = ["order_refusal"]

_CODES: Final = {
    RejectReason.INSUFFICIENT_FUNDS: (-2019, "Margin is insufficient."),
    RejectReason.WOULD_TAKE: (
        -5022,
        "Due to the order could not be executed as maker, the Post Only order will be rejected. "
        "The order will not be recorded in the order history",
    ),
    RejectReason.NOT_FILLABLE: (
        -5021,
        "Due to the order could not be filled immediately, the FOK order has been rejected. "
        "The order will not be recorded in the order history",
    ),
    RejectReason.REDUCE_ONLY: (-2022, "ReduceOnly Order is rejected."),
    RejectReason.DUPLICATE_ID: (-4116, "ClientOrderId is duplicated."),
    RejectReason.INVALID_PRICE: (-4014, "Price not increased by tick size."),
    RejectReason.INVALID_QTY: (-4023, "Qty not increased by step size."),
    RejectReason.PRICE_BAND: (
        -4131,
        "The counterparty's best price does not meet the PERCENT_PRICE filter limit.",
    ),
    RejectReason.UNKNOWN_SYMBOL: (-1121, "Invalid symbol."),
    RejectReason.UNAVAILABLE: (
        -4108,
        "Symbol is on delivering or delivered or settling or closed or pre-trading.",
    ),
    RejectReason.UNKNOWN_ORDER: (-2011, "Unknown order sent."),
}


def order_refusal(refusal: Refusal | None, instrument: Instrument) -> BinanceRefusal:
    """Return the engine's refusal of an order, change or cancel in Binance's words."""
    if refusal is None:
        return BinanceRefusal(-1000, "An unknown error occurred while processing the request.")
    reason, text = refusal
    if reason is RejectReason.EXPIRED_REQUEST:
        return late()
    if reason is RejectReason.MIN_NOTIONAL:
        least = f"{instrument.min_notional.normalize():f}"
        return BinanceRefusal(
            -4164, f"Order's notional must be no smaller than {least} (unless you choose reduce only)."
        )
    code, words = _CODES.get(reason, (-2010, text))
    return BinanceRefusal(code, words)
