"""Whatever befalls a pair: nobody sends twice, nothing is lost, and somebody trades on.

Real nodes, a real venue server whose log is the judge, and a real fault each. A test ends with an orderly
stop, and with everything compared: what the venue accepted with what the journals meant to send, the last
leader's positions, cash and fills with the venue's, and what the strategies have counted with both.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.faults.conftest import MountDisk
from tests.faults.pair_judge import Verdict
from tests.faults.pair_tools import TTL_MS, Cell
from tests.faults.wall_clock import WallClock

# Seconds on a machine that has nothing else to do; several processes of one core each where it has.
pytestmark = pytest.mark.timeout(300)
MIB = 1 << 20
STALLING = Path(__file__).parent / "plugins"
SWITCHES = int(os.environ.get("TANDEM_SWITCHES", "10"))
Conclude = Callable[[Cell], Verdict]


@contextmanager
def trading(folder: Path, *names: str, **options: Any) -> Iterator[Cell]:
    """Give a cell whose first machine leads and trades, and whose others could take over."""
    with Cell(folder, names or ("a", "b"), **options) as cell:
        cell.start()
        cell.until_traded(20)
        yield cell


def took_over(verdict: Verdict, *leaders: str) -> None:
    """Hold the leadership to have gone from one machine to the next like this, and not otherwise."""
    switches = verdict.switches
    assert [switches[0].old_leader, *(one.new_leader for one in switches)] == list(leaders), switches


@pytest.mark.parametrize("names", ["ab", "abc"])
def test_a_node_is_killed(tmp_path: Path, conclude: Conclude, names: str) -> None:
    with trading(tmp_path, *names) as cell:
        epoch = cell.tail.epoch
        cell["a"].kill_node()
        cell.until_epoch_after(epoch)
        cell.until_ready()  # the guardian has started it again, and it follows
        cell.until_traded(20)
        [switch] = conclude(cell).switches
        assert switch.old_leader == "a" and switch.new_leader in names[1:]


def test_a_machine_is_lost(tmp_path: Path, conclude: Conclude) -> None:
    with trading(tmp_path) as cell:
        epoch = cell.tail.epoch
        cell["a"].lose()
        cell.until_epoch_after(epoch)
        cell["a"].start()
        cell.until_ready()
        cell.until_traded(20)
        took_over(conclude(cell), "a", "b")


def test_a_leader_is_frozen_for_three_ttl_and_thawed(tmp_path: Path, conclude: Conclude) -> None:
    with trading(tmp_path) as cell:
        epoch = cell.tail.epoch
        cell["a"].freeze()
        cell.until_passed(3 * TTL_MS)
        cell.until_epoch_after(epoch)
        cell["a"].thaw()
        cell.until_ready()
        cell.until_traded(20)
        took_over(conclude(cell), "a", "b")


def test_a_standby_is_killed(tmp_path: Path, conclude: Conclude) -> None:
    with trading(tmp_path) as cell:
        cell["b"].kill_node()
        cell.until_traded(20)
        cell.until_ready()
        cell.until_traded(20)
        assert conclude(cell).switches == []


def test_both_machines_are_lost_and_start_again(tmp_path: Path, conclude: Conclude) -> None:
    with trading(tmp_path) as cell:
        epoch = cell.tail.epoch
        cell["a"].lose()
        cell["b"].lose()
        cell["a"].start()
        cell["b"].start()
        cell.until_epoch_after(epoch)
        cell.until_ready()
        cell.until_traded(20)
        assert len(conclude(cell).switches) == 1


def test_two_of_three_machines_are_lost_one_after_the_other(tmp_path: Path, conclude: Conclude) -> None:
    with trading(tmp_path, "a", "b", "c") as cell:
        for _ in range(2):
            epoch = cell.tail.epoch
            cell.leader().lose()
            cell.until_epoch_after(epoch)
            cell.until_ready()
        for machine in cell.machines.values():
            if not machine.is_running:
                machine.start()
        cell.until_ready()
        cell.until_traded(20)
        assert len(conclude(cell).switches) == 2


def test_with_durability_replica_a_successor_has_every_order(tmp_path: Path, conclude: Conclude) -> None:
    with trading(tmp_path, node='durability = "replica"') as cell:
        epoch = cell.tail.epoch
        cell["a"].lose()
        cell.until_epoch_after(epoch)
        took_over(conclude(cell), "a", "b")
        assert cell.judge(cell["b"]).wrongs == []


def test_a_leader_s_disk_is_full(
    tmp_path: Path, conclude: Conclude, mount_disk: MountDisk, fill_disk: Callable[[Path], Path]
) -> None:
    disk = mount_disk(MIB)
    with Cell(tmp_path, segment_kb=64) as cell:
        cell["a"].move_data(disk / "a")
        cell.start()
        cell.until_traded(20)
        epoch = cell.tail.epoch
        ballast = fill_disk(disk)
        cell.until_epoch_after(epoch)
        ballast.unlink()
        cell.until_ready()
        cell.until_traded(20)
        took_over(conclude(cell), "a", "b")


def test_clocks_are_stepped(tmp_path: Path, conclude: Conclude) -> None:
    with Cell(tmp_path) as cell:
        clocks = {name: WallClock(tmp_path, name) for name in cell.machines}
        for name, machine in cell.machines.items():
            machine.environment |= clocks[name].environment
        cell.start()
        clocks["a"].step(3600.0)
        clocks["b"].step(-3600.0)
        cell.until_passed(3 * TTL_MS)
        cell.until_traded(20)
        clocks["a"].step(-86_400.0)
        epoch = cell.tail.epoch
        cell.switch_over(cell["a"])
        cell.until_epoch_after(epoch)
        cell.until_traded(20)
        took_over(conclude(cell), "a", "b")


def test_an_order_that_was_frozen_between_gate_and_socket_is_refused_for_its_age(
    tmp_path: Path, conclude: Conclude
) -> None:
    """The lease fences nodes, and the venue what they had in hand: each request says until when it is good."""
    with Cell(tmp_path, node=f'plugin_dirs = ["{STALLING}"]') as cell:
        stall = tmp_path / "stall"
        for machine in cell.machines.values():
            machine.rewrite('exchange = "paper_remote"', 'exchange = "paper_stalling"')
            machine.rewrite("params = { url", f'params = {{ stall = "{stall}", url')
        cell.start()
        cell.until_traded(20)
        epoch = cell.tail.epoch
        stall.touch()
        cell.until(stall.with_suffix(".done").exists, "an order to be in hand")
        after = cell.until_epoch_after(epoch)
        cell["a"].thaw()
        cell.until(lambda: bool((seen := cell.judge()).late or seen.stale), "the order to reach the venue")
        cell.until_ready()
        verdict = conclude(cell)
        took_over(verdict, "a", "b")
        assert {traded for _, traded in verdict.late} == {after}


@pytest.mark.timeout(300 + 10 * SWITCHES)
def test_many_switches_in_a_row(tmp_path: Path, conclude: Conclude) -> None:
    """`TANDEM_SWITCHES=N` for more or fewer."""
    with trading(tmp_path, failover="switch_limit = 1000") as cell:
        for _ in range(SWITCHES):
            epoch = cell.tail.catch_up().epoch
            cell.switch_over(cell.leader())
            cell.until_epoch_after(epoch)
            cell.until_ready()
        cell.until_traded(20)
        verdict = conclude(cell)
        assert len(verdict.switches) == SWITCHES
        took_over(verdict, *("ab"[turn % 2] for turn in range(SWITCHES + 1)))
