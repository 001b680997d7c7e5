"""A venue that speaks its protocols in this process, on a clock moved by hand, and raw clients for it."""

import asyncio
import hmac
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from decimal import Decimal
from hashlib import sha256
from typing import Any
from urllib.parse import urlencode

import aiohttp
import orjson
from yarl import URL

from host.api import Instrument, InstrumentKind, PriceBand
from venue.clock import VenueClock
from venue.exchange import Exchange
from venue.live_market import LiveMarket
from venue.market import Market
from venue.opening import OpenVenue
from venue.participants import Participants
from venue.protocols.accounts import DEMO_ACCOUNTS, KeyedAccount
from venue.protocols.faults import Fault
from venue.protocols.request_log import RequestLine
from venue.protocols.server import ProtocolServer
from venue.protocols.settings import Settings
from venue.running import RunningExchange

D = Decimal
START_NS = 1_700_000_000_000_000_000
DEADLINE_S = 30.0
"""Far beyond what any wait takes: a test that reaches it has failed."""

SPOT = Instrument(
    symbol="BTC-USDT",
    kind=InstrumentKind.SPOT,
    base="BTC",
    quote="USDT",
    tick_size=D("0.1"),
    lot_size=D("0.001"),
    min_qty=D("0.001"),
    min_notional=D(5),
    price_band=PriceBand(D("0.5"), D(2)),
    maker_fee=D("0.001"),
    taker_fee=D("0.002"),
)
PERPETUAL = Instrument(
    symbol="BTC-USDT-PERP",
    kind=InstrumentKind.LINEAR,
    base="BTC",
    quote="USDT",
    tick_size=D("0.1"),
    lot_size=D("0.001"),
    min_qty=D("0.001"),
    min_notional=D(5),
    price_band=PriceBand(D("0.5"), D(2)),
    maker_fee=D("0.0002"),
    taker_fee=D("0.0005"),
)


class HandClock(VenueClock):
    """Stands still until a test moves it; whoever sleeps on it is woken by that alone."""

    def __init__(self, start_ns: int = START_NS) -> None:
        super().__init__(start_ns)
        self._wall_ns = self._start_ns = self._now_ns = start_ns
        self._sleepers: list[tuple[int, asyncio.Event]] = []

    def now_ns(self) -> int:
        return self._now_ns

    def wall_now_ns(self) -> int:
        return self._now_ns

    async def sleep(self, wall_s: float) -> None:
        woken = asyncio.Event()
        self._sleepers.append((self._now_ns + int(wall_s * 1e9), woken))
        await woken.wait()

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self._now_ns += int(seconds * 1e9)
        due = [sleeper for sleeper in self._sleepers if sleeper[0] <= self._now_ns]
        self._sleepers = [sleeper for sleeper in self._sleepers if sleeper[0] > self._now_ns]
        for _, woken in due:
            woken.set()

    @property
    def sleepers(self) -> int:
        """Return how many wait for this clock."""
        return len(self._sleepers)


class Venue:
    """What a test holds of the venue: the server, its clock, and sockets to it."""

    def __init__(
        self, server: ProtocolServer, running: RunningExchange, clock: Any, http: aiohttp.ClientSession
    ) -> None:
        self.server = server
        self.running = running
        self.clock = clock
        self.http = http

    def fault(self, **fields: Any) -> int:
        """Put a fault in force."""
        return self.server.faults.add(Fault(**fields))

    def url(self, protocol: str = "binance", scheme: str = "http") -> str:
        """Return the base URL of a protocol."""
        return f"{scheme}://{self.server.addresses[protocol]}"

    def lines(self, **having: Any) -> list[RequestLine]:
        """Return the lines of the request log with these values."""
        return [
            line
            for line in self.server.requests.lines
            if all(getattr(line, name) == value for name, value in having.items())
        ]

    def pass_time(self, seconds: float) -> None:
        """Move the clock, and let the exchange do what is due."""
        self.clock.advance(seconds)
        self.running.wake()


@asynccontextmanager
async def open_protocols(
    *protocols: str,
    instruments: Iterable[Instrument] = (SPOT, PERPETUAL),
    accounts: Iterable[KeyedAccount] = DEMO_ACCOUNTS,
    participants: Callable[[Instrument], Participants | None] = lambda _: None,
    recorded: Market | None = None,
    has_rate_limits: bool = False,
    admin: bool = False,
    requests: str = "",
    clock: VenueClock | None = None,
) -> AsyncIterator[Venue]:
    """Serve these protocols (Binance by default) over empty books; a test that hangs is ended.

    With `recorded`, that market alone is traded, as one that a recording plays.
    """
    exchange = Exchange(seed=7)
    markets: list[Market] = [LiveMarket(each, participants(each)) for each in instruments]
    for market in [recorded] if recorded is not None else markets:
        exchange.add_market(market)
    clock = clock or HandClock()
    running = RunningExchange(exchange, clock)
    settings = Settings(
        listen=dict.fromkeys(protocols or ("binance",), "127.0.0.1:0"),
        admin="127.0.0.1:0" if admin else "",
        has_rate_limits=has_rate_limits,
        account=list(accounts),
        requests=requests,
    )
    server = ProtocolServer(OpenVenue(running, None, recorded is not None), settings, seed=3)
    async with asyncio.timeout(DEADLINE_S), aiohttp.ClientSession() as http:
        await server.start()
        task = asyncio.create_task(running.run())
        try:
            yield Venue(server, running, clock, http)
        finally:
            await server.close()
            task.cancel()
            await asyncio.wait([task])


