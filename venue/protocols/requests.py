"""A request at the venue's door, whatever the protocol: what was asked, by whom, and what came of it."""

from enum import StrEnum
from typing import Any

from msgspec import Struct, field

from venue.protocols.connection import Connection
from venue.protocols.kinds import Kind

__all__ = ["Entry", "Kind", "Raw", "Reply", "Request", "Verdict"]


class Verdict(StrEnum):
    """What the venue made of a request."""

    ACCEPTED = "accepted"
    REFUSED = "refused"
    LOST = "lost"
    """It was never looked at: a fault swallowed it."""


class Raw(Struct, frozen=True):
    """A request as it arrived. Signatures are judged over these bytes and no re-encoded copy."""

    method: str
    """The HTTP verb; empty for a frame."""
    path: str
    """Of the URL, without the query; for a frame that of its connection."""
    query: str
    body: bytes
    """Of an HTTP request, or the frame."""
    headers: dict[str, str]
    """Names in lower case."""
    connection: Connection | None = None
    """The WebSocket that the frame came by."""


class Entry(Struct):
    """One line of the request log: a request, or one order of a batch."""

    client_id: str = ""
    symbol: str = ""
    asked: dict[str, Any] = field(default_factory=dict)
    kind: Kind | None = None
    """What this line is about, where that is not what the request is: the two halves of a replace."""
    verdict: Verdict | None = None
    reason: str = ""
    order_id: str = ""
    decided_ns: int = 0
    """Wall time at which the matching engine decided; 0 where it was not asked."""


class Request(Struct):
    """A request that the protocol has read, but not judged yet."""

    protocol: str
    transport: str
    """`rest` or `ws`."""
    method: str
    """What the venue calls it: `POST /api/v3/order`, `order.place`."""
    kind: Kind
    raw: Raw
    arrived_ns: int
    """Wall time."""
    params: dict[str, Any] = field(default_factory=dict)
    account: str = ""
    """The name of the account whose key it carries; empty where there is none or nobody knows it."""
    symbol: str = ""
    client_id: str = ""
    timestamp_ns: int | None = None
    """What the client says the time is."""
    valid_ns: int | None = None
    """For how long after `timestamp_ns` the venue may act on it."""
    entries: list[Entry] = field(default_factory=list)
    """One per order of a batch; the protocol fills them in. Left empty, the request is its own."""
    id: Any = None
    """The request's own id, which a frame's answer repeats."""

    @property
    def deadline_ns(self) -> int | None:
        """Return the wall time until which the venue may act on it; None without a limit."""
        if self.timestamp_ns is None or self.valid_ns is None:
            return None
        return self.timestamp_ns + self.valid_ns


class Reply(Struct):
    """What goes back: for HTTP all of it, for a frame the body alone."""

    body: Any
    """Bytes as they are; anything else as JSON."""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
