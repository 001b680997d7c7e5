"""Market data of many symbols over few connections."""

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Final

import msgspec
import orjson

from host.api import AdapterContext

from .._shared.channel import Channel, Heartbeat
from .._shared.snapshots import SnapshotFetcher
from .._shared.symbols import SymbolTable
from .._shared.websocket import NotConnected, WebSocket
from .market_frames import MarketDecoder, StreamAnswer, depth_snapshot
from .products import Product
from .rest_calls import RestCalls

__all__ = ["MarketStream"]

_log = logging.getLogger("tandem.exchange")
_PARAMS_PER_MESSAGE: Final = 100
_MESSAGE_PAUSE_S: Final = 0.25
"""The venue takes five messages a second from a client."""


class _Line:
    """One connection, and the streams that it carries: quotes alone, or anything else."""

    def __init__(self, path: str, *, is_quotes: bool) -> None:
        self.path = path
        self.is_quotes = is_quotes
        self.streams: list[str] = []
        self.symbols: list[str] = []
        self.channel: Channel | None = None


class MarketStream:
    """Subscribes, hands over events, and fetches whole books when a connection is new or a gap was found.

    `on_state(is_up, text)` hears when all connections are up and when the first of them is lost.
    """

    def __init__(
        self,
        product: Product,
        base_url: str,
        ctx: AdapterContext,
        calls: RestCalls,
        table: SymbolTable,
        *,
        heartbeat: Heartbeat,
        renew_after_s: float,
        streams_per_connection: int,
        with_ticker: bool,
        on_state: Callable[[bool, str], None],
    ) -> None:
        self._product: Final = product
        self._base_url: Final = base_url
        self._ctx: Final = ctx
        self._calls: Final = calls
        self._table: Final = table
        self._heartbeat: Final = heartbeat
        self._renew_after_s: Final = renew_after_s
        self._most_streams: Final = streams_per_connection
        self._with_ticker: Final = with_ticker
        self._on_state: Final = on_state
        self._symbols: Final[dict[str, str]] = {}
        self._lines: Final[list[_Line]] = []
        self._down: Final[set[int]] = set()
        """The connections that are not up, by number."""
        self._is_up = False
        """What was told last."""
        self._waiting: Final[dict[int, asyncio.Future[None]]] = {}
        self._asked = 0
        self._decoder: Final = MarketDecoder(
            self._symbols, self._on_answer, self._on_doubt, _log, f"{product.name} market"
        )
        self._books: Final = SnapshotFetcher(ctx.spawn, self._fetch, self._on_no_book)

    @property
    def bad(self) -> dict[str, int]:
        """How many messages could not be used, by kind."""
        return dict(self._decoder.bad.counts)

    async def add(self, symbols: Sequence[str]) -> None:
        """Follow these symbols, too; raise `ExchangeError` where the venue cannot be reached."""
        for symbol in symbols:
            wire = self._table.to_venue(symbol)
            self._symbols[wire] = symbol
            name = wire.lower()
            path = self._product.market_path
            await self._follow(path, "", [f"{name}@bookTicker"], is_quotes=True)
            await self._follow(path, symbol, [f"{name}@depth@100ms", f"{name}@trade"])
            if self._with_ticker:
                await self._follow(self._product.ticker_path, "", [f"{name}@ticker"])
        fresh = [number for number, line in enumerate(self._lines) if line.channel is None]
        self._down.update(fresh)
        for number in fresh:
            await self._open(number)

    def resync(self, symbol: str) -> None:
        """Fetch the whole book of a symbol."""
        self._books.want(symbol)

    def close(self) -> None:
        """Close the connections."""
        for line in self._lines:
            if line.channel is not None:
                line.channel.close()

    # -- inside ----------------------------------------------------------------------------------

    async def _follow(self, path: str, symbol: str, streams: list[str], *, is_quotes: bool = False) -> None:
        """Put streams on a connection with room; a new one is opened when all symbols have their place."""
        for line in self._lines:
            has_room = len(line.streams) + len(streams) <= self._most_streams
            if (line.path, line.is_quotes) == (path, is_quotes) and has_room:
                break
        else:
            line = _Line(path, is_quotes=is_quotes)
            self._lines.append(line)
        line.streams += streams
        if symbol:
            line.symbols.append(symbol)
        if line.channel is not None and line.channel.is_up:
            await self._subscribe(line.channel.send, streams)
            if symbol:
                self._books.want(symbol)

    async def _open(self, number: int) -> None:
        line = self._lines[number]

        async def url() -> str:
            return self._base_url + line.path

        async def on_open(websocket: WebSocket) -> None:
            await self._subscribe(websocket.send, line.streams)

        channel = line.channel = Channel(
            f"{self._product.name} market {number}",
            url=url,
            on_message=self._on_quote if line.is_quotes else self._on_message,
            on_open=on_open,
            on_up=lambda text: self._on_up(number, text),
            on_down=lambda text: self._on_down(number, text),
            heartbeat=self._heartbeat,
            renew_after_s=self._renew_after_s,
        )
        try:
            await channel.open()
        except BaseException:
            line.channel = None
            raise
        self._ctx.spawn(channel.run(), f"{self._product.name} market {number}")

    async def _subscribe(self, send: Callable[[bytes], None], streams: Sequence[str]) -> None:
        for begin in range(0, len(streams), _PARAMS_PER_MESSAGE):
            if begin:
                await asyncio.sleep(_MESSAGE_PAUSE_S)
            self._asked += 1
            number = self._asked
            answered = self._waiting[number] = asyncio.get_running_loop().create_future()
            part = list(streams[begin : begin + _PARAMS_PER_MESSAGE])
            try:
                send(orjson.dumps({"method": "SUBSCRIBE", "params": part, "id": number}))
                async with asyncio.timeout(self._heartbeat.lost_after_s):
                    await answered
            except TimeoutError as error:
                raise NotConnected(f"{self._product.name}: no answer to SUBSCRIBE {part[0]}, …") from error
            finally:
                self._waiting.pop(number, None)

    def _on_quote(self, frame: memoryview) -> None:
        ctx = self._ctx
        event = self._decoder.quote(frame, ctx.now_ns())
        if event is not None:
            ctx.market(event)

    def _on_message(self, frame: memoryview) -> None:
        ctx = self._ctx
        event = self._decoder.decode(frame, ctx.now_ns())
        if event is not None:
            ctx.market(event)

    def _on_answer(self, answer: StreamAnswer) -> None:
        if answer.e == "serverShutdown":
            _log.info("%s: the venue will close its connections soon: they are replaced", self._product.name)
            for line in self._lines:
                if line.channel is not None:
                    line.channel.renew()
            return
        waiting = self._waiting.get(answer.id) if isinstance(answer.id, int) else None
        if waiting is None or waiting.done():
            if answer.error is not None:
                _log.error("%s: the market stream refused: %s", self._product.name, answer.error)
        elif answer.error is not None:
            waiting.set_exception(NotConnected(f"{self._product.name}: SUBSCRIBE refused: {answer.error}"))
        else:
            waiting.set_result(None)

    def _on_doubt(self, symbol: str | None) -> None:
        for each in [symbol] if symbol else list(self._symbols.values()):
            self._books.want(each)

    def _on_up(self, number: int, text: str) -> None:
        for symbol in self._lines[number].symbols:
            self._books.want(symbol)
        self._down.discard(number)
        if not self._down and not self._is_up:
            self._is_up = True
            self._on_state(True, text)

    def _on_down(self, number: int, text: str) -> None:
        self._down.add(number)
        if self._is_up:
            self._is_up = False
            self._on_state(False, text)

    async def _fetch(self, symbol: str) -> None:
        now_ns = self._ctx.now_ns
        params: dict[str, str | int] = {
            "limit": self._product.depth_limit,
            "symbol": self._table.to_venue(symbol),
        }
        body = await self._calls.public(self._product.depth, params, now_ns())
        try:
            book = depth_snapshot(body, symbol, now_ns())
        except msgspec.MsgspecError as error:
            self._decoder.bad.note("whole book", body, error)
            raise NotConnected(
                f"{self._product.name}: the book of {symbol} cannot be read: {error}"
            ) from error
        self._ctx.market(book)

    def _on_no_book(self, symbol: str, text: str) -> None:
        _log.warning("the book of %s is not known and is asked for again: %s", symbol, text)
