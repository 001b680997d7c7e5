"""Snapshots and pruning."""

from pathlib import Path
from threading import Event, Thread

import pytest
from journal_tools import SMALL, TS, alert, fill, flip, segments

from host.journal import Journal, JournalError, Snapshot, _snapshots, read


def snapshots(folder: Path) -> list[int]:
    return sorted(int(path.stem) for path in folder.glob("*.snap"))


def test_without_a_snapshot_there_is_none(tmp_path: Path) -> None:
    with Journal.open(tmp_path, node="a", segment_bytes=SMALL) as journal:
        assert journal.latest_snapshot() is None


def test_the_last_two_snapshots_are_kept(tmp_path: Path) -> None:
    with Journal.open(tmp_path, node="a", segment_bytes=SMALL) as journal:
        fill(journal, 30)
        for lsn in (10, 20, 30):
            journal.write_snapshot(lsn, b"state %d" % lsn)
        assert journal.latest_snapshot() == Snapshot(30, b"state 30")
    assert snapshots(tmp_path) == [20, 30]
    assert not list(tmp_path.glob("*.tmp"))


def test_a_snapshot_survives_reopening_and_may_be_empty(tmp_path: Path) -> None:
    with Journal.open(tmp_path, node="a", segment_bytes=SMALL) as journal:
        fill(journal, 1)
        journal.write_snapshot(1, b"")
    with Journal.open(tmp_path, node="a", segment_bytes=SMALL) as journal:
        assert journal.latest_snapshot() == Snapshot(1, b"")


def test_a_damaged_byte_anywhere_falls_back_to_the_older_snapshot(tmp_path: Path) -> None:
    with Journal.open(tmp_path, node="a", segment_bytes=SMALL) as journal:
        fill(journal, 20)
        journal.write_snapshot(10, b"older")
        journal.write_snapshot(20, b"newer")
        path = tmp_path / f"{20:020d}.snap"
        for offset in range(path.stat().st_size):
            flip(path, offset)
            found = journal.latest_snapshot()
            assert found is not None
            assert (found.lsn, found.data) == (10, b"older")
            assert len(found.skipped) == 1
            assert path.name in found.skipped[0]
            flip(path, offset)
        path.write_bytes(path.read_bytes()[:-1])
        found = journal.latest_snapshot()
        assert found is not None
        assert found.lsn == 10


def test_only_damaged_snapshots_are_an_error(tmp_path: Path) -> None:
    with Journal.open(tmp_path, node="a", segment_bytes=SMALL) as journal:
        fill(journal, 1)
        journal.write_snapshot(1, b"state")
        flip(next(tmp_path.glob("*.snap")), 35)
        with pytest.raises(JournalError, match=r"no snapshot is whole .*checksum does not match"):
            journal.latest_snapshot()


def test_a_snapshot_of_an_entry_that_is_not_flushed_is_refused(tmp_path: Path) -> None:
    with Journal.open(tmp_path, node="a", segment_bytes=SMALL) as journal:
        fill(journal, 1)
        journal.append(alert(2), TS)
        with pytest.raises(JournalError, match="entry 2 needs that entry flushed, the last one was 1"):
            journal.write_snapshot(2, b"state")


def test_a_snapshot_makes_its_entries_durable_first(tmp_path: Path) -> None:
    with Journal.open(tmp_path, node="a", segment_bytes=SMALL) as journal:
        fill(journal, 1)
        assert journal.syncs == 0
        journal.write_snapshot(1, b"state")
        assert journal.syncs == 1


def test_pruning_keeps_what_the_older_snapshot_needs(tmp_path: Path) -> None:
    with Journal.open(tmp_path, node="a", segment_bytes=4096) as journal:
        records = fill(journal, 200, size=200)
        firsts = [int(path.stem) for path in segments(tmp_path)]
        assert journal.prune(200) == 0  # no snapshot, nothing to start from instead
        journal.write_snapshot(firsts[3] - 2, b"older")
        journal.write_snapshot(200, b"newer")
        assert journal.prune(200) == 2  # the third segment holds the entry after the older snapshot
        assert (journal.first_lsn, int(segments(tmp_path)[0].stem)) == (firsts[2], firsts[2])
        assert list(read(journal, firsts[2])) == records[firsts[2] - 1 :]
    with Journal.open(tmp_path, node="a", segment_bytes=4096) as journal:
        assert (journal.first_lsn, journal.last_lsn) == (firsts[2], 200)


def test_pruning_takes_a_segment_that_ends_with_the_snapshot(tmp_path: Path) -> None:
    with Journal.open(tmp_path, node="a", segment_bytes=4096) as journal:
        fill(journal, 200, size=200)
        firsts = [int(path.stem) for path in segments(tmp_path)]
        journal.write_snapshot(firsts[3] - 1, b"state")
        assert journal.prune(firsts[2]) == 2
        assert journal.prune(10**9) == 1
        assert journal.first_lsn == firsts[3]


def test_the_active_segment_is_never_pruned(tmp_path: Path) -> None:
    with Journal.open(tmp_path, node="a", segment_bytes=4096) as journal:
        fill(journal, 200, size=200)
        for lsn in (199, 200):
            journal.write_snapshot(lsn, b"state")
        journal.prune(10**9)
        assert len(segments(tmp_path)) == 1
        fill(journal, 1)
        assert [record.lsn for record in read(journal, 200)] == [200, 201]


def test_a_closed_journal_takes_no_snapshot_and_prunes_nothing(tmp_path: Path) -> None:
    """By then the folder may hold another history: that of the node's next primary."""
    journal = Journal.open(tmp_path, node="a", segment_bytes=SMALL)
    fill(journal, 60, size=2_000)
    journal.write_snapshot(30, b"older")
    journal.write_snapshot(60, b"newer")
    journal.close()
    before = segments(tmp_path), snapshots(tmp_path)
    with pytest.raises(JournalError, match="closed"):
        journal.write_snapshot(59, b"late")
    with pytest.raises(JournalError, match="closed"):
        journal.prune(60)
    assert (segments(tmp_path), snapshots(tmp_path)) == before


def test_close_waits_for_a_snapshot_that_another_thread_writes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = Journal.open(tmp_path, node="a", segment_bytes=SMALL)
    fill(journal, 10)
    is_writing, may_end = Event(), Event()
    write = _snapshots.write_snapshot

    def write_slowly(folder: Path, lsn: int, data: bytes) -> Path:
        is_writing.set()
        assert may_end.wait(60)
        return write(folder, lsn, data)

    monkeypatch.setattr(_snapshots, "write_snapshot", write_slowly)
    writing = Thread(target=journal.write_snapshot, args=(10, b"state"))
    writing.start()
    assert is_writing.wait(60)
    closing = Thread(target=journal.close)
    closing.start()
    closing.join(0.05)
    assert closing.is_alive() and not journal.is_closed
    may_end.set()
    closing.join(60)
    writing.join(60)
    assert journal.is_closed and snapshots(tmp_path) == [10]
