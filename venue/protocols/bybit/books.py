"""Book topics: a window of so many levels, sent whole once and then kept exact by changes.

Every subscriber of a topic gets the same numbered pushes; a new one gets the window as it was last
pushed, under the number of that push, so that the next change continues it.
"""

from typing import Any, Final

from host.api import Depth, Level
from venue.protocols.bybit.numbers_as_text import text

__all__ = ["DEPTHS", "BookWindow", "book_data"]

DEPTHS: Final = {1: 0.010, 50: 0.020, 200: 0.100, 1000: 0.200}
"""Levels that can be subscribed, and how often each is pushed, in seconds."""


class BookWindow:
    """One book topic: what was last pushed, and what to push next."""

    def __init__(self, name: str, depth: int) -> None:
        self.name: Final = name
        self.depth: Final = depth
        self.u = 1
        """The number of the last push; 1 would tell clients that the venue has restarted."""
        self.seq = 0
        self._bids: dict[float, float] = {}
        self._asks: dict[float, float] = {}
        self.is_started = False

    @property
    def topic(self) -> str:
        """Return the topic's name."""
        return f"orderbook.{self.depth}.{self.name}"

    def start(self, book: Depth) -> None:
        """Take the window from a whole book; the first number after that is a snapshot's."""
        self._bids, self._asks = self._cut(book)
        self.u, self.seq, self.is_started = self.u + 1, book.seq, True

    def snapshot(self) -> dict[str, Any]:
        """Return the window as it was last pushed."""
        return book_data(self.name, list(self._bids.items()), list(self._asks.items()), self.u, self.seq)

    def advance(self, book: Depth) -> dict[str, Any] | None:
        """Move on to a newer book and return what changed in the window; None for nothing.

        The best-only topic has no changes: it is pushed whole.
        """
        bids, asks = self._cut(book)
        changed_bids, changed_asks = _changes(self._bids, bids), _changes(self._asks, asks)
        if not changed_bids and not changed_asks:
            return None
        self._bids, self._asks = bids, asks
        self.u, self.seq = self.u + 1, book.seq
        if self.depth == 1:
            return self.snapshot()
        return book_data(self.name, changed_bids, changed_asks, self.u, self.seq)

    def _cut(self, book: Depth) -> tuple[dict[float, float], dict[float, float]]:
        return dict(book.bids[: self.depth]), dict(book.asks[: self.depth])


def book_data(name: str, bids: list[Level], asks: list[Level], u: int, seq: int) -> dict[str, Any]:
    """Return the `data` of a book push."""
    return {"s": name, "b": _texts(bids), "a": _texts(asks), "u": u, "seq": seq}


def _texts(levels: list[Level]) -> list[list[str]]:
    return [[text(price), text(size)] for price, size in levels]


def _changes(before: dict[float, float], now: dict[float, float]) -> list[Level]:
    """Return what makes `before` into `now`: size 0 for what left the window."""
    changed = [(price, size) for price, size in now.items() if before.get(price) != size]
    return changed + [(price, 0.0) for price in before if price not in now]
