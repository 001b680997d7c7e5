"""Adapters that behave badly on their way in, at the swap, and on probation."""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Coroutine
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from desk_tools import ACCOUNT, BTC, START_NS, Quoter, ScriptedVenue, spot

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
from host.core.entries import VersionState
from host.core.risk_limits import RiskConfig
from host.journal import Journal, read
from host.loader import Catalog, Version, capture, make
from host.runtime.clock import VirtualClock
from host.runtime.engine import Engine, EngineSettings
from host.runtime.recovery import recover
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
        self.journal = Journal.open(folder / "journal", node="desk", segment_bytes=1 << 20)
        self.engine = Engine(
            clock=self.clock,
            journal=self.journal,
            state=recover(self.journal).state,
            risk_config=RiskConfig(),
            settings=EngineSettings(snapshot_in_thread=False),
        )
        self.engine.start_epoch("desk", self.journal.cell, 1, "test")
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
        self.engine.set_instruments(ACCOUNT, await adapter.connect(), {BTC})
        self.feed.follow([BTC])
        await adapter.subscribe([BTC])
        self.engine.start_reconciling(ACCOUNT)
        while not self.engine.reconciler.is_ready(ACCOUNT):
            await asyncio.sleep(0)
        spec = InstanceSpec(
            name="mm", account=ACCOUNT, symbols=(BTC,), plugin="test", digest="ab" * 32, params_json=b"{}"
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

    async def reload(self) -> ReloadReport:
        async def read_file() -> Version:
            return capture(self.file)

        return await self.reloader.reload("wired", read_file)

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


@pytest.fixture
def desk(tmp_path: Path) -> WireDesk:
    return WireDesk(tmp_path)


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


@pytest.mark.parametrize("lagging", ["neither", "old", "new"])
def test_change_between_connections_that_are_not_level_delivers_each_event_once(
    desk: WireDesk, lagging: str
) -> None:
    async def story() -> None:
        wire, old = desk.wire, desk.feed.adapter
        desk.step_ns = MS // 10  # threads that import take real time, in which no connection lags for seconds
        resting = desk.resting
        reloading = asyncio.ensure_future(desk.edit("VERSION", "2"))
        await desk.until(lambda: len(wire.connections) == 2)
        new = wire.connections[1]
        await desk.let(3)
        if lagging != "neither":
            wire.lagging[old if lagging == "old" else new] = deque()
        report = await reloading
        assert report.state is VersionState.ACTIVE, report.reason
        await desk.let(3)
        for adapter in list(wire.lagging):
            wire.catch_up(adapter)
        await desk.let(30)

        assert desk.feed.adapter is new
        assert_heard_once(desk.strategy)
        assert desk.strategy.numbers("top")[-1] == wire.seq
        assert desk.resting == resting, "the same orders, amended"
        await desk.until(lambda: wire.connections == [new])
        assert not desk.alerts("book_fault")

    play(desk, story)


@pytest.mark.parametrize("lagging", ["neither", "old", "new"])
def test_way_back_to_a_connection_that_is_still_open_delivers_each_event_once(
    desk: WireDesk, lagging: str
) -> None:
    async def story() -> None:
        wire, old = desk.wire, desk.feed.adapter
        desk.step_ns = MS // 10
        await desk.leave_in_flight()  # keeps the old connection open
        report = await desk.edit("VERSION", "2")
        assert report.state is VersionState.ACTIVE, report.reason
        new = desk.feed.adapter
        await desk.let(10)
        if lagging != "neither":
            wire.lagging[old if lagging == "old" else new] = deque()
        await desk.let(10)
        assert desk.reloader.roll_back("wired", "said the operator")
        assert desk.feed.adapter is old
        filled = wire.fill(desk.resting[0], "0.5")
        await desk.let(10)
        for adapter in list(wire.lagging):
            wire.catch_up(adapter)
        await desk.let(10)
        wire.let_answers_out()
        await desk.until(lambda: wire.connections == [old])
        await desk.until(lambda: desk.feed.links[0].market == desk.feed.market)
        await desk.let(100)

        assert_heard_once(desk.strategy)
        assert desk.strategy.numbers("top")[-1] == wire.seq
        assert desk.strategy.fills == [filled.trade_id]
        assert not desk.alerts("book_fault")

    play(desk, story)


def test_version_saved_before_the_change_to_another_is_complete_takes_over_where_the_account_is(
    desk: WireDesk,
) -> None:
    async def story() -> None:
        wire = desk.wire
        desk.step_ns = MS // 10
        reloading = asyncio.ensure_future(desk.edit("VERSION", "2"))
        await desk.until(lambda: len(wire.connections) == 2)
        second = wire.connections[1]
        await desk.let(3)
        backlog = wire.lagging[second] = deque()
        report = await reloading
        assert report.state is VersionState.ACTIVE, report.reason
        await desk.until(lambda: wire.connections == [second])
        assert backlog, "it is still to tell what the first one told"

        reloading = asyncio.ensure_future(desk.edit("VERSION", "3"))
        await desk.until(lambda: len(wire.connections) == 2)
        third = wire.connections[1]
        for _ in range(9):  # of which the account was told
            second.ctx.market(backlog.popleft())
        await desk.let(30)
        assert desk.feed.adapter is second, (
            "what comes before the beginning of the third one is still to come"
        )
        wire.catch_up(second)
        report = await reloading
        assert report.state is VersionState.ACTIVE, report.reason
        await desk.let(30)

        assert desk.feed.adapter is third
        assert_heard_once(desk.strategy)
        assert desk.strategy.numbers("trade")[-1] == wire.seq
        await desk.until(lambda: len(desk.feed.links) == 1 and third.ctx.market == desk.feed.market)  # type: ignore[comparison-overlap]

    play(desk, story)


def test_wrong_numbers_of_a_version_taken_back_do_not_outlive_it(desk: WireDesk) -> None:
    async def story() -> None:
        wire, old = desk.wire, desk.feed.adapter
        desk.step_ns = MS // 10
        await desk.leave_in_flight()
        report = await desk.edit("VERSION", "2")
        assert report.state is VersionState.ACTIVE, report.reason
        now_ns = desk.clock.now_ns()
        desk.feed.adapter.ctx.market(BookTop(BTC, 1.0, 1.0, 2.0, 1.0, now_ns, now_ns, 1 << 40))
        assert desk.reloader.roll_back("wired", "said the operator")
        wire.let_answers_out()
        desk.step_ns = 10 * MS
        await desk.until(lambda: desk.feed.links[0].market == desk.feed.market)
        await desk.let(100)

        assert desk.feed.adapter is old
        book = desk.feed.symbols[BTC].book
        assert book.is_valid and book.top is not None and book.top.seq == wire.seq
        assert desk.strategy.numbers("top")[-1] == wire.seq

    play(desk, story)


def test_answer_to_a_request_in_flight_comes_through_the_old_connection(desk: WireDesk) -> None:
    async def story() -> None:
        wire, old = desk.wire, desk.feed.adapter
        desk.step_ns = MS // 10  # so that the reload is done before the answers are overdue
        await desk.leave_in_flight()
        in_flight = [order.client_id for order in desk.engine.state.orders.values()]
        report = await desk.edit("VERSION", "2")
        assert report.state is VersionState.ACTIVE, report.reason
        assert desk.feed.adapter is not old
        assert old in wire.connections, "it is waited for"
        assert {order.status for order in desk.engine.state.orders.values()} == {"pending_new"}
        # A fill that both connections tell, before the answer.
        filled = wire.fill(in_flight[0], "0.5")
        wire.let_answers_out()
        await desk.until(lambda: wire.connections == [desk.feed.adapter])

        assert {order.status for order in desk.engine.state.orders.values()} <= {
            "open", "partially_filled", "pending_amend"
        }  # fmt: skip
        assert sorted(desk.resting) == sorted(in_flight)
        assert desk.strategy.fills == [filled.trade_id]
        assert desk.engine.state.position("mm", BTC).qty in (Decimal("0.5"), Decimal("-0.5"))

    play(desk, story)


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("return self.wire.instruments", "1 / 0", "connect raised ZeroDivisionError"),
        ("return self.wire.instruments", "await asyncio.sleep(60)", "connect did not end within 0.05 s"),
        ("return self.wire.instruments", "return []", f"it does not list {BTC}, which is in use"),
        ("self.wire.attach(self)", "raise ValueError('no')", "subscribe raised ValueError: no"),
        ("self.wire.attach(self)", "__import__('sys').exit(3)", "subscribe raised RuntimeError: it called sys.exit(3)"),
        ("self.wire.attach(self)", "pass", f"not ready after 0.2 s: {BTC}: no data"),
        ("self.wire.take(self, command)", "1 / 0", "send raised ZeroDivisionError"),
        ("self.wire.take(self, command)", "pass", "no answer yet about open orders, fills, balances"),
        ("self.wire.attach(self)", "self.wire.attach(self); self.ctx.spawn(self.die(), 'die')\n\n"
         "    async def die(self): raise OSError('gone')", "its code raised OSError: gone"),
    ],
)  # fmt: skip
def test_version_that_cannot_serve_is_refused_and_the_old_one_never_noticed(
    desk: WireDesk, monkeypatch: pytest.MonkeyPatch, old: str, new: str, reason: str
) -> None:
    monkeypatch.setattr("host.runtime.reload.candidate.CONNECT_DEADLINE_S", 0.05)
    monkeypatch.setattr("host.runtime.reload.candidate.READY_DEADLINE_S", 0.2)

    async def story() -> None:
        adapter, resting = desk.feed.adapter, desk.resting
        report = await desk.edit(old, new)
        assert report.state is VersionState.REFUSED
        assert reason in report.reason
        await desk.until(lambda: desk.wire.connections == [adapter] and len(desk.feed.links) == 1)
        await desk.let(5)
        assert desk.feed.adapter is adapter and desk.resting == resting
        assert desk.feed.is_settled
        assert_heard_once(desk.strategy)

    play(desk, story)


