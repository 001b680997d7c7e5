"""What a node that trades does when its files change."""

import asyncio
import sys
import textwrap
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from host.assembly import Assembly
from host.config import ConfigSource, RunOptions
from host.core import entries as e
from host.core.entries import InstanceState
from host.core.state import TradingState
from host.journal import Journal, read
from host.loader import PluginRejected, archive, capture
from host.loading import known_of
from host.reloading import Reloading
from host.runtime.clock import LiveClock
from host.runtime.driver import LiveDriver
from host.runtime.engine import Engine, EngineSettings

PAPER = Path(__file__).parents[1] / "plugins" / "exchanges" / "paper.py"
MAKER = """
    from decimal import Decimal
    from host.api import BookTop, Params, Quote, Strategy

    class MakerParams(Params, frozen=True):
        away: float = 5.0

    class Maker(Strategy[MakerParams]):
        edition = EDITION

        def on_book(self, book: BookTop) -> None:
            self.quote(book.symbol, Quote.around(book.mid, self.params.away, Decimal("0.01")))
"""
HOOK = """
    from host.api import hookimpl

    @hookimpl
    def provide_strategies():
        return {"of_another_name": Maker}
"""
CONFIG = """
    [node]
    data_dir = "data"
    plugin_dirs = ["plugins"]
    journal_segment_kb = 64
    reload = "RELOAD"
    [store]
    url = ""
    [[account]]
    name = "paper"
    exchange = "paper"
    [[instance]]
    name = "mm"
    plugin = "maker"
    account = "paper"
    symbols = ["BTC-USDT"]
    params = { away = AWAY }
"""


class Files:
    """The configuration and the one plugin of a node."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "plugins").mkdir()

    def configure(self, reload: str, away: float = 5.0, exchange: str = "paper") -> None:
        text = CONFIG.replace("RELOAD", reload).replace("AWAY", str(away))
        text = text.replace('exchange = "paper"', f'exchange = "{exchange}"')
        self._put(self.folder / "tandem.toml", text)

    def own_venue(self, edition: int) -> None:
        """Save a copy of the bundled paper venue as the user's own plugin, and trade there."""
        text = PAPER.read_text()
        for old, new in (
            ('{"paper": Paper, "paper_remote": PaperRemote}', '{"mine": Paper}'),
            ("    _host: HostedExchange\n", f"    edition = {edition}\n    _host: HostedExchange\n"),
        ):
            assert old in text
            text = text.replace(old, new)
        self._put(self.folder / "plugins" / "mine.py", text)

    def save(self, edition: int) -> None:
        self._put(self.folder / "plugins" / "maker.py", MAKER.replace("EDITION", str(edition)))

    def _put(self, path: Path, text: str) -> None:
        beside = path.with_suffix(".new")
        beside.write_text(textwrap.dedent(text))
        beside.rename(path)


class Node:
    """What of a node sees to its files, on the simulated venue in real time."""

    def __init__(self, engine: Engine, reloading: Reloading) -> None:
        self.engine = engine
        self.reloading = reloading

    @property
    def strategy(self) -> Any:
        return self.engine.roster.instances["mm"].strategy

    async def until(self, is_so: Callable[[], bool]) -> None:
        """Wait for something; the test's own time limit ends a wait in vain."""
        while not is_so():
            await asyncio.sleep(0.005)


