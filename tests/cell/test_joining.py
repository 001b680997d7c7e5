"""A node that joins a cell which has been running for long: its leader's journal does not begin with entry 1."""

import asyncio
from pathlib import Path

from failover.states import State
from host.control.reasons import Refused
from host.leading import NodeLeadership
from host.pair.relay import LinkState
from tests.cell.cell_tools import Cell

PRUNING = "snapshot_every_entries = 20"


async def pruned(cell: Cell, name: str, after_lsn: int) -> None:
    """Have a leader write much, until its journal begins after this entry."""
    member = cell[name].member

    def is_pruned() -> bool:
        member.alert("test", "x" * 2_000)
        return member.engine.journal.first_lsn > after_lsn

    await cell.until(is_pruned, "the journal to be pruned")


async def a_pruned_leader(cell: Cell) -> None:
    """Have node a lead, and its journal begin later than with entry 1."""
    if not cell["a"].is_running:
        cell["a"].start()
    await cell.until_trading("a")
    await pruned(cell, "a", 1)


def test_a_standby_that_joins_a_leader_with_a_pruned_journal_takes_over(tmp_path: Path) -> None:
    async def story() -> None:
        async with Cell.open(tmp_path, node=PRUNING) as cell:
            await a_pruned_leader(cell)
            cell["b"].start()
            await cell.until_ready("a", "b")
            replica = cell["b"].member.replica
            assert replica.journal.first_lsn > 1 and replica.journal is cell["b"].member.engine.journal
            await cell["a"].die(cell.lease)
            await cell.until_trading("b")

    asyncio.run(story())


def test_maintenance_that_came_with_a_snapshot_keeps_a_standby_from_leading(tmp_path: Path) -> None:
    async def story() -> None:
        async with Cell.open(tmp_path, node=PRUNING) as cell:
            cell["a"].start()
            await cell.until_trading("a")
            await NodeLeadership(cell["a"].member).set_maintenance(True, "ops")
            await a_pruned_leader(cell)
            cell["b"].start()
            await cell.until_ready("a", "b")
            b = cell["b"].member
            assert b.engine.state.maintenance and b.membership.is_maintained
            await cell["a"].die(cell.lease)
            watch = b.membership.elector.watch
            await cell.until(lambda: watch.seen is not None and watch.seen.is_free, "b to see a free lease")
            assert "maintenance" in b.membership.elector.why_not
            await NodeLeadership(b).promote("ops")
            await NodeLeadership(b).set_maintenance(False, "ops")
            assert b.is_trading and not b.membership.is_maintained

    asyncio.run(story())


def test_a_deposed_leader_that_held_more_than_its_successor_s_journal_rejoins_it(tmp_path: Path) -> None:
    """What it wrote alone is set aside, it gets a snapshot, and could take over again."""

    async def story() -> None:
        async with Cell.open(tmp_path, node=PRUNING) as cell:
            link = await cell.link("b", to="a")
            await cell.start()
            link.put(LinkState.REFUSED)  # from here on a writes alone
            for _ in range(20):
                cell["a"].member.alert("test", "what b never sees")
            alone = cell["a"].member.engine.journal.flushed_lsn
            await cell["a"].die(cell.lease)
            b = cell["b"].member
            try:
                await NodeLeadership(b).promote("ops")
            except Refused:
                # It was on its way by itself, or there: nothing tells it that it has not got all.
                assert b.membership.elector.state in (State.ACQUIRING, State.FENCING, State.LEADING)
            await cell.until_trading("b")
            await pruned(cell, "b", alone)
            cell["a"].start()
            await cell.until_ready("b", "a")
            assert cell["a"].member.replica.journal.first_lsn > 1
            assert list((tmp_path / "a").glob("journal.aside/*"))
            await cell["b"].stop()
            await cell.until_trading("a")

    asyncio.run(story())
