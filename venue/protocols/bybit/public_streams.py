"""Bybit's public WebSockets: books of several depths, trades and summaries by topic."""

import asyncio
from collections.abc import Callable
from typing import Any, Final

import msgspec

from host.api import BookTop, Depth, MarketEvent, Trade
from venue.protocols.bybit.books import DEPTHS, BookWindow
from venue.protocols.bybit.market_queries import MarketQueries, trade_id_of
from venue.protocols.bybit.names import Listing, Product, Symbols
from venue.protocols.bybit.numbers_as_text import text
from venue.protocols.connection import Connection
from venue.protocols.front import Desk

__all__ = ["PublicStreams"]

_MS: Final = 1_000_000
_SPOT_TOPICS: Final = 10
"""Topics of one subscription on spot."""
_TICKER_S: Final = 0.1
_IDLE_REPEAT_S: Final = 3.0
"""The best-only book is pushed again under its old number after so long without a change."""
_KINDS: Final = {"orderbook": "depth", "publicTrade": "trade", "tickers": "ticker"}


class PublicStreams:
    """Who listens to what, and what they are pushed."""

    def __init__(self, desk: Desk, symbols: Symbols, queries: MarketQueries) -> None:
        self._desk: Final = desk
        self._symbols: Final = symbols
        self._queries: Final = queries
        self._listeners: Final[dict[tuple[Product, str], set[Connection]]] = {}
        self._windows: Final[dict[tuple[Product, str], BookWindow]] = {}
        self._of_symbol: Final[dict[str, list[tuple[Product, str]]]] = {}
        self._due: Final[dict[tuple[Product, str], tuple[float, asyncio.Handle]]] = {}
        """When each topic has its turn, in loop time; not every handle of a loop can tell its own."""
        self._told: Final[dict[str, dict[str, Any]]] = {}
        """The summary as last pushed, by symbol."""
        self._encode: Final[Callable[[Any], bytes]] = msgspec.json.Encoder().encode

    # -- subscriptions ---------------------------------------------------------------------------

    def fault_in(self, product: Product, topics: list[Any]) -> str:
        """Return what is wrong with a subscription; empty when it can be."""
        if product is Product.SPOT and len(topics) > _SPOT_TOPICS:
            return f"args size >{_SPOT_TOPICS}"
        for topic in topics:
            if self._listing_of(product, str(topic)) is None:
                return f"Invalid topic: {topic}"
        return ""

    def begin(self, connection: Connection, product: Product, topics: list[Any]) -> None:
        """Push to a connection from now on, its snapshots first; its answer was queued before."""
        for topic in topics:
            key = (product, str(topic))
            listing = self._listing_of(*key)
            assert listing is not None, "checked when it was subscribed"
            self._listeners.setdefault(key, set()).add(connection)
            if key not in self._of_symbol.setdefault(listing.symbol, []):
                self._of_symbol[listing.symbol].append(key)
            self._greet(connection, key, listing)

    def unsubscribe(self, connection: Connection, product: Product, topics: list[Any]) -> None:
        """Take a connection off topics."""
        for topic in topics:
            self._leave((product, str(topic)), connection)

    def forget(self, connection: Connection) -> None:
        """Take a connection off everything."""
        for key in list(self._listeners):
            self._leave(key, connection)

    def close(self) -> None:
        """Stop the timers."""
        for _, timer in self._due.values():
            timer.cancel()
        self._due.clear()

    # -- what is pushed --------------------------------------------------------------------------

    def on_market(self, event: MarketEvent) -> None:
        """Take public market data: push at once, or at the next turn of a topic that is pushed in batches."""
        keys = self._of_symbol.get(event.symbol)
        if not keys:
            return
        listing = self._symbols.of(event.symbol)
        if self._desk.faults.is_stale(self._desk.protocol, listing.name):
            return
        for key in keys:
            kind = key[1].partition(".")[0]
            if kind == "publicTrade":
                if type(event) is Trade:
                    self._push_trade(key, listing, event)
            elif kind == "tickers":
                if type(event) is not Depth:
                    self._soon(key, _TICKER_S)
            elif type(event) is Depth or type(event) is BookTop:
                depth = self._windows[key].depth
                if not self._desk.is_recorded:
                    self._soon(key, DEPTHS[depth])
                elif (type(event) is BookTop) is (
                    depth == 1
                ):  # of a recording each message goes out by itself
                    self._turn(key)

    def _greet(self, connection: Connection, key: tuple[Product, str], listing: Listing) -> None:
        kind = key[1].partition(".")[0]
        if kind == "tickers":
            row = self._told.setdefault(listing.symbol, self._queries.ticker(listing))
            connection.push(self._frame(key[1], "snapshot", row), "ticker", listing.name)
        elif kind == "orderbook":
            window = self._windows.get(key)
            if window is None:
                window = self._windows[key] = BookWindow(listing.name, int(key[1].split(".")[1]))
            if not window.is_started:
                window.start(self._book(listing, window.depth))
            connection.push(
                self._frame(key[1], "snapshot", window.snapshot()), _kind_of(window), listing.name
            )
            if window.depth == 1:
                self._soon(key, _IDLE_REPEAT_S)

    def _turn(self, key: tuple[Product, str]) -> None:
        waiting = self._due.pop(key, None)
        if waiting is not None:
            waiting[1].cancel()  # a turn that came before its time: of a recording each message has one
        listing = self._listing_of(*key)
        if listing is None or not self._listeners.get(key):
            return
        if key[1].startswith("tickers"):
            self._push_ticker(key, listing)
            return
        window = self._windows[key]
        data = (
            None
            if self._desk.faults.is_stale(self._desk.protocol, listing.name)
            else window.advance(self._book(listing, window.depth))
        )
        if window.depth == 1:
            self._push(key, "snapshot", data or window.snapshot(), "top", listing)
            self._soon(key, _IDLE_REPEAT_S)
        elif data is not None:
            self._push(key, "delta", data, "depth", listing)

    def _push_trade(self, key: tuple[Product, str], listing: Listing, trade: Trade) -> None:
        row = {
            "i": trade_id_of(listing, trade),
            "T": self._desk.shown_ns(trade.ts_event or trade.ts_recv) // _MS,
            "p": text(trade.price),
            "v": text(trade.qty),
            "S": "Buy" if trade.taker_is_buyer else "Sell",
            "s": listing.name,
            "BT": False,
            "RPI": False,
        }
        self._push(key, "snapshot", [row], "trade", listing)

    def _push_ticker(self, key: tuple[Product, str], listing: Listing) -> None:
        row, told = self._queries.ticker(listing), self._told.get(listing.symbol, {})
        self._told[listing.symbol] = row
        if listing.is_spot:
            self._push(key, "snapshot", row, "ticker", listing)
            return
        changed = {name: value for name, value in row.items() if told.get(name) != value}
        if changed:
            self._push(key, "delta", {"symbol": listing.name, **changed}, "ticker", listing)

    def _push(self, key: tuple[Product, str], kind: str, data: Any, event: str, listing: Listing) -> None:
        listeners = self._listeners.get(key)
        if listeners:
            frame = self._frame(key[1], kind, data)
            for connection in listeners:
                connection.push(frame, event, listing.name)

    def _frame(self, topic: str, kind: str, data: Any) -> bytes:
        now_ms = self._desk.now_ns() // _MS
        return self._encode({"topic": topic, "ts": now_ms, "type": kind, "data": data, "cts": now_ms})

    # -- inside ----------------------------------------------------------------------------------

    def _soon(self, key: tuple[Product, str], seconds: float) -> None:
        """Have a topic's turn come within so long."""
        loop = asyncio.get_running_loop()
        due_s = loop.time() + seconds
        waiting = self._due.get(key)
        if waiting is not None:
            if waiting[0] <= due_s:
                return
            waiting[1].cancel()
        self._due[key] = due_s, loop.call_at(due_s, self._turn, key)

    def _book(self, listing: Listing, depth: int = 0) -> Depth:
        desk = self._desk
        feed, is_stale = desk.feed[listing.symbol], desk.faults.is_stale(desk.protocol, listing.name)
        top = feed.top
        if depth == 1 and desk.is_recorded and top is not None and not is_stale:
            # Its quotes come by the hundred a second, and putting the whole book in order takes milliseconds.
            return Depth(
                top.symbol, ((top.bid, top.bid_size),), ((top.ask, top.ask_size),), True, top.seq, top.seq
            )
        return feed.book(desk.exchange, is_stale=is_stale)

    def _listing_of(self, product: Product, topic: str) -> Listing | None:
        kind, _, rest = topic.partition(".")
        if kind not in _KINDS:
            return None
        if kind == "orderbook":
            depth, _, rest = rest.partition(".")
            if not depth.isdecimal() or int(depth) not in DEPTHS:
                return None
        return self._symbols.find(product, rest)

    def _leave(self, key: tuple[Product, str], connection: Connection) -> None:
        listeners = self._listeners.get(key)
        if listeners is None:
            return
        listeners.discard(connection)
        if listeners:
            return
        # Nobody listens: the window is forgotten, and its numbers go on where they were.
        del self._listeners[key]
        window = self._windows.get(key)
        if window is not None:
            window.is_started = False
        waiting = self._due.pop(key, None)
        if waiting is not None:
            waiting[1].cancel()
        for keys in self._of_symbol.values():
            if key in keys:
                keys.remove(key)


def _kind_of(window: BookWindow) -> str:
    return "top" if window.depth == 1 else "depth"
