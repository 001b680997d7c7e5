"""Whether both nodes come to the same state: an operator who upgrades one of them has to know."""

import asyncio
from pathlib import Path

from host.core.entries import StateDigest
from host.journal import read
from tests.cell.cell_tools import Cell


def agree(cell: Cell, name: str) -> bool | None:
    """Return what a node says."""
    member = cell[name].member
    return member.do_states_agree(member.membership.standbys())


def test_states_agree_once_they_were_compared_and_not_before(tmp_path: Path) -> None:
    async def story() -> None:
        async with Cell.open(tmp_path) as cell:
            cell["a"].start()
            await cell.until_trading("a")
            cell["b"].start()
            await cell.until(lambda: bool(cell["a"].member.membership.standbys()), "b to follow")
            assert agree(cell, "a") is None and agree(cell, "b") is None
            await cell.until(lambda: agree(cell, "a") is True and agree(cell, "b") is True, "both to agree")
            digests = [
                one for one in read(cell["b"].member.replica.folder) if isinstance(one.entry, StateDigest)
            ]
            assert digests, "that is long before node.digest_every_entries"

            cell["b"].member.replica.state.kill_switches["node"] = "nobody else knows of it"
            cell["a"].member.engine.upkeep.digest_soon()
            await cell.until(
                lambda: agree(cell, "a") is False and agree(cell, "b") is False, "both to differ"
            )
            assert not cell["a"].member.membership.has_successor()

    asyncio.run(story())
