"""The paper venue's adapter changes while a strategy quotes on it, in simulated time."""

import asyncio
import gc
import shutil
import weakref
from collections.abc import Callable, Coroutine
from decimal import Decimal
from pathlib import Path
from random import Random
from typing import Any

import pytest
from desk_tools import ACCOUNT, BTC, START_NS, CounterState, leading_engine

from host.api import AccountSnapshot, BookTop, Depth, Fill, NoParams, Quote, Strategy, Trade
from host.core import entries as e
from host.core.drift import drift
from host.core.entries import VersionState
from host.journal import read
from host.loader import Catalog, Version, capture, make
from host.runtime.clock import VirtualClock
from host.runtime.driver import ReplayDriver
from host.runtime.reload import AdapterUse, Reloader, ReloadReport, ReloadSettings, Stage
from host.runtime.reload.probation import ProbationLimits
from host.runtime.roster import InstanceSpec

PAPER = Path(__file__).parents[2] / "plugins" / "exchanges" / "paper.py"
SECOND = 1_000_000_000


class Listener(Strategy[NoParams]):
    """Quotes close to the market, and writes down what it hears."""

    state: CounterState

    def __init__(self) -> None:
        super().__init__(NoParams())
        self.tops: list[int] = []
        self.depths: list[tuple[int, int, bool]] = []
        self.trades: list[int] = []
        self.fills: list[str] = []

    def on_book(self, book: BookTop) -> None:
        self.tops.append(book.seq)
        self.quote(book.symbol, Quote(book.bid, Decimal("0.01"), book.ask, Decimal("0.01")))

    def on_depth(self, depth: Depth) -> None:
        self.depths.append((depth.first_seq, depth.seq, depth.is_snapshot))

    def on_trade(self, trade: Trade) -> None:
        self.trades.append(trade.trade_id)

    def on_fill(self, fill: Fill) -> None:
        self.fills.append(fill.trade_id)


class PaperDesk:
    """An engine in simulated time that trades at the paper venue, whose file a test edits."""

    def __init__(self, folder: Path, *, probation_s: float = 10.0, **params: object) -> None:
        self.folder = folder
        self.params: dict[str, object] = {"seed": 3, "persistent": False, "symbols": [BTC], **params}
        self.file = folder / "plugins" / "paper.py"
        self.file.parent.mkdir(parents=True)
        shutil.copy(PAPER, self.file)
        catalog = Catalog.load([self.file.parent], entry_points=False)
        assert not catalog.problems
        self.clock = VirtualClock(START_NS)
        self.journal, self.engine = leading_engine(self.clock, folder / "journal")
        settings = ReloadSettings(limits=ProbationLimits(seconds=probation_s, events=1))
        self.reloader = Reloader(self.engine, catalog, settings, _nothing, lambda version: None)
        self.strategy = Listener()
        self.driver = ReplayDriver(self.engine, self.clock, self.engine.stepped, None)

    async def start(self) -> None:
        offer = self.reloader.catalog.exchange("paper")
        adapter = make(offer, self.params)
        self.feed = self.engine.add_account(ACCOUNT, adapter, str(self.folder))
        self.reloader.adapter_uses[ACCOUNT] = AdapterUse(offer, self.params)
        instruments = await adapter.connect()
        self.engine.set_instruments(ACCOUNT, instruments, {BTC})
        self.feed.follow([BTC])
        await adapter.subscribe([BTC])
        self.engine.start_reconciling(ACCOUNT)
        await self.driver.run(lambda: self.engine.reconciler.is_ready(ACCOUNT))
        spec = InstanceSpec(
            name="mm", account=ACCOUNT, symbols=(BTC,), plugin="test", digest="ab" * 32, params_json=b"{}"
        )
        self.engine.roster.start(self.engine.roster.add(spec, self.strategy, (), self.feed.spawn))
        await self.run(1)
        adapter.resync(BTC)  # changes of depth count from a whole book on

    async def run(self, seconds: float) -> None:
        """Let the market go on for so long."""
        await self.driver.run(lambda: False, self.clock.now_ns() + round(seconds * SECOND))

    async def edit(self, old: str, new: str) -> ReloadReport:
        """Change the adapter's file and reload it while the market goes on."""
        text = self.file.read_text()
        assert old in text
        self.file.write_text(text.replace(old, new, 1))
        reloading = asyncio.ensure_future(self.reload())
        await self.driver.run(reloading.done)
        return await reloading

    async def reload(self) -> ReloadReport:
        async def read_file() -> Version:
            return capture(self.file)

        return await self.reloader.reload("paper", read_file)

    async def check_account(self) -> None:
        """Compare what we booked with what the venue says."""
        answers: list[AccountSnapshot] = []
        exchange = self.feed.adapter._exchange  # type: ignore[attr-defined]
        self.engine.roster.stop(self.engine.roster.instances["mm"], "test")
        await self.driver.run(lambda: not self.engine.state.orders)
        await self.run(0.1)
        answers.append(exchange.account(ACCOUNT).snapshot(self.clock.now_ns()))
        assert drift(self.engine.state, ACCOUNT, answers[0]) == []

    async def until(self, is_so: Callable[[], bool]) -> None:
        """Let the market go on until then; at most an hour of it."""
        assert await self.driver.run(is_so, self.clock.now_ns() + 3_600 * SECOND) == "stopped"

    async def close(self) -> None:
        await self.feed.close()
        self.reloader.close()
        self.journal.close()

    @property
    def entries(self) -> list[e.Entry]:
        return [record.entry for record in read(self.folder / "journal")]


