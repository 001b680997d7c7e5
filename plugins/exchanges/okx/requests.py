"""Our commands as OKX's requests: what goes into the JSON of an order, an amend or a cancel.

The same fields go over the WebSocket and over REST, but for how the instrument is named: by `instId`
over REST, by the number `instIdCode` over the WebSocket (2026), where the venue publishes one.
"""

from collections.abc import Sequence
from decimal import Decimal
from typing import Any, Final

import orjson

from host.api import AmendOrder, CancelOrder, OrderType, PlaceOrder, Side, TimeInForce

from .products import Listing

__all__ = [
    "MOST_IN_BATCH",
    "amend_fields",
    "cancel_fields",
    "leverage_fields",
    "named",
    "place_fields",
    "ws_request",
]

MOST_IN_BATCH: Final = 20
"""Orders in one batch request."""

_SIDES: Final = {Side.BUY: "buy", Side.SELL: "sell"}
_TIMES: Final = {TimeInForce.GTC: "limit", TimeInForce.IOC: "ioc", TimeInForce.FOK: "fok"}


def place_fields(listing: Listing, place: PlaceOrder, margin_mode: str, tag: str = "") -> dict[str, Any]:
    """Return the fields of a new order, without its instrument. `margin_mode` is for swaps."""
    fields: dict[str, Any] = {
        "side": _SIDES[place.side],
        "ordType": _order_type(place),
        "sz": listing.size_text(place.qty),
        "tdMode": "cash" if listing.is_spot else margin_mode,
    }
    if place.price is not None:
        fields["px"] = f"{place.price:f}"
    if listing.is_spot:
        # Without it the venue takes the size of a spot market buy for an amount of quote currency.
        fields["tgtCcy"] = "base_ccy"
    if place.reduce_only and not listing.is_spot:
        fields["reduceOnly"] = True
    fields["clOrdId"] = place.client_id
    if tag:
        fields["tag"] = tag
    return fields


def _order_type(place: PlaceOrder) -> str:
    if place.type is OrderType.MARKET:
        return "market"
    return "post_only" if place.post_only else _TIMES[place.time_in_force]


def amend_fields(listing: Listing, amend: AmendOrder) -> dict[str, Any]:
    """Return the fields of an amend, without its instrument; the size is the total, with what is filled."""
    return {
        "clOrdId": amend.client_id,
        "newSz": listing.size_text(amend.qty),
        "newPx": f"{amend.price:f}",
    }


def cancel_fields(cancel: CancelOrder) -> dict[str, Any]:
    """Return the fields of a cancel, by the id that we gave: it is known even before an answer came."""
    return {"clOrdId": cancel.client_id}


def leverage_fields(listing: Listing, leverage: Decimal, margin_mode: str) -> dict[str, Any]:
    """Return the fields that set the leverage of a swap, for one margin mode."""
    return {"instId": listing.inst_id, "lever": f"{leverage:f}", "mgnMode": margin_mode}


def named(listing: Listing, fields: dict[str, Any], *, by_code: bool) -> dict[str, Any]:
    """Return the fields with the instrument: by the venue's number if asked to and if there is one."""
    if by_code and listing.code is not None:
        return {"instIdCode": listing.code, **fields}
    return {"instId": listing.inst_id, **fields}


def ws_request(request_id: str, op: str, args: Sequence[dict[str, Any]], last_ms: int | None = None) -> bytes:
    """Encode an operation; the venue refuses it after `last_ms` of its clock (`expTime`)."""
    request: dict[str, Any] = {"id": request_id, "op": op, "args": args}
    if last_ms is not None:
        request["expTime"] = str(last_ms)
    return orjson.dumps(request)
