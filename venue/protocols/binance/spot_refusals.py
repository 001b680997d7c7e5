"""The matching engine's refusals in the words that Binance spot has for them."""

from typing import Final

from host.api import RejectReason
from venue.protocols.binance.errors import BinanceRefusal
from venue.protocols.binance.security import late
from venue.validation import Refusal

__all__ = ["order_refusal"]

_ORDER_CODES: Final = {
    RejectReason.INSUFFICIENT_FUNDS: (-2010, "Account has insufficient balance for requested action."),
    RejectReason.WOULD_TAKE: (-2010, "Order would immediately match and take."),
    RejectReason.DUPLICATE_ID: (-2010, "Duplicate order sent."),
    RejectReason.NOT_FILLABLE: (-2010, "Order book liquidity is less than LOT_SIZE filter minimum quantity."),
    RejectReason.UNAVAILABLE: (-2010, "Market is closed."),
    RejectReason.INVALID_PRICE: (-1013, "Filter failure: PRICE_FILTER"),
    RejectReason.INVALID_QTY: (-1013, "Filter failure: LOT_SIZE"),
    RejectReason.MIN_NOTIONAL: (-1013, "Filter failure: NOTIONAL"),
    RejectReason.PRICE_BAND: (-1013, "Filter failure: PERCENT_PRICE_BY_SIDE"),
    RejectReason.UNKNOWN_SYMBOL: (-1121, "Invalid symbol."),
    RejectReason.UNKNOWN_ORDER: (-2011, "Unknown order sent."),
}


def order_refusal(refusal: Refusal | None) -> BinanceRefusal:
    """Return the engine's refusal of an order, cancel or amend in Binance's words."""
    if refusal is None:
        return BinanceRefusal(-1000, "An unknown error occurred while processing the request.")
    reason, text = refusal
    if reason is RejectReason.EXPIRED_REQUEST:
        return late()
    code, words = _ORDER_CODES.get(reason, (-2010, text))
    return BinanceRefusal(code, words)
