"""Flow control towards one worker: what it has not handled is counted, and never grows without end.

At most `window` events are with the worker unhandled, fewer with one that is slow. What comes beyond that
waits here; what waits too long, or is too much, is conflated: of each symbol the newest quote and ticker
stay, the whole book takes the place of its changes, and trades are summed up. What concerns the instance
itself (orders, fills, parameters) is never conflated. Sans-IO; times are any clock's that does not go back.
"""

import logging
from collections import deque
from collections.abc import Callable
from math import isfinite
from typing import Any, Final

from msgspec import Raw

from host.api import BookTop, Candle, Depth, MarketEvent, Ticker, Trade
from host.isolation.settings import WorkerSettings
from host.runtime.latency import Histogram
from host.wire import Codec, CodecError
from host.wire.messages import Book, BookLost, CandleEvent, DepthEvent, Event, Missed, TickerEvent, TradeEvent

__all__ = ["Item", "Outlet"]

_log = logging.getLogger("tandem.workers")
LEAST_WINDOW: Final = 4
SLOW_NS: Final = 20_000_000
"""A batch that takes longer halves what may be with the worker, ..."""
QUICK_NS: Final = 5_000_000
"""... and one that takes less doubles it, up to what is configured."""
_WRAPPED: Final[dict[type[Any], Callable[[Any], Any]]] = {
    BookTop: Book,
    Depth: DepthEvent,
    Trade: TradeEvent,
    Ticker: TickerEvent,
    Candle: CandleEvent,
    BookLost: lambda lost: lost,
}


_NOTHING: Final = Raw(b"")
"""Stands for what cannot be encoded."""


class Item:
    """One event, encoded once for all workers that get it."""

    __slots__ = ("_raws", "event")

    def __init__(self, event: MarketEvent | Candle | BookLost) -> None:
        self.event: Final = event
        self._raws: dict[str, Raw] = {}

    def raw(self, codec: Codec) -> Raw | None:
        """Return it as it goes onto the wire; None where the encoding has not what is in it.

        That is a whole number beyond 64 bits in MessagePack, in JSON a float that is no number, and in both a text
        that is none.
        """
        raw = self._raws.get(codec.name)
        if raw is None:
            raw = self._raws[codec.name] = self._encoded(codec)
        return None if raw is _NOTHING else raw

    def _encoded(self, codec: Codec) -> Raw:
        try:
            data = codec.encode(_WRAPPED[type(self.event)](self.event))
            if codec.name == "json" and b"null" in data:
                # Of a market event nothing may be null: a reader could not tell it from a price that is not there.
                codec.decode_from_host(b'{"type":"events","seq":1,"events":[%s]}' % data)
        except (CodecError, TypeError, ValueError, OverflowError):
            return _NOTHING
        return Raw(data)


class _Latest:
    """What is left of the events of one symbol that were conflated."""

    __slots__ = ("book", "books", "bought", "depths", "sold", "ticker", "tickers", "trades")

    def __init__(self) -> None:
        self.book: Item | None = None
        """The newest word on the best bid and ask: what they are, or that they are lost."""
        self.ticker: Item | None = None
        self.books = self.tickers = self.depths = self.trades = 0
        self.bought = self.sold = 0.0

    def add(self, item: Item) -> None:
        event = item.event
        if isinstance(event, BookTop):
            self.book, self.books = item, self.books + 1
        elif isinstance(event, Trade):
            self.trades += 1
            qty = event.qty if isfinite(event.qty) else 0.0
            if event.taker_is_buyer:
                self.bought += qty
            else:
                self.sold += qty
        elif isinstance(event, Depth):
            self.depths += 1
        elif isinstance(event, BookLost):
            self.book = item
        elif isinstance(event, Ticker):
            self.ticker, self.tickers = item, self.tickers + 1


