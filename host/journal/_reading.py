"""The readers' side: entries in order, from any LSN, while a writer may be adding more."""

import os
from bisect import bisect_right
from collections.abc import Iterator
from pathlib import Path
from typing import Self

import msgspec

from host.core.entries import Record
from host.journal._errors import JournalCorrupt, JournalError, JournalPruned
from host.journal._format import FRAME, frames, lsn_of
from host.journal._journal import Journal
from host.journal._recovery import check_tail
from host.journal._segments import Segment, list_segments, open_segment

__all__ = ["Follower", "Source", "decode", "payloads", "read"]

Source = str | Path | Journal
"""A journal's folder, or the journal itself, which knows where its latest entries are."""

_decode = msgspec.msgpack.Decoder(Record).decode


class _Cursor:
    """Walks payloads across segments; at the end it can be asked again. Never writes."""

    def __init__(self, source: Source, from_lsn: int) -> None:
        self.folder = source.folder if isinstance(source, Journal) else Path(source)
        if not self.folder.is_dir():
            raise JournalError("there is no journal here: the folder does not exist", path=self.folder)
        if from_lsn < 1:
            raise JournalError(f"from_lsn should be at least 1, was {from_lsn}", path=self.folder)
        self.next_lsn = from_lsn
        self._lsn = from_lsn  # of the frame at _offset; below next_lsn while skipping
        self._segment: Segment | None = None
        self._offset = 0
        self._start = source.locate(from_lsn) if isinstance(source, Journal) else None

    def payloads(self) -> Iterator[bytes]:
        """Yield payloads from `next_lsn` on, up to the last whole one."""
        while self._segment is not None or self._enter():
            segment = self._segment
            assert segment is not None
            for offset, payload in frames(segment.fd, self._offset):
                if lsn_of(payload) != self._lsn:
                    raise JournalCorrupt(
                        f"entry {self._lsn} should be here, was {lsn_of(payload)}; "
                        "restore the file from a copy",
                        path=segment.path,
                        offset=offset,
                    )
                self._offset = offset + FRAME.size + len(payload)
                self._lsn += 1
                if self._lsn > self.next_lsn:
                    self.next_lsn = self._lsn
                    yield payload
            if not self._is_rolled(segment):
                return
            self.close()

    def is_cut_short(self) -> bool:
        """Return whether there is something where the next frame should be, but not a whole one."""
        return self._segment is not None and any(os.pread(self._segment.fd, FRAME.size, self._offset))

    def check_end(self) -> bool:
        """Return whether there is more after all; raises `JournalCorrupt` when damage hides entries."""
        segment = self._segment
        if segment is None:
            return False
        try:
            check_tail(segment, self._offset, self._lsn)
        except JournalCorrupt:
            # A writer finishes a frame before it starts the next, so if the frame here was only
            # incomplete when it was first looked at, it is whole now.
            if next(frames(segment.fd, self._offset), None) is None:
                raise
            return True
        return False

    def close(self) -> None:
        """Let go of the open segment; the next call opens what it needs."""
        if self._segment is not None:
            self._segment.close()
            self._segment = None

    def _enter(self) -> bool:
        # A writer may prune between the listing and the opening; then the listing is stale.
        while segments := list_segments(self.folder):
            index = bisect_right(segments, self.next_lsn, key=lambda item: item[0]) - 1
            if index < 0:
                raise JournalPruned(self.folder, self.next_lsn, segments[0][0])
            first_lsn, path = segments[index]
            try:
                segment = open_segment(path)
            except FileNotFoundError:
                continue
            self._segment, self._lsn, self._offset = segment, first_lsn, segment.start
            if self._start is not None and self._start[0] == first_lsn:
                _, self._lsn, self._offset = self._start
            self._start = None
            return True
        return False

    def _is_rolled(self, segment: Segment) -> bool:
        later = [first for first, _ in list_segments(self.folder) if first > segment.header.first_lsn]
        if not later:
            return False
        if self._lsn in later:
            return True
        if next(frames(segment.fd, self._offset), None) is not None:
            return True  # written, and rolled, since the walk ended: enter it again
        if segment.path.exists():
            raise JournalCorrupt(
                f"entry {self._lsn} should be here or start the next segment, which starts with {later[0]}; "
                "restore the missing segment or entries from a copy",
                path=segment.path,
                offset=self._offset,
            )
        raise JournalPruned(self.folder, self._lsn, later[0])


def decode(payload: bytes) -> Record:
    """Return the record in a payload; raises `JournalCorrupt` for one that this version cannot read."""
    try:
        return _decode(payload)
    except msgspec.MsgspecError as error:
        raise JournalCorrupt(
            f"an entry is whole but not readable here ({error}); run the version of tandem that wrote it"
        ) from error


def payloads(source: Source, from_lsn: int = 1) -> Iterator[bytes]:
    """Yield encoded records from `from_lsn` up to the last whole entry; see `read`."""
    cursor = _Cursor(source, from_lsn)
    try:
        yield from cursor.payloads()
        if isinstance(source, Journal) and cursor.next_lsn > source.flushed_lsn:
            return  # that was all there is, by the writer's own word
        while cursor.check_end():
            yield from cursor.payloads()
    finally:
        cursor.close()


def read(source: Source, from_lsn: int = 1) -> Iterator[Record]:
    """Yield the flushed entries from `from_lsn` up to the last whole one, and stop there.

    Works while this or another process writes. Raises `JournalPruned` where `from_lsn` is no longer
    there, `JournalCorrupt` for damage with entries after it. Files are never changed.
    """
    for payload in payloads(source, from_lsn):
        yield decode(payload)


class Follower:
    """Follows a live journal across segments and pruning, from `from_lsn` on."""

    def __init__(self, source: Source, from_lsn: int = 1) -> None:
        self._cursor = _Cursor(source, from_lsn)
        self._checked_lsn = 0

    @property
    def next_lsn(self) -> int:
        """Return the LSN of the first entry not handed out yet."""
        return self._cursor.next_lsn

    def poll(self, max_records: int = 1000) -> list[Record]:
        """Return what was flushed since the last poll, at most `max_records`; empty if nothing.

        Raises `JournalPruned` when this follower fell behind pruning, `JournalCorrupt` for damage.
        """
        records: list[Record] = []
        for payload in self._cursor.payloads():
            records.append(decode(payload))
            if len(records) >= max_records:
                return records
        if not records and self._checked_lsn != self.next_lsn and self._cursor.is_cut_short():
            self._checked_lsn = self.next_lsn
            self._cursor.check_end()
        return records

    def close(self) -> None:
        """Let go of the open file."""
        self._cursor.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
