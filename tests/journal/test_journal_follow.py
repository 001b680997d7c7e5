"""Following a live journal."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from journal_tools import SMALL, TS, alert, fill, flip, frame_spans, segments

from host.core.entries import Record
from host.journal import Follower, Journal, JournalCorrupt, JournalError, JournalPruned


def test_a_follower_sees_each_flushed_entry_once(tmp_path: Path) -> None:
    with Journal.open(tmp_path, node="a", segment_bytes=SMALL) as journal, Follower(tmp_path) as follower:
        assert follower.poll() == []
        first = fill(journal, 3)
        journal.append(alert(4), TS)
        assert follower.poll() == first
        assert follower.poll() == []
        journal.flush()
        assert follower.poll() == [Record(4, TS, alert(4))]
        assert follower.next_lsn == 5


def test_a_follower_takes_no_more_than_asked_for(tmp_path: Path) -> None:
    with Journal.open(tmp_path, node="a", segment_bytes=SMALL) as journal, Follower(journal, 3) as follower:
        records = fill(journal, 10)
        assert follower.poll(4) == records[2:6]
        assert follower.poll(4) == records[6:10]
        assert follower.poll(4) == []


def test_a_follower_goes_from_segment_to_segment(tmp_path: Path) -> None:
    seen: list[Record] = []
    with Journal.open(tmp_path, node="a", segment_bytes=4096) as journal, Follower(journal) as follower:
        records: list[Record] = []
        for count in [1, 7, 30, 2, 90, 5]:
            records += fill(journal, count, size=200)
            seen += follower.poll(20)
        while batch := follower.poll(20):
            seen += batch
    assert len(segments(tmp_path)) > 5
    assert seen == records


def test_a_follower_may_be_ahead_of_the_writer(tmp_path: Path) -> None:
    with Journal.open(tmp_path, node="a", segment_bytes=SMALL) as journal, Follower(tmp_path, 6) as follower:
        assert follower.poll() == []
        fill(journal, 5)
        assert follower.poll() == []
        later = fill(journal, 2)
        assert follower.poll() == later


def test_a_follower_starts_before_the_journal_does(tmp_path: Path) -> None:
    with Follower(tmp_path) as follower:
        assert follower.poll() == []
        with Journal.open(tmp_path, node="a", segment_bytes=SMALL) as journal:
            records = fill(journal, 2)
        assert follower.poll() == records
    with pytest.raises(JournalError, match="no journal here"):
        Follower(tmp_path / "absent")


def test_a_follower_that_fell_behind_pruning_is_told_where_to_go_on(tmp_path: Path) -> None:
    with Journal.open(tmp_path, node="a", segment_bytes=SMALL) as journal, Follower(journal) as follower:
        records = fill(journal, 100, size=300)
        assert follower.poll(50) == records[:50]
        fill(journal, 500, size=300)
        journal.write_snapshot(600, b"state")
        second = int(segments(tmp_path)[1].stem)
        assert journal.prune(600) == 3
        with pytest.raises(JournalPruned) as caught:
            while follower.poll():  # what is left of the deleted file, which is still open
                pass
        assert caught.value.first_lsn == journal.first_lsn
        assert caught.value.wanted_lsn == follower.next_lsn == second
    with Follower(tmp_path, caught.value.first_lsn) as follower:
        assert follower.poll(1)[0].lsn == caught.value.first_lsn


def test_a_follower_at_the_end_does_not_notice_pruning(tmp_path: Path) -> None:
    with Journal.open(tmp_path, node="a", segment_bytes=SMALL) as journal, Follower(journal) as follower:
        fill(journal, 600, size=300)
        while follower.poll():
            pass
        journal.write_snapshot(600, b"state")
        journal.prune(600)
        more = fill(journal, 300, size=300)
        assert follower.poll() == more


def test_a_half_written_entry_is_waited_for(tmp_path: Path) -> None:
    with Journal.open(tmp_path, node="a", segment_bytes=SMALL) as journal:
        records = fill(journal, 4)
    path = segments(tmp_path)[0]
    content = path.read_bytes()
    (start, end) = frame_spans(path)[-1]
    with Follower(tmp_path) as follower:
        for cut in range(start, end):
            path.write_bytes(content[:cut].ljust(len(content), b"\0"))
            assert follower.poll() == (records[:3] if cut == start else [])
        path.write_bytes(content)
        assert follower.poll() == records[3:]


def test_a_follower_does_not_step_over_damage(tmp_path: Path) -> None:
    with Journal.open(tmp_path, node="a", segment_bytes=SMALL) as journal:
        records = fill(journal, 4)
    flip(segments(tmp_path)[0], frame_spans(segments(tmp_path)[0])[1][0] + 10)
    with Follower(tmp_path) as follower:
        assert follower.poll() == records[:1]
        with pytest.raises(JournalCorrupt, match="entry 2 is damaged"):
            follower.poll()


WRITER = """
import sys
sys.path[:0] = [{tests!r}]
from journal_tools import fill
from host.journal import Journal
journal = Journal.open({folder!r}, node="a", segment_bytes=1 << 16)
while journal.last_lsn < 20_000:
    fill(journal, 100)
    if journal.last_lsn % 5_000 == 0:
        journal.write_snapshot(journal.last_lsn - 3_000, b"state")
journal.close()
"""


def test_a_reader_in_another_process_sees_every_entry_in_order(tmp_path: Path) -> None:
    script = WRITER.format(tests=str(Path(__file__).parent), folder=str(tmp_path))
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    deadline = time.monotonic() + 60
    with (
        subprocess.Popen([sys.executable, "-c", script], env=environment) as child,
        Follower(tmp_path) as follower,
    ):
        expected = 1
        while expected <= 20_000:
            assert time.monotonic() < deadline
            records = follower.poll()
            assert [record.lsn for record in records] == list(range(expected, expected + len(records)))
            assert all(record.entry == alert(record.lsn) for record in records)
            expected += len(records)
        assert child.wait(30) == 0
    assert len(segments(tmp_path)) > 10
