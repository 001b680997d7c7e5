"""Reading requests: what a REST call or a frame asks for, before anybody judges it."""

from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import parse_qsl

import msgspec

from venue.protocols.bybit.keys import DEFAULT_WINDOW_MS, whole
from venue.protocols.requests import Kind, Raw, Request

__all__ = ["ORDER_OPS", "PROTOCOL", "read_frame", "read_rest"]

PROTOCOL: Final = "bybit"
_MS: Final = 1_000_000

_KINDS: Final[Mapping[str, Kind]] = {
    "/v5/order/create": Kind.PLACE,
    "/v5/order/amend": Kind.AMEND,
    "/v5/order/cancel": Kind.CANCEL,
    "/v5/order/cancel-all": Kind.CANCEL_ALL,
    "/v5/order/create-batch": Kind.BATCH,
    "/v5/order/amend-batch": Kind.BATCH,
    "/v5/order/cancel-batch": Kind.BATCH,
    "/v5/order/disconnected-cancel-all": Kind.SETTING,
    "/v5/position/set-leverage": Kind.SETTING,
    "/v5/position/switch-mode": Kind.SETTING,
    "/v5/position/switch-isolated": Kind.SETTING,
    "/v5/account/set-margin-mode": Kind.SETTING,
}
ORDER_OPS: Final[Mapping[str, str]] = {
    "order.create": "/v5/order/create",
    "order.amend": "/v5/order/amend",
    "order.cancel": "/v5/order/cancel",
    "order.create-batch": "/v5/order/create-batch",
    "order.amend-batch": "/v5/order/amend-batch",
    "order.cancel-batch": "/v5/order/cancel-batch",
}
"""Which REST call each order operation of the WebSocket is."""

_OP_KINDS: Final = {"auth": Kind.LOGIN, "subscribe": Kind.SUBSCRIBE, "unsubscribe": Kind.SUBSCRIBE}
_PUBLIC: Final = ("/v5/market/", "/v5/system/")


def is_public(path: str) -> bool:
    """Return whether a call needs no key."""
    return path.startswith(_PUBLIC)


def read_rest(raw: Raw, account: str, arrived_ns: int) -> Request:
    """Return what a REST call asks for; a body that is no JSON object asks for nothing."""
    params = dict(parse_qsl(raw.query, keep_blank_values=True)) if raw.method == "GET" else _object(raw.body)
    kind = _KINDS.get(raw.path) or (Kind.MARKET if is_public(raw.path) else Kind.QUERY)
    request = Request(
        PROTOCOL, "rest", f"{raw.method} {raw.path}", kind, raw, arrived_ns, params=params, account=account
    )
    _name(request)
    if not is_public(raw.path):
        _stamp(request, raw.headers.get("x-bapi-timestamp"), raw.headers.get("x-bapi-recv-window"))
    return request


def read_frame(raw: Raw, arrived_ns: int) -> Request:
    """Return what a frame asks for; its account is that of its connection."""
    frame = _object(raw.body)
    op = str(frame.get("op", ""))
    account = raw.connection.account if raw.connection is not None else ""
    args = frame.get("args")
    params: dict[str, Any] = {"op": op}
    kind = _OP_KINDS.get(op, Kind.MARKET)
    if op in ORDER_OPS:
        kind = _KINDS[ORDER_OPS[op]]
        if isinstance(args, list) and args and isinstance(args[0], dict):
            params = args[0]
    elif op != "auth":
        params = {"op": op, "args": args}
    request = Request(
        PROTOCOL,
        "ws",
        op,
        kind,
        raw,
        arrived_ns,
        params=params,
        account=account,
        id=frame.get("reqId", frame.get("req_id", "")),
    )
    if op in ORDER_OPS:
        _name(request)
        header = frame.get("header")
        header = header if isinstance(header, dict) else {}
        _stamp(request, header.get("X-BAPI-TIMESTAMP"), header.get("X-BAPI-RECV-WINDOW"))
    return request


def frame_args(raw: Raw) -> list[Any]:
    """Return a frame's arguments."""
    args = _object(raw.body).get("args")
    return args if isinstance(args, list) else []


def _name(request: Request) -> None:
    request.symbol = str(request.params.get("symbol") or "")
    request.client_id = str(request.params.get("orderLinkId") or "")


def _stamp(request: Request, timestamp: object, window: object) -> None:
    timestamp_ms = whole(timestamp)
    window_ms = whole(window)
    if timestamp_ms is not None:
        request.timestamp_ns = timestamp_ms * _MS
    request.valid_ns = (DEFAULT_WINDOW_MS if window_ms is None else window_ms) * _MS


def _object(body: bytes) -> dict[str, Any]:
    try:
        found = msgspec.json.decode(body) if body else {}
    except (msgspec.DecodeError, UnicodeDecodeError):
        return {}
    return found if isinstance(found, dict) else {}
