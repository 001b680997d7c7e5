"""Taking up a journal: check every segment, repair a torn tail, find where to go on.

The whole log is walked (about a third of a second per 64 MiB): pruning bounds it, and damage is
better found before trading than after.
"""

import os
from collections.abc import Callable
from pathlib import Path

import msgspec
from msgspec import Struct

from host.journal._errors import JournalCorrupt, JournalError
from host.journal._format import FRAME, SegmentHeader, Tail, examine_tail, frames, lsn_of
from host.journal._segments import (
    Segment,
    create_segment,
    list_segments,
    open_segment,
    preallocate,
    sync_folder,
)
from host.journal._snapshots import list_snapshots
from host.journal._spare import SPARE_NAME

__all__ = ["Recovered", "TornTail", "check_join", "check_tail", "recover", "walk"]


class TornTail(Struct, frozen=True):
    """A last entry that was never written whole. `bytes_dropped` is 0 for an empty segment file."""

    segment: str
    offset: int
    bytes_dropped: int


class Recovered(Struct):
    """Where writing goes on."""

    segment: Segment
    offset: int
    first_lsn: int
    next_lsn: int
    repaired: TornTail | None


def walk(segment: Segment, visit: Callable[[bytes], None] | None = None) -> tuple[int, int]:
    """Return (offset after the last whole frame, LSN after it); raises `JournalCorrupt` for a jump.

    `visit` is called with each payload.
    """
    end, expected = segment.start, segment.header.first_lsn
    for offset, payload in frames(segment.fd, end):
        try:
            lsn = lsn_of(payload)
        except msgspec.MsgspecError as error:
            raise JournalCorrupt(
                f"what should be entry {expected} is not a journal entry ({error})",
                path=segment.path,
                offset=offset,
            ) from error
        if lsn != expected:
            raise JournalCorrupt(
                f"entry {expected} should be here, was {lsn}; restore the file from a copy",
                path=segment.path,
                offset=offset,
            )
        if visit is not None:
            visit(payload)
        expected += 1
        end = offset + FRAME.size + len(payload)
    return end, expected


def check_tail(segment: Segment, offset: int, next_lsn: int) -> Tail:
    """Look at what follows the last whole frame; raises `JournalCorrupt` when entries follow damage."""
    tail = examine_tail(segment.fd, offset, next_lsn)
    if tail.later_offset is not None:
        raise JournalCorrupt(
            f"entry {next_lsn} is damaged, and entry {tail.later_lsn} follows at byte {tail.later_offset}; "
            "restore the file from a copy, or start from the standby's journal",
            path=segment.path,
            offset=offset,
        )
    return tail


def recover(folder: Path, node: str, cell: str, segment_bytes: int) -> Recovered:
    """Return where to go on in `folder`, creating the first segment where there is none."""
    (folder / SPARE_NAME).unlink(missing_ok=True)
    repaired = _drop_unborn(folder)
    segments = list_segments(folder)
    newest_snapshot = max((lsn for lsn, _ in list_snapshots(folder)), default=0)
    if not segments:
        if newest_snapshot:
            raise JournalCorrupt(
                f"there is a snapshot of entry {newest_snapshot} but no segment; "
                "restore the segments from a copy",
                path=folder,
            )
        blank = folder / SPARE_NAME
        fd = preallocate(blank, segment_bytes)
        segment = create_segment(folder, SegmentHeader(node, cell, 1), blank, fd, segment_bytes)
        sync_folder(folder)
        return Recovered(segment, segment.start, 1, 1, repaired)
    oldest_needed = min((lsn for lsn, _ in list_snapshots(folder)), default=0) + 1
    if segments[0][0] > oldest_needed:
        raise JournalCorrupt(
            f"entries {oldest_needed} to {segments[0][0] - 1} are missing: no snapshot covers them; "
            "restore the missing segments from a copy",
            path=folder,
        )
    for index, (_, path) in enumerate(segments):
        is_active = index == len(segments) - 1
        segment = open_segment(path, writable=is_active)
        try:
            _check_owner(segment, node, cell)
            offset, next_lsn = walk(segment)
            tail = check_tail(segment, offset, next_lsn)
            if not is_active:
                check_join(segment, offset, next_lsn, tail, segments[index + 1][0])
        except BaseException:
            segment.close()
            raise
        if not is_active:
            segment.close()
    try:
        if newest_snapshot >= next_lsn:
            raise JournalCorrupt(
                f"the log ends with entry {next_lsn - 1}, a snapshot is of entry {newest_snapshot}; "
                "restore the missing entries from a copy, or move the snapshot away",
                path=segment.path,
                offset=offset,
            )
        if tail.dirty_bytes:
            _zero(segment, offset, tail.dirty_bytes)
            repaired = TornTail(path.name, offset, tail.dirty_bytes)
        _claim_room(segment, segment_bytes)
    except BaseException:
        segment.close()
        raise
    return Recovered(segment, offset, segments[0][0], next_lsn, repaired)


def _drop_unborn(folder: Path) -> TornTail | None:
    # A machine that lost power may have kept the new segment's name and lost its header: a file of
    # zeros holds nothing, and the segment before it is the last one.
    segments = list_segments(folder)
    if not segments:
        return None
    path = segments[-1][1]
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            if chunk.strip(b"\0"):
                return None
    path.unlink()
    return TornTail(path.name, 0, 0)


def _check_owner(segment: Segment, node: str, cell: str) -> None:
    header = segment.header
    if (header.node, header.cell) != (node, cell):
        raise JournalCorrupt(
            f"this is the journal of node {header.node!r} in cell {header.cell!r}, expected node {node!r} "
            f"in cell {cell!r}; correct the node's name or its data_dir",
            path=segment.path,
            offset=0,
        )


def check_join(segment: Segment, offset: int, next_lsn: int, tail: Tail, following: int) -> None:
    """Raise `JournalCorrupt` unless the segment ends clean, right before entry `following`."""
    if tail.dirty_bytes:
        raise JournalCorrupt(
            f"entry {next_lsn} is damaged, and the segment of entry {following} follows; "
            "restore the file from a copy, or start from the standby's journal",
            path=segment.path,
            offset=offset,
        )
    if next_lsn != following:
        raise JournalCorrupt(
            f"the segment ends with entry {next_lsn - 1}, the next one starts with {following}; "
            "restore the missing segment or entries from a copy",
            path=segment.path,
            offset=offset,
        )


def _zero(segment: Segment, offset: int, size: int) -> None:
    # Overwritten, not truncated: the room that the file has stays its own.
    try:
        os.pwrite(segment.fd, bytes(size), offset)
        os.fdatasync(segment.fd)
    except OSError as error:
        raise JournalError(
            "cannot repair the torn tail", path=segment.path, offset=offset, errno=error.errno
        ) from error


def _claim_room(segment: Segment, segment_bytes: int) -> None:
    size = max(segment.capacity, segment_bytes)
    try:
        os.posix_fallocate(segment.fd, 0, size)
    except OSError:
        return  # what the file has is its own; the journal reports low space when it comes to that
    segment.capacity = size
