"""What a node is said to be: by its processes first, then by its own word while that is fresh."""

import time
from pathlib import Path

from msgspec import structs

from host.pair.cell import Machine
from host.pair.children import Child
from host.pair.viewing import condition
from tests.pair.test_pair_endings import FOLLOWER, LEADER


def machine(folder: Path) -> Machine:
    """A node whose guardian was never started."""
    return Machine("a", Child("a", [], folder / "a.out"), "unix:a.sock", folder / "journal")


class Running(Machine):
    """A node whose processes are there, whatever it says."""

    def __init__(self, folder: Path) -> None:
        super().__init__("a", _Here("a", [], folder / "a.out"), "unix:a.sock", folder / "journal")


class _Here(Child):
    @property
    def is_alive(self) -> bool:
        return True

    def inner_pid(self) -> int:
        return 1


def test_a_node_that_was_never_started_is_starting_and_says_nothing(tmp_path: Path) -> None:
    assert condition(machine(tmp_path), LEADER, LEADER.at_s) == "starting"


def test_a_leader_without_a_right_is_told_from_one_that_leads(tmp_path: Path) -> None:
    running = Running(tmp_path)
    assert condition(running, LEADER, LEADER.at_s + 0.1) == "leads"
    assert condition(running, LEADER, LEADER.at_s + 0.5) == "lapsed"
    assert condition(running, structs.replace(LEADER, right_left_ms=None), LEADER.at_s) == "lapsed"


def test_a_word_that_is_old_is_no_answer(tmp_path: Path) -> None:
    running = Running(tmp_path)
    assert condition(running, FOLLOWER, FOLLOWER.at_s + 0.1) == "stands by"
    assert condition(running, FOLLOWER, FOLLOWER.at_s + 5.0) == "no answer"
    assert condition(running, None, time.monotonic()) == "starting"


def test_a_frozen_node_is_frozen_whatever_it_said_last(tmp_path: Path) -> None:
    running = Running(tmp_path)
    running.is_frozen = True
    assert condition(running, LEADER, LEADER.at_s) == "frozen"
