"""Strategies in workers and stand-alone clients on a pair: what one node ran, the other one goes on with."""

import asyncio
from pathlib import Path
from typing import Any

import msgspec
import pytest

from host.isolation.proxy import Proxy
from host.isolation.supervised import Worker
from tests.cell.cell_tools import Cell, Node

QUOTER = """
from decimal import Decimal

from host.api import BookTop, Params, Quote, Strategy


class QuoterParams(Params, frozen=True):
    {fields}


class Quoter(Strategy[QuoterParams]):
    def on_book(self, book: BookTop) -> None:
        self.quote(book.symbol, Quote.around(book.mid, self.params.away, Decimal("0.01")))
"""
INSTANCE = """
[[instance]]
name = "mm-btc"
plugin = "quoter"
account = "acc"
symbols = ["BTC-USDT"]
isolation = "{isolation}"
"""


def nodes(folder: Path) -> str:
    """Return what gives each node a plugin folder of its own, and makes versions permanent soon."""
    return (
        f'reload = "off"\nplugin_dirs = ["{folder}/plugins-@"]\nprobation_s = 0.05\nprobation_events = 1\n'
        "state_save_ms = 50"
    )


def save(folder: Path, names: str, source: str) -> None:
    """Save the plugin in these nodes' own folders."""
    for name in names:
        path = folder / f"plugins-{name}" / "quoter.py"
        path.parent.mkdir(exist_ok=True)
        fresh = path.with_suffix(".new")
        fresh.write_text(source)
        fresh.replace(path)


def permanent(node: Node) -> str:
    """Return the version that has earned its place, by what a node knows."""
    plugins = node.member.engine.state.plugins
    return plugins["quoter"].permanent if "quoter" in plugins else ""


def running(node: Node) -> Any:
    """Return the instance as a node runs it."""
    return node.member.engine.roster.instances["mm-btc"]


def worker_of(node: Node) -> Worker:
    """Return what looks after the instance's worker on a node."""
    proxy = running(node).strategy
    assert isinstance(proxy, Proxy) and proxy.worker is not None
    return proxy.worker


def saved(node: Node) -> dict[str, Any]:
    """Return the strategy's state as a node's journal has it."""
    data = node.member.engine.state.instances["mm-btc"].strategy_state
    plain: dict[str, Any] = msgspec.msgpack.decode(data) if data else {}
    return plain


@pytest.mark.parametrize("isolation", ["inline", "process"])
def test_a_standby_leads_with_the_parameters_that_a_new_version_has(tmp_path: Path, isolation: str) -> None:
    """One that the version before had is gone with it, and so is its default."""

    async def story() -> None:
        save(tmp_path, "ab", QUOTER.format(fields="away: float = 20.0; old: int = 1"))
        async with Cell.open(
            tmp_path, node=nodes(tmp_path), instances=INSTANCE.format(isolation=isolation)
        ) as cell:
            await cell.start()
            await cell.until(lambda: permanent(cell["a"]) != "", "a first version")
            first = permanent(cell["a"])
            save(tmp_path, "a", QUOTER.format(fields="away: float = 30.0"))
            trading = cell["a"].member.trading
            assert trading is not None
            await trading.reloading.reload("quoter")
            await cell.until(lambda: permanent(cell["a"]) != first, "the second version to be permanent")
            await cell.until(lambda: permanent(cell["b"]) == permanent(cell["a"]), "b to know")
            await cell.until_ready("a", "b")
            await cell["a"].die(cell.lease)
            await cell.until_trading("b")
            assert msgspec.to_builtins(running(cell["b"]).strategy.params) == {"away": 30.0}

    asyncio.run(story())


def test_a_strategy_runs_on_takeover_though_its_first_worker_is_lost_on_its_way(tmp_path: Path) -> None:
    mortal = f"""
import os
import sys
from pathlib import Path

from host.api import BookTop, NoParams, State, Strategy

MARK = Path("{tmp_path}/mark")
if MARK.exists() and "host.member" not in sys.modules:  # in a worker, not in its node
    MARK.unlink()
    os._exit(3)


class Counts(State):
    takeovers: int = 0


class Mortal(Strategy[NoParams]):
    state: Counts

    def on_takeover(self) -> None:
        self.state.takeovers += 1
"""

    async def story() -> None:
        save(tmp_path, "ab", mortal)
        instances = INSTANCE.format(isolation="process")
        async with Cell.open(tmp_path, node=nodes(tmp_path), instances=instances) as cell:
            await cell.start()
            await cell.until(lambda: saved(cell["b"]).get("takeovers") == 1, "b to hold its state")
            (tmp_path / "mark").touch()
            await cell["a"].die(cell.lease)
            await cell.until_trading("b")
            await cell.until(lambda: worker_of(cell["b"]).restarts == 1, "its second worker")
            await cell.until(lambda: saved(cell["b"]).get("takeovers") == 2, "it to be told, as on a")

    asyncio.run(story())