@asynccontextmanager
async def running(files: Files) -> AsyncIterator[Node]:
    source = ConfigSource(files.folder / "tandem.toml", None, {})
    config = source.load().config
    clock = LiveClock()
    journal = Journal.open(
        config.journal_dir, node="test", segment_bytes=config.node.journal_segment_kb << 10
    )
    engine = Engine(
        clock=clock,
        journal=journal,
        state=TradingState(),
        risk_config=config.risk.limits,
        settings=EngineSettings(snapshot_every=1_000_000),
    )
    engine.start_epoch("test", "main", 1, "test")
    reloading = await Reloading.load(config, engine, source)
    assembly = Assembly(config, RunOptions(), engine, lambda: reloading.catalog)
    await assembly.connect()
    await assembly.take_up()
    driver = LiveDriver(engine, clock, engine.stepped)
    await driver.run(lambda: engine.reconciler.is_ready("paper"))
    assembly.start_instances()
    reloading.start(assembly)
    driving = asyncio.ensure_future(driver.run(lambda: False))
    try:
        yield Node(engine, reloading)
    finally:
        driving.cancel()
        await asyncio.gather(driving, return_exceptions=True)
        await reloading.close()
        for feed in engine.feeds.values():
            await feed.close()
        journal.close()


def _moves(tmp_path: Path) -> list[e.InstanceChanged]:
    entries = [record.entry for record in read(tmp_path / "data" / "journal")]
    return [entry for entry in entries if isinstance(entry, e.InstanceChanged)]


def run(tmp_path: Path, monkeypatch: Any, story: Callable[[Files], Coroutine[Any, Any, None]]) -> Files:
    monkeypatch.chdir(tmp_path)
    files = Files(tmp_path)
    files.save(1)
    asyncio.run(story(files))
    return files


def test_reload_off_leaves_plugin_files_alone_and_follows_the_configuration(
    tmp_path: Path, monkeypatch: Any
) -> None:
    async def story(files: Files) -> None:
        files.configure("off")
        async with running(files) as node:
            files.save(2)
            files.configure("off", away=6.0)
            await node.until(lambda: node.strategy.params.away == 6.0)
            files.save(3)
            files.configure("off", away=7.0)
            await node.until(lambda: node.strategy.params.away == 7.0)

            assert node.strategy.edition == 1

            files.configure("auto", away=7.0)
            await node.until(lambda: node.strategy.edition == 3)
            files.save(4)
            await node.until(lambda: node.strategy.edition == 4)

    files = run(tmp_path, monkeypatch, story)

    entries = [record.entry for record in read(files.folder / "data" / "journal")]
    captured = [one for one in entries if isinstance(one, e.StageReported) and one.stage == "capture"]
    assert len(captured) == 2, "what was saved while it was off was never looked at"


def test_saved_adapter_takes_the_place_of_the_one_that_trades(tmp_path: Path, monkeypatch: Any) -> None:
    async def story(files: Files) -> None:
        files.own_venue(1)
        files.configure("auto", exchange="mine")
        async with running(files) as node:
            [feed] = node.engine.feeds.values()
            assert type(feed.adapter).edition == 1  # type: ignore[attr-defined]
            permanent = node.engine.state.plugin("mine").permanent
            assert permanent, "what restarts would come back to"
            files.own_venue(2)
            await node.until(lambda: getattr(type(feed.adapter), "edition") == 2)  # noqa: B009
            assert node.engine.state.plugin("mine").permanent == permanent, "on probation"
            events = node.engine.events
            await node.until(lambda: len(feed.links) == 1 and node.engine.events > events)

    run(tmp_path, monkeypatch, story)


@pytest.mark.parametrize("offer", ["other", "of_another_name"])
def test_skipped_instances_whose_plugin_is_mended_start_in_their_order(
    tmp_path: Path, monkeypatch: Any, offer: str
) -> None:
    async def story(files: Files) -> None:
        files.configure("auto")
        text = (tmp_path / "tandem.toml").read_text()
        instance = text[text.index("[[instance]]") :].replace('"maker"', f'"{offer}"')
        hedger = instance.replace('"mm"', '"hedger"') + 'after = ["quoter"]\non_dependency_lost = "keep"\n'
        (tmp_path / "tandem.toml").write_text(text + hedger + instance.replace('"mm"', '"quoter"'))
        other = tmp_path / "plugins" / "other.py"
        other.write_text("raise ValueError\n")
        async with running(files) as node:
            assert node.engine.roster.instances.keys() == {"mm"}
            hook = HOOK if offer != "other" else ""
            files._put(other, MAKER.replace("EDITION", "1") + hook)
            await node.until(lambda: "hedger" in node.engine.roster.instances)
            moves = [entry for entry in _moves(tmp_path) if entry.state is InstanceState.RUNNING]
            assert [entry.instance for entry in moves] == ["mm", "quoter", "hedger"]

    run(tmp_path, monkeypatch, story)


