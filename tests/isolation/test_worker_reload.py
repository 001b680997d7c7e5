"""A strategy in a worker goes from one version to another as one inline does: nothing is lost, nothing told twice."""

import asyncio
import os
import random
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
from desk_tools import ACCOUNT, BTC
from isolation_tools import CHAINED, QUOTER, Moves, WorkerDesk, chain_of, children, until, worker_desk

from host.api import Candle
from host.core.entries import InstanceState, VersionState
from host.isolation.proxy import proxy_class
from host.isolation.settings import WorkerSettings
from host.isolation.supervised import Worker
from host.loader import Catalog, Version, capture, decode_params
from host.runtime.history import OwnEvent
from host.runtime.reload import Reloader, ReloadReport, ReloadSettings, StrategyUse
from host.runtime.reload.probation import ProbationLimits
from host.runtime.reload.stages import Stage
from host.runtime.roster import InstanceSpec
from host.runtime.turn import turn

PLUGIN = "quoter"
ROUNDS = int(os.environ.get("TANDEM_WORKER_RELOADS", "6"))
PATIENT = {"deadline_ns": 30_000_000_000, "backoff_ns": 1_000_000}
WIDER = QUOTER.replace("away: float = 0.02", "away: float = 0.05")
RAISES_HIGH = WIDER.replace(
    "p = self.params", "p = self.params\n        if book.bid > 70_000: raise ValueError('too high')"
)
SECOND_STATE = WIDER.replace(
    "class Counted(State):",
    """class Counted(State):
    state_version = 2
    more: int = 7

    @classmethod
    def upgrade(cls, version, old):
        return {**old, "more": 8}
""",
)
RAISES = QUOTER.replace("p = self.params", "raise ValueError('no')")
FAR_SLOWER = QUOTER.replace("p = self.params", "p = self.params\n        __import__('time').sleep(0.03)")
SLOW_HIGH = QUOTER.replace(
    "p = self.params", "p = self.params\n        if book.bid > 70_000: __import__('time').sleep(0.05)"
)
COUNTER = QUOTER.replace("    starts: int = 0\n", "    starts: int = 0\n    books: int = 0\n").replace(
    "self.quote(book.symbol, Quote(book.bid - p.away, p.size, book.ask + p.away, p.size))",
    "self.state.books += 1",
)
DOES_NOT_START = QUOTER.replace("self.state.starts += 1", "raise ValueError('no start')")
HANGS_AT_START = QUOTER.replace("self.state.starts += 1", "while True: pass")
OTHER_PARAMS = QUOTER.replace("away: float = 0.02", "width: float")
RENAMED = QUOTER.replace("class Quoter(", "class Other(") + "\n\nclass Another(Other):\n    pass\n"
POISONED = "if round(book.bid % 0.5, 2) == 0.25: raise ValueError('poisoned')"


class Reloads:
    """A desk with one instance in a worker, the file that it comes from, and what reloads it."""

    def __init__(self, desk: WorkerDesk, seconds: float, source: str, settings: dict[str, Any]) -> None:
        self.desk, self.engine = desk, desk.desk.engine
        self.moves = Moves(desk)
        self.file = desk.folder / "plugins" / f"{PLUGIN}.py"
        self.file.parent.mkdir(exist_ok=True)
        self.file.write_text(source)
        catalog = Catalog.load([self.file.parent], entry_points=False)
        # Few events say little of how fast a version is where the machine is busy: only what sleeps is slow here.
        limits = ProbationLimits(seconds=seconds, events=3, min_latency_us=15_000.0)
        self.reloader = Reloader(
            self.engine, catalog, ReloadSettings(limits=limits), _probe, lambda _version: None
        )
        offer = catalog.strategy(PLUGIN)
        proxy = proxy_class(offer.cls)(decode_params(offer, {}, instance="q"), desk.workers.item)
        Worker(self.engine, desk.workers, "q", proxy, offer, WorkerSettings(**PATIENT | settings))
        spec = InstanceSpec(
            name="q", account=ACCOUNT, symbols=(BTC,), plugin=offer.name, digest=offer.version.digest,
            params_json=msgspec.json.encode(proxy.params), tolerance_bps=0.0,
        )  # fmt: skip
        self.instance = self.engine.roster.add(spec, proxy, (), desk.desk.feed.spawn)
        self.reloader.uses["q"] = StrategyUse(offer, {})
        self.reloader.note_running(offer.version)

    async def save(self, source: str) -> ReloadReport:
        self.file.write_text(source)

        async def take() -> Version:
            return capture(self.file)

        return await self.reloader.reload(PLUGIN, take)

    def pid(self) -> int:
        worker = self.desk.proxy().worker
        assert worker is not None and worker.process is not None
        return worker.process.pid

    async def until_state(self, digest: str, state: VersionState) -> None:
        await self.moves.until(digest, state, lambda: None)