@pytest.mark.parametrize(
    ("orders", "fills", "balances", "reason"),
    [
        ("()", "()", "balances", "is open here, it does not see it"),
        ("orders[:1]", "()", "balances", "is open here, it does not see it"),
        ("(replace(orders[0], price=orders[0].price - 1), *orders[1:])", "()", "balances", "it sees"),
        ("(*orders, replace(orders[0], client_id='tdt1i1n99'))", "()", "balances", "is not open here"),
        ("orders", "(fill,)", "balances", "it sees fill 77 of order"),
        ("orders", "()", "balances[1:]", "balance "),
    ],
)
def test_version_that_sees_another_account_is_refused(
    desk: WireDesk, monkeypatch: pytest.MonkeyPatch, orders: str, fills: str, balances: str, reason: str
) -> None:
    monkeypatch.setattr("host.runtime.reload.candidate.READY_DEADLINE_S", 0.2)

    async def story() -> None:
        other = f"""
        from decimal import Decimal
        from msgspec.structs import replace
        from host.api import AccountSnapshot, Balance, FillsSnapshot, Liquidity, OpenOrdersSnapshot, OrderFilled
        now_ns = self.ctx.now_ns()
        orders = tuple(replace(order, ts_ns=now_ns) for order in self.wire.open())
        balances = tuple(Balance(c, total) for c, total in self.wire.balances.items())
        fill = OrderFilled(orders[0].client_id, orders[0].symbol, orders[0].side, "77", orders[0].price,
            Decimal("0.1"), Decimal(0), "USDT", Liquidity.MAKER, 1)
        self.ctx.report(OpenOrdersSnapshot({orders}, now_ns))
        self.ctx.report(FillsSnapshot({fills}, now_ns))
        self.ctx.report(AccountSnapshot({balances}, (), now_ns))
"""
        desk.is_still = True  # orders that are being amended are compared with nothing
        await desk.let(200)
        report = await desk.edit("        self.wire.take(self, command)\n", other)
        assert report.state is VersionState.REFUSED
        assert reason in report.reason

    play(desk, story)


