"""A desk whose adapter comes from a file, at a venue with connections that the test holds in its hands."""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

from desk_tools import ACCOUNT, BTC, START_NS, Quoter, ScriptedVenue, leading_engine, spot

from host.api import (
    BookTop,
    Command,
    ConnectionChanged,
    Depth,
    ExchangeAdapter,
    Instrument,
    OrderFilled,
    PlaceOrder,
    Report,
    Trade,
)
from host.core import entries as e
from host.journal import read
from host.loader import Catalog, Version, capture, make
from host.runtime.clock import VirtualClock
from host.runtime.reload import AdapterUse, Reloader, ReloadReport, ReloadSettings
from host.runtime.reload.probation import ProbationLimits
from host.runtime.roster import InstanceSpec

MS = 1_000_000
SECOND = 1_000_000_000

PLUGIN = '''
"""A connection to the wire that the test holds in its hands. VERSION"""
import asyncio
from host.api import ExchangeAdapter, NoParams

class Wired(ExchangeAdapter[NoParams]):
    async def connect(self):
        self.wire = self.ctx.shared["wire"]
        return self.wire.instruments

    async def subscribe(self, symbols):
        self.wire.attach(self)

    def send(self, command, deadline_ns):
        self.wire.take(self, command)

    def resync(self, symbol):
        self.wire.give_book(self)

    async def close(self):
        self.wire.detach(self)
'''


class Wire(ScriptedVenue):
    """A venue with connections: market data and fills go to all of them, answers to who asked.

    Events of a connection in `lagging` wait there; while `holds_answers`, answers about new orders
    wait in `held`.
    """

    def __init__(self) -> None:
        super().__init__()
        self.instruments: list[Instrument] = [spot(BTC)]
        self.connections: list[ExchangeAdapter[Any]] = []
        self.lagging: dict[ExchangeAdapter[Any], deque[Any]] = {}
        self.is_mute = False
        """Whether connections made from now on get no market data."""
        self.deaf: set[ExchangeAdapter[Any]] = set()
        self.held: list[tuple[ExchangeAdapter[Any], Report]] = []
        self.holds_answers = False
        self.seq = 100

    def attach(self, adapter: ExchangeAdapter[Any]) -> None:
        self.connections.append(adapter)
        for channel in ("market", "private"):
            adapter.ctx.report(ConnectionChanged(channel, True, "", self.ctx.now_ns()))
        if self.is_mute:
            self.deaf.add(adapter)
        else:
            self.give_book(adapter)

    def detach(self, adapter: ExchangeAdapter[Any]) -> None:
        if adapter in self.connections:
            self.connections.remove(adapter)

    def give_book(self, adapter: ExchangeAdapter[Any]) -> None:
        self._to(adapter, self._depth(is_snapshot=True))

    def take(self, adapter: ExchangeAdapter[Any], command: Command) -> None:
        self.sent.append(command)
        for report in self._answer(command):
            if self.holds_answers and isinstance(command, PlaceOrder):
                self.held.append((adapter, report))
            else:
                asyncio.get_running_loop().call_soon(adapter.ctx.report, report)

    def let_answers_out(self) -> None:
        """Hold no answers any more; each goes to the connection that asked."""
        self.holds_answers = False
        for adapter, report in self.held:
            adapter.ctx.report(report)
        self.held.clear()

    def tick(self) -> None:
        """Move the market by one quote, one trade and one change of depth."""
        self.seq += 1
        now_ns = self.ctx.now_ns()
        bid = 60_000.0 + self.seq % 5
        self._to_all(BookTop(BTC, bid, 1.0, bid + 1.0, 1.0, now_ns, now_ns, self.seq))
        self._to_all(Trade(BTC, bid, 1.0, True, self.seq, now_ns, now_ns))
        self._to_all(self._depth(is_snapshot=False))

    def fill(self, client_id: str, qty: str) -> OrderFilled:
        """Trade an order and tell every connection."""
        fill = self.trade(self.orders[client_id], qty)
        self.waiting.clear()
        for adapter in list(self.connections):
            adapter.ctx.report(fill)
        return fill

    def catch_up(self, adapter: ExchangeAdapter[Any]) -> None:
        """Deliver what a lagging connection has not got yet, and lag no more."""
        for event in self.lagging.pop(adapter):
            adapter.ctx.market(event)

    def _depth(self, *, is_snapshot: bool) -> Depth:
        now_ns = self.ctx.now_ns()
        bid = 60_000.0 + self.seq % 5
        old = 60_000.0 + (self.seq - 1) % 5
        levels = [] if is_snapshot else [(old, 0.0)]
        return Depth(
            BTC, (*levels, (bid, 1.0)), (*[(p + 1.0, s) for p, s in levels], (bid + 1.0, 1.0)),
            is_snapshot, self.seq, self.seq, -1, now_ns, now_ns,
        )  # fmt: skip

    def _to_all(self, event: Any) -> None:
        for adapter in list(self.connections):
            self._to(adapter, event)

    def _to(self, adapter: ExchangeAdapter[Any], event: Any) -> None:
        if adapter in self.lagging:
            self.lagging[adapter].append(event)
        elif adapter not in self.deaf:
            adapter.ctx.market(event)


