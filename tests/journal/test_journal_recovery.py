"""Taking up a journal after a crash, and refusing one that is damaged."""

import shutil
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from journal_tools import SMALL, TS, alert, fill, flip, frame_spans, segments

from host.core.entries import Record
from host.journal import Journal, JournalCorrupt, TornTail, read, verify
from host.journal._format import SegmentHeader, pack_header


def written(folder: Path, count: int, size: int = 0) -> list[Record]:
    with Journal.open(folder, node="a", segment_bytes=SMALL) as journal:
        return fill(journal, count, size)


@pytest.mark.parametrize("leaves", ["a short file", "zeros"])
def test_a_cut_at_every_byte_of_the_last_entries_keeps_the_whole_ones(tmp_path: Path, leaves: str) -> None:
    records = written(tmp_path, 6)
    path = segments(tmp_path)[0]
    content = path.read_bytes()
    spans = frame_spans(path)
    for cut in range(spans[2][0], spans[-1][1]):
        kept = content[:cut]
        path.write_bytes(kept if leaves == "a short file" else kept.ljust(len(content), b"\0"))
        whole = [record for record, (_, end) in zip(records, spans, strict=True) if end <= cut]
        end = spans[len(whole) - 1][1]
        assert list(read(tmp_path)) == whole
        with Journal.open(tmp_path, node="a", segment_bytes=SMALL) as journal:
            assert journal.last_lsn == len(whole)
            dropped = len(kept[end:].rstrip(b"\0"))
            assert journal.repaired == (TornTail(path.name, end, dropped) if dropped else None)
            more = fill(journal, 1)
        assert list(read(tmp_path)) == whole + more
        assert path.stat().st_size == SMALL


def test_a_flipped_byte_before_the_last_entry_is_damage(tmp_path: Path) -> None:
    written(tmp_path, 6)
    path = segments(tmp_path)[0]
    for offset in range(frame_spans(path)[-1][0]):
        for mask in (0x01, 0x80, 0xFF):
            flip(path, offset, mask)
            with pytest.raises(JournalCorrupt, match=path.name):
                Journal.open(tmp_path, node="a", segment_bytes=SMALL)
            flip(path, offset, mask)
    Journal.open(tmp_path, node="a", segment_bytes=SMALL).close()


def test_a_flipped_byte_in_the_last_entry_is_a_torn_tail(tmp_path: Path) -> None:
    records = written(tmp_path, 4)
    path = segments(tmp_path)[0]
    content = path.read_bytes()
    start, end = frame_spans(path)[-1]
    for offset in range(start, end):
        path.write_bytes(content)
        flip(path, offset)
        with Journal.open(tmp_path, node="a", segment_bytes=SMALL) as journal:
            assert journal.repaired is not None
            assert (journal.repaired.segment, journal.repaired.offset) == (path.name, start)
            assert 0 < journal.repaired.bytes_dropped <= end - start
        assert list(read(tmp_path)) == records[:3]


def test_nothing_of_a_torn_tail_is_left_behind_a_shorter_entry(tmp_path: Path) -> None:
    records = written(tmp_path, 2, size=500)
    path = segments(tmp_path)[0]
    flip(path, frame_spans(path)[1][0] + 8)
    with Journal.open(tmp_path, node="a", segment_bytes=SMALL) as journal:
        assert journal.repaired is not None
        more = fill(journal, 1)
    end = frame_spans(path)[-1][1]
    assert not any(path.read_bytes()[end:])
    with Journal.open(tmp_path, node="a", segment_bytes=SMALL) as journal:
        assert journal.repaired is None
        assert list(read(journal)) == records[:1] + more


def test_damage_names_the_segment_the_offset_and_what_follows(tmp_path: Path) -> None:
    written(tmp_path, 6)
    path = segments(tmp_path)[0]
    spans = frame_spans(path)
    flip(path, spans[2][0] + 12)
    with pytest.raises(JournalCorrupt) as caught:
        Journal.open(tmp_path, node="a", segment_bytes=SMALL)
    assert (caught.value.path, caught.value.offset) == (path, spans[2][0])
    assert f"entry 3 is damaged, and entry 4 follows at byte {spans[3][0]}" in str(caught.value)
    with pytest.raises(JournalCorrupt, match="entry 3 is damaged"):
        list(read(tmp_path))


