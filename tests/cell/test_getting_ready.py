"""A standby is ready once it could lead with all it needs, and says why while it could not."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from failover.lease import LeaseConfigError, Record, open_store
from host.errors import NodeMustRestart
from host.journal import JournalError
from host.leading import NodeLeadership
from host.pair.lease_front import LeaseFront
from host.pair.relay import LinkState, Relay
from tests.cell.cell_tools import CELL, TTL_MS, Cell

OTHER = """
[[account]]
name = "other"
exchange = "paper_remote"
params = { url = "unix:SOCKET" }
[[instance]]
name = "mm-eth"
plugin = "two_sided"
account = "other"
symbols = ["ETH-USDT"]
params = { half_spread_bps = 20.0, size = "0.1", skew_bps = 0.0 }
"""


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("host.standing_by.BUILD_AGAIN_S", 0.05)
    monkeypatch.setattr("host.membership.CHECK_AGAIN_S", 0.05)


def test_a_standby_connects_an_account_again_that_it_could_not_connect(tmp_path: Path) -> None:
    async def story() -> None:
        (tmp_path / "other").mkdir()
        async with Cell.open(tmp_path) as cell, Cell.open(tmp_path / "other") as other:
            for node in cell.nodes.values():
                text = node.config.read_text()
                node.config.write_text(text + OTHER.replace("unix:SOCKET", other.venue_url))
            cell["a"].start()
            await cell.until_trading("a")
            await other.close_venue()
            cell["b"].start()
            health = cell["b"].member.membership
            await cell.until(lambda: "account other" in health.health.reason, "b to say what it lacks")
            assert not health.health.is_fit
            await other.open_venue()
            await cell.until_ready("a", "b")

    asyncio.run(story())


def test_a_standby_leaves_out_a_file_that_would_end_it(tmp_path: Path) -> None:
    async def story() -> None:
        (tmp_path / "plugins-a").mkdir()
        (tmp_path / "plugins-b").mkdir()
        (tmp_path / "plugins-b" / "crash.py").write_text("import os\nos.kill(os.getpid(), 11)\n")
        async with Cell.open(tmp_path, node=f'plugin_dirs = ["{tmp_path}/plugins-@"]') as cell:
            await cell.start()
            trading = cell["b"].member.trading
            assert trading is not None
            problems = map(str, trading.reloading.catalog.problems)
            assert any("crash.py:2: killed its process with SIGSEGV" in problem for problem in problems)

    asyncio.run(story())


def test_a_standby_replaces_a_connection_whose_code_has_failed(tmp_path: Path) -> None:
    async def story() -> None:
        async with Cell.open(tmp_path) as cell:
            await cell.start()
            b = cell["b"].member
            failed = b.engine.feeds["acc"]
            failed.failed(RuntimeError("scripted"))
            await cell.until(
                lambda: b.engine.feeds.get("acc") not in (None, failed), "b to connect the account anew"
            )
            await cell.until_ready("a", "b")
            await cell["a"].die(cell.lease)
            await cell.until_trading("b")

    asyncio.run(story())


@asynccontextmanager
async def a_store_that_can_be_cut(folder: Path) -> AsyncIterator[tuple[str, str, Relay]]:
    """Give the URL of a lease over a link, that of the lease itself, and the link."""
    direct = f"sqlite:///{folder}/behind.db"
    store = open_store(direct)
    front = LeaseFront(store)
    await front.start()
    link = Relay(lambda: asyncio.open_connection("127.0.0.1", front.port))
    await link.start()
    try:
        yield f"etcd://127.0.0.1:{link.port}", direct, link
    finally:
        await link.close()
        await front.close()
        await store.close()


async def put(url: str, cell: str, holder: str) -> None:
    """Have the cell's lease be one that `holder` has given up."""
    store = open_store(url)
    try:
        assert await store.swap(None, Record(cell, 1, holder, "earlier", TTL_MS, 1).released(2), 5.0)
    finally:
        await store.close()


