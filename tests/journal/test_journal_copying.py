"""Entries as bytes: read by who wrote them, checked and written by who copies them."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from journal_tools import SMALL, alert, fill, flip

from host.journal import (
    FrameReader,
    Journal,
    JournalCorrupt,
    JournalError,
    JournalPruned,
    frame_crc,
    journal_digest,
    split_frames,
)


def all_frames(reader: FrameReader, max_bytes: int) -> bytes:
    data = b""
    while reader.is_behind:
        frames = reader.read(max_bytes)
        if frames.count:
            assert len(split_frames(frames.data, frames.first_lsn)) == frames.count
            assert frames.last_lsn == reader.next_lsn - 1
        data += frames.data
    return data


@settings(max_examples=30)
@given(
    sizes=st.lists(st.integers(0, 6_000), min_size=1, max_size=40),
    from_lsn=st.integers(1, 40),
    max_bytes=st.sampled_from([1, 500, 1 << 14, 1 << 16]),
)
def test_a_copy_has_the_same_entries_whatever_their_sizes_and_wherever_it_begins(
    tmp_path_factory: pytest.TempPathFactory, sizes: list[int], from_lsn: int, max_bytes: int
) -> None:
    folder = tmp_path_factory.mktemp("copying")
    from_lsn = min(from_lsn, len(sizes))
    with (
        Journal.open(folder / "a", node="a", segment_bytes=SMALL) as ours,
        Journal.open(folder / "b", node="b", segment_bytes=SMALL) as theirs,
    ):
        for size in sizes:
            fill(ours, 1, size)
        head = FrameReader(ours, 1)
        while head.next_lsn < from_lsn:
            frames = head.read(1)
            theirs.append_frames(split_frames(frames.data, frames.first_lsn)[: from_lsn - frames.first_lsn])
        head.close()
        theirs.flush()
        tail = FrameReader(ours, from_lsn)
        theirs.append_frames(split_frames(all_frames(tail, max_bytes), from_lsn))
        theirs.flush()
        tail.close()
    assert journal_digest(folder / "a") == journal_digest(folder / "b")


def test_a_reader_sees_what_is_flushed_and_nothing_else(tmp_path: Path) -> None:
    with Journal.open(tmp_path, node="a", segment_bytes=SMALL) as journal:
        fill(journal, 2)
        reader = FrameReader(journal, 1)
        assert len(split_frames(all_frames(reader, 1 << 16), 1)) == 2
        journal.append(alert(3), 1)
        assert reader.read(1 << 16).count == 0
        journal.flush()
        assert reader.read(1 << 16).count == 1
        assert reader.remaining_bytes() == 0
        reader.close()


def test_the_remaining_bytes_shrink_to_nothing(tmp_path: Path) -> None:
    with Journal.open(tmp_path, node="a", segment_bytes=SMALL) as journal:
        fill(journal, 200, 900)
        reader = FrameReader(journal, 1)
        remaining = [reader.remaining_bytes()]
        while reader.is_behind:
            reader.read(1 << 14)
            remaining.append(reader.remaining_bytes())
        reader.close()
    assert remaining == sorted(remaining, reverse=True)
    assert remaining[0] > 200 * 900
    assert remaining[-1] == 0


def test_what_is_pruned_is_said_to_be(tmp_path: Path) -> None:
    with Journal.open(tmp_path, node="a", segment_bytes=SMALL) as journal:
        fill(journal, 200, 900)
        journal.write_snapshot(199, b"x")
        journal.prune(200)
        reader = FrameReader(journal, 1)
        with pytest.raises(JournalPruned):
            reader.read(100)
        assert frame_crc(journal, 1) is None
        assert frame_crc(journal, 201) is None
        assert frame_crc(journal, 200) is not None


@settings(max_examples=100)
@given(data=st.data())
def test_no_changed_bit_passes(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    with Journal.open(tmp_path_factory.mktemp("bits"), node="a", segment_bytes=SMALL) as journal:
        fill(journal, 3)
        reader = FrameReader(journal, 1)
        frames = bytearray(reader.read(1 << 16).data)
        reader.close()
    bit = data.draw(st.integers(0, 8 * len(frames) - 1))
    frames[bit // 8] ^= 1 << bit % 8
    with pytest.raises(JournalCorrupt, match=r"entry [123]"):
        split_frames(bytes(frames), 1)


def test_frames_of_another_place_are_refused(tmp_path: Path) -> None:
    with Journal.open(tmp_path, node="a", segment_bytes=SMALL) as journal:
        fill(journal, 2)
        reader = FrameReader(journal, 2)
        frames = reader.read(1 << 16)
        reader.close()
    with pytest.raises(JournalCorrupt, match="entry 1 should have come, was 2"):
        split_frames(frames.data, 1)


def test_an_entry_that_fits_in_no_segment_here_is_refused_before_it_is_taken(tmp_path: Path) -> None:
    with (
        Journal.open(tmp_path / "a", node="a", segment_bytes=4 * SMALL) as ours,
        Journal.open(tmp_path / "b", node="b", segment_bytes=SMALL) as theirs,
    ):
        fill(ours, 1, 2 * SMALL)
        reader = FrameReader(ours, 1)
        frames = split_frames(all_frames(reader, 100), 1)
        reader.close()
        with pytest.raises(JournalError, match="set the segment size of the node that wrote it"):
            theirs.append_frames(frames)
        assert theirs.last_lsn == 0


def test_damage_that_ends_a_segment_early_is_said_where_it_is(tmp_path: Path) -> None:
    with Journal.open(tmp_path, node="a", segment_bytes=SMALL) as journal:
        fill(journal, 3)
        segment = next(tmp_path.glob("*.seg"))
        reader = FrameReader(journal, 1)
        size = len(reader.read(1 << 16).data) // 3
        reader.close()
        start = journal.written_to[1] - 2 * size
        for offset in range(4):
            value = segment.read_bytes()[start + offset]
            if value:
                flip(segment, start + offset, value)  # the length of the second entry is 0 now
        reader = FrameReader(journal, 1)
        assert reader.read(1 << 16).count == 1
        with pytest.raises(JournalCorrupt, match="entry 2 should be here"):
            reader.read(1 << 16)
        reader.close()


def test_whoever_follows_hears_of_every_flush_in_mapped_memory_too(tmp_path: Path) -> None:
    heard: list[int] = []
    with Journal.open(tmp_path, node="a", segment_bytes=SMALL) as journal:
        undo = journal.on_flushed(heard.append)
        fill(journal, 300, 500)
        assert heard == list(range(1, 301))
        undo()
        fill(journal, 1)
    assert heard[-1] == 300


def test_with_durability_replica_entries_are_durable_once_confirmed(tmp_path: Path) -> None:
    heard: list[int] = []
    with Journal.open(tmp_path, node="a", segment_bytes=SMALL, durability="replica") as journal:
        journal.on_durable(heard.append)
        fill(journal, 3)
        assert (journal.flushed_lsn, journal.durable_lsn, heard) == (3, 0, [])
        journal.confirm(2)
        journal.confirm(1)
        assert (journal.durable_lsn, heard) == (2, [2])
        journal.confirm(9)
        assert (journal.durable_lsn, heard) == (3, [2, 3])
