"""Book channels: a window of so many levels, sent whole once and then kept exact by changes.

Every subscriber of a channel gets the same pushes; a new one gets the window as it was last pushed,
under the number of that push, so that the next change follows it.
"""

from collections.abc import Iterable
from typing import Any, Final

from host.api import BookTop, Depth, Level
from venue.protocols.okx.names import Listing, text

__all__ = ["CHANNELS", "BookWindow", "levels_of", "top_row"]

CHANNELS: Final = {
    "books5": (5, 0.100),
    "books": (400, 0.100),
    "books-l2-tbt": (400, 0.010),
}
"""Levels of a side, and how often each is pushed, in seconds."""
_WHOLE: Final = ("books5",)
"""Channels whose every push is the whole window."""


class BookWindow:
    """One book channel of one instrument: what was last pushed, and what to push next."""

    def __init__(self, listing: Listing, channel: str) -> None:
        self.listing: Final = listing
        self.channel: Final = channel
        self._most: Final = CHANNELS[channel][0]
        self._is_whole: Final = channel in _WHOLE
        self._seq = -1
        self._bids: dict[float, float] = {}
        self._asks: dict[float, float] = {}

    @property
    def is_started(self) -> bool:
        """Return whether anything was pushed."""
        return self._seq >= 0

    def start(self, book: Depth) -> None:
        """Take the window from a whole book."""
        self._bids, self._asks = self._cut(book)
        self._seq = book.seq

    def stop(self) -> None:
        """Begin anew with the next subscriber."""
        self._seq = -1

    def whole(self, at_ms: int) -> dict[str, Any]:
        """Return the window as it was last pushed: `action` and the row."""
        row = self._row(self._bids.items(), self._asks.items(), self._seq, -1, at_ms)
        return {"data": [row]} if self._is_whole else {"action": "snapshot", "data": [row]}

    def advance(self, book: Depth, at_ms: int) -> dict[str, Any] | None:
        """Move on to a newer book and return what to push; None for nothing."""
        bids, asks = self._cut(book)
        changed_bids, changed_asks = _changes(self._bids, bids), _changes(self._asks, asks)
        if not changed_bids and not changed_asks:
            return None
        before, self._seq, self._bids, self._asks = self._seq, book.seq, bids, asks
        if self._is_whole:
            return self.whole(at_ms)
        row = self._row(changed_bids, changed_asks, book.seq, before, at_ms)
        return {"action": "update", "data": [row]}

    def _cut(self, book: Depth) -> tuple[dict[float, float], dict[float, float]]:
        return dict(book.bids[: self._most]), dict(book.asks[: self._most])

    def _row(
        self, bids: Iterable[Level], asks: Iterable[Level], seq: int, before: int, at_ms: int
    ) -> dict[str, Any]:
        row: dict[str, Any] = {
            "asks": levels_of(self.listing, asks),
            "bids": levels_of(self.listing, bids),
            "ts": str(at_ms),
            "seqId": seq,
        }
        # The venue sends no checksums any more: it says 0.
        return row if self._is_whole else row | {"checksum": 0, "prevSeqId": before}


def levels_of(listing: Listing, levels: Iterable[Level]) -> list[list[str]]:
    """Write levels as OKX does: price, size, a deprecated 0 and the number of orders."""
    return [[text(price), listing.size_of(size), "0", "1" if size else "0"] for price, size in levels]


def top_row(listing: Listing, top: BookTop, at_ms: int) -> dict[str, Any]:
    """Return the row of a `bbo-tbt` push."""
    return {
        "asks": levels_of(listing, [(top.ask, top.ask_size)]),
        "bids": levels_of(listing, [(top.bid, top.bid_size)]),
        "ts": str(at_ms),
        "seqId": top.seq,
    }


def _changes(before: dict[float, float], now: dict[float, float]) -> list[Level]:
    """Return what makes `before` into `now`: size 0 for what left the window."""
    changed = [(price, size) for price, size in now.items() if before.get(price) != size]
    return changed + [(price, 0.0) for price in before if price not in now]
