"""What is asked of Bybit over REST: the path of each question and its parameters.

Lists come in pages; a page's cursor is already percent-encoded, and goes back as it came.
"""

from typing import Final

from .products import Listing, Product

__all__ = [
    "ORDER_HISTORY",
    "ORDER_NOW",
    "SERVER_TIME",
    "SETTLE_COINS",
    "Query",
    "api_key_info",
    "executions",
    "fee_rates",
    "instruments",
    "open_orders",
    "order_by_link_id",
    "position_of",
    "positions",
    "server_time",
    "target_of",
    "wallet",
]

Query = tuple[str, dict[str, str]]
"""Path and parameters."""

SERVER_TIME: Final = "/v5/market/time"
ORDER_NOW: Final = "/v5/order/realtime"
"""Open orders, and the latest ones that ended."""
ORDER_HISTORY: Final = "/v5/order/history"

SETTLE_COINS: Final[dict[Product, tuple[str, ...]]] = {
    Product.SPOT: ("",),
    Product.LINEAR: ("USDT", "USDC"),
    Product.INVERSE: ("",),
}
"""What each product has to be asked for: linear lists want a symbol or a settlement coin."""

_ORDERS_PAGE: Final = "50"
_EXECUTIONS_PAGE: Final = "100"
_POSITIONS_PAGE: Final = "200"
_INSTRUMENTS_PAGE: Final = "1000"


def target_of(query: Query) -> tuple[str, str]:
    """Return the request target and, for the signature, its query string."""
    path, parameters = query
    text = "&".join(f"{name}={value}" for name, value in parameters.items())
    return (f"{path}?{text}" if text else path), text


def server_time() -> Query:
    """Ask for the venue's time."""
    return SERVER_TIME, {}


def api_key_info() -> Query:
    """Ask what this key may do."""
    return "/v5/user/query-api", {}


def instruments(product: Product, cursor: str = "") -> Query:
    """Ask for what a product lists. Spot has no pages."""
    parameters = {"category": product.value}
    if product is not Product.SPOT:
        parameters["limit"] = _INSTRUMENTS_PAGE
    return "/v5/market/instruments-info", _paged(parameters, cursor)


def fee_rates(product: Product) -> Query:
    """Ask for the account's fee rates."""
    return "/v5/account/fee-rate", {"category": product.value}


def open_orders(product: Product, settle_coin: str = "", cursor: str = "") -> Query:
    """Ask for the open orders of a product."""
    parameters = {"category": product.value}
    if settle_coin:
        parameters["settleCoin"] = settle_coin
    return ORDER_NOW, _paged(parameters | {"limit": _ORDERS_PAGE}, cursor)


def order_by_link_id(path: str, listing: Listing, client_id: str) -> Query:
    """Ask for one order by the id that we gave it, among the present ones or in the history."""
    return path, {
        "symbol": listing.venue_symbol,
        "category": listing.product.value,
        "orderLinkId": client_id,
    }


def executions(product: Product, start_ms: int, end_ms: int, cursor: str = "") -> Query:
    """Ask for executions from `start_ms` to `end_ms` (venue time), which may be seven days apart."""
    parameters = {"category": product.value, "startTime": str(start_ms), "endTime": str(end_ms)}
    return "/v5/execution/list", _paged(parameters | {"limit": _EXECUTIONS_PAGE}, cursor)


def positions(product: Product, settle_coin: str = "", cursor: str = "") -> Query:
    """Ask for the positions of a product."""
    parameters = {"settleCoin": settle_coin} if settle_coin else {}
    parameters |= {"category": product.value, "limit": _POSITIONS_PAGE}
    return "/v5/position/list", _paged(parameters, cursor)


def position_of(listing: Listing) -> Query:
    """Ask for the position in one perpetual, or for both where each side has one."""
    return "/v5/position/list", {"category": listing.product.value, "symbol": listing.venue_symbol}


def wallet() -> Query:
    """Ask for the balances of the unified account."""
    return "/v5/account/wallet-balance", {"accountType": "UNIFIED"}


def _paged(parameters: dict[str, str], cursor: str) -> dict[str, str]:
    return parameters | {"cursor": cursor} if cursor else parameters
