"""Appending, flushing and reading back."""

import typing
from pathlib import Path

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from journal_tools import ENTRIES, SMALL, TS, alert, fill, frame_spans, segments

from host.core.entries import Entry, Record
from host.journal import Journal, JournalCorrupt, JournalError, JournalPruned, journal_digest, read


def test_a_new_journal_starts_at_lsn_1(tmp_path: Path) -> None:
    with Journal.open(tmp_path / "new" / "journal", node="a", segment_bytes=SMALL) as journal:
        assert (journal.last_lsn, journal.durable_lsn, journal.repaired) == (0, 0, None)
        assert journal.append(alert(1), TS) == 1
        assert journal.append(alert(2), TS) == 2
        assert journal.last_lsn == 2


def test_readers_see_what_was_flushed_and_nothing_else(tmp_path: Path) -> None:
    with Journal.open(tmp_path, node="a", segment_bytes=SMALL) as journal:
        journal.append(alert(1), TS)
        assert list(read(tmp_path)) == []
        assert journal.durable_lsn == 0
        journal.flush()
        journal.append(alert(2), TS)
        assert list(read(tmp_path)) == [Record(1, TS, alert(1))]
        assert journal.durable_lsn == 1


def test_a_flush_is_one_write_of_all_pending_entries(tmp_path: Path) -> None:
    with Journal.open(tmp_path, node="a", segment_bytes=SMALL) as journal:
        for number in (1, 2, 3):
            journal.append(alert(number), TS)
        journal.flush()
        spans = frame_spans(segments(tmp_path)[0])
        assert len(spans) == 3
        assert journal.bytes_written == spans[-1][1] - spans[0][0]
        journal.flush()
        assert journal.bytes_written == spans[-1][1] - spans[0][0]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(entries=st.lists(ENTRIES, max_size=20), data=st.data())
def test_any_entries_read_back_equal(
    tmp_path_factory: pytest.TempPathFactory, entries: list[Entry], data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("journal")
    records = [Record(lsn, TS + lsn, entry) for lsn, entry in enumerate(entries, 1)]
    with Journal.open(folder, node="a", segment_bytes=SMALL) as journal:
        for record in records:
            journal.append(record.entry, record.ts_ns)
            if data.draw(st.booleans()):
                journal.flush()
    encode = msgspec.msgpack.encode
    assert [encode(record) for record in read(folder)] == [encode(record) for record in records]
    assert list(read(folder)) == records


def test_every_kind_of_entry_is_drawn_by_the_property_tests() -> None:
    assert len(typing.get_args(Entry)) == 38  # a new kind: see that `anything` can draw it


def test_reopening_goes_on_after_the_last_entry(tmp_path: Path) -> None:
    with Journal.open(tmp_path, node="a", segment_bytes=SMALL) as journal:
        records = fill(journal, 3)
    with Journal.open(tmp_path, node="a", segment_bytes=SMALL) as journal:
        assert (journal.last_lsn, journal.durable_lsn) == (3, 3)
        records += fill(journal, 2)
    assert list(read(tmp_path)) == records


def test_a_full_segment_is_followed_by_the_next(tmp_path: Path) -> None:
    with Journal.open(tmp_path, node="a", segment_bytes=SMALL) as journal:
        records = fill(journal, 500, size=300)
        assert list(read(journal)) == records
    names = [path.name for path in segments(tmp_path)]
    assert names[0] == "00000000000000000001.seg"
    assert len(names) == 3
    assert all(path.stat().st_size == SMALL for path in segments(tmp_path))
    assert list(read(tmp_path)) == records


def test_one_flush_larger_than_a_segment_fills_several(tmp_path: Path) -> None:
    with Journal.open(tmp_path, node="a", segment_bytes=SMALL) as journal:
        for number in range(1, 801):
            journal.append(alert(number, size=300), TS)
        journal.flush()
        assert journal.durable_lsn == 800
    assert len(segments(tmp_path)) == 4 + 1
    assert [record.lsn for record in read(tmp_path)] == list(range(1, 801))


def test_an_entry_that_fits_no_segment_is_refused_and_takes_no_lsn(tmp_path: Path) -> None:
    with Journal.open(tmp_path, node="a", segment_bytes=SMALL) as journal:
        with pytest.raises(JournalError, match="Alert takes 7"):
            journal.append(alert(1, size=70_000), TS)
        assert journal.append(alert(1, size=63_000), TS) == 1
        journal.append(alert(2, size=63_000), TS)
        journal.flush()
    assert [record.lsn for record in read(tmp_path)] == [1, 2]


@pytest.mark.parametrize("from_lsn", [1, 2, 99, 250, 499, 500, 501, 1000])
def test_reading_starts_at_any_lsn(tmp_path: Path, from_lsn: int) -> None:
    with Journal.open(tmp_path, node="a", segment_bytes=SMALL) as journal:
        records = fill(journal, 500, size=300)
        assert list(read(tmp_path, from_lsn)) == records[from_lsn - 1 :]
        assert list(read(journal, from_lsn)) == records[from_lsn - 1 :]


def test_the_journal_knows_where_its_latest_entries_are(tmp_path: Path) -> None:
    with Journal.open(tmp_path, node="a", segment_bytes=SMALL) as journal:
        fill(journal, 500, size=300)
        found = journal.locate(498)
        assert found is not None
        first_lsn, lsn, offset = found
        assert segments(tmp_path)[-1].name == f"{first_lsn:020d}.seg"
        assert 498 - lsn < 10  # a sixty-fourth of a segment is a kilobyte here
        assert (offset, lsn) in [
            (start, first_lsn + i) for i, (start, _) in enumerate(frame_spans(segments(tmp_path)[-1]))
        ]
        assert journal.locate(1) is None


def test_reading_needs_a_folder_and_a_possible_lsn(tmp_path: Path) -> None:
    with pytest.raises(JournalError, match="no journal here"):
        list(read(tmp_path / "absent"))
    with pytest.raises(JournalError, match="at least 1, was 0"):
        list(read(tmp_path, 0))


def test_a_closed_journal_refuses_entries_and_closes_again(tmp_path: Path) -> None:
    journal = Journal.open(tmp_path, node="a", segment_bytes=SMALL)
    journal.append(alert(1), TS)
    journal.close()
    journal.close()
    with pytest.raises(JournalError, match="closed"):
        journal.append(alert(2), TS)
    assert [record.lsn for record in read(tmp_path)] == [1]
    assert not (tmp_path / "next.blank").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"durability": "paper"}, "durability should be 'process', 'disk' or 'replica', was 'paper'"),
        ({"segment_bytes": 100}, "segment_bytes should be at least 4096, was 100"),
        ({"node": "a" * 3000}, "too long"),
    ],
)
def test_impossible_options_are_refused(tmp_path: Path, options: dict[str, typing.Any], message: str) -> None:
    with pytest.raises(JournalError, match=message):
        Journal.open(tmp_path, **{"node": "a", **options})


