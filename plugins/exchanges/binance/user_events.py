"""Binance's user data streams, event by event, into reports.

Spot sends `executionReport`, USDⓈ-M `ORDER_TRADE_UPDATE`: the same fields under the same letters.
Events may come twice or late; the host's order table bears both.
"""

from collections.abc import Callable
from decimal import Decimal
from typing import Final

import msgspec
from msgspec import Struct

from host.api import (
    Liquidity,
    OrderAccepted,
    OrderAmended,
    OrderCancelled,
    OrderExpired,
    OrderFilled,
    OrderRejected,
    RejectReason,
    Report,
    Side,
)

from .._shared.numbers import require_finite

__all__ = ["Execution", "Notice", "UserEvent", "decode_user_event", "reports_of"]

_MS: Final = 1_000_000
_ZERO: Final = Decimal(0)
_SIDES: Final = {"BUY": Side.BUY, "SELL": Side.SELL}
_NOTHING: Final = ("", "NONE", None)

_REASONS: Final = {
    "INSUFFICIENT_BALANCE": RejectReason.INSUFFICIENT_FUNDS,
    "INSUFFICIENT_BALANCES": RejectReason.INSUFFICIENT_FUNDS,
    "GTX_ORDER_REJECT": RejectReason.WOULD_TAKE,
    "WOULD_MATCH_IMMEDIATELY": RejectReason.WOULD_TAKE,
    "DUPLICATE_ORDER": RejectReason.DUPLICATE_ID,
    "PRICE_QTY_EXCEED_HARD_LIMITS": RejectReason.PRICE_BAND,
    "UNKNOWN_INSTRUMENT": RejectReason.UNKNOWN_SYMBOL,
    "MARKET_CLOSED": RejectReason.UNAVAILABLE,
}


class Execution(Struct):
    """What happened to one order."""

    s: str
    c: str
    S: str
    q: Decimal
    p: Decimal
    x: str
    X: str
    i: int
    l: Decimal  # noqa: E741 - the venue's name
    z: Decimal
    L: Decimal
    T: int
    t: int = -1
    n: Decimal | None = None
    N: str | None = None
    m: bool = False
    C: str = ""
    """The order's own id where `c` is that of the cancel (spot)."""
    r: str = ""
    eR: str | int | None = None  # noqa: N815
    """Why it expired: a word in some sources, a number in others."""


class _ExecutionReport(Execution, tag_field="e", tag="executionReport"):
    pass


class _OrderTradeUpdate(Struct, tag_field="e", tag="ORDER_TRADE_UPDATE"):
    o: Execution


class Notice(Struct):
    """Any other event, by its name."""

    e: str = ""


class _Wrapped(Struct):
    data: msgspec.Raw


UserEvent = Execution | Notice

_ORDER_EVENTS: Final[
    dict[str, Callable[[memoryview | bytes | msgspec.Raw], _ExecutionReport | _OrderTradeUpdate]]
] = {
    "executionReport": msgspec.json.Decoder(_ExecutionReport, strict=False).decode,
    "ORDER_TRADE_UPDATE": msgspec.json.Decoder(_OrderTradeUpdate, strict=False).decode,
}
_notice = msgspec.json.Decoder(Notice).decode
_wrapped = msgspec.json.Decoder(_Wrapped).decode


def decode_user_event(payload: memoryview | bytes | msgspec.Raw) -> UserEvent:
    """Return the event of a user data stream; raise `msgspec.MsgspecError` where it cannot be read."""
    notice = _notice(payload)
    decode = _ORDER_EVENTS.get(notice.e)
    if decode is None:
        if not notice.e:
            return decode_user_event(_wrapped(payload).data)
        return notice
    event = decode(payload)
    return event.o if isinstance(event, _OrderTradeUpdate) else event


def reports_of(event: Execution, to_tandem: Callable[[str], str | None]) -> list[Report]:
    """Return what the host should hear of one event; nothing for symbols that we do not know.

    Raises `ValueError` for a side or kind of execution that is not known, or a number that is none.
    """
    symbol = to_tandem(event.s)
    if symbol is None:
        return []
    fee = event.n or _ZERO
    require_finite(f"order {event.i}", l=event.l, z=event.z, L=event.L, p=event.p, q=event.q, n=fee)
    at_ns, kind = event.T * _MS, event.x
    # A cancel has an id of its own on spot, and the order's is beside it.
    client_id = event.C if event.C not in _NOTHING else event.c
    if kind in ("TRADE", "CALCULATED"):  # CALCULATED: closed by the venue, in a liquidation
        if event.l <= _ZERO or event.t < 0:
            return []
        if event.S not in _SIDES:
            raise ValueError(f"side of order {event.i} must be BUY or SELL, was {event.S!r}")
        return [
            OrderFilled(
                client_id,
                symbol,
                _SIDES[event.S],
                str(event.t),
                event.L,
                event.l,
                fee,
                event.N or "",
                Liquidity.MAKER if event.m else Liquidity.TAKER,
                at_ns,
                str(event.i),
            )
        ]
    if kind == "NEW":
        return [OrderAccepted(client_id, str(event.i), at_ns)]
    if kind == "CANCELED":
        return [OrderCancelled(client_id, at_ns, _reason(event), event.z)]
    if kind in ("EXPIRED", "TRADE_PREVENTION"):
        if event.X not in ("EXPIRED", "EXPIRED_IN_MATCH"):
            return []  # a part was taken away by self-trade prevention; the rest still rests
        return [OrderExpired(client_id, at_ns, _reason(event), event.z)]
    if kind == "REJECTED":
        return [
            OrderRejected(client_id, _REASONS.get(event.r, RejectReason.OTHER), event.r or "rejected", at_ns)
        ]
    if kind in ("AMENDMENT", "REPLACED"):
        return [OrderAmended(client_id, event.p, event.q, at_ns)]
    raise ValueError(f"order {event.i}: unknown kind of execution {kind!r}")


def _reason(event: Execution) -> str:
    return next((str(text) for text in (event.eR, event.r) if text not in _NOTHING), "")
