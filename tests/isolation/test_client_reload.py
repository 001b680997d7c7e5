"""An edit of the plugin that stands for a program of its own changes what that program is told, and not the program."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
from attached_tools import ClientDesk, Running, client_desk, running
from desk_tools import ACCOUNT, BTC
from isolation_tools import QUOTER, until

from host.api import Strategy
from host.config import ClientSection
from host.core.entries import InstanceState, VersionState
from host.isolation.attached import Attached
from host.isolation.door import door_of
from host.isolation.proxy import Proxy, proxy_class
from host.isolation.settings import WorkerSettings
from host.loader import Catalog, Version, capture, decode_params, import_version
from host.runtime.reload import Reloader, ReloadReport, ReloadSettings, Stage, StrategyUse
from host.runtime.reload.probation import ProbationLimits
from host.runtime.roster import InstanceSpec

PLUGIN = "quoter"
FIELD = "away: float = 0.02"
WIDER = QUOTER.replace(FIELD, "away: float = 0.05")
ONE_MORE = QUOTER.replace(FIELD, f"{FIELD}\n    extra: int = 7")
CANDLES = QUOTER.replace(
    "def on_start", "candle_seconds = 7\n\n    def on_candle(self, candle): pass\n\n    def on_start"
)

RENAMED = QUOTER.replace("class Quoter(", "class Other(") + "\n\nclass Another(Other):\n    pass\n"


class ClientReloads:
    """A desk with one instance that clients run, the file of its plugin, and what reloads that."""

    def __init__(self, desk: ClientDesk, params: dict[str, object]) -> None:
        self.desk, self.engine = desk, desk.desk.engine
        self.file = desk.folder / "plugins" / f"{PLUGIN}.py"
        self.file.parent.mkdir()
        self.file.write_text(QUOTER)
        catalog = Catalog.load([self.file.parent], entry_points=False)
        settings = ReloadSettings(limits=ProbationLimits(seconds=1.0, events=3))
        self.reloader = Reloader(self.engine, catalog, settings, _no_probe, lambda _version: None)
        offer = catalog.strategy(PLUGIN)
        proxy = proxy_class(offer.cls)(decode_params(offer, params, instance="q"), desk.workers.item)
        door = door_of(desk.folder / "clients", "q", ClientSection(), lambda _: None)
        Attached(self.engine, desk.workers, "q", proxy, door, WorkerSettings(deadline_ns=10**15))
        spec = InstanceSpec(
            name="q", account=ACCOUNT, symbols=(BTC,), plugin=offer.name, digest=offer.version.digest,
            params_json=msgspec.json.encode(proxy.params), tolerance_bps=0.0,
        )  # fmt: skip
        self.instance = self.engine.roster.add(spec, proxy, (), desk.desk.feed.spawn)
        self.reloader.uses["q"] = StrategyUse(offer, params)
        self.reloader.note_running(offer.version)
        self.engine.roster.start(self.instance)

    async def save(self, source: str) -> ReloadReport:
        self.file.write_text(source)

        async def take() -> Version:
            return capture(self.file)

        return await self.reloader.reload(PLUGIN, take)

    async def attach(self, source: str = QUOTER) -> Running:
        """Have a program run the class of a source, which it has a copy of."""
        path = self.desk.folder / "program" / "theirs.py"
        path.parent.mkdir(exist_ok=True)
        path.write_text(source)
        program = running(self.desk.client(), strategy_of(path))
        await self.desk.attached_to()
        return program

    def proxy(self) -> Proxy:
        return self.desk.proxy()

    async def quotes(self, away: float, bid: float) -> None:
        """Show a best bid and ask, and wait until the program's orders rest so far away."""
        self.desk.desk.top(bid, bid + 0.1)
        await until(lambda: self.desk.rests_at(bid - away, bid + 0.1 + away), f"quotes {away} away")


def strategy_of(path: Path) -> type[Strategy[Any]]:
    cls: type[Strategy[Any]] = import_version(capture(path)).Quoter
    return cls


async def _no_probe(_version: Version) -> None:
    return None


@asynccontextmanager
async def reloads(folder: Path, params: dict[str, object] | None = None) -> AsyncIterator[ClientReloads]:
    async with client_desk(folder) as desk:
        yield ClientReloads(desk, params or {})