def test_damage_at_the_end_of_an_earlier_segment_is_not_a_torn_tail(tmp_path: Path) -> None:
    written(tmp_path, 500, size=300)
    path = segments(tmp_path)[0]
    flip(path, frame_spans(path)[-1][0] + 20)
    with pytest.raises(JournalCorrupt, match=path.name):
        Journal.open(tmp_path, node="a", segment_bytes=SMALL)
    with pytest.raises(JournalCorrupt, match=path.name):
        list(read(tmp_path))


def test_a_missing_segment_in_the_middle_is_found(tmp_path: Path) -> None:
    written(tmp_path, 500, size=300)
    first, middle, last = segments(tmp_path)
    middle.unlink()
    with pytest.raises(JournalCorrupt, match=f"next one starts with {int(last.stem)}") as caught:
        Journal.open(tmp_path, node="a", segment_bytes=SMALL)
    assert caught.value.path == first
    with pytest.raises(JournalCorrupt, match=f"starts with {int(last.stem)}"):
        list(read(tmp_path))


def test_a_missing_first_segment_that_no_snapshot_covers_is_found(tmp_path: Path) -> None:
    written(tmp_path, 500, size=300)
    first, second, _ = segments(tmp_path)
    first.unlink()
    with pytest.raises(JournalCorrupt, match=f"entries 1 to {int(second.stem) - 1} are missing"):
        Journal.open(tmp_path, node="a", segment_bytes=SMALL)


def test_segments_gone_beside_a_snapshot_are_missed(tmp_path: Path) -> None:
    with Journal.open(tmp_path, node="a", segment_bytes=SMALL) as journal:
        fill(journal, 3)
        journal.write_snapshot(3, b"state")
    segments(tmp_path)[0].unlink()
    with pytest.raises(JournalCorrupt, match="snapshot of entry 3 but no segment"):
        Journal.open(tmp_path, node="a", segment_bytes=SMALL)


def test_a_snapshot_ahead_of_the_log_is_refused(tmp_path: Path) -> None:
    with Journal.open(tmp_path, node="a", segment_bytes=SMALL) as journal:
        fill(journal, 3)
        journal.write_snapshot(3, b"state")
    path = segments(tmp_path)[0]
    flip(path, frame_spans(path)[-1][0])
    with pytest.raises(JournalCorrupt, match="ends with entry 2, a snapshot is of entry 3"):
        Journal.open(tmp_path, node="a", segment_bytes=SMALL)


def test_a_jump_between_entries_is_found(tmp_path: Path) -> None:
    written(tmp_path, 5)
    path = segments(tmp_path)[0]
    content, spans = path.read_bytes(), frame_spans(path)
    (start, end) = spans[2]
    path.write_bytes((content[:start] + content[end:]).ljust(len(content), b"\0"))
    with pytest.raises(JournalCorrupt, match="entry 3 should be here, was 4") as caught:
        Journal.open(tmp_path, node="a", segment_bytes=SMALL)
    assert caught.value.offset == start


@pytest.mark.parametrize(("node", "cell"), [("b", "main"), ("a", "other")])
def test_the_journal_of_another_node_is_refused(tmp_path: Path, node: str, cell: str) -> None:
    written(tmp_path, 1)
    with pytest.raises(
        JournalCorrupt, match=f"node 'a' in cell 'main', expected node '{node}' in cell '{cell}'"
    ):
        Journal.open(tmp_path, node=node, cell=cell, segment_bytes=SMALL)


def test_a_newer_format_is_refused(tmp_path: Path) -> None:
    written(tmp_path, 1)
    path = segments(tmp_path)[0]
    flip(path, 8, 0x03)
    with pytest.raises(JournalCorrupt, match="format version 2 is newer than this program reads"):
        Journal.open(tmp_path, node="a", segment_bytes=SMALL)


