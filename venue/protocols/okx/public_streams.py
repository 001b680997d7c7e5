"""OKX's public WebSocket: tops, books, trades, tickers, mark prices and instruments, by channel."""

import asyncio
from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec

from host.api import BookTop, Depth, MarketEvent, Trade
from venue.protocols.connection import Connection
from venue.protocols.front import Desk
from venue.protocols.okx.books import CHANNELS, BookWindow, top_row
from venue.protocols.okx.market_queries import MarketQueries, trade_row
from venue.protocols.okx.names import PRODUCTS, Listing, Symbols

__all__ = ["PublicStreams"]

_MS: Final = 1_000_000
_TOPS: Final = "bbo-tbt"
_TOP_S: Final = 0.01
_TICKER_S: Final = 0.1
_MARK_S: Final = 0.2
_PRICE_LIMIT_S: Final = 0.2
_TRADES: Final = ("trades", "trades-all")
_TIMED: Final = {"tickers": _TICKER_S, "mark-price": _MARK_S, "price-limit": _PRICE_LIMIT_S}
_OF_INSTRUMENTS: Final = frozenset({_TOPS, *CHANNELS, *_TRADES, *_TIMED})
_KINDS: Final = {"bbo-tbt": "top", "books5": "depth", "books": "depth", "books-l2-tbt": "depth",
                 "trades": "trade", "trades-all": "trade"}  # fmt: skip

Key = tuple[str, str]
"""Channel and instrument."""


