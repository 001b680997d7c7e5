"""`kill -9` at random moments of a live run: nothing is lost, nothing is doubled.

`TANDEM_KILLS=50 pytest tests/faults/test_kill_nine.py` kills more often than the usual run.
"""

import os
import random
from pathlib import Path

import pytest
from fault_tools import (
    INSTANCES,
    JournalTruth,
    TandemProcess,
    Venue,
    VenueTruth,
    assert_agreement,
    assert_strategy_counted_its_fills,
    wait_until,
)

KILLS = int(os.environ.get("TANDEM_KILLS", "5"))
SEED = int(os.environ.get("TANDEM_KILL_SEED", "1"))


def write_config(folder: Path, account: str) -> Path:
    path = folder / "tandem.toml"
    path.write_text(
        f'[node]\nname = "killed"\ndata_dir = "{folder}/data"\norder_window_ms = 500\n'
        f'[store]\nurl = ""\n[[account]]\nname = "acc"\n{account}\n{INSTANCES}'
    )
    return path


def kill_at_random_moments(folder: Path, config: Path, venue_log: Path, seed: int) -> None:
    """Start and kill the node `KILLS` times, then start it once more and stop it cleanly."""
    chance = random.Random(seed)
    for _ in range(KILLS):
        with TandemProcess(folder / "node.out", "run", "-c", config, "--no-ui") as node:
            # The log grows with the node's first question, so that some die before they trade.
            target = _size(venue_log) + int(chance.expovariate(1 / 15_000))
            wait_until(lambda: _size(venue_log) > target or not node.is_alive, "the node to trade")  # noqa: B023
            assert node.is_alive, node.said()
            node.kill()
    with TandemProcess(folder / "node.out", "run", "-c", config, "--no-ui") as node:
        target = _size(venue_log) + 20_000
        wait_until(lambda: _size(venue_log) > target or not node.is_alive, "the last node to trade")
        assert node.stop() == 0, node.said()


def _size(log: Path) -> int:
    return log.stat().st_size if log.exists() else 0


@pytest.mark.timeout(60 + 10 * KILLS)
def test_killed_node_agrees_with_the_venue_after_each_restart(tmp_path: Path) -> None:
    with Venue(tmp_path, SEED) as venue:
        config = write_config(tmp_path, f'exchange = "paper_remote"\nparams = {{ url = "{venue.url}" }}')
        kill_at_random_moments(tmp_path, config, venue.log, SEED)
        judge(tmp_path, venue.log)


@pytest.mark.timeout(60 + 10 * KILLS)
def test_killed_node_agrees_with_the_paper_account_in_its_own_process(tmp_path: Path) -> None:
    config = write_config(tmp_path, 'exchange = "paper"')
    log = tmp_path / "data/paper-acc.jsonl"
    kill_at_random_moments(tmp_path, config, log, SEED)
    judge(tmp_path, log)


def judge(folder: Path, venue_log: Path) -> None:
    journal, truth = JournalTruth(folder / "data/journal"), VenueTruth(venue_log, "acc")
    # Some died before they could say that they started.
    assert KILLS // 2 < journal.starts <= KILLS + 1
    assert len(journal.fills) > KILLS
    assert_agreement(journal, truth, "acc")
    for instance in ("mm-btc", "mm-eth"):
        assert_strategy_counted_its_fills(journal, instance)
    print(
        f"kills {KILLS}, starts {journal.starts}, orders {len(journal.orders)}, fills {len(journal.fills)}, ",
        end="",
    )
    print(f"entries {journal.state.lsn}, refused by the venue {dict(truth.refused)}")
