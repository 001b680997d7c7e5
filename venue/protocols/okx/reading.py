"""Reading requests: what a REST call or a frame asks for, before anybody judges it."""

from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import parse_qsl

import msgspec

from venue.protocols.okx.keys import time_of, whole_ms
from venue.protocols.okx.names import Symbols
from venue.protocols.requests import Kind, Raw, Request

__all__ = ["ORDER_OPS", "ORDER_PATHS", "PROTOCOL", "frame_args", "is_public", "read_frame", "read_rest"]

PROTOCOL: Final = "okx"
_MS: Final = 1_000_000

ORDER_PATHS: Final[Mapping[str, str]] = {
    "/api/v5/trade/order": "order",
    "/api/v5/trade/batch-orders": "batch-orders",
    "/api/v5/trade/amend-order": "amend-order",
    "/api/v5/trade/amend-batch-orders": "batch-amend-orders",
    "/api/v5/trade/cancel-order": "cancel-order",
    "/api/v5/trade/cancel-batch-orders": "batch-cancel-orders",
}
"""Which operation of the WebSocket each REST call is, when it is posted."""
ORDER_OPS: Final[Mapping[str, Kind]] = {
    "order": Kind.PLACE,
    "amend-order": Kind.AMEND,
    "cancel-order": Kind.CANCEL,
    "batch-orders": Kind.BATCH,
    "batch-amend-orders": Kind.BATCH,
    "batch-cancel-orders": Kind.BATCH,
}
_SETTINGS: Final = frozenset(
    {
        "/api/v5/trade/cancel-all-after",
        "/api/v5/account/set-leverage",
        "/api/v5/account/set-position-mode",
    }
)
_PUBLIC: Final = ("/api/v5/public/", "/api/v5/market/", "/api/v5/system/")
_FRAME_KINDS: Final = {"login": Kind.LOGIN, "subscribe": Kind.SUBSCRIBE, "unsubscribe": Kind.SUBSCRIBE}


def is_public(path: str) -> bool:
    """Return whether a call needs no key."""
    return path.startswith(_PUBLIC)


def read_rest(raw: Raw, account: str, symbols: Symbols, arrived_ns: int) -> Request:
    """Return what a REST call asks for; a body that is no JSON asks for nothing."""
    body = _json(raw.body)
    posted = body if isinstance(body, dict) else {"orders": body}
    params = posted if raw.method == "POST" else dict(parse_qsl(raw.query, keep_blank_values=True))
    op = ORDER_PATHS.get(raw.path) if raw.method == "POST" else None
    if op is not None:
        kind = ORDER_OPS[op]
    elif is_public(raw.path):
        kind = Kind.MARKET
    elif raw.path in _SETTINGS:
        kind = Kind.SETTING
    else:
        kind = Kind.PLACE if raw.path == "/api/v5/trade/close-position" else Kind.QUERY
    request = Request(
        PROTOCOL, "rest", f"{raw.method} {raw.path}", kind, raw, arrived_ns, params=params, account=account
    )
    if not is_public(raw.path):
        request.timestamp_ns = time_of(raw.headers.get("ok-access-timestamp", ""))
        last_ms = whole_ms(raw.headers.get("exptime"))
        if request.timestamp_ns is not None and last_ms is not None:
            request.valid_ns = last_ms * _MS - request.timestamp_ns
    _name(request, symbols)
    return request


def read_frame(raw: Raw, symbols: Symbols, arrived_ns: int) -> Request:
    """Return what a frame asks for; its account is that of its connection."""
    frame = _json(raw.body)
    if not isinstance(frame, dict):
        frame = {"op": raw.body.decode(errors="replace")[:20]}
    op, args = str(frame.get("op", "")), frame.get("args")
    kind = ORDER_OPS.get(op) or _FRAME_KINDS.get(op, Kind.MARKET)
    params: dict[str, Any] = {"orders": args} if op in ORDER_OPS else {"args": args}
    if op in ORDER_OPS and ORDER_OPS[op] is not Kind.BATCH:
        params = args[0] if isinstance(args, list) and args and isinstance(args[0], dict) else {}
    if op == "login":
        params = {}
    account = raw.connection.account if raw.connection is not None else ""
    request = Request(
        PROTOCOL, "ws", op, kind, raw, arrived_ns, params=params, account=account, id=frame.get("id", "")
    )
    last_ms = whole_ms(frame.get("expTime"))
    if last_ms is not None:
        # A frame carries no time of its own: only until when it is good.
        request.timestamp_ns, request.valid_ns = last_ms * _MS, 0
    _name(request, symbols)
    return request


def frame_args(raw: Raw) -> list[Any]:
    """Return a frame's arguments."""
    frame = _json(raw.body)
    args = frame.get("args") if isinstance(frame, dict) else None
    return args if isinstance(args, list) else []


def _name(request: Request, symbols: Symbols) -> None:
    params = request.params
    listing = symbols.find(params.get("instId"), params.get("instIdCode"))
    request.symbol = listing.name if listing is not None else str(params.get("instId") or "")
    request.client_id = str(params.get("clOrdId") or "")


def _json(body: bytes) -> Any:
    try:
        return msgspec.json.decode(body) if body else {}
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return {}
