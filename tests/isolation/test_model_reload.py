"""A quote model in a worker goes from one version to another beside the quotes, and back when it misbehaves."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from desk_tools import Quoter
from isolation_tools import Moves, WorkerDesk, children, is_alive, until, worker_desk

from host.core.entries import VersionState
from host.isolation.remote_model import ModelInWorker
from host.isolation.settings import WorkerSettings
from host.loader import Catalog, Version, capture
from host.runtime.reload import ModelUse, Reloader, ReloadReport, ReloadSettings, Stage
from host.runtime.reload.probation import ProbationLimits
from host.runtime.turn import turn

PLUGIN = "shifter"
MS = 1_000_000
PATIENT: dict[str, Any] = {"deadline_ns": 30_000 * MS, "backoff_ns": MS}
SHIFTER = '''
import os
from host.api import Adjustment, AsyncQuoteModel, Features, Params, Quote, QuoteModel


class ShifterParams(Params, frozen=True):
    scale: float = 1.0


class Shifter(AsyncQuoteModel[ShifterParams]):
    """Shifts every quote by as much; its answers hold, however busy the machine is."""

    valid_ms = 60_000.0

    def on_start(self) -> None:
        pass

    async def predict(self, features: Features) -> Adjustment:
        high = features.spread_bps > 100
        return Adjustment(shift_bps=self.params.scale * -100.0)
'''
OTHER = SHIFTER.replace("-100.0", "-50.0")
PLAIN = '''
from host.api import Adjustment, Features, NoParams, Quote, QuoteModel


class Shifter(QuoteModel[NoParams]):
    """Shifts every quote by another distance."""

    def adjust(self, features: Features, quote: Quote) -> Adjustment:
        return Adjustment(shift_bps=-(quote.bid % 7))
'''
WHERE = "high = features.spread_bps > 100"


def when_high(source: str, code: str) -> str:
    """Return a model that runs `code` once the spread is wide."""
    return source.replace(WHERE, f"{WHERE}\n        if high: {code}")


class ModelReloads:
    """A desk with one instance, whose quotes pass a model in a worker, and what reloads that."""

    def __init__(self, desk: WorkerDesk, source: str, seconds: float, **settings: Any) -> None:
        self.desk, self.engine = desk, desk.desk.engine
        self.moves = Moves(desk)
        self.file = desk.folder / "plugins" / f"{PLUGIN}.py"
        self.file.parent.mkdir()
        self.file.write_text(source)
        catalog = Catalog.load([self.file.parent], entry_points=False)
        limits = ProbationLimits(seconds=seconds, events=3)
        self.reloader = Reloader(
            self.engine, catalog, ReloadSettings(limits=limits), _no_probe, lambda _version: None
        )
        offer = catalog.model(PLUGIN)
        params = {"scale": 1.0} if "ShifterParams" in source else {}
        model = ModelInWorker.of(
            self.engine, desk.workers, "q", offer, params, WorkerSettings(**PATIENT | settings)
        )
        self.instance = desk.desk.run("q", Quoter(), models=[(PLUGIN, model)])
        self.reloader.model_uses["q"] = (ModelUse(offer, params, "process"),)
        self.reloader.note_running(offer.version)

    @property
    def model(self) -> ModelInWorker:
        (stage,) = self.instance.models
        assert isinstance(stage.model, ModelInWorker)
        return stage.model

    async def save(self, source: str) -> ReloadReport:
        self.file.write_text(source)

        async def take() -> Version:
            return capture(self.file)

        return await self.reloader.reload(PLUGIN, take)

    def best_bid(self, spread: float = 0.1, bid: float = 60_000.0) -> float:
        """Show a best bid and ask, and return where our bid rests by then."""
        self.desk.desk.top(bid, bid + spread)
        bids = [float(order.price or 0) for order in self.desk.open() if order.side == "buy"]
        return max(bids, default=0.0)

    async def shows(self, shift_bps: float, what: str) -> None:
        wanted = 59_999.98 * (1 + shift_bps / 1e4)
        await until(lambda: abs(self.best_bid() - wanted) < 0.02, what)

    async def until_state(self, digest: str, state: VersionState, spread: float = 0.1) -> None:
        await self.moves.until(digest, state, lambda: self.best_bid(spread))


async def _no_probe(_version: Version) -> None:
    return None


@asynccontextmanager
async def reloads(
    folder: Path, source: str = SHIFTER, seconds: float = 60.0, **settings: Any
) -> AsyncIterator[ModelReloads]:
    async with worker_desk(folder) as desk:
        there = ModelReloads(desk, source, seconds, **settings)
        await until(lambda: there.best_bid() != 59_999.98, "the first version answers")
        yield there
    assert children() == []


def detail(report: ReloadReport, stage: Stage) -> str:
    (result,) = (result for result in report.stages if result.stage is stage)
    return result.detail


def test_a_new_version_answers_from_a_worker_of_its_own_and_the_old_one_ends_with_its_trial(
    tmp_path: Path,
) -> None:
    async def run() -> None:
        async with reloads(tmp_path, seconds=1.0) as there:
            first = there.model.pid
            skipped = there.instance.models[0].skipped
            report = await there.save(OTHER)
            assert report.state is VersionState.ACTIVE, report.reason
            # Its answer in the warm-up is what it goes live with.
            assert there.best_bid() == pytest.approx(59_699.98, abs=0.02)
            assert there.instance.models[0].skipped == skipped
            assert set(children()) == {first, there.model.pid}
            assert "prices differ by 50." in detail(report, Stage.WARM_UP)
            assert detail(report, Stage.RESTORE) == "q: model shifter runs in a worker of its own"
            await there.until_state(report.digest, VersionState.PERMANENT)
            await until(lambda: children() == [there.model.pid], "the old one's process ends")
            assert not there.desk.alerts("worker_lost")

    asyncio.run(run())


def test_each_question_is_compared_with_its_own_answer(tmp_path: Path) -> None:
    async def run() -> None:
        async with reloads(tmp_path, PLAIN) as there:
            for step in range(1, 20):
                asked = there.model.asked
                there.best_bid(bid=60_000.0 + step)
                await until(lambda n=asked: there.model.asked > n or there.best_bid(bid=60_100.0), "asked")
            report = await there.save(PLAIN + "# the same\n")
            assert report.state is VersionState.ACTIVE, report.reason
            assert "prices as the version that runs" in detail(report, Stage.WARM_UP)

    asyncio.run(run())


@pytest.mark.parametrize(
    ("source", "settings", "why"),
    [
        (SHIFTER.replace(WHERE, "1 / 0"), {}, "predict raised ZeroDivisionError: division by zero ("),
        (SHIFTER.replace("-100.0", "float('nan')"), {}, "its answer makes no quote: Adjustment("),
        (SHIFTER.replace("pass", "raise OSError('no file')"), {}, "on_start raised OSError: no file ("),
        (SHIFTER.replace(WHERE, "os._exit(7)"), {}, "it exited with code 7"),
        (
            SHIFTER.replace(WHERE, "while True: pass"),
            {"deadline_ns": 400 * MS, "crashes": 100},
            "it has not answered for ",
        ),
        (
            SHIFTER.replace("valid_ms = 60_000.0", "valid_ms = 0.000001"),
            {},
            "its answers hold for 1e-06 ms, but one took longer",
        ),
    ],
    ids=["raises", "nonsense", "does not start", "exits", "hangs", "is late"],
)
def test_bad_one_is_refused(tmp_path: Path, source: str, settings: dict[str, Any], why: str) -> None:
    async def run() -> None:
        async with reloads(tmp_path, **settings) as there:
            model = there.model
            report = await there.save(source)
            assert report.state is VersionState.REFUSED
            assert report.stages[-1].stage is Stage.WARM_UP
            assert f"instance q: model shifter: {why}" in report.reason
            await there.shows(-100.0, "the version that runs answers")
            assert there.model is model
            await until(lambda: children() == [model.pid], "nothing is left of the new one")

    asyncio.run(run())


@pytest.mark.parametrize(
    ("code", "why"),
    [
        ("raise ValueError('too wide')", "questions: predict raised ValueError: too wide"),
        ("return Adjustment(shift_bps=float('inf'))", "questions: its answer makes no quote"),
        ("os._exit(7)", "its worker was lost: it exited with code 7"),
    ],
    ids=["raises", "nonsense", "is lost"],
)
def test_one_that_breaks_on_probation_is_taken_back(tmp_path: Path, code: str, why: str) -> None:
    async def run() -> None:
        async with reloads(tmp_path) as there:
            old = there.model
            first = old.pid
            report = await there.save(when_high(OTHER, code))
            assert report.state is VersionState.ACTIVE, report.reason
            await there.shows(-50.0, "the new version answers")
            new = there.model.pid
            await there.until_state(report.digest, VersionState.ROLLED_BACK, spread=5_000.0)
            assert there.model is old
            await there.shows(-100.0, "the old version answers")
            assert old.pid == first
            (alert,) = there.desk.alerts("rolled_back")
            assert "q: model shifter" in alert
            assert why in alert
            await until(lambda: not is_alive(new) and children() == [first], "the new one's process ends")

    asyncio.run(run())


def test_one_that_replaces_another_on_probation_goes_back_to_what_earned_its_place(tmp_path: Path) -> None:
    async def run() -> None:
        async with reloads(tmp_path) as there:
            old = there.model
            await there.save(OTHER)
            second = there.model.pid
            report = await there.save(SHIFTER.replace("-100.0", "-25.0"))
            assert report.state is VersionState.ACTIVE, report.reason
            await there.shows(-25.0, "the third version answers")
            await until(lambda: not is_alive(second), "the second one's process ends")
            assert there.reloader.roll_back(PLUGIN, "said the operator")
            assert there.model is old
            await there.shows(-100.0, "the first version answers")
            await until(lambda: children() == [old.pid], "one process is left")

    asyncio.run(run())


def test_one_that_is_proved_while_another_is_taken_back_goes_back_to_what_runs_by_then(
    tmp_path: Path,
) -> None:
    async def run() -> None:
        async with reloads(tmp_path) as there:
            first = there.model
            await there.save(OTHER)
            reloading = asyncio.ensure_future(there.save(SHIFTER.replace("-100.0", "-25.0")))
            await until(lambda: len(children()) == 3, "the third one is tried")
            assert there.reloader.roll_back(PLUGIN, "said the operator")
            report = await reloading
            assert report.state is VersionState.ACTIVE, report.reason
            await there.shows(-25.0, "the third version answers")
            assert there.reloader.roll_back(PLUGIN, "said the operator")
            assert there.model is first
            await there.shows(-100.0, "the first version answers")
            await until(lambda: children() == [first.pid], "one process is left")

    asyncio.run(run())


def test_one_that_waits_to_be_activated_has_no_process(tmp_path: Path) -> None:
    async def run() -> None:
        async with reloads(tmp_path) as there:
            old = there.model
            there.reloader.settings = ReloadSettings(mode="stage", limits=there.reloader.settings.limits)
            report = await there.save(OTHER)
            assert report.state is VersionState.STAGED, report.reason
            await until(lambda: children() == [old.pid], "nothing is left of the trial")
            await there.shows(-100.0, "the version that runs answers")
            report = await there.reloader.activate(PLUGIN, report.digest[:12])
            assert report.state is VersionState.ACTIVE, report.reason
            await there.shows(-50.0, "the new version answers")

    asyncio.run(run())


def test_nothing_is_left_of_an_instance_that_is_removed_on_probation(tmp_path: Path) -> None:
    async def run() -> None:
        async with reloads(tmp_path) as there:
            await there.save(OTHER)
            assert len(children()) == 2
            roster = there.engine.roster
            roster.stop(there.instance, "enough")
            there.desk.desk.settle()
            now_ns = there.engine.now_ns
            there.reloader.forget(there.instance, now_ns)
            roster.remove(there.instance)
            await until(lambda: children() == [], "no process is left")

    asyncio.run(run())


def test_one_that_is_lost_as_it_is_promoted_is_started_again(tmp_path: Path) -> None:
    async def run() -> None:
        async with reloads(tmp_path) as there:
            await there.save(when_high(OTHER, "os._exit(7)"))
            model = there.model
            await until(lambda: there.best_bid(spread=5_000.0) and model.failure, "it is lost")
            assert there.reloader.promote(PLUGIN)
            await until(lambda: model.pid and is_alive(model.pid), "another process runs it")
            asked = model.asked
            await until(lambda: there.best_bid() and model.asked > asked + 1, "it answers again")
            assert there.model is model

    asyncio.run(run())


def test_nothing_is_left_of_a_version_whose_instance_is_removed_meanwhile(tmp_path: Path) -> None:
    async def run() -> None:
        async with reloads(tmp_path) as there:
            roster = there.engine.roster
            saving = asyncio.create_task(there.save(OTHER))
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