class PublicStreams:
    """Who listens to what, and what they are pushed."""

    def __init__(
        self, desk: Desk, symbols: Symbols, queries: MarketQueries, on_push: Callable[[Connection], None]
    ) -> None:
        self._desk: Final = desk
        self._symbols: Final = symbols
        self._queries: Final = queries
        self._on_push: Final = on_push
        self._listeners: Final[dict[Key, set[Connection]]] = {}
        self._windows: Final[dict[Key, BookWindow]] = {}
        self._due: Final[dict[Key, asyncio.TimerHandle]] = {}
        self._encode: Final[Callable[[Any], bytes]] = msgspec.json.Encoder().encode

    def fault_in(self, arg: Mapping[str, Any]) -> str:
        """Return what is wrong with a subscription; empty when it can be."""
        channel = arg.get("channel")
        if channel == "instruments" and arg.get("instType") in PRODUCTS:
            return ""
        if channel in _OF_INSTRUMENTS and self._symbols.find(arg.get("instId")) is not None:
            return ""
        words = ",".join(f"{name}:{value}" for name, value in arg.items())
        return f"Wrong URL or {words} doesn't exist. Please use the correct URL, channel and parameters."

    def begin(self, connection: Connection, arg: Mapping[str, Any]) -> None:
        """Push to a connection from now on, its snapshot first; its answer was queued before."""
        if arg["channel"] == "instruments":
            rows = self._queries.instruments({"instType": arg["instType"]})
            connection.push(self._encode({"arg": arg, "data": rows}), "ticker")
            return
        key = (str(arg["channel"]), str(arg["instId"]))
        listing = self._symbols.find(key[1])
        assert listing is not None, "checked when it was subscribed"
        self._listeners.setdefault(key, set()).add(connection)
        if key[0] in CHANNELS:
            window = self._windows.setdefault(key, BookWindow(listing, key[0]))
            if not window.is_started:
                window.start(self._book(listing))
            connection.push(self._frame(key, window.whole(self._now_ms())), _KINDS[key[0]], key[1])
        elif key[0] == _TOPS:
            top = self._desk.feed[listing.symbol].top
            if top is not None:
                row = top_row(listing, top, self._now_ms())
                connection.push(self._frame(key, {"data": [row]}), "top", key[1])
        elif key[0] in _TIMED and self._desk.feed[listing.symbol].mark:
            connection.push(self._frame(key, {"data": [self._summary(key, listing)]}), "ticker", key[1])

    def end(self, connection: Connection, arg: Mapping[str, Any]) -> None:
        """Take a connection off a channel."""
        self._leave((str(arg.get("channel")), str(arg.get("instId"))), connection)

    def forget(self, connection: Connection) -> None:
        """Take a connection off everything."""
        for key in list(self._listeners):
            self._leave(key, connection)

    def close(self) -> None:
        """Stop the timers."""
        for timer in self._due.values():
            timer.cancel()
        self._due.clear()

    # -- what is pushed --------------------------------------------------------------------------

    def on_market(self, event: MarketEvent) -> None:
        """Take public market data: push at once, or at the next turn of a channel that gathers."""
        listing = self._symbols.of(event.symbol)
        name = listing.name
        if self._desk.faults.is_stale(self._desk.protocol, name):
            return
        if type(event) is Trade:
            for channel in _TRADES:
                key = (channel, name)
                if key in self._listeners:
                    row = trade_row(self._desk, listing, event)
                    row |= {"count": "1"} if channel == "trades" else {}
                    self._push(key, {"data": [row]})
        if type(event) is Depth:
            for channel, (_, every_s) in CHANNELS.items():
                self._turn_within((channel, name), every_s)
        elif type(event) is BookTop:
            self._turn_within((_TOPS, name), _TOP_S)
        if type(event) is not Depth:
            for channel, every_s in _TIMED.items():
                if (channel, name) in self._listeners:
                    self._soon((channel, name), every_s)

    def _turn(self, key: Key) -> None:
        self._due.pop(key, None)
        listing = self._symbols.find(key[1])
        if listing is None or key not in self._listeners:
            return
        if key[0] in _TIMED:
            self._push(key, {"data": [self._summary(key, listing)]})
            return
        if self._desk.faults.is_stale(self._desk.protocol, listing.name):
            return
        if key[0] == _TOPS:
            top = self._desk.feed[listing.symbol].top
            if top is not None:
                self._push(key, {"data": [top_row(listing, top, self._now_ms())]})
            return
        message = self._windows[key].advance(self._book(listing), self._now_ms())
        if message is not None:
            self._push(key, message)

    def _summary(self, key: Key, listing: Listing) -> dict[str, Any]:
        if key[0] == "tickers":
            return self._queries.ticker(listing)
        if key[0] == "price-limit":
            return self._queries.price_limit(listing)
        return self._queries.mark_price(listing)

    def _push(self, key: Key, message: dict[str, Any]) -> None:
        frame = self._frame(key, message)
        for connection in self._listeners[key]:
            connection.push(frame, _KINDS.get(key[0], "ticker"), key[1])
            self._on_push(connection)

    def _frame(self, key: Key, message: dict[str, Any]) -> bytes:
        return self._encode({"arg": {"channel": key[0], "instId": key[1]}, **message})

    # -- inside ----------------------------------------------------------------------------------

    def _turn_within(self, key: Key, seconds: float) -> None:
        """Have a channel's turn come within so long; of a recording each message goes out by itself."""
        if key not in self._listeners:
            return
        if self._desk.is_recorded:
            self._turn(key)
        else:
            self._soon(key, seconds)

    def _soon(self, key: Key, seconds: float) -> None:
        """Have a channel's turn come within so long."""
        if key not in self._due:
            self._due[key] = asyncio.get_running_loop().call_later(seconds, self._turn, key)

    def _book(self, listing: Listing) -> Depth:
        is_stale = self._desk.faults.is_stale(self._desk.protocol, listing.name)
        return self._desk.feed[listing.symbol].book(self._desk.exchange, is_stale=is_stale)

    def _leave(self, key: Key, connection: Connection) -> None:
        listeners = self._listeners.get(key)
        if listeners is None:
            return
        listeners.discard(connection)
        if listeners:
            return
        # Nobody listens: the window begins anew with the next one who does.
        del self._listeners[key]
        if key in self._windows:
            self._windows[key].stop()
        timer = self._due.pop(key, None)
        if timer is not None:
            timer.cancel()

    def _now_ms(self) -> int:
        return self._desk.now_ns() // _MS
