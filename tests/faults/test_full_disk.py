"""The disk under the node fills up: it stops trading while it can still say so, or at once."""

import resource
from collections.abc import Callable
from pathlib import Path

from host.core import entries as e
from host.core.entries import InstanceState
from host.journal import read
from tests.faults.fault_tools import INSTANCES, TandemProcess, Venue, wait_until
from tests.faults.judges import assert_stopped_in_agreement
from tests.faults.truths import JournalTruth, VenueTruth

MIB = 1 << 20
SEGMENT_KB = 64


def write_config(folder: Path, data_dir: Path, account: str) -> Path:
    path = folder / "tandem.toml"
    path.write_text(
        f'[node]\nname = "full"\ndata_dir = "{data_dir}"\norder_window_ms = 500\nstop_timeout_ms = 1000\n'
        f'journal_segment_kb = {SEGMENT_KB}\n[store]\nurl = ""\n[[account]]\nname = "acc"\n{account}\n{INSTANCES}'
    )
    return path


def remote(venue: Venue) -> str:
    return f'exchange = "paper_remote"\nparams = {{ url = "{venue.url}" }}'


def trades(venue: Venue) -> Callable[[], bool]:
    """Return a question: has the venue logged much more than it has by now?"""
    target = venue.log_size + 10_000
    return lambda: venue.log_size > target


def test_node_stops_cleanly_while_the_journal_has_room_for_it(
    tmp_path: Path, mount_disk: Callable[[int], Path], fill_disk: Callable[[Path], Path]
) -> None:
    disk = mount_disk(MIB)
    with Venue(tmp_path, 11) as venue:
        config = write_config(tmp_path, disk, remote(venue))
        with TandemProcess(tmp_path / "node.out", "run", "-c", config, "--no-ui") as node:
            wait_until(trades(venue), "the node to trade")
            ballast = fill_disk(disk)
            assert node.wait() == 1
        assert "error: trading stopped: the journal has room for" in node.said()
        truth, journal = VenueTruth(venue.log, "acc"), JournalTruth(disk / "journal")
        assert_stopped_in_agreement(journal, truth)
        entries = [record.entry for record in read(disk / "journal")]
        low = next(i for i, x in enumerate(entries) if isinstance(x, e.Alert) and x.kind == "journal_low")
        assert not [entry for entry in entries[low:] if isinstance(entry, e.PlaceSent)]
        assert isinstance(entries[-1], e.NodeStopped)

        with TandemProcess(tmp_path / "node.out", "run", "-c", config, "--no-ui") as node:
            # No room still: it trades on what is left of the segment, if at all, and stops again.
            assert node.wait() == 1
        ballast.unlink()
        with TandemProcess(tmp_path / "node.out", "run", "-c", config, "--no-ui") as node:
            wait_until(trades(venue), "the node to trade again, now that there is room")
            assert node.stop() == 0
        assert_stopped_in_agreement(JournalTruth(disk / "journal"), VenueTruth(venue.log, "acc"))


def test_node_whose_journal_cannot_be_written_cancels_all_the_same(tmp_path: Path) -> None:
    with Venue(tmp_path, 12) as venue:
        config = write_config(tmp_path, tmp_path / "data", remote(venue))
        with TandemProcess(tmp_path / "node.out", "run", "-c", config, "--no-ui") as node:
            wait_until(trades(venue), "the node to trade")
            # No file of this process may grow any more, and none may be written beyond this.
            resource.prlimit(node.pid, resource.RLIMIT_FSIZE, (16_384, 16_384))
            assert node.wait() == 1
        assert "error: trading stopped: the journal cannot be written" in node.said()
        assert not VenueTruth(venue.log, "acc").open
        with TandemProcess(tmp_path / "node.out", "run", "-c", config, "--no-ui") as node:
            wait_until(trades(venue), "the node to trade again")
            assert node.stop() == 0
        assert_stopped_in_agreement(JournalTruth(tmp_path / "data/journal"), VenueTruth(venue.log, "acc"))


def test_paper_account_whose_log_cannot_be_written_stops_the_node(
    tmp_path: Path, mount_disk: Callable[[int], Path], fill_disk: Callable[[Path], Path]
) -> None:
    disk = mount_disk(MIB)
    config = write_config(tmp_path, disk, 'exchange = "paper"')
    log = disk / "paper-acc.jsonl"
    with TandemProcess(tmp_path / "node.out", "run", "-c", config, "--no-ui") as node:
        wait_until(lambda: log.exists() and log.stat().st_size > 10_000, "the node to trade")
        ballast = fill_disk(disk)
        assert node.wait() == 1
    assert "trading stopped: account acc: its adapter raised OSError: [Errno 28]" in node.said()
    assert "Traceback" not in node.said()
    ballast.unlink()
    with TandemProcess(tmp_path / "node.out", "run", "-c", config, "--no-ui") as node:
        size = log.stat().st_size
        wait_until(lambda: log.stat().st_size > size + 10_000, "the node to trade again")
        assert node.stop() == 0
    journal = JournalTruth(disk / "journal")
    assert_stopped_in_agreement(journal, VenueTruth(log, "acc"))
    assert journal.state.instances["mm-btc"].state is InstanceState.STOPPED


def test_node_says_that_it_finds_no_room_to_start(
    tmp_path: Path, mount_disk: Callable[[int], Path], fill_disk: Callable[[Path], Path]
) -> None:
    disk = mount_disk(MIB)
    fill_disk(disk)
    config = write_config(tmp_path, disk / "data", 'exchange = "paper"')
    with TandemProcess(tmp_path / "node.out", "run", "-c", config, "--no-ui") as node:
        assert node.wait() == 1
    assert "ENOSPC" in node.said()
    assert "Traceback" not in node.said()
