"""Market data frames of one product, into events; and the order that a book's frames must keep.

Bybit numbers the pushes of each book topic with `u`, which rises by one; `seq` is shared by all
topics of a symbol and says which of two knows more. The host gets `seq`, so that it can compare
best prices with depth, and `u` is checked here: where one is missing, the host gets a change that
follows a number it never had, which it takes for the gap that it is, and the topic is put on
`lost`, to be subscribed again. Until the snapshot that then comes, its frames are dropped.
"""

from collections.abc import Mapping, Sequence
from math import inf
from typing import Final

import msgspec

from host.api import BookTop, Depth, MarketEvent, Ticker, Trade

from .frames import BadFrame, BookFrame, Frame, Head, TickerFrame, TradeFrame, decode
from .products import Product
from .usual_tops import MS, BookState, usual_tops

__all__ = ["BEST_ONLY", "MarketCodec", "book_topic", "ticker_topic", "trade_topic"]

BEST_ONLY: Final = 1
"""The depth of the topic that carries the best bid and ask alone."""

_BOOK_START: Final = b'{"topic":"orderbook.'
_SNAPSHOT: Final = "snapshot"
_RESTARTED: Final = 1
"""`u` of the first book after the venue's own restart: it replaces ours, whatever its type."""

_HEAD: Final = msgspec.json.Decoder(Head, strict=False)
# Not strict: prices and sizes come as text, and are numbers at once, without a string in between.
_BOOK: Final = msgspec.json.Decoder(BookFrame, strict=False)
_TRADES: Final = msgspec.json.Decoder(TradeFrame, strict=False)
_TICKER: Final = msgspec.json.Decoder(TickerFrame, strict=False)


def book_topic(depth: int, venue_symbol: str) -> str:
    """Return the topic of a book of so many levels."""
    return f"orderbook.{depth}.{venue_symbol}"


def trade_topic(venue_symbol: str) -> str:
    """Return the topic of a symbol's public trades."""
    return f"publicTrade.{venue_symbol}"


def ticker_topic(venue_symbol: str) -> str:
    """Return the topic of a symbol's 24-hour summary."""
    return f"tickers.{venue_symbol}"


