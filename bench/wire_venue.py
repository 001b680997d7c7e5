"""The venue's end of the wire, for benchmarks: the venue server, and before it a front that takes the time.

Clients' WebSockets end at the front, which passes messages on to the server and back, so that the server's
own work is in no measurement. Quotes it holds back until it is told to write one. Both ends
of every socket are picows, the library that the adapters use.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import picows
from picows import WSFrame, WSListener, WSMsgType, WSTransport, WSUpgradeRequest

from host.api import BookTop, Depth, MarketEvent
from venue.catalog import INSTRUMENTS
from venue.clock import VenueClock
from venue.exchange import Exchange
from venue.opening import OpenVenue
from venue.protocols.binance import usdm
from venue.protocols.binance.limits import OrderLimit
from venue.protocols.server import ProtocolServer
from venue.protocols.settings import Settings
from venue.recording import Recording
from venue.replay_market import ReplayMarket
from venue.running import RunningExchange

__all__ = ["SYMBOL", "WireVenue", "wire_venue"]

SYMBOL: Final = "BTC-USDT-PERP"
QUOTE_EVERY_NS: Final = 2_000_000
PING_PATH: Final = "/ping"
_ORDERS_PATH: Final = "/ws-fapi/v1"
_QUOTE: Final = b'@bookTicker"'
_NAME_BYTES: Final = 64
"""The name of a message's stream is within these."""
_UNLIMITED: Final = (OrderLimit("MINUTE", 1, 10_000_000),)


class _Wandering(Recording, frozen=True):
    """A market whose best prices wander by some ticks, for as long as anybody looks."""

    start_ns: int = 0

    def events(self) -> Iterator[MarketEvent]:
        """Yield a book and then a quote every `QUOTE_EVERY_NS`."""
        far = Depth(SYMBOL, ((50_000.0, 5.0),), ((70_000.0, 5.0),), True, 1, 1, ts_recv=self.start_ns)
        yield far
        seq, now_ns = 1, self.start_ns
        while True:
            seq, now_ns = seq + 1, now_ns + QUOTE_EVERY_NS
            bid = round(61_800.0 + abs(seq * 7 % 60 - 30) * 0.7, 1)
            yield BookTop(SYMBOL, bid, 4.123, round(bid + 0.1, 1), 5.001, now_ns, now_ns, seq)


class WireVenue:
    """What a client is sent and sends, and when: all times are readings of the performance counter, in ns."""

    def __init__(self, rest_url: str) -> None:
        self.rest_url: Final = rest_url
        """Where REST requests go: to the server itself."""
        self.socket_url = ""
        """Where clients' WebSockets go: to the front."""
        self.quote = b""
        """The newest quote of the market, not written yet."""
        self.orders: list[int] = []
        """When orders arrived since the last quote was written."""
        self.order = b""
        """The last order that arrived."""
        self.pongs: list[int] = []
        """When messages arrived on the bare connection."""
        self.active_ns = 0
        """When anything was last passed on."""
        self._heard: Final = asyncio.Event()
        self._has_quote: Final = asyncio.Event()
        self._quotes: WSTransport | None = None
        self._bare: WSTransport | None = None

    @property
    def is_bare_open(self) -> bool:
        """Return whether the client has opened the bare connection."""
        return self._bare is not None

    async def next_quote(self) -> bytes:
        """Wait for a newer quote of the market than the last one that was returned."""
        self._has_quote.clear()
        await self._has_quote.wait()
        return self.quote

    async def quiet(self, seconds: float) -> None:
        """Wait until nothing was said for so long."""
        while (left_s := seconds - (time.perf_counter_ns() - self.active_ns) / 1e9) > 0:
            await asyncio.sleep(left_s)

    def write_quote(self, frame: bytes) -> int:
        """Write a quote to the client and return when."""
        assert self._quotes is not None, "a quote is there only once somebody listens"
        self.orders.clear()
        started_ns = time.perf_counter_ns()
        self._quotes.send(WSMsgType.TEXT, frame)
        return started_ns

    def write_bare(self, frame: bytes) -> int:
        """Write to the bare connection and return when."""
        assert self._bare is not None, "look at is_bare_open first"
        self.pongs.clear()
        started_ns = time.perf_counter_ns()
        self._bare.send(WSMsgType.TEXT, frame)
        return started_ns

    async def first(self, arrivals: list[int], seconds: float) -> int:
        """Wait for something to arrive and return when it did; 0 where nothing came within `seconds`."""
        try:
            async with asyncio.timeout(seconds):
                while not arrivals:
                    self._heard.clear()
                    await self._heard.wait()
        except TimeoutError:
            return 0
        return arrivals[0]

    # -- what sockets tell -----------------------------------------------------------------------

    def listener(self, request: WSUpgradeRequest) -> WSListener:
        """Return what listens to a client."""
        path = request.path.decode()
        return _Bare(self) if path == PING_PATH else _Client(self, path)

    def opened_bare(self, transport: WSTransport) -> None:
        """Take the bare connection."""
        self._bare = transport

    def arrived(self, arrivals: list[int], at_ns: int) -> None:
        """Note an arrival."""
        arrivals.append(at_ns)
        self.active_ns = at_ns
        self._heard.set()

    def hold(self, client: WSTransport, frame: bytes) -> None:
        """Keep a quote back instead of passing it on."""
        self._quotes, self.quote = client, frame
        self._has_quote.set()