def test_a_renamed_segment_is_refused(tmp_path: Path) -> None:
    written(tmp_path, 1)
    segments(tmp_path)[0].rename(tmp_path / "00000000000000000007.seg")
    with pytest.raises(JournalCorrupt, match="starts with entry 1, the name says 7"):
        list(read(tmp_path, 7))


def test_a_segment_that_kept_only_its_name_is_dropped(tmp_path: Path) -> None:
    records = written(tmp_path, 3)
    unborn = tmp_path / "00000000000000000004.seg"
    unborn.write_bytes(bytes(SMALL))
    with Journal.open(tmp_path, node="a", segment_bytes=SMALL) as journal:
        assert journal.repaired == TornTail(unborn.name, 0, 0)
        records += fill(journal, 1)
    assert list(read(tmp_path)) == records


def test_a_segment_without_entries_is_gone_on_with(tmp_path: Path) -> None:
    records = written(tmp_path, 3)
    fresh = tmp_path / "00000000000000000004.seg"
    fresh.write_bytes(pack_header(SegmentHeader("a", "main", 4)).ljust(SMALL, b"\0"))
    assert list(read(tmp_path)) == records
    with Journal.open(tmp_path, node="a", segment_bytes=SMALL) as journal:
        assert (journal.last_lsn, journal.repaired) == (3, None)
        records += fill(journal, 1)
    assert len(frame_spans(fresh)) == 1
    assert list(read(tmp_path)) == records


ACTIONS = st.lists(
    st.one_of(
        st.tuples(st.just("append"), st.integers(0, 6000)),
        st.tuples(st.just("flush"), st.just(0)),
        st.tuples(st.just("crash"), st.integers(0, 9000)),
    ),
    max_size=40,
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(actions=ACTIONS)
def test_a_crash_keeps_exactly_the_flushed_whole_entries(
    tmp_path_factory: pytest.TempPathFactory, actions: list[tuple[str, int]]
) -> None:
    root = tmp_path_factory.mktemp("journal")
    folder = root / "0"
    journal = Journal.open(folder, node="a", segment_bytes=1 << 14)
    flushed: list[Record] = []
    pending: list[Record] = []
    for number, (action, amount) in enumerate([*actions, ("crash", 0)], 1):
        if action == "append":
            lsn = journal.append(alert(number, size=amount), TS + number)
            pending.append(Record(lsn, TS + number, alert(number, size=amount)))
        elif action == "flush":
            journal.flush()
            flushed += pending
            pending = []
        else:  # the folder as a killed process leaves it, its last bytes lost
            shutil.copytree(folder, root / str(number), ignore=shutil.ignore_patterns("writer.lock"))
            journal.close()
            folder = root / str(number)
            path = segments(folder)[-1]
            spans = frame_spans(path)
            if spans:
                cut = max(spans[-1][1] - amount, spans[0][0])
                path.write_bytes(path.read_bytes()[:cut].ljust(1 << 14, b"\0"))
                lost = sum(1 for _, end in spans if end > cut)
                flushed = flushed[: len(flushed) - lost]
            pending = []
            journal = Journal.open(folder, node="a", segment_bytes=1 << 14)
            assert journal.last_lsn == len(flushed)
            assert list(read(folder)) == flushed
    journal.close()


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_no_flipped_bytes_ever_give_a_wrong_record(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("journal")
    with Journal.open(folder, node="a", segment_bytes=4096) as journal:
        records = fill(journal, 12, size=500)
    assert len(segments(folder)) == 2
    flips = st.tuples(st.integers(0, 1), st.integers(0, 4095), st.integers(1, 255))
    for index, offset, mask in data.draw(st.lists(flips, min_size=1, max_size=8)):
        flip(segments(folder)[index], offset, mask)
    seen: list[Record] = []
    with suppress(JournalCorrupt):  # to say so is the other allowed outcome
        seen.extend(read(folder))
    assert seen == records[: len(seen)]
    report = verify(folder)
    try:
        with Journal.open(folder, node="a", segment_bytes=4096) as journal:
            assert report.is_sound
            assert list(read(journal)) == records[: journal.last_lsn]
            assert journal.repaired == report.torn_tail
            assert journal.repaired is not None or journal.last_lsn == 12
    except JournalCorrupt:
        assert not report.is_sound
