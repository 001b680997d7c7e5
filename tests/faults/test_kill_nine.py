"""`kill -9` at random moments of a live run: nothing is lost, nothing is doubled.

Node and venue are compared after each restart, when the node has found out what happened meanwhile
and trades again, and once more in the end, when it has stopped. `TANDEM_KILLS=50 pytest -s
tests/faults/test_kill_nine.py` kills more often than the usual run.
"""

import os
import random
from pathlib import Path

import pytest

from tests.faults.fault_tools import INSTANCES, TandemProcess, Venue, wait_until
from tests.faults.judges import (
    assert_agreement,
    assert_no_wrong,
    assert_stopped_in_agreement,
    assert_strategies_counted,
)
from tests.faults.truths import JournalTruth, VenueTruth

KILLS = int(os.environ.get("TANDEM_KILLS", "5"))
SEED = int(os.environ.get("TANDEM_KILL_SEED", "1"))

# Snapshots so often that most lives begin with one, and so few entries that none are pruned.
NODE = """
[node]
name = "killed"
order_window_ms = 500
journal_segment_kb = 32768
snapshot_every_entries = 60
[store]
url = ""
"""

PERPETUAL = """
[[instance]]
name = "mm-perp"
plugin = "two_sided"
account = "acc"
symbols = ["BTC-USDT-PERP"]
quote_tolerance_bps = 0.0
params = { half_spread_bps = 0.01, size = "0.01", skew_bps = 0.0 }
"""
NAMES = {"mm-btc", "mm-eth", "mm-perp"}


class KilledNode:
    """A node that is started and killed again and again, and judged whenever it trades."""

    def __init__(self, folder: Path, account: str, venue_log: Path) -> None:
        self._folder = folder
        self._config = folder / "tandem.toml"
        self._config.write_text(
            f'{NODE}\n[[account]]\nname = "acc"\n{account}\n{INSTANCES}\n{PERPETUAL}'.replace(
                "[node]", f'[node]\ndata_dir = "{folder}/data"'
            )
        )
        self._log = venue_log
        self._lives = 0
        self._truths: tuple[JournalTruth, VenueTruth] | None = None
        self.chance = random.Random(SEED)
        self.kills = 0
        self.restarts_judged = 0
        self.moments = 0

    def live_and_die(self) -> None:
        """Start, be judged, trade for a while, die."""
        with self._start() as node:
            self._wait_until_it_trades(node)
            self._judge()
            self._wait_for_growth(node, int(self.chance.expovariate(1 / 15_000)))
            self._kill(node)

    def die_early(self) -> None:
        """Start, and die soon after the first question to the venue, mostly in the middle of recovery."""
        with self._start() as node:
            self._wait_for_growth(node, self.chance.randrange(2_000))
            self._kill(node)

    def live_and_stop(self) -> None:
        """Start, be judged, trade, stop cleanly, and be judged by everything that happened."""
        with self._start() as node:
            self._wait_until_it_trades(node)
            self._judge()
            self._wait_for_growth(node, 20_000)
            assert node.stop() == 0, node.said()
        journal, venue = self._catch_up()
        assert_stopped_in_agreement(journal, venue)
        assert not journal.unsaved_at_death
        assert journal.starts <= self._lives  # some died before they could say that they started
        assert len(journal.fills) > self.kills
        print(
            f"\n{self.kills} kills, {journal.starts} starts, {self.restarts_judged} restarts judged, "
            f"{self.moments} moments compared, {len(journal.orders)} orders, {len(journal.fills)} fills, "
            f"{journal.delivered_late} of them heard after a restart, {journal.state.lsn} entries, "
            f"{len(list((self._folder / 'data/journal').glob('*.snap')))} snapshots kept, "
            f"refused by the venue: {dict(venue.refused)}"
        )

    def _start(self) -> TandemProcess:
        self._lives += 1
        # Another market each time, where the venue lives and dies with the node.
        arguments = ("run", "-c", self._config, "--no-ui", "--seed", str(SEED * 1000 + self._lives))
        return TandemProcess(self._folder / "node.out", *arguments)

    def _kill(self, node: TandemProcess) -> None:
        node.kill()
        self.kills += 1

    def _wait_until_it_trades(self, node: TandemProcess) -> None:
        starts = None if self._truths is None else self._truths[0].starts

        def trades() -> bool:
            assert node.is_alive, node.said()
            if not (self._folder / "data/journal").is_dir() or not self._log.exists():
                return False
            journal, _ = self._catch_up()
            return journal.starts != starts and journal.running == NAMES

        wait_until(trades, "the node to trade")

    def _judge(self) -> None:
        journal, venue = self._catch_up()
        compared = assert_agreement(journal, venue)
        assert compared > 0 or not self.restarts_judged
        journal.catch_up()  # what the venue accepted meanwhile was journaled before it was sent
        assert_no_wrong(journal, venue)
        assert_strategies_counted(journal)
        assert not journal.unsaved_at_death
        self.restarts_judged += 1
        self.moments += compared

    def _catch_up(self) -> tuple[JournalTruth, VenueTruth]:
        """Read the journal on first: the venue's log is ahead of what the node has heard."""
        if self._truths is None:
            self._truths = JournalTruth(self._folder / "data/journal"), VenueTruth(self._log, "acc")
        else:
            for truth in self._truths:
                truth.catch_up()
        return self._truths

    def _wait_for_growth(self, node: TandemProcess, more: int) -> None:
        target = self._log_size() + more
        wait_until(lambda: self._log_size() > target or not node.is_alive, "the venue's log to grow")
        assert node.is_alive, node.said()

    def _log_size(self) -> int:
        return self._log.stat().st_size if self._log.exists() else 0


def kill_at_random_moments(node: KilledNode) -> None:
    """Kill the node `KILLS` times while it trades, and now and then while it recovers from that."""
    for _ in range(KILLS):
        node.live_and_die()
        while node.chance.random() < 0.25:
            node.die_early()
    node.live_and_stop()
    assert node.restarts_judged == KILLS + 1


@pytest.mark.timeout(60 + 10 * KILLS)
def test_killed_node_agrees_with_the_venue_after_each_restart(tmp_path: Path) -> None:
    with Venue(tmp_path, SEED) as venue:
        account = f'exchange = "paper_remote"\nparams = {{ url = "{venue.url}" }}'
        kill_at_random_moments(KilledNode(tmp_path, account, venue.log))


@pytest.mark.timeout(60 + 10 * KILLS)
def test_killed_node_agrees_with_the_paper_account_in_its_own_process(tmp_path: Path) -> None:
    # Slow enough that most deaths leave reports and requests on their way.
    account = 'exchange = "paper"\nparams = { latency_ms = 10.0 }'
    kill_at_random_moments(KilledNode(tmp_path, account, tmp_path / "data/paper-acc.jsonl"))
