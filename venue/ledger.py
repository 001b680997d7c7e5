"""The venue's own log, one JSON line per request and per thing that happened to an order.

It is the judge in fault tests, since it says what the venue accepted and when, and it brings a
venue that was killed back to where it was. Lines are written when they happen and flushed before
any report about them leaves, so that nobody knows more than the log.
"""

import os
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import msgspec
from msgspec import Struct

from host.api import Command, OrderFilled, OrderStatus, TandemError

__all__ = [
    "AccountOpened",
    "Funded",
    "Ledger",
    "LedgerError",
    "LedgerLine",
    "OrderEnded",
    "RequestSeen",
    "Traded",
]


class LedgerError(TandemError):
    """The log cannot be read as a venue's; the message names the file and the line."""


class _Line(Struct, frozen=True, tag_field="kind", omit_defaults=True):
    pass


class AccountOpened(_Line, frozen=True, tag="account"):
    """An account exists with these balances to start with."""

    account: str
    balances: dict[str, Decimal]


class RequestSeen(_Line, frozen=True, tag="request"):
    """A request arrived. `verdict` is `accepted` or the reason why it was refused."""

    ts_ns: int
    account: str
    client_id: str
    command: Command
    sent_ns: int
    deadline_ns: int
    verdict: str
    order_id: int = 0
    """The venue's number of the order, where the request created one."""
    text: str = ""


class Traded(_Line, frozen=True, tag="fill"):
    """An order of `account` traded."""

    account: str
    fill: OrderFilled


class OrderEnded(_Line, frozen=True, tag="end"):
    """An order left the book without being filled: CANCELLED or EXPIRED."""

    ts_ns: int
    account: str
    client_id: str
    status: OrderStatus
    reason: str
    filled: Decimal


class Funded(_Line, frozen=True, tag="funding"):
    """An account got (negative: paid) funding for a position."""

    ts_ns: int
    account: str
    symbol: str
    currency: str
    amount: Decimal


LedgerLine = AccountOpened | RequestSeen | Traded | OrderEnded | Funded


class Ledger:
    """An append-only JSON-lines file. A line cut short at the end of an old file is removed.

    Read what an earlier run left with `history` before the first `write`.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_torn_tail(path)
        self._file = path.open("ab")
        self._encoder = msgspec.json.Encoder()

    def history(self) -> Iterator[LedgerLine]:
        """Iterate over the lines of the file; raise `LedgerError` at the first that is not one."""
        decoder = msgspec.json.Decoder(LedgerLine)
        with self.path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                try:
                    yield decoder.decode(line)
                except msgspec.DecodeError as error:
                    raise LedgerError(
                        f"{self.path}, line {number}: expected a line of the venue's log, was {line[:80]!r} "
                        f"({error}); restore the file or move it away to start an empty venue"
                    ) from error

    def write(self, line: LedgerLine) -> None:
        """Add one line; it reaches the file with the next `flush`."""
        self._file.write(self._encoder.encode(line))
        self._file.write(b"\n")

    def flush(self) -> None:
        """Hand all lines to the operating system, which keeps them when this process is killed."""
        self._file.flush()

    def close(self) -> None:
        """Flush and close the file."""
        self._file.close()


def _remove_torn_tail(path: Path) -> None:
    if not path.exists():
        return
    chunk_size = 1 << 16
    with path.open("r+b") as file:
        end = file.seek(0, os.SEEK_END)
        position = end
        while position > 0:
            start = max(0, position - chunk_size)
            file.seek(start)
            newline = file.read(position - start).rfind(b"\n")
            if newline >= 0:
                position = start + newline + 1
                break
            position = start
        if position < end:
            file.truncate(position)
