"""What protocols publish of the markets: last prices, recent trades, day statistics, batched changes."""

from collections import deque
from typing import Final

import msgspec
from msgspec import Struct

from host.api import BookTop, Depth, Level, MarketEvent, Trade
from venue.exchange import Exchange

__all__ = ["DayStatistics", "DepthBatch", "MarketFeed", "SymbolFeed"]

RECENT_TRADES: Final = 1_000


class DayStatistics(Struct):
    """Prices and volume since the venue opened: a day at most counts, a venue rarely runs longer."""

    open: float = 0.0
    high: float = 0.0
    low: float = 0.0
    last: float = 0.0
    last_qty: float = 0.0
    volume: float = 0.0
    quote_volume: float = 0.0
    first_trade_id: int = -1
    last_trade_id: int = -1
    count: int = 0
    since_ns: int = 0
    """Market time of the first trade."""

    def add(self, trade: Trade) -> None:
        """Count one trade."""
        if not self.count:
            self.open = self.high = self.low = trade.price
            self.first_trade_id = trade.trade_id
            self.since_ns = trade.ts_recv
        self.high = max(self.high, trade.price)
        self.low = min(self.low, trade.price)
        self.last, self.last_qty = trade.price, trade.qty
        self.volume += trade.qty
        self.quote_volume += trade.price * trade.qty
        self.last_trade_id = trade.trade_id
        self.count += 1


class SymbolFeed:
    """One symbol's public state."""

    def __init__(self, symbol: str) -> None:
        self.symbol: Final = symbol
        self.top: BookTop | None = None
        self.trades: deque[Trade] = deque(maxlen=RECENT_TRADES)
        self.day: Final = DayStatistics()
        self._frozen: Depth | None = None

    def book(self, exchange: Exchange, *, is_stale: bool = False) -> Depth:
        """Return the whole book; while `is_stale`, the one from when that began."""
        if not is_stale:
            self._frozen = None
            return exchange.snapshot(self.symbol)
        if self._frozen is None:
            self._frozen = exchange.snapshot(self.symbol)
        return self._frozen

    @property
    def mark(self) -> float:
        """Return the mark price: the middle of the book, the last trade without one, 0 without either."""
        return self.top.mid if self.top is not None else self.day.last


class MarketFeed:
    """Every symbol's public state, kept up to date by `on_market`."""

    def __init__(self, exchange: Exchange) -> None:
        self._feeds = {
            instrument.symbol: SymbolFeed(instrument.symbol) for instrument in exchange.instruments
        }

    def __getitem__(self, symbol: str) -> SymbolFeed:
        return self._feeds[symbol]

    def on_market(self, event: MarketEvent) -> None:
        """Take in one public event."""
        feed = self._feeds[event.symbol]
        if type(event) is BookTop:
            feed.top = event
        elif type(event) is Trade:
            feed.trades.append(event)
            feed.day.add(event)


class DepthBatch:
    """Gathers changes of one book into one message, as venues do every 10 to 1000 ms.

    The batch spans the changes' ids from `first_seq` of the first to `seq` of the last, and holds
    each price once, with its last size.
    """

    def __init__(self) -> None:
        self._bids: dict[float, float] = {}
        self._asks: dict[float, float] = {}
        self._first: Depth | None = None
        self._last: Depth | None = None
        self._before = -1

    def add(self, change: Depth) -> None:
        """Take in one change."""
        if self._first is None:
            self._first = change
        self._last = change
        self._bids.update(change.bids)
        self._asks.update(change.asks)

    def take(self) -> Depth | None:
        """Return what was gathered since the last call, None for nothing.

        `prev_seq` is the last id of the batch before (the id before the first, for the first).
        """
        first, last = self._first, self._last
        if first is None or last is None:
            return None
        previous = self._before
        if previous < 0:
            previous = first.prev_seq if first.prev_seq >= 0 else first.first_seq - 1
        batch = msgspec.structs.replace(
            last,
            bids=_levels(self._bids, is_bid=True),
            asks=_levels(self._asks, is_bid=False),
            first_seq=first.first_seq,
            prev_seq=previous,
        )
        self._before = last.seq
        self._bids.clear()
        self._asks.clear()
        self._first = self._last = None
        return batch


def _levels(sizes: dict[float, float], *, is_bid: bool) -> tuple[Level, ...]:
    return tuple(sorted(sizes.items(), reverse=is_bid))
