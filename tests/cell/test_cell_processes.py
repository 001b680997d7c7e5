"""What operators do to a cell in its life, with a process for each node and its guardian, and the venue as judge."""

import os
import signal
from pathlib import Path

import pytest

from tests.faults.conclusion import conclude
from tests.faults.pair_tools import Cell

pytestmark = pytest.mark.timeout(300)
PRUNING = "snapshot_every_entries = 100"


def test_a_fresh_node_joins_a_leader_whose_journal_is_pruned_and_takes_over(tmp_path: Path) -> None:
    with Cell(tmp_path, node=PRUNING, segment_kb=64) as cell:
        a, b = cell["a"], cell["b"]
        a.start()
        cell.until_epoch_after(0)
        cell.until(lambda: not (a.journal / f"{1:020d}.seg").exists(), "the first segment to be pruned")
        b.start()
        cell.until_ready()
        epoch = cell.tail.epoch
        a.kill_node()
        cell.until_epoch_after(epoch)
        cell.until_ready()
        cell.until_traded(20)
        assert cell.leader() is b


def test_three_nodes_are_upgraded_one_after_the_other_while_the_cell_trades(tmp_path: Path) -> None:
    """As `docs/operating-a-pair.md` says; and a standby whose guardian is killed comes back like any other."""
    with Cell(tmp_path, ("a", "b", "c")) as cell:
        cell.start()
        epoch = cell.tail.catch_up().epoch
        guardian = cell["c"].process
        os.kill(guardian.pid, signal.SIGKILL)  # the kernel kills the node with it
        guardian.wait()
        cell["b"].stop()
        cell["b"].start()
        cell["c"].start()
        cell.until_ready()
        assert cell.tail.catch_up().epoch == epoch, "nobody traded but the leader"
        cell.switch_over(cell["a"])
        cell.until_epoch_after(epoch)
        cell["a"].stop()
        cell["a"].start()
        cell.until_ready()
        cell.until_traded(20)
        assert len(conclude(cell).switches) == 1