async def _probe(_version: Version) -> None:
    return None


@asynccontextmanager
async def reloads(
    folder: Path, seconds: float = 0.0, *, source: str = QUOTER, starts: bool = True, **settings: Any
) -> AsyncIterator[Reloads]:
    async with worker_desk(folder) as desk:
        there = Reloads(desk, seconds, source, settings)
        if starts:
            there.engine.roster.start(there.instance)
            await desk.started()
        yield there


def test_a_new_version_goes_live_in_a_worker_of_its_own(tmp_path: Path) -> None:
    async def run() -> None:
        async with reloads(tmp_path) as there:
            desk = there.desk
            await desk.top_and_quotes()
            first = there.pid()
            report = await there.save(WIDER)
            assert report.state is VersionState.ACTIVE, report.reason
            desk.desk.top(60_100.0, 60_100.1)
            await until(lambda: desk.rests_at(60_099.95, 60_100.15), "the new version quotes")
            assert there.pid() != first
            assert there.instance.state is InstanceState.RUNNING

    asyncio.run(run())


@pytest.mark.parametrize(
    ("source", "stage", "why"),
    [
        (RAISES, Stage.WARM_UP, "on_book raised ValueError: no"),
        (FAR_SLOWER, Stage.WARM_UP, "instance q: its callbacks take "),
        (DOES_NOT_START, Stage.WARM_UP, "on_start raised ValueError: no start"),
        (OTHER_PARAMS, Stage.VALIDATE, "width"),
        (RENAMED, Stage.RESTORE, "quoter"),
    ],
    ids=["raises", "far slower", "does not start", "other params", "renamed"],
)
def test_a_version_that_cannot_take_over_leaves_the_running_worker_alone(
    tmp_path: Path, source: str, stage: Stage, why: str
) -> None:
    async def run() -> None:
        async with reloads(tmp_path) as there:
            desk = there.desk
            await desk.top_and_quotes()
            for bid in (60_010.0, 60_020.0):
                await desk.top_and_quotes(bid, bid + 0.1)
            first = there.pid()
            report = await there.save(source)
            assert report.state is VersionState.REFUSED
            assert report.stages[-1].stage is stage
            assert why in report.reason
            await desk.top_and_quotes(60_200.0, 60_200.1)
            assert there.pid() == first

    asyncio.run(run())


def test_a_version_that_hangs_in_rehearsal_is_refused_with_the_line(tmp_path: Path) -> None:
    source = QUOTER.replace("p = self.params", "while True: pass")
    line = next(n for n, text in enumerate(source.splitlines(), 1) if "while True: pass" in text)

    async def run() -> None:
        async with reloads(tmp_path, deadline_ns=4_000_000_000) as there:
            await there.desk.top_and_quotes()
            first = there.pid()
            report = await there.save(source)
            assert report.state is VersionState.REFUSED
            assert "it handled nothing for " in report.reason
            assert "the limit is 4000 ms; it is in File " in report.reason
            assert report.reason.endswith(f", line {line} in on_book")
            assert there.pid() == first

    asyncio.run(run())