class MarketCodec:
    """Turns the public frames of one product into events, for one connection.

    `symbols` maps the venue's names to ours; frames of others are dropped. A new connection starts
    with a new codec, as its topics start with snapshots.
    """

    def __init__(self, product: Product, symbols: Mapping[str, str]) -> None:
        self._product = product
        self._symbols = symbols
        self._books: dict[str, BookState] = {}
        self.usual_top: Final = usual_tops(self._books)
        """The quick way: takes what `events` does and returns the best prices, or None; then `events` is to look."""
        self._tickers: dict[str, list[float | None]] = {}
        self.lost: list[str] = []
        """Topics whose book has a gap, until `take_lost`."""

    def events(self, frame: Frame, now_ns: int) -> Sequence[MarketEvent]:
        """Return what one push says, oldest first; nothing for an answer to a request.

        Raises `BadFrame` for what is no frame of the venue.
        """
        if frame[: len(_BOOK_START)] == _BOOK_START:
            return self._book(frame, now_ns)
        topic = decode(_HEAD, frame, "market frame").topic
        if topic.startswith("orderbook."):
            return self._book(frame, now_ns)
        if topic.startswith("publicTrade."):
            return self._trades(frame, now_ns)
        if topic.startswith("tickers."):
            return self._ticker(frame, now_ns)
        if topic:
            raise BadFrame("unknown topic", topic)
        return ()

    def forget(self, topic: str) -> None:
        """Start a topic over: its next snapshot is awaited."""
        self._books.pop(topic, None)

    def start_over(self) -> None:
        """Start everything over, as after a lost connection."""
        self._books.clear()
        self._tickers.clear()
        self.lost.clear()

    def is_started(self, topic: str) -> bool:
        """Return whether a book topic has had its snapshot and no gap since."""
        state = self._books.get(topic)
        return state is not None and state.u > 0

    def take_lost(self) -> Sequence[str]:
        """Return the topics to be subscribed again, once."""
        if not self.lost:
            return ()
        lost, self.lost = self.lost, []
        return lost

    # -- books -----------------------------------------------------------------------------------

    def _book(self, frame: Frame, now_ns: int) -> Sequence[MarketEvent]:
        try:
            book = _BOOK.decode(frame)  # here and not in `decode`: most frames are books
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise BadFrame("bad book frame", str(error)) from error
        data = book.data
        state = self._books.get(book.topic)
        if state is None:
            state = self._first_of(book)
            if state is None:
                return ()
        if book.type == _SNAPSHOT or data.u == _RESTARTED:
            state.u, state.seq = data.u, data.seq
            if state.is_best_only:
                state.bid = data.b[0] if data.b else None
                state.ask = data.a[0] if data.a else None
                return _quote(state, book, now_ns)
            ts_event = (book.cts or book.ts) * MS
            return (Depth(state.symbol, data.b, data.a, True, data.seq, data.seq, -1, ts_event, now_ns),)
        if not state.u:
            return ()  # it belongs to a book that was given up
        if data.u != state.u + 1:
            return self._out_of_order(state, book, now_ns)
        previous, state.u, state.seq = state.seq, data.u, data.seq
        if state.is_best_only:
            state.bid = _best(data.b, state.bid)
            state.ask = _best(data.a, state.ask)
            return _quote(state, book, now_ns)
        ts_event = (book.cts or book.ts) * MS
        return (Depth(state.symbol, data.b, data.a, False, data.seq, data.seq, previous, ts_event, now_ns),)

    def _first_of(self, book: BookFrame) -> BookState | None:
        _, _, rest = book.topic.partition(".")
        depth, _, venue_symbol = rest.partition(".")
        symbol = self._symbols.get(venue_symbol)
        if symbol is None or not depth.isdigit():
            return None
        state = self._books[book.topic] = BookState(symbol, is_best_only=int(depth) == BEST_ONLY)
        return state

    def _out_of_order(self, state: BookState, book: BookFrame, now_ns: int) -> Sequence[MarketEvent]:
        data = book.data
        if data.u <= state.u and data.seq <= state.seq:
            return ()  # told twice, or late: the book holds it already
        last, state.u = state.seq, 0
        self.lost.append(book.topic)
        if state.is_best_only:
            return ()
        after = last + 1  # a number that the host's book cannot be at
        ts_event = (book.cts or book.ts) * MS
        return (Depth(state.symbol, (), (), False, after + 1, after + 1, after, ts_event, now_ns),)

    # -- trades and summaries --------------------------------------------------------------------

    def _trades(self, frame: Frame, now_ns: int) -> Sequence[MarketEvent]:
        trades = []
        for row in decode(_TRADES, frame, "trade frame").data:
            symbol = self._symbols.get(row.s)
            if symbol is None or row.BT:
                continue  # a block trade was agreed elsewhere: it says nothing of this market
            if not (0.0 < row.p < inf and 0.0 < row.v < inf):
                raise BadFrame("bad trade", f"price and size must be above 0, was {row.p!r} and {row.v!r}")
            trade_id = int(row.i) if row.i.isdecimal() else 0  # derivatives number them by UUID
            trades.append(Trade(symbol, row.p, row.v, row.S == "Buy", trade_id, row.T * MS, now_ns))
        return trades

    def _ticker(self, frame: Frame, now_ns: int) -> Sequence[MarketEvent]:
        ticker = decode(_TICKER, frame, "ticker frame")
        data = ticker.data
        venue_symbol = data.symbol
        symbol = self._symbols.get(venue_symbol)
        if symbol is None:
            return ()
        volume = data.turnover24h if self._product is Product.INVERSE else data.volume24h  # in base units
        news = (data.last_price, data.prev_price24h, data.high_price24h, data.low_price24h, volume)
        known = self._tickers.get(venue_symbol)
        if known is None or ticker.type == _SNAPSHOT:
            known = self._tickers[venue_symbol] = list(news)
        else:
            for index, value in enumerate(news):
                if value is not None:
                    known[index] = value
        values = [value for value in known if value is not None and 0.0 <= value < inf]
        if len(values) < len(known):
            return ()  # changes without their snapshot
        last, open_, high, low, volume = values
        return (Ticker(symbol, last, open_, high, low, volume, ticker.ts * MS, now_ns),)


def _quote(state: BookState, book: BookFrame, now_ns: int) -> Sequence[MarketEvent]:
    bid, ask = state.bid, state.ask
    if bid is None or ask is None:
        return ()  # one-sided: there is no quote to hand over
    ts_event = (book.cts or book.ts) * MS
    return (BookTop(state.symbol, bid[0], bid[1], ask[0], ask[1], ts_event, now_ns, state.seq),)


def _best(
    levels: Sequence[tuple[float, float]], known: tuple[float, float] | None
) -> tuple[float, float] | None:
    """Return a side's best level after a push of the one-level book: its news, or what was known.

    A change names the level that left with size 0, and the one that took its place.
    """
    for level in levels:
        if level[1] > 0.0:
            return level
    if any(known is not None and level[0] == known[0] for level in levels):
        return None
    return known
