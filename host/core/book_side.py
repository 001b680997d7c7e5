"""One side of an order book: sizes by price, the best price, and the levels in order for who asks.

Venues send dozens of changed levels at a time, of which most say a new size at a known price, and
next to nobody looks past the best price. So sizes are in a dict, the best price is on top of a heap, and the
levels are only put in order when they are asked for.
"""

from collections.abc import Iterable
from heapq import heapify, heappop, heappush
from itertools import islice
from math import inf
from typing import Final

from host.api import Level, Side

__all__ = ["BadLevel", "BookSide"]

_SPARE: Final = 64
"""The heap is made anew once it is four times as long as the side has prices, and by so many more."""


class BadLevel(ValueError):  # noqa: N818 - it says what came, not what failed
    """A price that is not above 0, a size that is below 0, or either that is no finite number."""

    def __init__(self, price: float, size: float) -> None:
        super().__init__(
            f"bad depth: expected a price above 0 and a size of at least 0, was {size!r} at {price!r}"
        )


class BookSide:
    """The bids (`BUY`) or the asks (`SELL`) of one book."""

    __slots__ = ("_heap", "_sign", "_sorted", "sizes")

    def __init__(self, side: Side) -> None:
        self.sizes: Final[dict[float, float]] = {}
        """What rests at each price. Change it through `merge` and `clear` alone."""
        # A heap has its least on top: bids are in there with their sign changed. It holds every price of
        # `sizes`, and some that left: taking one out from the middle would cost a search.
        self._sign: Final = -1.0 if side is Side.BUY else 1.0
        self._heap: Final[list[float]] = []
        self._sorted: list[float] | None = None
        """The prices, best first; None when any has come or gone since they were asked for."""

    def merge(self, levels: Iterable[Level]) -> float:
        """Set the sizes of these levels (0 removes) and return the best price then; 0 when nothing rests.

        Raises `BadLevel`; what came before a bad level counts, so the side is not what the venue has, and
        is to be cleared.
        """
        sizes, heap, sign, most = self.sizes, self._heap, self._sign, inf
        before, gone = len(sizes), 0
        for price, size in levels:
            # A look-up costs more than all the rest here, so prices are not asked for before they are set.
            if size > 0.0 and size < most:  # a chained comparison takes longer
                sizes[price] = size
            elif size != 0.0:
                raise BadLevel(price, size)
            elif sizes.pop(price, 0.0):
                gone += 1
            elif not 0.0 < price < most:
                raise BadLevel(price, size)
        come = len(sizes) - before + gone
        if come:
            # A dict keeps the order in which its keys came.
            for price in islice(reversed(sizes), come):
                if not 0.0 < price < most:
                    raise BadLevel(price, sizes[price])
                heappush(heap, sign * price)
        if come or gone:
            self._sorted = None
            if len(heap) > 4 * len(sizes) + _SPARE:
                heap[:] = [sign * price for price in sizes]
                heapify(heap)
        return self.best()

    def best(self) -> float:
        """Return the best price; 0 when nothing rests."""
        sizes, heap, sign = self.sizes, self._heap, self._sign
        while heap:
            best = sign * heap[0]
            if best in sizes:
                return best
            heappop(heap)  # it left
        return 0.0

    def levels(self, n: int) -> list[Level]:
        """Return up to `n` levels, best first."""
        sizes = self.sizes
        if n == 1:
            best = self.best()
            return [(best, sizes[best])] if best else []
        prices = self._sorted
        if prices is None:
            prices = self._sorted = sorted(sizes, reverse=self._sign < 0.0)
        return [(price, sizes[price]) for price in prices[: max(n, 0)]]

    def qty(self, limit: float) -> float:
        """Return the total size at `limit` or better."""
        sign = self._sign
        return sum(size for price, size in self.sizes.items() if sign * price <= sign * limit)

    def clear(self) -> None:
        """Forget every level."""
        self.sizes.clear()
        self._heap.clear()
        self._sorted = None
