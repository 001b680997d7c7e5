"""Estimate where our order stands in the queue of one price level, from sizes and trades alone.

A recording shows the total size at a price, not the orders that make it up. The method is
Erik Rigtorp's, "Estimating order queue position" (2013), which hftbacktest's probability queue
models follow: start behind everything displayed, let trades eat the queue from the front, and
split any other decrease between the part ahead of us and the part behind us.

Two streams tell of one trade, the print and the smaller displayed size, and either may come
first. A decrease counts as cancels until a print explains it; a print that follows within
`LATE_PRINT_NS` takes that share back, so that one trade never moves us up twice.
"""

from collections.abc import Callable

from msgspec import Struct

from venue.market import VenueOrder

__all__ = ["LATE_PRINT_NS", "LevelQueue", "QueuedOrder", "ShareAhead", "all_behind", "proportional"]

LATE_PRINT_NS = 50_000_000
"""How long after a decrease a print may still explain it. In the Binance recordings most prints
arrive after the quote that already shows them, half of those within 1 ms, nine in ten within 40."""

ShareAhead = Callable[[float, float], float]
"""Given the sizes ahead of and behind our order, the share of cancels that happen ahead, 0 to 1."""


def proportional(ahead: float, behind: float) -> float:
    """Cancels are spread evenly over the queue: Rigtorp's f(x) = x."""
    total = ahead + behind
    return ahead / total if total > 0.0 else 0.0


def all_behind(ahead: float, behind: float) -> float:
    """Cancels happen behind us for as long as there is anything behind: the pessimist's bound."""
    return 0.0


class QueuedOrder(Struct, eq=False):
    """One of our orders in the queue. `ahead` is the recorded size in front of it, in base units."""

    order: VenueOrder
    ahead: float
    venue_ns: int
    """The venue's clock when the order joined: prints of earlier trades do not concern it."""
    cut: float = 0.0
    """The part of recent, unexplained decreases that was taken off `ahead`."""


class LevelQueue:
    """The queue at one price: the recorded size, and our orders in it, oldest first."""

    def __init__(self, price: float, displayed: float, share_ahead: ShareAhead) -> None:
        self.price = price
        self.displayed = displayed
        self.orders: list[QueuedOrder] = []
        self._share_ahead = share_ahead
        self._traded = 0.0
        self._unexplained = 0.0
        self._unexplained_ns = 0

    def join(self, order: VenueOrder, venue_ns: int) -> None:
        """Put an order behind everything that is displayed now."""
        self.orders.append(QueuedOrder(order, max(self.displayed - self._traded, 0.0), venue_ns))

    def requeue(self, size: float) -> None:
        """Put all our orders behind `size`: the level is known again after it was not."""
        self.displayed, self._traded, self._unexplained = size, 0.0, 0.0
        for queued in self.orders:
            queued.ahead, queued.cut = size, 0.0

    def leave(self, order: VenueOrder) -> None:
        """Take an order out of the queue."""
        self.orders = [queued for queued in self.orders if queued.order is not order]

    def on_size(self, size: float, now_ns: int) -> None:
        """The recorded size at this price is now `size`."""
        before = self.displayed - self._traded
        cancels = before - size
        self.displayed, self._traded = size, 0.0
        if cancels <= 0.0:
            return
        if now_ns - self._unexplained_ns > LATE_PRINT_NS:
            self._unexplained = 0.0
            for queued in self.orders:
                queued.cut = 0.0
        self._unexplained += cancels
        self._unexplained_ns = now_ns
        for queued in self.orders:
            ahead = queued.ahead
            behind = max(before - ahead, 0.0)
            # No more can be ahead of us than there is at all.
            left = min(ahead - cancels * self._share_ahead(ahead, behind), size)
            queued.ahead = max(left, 0.0)
            queued.cut += ahead - queued.ahead

    def on_trade(self, qty: float, event_ns: int, now_ns: int) -> list[tuple[VenueOrder, float]]:
        """Let a trade of `qty` eat the queue from the front; return (order, volume) that it fills.

        `event_ns` is the venue's time of the trade, 0 where it sends none.
        """
        explained = 0.0
        if self._unexplained > 0.0 and now_ns - self._unexplained_ns <= LATE_PRINT_NS:
            explained = min(qty, self._unexplained)
            given_back = explained / self._unexplained
            self._unexplained -= explained
            for queued in self.orders:
                returned = queued.cut * given_back
                queued.ahead += returned
                queued.cut -= returned
        self._traded += qty - explained
        fills: list[tuple[VenueOrder, float]] = []
        left = qty
        for queued in self.orders:
            if 0 < event_ns < queued.venue_ns:
                continue
            reach = left - queued.ahead
            if reach <= 0.0:
                queued.ahead = -reach
                continue
            queued.ahead = 0.0
            volume = min(reach, float(queued.order.remaining))
            # What our own earlier order takes does not reach the recorded queue behind it.
            left -= volume
            fills.append((queued.order, volume))
        return fills