async def until(condition: Callable[[], bool]) -> None:
    """Let everything run until `condition` holds; the venue's own deadline ends a vain wait."""
    while not condition():
        await asyncio.sleep(0)


class Answer:
    """What came back to an HTTP request."""

    def __init__(self, status: int, body: Any, headers: Mapping[str, str]) -> None:
        self.status = status
        self.body = body
        self.headers = headers

    @property
    def code(self) -> int:
        """Return the refusal's code, 0 without one."""
        return int(self.body["code"]) if isinstance(self.body, dict) and "code" in self.body else 0


class Binance:
    """A raw client of the protocol `binance`: it signs, and asserts nothing."""

    def __init__(self, venue: Venue, name: str = "demo") -> None:
        self.venue = venue
        self.key = f"{name}-key"
        self.secret = f"{name}-secret"

    async def public(self, path: str, **params: Any) -> Answer:
        """Ask without a key."""
        return await self._send("GET", path, urlencode(params), {})

    async def signed(self, verb: str, path: str, **params: Any) -> Answer:
        """Send a signed request; `timestamp` is the venue's time unless given."""
        query = self.sign(params)
        return await self._send(verb, path, query, {"X-MBX-APIKEY": self.key})

    async def keyed(self, verb: str, path: str, **params: Any) -> Answer:
        """Send a request with the key alone."""
        return await self._send(verb, path, urlencode(params), {"X-MBX-APIKEY": self.key})

    def sign(self, params: Mapping[str, Any]) -> str:
        """Return the query with time and signature."""
        full = {**params, "timestamp": params.get("timestamp", self.now_ms())}
        query = urlencode(full)
        return f"{query}&signature={self.signature(query)}"

    def signature(self, payload: str) -> str:
        """Return the HMAC of a payload."""
        return hmac.new(self.secret.encode(), payload.encode(), sha256).hexdigest()

    def now_ms(self) -> int:
        """Return the venue's time."""
        return self.venue.clock.wall_now_ns() // 1_000_000

    def frame_params(self, **params: Any) -> dict[str, Any]:
        """Return a frame's parameters with key, time and signature."""
        full = {"timestamp": self.now_ms(), **params, "apiKey": self.key}
        payload = "&".join(f"{name}={full[name]}" for name in sorted(full))
        return {**full, "signature": self.signature(payload)}

    async def place(self, side: str, price: str, qty: str, **params: Any) -> Answer:
        """Place a limit order on spot."""
        fields = {"symbol": "BTCUSDT", "side": side, "type": "LIMIT", "price": price, "quantity": qty}
        if params.get("type", "LIMIT") == "LIMIT":
            fields["timeInForce"] = "GTC"
        return await self.signed("POST", "/api/v3/order", **{**fields, **params})

    async def place_usdm(self, side: str, price: str, qty: str, **params: Any) -> Answer:
        """Place a limit order on the futures."""
        fields = {"symbol": "BTCUSDT", "side": side, "type": "LIMIT", "price": price, "quantity": qty}
        return await self.signed("POST", "/fapi/v1/order", **{"timeInForce": "GTC", **fields, **params})

    async def _send(self, verb: str, path: str, query: str, headers: dict[str, str]) -> Answer:
        url = f"{self.venue.url()}{path}?{query}"
        async with self.venue.http.request(verb, URL(url, encoded=True), headers=headers) as response:
            body = await response.read()
            return Answer(response.status, orjson.loads(body) if body else None, response.headers)


class Socket:
    """A WebSocket client that reads JSON."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self.socket = socket
        self.events: list[Any] = []

    async def send(self, data: Any) -> None:
        """Send one frame."""
        await self.socket.send_str(orjson.dumps(data).decode())

    async def next(self) -> Any:
        """Return the next message, None once the connection has ended."""
        message = await self.socket.receive()
        if message.type is aiohttp.WSMsgType.TEXT:
            return orjson.loads(message.data)
        return None

    async def ask(self, method: str, params: Any = None, number: int = 1) -> Any:
        """Send a frame and return its answer; what comes before goes to `events`."""
        await self.send({"id": number, "method": method, "params": params})
        while True:
            message = await self.next()
            if message is None or message.get("id") == number:
                return message
            self.events.append(message)

    async def event(self, kind: str) -> Any:
        """Return the next user data event of this kind."""
        while True:
            for position, message in enumerate(self.events):
                event = message.get("event", message.get("data", message))
                if event.get("e") == kind:
                    del self.events[position]
                    return event
            message = await self.next()
            assert message is not None, f"the connection ended before an event {kind}"
            self.events.append(message)


@asynccontextmanager
async def connected(venue: Venue, path: str, protocol: str = "binance") -> AsyncIterator[Socket]:
    """Open a WebSocket."""
    async with venue.http.ws_connect(f"{venue.url(protocol, 'ws')}{path}") as socket:
        yield Socket(socket)