@pytest.mark.parametrize(
    ("trouble", "is_old_open"),
    [("losses", True), ("losses", False), ("raises", True), ("raises", False), ("bad book", False)],
)
def test_version_that_breaks_on_probation_makes_way_for_the_one_before(
    desk: WireDesk, trouble: str, is_old_open: bool
) -> None:
    # Virtual time runs ahead of the threads that close the old version: probation must not end meanwhile.
    desk.reloader.settings = ReloadSettings(limits=ProbationLimits(seconds=36_000.0, events=1))

    async def story() -> None:
        wire, old = desk.wire, desk.feed.adapter
        if is_old_open:
            # An order whose answer is awaited keeps the old connection open.
            desk.step_ns = MS // 10
            await desk.leave_in_flight()
        report = await desk.edit("VERSION", "2")
        assert report.state is VersionState.ACTIVE, report.reason
        new = desk.feed.adapter
        if not is_old_open:
            await desk.until(lambda: wire.connections == [new])
        now_ns = desk.clock.now_ns()
        if trouble == "losses":
            for _ in range(3):
                for is_up in (False, True):
                    new.ctx.report(ConnectionChanged("market", is_up, "", now_ns))
        elif trouble == "raises":
            new.ctx.spawn(_die(), "die")
        else:
            wire.deaf.add(new)
            new.ctx.market(BookTop(BTC, 2.0, 1.0, 1.0, 1.0, now_ns, now_ns, 1 << 40))
        await desk.until(lambda: desk.feed.adapter is not new)
        desk.step_ns = 10 * MS
        wire.let_answers_out()
        await desk.until(lambda: wire.connections == [desk.feed.adapter] and desk.feed.is_settled)
        await desk.let(300)

        assert (desk.feed.adapter is old) == is_old_open
        assert type(desk.feed.adapter) is type(old)
        assert desk.feed.symbols[BTC].book.is_valid
        assert desk.strategy.numbers("top")[-1] == wire.seq
        assert len(desk.resting) == 2, "it quotes"
        assert desk.alerts("rolled_back")
        assert not desk.engine.must_stop

    play(desk, story)