def test_a_node_that_starts_while_the_lease_store_is_away_leads_once_it_is_back(tmp_path: Path) -> None:
    async def story() -> None:
        async with (
            a_store_that_can_be_cut(tmp_path) as (url, direct, link),
            Cell.open(tmp_path, "a", lease=url) as cell,
        ):
            await put(direct, CELL, "a")
            link.put(LinkState.REFUSED)
            cell["a"].start()
            membership = cell["a"].member.membership
            await cell.until(lambda: "lease store" in membership.health.reason, "a to say what it lacks")
            assert not membership.health.is_fit and membership.term is None
            link.put(LinkState.OPEN)
            await cell.until_trading("a")

    asyncio.run(story())


def test_a_node_ends_where_the_store_that_came_back_is_of_other_cells(tmp_path: Path) -> None:
    """A new process would find the same: what it raises is a mistake in the configuration."""

    async def story() -> None:
        async with (
            a_store_that_can_be_cut(tmp_path) as (url, direct, link),
            Cell.open(tmp_path, "a", lease=url) as cell,
        ):
            await put(direct, "another", "a")
            link.put(LinkState.REFUSED)
            cell["a"].start()
            membership = cell["a"].member.membership
            await cell.until(lambda: bool(membership.why_unchecked), "a to run without the store")
            link.put(LinkState.OPEN)
            with pytest.raises(LeaseConfigError, match="another"):
                await cell["a"].ended()

    asyncio.run(story())


def test_a_store_that_is_slow_for_a_while_keeps_out_new_nodes_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A node that is started again on a busy day must not end for good."""

    async def story() -> None:
        async with Cell.open(tmp_path) as cell:
            cell["a"].start()
            await cell.until_trading("a")
            await cell["a"].stop()
            with monkeypatch.context() as busy:
                busy.setattr("failover.lease.opening.ROUND_TRIPS_PER_TTL", 10**6)  # nothing is quick enough
                cell["b"].start()
                with pytest.raises(LeaseConfigError, match="round trips"):
                    await cell["b"].ended()
                cell["a"].start()
                membership = cell["a"].member.membership
                await cell.until(
                    lambda: "round trips" in membership.health.reason, "a to say what it waits for"
                )
                assert membership.term is None
            await cell.until_trading("a")

    asyncio.run(story())


def test_a_node_whose_part_in_the_cell_fails_ends_and_says_why(tmp_path: Path) -> None:
    async def story() -> None:
        async with Cell.open(tmp_path) as cell:
            await cell.start()

            def on_peer(*_: object, **__: object) -> None:
                raise ValueError("scripted")

            cell["a"].member.membership.elector.on_peer = on_peer  # type: ignore[method-assign, assignment]
            with pytest.raises(NodeMustRestart, match="ValueError: scripted"):
                await cell["a"].ended()
            await cell["a"].die(cell.lease)
            await cell.until_trading("b")

    asyncio.run(story())


def test_a_leader_whose_journal_fails_as_it_tells_something_makes_way(tmp_path: Path) -> None:
    async def story() -> None:
        async with Cell.open(tmp_path) as cell:
            await cell.start()
            a = cell["a"].member
            a.engine.journal._failure = JournalError("scripted", path=tmp_path)
            a.engine.journal._window.until = 0  # the next entry meets it
            a.alert("test", "what there is no room for")
            assert "scripted" in a.engine.halted and a.engine.depth == 0
            with pytest.raises(NodeMustRestart, match="scripted"):
                await cell["a"].ended()
            await cell["a"].die(cell.lease)
            await cell.until_trading("b")

    asyncio.run(story())


def test_a_node_takes_no_order_of_an_operator_before_it_takes_part(tmp_path: Path) -> None:
    async def story() -> None:
        async with Cell.open(tmp_path, "a") as cell:
            cell["a"].start()
            leadership = NodeLeadership(cell["a"].member)
            assert not cell["a"].member.membership.has_started
            for order in (leadership.promote("ops"), leadership.set_maintenance(True, "ops")):
                with pytest.raises(Exception, match="the node is starting"):
                    await order
            await cell.until_trading("a")

    asyncio.run(story())
