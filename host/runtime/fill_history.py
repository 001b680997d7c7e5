"""The latest fills of a node, for people who ask; all of them are in the journal and the store."""

from collections import deque
from collections.abc import Iterator
from typing import Final

from msgspec import Struct

from host.api import Fill

__all__ = ["FILLS_KEPT", "BookedFill", "FillHistory"]

FILLS_KEPT: Final = 10_000
"""About 5 MB, and a day of most strategies."""


class BookedFill(Struct, frozen=True):
    """A fill, and the journal entry that booked it."""

    lsn: int
    fill: Fill


class FillHistory:
    """Fills in the order in which they were booked; the oldest make room for new ones.

    Nothing is known of fills up to entry `known_after`: the journal before a snapshot is not read.
    """

    def __init__(self, known_after: int = 0, most: int = FILLS_KEPT) -> None:
        self._fills: deque[BookedFill] = deque(maxlen=most)
        self._lost_lsn = known_after

    def add(self, lsn: int, fill: Fill) -> None:
        """Keep one more."""
        fills = self._fills
        if len(fills) == fills.maxlen:
            self._lost_lsn = fills[0].lsn
        fills.append(BookedFill(lsn, fill))

    @property
    def first_lsn(self) -> int:
        """Return from which entry on no fill is missing."""
        return self._lost_lsn + 1

    def newest_first(self) -> Iterator[BookedFill]:
        """Return the fills, the newest first."""
        return reversed(self._fills)

    def since(self, lsn: int) -> list[BookedFill]:
        """Return the fills booked by entry `lsn` or later, oldest first."""
        found: list[BookedFill] = []
        for booked in reversed(self._fills):
            if booked.lsn < lsn:
                break
            found.append(booked)
        found.reverse()
        return found