async def _die() -> None:
    raise OSError("gone")


def test_reload_repairs_an_account_whose_adapter_lost_its_connection(desk: WireDesk) -> None:
    async def story() -> None:
        old = desk.feed.adapter
        desk.feed.adapter.ctx.report(ConnectionChanged("market", False, "", desk.clock.now_ns()))
        desk.wire.deaf.add(old)
        await desk.let(100)
        assert not desk.feed.is_settled and not desk.resting
        report = await desk.edit("VERSION", "2")
        assert report.state is VersionState.ACTIVE, report.reason
        await desk.until(lambda: desk.feed.is_settled and len(desk.resting) == 2)
        assert desk.strategy.numbers("top")[-1] == desk.wire.seq

    play(desk, story)


def test_staged_mode_leaves_nothing_behind(tmp_path: Path) -> None:
    desk = WireDesk(tmp_path, mode="stage")

    async def story() -> None:
        adapter = desk.feed.adapter
        report = await desk.edit("VERSION", "2")
        assert report.state is VersionState.STAGED, report.reason
        await desk.until(lambda: desk.wire.connections == [adapter] and len(desk.feed.links) == 1)
        report = await desk.reloader.activate("wired", report.digest)
        assert report.state is VersionState.ACTIVE
        assert desk.feed.adapter is not adapter

    play(desk, story)
