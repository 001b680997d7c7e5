"""Strategies in workers and stand-alone clients on a pair: what one node ran, the other one goes on with."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from failover.lease import LeaseUnansweredError
from host.api import Strategy
from host.client.trading import TradingClient
from host.isolation.proxy import Proxy
from host.isolation.supervised import Worker
from host.leading import NodeLeadership
from tests.cell.cell_tools import INSTANCE as INLINE
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
def test_a_standby_leads_with_the_parameters_that_a_new_version_has(short_path: Path, isolation: str) -> None:
    """One that the version before had is gone with it, and so is its default."""

    async def story() -> None:
        save(short_path, "ab", QUOTER.format(fields="away: float = 20.0; old: int = 1"))
        async with Cell.open(
            short_path, node=nodes(short_path), instances=INSTANCE.format(isolation=isolation)
        ) as cell:
            await cell.start()
            await cell.until(lambda: permanent(cell["a"]) != "", "a first version")
            first = permanent(cell["a"])
            save(short_path, "a", QUOTER.format(fields="away: float = 30.0"))
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


def test_a_strategy_runs_on_takeover_though_its_first_worker_is_lost_on_its_way(short_path: Path) -> None:
    mortal = f"""
import os
import sys
from pathlib import Path

from host.api import BookTop, NoParams, State, Strategy

MARK = Path("{short_path}/mark")
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
        save(short_path, "ab", mortal)
        instances = INSTANCE.format(isolation="process")
        async with Cell.open(short_path, node=nodes(short_path), instances=instances) as cell:
            await cell.start()
            await cell.until(lambda: saved(cell["b"]).get("takeovers") == 1, "b to hold its state")
            (short_path / "mark").touch()
            await cell["a"].die(cell.lease)
            await cell.until_trading("b")
            await cell.until(lambda: worker_of(cell["b"]).restarts == 1, "its second worker")
            await cell.until(lambda: saved(cell["b"]).get("takeovers") == 2, "it to be told, as on a")

    asyncio.run(story())


OTHER = INLINE.replace("mm-btc", "other")
CLIENT = """
[[instance]]
name = "mm-btc"
plugin = "external"
account = "acc"
symbols = ["BTC-USDT"]
isolation = "client"
client = {{ token = "file:{folder}/token", deadline_ms = {deadline_ms} }}
"""
TOKEN = "a token of some length"


def clients(folder: Path, deadline_ms: int = 1_000) -> str:
    """Return an instance that a program runs which shows the same token to each node."""
    (folder / "token").write_text(TOKEN)
    (folder / "token").chmod(0o600)
    return CLIENT.format(folder=folder, deadline_ms=deadline_ms)


def is_attached(node: Node) -> bool:
    """Return whether a program is at work with the instance of a node."""
    session = running(node).strategy.session
    return session is not None and session.outlet is not None and session.outlet.handled > 0


@contextmanager
def without_a_store(node: Node) -> Iterator[None]:
    """Have the lease store not answer this node."""

    async def unanswered(*_: object) -> None:
        raise LeaseUnansweredError("of a test", "cut off")

    store = node.member.membership._store
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(store, "read", unanswered)
        patch.setattr(store, "swap", unanswered)
        yield


@asynccontextmanager
async def program_of(cell: Cell) -> AsyncIterator[None]:
    """Run a program that knows every node of a cell."""
    client = TradingClient(
        [f"ipc://{cell.folder}/{name}/clients/mm-btc" for name in cell.nodes], TOKEN, answer_s=60.0
    )
    program = asyncio.ensure_future(asyncio.to_thread(client.run, Strategy))
    try:
        yield
    finally:
        client.stop()
        await program


def test_a_client_leaves_a_node_that_may_send_nothing_for_the_one_that_may(short_path: Path) -> None:
    async def story() -> None:
        async with Cell.open(short_path, instances=clients(short_path), ttl_ms=2_000) as cell:
            await cell.start()
            async with program_of(cell):
                await cell.until(lambda: is_attached(cell["a"]), "the client to attach to a")
                with without_a_store(cell["a"]):
                    await cell.until_trading("b")
                    await cell.until(lambda: is_attached(cell["b"]), "the client to attach to b")

    asyncio.run(story())


def test_a_client_is_let_in_again_once_its_node_may_send_again(short_path: Path) -> None:
    async def story() -> None:
        instances = clients(short_path, deadline_ms=200)
        async with Cell.open(short_path, "a", instances=instances, ttl_ms=1_000) as cell:
            cell["a"].start()
            await cell.until_trading("a")
            async with program_of(cell):
                await cell.until(lambda: is_attached(cell["a"]), "the client to attach")
                with without_a_store(cell["a"]):
                    await cell.until(lambda: not is_attached(cell["a"]), "the client to be sent away")
                await cell.until(lambda: is_attached(cell["a"]), "the client to attach again")

    asyncio.run(story())


def test_a_standby_that_could_not_let_a_client_in_is_not_ready(short_path: Path) -> None:
    async def story() -> None:
        async with Cell.open(short_path, instances=OTHER + clients(short_path)) as cell:
            cell["b"].rewrite(f"{short_path}/token", f"{short_path}/nowhere")
            cell["a"].start()
            await cell.until_trading("a")
            cell["b"].start()
            b = cell["b"].member
            await cell.until(lambda: "nowhere" in b.membership.health.reason, "b to say what it lacks")
            assert not cell["a"].member.membership.has_successor()
            await cell["b"].stop()
            cell["b"].rewrite(f"{short_path}/nowhere", f"{short_path}/token")
            cell["b"].start()
            await cell.until_ready("a", "b")

    asyncio.run(story())


def test_what_the_market_alone_changed_in_the_state_goes_with_a_switchover(short_path: Path) -> None:
    """A worker sends such a state once a second: it is asked for it."""
    counter = f"""
import os
from pathlib import Path

from host.api import BookTop, NoParams, State, Strategy


class Counted(State):
    books: int = 0


class Quoter(Strategy[NoParams]):
    state: Counted

    def on_book(self, book: BookTop) -> None:
        self.state.books += 1
        Path({str(short_path)!r}, "books.new").write_text(str(self.state.books))
        Path({str(short_path)!r}, "books.new").rename(Path({str(short_path)!r}, "books"))
"""
    books = short_path / "books"

    async def story() -> None:
        save(short_path, "ab", counter)
        async with Cell.open(
            short_path, node=nodes(short_path), instances=INSTANCE.format(isolation="process")
        ) as cell:
            await cell.start()
            await cell.until(lambda: books.exists() and int(books.read_text()) > 20, "it hears of the market")
            count = int(books.read_text())
            await NodeLeadership(cell["a"].member).switchover("b", "ops")
            await cell.until_trading("b")
            assert saved(cell["b"])["books"] >= count

    asyncio.run(story())
