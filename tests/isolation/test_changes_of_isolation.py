"""Instances that an edit moves between this process, workers and programs of their own, and what a bad edit leaves."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
from config_tools import FIRST, ConfigDesk
from desk_tools import BTC
from isolation_tools import is_alive, until

from host.api import Strategy
from host.client.trading import TradingClient
from host.config.schema import InstanceSection
from host.core import entries as e
from host.core.entries import InstanceState
from host.isolation.proxy import Proxy
from host.isolation.workers import Workers
from host.loader import Version, capture, import_version
from host.runtime.turn import turn

KEEPER = """
import time
from decimal import Decimal
from host.api import BookTop, Fill, NoParams, Quote, State, Strategy

class Kept(State):
    seen: int = 0
    stops: int = 0
    last: float = 0.0

class Keeper(Strategy[NoParams]):
    state: Kept

    def on_book(self, book: BookTop) -> None:
        self.state.seen += book.bid != self.state.last
        self.state.last = book.bid
        self.quote(book.symbol, Quote(book.bid - 1, Decimal(1), book.ask + 1, Decimal(1)))

    def on_fill(self, fill: Fill) -> None:
        pass

    def on_stop(self) -> None:
        time.sleep(0.2)
        self.state.stops += 1
        AT_STOP
"""
KEPT = FIRST.replace('plugin = "maker"', 'plugin = "keeper"').replace("params = { away = 2.0 }\n", "")
IN_WORKER = KEPT + 'isolation = "process"\nworker = { deadline_ms = 30000, backoff_ms = 1 }\n'
IN_OTHER_WORKER = IN_WORKER.replace("30000", "40000")
BY_CLIENT = KEPT + 'isolation = "client"\nclient = { deadline_ms = 30000 }\n'


class MovingDesk(ConfigDesk):
    """A desk whose one instance an edit may move."""

    def save_keeper(self, at_stop: str = "pass", *, is_silent: bool = False) -> Version:
        path = self.maker_file.with_name("keeper.py")
        source = KEEPER.replace("        self.quote", "        print") if is_silent else KEEPER
        path.write_text(source.replace("AT_STOP", at_stop))
        return capture(path)

    @property
    def proxy(self) -> Proxy:
        strategy = self.instance().strategy
        assert isinstance(strategy, Proxy)
        return strategy

    async def at_work(self) -> None:
        """Wait until whoever runs the strategy elsewhere has handled its first event."""

        def has_handled() -> bool:
            session = self.proxy.session
            return session is not None and session.outlet is not None and session.outlet.handled > 0

        await until(has_handled, "it is at work")

    async def saved(self, **wanted: int) -> None:
        await until(lambda: wanted.items() <= self.state.items(), f"{wanted} is saved")

    @property
    def state(self) -> dict[str, Any]:
        """Return the strategy's state as a restart would find it."""
        data = self.engine.state.instances["mm"].strategy_state
        plain: dict[str, Any] = msgspec.msgpack.decode(data) if data else {}
        return {key: plain[key] for key in ("seen", "stops") if key in plain}

    async def until_over(self, worker: Any) -> None:
        await until(lambda: worker.is_over, "the one before has ended")


@asynccontextmanager
async def moving_desk(folder: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[MovingDesk]:
    monkeypatch.chdir(folder)
    desk = MovingDesk(folder, workers=Workers)
    assert desk.workers is not None
    try:
        yield desk
    finally:
        desk.workers.close()
        desk.journal.close()


@pytest.mark.parametrize("to", [KEPT, IN_OTHER_WORKER], ids=["inline", "in another worker"])
def test_what_the_market_alone_changed_in_the_state_goes_with_an_edit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, to: str
) -> None:
    async def run() -> None:
        async with moving_desk(tmp_path, monkeypatch) as desk:
            desk.reloader.catalog.add(desk.save_keeper(is_silent=True))
            assert not (await desk.edit(IN_WORKER)).problems
            await desk.at_work()
            for number in range(50):
                desk.tick(100.0 + number)
            assert not (await desk.edit(to)).problems
            assert desk.state["seen"] == 50

    asyncio.run(run())


# -- what a bad edit leaves ----------------------------------------------------------------------

MODELS = """models = [
    { name = "shift", isolation = "process" },
    { name = "shift", params = { starts = false } },
]
"""
TWO = """
[[instance]]
name = "two"
plugin = "maker"
account = "acc"
symbols = ["ETH-USDT"]
"""