def test_version_that_would_end_the_node_is_refused_where_it_is_only_tried(
    tmp_path: Path, monkeypatch: Any
) -> None:
    async def story(files: Files) -> None:
        files.configure("auto")
        path = files.folder / "crash.py"
        path.write_text("import os\nos.kill(os.getpid(), 11)\n")
        async with running(files) as node:
            with pytest.raises(PluginRejected, match=r"crash\.py:2: killed its process with SIGSEGV"):
                await node.reloading.try_version(capture(path))

    run(tmp_path, monkeypatch, story)


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("def (", "validate: plugin maker: maker.py:1: syntax error"),
        (
            MAKER.replace("EDITION", "2").replace("away: float = 5.0", "away: bool = True"),
            'restore: plugin maker: maker.py:6: instance "mm": params.away must be of type bool',
        ),
    ],
)
def test_refused_version_is_logged_once_with_the_stage_and_the_reason(
    tmp_path: Path, monkeypatch: Any, caplog: pytest.LogCaptureFixture, code: str, said: str
) -> None:
    async def story(files: Files) -> None:
        files.configure("auto")
        async with running(files) as node:
            files._put(files.folder / "plugins" / "maker.py", code)
            await node.until(lambda: bool(node.engine.state.plugin("maker").refused))
            [digest] = node.engine.state.plugin("maker").refused
            await node.reloading.reload("maker")  # on an operator's word: a refusal of its own
            lines = [message for message in caplog.messages if said.partition(": ")[2] in message]
            assert len(lines) == 2
            assert all(
                line.startswith(f"reload_refused: plugin maker {digest[:12]}: {said}") for line in lines
            )

    caplog.set_level("INFO", "tandem")
    run(tmp_path, monkeypatch, story)
    assert {one.levelname for one in caplog.records if "reload_refused" in one.getMessage()} == {"WARNING"}


def test_version_that_went_live_is_known_to_the_next_start(tmp_path: Path, monkeypatch: Any) -> None:
    async def story(files: Files) -> None:
        files.configure("auto")
        async with running(files) as node:
            files.save(2)
            await node.until(lambda: node.strategy.edition == 2)
            digest = node.reloading.catalog.versions["maker"].digest
            assert digest in known_of(node.reloading.config).read()

    run(tmp_path, monkeypatch, story)


def test_versions_that_nobody_comes_back_to_are_not_kept_for_ever(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(archive, "VERSIONS_KEPT", 2)

    async def story(files: Files) -> None:
        files.configure("auto")
        async with running(files) as node:
            digests = [node.reloading.catalog.versions["maker"].digest]
            for edition in range(2, 7):
                files.save(edition)
                await node.until(lambda edition=edition: node.strategy.edition == edition)  # type: ignore[misc]
                digests.append(node.reloading.catalog.versions["maker"].digest)
            folder = tmp_path / "data" / "versions" / "maker"
            await node.until(lambda: len(list(folder.iterdir())) == 3)

            record = node.engine.state.plugins["maker"]
            assert (record.permanent, record.active) == (digests[0], digests[-1])
            assert {path.stem for path in folder.iterdir()} == {digests[0], *digests[-2:]}

    run(tmp_path, monkeypatch, story)


def test_threads_let_the_event_loop_go_on_soon_while_a_node_watches_its_files(
    tmp_path: Path, monkeypatch: Any
) -> None:
    before = sys.getswitchinterval()

    async def story(files: Files) -> None:
        files.configure("auto")
        async with running(files):
            assert sys.getswitchinterval() < before / 10

    run(tmp_path, monkeypatch, story)
    assert sys.getswitchinterval() == before