class Outlet:
    """The events on their way to one worker. `whole_book(symbol)` returns a snapshot, or None without one."""

    def __init__(
        self, codec: Codec, settings: WorkerSettings, whole_book: Callable[[str], Depth | None]
    ) -> None:
        self.sent = 0
        """Number of the last event that was sent."""
        self.handled = 0
        """Number of the last event that the worker has handled."""
        self.conflated = 0
        """How many market events were left out so far, because the worker was too slow."""
        self.heard = 0
        """How much of what `put_own` marked with a number the worker has handled."""
        self.handled_names: list[str] = []
        """What else `put_own` marked and it has handled, for whoever looks after that to take out."""
        self.progress_ns = 0
        """When the worker last handled something, or got something to handle after it had nothing."""
        self.handling: Final = Histogram()
        """How long it took from a batch sent until all of it was handled."""
        self._codec: Final = codec
        self._settings: Final = settings
        self._whole_book: Final = whole_book
        self._window = settings.window
        """How many events may be with the worker at present."""
        self._waiting: deque[tuple[Item | Raw, int, int | str]] = deque()
        """(event, since when it waits, what is heard with it)."""
        self._latest: dict[str, _Latest] = {}
        self._sent_ns: deque[tuple[int, int]] = deque()
        """(number of the last event, when) of each batch that is not handled."""
        self._marks: deque[tuple[int, int | str]] = deque()
        """(number of the event, what is heard with it), of those sent and not handled."""
        self._has_warned = False

    # -- in --------------------------------------------------------------------------------------

    def put(self, item: Item, now_ns: int) -> None:
        """Add a market event, or that a book is lost."""
        if self._latest:
            self._conflate(item)
            return
        waiting = self._waiting
        if waiting and (
            len(waiting) >= self._settings.most_waiting
            or now_ns - waiting[0][1] > self._settings.conflate_after_ns
        ):
            kept: deque[tuple[Item | Raw, int, int | str]] = deque()
            for entry in waiting:
                if isinstance(entry[0], Item) and not isinstance(entry[0].event, Candle):
                    self._conflate(entry[0])
                else:
                    kept.append(entry)
            self._waiting = kept
            self._conflate(item)
            return
        waiting.append((item, now_ns, 0))

    def put_own(self, event: Event, now_ns: int, mark: int | str = 0) -> int:
        """Add what concerns the instance itself; encoded at once, for an order may change meanwhile.

        `heard` is `mark` once it is handled; such marks rise. A name is among `handled_names` then. Returns the
        number that it will have at most: less where market events before it are left out.
        """
        self._waiting.append((Raw(self._codec.encode(event)), now_ns, mark))
        return self.sent + len(self._waiting)

    def put_candle(self, item: Item, now_ns: int) -> None:
        """Add a candle: there are few of them, and none is left out."""
        self._waiting.append((item, now_ns, 0))

    def _conflate(self, item: Item) -> None:
        symbol = item.event.symbol
        latest = self._latest.get(symbol)
        if latest is None:
            latest = self._latest[symbol] = _Latest()
        latest.add(item)

    # -- out -------------------------------------------------------------------------------------

    def take(self, now_ns: int) -> list[Raw] | None:
        """Return the events to send now, and count them as sent; None while there is nothing, or no room."""
        room = self._window - (self.sent - self.handled)
        waiting, codec = self._waiting, self._codec
        if room <= 0 or not (waiting or self._latest):
            return None
        batch: list[Raw] = []
        while waiting and room > 0:
            entry, _, mark = waiting.popleft()
            if isinstance(entry, Item):
                raw = entry.raw(codec)
                if raw is None:
                    self._warn(entry)
                    continue
                batch.append(raw)
            else:
                batch.append(entry)
            if mark:
                self._marks.append((self.sent + len(batch), mark))
            room -= 1
        if self._latest and not waiting and room > 0:
            # Whole, though it may be a few more than there is room for.
            batch.extend(self._conflated())
        if not batch:
            return None
        if self.sent == self.handled:
            self.progress_ns = now_ns
        self.sent += len(batch)
        self._sent_ns.append((self.sent, now_ns))
        return batch

    def _warn(self, item: Item) -> None:
        """Say once of an event that the worker cannot be told, which is an adapter's fault."""
        if not self._has_warned:
            self._has_warned = True
            _log.warning(
                "%.200r cannot be told in %s and is left out, like all others for which that is so: expected finite "
                "numbers and whole ones of 64 bits; mend the adapter that made it",
                item.event,
                "JSON" if self._codec.name == "json" else "MessagePack",
            )

    def _conflated(self) -> list[Raw]:
        batch: list[Raw] = []
        for symbol, left in self._latest.items():
            is_top = left.book is not None and isinstance(left.book.event, BookTop)
            missed = Missed(
                symbol,
                left.books - is_top,
                left.depths,
                max(left.tickers - 1, 0),
                left.trades,
                left.bought,
                left.sold,
            )
            self.conflated += missed.books + missed.depths + missed.tickers + missed.trades
            if missed != Missed(symbol):
                batch.append(Raw(self._codec.encode(missed)))
            whole = self._whole_book(symbol) if left.depths else None
            for item in (None if whole is None else Item(whole), left.ticker, left.book):
                if item is None:
                    continue
                if (raw := item.raw(self._codec)) is None:
                    self._warn(item)
                else:
                    batch.append(raw)
        self._latest = {}
        return batch

    def handle(self, number: int, now_ns: int) -> bool:
        """Take note that the worker has handled everything up to an event; False where that cannot be."""
        if not self.handled <= number <= self.sent:
            return False
        if number > self.handled:
            self.handled = number
            self.progress_ns = now_ns
            sent_ns = self._sent_ns
            while sent_ns and sent_ns[0][0] <= number:
                took_ns = now_ns - sent_ns.popleft()[1]
                self.handling.add(took_ns)
                # What is with a slow worker is old before it gets to it: few events are, then.
                if took_ns > SLOW_NS:
                    self._window = max(self._window // 2, min(LEAST_WINDOW, self._settings.window))
                elif took_ns < QUICK_NS:
                    self._window = min(self._window * 2, self._settings.window)
            while self._marks and self._marks[0][0] <= number:
                mark = self._marks.popleft()[1]
                if isinstance(mark, str):
                    self.handled_names.append(mark)
                else:
                    self.heard = mark
        return True

    # -- what can be seen ------------------------------------------------------------------------

    @property
    def behind(self) -> int:
        """Return how many events the worker has not handled; conflated ones count as one for each symbol."""
        return self.sent - self.handled + len(self._waiting) + len(self._latest)

    def lag_ns(self, now_ns: int) -> int:
        """Return how long ago the oldest event that is not handled was sent; 0 where there is none."""
        if self._sent_ns:
            return now_ns - self._sent_ns[0][1]
        return now_ns - self._waiting[0][1] if self._waiting else 0

    def stuck_ns(self, now_ns: int) -> int:
        """Return for how long the worker has handled nothing, though it has something; 0 where it has not."""
        return now_ns - self.progress_ns if self.sent > self.handled else 0
