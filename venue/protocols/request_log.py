"""The request log: one JSON line per request and per order of a batch. It judges failover tests.

A line is written when the verdict is known and flushed at once, before the answer leaves: nobody
knows more than the log. All times are wall times of the venue, without the skew that a fault may
show to clients.
"""

from collections import deque
from pathlib import Path
from typing import Any, Final

import msgspec
from msgspec import Struct

from venue.protocols.requests import Entry, Kind, Request, Verdict

__all__ = ["RequestLine", "RequestLog"]

PROOFS: Final = frozenset({"apikey", "api_key", "signature", "sign", "passphrase", "secret"})
"""Names of parameters that prove who asks, in lower case."""
KEPT: Final = 100_000
"""Lines that stay in memory for whoever asks; a file keeps them all."""


class RequestLine(Struct, frozen=True, omit_defaults=True):
    """What one request, or one order of a batch, asked for and what came of it."""

    number: int
    """Counts lines from 1."""
    arrived_ns: int
    protocol: str
    transport: str
    method: str
    kind: str
    verdict: str
    """`accepted`, `refused` or `lost`."""
    account: str = ""
    client_id: str = ""
    symbol: str = ""
    asked: dict[str, Any] = {}
    """The parameters, signature and key left out."""
    timestamp_ns: int | None = None
    """The time that the request carried."""
    valid_ns: int | None = None
    """The validity window that it carried, or that the venue gives a request without one."""
    reason: str = ""
    """Why it was refused, in the venue's code and words; or which fault swallowed it."""
    order_id: str = ""
    """The exchange's number of the order that it placed, changed or cancelled."""
    decided_ns: int = 0
    """When the matching engine decided; 0 where it was not asked."""
    connection: int = 0
    """Which WebSocket connection it came by."""
    faults: tuple[str, ...] = ()
    """Faults on command that struck it."""


class RequestLog:
    """Writes the lines to `path`, if there is one, and keeps the newest in memory."""

    def __init__(self, path: Path | None = None) -> None:
        self.lines: deque[RequestLine] = deque(maxlen=KEPT)
        self._number = 0
        self._encoder = msgspec.json.Encoder()
        self._file = None
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = path.open("ab")

    def write(self, request: Request, faults: tuple[str, ...] = (), lost: str = "") -> None:
        """Write a request down; `lost` says by which fault nobody ever looked at it."""
        if lost:
            entry = Entry(request.client_id, request.symbol, request.params, None, Verdict.LOST, lost)
            entries = [entry]
        else:
            entries = request.entries or [Entry(request.client_id, request.symbol, request.params)]
        for entry in entries:
            self._number += 1
            line = RequestLine(
                number=self._number,
                arrived_ns=request.arrived_ns,
                protocol=request.protocol,
                transport=request.transport,
                method=request.method,
                kind=str(entry.kind or request.kind),
                verdict=str(entry.verdict or Verdict.ACCEPTED),
                account=request.account,
                client_id=entry.client_id,
                symbol=entry.symbol,
                asked={} if request.kind is Kind.LOGIN else _public(entry.asked),
                timestamp_ns=request.timestamp_ns,
                valid_ns=request.valid_ns,
                reason=entry.reason,
                order_id=entry.order_id,
                decided_ns=entry.decided_ns,
                connection=0 if request.raw.connection is None else request.raw.connection.number,
                faults=faults,
            )
            self.lines.append(line)
            if self._file is not None:
                self._file.write(self._encoder.encode(line) + b"\n")
        if self._file is not None:
            self._file.flush()

    def since(self, number: int) -> list[RequestLine]:
        """Return the lines in memory after the one with this number."""
        return [line for line in self.lines if line.number > number]

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()


def _public(asked: dict[str, Any]) -> dict[str, Any]:
    """Return parameters without what proves who asks, at any depth."""
    return {name: _without(value) for name, value in asked.items() if name.lower() not in PROOFS}


def _without(value: Any) -> Any:
    if isinstance(value, dict):
        return _public(value)
    if isinstance(value, list):
        return [_without(one) for one in value]
    return value