class Listener(Quoter):
    """Quotes, and writes down what it hears."""

    def __init__(self) -> None:
        super().__init__()
        self.heard: list[tuple[str, int]] = []
        self.fills: list[str] = []

    def on_book(self, book: BookTop) -> None:
        self.heard.append(("top", book.seq))
        super().on_book(book)

    def on_trade(self, trade: Trade) -> None:
        self.heard.append(("trade", trade.trade_id))

    def on_depth(self, depth: Depth) -> None:
        self.heard.append(("depth", depth.seq))

    def on_fill(self, fill: Any) -> None:
        super().on_fill(fill)
        self.fills.append(fill.trade_id)

    def numbers(self, kind: str) -> list[int]:
        return [number for what, number in self.heard if what == kind]


PATIENCE_S = 60.0


class WireDesk:
    """An engine whose adapter comes from a file, at a venue that the test speaks for."""

    def __init__(self, folder: Path, **settings: Any) -> None:
        self.folder = folder
        self.file = folder / "plugins" / "wired.py"
        self.file.parent.mkdir(parents=True)
        self.file.write_text(PLUGIN)
        self.clock = VirtualClock(START_NS)
        self.journal, self.engine = leading_engine(self.clock, folder / "journal")
        limits = ProbationLimits(seconds=20.0, events=1)
        self.reloader = Reloader(
            self.engine,
            Catalog.load([self.file.parent], entry_points=False),
            ReloadSettings(limits=limits, **settings),
            _nothing,
            lambda version: None,
        )
        self.wire = Wire()
        self.step_ns = 10 * MS
        self.is_still = False
        self.strategy = Listener()
        self._turning: asyncio.Task[None] | None = None

    async def start(self) -> None:
        offer = self.reloader.catalog.exchange("wired")
        adapter = make(offer, {})
        self.feed = self.engine.add_account(ACCOUNT, adapter, "")
        self.feed.shared["wire"] = self.wire
        self.wire.ctx = self.feed
        self.reloader.adapter_uses[ACCOUNT] = AdapterUse(offer, {})
        symbols = [instrument.symbol for instrument in self.wire.instruments]
        self.engine.set_instruments(ACCOUNT, await adapter.connect(), set(symbols))
        self.feed.follow(symbols)
        await adapter.subscribe(symbols)
        self.engine.start_reconciling(ACCOUNT)
        while not self.engine.reconciler.is_ready(ACCOUNT):
            await asyncio.sleep(0)
        spec = InstanceSpec(
            name="mm",
            account=ACCOUNT,
            symbols=tuple(symbols),
            plugin="test",
            digest="ab" * 32,
            params_json=b"{}",
        )
        self.engine.roster.start(self.engine.roster.add(spec, self.strategy, (), self.feed.spawn))
        self._turning = asyncio.ensure_future(self._turn())
        await self.let(5)

    async def _turn(self) -> None:
        """Let `step_ns` pass and the market move, with each pass of the loop."""
        while True:
            self.step()
            await asyncio.sleep(0)

    def step(self) -> None:
        self.clock.set(self.clock.now_ns() + self.step_ns)
        if self.engine.upkeep.next_time_ns() <= self.clock.now_ns():
            self.engine.upkeep.on_time(self.clock.now_ns())
        if not self.is_still:
            self.wire.tick()

    async def let(self, steps: int) -> None:
        """Let the market go on for so many steps."""
        until_ns = self.clock.now_ns() + steps * self.step_ns
        while self.clock.now_ns() < until_ns:
            await asyncio.sleep(0)

    async def until(self, is_so: Callable[[], bool]) -> None:
        """Let the market go on until then.

        Threads that import and connect do so in real time, so that is what patience is counted in.
        """
        give_up_s = time.monotonic() + PATIENCE_S
        while not is_so():
            assert time.monotonic() < give_up_s
            await asyncio.sleep(0)

    async def leave_in_flight(self) -> None:
        """Have both quotes placed anew, and the venue not answer."""
        self.wire.holds_answers = True
        self.engine.begin_turn(self.clock.now_ns())
        self.engine.oms.cancel_all(self.engine.state.orders.values(), "test", self.clock.now_ns())
        self.engine.end_turn(self.clock.now_ns(), 0)
        await self.until(lambda: len(self.wire.held) == 2)

    async def edit(self, old: str, new: str) -> ReloadReport:
        assert old in PLUGIN
        self.file.write_text(PLUGIN.replace(old, new))
        return await self.reload()

    async def reload(self, *, is_ordered: bool = False) -> ReloadReport:
        async def read_file() -> Version:
            return capture(self.file)

        return await self.reloader.reload("wired", read_file, is_ordered=is_ordered)

    async def stop(self) -> None:
        assert self._turning is not None
        self._turning.cancel()
        await asyncio.gather(self._turning, return_exceptions=True)
        await self.feed.close()
        self.reloader.close()
        self.journal.close()

    def alerts(self, kind: str) -> list[str]:
        entries = [record.entry for record in read(self.folder / "journal")]
        return [entry.text for entry in entries if isinstance(entry, e.Alert) and entry.kind == kind]

    @property
    def resting(self) -> list[str]:
        return sorted(order.client_id for order in self.engine.state.orders.values())


async def _nothing(version: Version) -> None: ...


def play(desk: WireDesk, story: Callable[[], Coroutine[Any, Any, None]]) -> None:
    async def whole() -> None:
        await desk.start()
        try:
            await story()
        finally:
            await desk.stop()

    asyncio.run(asyncio.wait_for(whole(), 30))


def assert_heard_once(strategy: Listener) -> None:
    for kind in ("top", "trade", "depth"):
        numbers = strategy.numbers(kind)
        assert numbers == list(range(numbers[0], numbers[-1] + 1)), kind
