"""`tandem node`: a stopped node's kill switches and pauses, changed in its journal."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from host.cli import main
from host.core import entries as e
from host.core.entries import InstanceState
from host.journal import Journal, read

CONFIG = '[node]\nname = "n"\ndata_dir = "data"\n'
T0 = 1_754_650_000_000_000_000


@pytest.fixture(autouse=True)
def stopped_node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    Path("tandem.toml").write_text(CONFIG)
    with Journal.open("data/journal", node="n") as journal:
        for entry in (
            e.NodeStarted("n", "main", 7, "test"),
            e.InstanceAdded("mm", 1, "two_sided", "ab", "paper", ("BTC-USDT",), b"{}"),
            e.InstanceChanged("mm", InstanceState.PAUSED, "operator"),
            e.KillSwitchSet("account:paper", True, "daily_loss: too much"),
        ):
            journal.append(entry, T0)
        journal.flush()
    yield


def run(*args: str) -> Result:
    return CliRunner().invoke(main, ["node", *args])


def last_entry() -> e.Entry:
    return list(read("data/journal"))[-1].entry


def test_status_shows_kill_switches_and_instances() -> None:
    status = json.loads(run("status", "--json").stdout)
    assert status["kill_switches"] == {"account:paper": "daily_loss: too much"}
    assert status["instances"] == {"mm": {"state": "paused", "reason": "operator"}}
    assert (status["node"], status["epoch"], status["live_orders"]) == ("n", 7, 0)


def test_release_is_journaled_and_lets_orders_through() -> None:
    assert run("release", "account:paper", "--yes").exit_code == 0
    assert last_entry() == e.KillSwitchSet("account:paper", False, "released by the operator")
    assert json.loads(run("status", "--json").stdout)["kill_switches"] == {}


def test_release_ends_the_closing_of_positions_too() -> None:
    with Journal.open("data/journal", node="n") as journal:
        journal.append(e.FlattenSet("account:paper", True, "daily_loss"), T0)
        journal.flush()
    assert run("release", "account:paper", "--yes").exit_code == 0
    entries = [record.entry for record in read("data/journal")][-2:]
    assert entries == [
        e.FlattenSet("account:paper", False, "released by the operator"),
        e.KillSwitchSet("account:paper", False, "released by the operator"),
    ]


def test_release_asks_first_and_changes_nothing_when_refused() -> None:
    before = last_entry()
    result = CliRunner().invoke(main, ["node", "release", "account:paper"], input="n\n")
    assert result.exit_code == 1
    assert "daily_loss: too much" in result.output
    assert last_entry() == before


def test_scope_without_a_kill_switch_is_refused_with_those_that_have_one() -> None:
    result = run("release", "node", "--yes")
    assert result.exit_code == 3
    assert "no kill switch is on for node; on are: account:paper" in result.stderr


def test_resume_lets_a_paused_instance_start_as_configured() -> None:
    assert run("resume", "mm").exit_code == 0
    assert last_entry() == e.InstanceChanged("mm", InstanceState.STOPPED, "resumed by the operator")
    again = run("resume", "mm")
    assert again.exit_code == 3
    assert "instance mm is stopped: there is nothing to resume" in again.stderr


def test_unknown_instance_is_refused_with_the_known_ones() -> None:
    result = run("resume", "mn")
    assert result.exit_code == 3
    assert "the journal knows no instance mn; it knows: mm" in result.stderr


def test_running_node_is_left_alone() -> None:
    with Journal.open("data/journal", node="n"):
        result = run("release", "account:paper", "--yes")
    assert result.exit_code == 3
    assert "process" in result.stderr


def test_data_folder_without_a_journal_is_named() -> None:
    result = run("status", "--data-dir", "elsewhere")
    assert result.exit_code == 3
    assert "there is no journal at elsewhere/journal" in result.stderr
