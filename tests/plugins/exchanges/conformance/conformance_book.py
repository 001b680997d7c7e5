"""A book kept as the host keeps it, beside an adapter: what the suite compares with the venue's own."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from conformance_sites import ProtocolSite
from exchange_tools import FakeHost, eventually

from host.api import Depth, MarketEvent
from host.core.books import Book, DepthResult
from venue.protocols.faults import FaultKind

if TYPE_CHECKING:
    from conformance_desk import At

__all__ = ["Followed", "Host"]


class Host(FakeHost):
    """The host's side of an adapter, with somebody who follows the market in the same call."""

    def __init__(self, account: str = "main") -> None:
        super().__init__(account)
        self.on_depth: Callable[[Depth], None] = _take_no_notice

    def market(self, event: MarketEvent) -> None:
        """Keep an event, and have it followed."""
        super().market(event)
        if isinstance(event, Depth):
            self.on_depth(event)


def _take_no_notice(depth: Depth) -> None:
    pass


class Followed:
    """A book kept as the host keeps it: a gap or nonsense has the adapter fetch it anew, at once."""

    def __init__(self, at: "At") -> None:
        self.book: Final = Book(at.symbol)
        self.results: Final[list[DepthResult]] = []
        self._at = at
        self._to_lose = 0
        for depth in at.host.of(Depth):
            self._take(depth)
        at.host.on_depth = self._take

    def _take(self, depth: Depth) -> None:
        if depth.symbol != self._at.symbol:
            return
        if self._to_lose:
            self._to_lose -= 1
            return
        result = self.book.apply_depth(depth)
        self.results.append(result)
        if result is DepthResult.GAP:
            self._at.adapter.resync(self._at.symbol)

    async def lose_a_change(self) -> None:
        """Have a change of the book get lost on its way."""
        at = self._at
        if isinstance(at.site, ProtocolSite):
            number = at.site.fault(FaultKind.SEQUENCE_GAP, count=1)
            faults = at.site.server.faults
            at.move()
            await eventually(lambda: faults.listed()[number]["struck"], "a change is lost")
        else:
            self._to_lose = 1
            at.move()
            await eventually(lambda: not self._to_lose, "a change is lost")

    @property
    def is_right(self) -> bool:
        """Return whether the book is, without a fault, what the venue has."""
        theirs = self._at.site.exchange.snapshot(self._at.symbol)
        return not self.book.depth_fault and self.book.levels(3) == (
            list(theirs.bids[:3]),
            list(theirs.asks[:3]),
        )
