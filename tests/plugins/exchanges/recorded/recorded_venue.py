"""A recording at ten times its pace, through the venue server and an adapter, with every message counted."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from exchange_tools import FakeHost
from msgspec import Struct

from host.api import BookTop, ConnectionChanged, Depth, ExchangeAdapter, MarketEvent, Secret, Trade
from plugins.exchanges.binance.adapter import BinanceSpot, BinanceUsdm
from plugins.exchanges.binance.params import BinanceParams, BinanceUsdmParams
from plugins.exchanges.bybit import Bybit
from plugins.exchanges.bybit.params import BybitParams
from plugins.exchanges.okx import Okx
from plugins.exchanges.okx.params import OkxParams
from venue.clock import VenueClock
from venue.exchange import Exchange
from venue.opening import OpenVenue
from venue.protocols.accounts import DEMO_ACCOUNTS
from venue.protocols.server import ProtocolServer
from venue.protocols.settings import Settings
from venue.recording import Recording
from venue.replay_market import ReplayMarket
from venue.running import RunningExchange

SPEED = 10.0
WINDOWS = ("okx", "bybit")
"""They push what changed among the best levels of the exchange's book, and not the changes as recorded."""
LAST_PRICE = 1.0
"""Of a trade that was not recorded: it says that nothing comes after it."""
BUSY_MS = 20_000.0
"""What an adapter bears on a machine that has other things to do."""

ADAPTERS: dict[str, Callable[..., ExchangeAdapter[Any]]] = {
    "binance spot": lambda **keys: BinanceSpot(BinanceParams(**keys, clock_error_ms=BUSY_MS)),
    "binance perpetual": lambda **keys: BinanceUsdm(BinanceUsdmParams(**keys, clock_error_ms=BUSY_MS)),
    "okx spot": lambda **keys: Okx(OkxParams(**keys, **PASSPHRASE, max_clock_error_ms=BUSY_MS)),
    "okx perpetual": lambda **keys: Okx(OkxParams(**keys, **PASSPHRASE, max_clock_error_ms=BUSY_MS)),
    "bybit spot": lambda **keys: Bybit(BybitParams(**keys)),
    "bybit perpetual": lambda **keys: Bybit(BybitParams(**keys)),
}
PASSPHRASE: dict[str, Any] = {"passphrase": Secret(DEMO_ACCOUNTS[0].passphrase)}


class SteppedClock(VenueClock):
    """Market time that goes from one recorded moment to the next, and stands still in between."""

    def __init__(self, start_ns: int, speed: float) -> None:
        super().__init__(start_ns, speed)
        self.market_ns = start_ns

    def now_ns(self) -> int:
        return self.market_ns


class Played(Struct):
    """What was recorded, and what the adapter handed over of it."""

    recorded: list[MarketEvent]
    told: list[MarketEvent]
    whole: Depth
    """The book that the adapter handed over before the market went on."""
    at_the_end: Depth
    """The exchange's book."""