@pytest.mark.parametrize(
    "text", [FIRST + MODELS, FIRST + TWO + MODELS], ids=["of one that runs", "of a new one"]
)
def test_model_that_was_started_ends_where_another_one_of_the_edit_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    async def run() -> None:
        async with moving_desk(tmp_path, monkeypatch) as desk:
            report = await desk.edit(text)
            assert "no model file" in report.problems[0].text
            assert desk.workers is not None
            assert not [one for one in desk.workers.running if one.is_wanted]
            assert not desk.workers.seats

    asyncio.run(run())


def test_model_that_was_started_ends_where_the_state_does_not_fit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def run() -> None:
        async with moving_desk(tmp_path, monkeypatch) as desk:
            path = desk.maker_file.with_name("strict.py")
            path.write_text(desk.maker_file.read_text().replace("books: int = 0", "books: str = ''"))
            desk.reloader.catalog.add(capture(path))
            desk.tick()
            models = 'models = [{ name = "shift", isolation = "process" }]\n'
            report = await desk.edit(FIRST.replace('"maker"', '"strict"') + models)
            assert "state" in report.problems[0].text
            assert desk.workers is not None
            assert not desk.workers.seats

    asyncio.run(run())


def test_door_that_cannot_be_made_is_told_and_the_next_edit_is_followed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def run() -> None:
        async with moving_desk(tmp_path, monkeypatch) as desk:
            (tmp_path / "clients" / "mm.curve.pub").mkdir(parents=True)
            (tmp_path / "clients").chmod(0o700)
            report = await desk.edit(
                FIRST + 'isolation = "client"\nclient = { listen = "tcp://127.0.0.1:7710", curve = true }\n'
            )
            assert "mm.curve.pub" in report.problems[0].text
            assert not (await desk.edit(FIRST.replace("2.0", "5.0"))).problems

    asyncio.run(run())


def test_instance_that_the_watchdog_moved_is_run_by_a_client_once_that_is_configured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def run() -> None:
        async with moving_desk(tmp_path, monkeypatch) as desk:
            digest = desk.engine.state.instances["mm"].digest
            with turn(desk.engine) as now_ns:
                desk.engine.record(e.InstanceIsolated("mm", digest, "it blocked"), now_ns)
            section = msgspec.structs.replace(desk.reconfigurer.config.instance[0], isolation="client")
            assert isinstance(section, InstanceSection)
            strategy = desk.maker.prepare(section).instance.strategy
            assert isinstance(strategy, Proxy)
            assert strategy.worker is None, "a program of its own is to run it"

    asyncio.run(run())


# -- the last word of who ran it before ----------------------------------------------------------


def test_last_word_of_a_worker_says_nothing_of_the_inline_instance_in_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def run() -> None:
        async with moving_desk(tmp_path, monkeypatch) as desk:
            desk.reloader.catalog.add(desk.save_keeper())
            assert not (await desk.edit(IN_WORKER)).problems
            await desk.at_work()
            desk.tick()
            await desk.saved(seen=1, stops=0)
            before = desk.proxy.worker
            assert not (await desk.edit(KEPT)).problems
            desk.tick(101.0)
            desk.tick(102.0)
            desk.advance(2)
            assert desk.state == {"seen": 3, "stops": 0}
            await desk.until_over(before)
            assert desk.state == {"seen": 3, "stops": 0}, "what runs is what a restart goes on from"

    asyncio.run(run())