def test_a_fill_is_heard_once_over_a_reload_and_saved_with_the_version_that_earned_its_place(
    tmp_path: Path,
) -> None:
    async def run() -> None:
        async with reloads(tmp_path, seconds=1.0) as there:
            desk = there.desk
            await desk.top_and_quotes()
            desk.desk.venue.trade(desk.open()[0], "1")
            desk.desk.settle()
            await until(lambda: desk.saved()["fills"] == 1, "the first is saved")
            report = await there.save(SECOND_STATE)
            assert report.state is VersionState.ACTIVE, report.reason
            desk.desk.top(60_100.0, 60_100.1)
            await until(lambda: desk.rests_at(60_099.95, 60_100.15), "the new version quotes")
            desk.desk.venue.trade(desk.open()[0], "1")
            desk.desk.settle()
            await desk.handled()
            # On probation the journal keeps what the version before needs: its state, and what it has not heard.
            assert desk.saved()["fills"] == 1
            assert desk.unheard() > 0
            for bid in (60_101.0, 60_102.0, 60_103.0, 60_104.0):
                desk.desk.top(bid, bid + 0.1)
                await desk.handled()
            await there.until_state(report.digest, VersionState.PERMANENT)
            assert desk.saved()["fills"] == 2
            assert desk.saved()["more"] == 8
            assert len(set(desk.saved()["trades"])) == 2
            assert desk.unheard() == 0
            assert there.engine.state.instances["q"].state_version == 2

    asyncio.run(run())


def test_what_the_market_alone_changed_in_the_state_goes_with_the_instance(tmp_path: Path) -> None:
    """A worker sends such a state once a second: it is asked for it right before the swap."""

    async def run() -> None:
        async with reloads(tmp_path, seconds=60.0, source=COUNTER) as there:
            desk, before = there.desk, there.instance.strategy
            count = 0

            async def load() -> None:
                nonlocal count
                while there.instance.strategy is before:
                    count += 1
                    desk.desk.top(60_000.0 + count, 60_001.0 + count)
                    await asyncio.sleep(0.005)

            loading = asyncio.ensure_future(load())
            report = await there.save(COUNTER + "\n")
            assert report.state is VersionState.ACTIVE, report.reason
            await loading
            # One may have come in the moment between the answer and the swap.
            assert desk.saved()["books"] in (count - 1, count)

    asyncio.run(run())


def test_a_reload_does_not_wait_for_the_state_of_one_that_hangs(tmp_path: Path) -> None:
    async def run() -> None:
        async with reloads(tmp_path, seconds=60.0) as there:
            desk = there.desk
            await desk.top_and_quotes()
            os.kill(there.pid(), signal.SIGSTOP)
            desk.desk.top(60_010.0, 60_010.1)
            report = await there.save(WIDER)
            assert report.state is VersionState.ACTIVE, report.reason
            desk.desk.top(60_100.0, 60_100.1)
            await until(lambda: desk.rests_at(60_099.95, 60_100.15), "the new version quotes")

    asyncio.run(run())


def test_a_version_that_raises_on_probation_is_taken_back_and_the_one_before_hears_all(
    tmp_path: Path,
) -> None:
    async def run() -> None:
        async with reloads(tmp_path, seconds=60.0) as there:
            desk = there.desk
            await desk.top_and_quotes()
            report = await there.save(RAISES_HIGH)
            assert report.state is VersionState.ACTIVE, report.reason
            desk.desk.top(60_100.0, 60_100.1)
            await until(lambda: desk.rests_at(60_099.95, 60_100.15), "the new version quotes")
            desk.desk.venue.trade(desk.open()[0], "1")
            desk.desk.settle()
            desk.desk.top(70_001.0, 70_001.1)
            await until(
                lambda: there.moves.of(report.digest)[-1:] == [VersionState.ROLLED_BACK], "it is taken back"
            )
            assert there.instance.state is InstanceState.RUNNING
            await until(lambda: desk.proxy().session is not None, "a worker runs")
            await desk.started()
            desk.desk.top(60_300.0, 60_300.1)
            await until(lambda: desk.rests_at(60_299.98, 60_300.12), "the version before quotes")
            await until(lambda: desk.unheard() == 0, "it hears of everything")
            assert desk.saved()["fills"] == 1
            text = desk.alerts("rolled_back")[-1]
            assert "on_book raised ValueError: too high" in text

    asyncio.run(run())