class _Bare(WSListener):
    def __init__(self, venue: WireVenue) -> None:
        self._venue = venue

    def on_ws_connected(self, transport: WSTransport) -> None:
        self._venue.opened_bare(transport)

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        self._venue.arrived(self._venue.pongs, time.perf_counter_ns())


class _Client(WSListener):
    """A client's connection; what comes before the server's is open waits for it."""

    def __init__(self, venue: WireVenue, path: str) -> None:
        self._venue = venue
        self._path = path
        self._has_orders = path.startswith(_ORDERS_PATH)
        self._waiting: list[bytes] = []
        self._server: WSTransport | None = None
        self._task: asyncio.Task[None] | None = None

    def on_ws_connected(self, transport: WSTransport) -> None:
        self._task = asyncio.get_running_loop().create_task(self._dial(transport))

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        at_ns = time.perf_counter_ns()
        venue = self._venue
        if frame.msg_type is not WSMsgType.TEXT:
            return
        message = frame.get_payload_as_bytes()
        if self._has_orders:
            venue.order = message
            venue.arrived(venue.orders, at_ns)
        if self._server is None:
            self._waiting.append(message)
        else:
            self._server.send(WSMsgType.TEXT, message)

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        if self._server is not None:
            self._server.disconnect()

    async def _dial(self, client: WSTransport) -> None:
        url = self._venue.rest_url.replace("http", "ws", 1) + self._path
        self._server, _ = await picows.ws_connect(lambda: _Server(self._venue, client), url)
        for message in self._waiting:
            self._server.send(WSMsgType.TEXT, message)


class _Server(WSListener):
    def __init__(self, venue: WireVenue, client: WSTransport) -> None:
        self._venue = venue
        self._client = client

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        if frame.msg_type is not WSMsgType.TEXT:
            return
        message = frame.get_payload_as_bytes()
        if _QUOTE in message[:_NAME_BYTES]:
            self._venue.hold(self._client, message)
        elif not self._client.is_disconnected:
            self._client.send(WSMsgType.TEXT, message)
            self._venue.active_ns = time.perf_counter_ns()

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        self._client.disconnect()


@asynccontextmanager
async def wire_venue() -> AsyncIterator[WireVenue]:
    """Serve Binance USDⓈ-M with one market until the block ends.

    It lets an account send as many orders as it likes, and says so.
    """
    usdm.LIMITS = _UNLIMITED  # type: ignore[assignment, misc]  # what exchangeInfo lists, and adapters keep
    clock = VenueClock()
    exchange = Exchange(seed=1)
    instrument = INSTRUMENTS[SYMBOL]
    exchange.list_instrument(instrument)
    exchange.add_market(ReplayMarket(_Wandering(Path("wandering"), instrument, start_ns=clock.now_ns())))
    running = RunningExchange(exchange, clock)
    settings = Settings(listen={"binance": "127.0.0.1:0"}, has_rate_limits=False, funding_hours=0.0)
    server = ProtocolServer(OpenVenue(running, None, True), settings)
    await server.start()
    venue = WireVenue(f"http://{server.addresses['binance']}")
    front = await picows.ws_create_server(venue.listener, "127.0.0.1", 0)
    venue.socket_url = f"ws://127.0.0.1:{front.sockets[0].getsockname()[1]}"
    task = asyncio.create_task(running.run())
    try:
        yield venue
    finally:
        front.close()
        await server.close()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
