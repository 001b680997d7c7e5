"""The book of a recording, kept from two streams: fast quotes and slower depth.

Quotes come at once but show the best prices only; depth comes every 50 to 100 ms and shows all.
Whichever carries the higher update id is right about the best prices. Prices and sizes stay the
recorded floats.
"""

import math
from collections.abc import Sequence

from host.api import BookTop, Depth, Level, Side

__all__ = ["RecordedBook"]

_MANY_TICKS = 64


class RecordedBook:
    """Sizes per price and the best prices. `best_bid` is 0 and `best_ask` infinite when there is none."""

    def __init__(self, symbol: str, tick_size: float) -> None:
        self.symbol = symbol
        self.bids: dict[float, float] = {}
        self.asks: dict[float, float] = {}
        self.best_bid = 0.0
        self.best_ask = math.inf
        self.depth_seq = 0
        self._top: BookTop | None = None
        self._tick = tick_size
        self._digits = max(0, 2 - math.floor(math.log10(tick_size)))
        # What our takers took of a level, until the recording next changes that level.
        self._taken_bids: dict[float, float] = {}
        self._taken_asks: dict[float, float] = {}

    def on_top(self, top: BookTop) -> bool:
        """Take over new best prices; return False if newer depth has already overtaken them."""
        if 0 < top.seq < self.depth_seq:
            return False
        self._top = top
        bid, ask = top.bid, top.ask
        if bid < self.best_bid:
            self._drop_better(self.bids, bid, self.best_bid)
        if ask > self.best_ask:
            self._drop_better(self.asks, ask, self.best_ask)
        if self._taken_bids and self.bids.get(bid) != top.bid_size:
            self._taken_bids.pop(bid, None)
        if self._taken_asks and self.asks.get(ask) != top.ask_size:
            self._taken_asks.pop(ask, None)
        self.bids[bid] = top.bid_size
        self.asks[ask] = top.ask_size
        self.best_bid, self.best_ask = bid, ask
        return True

    def on_depth(self, depth: Depth) -> None:
        """Apply a snapshot or a change."""
        bids, asks = self.bids, self.asks
        best_bid, best_ask = self.best_bid, self.best_ask
        if depth.is_snapshot:
            bids.clear()
            asks.clear()
            best_bid, best_ask = 0.0, math.inf
        for price, size in depth.bids:
            if size:
                bids[price] = size
                if price > best_bid:  # a call to max() would cost more than the row
                    best_bid = price
            else:
                bids.pop(price, None)
        for price, size in depth.asks:
            if size:
                asks[price] = size
                if price < best_ask:
                    best_ask = price
            else:
                asks.pop(price, None)
        if self._taken_bids or self._taken_asks:
            self._forget_taken(depth)
        self.depth_seq = depth.seq
        top = self._top
        if top is not None and top.seq > depth.seq:
            # The newer quote knows better than these levels at and above the best prices.
            for price, _ in depth.bids:
                if price > top.bid:
                    bids.pop(price, None)
            for price, _ in depth.asks:
                if price < top.ask:
                    asks.pop(price, None)
            bids[top.bid], asks[top.ask] = top.bid_size, top.ask_size
            best_bid, best_ask = top.bid, top.ask
        if best_bid not in bids:
            best_bid = max(bids, default=0.0)
        if best_ask not in asks:
            best_ask = min(asks, default=math.inf)
        self.best_bid, self.best_ask = best_bid, best_ask

    def size_at(self, side: Side, price: float) -> float:
        """Return the recorded size at one price of one side."""
        return (self.bids if side is Side.BUY else self.asks).get(price, 0.0)

    def available(self, side: Side, limit: float) -> list[Level]:
        """Return the levels of `side` at `limit` or better, best first, less what was taken."""
        if side is Side.BUY:
            levels, taken = self.bids, self._taken_bids
            prices = sorted((price for price in levels if price >= limit), reverse=True)
        else:
            levels, taken = self.asks, self._taken_asks
            prices = sorted(price for price in levels if price <= limit)
        if taken:
            return [(price, max(levels[price] - taken.get(price, 0.0), 0.0)) for price in prices]
        return [(price, levels[price]) for price in prices]

    def take(self, side: Side, price: float, qty: float) -> None:
        """Remember that a taker took `qty` here, until the recording next changes this level."""
        taken = self._taken_bids if side is Side.BUY else self._taken_asks
        taken[price] = taken.get(price, 0.0) + qty

    def snapshot(self, now_ns: int) -> Depth:
        """Return all levels, best first, with the update id that the next change follows."""
        return Depth(
            self.symbol,
            _sorted_levels(self.bids, is_descending=True),
            _sorted_levels(self.asks, is_descending=False),
            is_snapshot=True,
            first_seq=self.depth_seq,
            seq=self.depth_seq,
            ts_recv=now_ns,
        )

    def _forget_taken(self, depth: Depth) -> None:
        if depth.is_snapshot:
            self._taken_bids.clear()
            self._taken_asks.clear()
        for price, _ in depth.bids:
            self._taken_bids.pop(price, None)
        for price, _ in depth.asks:
            self._taken_asks.pop(price, None)

    def _drop_better(self, levels: dict[float, float], best: float, old_best: float) -> None:
        # The best price went back, so everything better than it is gone. Walking the few ticks in
        # between is far cheaper than looking through the whole side.
        tick = self._tick if old_best > best else -self._tick
        ticks = round((old_best - best) / tick)
        if ticks <= _MANY_TICKS:
            for count in range(1, ticks + 1):
                levels.pop(round(best + count * tick, self._digits), None)
            return
        for price in [price for price in levels if (price > best) == (old_best > best) and price != best]:
            del levels[price]


def _sorted_levels(levels: dict[float, float], *, is_descending: bool) -> tuple[Level, ...]:
    pairs: Sequence[Level] = sorted(levels.items(), reverse=is_descending)
    return tuple(pairs)