def test_the_digest_depends_on_entries_alone(tmp_path: Path) -> None:
    for name, segment_bytes, node in (("x", SMALL, "a"), ("y", 2 * SMALL, "b")):
        with Journal.open(tmp_path / name, node=node, segment_bytes=segment_bytes) as journal:
            fill(journal, 300, size=300)
    with Journal.open(tmp_path / "z", node="a", segment_bytes=SMALL) as journal:
        fill(journal, 299, size=300)
        journal.append(alert(300, size=300), TS)  # one nanosecond count differs
    digests = {name: journal_digest(tmp_path / name) for name in "xyz"}
    assert digests["x"] == digests["y"] != digests["z"]
    assert journal_digest(tmp_path / "x", 2) != digests["x"]
    assert len(digests["x"]) == 64


def test_reading_pruned_entries_names_the_first_one_left(tmp_path: Path) -> None:
    with Journal.open(tmp_path, node="a", segment_bytes=SMALL) as journal:
        fill(journal, 500, size=300)
        journal.write_snapshot(500, b"state")
        assert journal.prune(500) == 2
        with pytest.raises(JournalPruned) as caught:
            list(read(journal, 1))
        assert caught.value.first_lsn == journal.first_lsn == int(segments(tmp_path)[0].stem)
        assert next(iter(read(journal, 500))).lsn == 500


def test_an_entry_of_an_unknown_kind_is_named_when_it_is_read(tmp_path: Path) -> None:
    class Unknown(msgspec.Struct, array_like=True, tag_field="entry", tag="of_a_later_version"):
        text: str

    with Journal.open(tmp_path, node="a", segment_bytes=SMALL) as journal:
        journal.append(typing.cast(Entry, Unknown("?")), TS)
    with pytest.raises(JournalCorrupt, match="of_a_later_version"):
        list(read(tmp_path))