def test_whoever_is_attached_is_told_the_new_parameters_and_again_those_of_before(tmp_path: Path) -> None:
    async def run() -> None:
        async with reloads(tmp_path) as there:
            program = await there.attach()
            await there.quotes(0.02, 60_000.0)
            session = there.proxy().session
            report = await there.save(WIDER)
            assert report.state is VersionState.ACTIVE, report.reason
            await there.desk.handled()
            await there.quotes(0.05, 60_100.0)
            assert there.reloader.roll_back(PLUGIN, "said the operator")
            await there.desk.handled()
            await there.quotes(0.02, 60_200.0)
            assert there.proxy().session is session
            assert not there.desk.alerts("client_gone")
            await program.stop()

    asyncio.run(run())


def test_a_program_that_does_not_know_a_parameter_is_told_it_when_it_attaches_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def run() -> None:
        async with reloads(tmp_path) as there:
            old = await there.attach()
            await there.quotes(0.02, 60_000.0)
            report = await there.save(ONE_MORE.replace("away: float = 0.02", "away: float = 0.05"))
            assert report.state is VersionState.ACTIVE, report.reason
            await there.desk.handled()
            await there.quotes(0.02, 60_100.0)
            assert "cannot read them: Object contains unknown field `extra`" in caplog.text
            there.instance.set_params(
                there.reloader.in_use.params("q")
            )  # nor is a later change too much for it
            await there.desk.handled()
            await there.quotes(0.02, 60_200.0)
            await old.stop()
            await until(lambda: there.desk.alerts("client_gone"), "it said bye")
            new = await there.attach(ONE_MORE.replace("p.away", "p.extra / 100"))
            await there.quotes(0.07, 60_300.0)
            params = there.proxy().params
            there.instance.set_params(msgspec.structs.replace(params, extra=9))
            await there.desk.handled()
            await there.quotes(0.09, 60_400.0)
            assert there.instance.state is InstanceState.RUNNING
            await new.stop()

    asyncio.run(run())


@pytest.mark.parametrize(
    ("source", "stage", "why"),
    [
        (QUOTER.replace("away", "width"), Stage.RESTORE, 'instance "q": params.away is not a parameter'),
        (QUOTER.replace(FIELD, "away: int = 1"), Stage.RESTORE, "params.away must be of type int"),
        (RENAMED, Stage.RESTORE, "quoter"),
    ],
    ids=["unknown parameter", "other type", "renamed"],
)  # fmt: skip
def test_a_class_that_cannot_stand_for_the_instance_is_refused_and_nobody_notices(
    tmp_path: Path, source: str, stage: Stage, why: str
) -> None:
    async def run() -> None:
        async with reloads(tmp_path, {"away": 0.5}) as there:
            program = await there.attach()
            await there.quotes(0.5, 60_000.0)
            before = there.proxy()
            report = await there.save(source)
            assert report.state is VersionState.REFUSED
            assert report.stages[-1].stage is stage
            assert why in report.reason
            assert there.proxy() is before
            await there.quotes(0.5, 60_100.0)
            await program.stop()

    asyncio.run(run())


def test_it_hears_of_what_the_new_class_hears(tmp_path: Path) -> None:
    async def run() -> None:
        async with reloads(tmp_path) as there:
            assert not there.instance.candle_makers
            report = await there.save(CANDLES)
            assert report.state is VersionState.ACTIVE, report.reason
            (maker,) = there.instance.candle_makers.values()
            assert maker.interval_ns == 7_000_000_000
            program = await there.attach(CANDLES)
            session = there.proxy().session
            assert session is not None
            assert "Candle" in {kind.__name__ for kind in session._wanted}
            await program.stop()

    asyncio.run(run())


def test_it_is_permanent_after_its_time_whether_or_not_anybody_is_attached(tmp_path: Path) -> None:
    async def run() -> None:
        async with reloads(tmp_path) as there:
            report = await there.save(WIDER)
            there.desk.desk.advance(1.5)
            record = there.engine.state.plugin(PLUGIN)
            assert record.permanent == report.digest
            second = await there.save(ONE_MORE)
            assert second.state is VersionState.ACTIVE
            program = await there.attach(ONE_MORE)
            await there.quotes(0.02, 60_000.0)
            await program.stop()

    asyncio.run(run())


def test_one_in_quarantine_may_come_again(tmp_path: Path) -> None:
    async def run() -> None:
        async with reloads(tmp_path) as there:
            roster = there.engine.roster
            there.engine.begin_turn(there.engine.clock.now_ns())
            roster.put_in_quarantine(there.instance, "its program raised")
            there.engine.end_turn(there.engine.now_ns, 0)
            await there.save(WIDER)
            assert there.instance.state is InstanceState.RUNNING
            program = await there.attach()
            await there.quotes(0.05, 60_000.0)
            await program.stop()

    asyncio.run(run())
