"""Versions of plugins reach every standby: it runs what its primary runs, or says why it cannot."""

import asyncio
from pathlib import Path

import pytest

from host.core.entries import InstanceState
from host.loading import archive_of
from host.runtime.reload import ReloadReport
from tests.cell.cell_tools import Cell, Node

PLUGINS = Path(__file__).parent / "plugins"
INSTANCE = """
[[instance]]
name = "mm-btc"
plugin = "quoter"
account = "acc"
symbols = ["BTC-USDT"]
"""
QUOTER = """
from decimal import Decimal
from pathlib import Path

from host.api import BookTop, NoParams, Quote, Strategy


class Quoter(Strategy[NoParams]):
    version = {version}

    def on_book(self, book: BookTop) -> None:
        if self.version == 2 and Path("{folder}/broken").exists():
            raise RuntimeError("broken")
        self.quote(book.symbol, Quote.around(book.mid, 20.0, Decimal("0.01")))
"""
NOT_IN_A_NODE = """
import sys

if "host.member" in sys.modules:  # not in the child that tries it first
    raise RuntimeError("not here")
"""


def nodes(folder: Path) -> str:
    """Return what gives each node a plugin folder of its own, and makes versions permanent soon."""
    return (
        f'reload = "off"\nplugin_dirs = ["{PLUGINS}", "{folder}/plugins-@"]\nprobation_s = 0.05\nprobation_events = 1\n'
        "state_save_ms = 50"
    )


def save(folder: Path, name: str, version: int, more: str = "") -> None:
    """Save the plugin in a node's own folder."""
    path = folder / f"plugins-{name}" / "quoter.py"
    path.parent.mkdir(exist_ok=True)
    fresh = path.with_suffix(".new")
    fresh.write_text(QUOTER.format(version=version, folder=folder) + more)
    fresh.replace(path)


def permanent(node: Node) -> str:
    """Return the version that has earned its place, by what a node knows."""
    return node.member.engine.state.plugins["quoter"].permanent


def loaded(node: Node) -> str:
    """Return the version that a node has loaded; empty while it has loaded none."""
    trading = node.member.trading
    return "" if trading is None else trading.reloading.catalog.versions["quoter"].digest


async def change(cell: Cell, folder: Path, version: int, more: str = "") -> ReloadReport:
    """Save another version on node a, and have it reloaded."""
    save(folder, "a", version, more)
    trading = cell["a"].member.trading
    assert trading is not None
    return await trading.reloading.reload("quoter")


async def until_permanent(cell: Cell, than: str) -> str:
    """Wait until node a has another permanent version, and return it."""
    await cell.until(lambda: permanent(cell["a"]) not in ("", than), "a version to be permanent")
    return permanent(cell["a"])


def test_a_standby_changes_to_a_version_when_it_is_permanent_and_leads_with_it(tmp_path: Path) -> None:
    async def story() -> None:
        for name in "ab":
            save(tmp_path, name, 1)
        async with Cell.open(tmp_path, node=nodes(tmp_path), instances=INSTANCE) as cell:
            await cell.start()
            first = await until_permanent(cell, "")
            await change(cell, tmp_path, 2)
            second = await until_permanent(cell, first)
            await cell.until(lambda: loaded(cell["b"]) == second, "b to load it")
            await cell.until_ready("a", "b")
            await cell["a"].die(cell.lease)
            await cell.until_trading("b")
            instance = cell["b"].member.engine.roster.instances["mm-btc"]
            assert type(instance.strategy).version == 2  # type: ignore[attr-defined]
            assert archive_of(cell["b"].member.config).get("quoter", second).digest == second

    asyncio.run(story())


def test_a_version_that_goes_live_while_a_standby_gets_ready_reaches_it(tmp_path: Path) -> None:
    async def story() -> None:
        for name in "ab":
            save(tmp_path, name, 1)
        lingering = {"exchange": "paper_lingering", "params": f', folder = "{tmp_path}"'}
        async with Cell.open(tmp_path, node=nodes(tmp_path), instances=INSTANCE, **lingering) as cell:
            cell["a"].start()
            await cell.until_trading("a")
            first = await until_permanent(cell, "")
            (tmp_path / "coming").touch()
            cell["b"].start()
            await cell.until(
                lambda: bool(cell["a"].member.membership.standbys()) and loaded(cell["b"]) == first,
                "b to be attached, and not ready",
            )
            await change(cell, tmp_path, 2)
            second = await until_permanent(cell, first)
            assert not cell["a"].member.membership.has_successor()
            (tmp_path / "coming").unlink()
            await cell.until_ready("a", "b")
            assert loaded(cell["b"]) == second

    asyncio.run(story())