def test_last_word_of_a_worker_says_nothing_of_what_ran_inline_since(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def run() -> None:
        async with moving_desk(tmp_path, monkeypatch) as desk:
            desk.reloader.catalog.add(desk.save_keeper())
            assert not (await desk.edit(IN_WORKER)).problems
            await desk.at_work()
            desk.tick()
            await desk.saved(seen=1, stops=0)
            assert not (await desk.edit(KEPT)).problems
            desk.tick(101.0)
            assert not (await desk.edit(IN_WORKER)).problems
            await desk.at_work()
            desk.tick(102.0)
            await desk.saved(seen=3, stops=1)

    asyncio.run(run())


def test_worker_goes_on_from_the_last_word_of_the_one_before_and_keeps_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def run() -> None:
        async with moving_desk(tmp_path, monkeypatch) as desk:
            desk.reloader.catalog.add(desk.save_keeper())
            assert not (await desk.edit(IN_WORKER)).problems
            await desk.at_work()
            desk.tick()
            await desk.saved(seen=1, stops=0)
            await until(lambda: desk.settle() or desk.venue.open(BTC), "it quotes")  # type: ignore[func-returns-value]
            [bid] = [order for order in desk.venue.open(BTC) if order.side == "buy"]
            assert not (await desk.edit(IN_OTHER_WORKER)).problems
            await desk.at_work()
            assert desk.state == {"seen": 1, "stops": 1}
            desk.venue.trade(bid, "1")  # before the cancel got there
            desk.settle()
            await until(lambda: not desk.engine.state.unheard.get("mm"), "it heard of the fill")
            assert desk.state == {"seen": 1, "stops": 1}, "a fill changes nothing of it"

    asyncio.run(run())


@pytest.mark.parametrize("after", [IN_WORKER, KEPT], ids=["worker", "inline"])
def test_program_that_raises_in_its_stop_does_not_take_down_who_runs_instead(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: str
) -> None:
    async def run() -> None:
        async with moving_desk(tmp_path, monkeypatch) as desk:
            version = desk.save_keeper("raise ValueError('at the end')")
            desk.reloader.catalog.add(version)
            assert not (await desk.edit(BY_CLIENT)).problems
            cls: type[Strategy[Any]] = import_version(version).Keeper
            client = TradingClient.of(tmp_path, "mm", answer_s=30.0)
            program = asyncio.ensure_future(asyncio.to_thread(client.run, cls))
            await desk.at_work()
            before = next(iter(desk.workers.running)) if desk.workers else None
            assert not (await desk.edit(after)).problems
            await desk.until_over(before)

            assert desk.state_of("mm") is not InstanceState.QUARANTINED
            assert desk.instance().state is InstanceState.RUNNING
            client.stop()
            await asyncio.gather(program, return_exceptions=True)

    asyncio.run(run())


def test_instance_whose_worker_raised_in_its_last_stop_starts_afresh_when_it_is_added_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def run() -> None:
        async with moving_desk(tmp_path, monkeypatch) as desk:
            desk.reloader.catalog.add(desk.save_keeper("raise ValueError('at the end')"))
            assert not (await desk.edit(IN_WORKER)).problems
            await desk.at_work()
            desk.tick()
            await until(lambda: len(desk.venue.open(BTC)) == 2, "it quotes")
            desk.settle()
            before = desk.proxy.worker
            desk.file.write_text(FIRST.partition("[[instance]]")[0])
            await desk.reconfigurer.look()
            await desk.until_over(before)  # and only then the venue answers the cancels
            desk.settle()
            desk.advance(1)
            assert not desk.engine.roster.instances
            assert not (await desk.edit(IN_WORKER)).problems
            await desk.at_work()

    asyncio.run(run())


@pytest.mark.parametrize("kind", ["worker", "client"])
def test_paused_instance_ends_with_its_node_and_nobody_is_missed_or_started_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    async def run() -> None:
        async with moving_desk(tmp_path, monkeypatch) as desk:
            version = desk.save_keeper()
            desk.reloader.catalog.add(version)
            assert not (await desk.edit(IN_WORKER if kind == "worker" else BY_CLIENT)).problems
            client = TradingClient.of(tmp_path, "mm", answer_s=30.0) if kind == "client" else None
            program = client and asyncio.ensure_future(
                asyncio.to_thread(client.run, import_version(version).Keeper)
            )
            try:
                await desk.at_work()
                assert desk.workers is not None
                [who] = desk.workers.running
                desk.engine.roster.pause(desk.instance(), "by hand")
                desk.engine.stop_trading("SIGTERM received")
                await desk.until_over(who)

                assert not desk.alerts("worker_lost") + desk.alerts("client_gone")
                assert desk.state["stops"] == 1
                assert desk.state_of("mm") is InstanceState.PAUSED, "as it is to be after the next start"
            finally:
                if client is not None and program is not None:
                    client.stop()
                    await asyncio.gather(program, return_exceptions=True)

    asyncio.run(run())


def test_worker_is_gone_once_its_instance_runs_inline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def run() -> None:
        async with moving_desk(tmp_path, monkeypatch) as desk:
            desk.reloader.catalog.add(desk.save_keeper())
            assert not (await desk.edit(IN_WORKER)).problems
            await desk.at_work()
            worker = desk.proxy.worker
            assert worker is not None and worker.process is not None
            pid = worker.process.pid
            assert not (await desk.edit(KEPT)).problems
            await until(lambda: not is_alive(pid), "its process has ended")

    asyncio.run(run())
