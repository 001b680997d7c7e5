"""Market data streams: who subscribed to what, and the messages.

A stream's message is written once, whoever listens. Connections of `/ws` get it as it is, those of
`/stream` wrapped with the stream's name. Depth changes are gathered for the stream's interval; a
recording's, which were gathered when they were recorded, are passed on one by one.
"""

import asyncio
import re
from collections.abc import Mapping
from typing import Any, Final

import orjson

from host.api import BookTop, Depth, MarketEvent, Trade
from venue.protocols.binance.stream_shapes import Shapes
from venue.protocols.binance.symbols import Listing
from venue.protocols.connection import Connection
from venue.protocols.front import Desk
from venue.protocols.market_feed import DepthBatch

__all__ = ["Streams"]

_PARTIAL: Final = re.compile(r"^depth(5|10|20)(@(\d+)ms)?$")
_DEPTH: Final = re.compile(r"^depth(@(\d+)ms)?$")
TICKER_S: Final = 1.0
FAST: Final = frozenset({"bookTicker", "depth", "depth5", "depth10", "depth20", "trade", "rpiDepth"})
"""What the futures' `/public` route carries; `/market` has the rest."""


class _Stream:
    """One stream that somebody listens to."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.listeners: dict[Connection, None] = {}
        self.batch: DepthBatch | None = None
        self.timer: asyncio.TimerHandle | None = None


class Streams:
    """The market streams of one product."""

    def __init__(self, desk: Desk, listing: Listing, shapes: Shapes, default_depth_ms: int) -> None:
        self._desk = desk
        self._listing = listing
        self._shapes = shapes
        self._default_depth_ms = default_depth_ms
        self._streams: dict[str, _Stream] = {}
        self._by_symbol: dict[str, dict[str, _Stream]] = {}

    def subscribe(self, connection: Connection, names: list[str], route: str = "") -> None:
        """Send these streams to a connection. Unknown ones are accepted and stay silent, as are
        those that the futures' `route` does not carry."""
        for name in names:
            connection.state.streams[name] = None
            symbol, _, what = name.partition("@")
            instrument = self._listing.by_name.get(symbol.upper())
            if instrument is None or not what or not _is_on_route(what, route):
                continue
            stream = self._streams.get(name)
            if stream is None:
                stream = self._streams[name] = _Stream(name)
                self._by_symbol.setdefault(instrument.symbol, {})[what] = stream
                self._begin(stream, instrument.symbol, what)
            stream.listeners[connection] = None

    def unsubscribe(self, connection: Connection, names: list[str]) -> None:
        """Send these streams no more."""
        for name in names:
            connection.state.streams.pop(name, None)
            stream = self._streams.get(name)
            if stream is not None:
                stream.listeners.pop(connection, None)
                if not stream.listeners:
                    self._end(stream)

    def on_market(self, event: MarketEvent) -> None:
        """Send one public event to whoever listens."""
        streams = self._by_symbol.get(event.symbol)
        if not streams:
            return
        name = self._listing.name_of(event.symbol)
        if self._desk.faults.is_stale(self._desk.protocol, name):
            return
        if type(event) is BookTop:
            self._send(streams.get("bookTicker"), self._shapes.book_ticker(event, name), "top", name)
        elif type(event) is Trade:
            self._send(streams.get("trade"), self._shapes.trade(event, name), "trade", name)
            self._send(streams.get("aggTrade"), self._shapes.agg_trade(event, name), "trade", name)
        elif type(event) is Depth:
            self._on_depth(event, streams, name)

    def close(self) -> None:
        """Stop every timer."""
        for stream in list(self._streams.values()):
            self._end(stream)

    def _begin(self, stream: _Stream, symbol: str, what: str) -> None:
        if _DEPTH.match(what):
            stream.batch = DepthBatch()
        elif (partial := _PARTIAL.match(what)) is not None:
            levels, interval = int(partial[1]), int(partial[3] or self._default_depth_ms)
            self._repeat(stream, interval / 1e3, symbol, levels)
        elif what in ("ticker", "miniTicker", "markPrice", "markPrice@1s"):
            self._repeat(stream, 3.0 if what == "markPrice" else TICKER_S, symbol, 0)

    def _end(self, stream: _Stream) -> None:
        if stream.timer is not None:
            stream.timer.cancel()
        del self._streams[stream.name]
        symbol, _, what = stream.name.partition("@")
        self._by_symbol[self._listing.by_name[symbol.upper()].symbol].pop(what, None)

    def _on_depth(self, event: Depth, streams: Mapping[str, _Stream], name: str) -> None:
        if event.is_snapshot:
            return  # a recording's first book: clients ask for theirs
        for what, stream in list(streams.items()):
            if stream.batch is None:
                continue
            stream.batch.add(event)
            if self._desk.is_recorded:
                self._flush(stream, name)
            elif stream.timer is None:
                interval = _DEPTH.match(what)
                assert interval is not None, "only depth streams have a batch"
                delay_s = int(interval[2] or self._default_depth_ms) / 1e3
                stream.timer = asyncio.get_running_loop().call_later(delay_s, self._flush, stream, name)

    def _flush(self, stream: _Stream, name: str) -> None:
        stream.timer = None
        assert stream.batch is not None, "only depth streams have a batch"
        change = stream.batch.take()
        if change is not None and not self._desk.faults.is_stale(self._desk.protocol, name):
            self._send(stream, self._shapes.depth(change, name), "depth", name)

    def _repeat(self, stream: _Stream, every_s: float, symbol: str, levels: int) -> None:
        loop = asyncio.get_running_loop()
        name = self._listing.name_of(symbol)

        def tell() -> None:
            stream.timer = loop.call_later(every_s, tell)
            if self._desk.faults.is_stale(self._desk.protocol, name):
                return
            what = stream.name.partition("@")[2]
            if levels:
                book = self._desk.feed[symbol].book(self._desk.exchange)
                self._send(stream, self._shapes.partial(book, name, levels), "depth", name)
            elif (data := self._shapes.ticker(self._desk.feed[symbol], name, what)) is not None:
                self._send(stream, data, "ticker", name)

        stream.timer = loop.call_later(every_s, tell)

    def _send(self, stream: _Stream | None, data: dict[str, Any] | None, kind: str, symbol: str) -> None:
        if stream is None or data is None:
            return
        plain = orjson.dumps(data)
        wrapped = b""
        for connection in stream.listeners:
            if connection.state.is_combined:
                wrapped = wrapped or b'{"stream":"%s","data":%s}' % (stream.name.encode(), plain)
                connection.push(wrapped, kind, symbol)
            else:
                connection.push(plain, kind, symbol)


def _is_on_route(what: str, route: str) -> bool:
    return not route or (what.partition("@")[0] in FAST) is (route == "public")