async def _nothing(version: Version) -> None: ...


def play(desk: PaperDesk, story: Callable[[], Coroutine[Any, Any, None]]) -> None:
    async def whole() -> None:
        await desk.start()
        try:
            await story()
        finally:
            await desk.close()

    asyncio.run(whole())


def assert_heard_once(strategy: Listener) -> None:
    assert strategy.tops == sorted(set(strategy.tops)), "no quote twice, none out of order"
    assert strategy.trades == list(range(strategy.trades[0], strategy.trades[-1] + 1))
    assert len(strategy.fills) == len(set(strategy.fills)) > 0
    last = 0
    for first_seq, seq, is_snapshot in strategy.depths:
        assert is_snapshot or first_seq <= last + 1 or not last, "no gap in the depth"
        assert seq > last, "no change of depth twice"
        last = seq


def test_edit_of_the_adapter_loses_no_event_no_fill_and_no_order(tmp_path: Path) -> None:
    desk = PaperDesk(tmp_path)

    async def story() -> None:
        await desk.run(20)
        exchange = desk.feed.adapter._exchange  # type: ignore[attr-defined]
        resting = {order.client_id for order in desk.engine.state.orders.values()}
        events, adapter = desk.engine.events, desk.feed.adapter
        report = await desk.edit('"""The paper venue:', '"""The paper venue, anew:')
        assert report.state is VersionState.ACTIVE, report.reason
        assert report.instances == (f"account {ACCOUNT}",)
        assert desk.feed.adapter is not adapter
        assert desk.feed.adapter._exchange is exchange  # type: ignore[attr-defined]
        assert desk.engine.events >= events
        assert resting
        await desk.run(20)

        await desk.until(lambda: len(desk.feed.links) == 1)
        assert_heard_once(desk.strategy)
        assert desk.engine.stepped == [desk.feed.adapter], "the old one is closed"
        assert not desk.feed.symbols[BTC].fault and desk.feed.is_settled
        # The market has its own moments, and this test itself holds the old adapter.
        kinds = {entry.kind for entry in desk.entries if isinstance(entry, e.Alert)}
        assert kinds <= {"book_fault", "plugin_stuck"}
        await desk.check_account()
        [warm_up] = [result for result in report.stages if result.stage is Stage.WARM_UP]
        assert "books of 1 symbols and the account agree" in warm_up.detail

    play(desk, story)


def test_many_reloads_in_a_row_lose_nothing(tmp_path: Path) -> None:
    desk = PaperDesk(tmp_path)

    async def story() -> None:
        await desk.run(5)
        classes = []
        for number in range(10):
            report = await desk.edit("paper venue", f"paper venue ({number})")
            assert report.state is VersionState.ACTIVE, report.reason
            classes.append(weakref.ref(type(desk.feed.adapter)))
            await desk.run(number)
        await desk.run(60)
        await desk.until(lambda: len(desk.feed.links) == 1)
        assert_heard_once(desk.strategy)
        await desk.check_account()
        gc.collect()
        assert [ref() for ref in classes] == [None] * 9 + [type(desk.feed.adapter)]

    play(desk, story)


