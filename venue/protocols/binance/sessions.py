"""What a Binance WebSocket connection is: its kind by its path, its streams, who logged in."""

from enum import Enum
from typing import Final

from msgspec import Struct, field

from venue.protocols.accounts import KeyedAccount
from venue.protocols.connection import Connection

__all__ = ["Session", "SessionKind", "session_for"]


class SessionKind(Enum):
    """What is spoken on a connection."""

    SPOT_STREAMS = "spot_streams"
    SPOT_API = "spot_api"
    FUTURES_STREAMS = "futures_streams"
    FUTURES_USER = "futures_user"
    FUTURES_API = "futures_api"


class Session(Struct, eq=False):
    """One connection's state."""

    kind: SessionKind
    is_combined: bool = False
    """Messages are wrapped with their stream's name."""
    route: str = ""
    """`public` or `market` on the futures' streams."""
    streams: dict[str, None] = field(default_factory=dict)
    listen_keys: list[str] = field(default_factory=list)
    logged_in: KeyedAccount | None = None
    connected_ms: int = 0
    authorized_ms: int | None = None
    subscriptions: dict[int, KeyedAccount] = field(default_factory=dict)
    """User data of whom, by subscription number."""
    next_subscription: int = 0
    is_limits_shown: bool = True
    frame_times_s: list[float] = field(default_factory=list)


_FUTURES_ROUTES: Final = ("public", "market", "private")


def session_for(connection: Connection) -> Session | None:
    """Return a new connection's session, None for a path that is not served.

    The futures' streams without a route were shut off on 2026-04-23.
    """
    parts = connection.path.strip("/").split("/")
    if parts[0] == "ws-api":
        return Session(SessionKind.SPOT_API) if parts[1:2] == ["v3"] else None
    if parts[0] == "ws-fapi":
        return Session(SessionKind.FUTURES_API) if parts[1:2] == ["v1"] else None
    route = ""
    if parts[0] in _FUTURES_ROUTES:
        route, parts = parts[0], parts[1:]
    if not parts or parts[0] not in ("ws", "stream"):
        return None
    kind = SessionKind.SPOT_STREAMS if not route else SessionKind.FUTURES_STREAMS
    if route == "private":
        kind = SessionKind.FUTURES_USER
    session = Session(kind, is_combined=parts[0] == "stream", route=route)
    named = [part for part in parts[1:] if part]
    if session.is_combined:
        named = [part for part in connection.query.get("streams", "").split("/") if part]
    if kind is SessionKind.FUTURES_USER:
        key = connection.query.get("listenKey", "")
        session.listen_keys = [key] if key else named
    else:
        session.streams = {name: None for name in named if "@" in name}
    return session