def test_a_version_that_is_slow_on_probation_is_taken_back(tmp_path: Path) -> None:
    async def run() -> None:
        async with reloads(tmp_path, seconds=60.0) as there:
            desk = there.desk
            for bid in (60_000.0, 60_010.0, 60_020.0, 60_030.0):
                await desk.top_and_quotes(bid, bid + 0.1)
            report = await there.save(SLOW_HIGH)
            assert report.state is VersionState.ACTIVE, report.reason
            bid = 70_001.0

            def is_back() -> bool:
                nonlocal bid
                bid += 0.5
                desk.desk.top(bid, bid + 0.1)
                desk.desk.settle()
                return there.moves.of(report.digest)[-1:] == [VersionState.ROLLED_BACK]

            await until(is_back, "it is taken back")
            assert "its callbacks take " in desk.alerts("rolled_back")[-1]
            assert there.instance.state is InstanceState.RUNNING

    asyncio.run(run())


def test_a_worker_that_dies_on_probation_takes_its_version_back(tmp_path: Path) -> None:
    async def run() -> None:
        async with reloads(tmp_path, seconds=60.0) as there:
            desk = there.desk
            await desk.top_and_quotes()
            report = await there.save(WIDER)
            desk.desk.top(60_100.0, 60_100.1)
            await until(lambda: desk.rests_at(60_099.95, 60_100.15), "the new version quotes")
            os.kill(there.pid(), signal.SIGKILL)
            await until(
                lambda: there.moves.of(report.digest)[-1:] == [VersionState.ROLLED_BACK], "it is taken back"
            )
            await desk.started()
            desk.desk.top(60_300.0, 60_300.1)
            await until(lambda: desk.rests_at(60_299.98, 60_300.12), "the version before quotes")
            assert "its worker was lost: it was ended by SIGKILL" in desk.alerts("rolled_back")[-1]

    asyncio.run(run())


def test_a_version_can_be_proved_before_any_worker_ran(tmp_path: Path) -> None:
    async def run() -> None:
        async with reloads(tmp_path, starts=False) as there:
            report = await there.save(WIDER)
            assert report.state is VersionState.ACTIVE, report.reason
            there.engine.roster.start(there.instance)
            await there.desk.started()
            there.desk.desk.top(60_100.0, 60_100.1)
            await until(lambda: there.desk.rests_at(60_099.95, 60_100.15), "the new version quotes")

    asyncio.run(run())


def test_a_rehearsal_hears_what_the_instance_would(tmp_path: Path) -> None:
    async def run() -> None:
        async with reloads(tmp_path) as there:
            await there.desk.top_and_quotes()
            there.instance.hears_market = False
            of_before = Candle(BTC, 0, 60_000_000_000, 1.0, 1.0, 1.0, 1.0, 1.0, 1)
            there.engine.feeds[ACCOUNT].history.add(OwnEvent("q", of_before, 1))
            report = await there.save(
                RAISES + "\n    candle_seconds = 7\n\n    def on_candle(self, candle): 1 / 0\n"
            )
            assert report.state is VersionState.ACTIVE, report.reason

    asyncio.run(run())


def test_a_node_that_closes_in_a_warm_up_leaves_no_process(tmp_path: Path) -> None:
    async def run() -> None:
        async with reloads(tmp_path) as there:
            reloading = asyncio.ensure_future(there.save(HANGS_AT_START))
            await until(lambda: len(there.desk.workers.seats) == 2, "the old one, and one in rehearsal")
            await until(lambda: all(seat.process for seat in there.desk.workers.seats), "they run")
            there.desk.workers.close()
            assert children() == []
            reloading.cancel()
            await asyncio.wait([reloading])

    asyncio.run(run())


