"""How Bybit says no: codes and words, which differ between spot and derivatives."""

from typing import Final

from host.api import RejectReason
from venue.protocols.bybit.names import Product

__all__ = [
    "BAD_KEY",
    "BAD_PARAMETER",
    "BAD_SIGN",
    "BAD_TIME",
    "NO_PERMISSION",
    "NO_ROUTE",
    "TOO_MANY",
    "UNKNOWN_OP",
    "Refused",
    "refusal_of",
]

BAD_PARAMETER: Final = 10001
BAD_TIME: Final = 10002
BAD_KEY: Final = 10003
BAD_SIGN: Final = 10004
NO_PERMISSION: Final = 10005
TOO_MANY: Final = 10006
SERVER_ERROR: Final = 10016
NO_ROUTE: Final = 10017
UNKNOWN_OP: Final = 10404


class Refused(Exception):  # noqa: N818 - an answer, not a malfunction
    """A request that is answered with a code other than 0."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(f"{code} {text}")
        self.code = code
        self.text = text


_R = RejectReason

_DERIVATIVES: Final = {
    _R.INSUFFICIENT_FUNDS: (110007, "ab not enough for new order"),
    _R.REDUCE_ONLY: (110017, "orderQty will be truncated to zero."),
    _R.DUPLICATE_ID: (110072, "OrderLinkedID is duplicate"),
    _R.UNKNOWN_ORDER: (110001, "order not exists or too late to cancel"),
    _R.INVALID_PRICE: (10001, "params error: price invalid"),
    _R.INVALID_QTY: (10001, "Qty invalid"),
    _R.MIN_NOTIONAL: (110094, "Order does not meet minimum order value"),
    _R.PRICE_BAND: (110003, "Order price exceeds the allowable range."),
    _R.NOT_FILLABLE: (110118, "Unable to retrieve a price of the market order due to low liquidity"),
    _R.EXPIRED_REQUEST: (
        BAD_TIME,
        "invalid request, please check your server timestamp or recv_window param",
    ),
    _R.UNKNOWN_SYMBOL: (10001, "params error: symbol invalid"),
    _R.UNAVAILABLE: (110066, "Trading is currently not allowed."),
}
_SPOT: Final = {
    _R.INSUFFICIENT_FUNDS: (170131, "Insufficient balance."),
    _R.REDUCE_ONLY: (170131, "Insufficient balance."),
    _R.DUPLICATE_ID: (170141, "Duplicate clientOrderId"),
    _R.UNKNOWN_ORDER: (170213, "Order does not exist."),
    _R.INVALID_PRICE: (170134, "Order price has too many decimals."),
    _R.INVALID_QTY: (170137, "Order quantity has too many decimals."),
    _R.MIN_NOTIONAL: (170140, "Order value exceeded lower limit."),
    _R.PRICE_BAND: (170193, "Order price is out of the permissible range."),
    _R.NOT_FILLABLE: (170149, "Create order failed"),
    _R.EXPIRED_REQUEST: (
        BAD_TIME,
        "invalid request, please check your server timestamp or recv_window param",
    ),
    _R.UNKNOWN_SYMBOL: (170121, "Invalid symbol."),
    _R.UNAVAILABLE: (170151, "The trading pair is not open yet."),
}


def refusal_of(product: Product, reason: RejectReason, text: str) -> Refused:
    """Return Bybit's words for the engine's reason."""
    codes = _SPOT if product is Product.SPOT else _DERIVATIVES
    return Refused(*codes.get(reason, (BAD_PARAMETER, f"params error: {text}")))
