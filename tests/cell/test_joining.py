"""A node that joins a cell which has been running for long: its leader's journal does not begin with entry 1."""

import asyncio
from pathlib import Path

from tests.cell.cell_tools import BUSY, Cell

PRUNING = "snapshot_every_entries = 100\n"


async def a_pruned_leader(cell: Cell) -> None:
    """Have node a lead, and its journal begin later than with entry 1."""
    cell["a"].start()
    await cell.until_trading("a")
    engine = cell["a"].member.engine
    await cell.until(lambda: engine.journal.first_lsn > 1, "the journal to be pruned")


def test_a_standby_that_joins_a_leader_with_a_pruned_journal_takes_over(tmp_path: Path) -> None:
    async def story() -> None:
        async with Cell.open(tmp_path, node=PRUNING, instances=BUSY) as cell:
            await a_pruned_leader(cell)
            cell["b"].start()
            await cell.until_ready("a", "b")
            replica = cell["b"].member.replica
            assert replica.journal.first_lsn > 1 and replica.journal is cell["b"].member.engine.journal
            await cell["a"].lose()
            await cell.until_trading("b")

    asyncio.run(story())