def test_a_version_that_a_standby_cannot_load_does_not_go_live(tmp_path: Path) -> None:
    async def story() -> None:
        for name in "ab":
            save(tmp_path, name, 1)
        async with Cell.open(tmp_path, node=nodes(tmp_path), instances=INSTANCE) as cell:
            await cell.start()
            first = await until_permanent(cell, "")
            report = await change(cell, tmp_path, 2, NOT_IN_A_NODE)
            assert "standby b could not take over with it" in report.reason and "not here" in report.reason
            assert permanent(cell["a"]) == loaded(cell["a"]) == loaded(cell["b"]) == first
            await cell.until_ready("a", "b")

    asyncio.run(story())


def test_a_version_that_was_damaged_on_a_standby_is_whole_once_it_follows_again(tmp_path: Path) -> None:
    async def story() -> None:
        for name in "ab":
            save(tmp_path, name, 1)
        async with Cell.open(tmp_path, node=nodes(tmp_path), instances=INSTANCE) as cell:
            await cell.start()
            first = await until_permanent(cell, "")
            await change(cell, tmp_path, 2)
            second = await until_permanent(cell, first)
            await cell.until(lambda: loaded(cell["b"]) == second, "b to load it")
            await cell["b"].stop()
            [kept] = (tmp_path / "b" / "versions").glob(f"quoter/{second}*")
            kept.write_bytes(kept.read_bytes()[:-1])
            cell["b"].start()
            await cell.until(lambda: loaded(cell["b"]) == second, "b to load it again")
            await cell.until_ready("a", "b")

    asyncio.run(story())


def test_a_standby_does_not_load_again_and_again_what_it_will_not_run(tmp_path: Path) -> None:
    """Its primary has quarantined what the permanent version runs, and its own files are an earlier one."""

    async def story() -> None:
        for name, version in (("a", 2), ("b", 1)):
            save(tmp_path, name, version)
        async with Cell.open(tmp_path, node=nodes(tmp_path), instances=INSTANCE) as cell:
            cell["a"].start()
            await cell.until_trading("a")
            second = await until_permanent(cell, "")
            (tmp_path / "broken").touch()
            instances = cell["a"].member.engine.state.instances
            await cell.until(
                lambda: instances["mm-btc"].state is InstanceState.QUARANTINED, "the instance to be given up"
            )
            cell["b"].start()
            archive = archive_of(cell["b"].member.config)
            await cell.until(lambda: archive.holds("quoter", second), "b to hold the version")
            await cell.until_ready("a", "b")
            trading = cell["b"].member.trading
            lsn = cell["a"].member.engine.journal.flushed_lsn
            cell["a"].member.alert("test", "an entry for b to take in")
            await cell.until(lambda: cell["b"].member.engine.state.lsn > lsn, "b to take it in")
            for _ in range(20):  # looks of the standby at what it has loaded
                await asyncio.sleep(0.02)
            assert cell["b"].member.trading is trading and loaded(cell["b"]) != second

    asyncio.run(story())


@pytest.mark.parametrize("fault", [RuntimeError("scripted"), OSError("scripted")])
def test_a_standby_answers_whatever_becomes_of_a_version(tmp_path: Path, fault: Exception) -> None:
    """Nobody waits for it until the time is up."""

    async def story() -> None:
        for name in "ab":
            save(tmp_path, name, 1)
        async with Cell.open(tmp_path, node=nodes(tmp_path), instances=INSTANCE) as cell:
            await cell.start()
            await until_permanent(cell, "")

            def take(*_: object) -> None:
                raise fault

            cell["b"].member.sharing._archive.take = take  # type: ignore[method-assign, assignment]
            report = await change(cell, tmp_path, 2)
            assert "standby b could not take over with it" in report.reason and "scripted" in report.reason

    asyncio.run(story())


def test_a_version_does_not_wait_for_a_standby_that_is_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("host.sharing.ANSWER_WITHIN_S", 3600.0)

    async def story() -> None:
        for name in "ab":
            save(tmp_path, name, 1)
        async with Cell.open(tmp_path, node=nodes(tmp_path), instances=INSTANCE) as cell:
            await cell.start()
            first = await until_permanent(cell, "")
            cell["b"].member.membership.on_version = lambda _event: None  # it never answers
            changing = asyncio.create_task(change(cell, tmp_path, 2))
            await cell.until(lambda: bool(cell["a"].member.sharing._answers), "a to ask b")
            await cell["b"].lose()
            assert (await changing).state is not None
            assert await until_permanent(cell, first)

    asyncio.run(story())