class RecordedVenue:
    """The venue server over a recording, in this process."""

    def __init__(self, recording: Recording, protocol: str) -> None:
        self.recording = recording
        self.clock = SteppedClock(recording.first_ns, SPEED)
        self.exchange = Exchange()
        self.exchange.list_instrument(recording.instrument)
        self.exchange.add_market(ReplayMarket(recording))
        self.running = RunningExchange(self.exchange, self.clock)
        settings = Settings(listen={protocol: "127.0.0.1:0"}, has_rate_limits=False)
        self.server = ProtocolServer(OpenVenue(self.running, None, True), settings)
        self.protocol = protocol

    @property
    def symbol(self) -> str:
        return self.recording.symbol

    def play_until_there_is_a_book(self) -> int:
        """Play without anybody listening, to some moment after the recording's first book; return it."""
        first = next(
            event for event in self.recording.events() if isinstance(event, Depth) and event.is_snapshot
        )
        self.clock.market_ns = first.ts_recv + 100_000_000
        self.running.step()
        return self.clock.market_ns

    def tell_the_end(self) -> None:
        """Bring books that are pushed as windows to where the exchange is, and then tell of a trade, the last."""
        book, front = self.exchange.snapshot(self.symbol), self.server.courses[self.protocol].front
        if self.protocol in WINDOWS:
            front.on_market(Depth(self.symbol, (), (), False, book.seq, book.seq, ts_recv=book.ts_recv))
        front.on_market(Trade(self.symbol, LAST_PRICE, 1.0, True, 1 << 50, book.ts_recv, book.ts_recv))

    async def play(self, until_ns: int) -> None:
        """Let each recorded moment come in its time, or as soon as those before it are over."""
        clock, exchange, now_s = self.clock, self.exchange, asyncio.get_running_loop().time
        from_ns, from_s = clock.market_ns, now_s()
        while (due_ns := exchange.next_time_ns()) is not None and due_ns <= until_ns:
            due_s = from_s + (due_ns - from_ns) / 1e9 / SPEED
            await asyncio.sleep(max(due_s - now_s(), 0.0))
            clock.market_ns = due_ns
            self.running.step()
        self.tell_the_end()


@asynccontextmanager
async def subscribed(venue: RecordedVenue, adapter: ExchangeAdapter[Any]) -> AsyncIterator[FakeHost]:
    """Connect an adapter that follows the recorded symbol, and wait for its book."""
    host = FakeHost()
    adapter.ctx = host
    try:
        await adapter.connect()
        await adapter.subscribe([venue.symbol])
        await host.heard(Depth)
        yield host
        assert all(change.is_up for change in host.of(ConnectionChanged)), host.of(ConnectionChanged)
    finally:
        await adapter.close()
        await host.stop()


async def play(folder: Path, case: str, seconds: float) -> Played:
    """Play so much of a recording, as fast as `SPEED` says, and return what came of it."""
    protocol = case.partition(" ")[0]
    venue = RecordedVenue(Recording.open(folder), protocol)
    from_ns = venue.play_until_there_is_a_book()
    until_ns = from_ns + int(seconds * 1e9)
    recorded = [event for event in venue.recording.events() if from_ns < event.ts_recv <= until_ns]
    await venue.server.start()
    account = DEMO_ACCOUNTS[0]
    adapter = ADAPTERS[case](
        api_key=Secret(account.api_key),
        api_secret=Secret(account.secret),
        url=f"http://{venue.server.addresses[protocol]}",
    )
    try:
        async with subscribed(venue, adapter) as host:
            (whole,) = host.of(Depth)
            host.events.clear()
            await venue.play(until_ns)
            quotes = sum(isinstance(event, BookTop) for event in recorded)
            while not _is_all_told(host.events, quotes):
                await asyncio.sleep(0.01)
            told = without_repeats(host.events)
            return Played(recorded, told, whole, venue.exchange.snapshot(venue.symbol))
    finally:
        await venue.server.close()


def _is_all_told(events: Sequence[MarketEvent], quotes: int) -> bool:
    is_over = any(isinstance(event, Trade) and event.price == LAST_PRICE for event in events[-quotes - 9 :])
    return is_over and sum(isinstance(event, BookTop) for event in without_repeats(events)) >= quotes


def without_repeats(events: Sequence[MarketEvent]) -> list[MarketEvent]:
    """Leave out the last trade, and tops that were told once more.

    An adapter does that to put right an older one, and a venue to show that it is there.
    """
    found: list[MarketEvent] = []
    top: BookTop | None = None
    for event in events:
        if isinstance(event, BookTop):
            is_repeat = top is event or (top is not None and 0 < event.seq == top.seq)
            top = event
            if is_repeat:
                continue
        elif isinstance(event, Trade) and event.price == LAST_PRICE:
            continue
        found.append(event)
    return found