def test_changed_default_takes_effect_with_the_first_order(tmp_path: Path) -> None:
    desk = PaperDesk(tmp_path, probation_s=36_000.0)

    async def story() -> None:
        await desk.run(5)
        delivery = desk.feed.adapter._exchange.delivery  # type: ignore[attr-defined]
        assert delivery.latency.base_ns == 1_000_000
        report = await desk.edit("latency_ms: NonNegative = 1.0", "latency_ms: NonNegative = 4.0")
        assert report.state is VersionState.ACTIVE, report.reason
        await desk.run(5)
        assert delivery.latency.base_ns == 4_000_000
        await desk.until(lambda: len(desk.feed.links) == 1)
        adapter = desk.feed.adapter
        assert desk.reloader.roll_back("paper", "said the operator")
        assert desk.feed.adapter is adapter, "until the version before is connected again"
        await desk.until(lambda: desk.feed.adapter is not adapter)
        await desk.run(5)
        assert delivery.latency.base_ns == 1_000_000
        assert_heard_once(desk.strategy)
        await desk.check_account()

    play(desk, story)


@pytest.mark.parametrize("seed", range(3))
def test_any_moment_of_a_change_there_and_back_hands_each_event_over_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    """The connections are never level: how many turns of the market pass between two looks is drawn."""
    # As on a slow machine: what both number alike is not waited for.
    monkeypatch.setattr("host.runtime.reload.candidate.MATCH_PATIENCE_S", 0.0)
    desk, random = PaperDesk(tmp_path, probation_s=60.0), Random(seed)

    async def story() -> None:
        await desk.run(5)
        for number in range(6):
            monkeypatch.setattr("host.runtime.driver.YIELD_EVERY_TURNS", random.choice([1, 2, 3, 7, 61]))
            report = await desk.edit("paper venue", f"paper venue ({number})")
            assert report.state is VersionState.ACTIVE, report.reason
            await desk.run(random.choice([0.05, 0.5, 3.0]))
            adapter = desk.feed.adapter
            if number % 2 and desk.reloader.roll_back("paper", "said the operator"):
                await desk.until(lambda gone=adapter: desk.feed.adapter is not gone)  # type: ignore[misc]
                await desk.run(random.choice([0.05, 0.5, 3.0]))
        await desk.run(5)
        await desk.until(lambda: len(desk.feed.links) == 1)
        assert desk.feed.links[0].market == desk.feed.market, "nothing is left in between"
        assert_heard_once(desk.strategy)
        await desk.check_account()

    play(desk, story)


def test_other_market_is_refused_and_trading_goes_on(tmp_path: Path) -> None:
    desk = PaperDesk(tmp_path)

    async def story() -> None:
        await desk.run(5)
        adapter = desk.feed.adapter
        report = await desk.edit("market: str = _SYNTHETIC", "market: str = _CALM")
        assert report.state is VersionState.REFUSED
        assert "the venue in this process runs with market = 'synthetic'" in report.reason
        desk.file.write_text(PAPER.read_text())
        report = await desk.edit("maker_fee: Decimal | None = None", "maker_fee: Decimal = Decimal(1)")
        assert report.state is VersionState.REFUSED
        assert f"{BTC} is in use as" in report.reason
        await desk.run(5)
        await desk.until(lambda: len(desk.feed.links) == 1)
        assert desk.engine.stepped == [adapter]
        assert_heard_once(desk.strategy)
        await desk.check_account()

    play(desk, story)


def test_runs_without_reload_repeat_exactly(tmp_path: Path) -> None:
    digests = []
    for name in ("a", "b"):
        desk = PaperDesk(tmp_path / name)

        async def story(desk: PaperDesk = desk) -> None:
            await desk.run(10)
            digests.append((desk.engine.state.digest(), tuple(desk.strategy.fills), desk.engine.events))

        play(desk, story)
    assert digests[0] == digests[1]
