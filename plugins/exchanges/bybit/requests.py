"""Our commands as Bybit's requests: what goes into the JSON of an order, an amend or a cancel.

The same fields go over the order-entry WebSocket and over REST. What is the venue's default is left
out: good-till-cancelled, one-way position mode, no leverage on spot.
"""

from collections.abc import Sequence
from decimal import Decimal
from typing import Any, Final

from host.api import AmendOrder, CancelOrder, OrderType, PlaceOrder, Side, TimeInForce

from .products import Listing, Product

__all__ = [
    "MAX_LINK_ID",
    "amend_fields",
    "batch_limit",
    "batch_of",
    "cancel_all_fields",
    "cancel_fields",
    "leverage_fields",
    "margin_mode_fields",
    "one_way_fields",
    "place_fields",
]

MAX_LINK_ID: Final = 36
"""Longest `orderLinkId`: letters, digits, `-` and `_`. Ours are `[a-z0-9]{1,32}`."""

_SIDES: Final = {Side.BUY: "Buy", Side.SELL: "Sell"}
_TYPES: Final = {OrderType.LIMIT: "Limit", OrderType.MARKET: "Market"}
_TIMES: Final = {TimeInForce.IOC: "IOC", TimeInForce.FOK: "FOK"}


def place_fields(listing: Listing, place: PlaceOrder) -> dict[str, Any]:
    """Return the fields of a new order."""
    fields: dict[str, Any] = {
        "category": listing.product.value,
        "symbol": listing.venue_symbol,
        "side": _SIDES[place.side],
        "orderType": _TYPES[place.type],
        "qty": _text(place.qty),
    }
    if place.price is not None:
        fields["price"] = _text(place.price)
    if place.post_only:
        fields["timeInForce"] = "PostOnly"
    elif place.type is OrderType.LIMIT and place.time_in_force in _TIMES:
        fields["timeInForce"] = _TIMES[place.time_in_force]
    if place.type is OrderType.MARKET and place.side is Side.BUY and listing.product is Product.SPOT:
        # Without it the venue takes the quantity of a spot market buy for an amount of quote currency.
        fields["marketUnit"] = "baseCoin"
    if place.reduce_only and listing.product is not Product.SPOT:
        fields["reduceOnly"] = True
    fields["orderLinkId"] = place.client_id
    return fields


def amend_fields(listing: Listing, amend: AmendOrder) -> dict[str, Any]:
    """Return the fields of an amend; the quantity is the total, with what is filled."""
    return {
        "category": listing.product.value,
        "symbol": listing.venue_symbol,
        "orderLinkId": amend.client_id,
        "qty": _text(amend.qty),
        "price": _text(amend.price),
    }


def cancel_fields(listing: Listing, cancel: CancelOrder) -> dict[str, Any]:
    """Return the fields of a cancel, by the id that we gave: it is known even before an answer came."""
    fields: dict[str, Any] = {"category": listing.product.value, "symbol": listing.venue_symbol}
    if listing.product is Product.SPOT:
        fields["orderFilter"] = "Order"
    fields["orderLinkId"] = cancel.client_id
    return fields


def cancel_all_fields(product: Product, venue_symbol: str = "", settle_coin: str = "") -> dict[str, Any]:
    """Return the fields of a cancel of everything in one symbol, one settlement coin or one product."""
    fields = {"category": product.value}
    if venue_symbol:
        fields["symbol"] = venue_symbol
    elif settle_coin:
        fields["settleCoin"] = settle_coin
    return fields


def batch_limit(product: Product) -> int:
    """Return how many orders one batch may hold."""
    return 10 if product is Product.SPOT else 20


def batch_of(orders: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return one batch request of single ones (same kind, same product, within `batch_limit`)."""
    shared = orders[0]["category"]
    return {
        "category": shared,
        "request": [{key: value for key, value in order.items() if key != "category"} for order in orders],
    }


def leverage_fields(listing: Listing, leverage: Decimal) -> dict[str, Any]:
    """Return the fields that set the leverage of both sides of a perpetual."""
    return {
        "symbol": listing.venue_symbol,
        "buyLeverage": _text(leverage),
        "sellLeverage": _text(leverage),
        "category": listing.product.value,
    }


def margin_mode_fields(*, is_isolated: bool) -> dict[str, Any]:
    """Return the fields that set the margin mode, which a unified account has one of."""
    return {"setMarginMode": "ISOLATED_MARGIN" if is_isolated else "REGULAR_MARGIN"}


def one_way_fields(listing: Listing) -> dict[str, Any]:
    """Return the fields that give a symbol one position, instead of one for each side."""
    return {"mode": 0, "symbol": listing.venue_symbol, "category": listing.product.value}


def _text(value: Decimal) -> str:
    """Write a number as the venue reads it: plain digits, never an exponent."""
    return f"{value:f}"
