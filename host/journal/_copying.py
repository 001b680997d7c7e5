"""Entries as the bytes of a segment: read by the node that wrote them, checked by the node that copies them."""

import os
from bisect import bisect_right

import msgspec
from google_crc32c import value as crc32c
from msgspec import Struct

from host.journal._errors import JournalCorrupt, JournalPruned
from host.journal._format import FRAME, lsn_of
from host.journal._journal import Journal
from host.journal._segments import Segment, list_segments, open_segment

__all__ = ["FrameReader", "Frames", "crc_of", "frame_crc", "split_frames"]

_FIRST_READ = 1 << 12
"""What is new at the end of the journal is a few hundred bytes; reading more reads zeros."""


class Frames(Struct, frozen=True):
    """Whole frames in a row; `count` is 0 where there is nothing to read now."""

    first_lsn: int
    count: int
    data: bytes

    @property
    def last_lsn(self) -> int:
        """Return the LSN of the last one."""
        return self.first_lsn + self.count - 1


_unpack_length = FRAME.unpack_from


class FrameReader:
    """Reads the flushed entries of a journal that this process writes, from `from_lsn` on, in order.

    Made for the writer's own thread: a read looks at the lengths alone, about 0.2 µs an entry; whoever
    receives the bytes checks them. A read may return nothing although there is more: on its way to
    `from_lsn`, and between segments. `is_behind` tells.
    """

    def __init__(self, journal: Journal, from_lsn: int) -> None:
        self._journal = journal
        self.next_lsn = from_lsn
        """The first entry not read yet."""
        self._segment: Segment | None = None
        self._lsn = from_lsn  # of the frame at _offset; below next_lsn while skipping
        self._offset = 0
        self._want = _FIRST_READ

    @property
    def is_behind(self) -> bool:
        """Return whether there is more to read."""
        return self.next_lsn <= self._journal.flushed_lsn

    def read(self, max_bytes: int) -> Frames:
        """Return the next frames, about `max_bytes` of them and at least one where there is one here.

        Raises `JournalPruned` where they are gone, `JournalCorrupt` where a length cannot be.
        """
        if not self.is_behind:
            return Frames(self.next_lsn, 0, b"")
        segment = self._segment or self._enter()
        flushed = self._journal.flushed_lsn
        data = os.pread(segment.fd, self._want, self._offset)
        at, lsn, size = 0, self._lsn, len(data)
        start, length = 0, 0
        while lsn <= flushed and size - at >= FRAME.size:
            length = _unpack_length(data, at)[0]
            stop = at + FRAME.size + length
            if not length or stop > size:
                break
            at = stop
            lsn += 1
            if lsn == self.next_lsn:
                start = at
        count = lsn - max(self._lsn, self.next_lsn)
        if lsn == self._lsn:
            self._go_on(segment, size, length)
            return Frames(self.next_lsn, 0, b"")
        self._offset += at
        self._lsn = lsn
        self._want = max(min(2 * self._want, max_bytes), _FIRST_READ) if lsn <= flushed else _FIRST_READ
        if count <= 0:
            return Frames(self.next_lsn, 0, b"")
        first_lsn, self.next_lsn = self.next_lsn, lsn
        return Frames(first_lsn, count, data[start:at])

    def remaining_bytes(self) -> int:
        """Return how many bytes of segments are still to be read, at most."""
        if not self.is_behind:
            return 0
        segment = self._segment or self._enter()
        active, end = self._journal.written_to
        if active == segment.header.first_lsn:
            return end - self._offset
        between = sum(
            path.stat().st_size
            for first, path in list_segments(self._journal.folder)
            if segment.header.first_lsn < first < active
        )
        return segment.capacity - self._offset + between + end

    def close(self) -> None:
        """Let go of the open file."""
        if self._segment is not None:
            self._segment.close()
            self._segment = None

    def _enter(self) -> Segment:
        folder = self._journal.folder
        segments = list_segments(folder)
        index = bisect_right(segments, self.next_lsn, key=lambda item: item[0]) - 1
        if index < 0:
            raise JournalPruned(folder, self.next_lsn, segments[0][0] if segments else self.next_lsn)
        first_lsn, path = segments[index]
        try:
            segment = open_segment(path)
        except FileNotFoundError:
            raise JournalPruned(folder, self.next_lsn, self._journal.first_lsn) from None
        self._segment, self._lsn, self._offset = segment, first_lsn, segment.start
        near = self._journal.locate(self.next_lsn)
        if near is not None and near[0] == first_lsn:
            _, self._lsn, self._offset = near
        return segment

    def _go_on(self, segment: Segment, size: int, length: int) -> None:
        # Not one whole frame here, although there is more: a long frame, or the end of the segment.
        if length and self._offset + FRAME.size + length <= segment.capacity:
            self._want = FRAME.size + length
            if size >= self._want:
                raise AssertionError("a whole frame was read and not taken")
            return
        if not any(first == self._lsn for first, _ in list_segments(self._journal.folder)):
            raise JournalCorrupt(
                f"entry {self._lsn} should be here or start a segment; verify the journal",
                path=segment.path,
                offset=self._offset,
            )
        self.close()


def split_frames(data: bytes, first_lsn: int) -> list[bytes]:
    """Return the frames in `data`, checked to be whole and to count up from `first_lsn`.

    Raises `JournalCorrupt`, which says what is wrong with which entry.
    """
    frames: list[bytes] = []
    at, lsn, size = 0, first_lsn, len(data)
    while at < size:
        if size - at < FRAME.size:
            raise JournalCorrupt(f"entry {lsn} was received incomplete; it is asked for again")
        length, crc = _unpack_length(data, at)
        stop = at + FRAME.size + length
        payload = data[at + FRAME.size : stop]
        if not length or stop > size or crc32c(payload) != crc:
            raise JournalCorrupt(f"entry {lsn} was received damaged: its checksum does not match")
        try:
            found = lsn_of(payload)
        except msgspec.MsgspecError as error:
            raise JournalCorrupt(f"what should be entry {lsn} is not a journal entry ({error})") from error
        if found != lsn:
            raise JournalCorrupt(f"entry {lsn} should have come, was {found}")
        frames.append(data[at:stop])
        at = stop
        lsn += 1
    return frames


def frame_crc(journal: Journal, lsn: int) -> int | None:
    """Return the checksum of the payload of entry `lsn` as its frame has it; None where it is not held."""
    if not journal.first_lsn <= lsn <= journal.flushed_lsn:
        return None
    reader = FrameReader(journal, lsn)
    try:
        while True:
            found = reader.read(_FIRST_READ)
            if found.count:
                return crc_of(found.data)
    except JournalPruned:
        return None
    finally:
        reader.close()


def crc_of(frame: bytes) -> int:
    """Return the checksum that a frame carries of its payload."""
    crc: int = _unpack_length(frame)[1]
    return crc