def test_reloads_under_load_lose_and_double_nothing(tmp_path: Path) -> None:
    """`TANDEM_WORKER_RELOADS` says how many reloads, some of which are taken back."""

    async def run() -> None:
        chance = random.Random(7)
        async with reloads(tmp_path, seconds=5.0, source=CHAINED) as there:
            desk = there.desk
            venue = desk.desk.venue
            bid = 60_000.0
            traded = 0
            poison = 0.0
            step_s = 0.05
            await desk.top_and_quotes()

            async def load() -> None:
                nonlocal bid, traded
                while True:
                    bid = round(bid + chance.choice((-0.5, 0.5)), 2)
                    desk.desk.top(bid + poison, bid + poison + 0.1)
                    desk.desk.settle()
                    resting = desk.desk.venue.open()
                    if resting and chance.random() < 0.5:
                        order = chance.choice(resting)
                        venue.trade(order, str(order.qty - order.filled))
                        traded += 1
                        desk.desk.settle()
                    desk.desk.advance(step_s)
                    await asyncio.sleep(0.002)

            loading = asyncio.ensure_future(load())
            try:
                for number in range(ROUNDS):
                    is_bad = number % 3 == 2
                    # The probation of a bad one must not be over before its worker has come to a bad price.
                    step_s = 0.0001 if is_bad else 0.05
                    source = CHAINED.replace("away: float = 0.02", f"away: float = {0.03 + number / 1000}")
                    if is_bad:
                        source = source.replace("p = self.params", f"p = self.params\n        {POISONED}")
                    report = await there.save(source)
                    assert report.state is VersionState.ACTIVE, report.reason
                    poison = 0.25 if is_bad else 0.0
                    wanted = VersionState.ROLLED_BACK if is_bad else VersionState.PERMANENT
                    await until(
                        lambda d=report.digest, w=wanted: there.moves.of(d)[-1:] == [w],
                        f"reload {number} ends",
                    )
                    poison, step_s = 0.0, 0.05
                    there.reloader.set_auto(PLUGIN, True, "the test goes on")
            finally:
                loading.cancel()
            await until(lambda: desk.proxy().session is not None, "a worker runs")
            await desk.started()
            await until(lambda: desk.unheard() == 0, "everything is heard")
            saved = desk.saved()
            assert traded > ROUNDS
            trades = [fill.trade_id for fill in venue.fills]
            assert len(trades) == traded
            assert (saved["fills"], saved["chain"]) == (traded, chain_of(trades)), "each fill once, in order"
            position = there.engine.state.position("q", BTC)
            assert str(position.qty) == saved["traded"] or float(position.qty) == float(saved["traded"])

    asyncio.run(run())


def test_one_that_writes_much_is_rehearsed(tmp_path: Path) -> None:
    """Its output is read: a pipe holds 64 KiB, and who writes more waits for a reader."""
    writes = "print('x' * 5_000); p = self.params"

    async def run() -> None:
        async with reloads(tmp_path, source=QUOTER.replace("p = self.params", writes)) as there:
            for step in range(40):
                there.desk.desk.top(60_000.0 + step, 60_000.1 + step)
                await there.desk.handled()
            report = await there.save(WIDER.replace("p = self.params", writes))
            assert report.state is VersionState.ACTIVE, report.reason
            detail = next(result.detail for result in report.stages if result.stage is Stage.WARM_UP)
            assert "intents differ" in detail

    asyncio.run(run())


def test_one_that_stands_by_when_the_workers_end_is_refused(tmp_path: Path) -> None:
    async def run() -> None:
        async with reloads(tmp_path) as there:
            saving = asyncio.create_task(there.save(WIDER))
            await until(lambda: len(there.desk.workers.running) == 2, "the new one's worker starts")
            there.desk.workers.close()
            await until(saving.done, "the reload ends")
            report = saving.result()
            assert report.state is VersionState.REFUSED
            assert report.reason == "instance q: its worker was ended"

    asyncio.run(run())


def test_nothing_is_left_of_a_version_whose_instance_is_removed_meanwhile(tmp_path: Path) -> None:
    async def run() -> None:
        async with reloads(tmp_path) as there:
            roster = there.engine.roster
            saving = asyncio.create_task(there.save(WIDER))
            await until(lambda: len(there.desk.workers.running) == 2, "the new one's worker starts")
            with turn(there.engine) as now_ns:
                roster.stop(there.instance, "removed")
                there.reloader.forget(there.instance, now_ns)
                roster.remove(there.instance)
            await until(saving.done, "the reload ends")
            report = saving.result()
            assert (report.state, report.reason) == (VersionState.PERMANENT, "nothing runs it")
            await until(lambda: not children(), "no process is left")

    asyncio.run(run())
