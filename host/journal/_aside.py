"""Setting entries aside: what another node's journal shows to be no part of the cell's history.

Nothing is deleted. What is taken out goes to a folder `<journal>.aside/<first>-<last>-<time>` beside
the journal, which is itself a journal that `read` and `tandem journal` can read. Both operations take
the writer's lock, so the journal must be closed; a process that dies in the middle leaves a journal that
opens, at worst without entries, and the standby fetches them again.
"""

import os
from pathlib import Path
from shutil import rmtree

from msgspec import Struct

from host.journal._errors import JournalError, JournalPruned
from host.journal._format import FRAME, SegmentHeader, frames, lsn_of
from host.journal._lock import acquire_lock
from host.journal._segments import (
    Segment,
    create_segment,
    list_segments,
    open_segment,
    preallocate,
    sync_folder,
)
from host.journal._snapshots import list_snapshots, write_snapshot
from host.journal._spare import SPARE_NAME

__all__ = ["KeptAside", "cut_tail", "replace_journal"]

_COPIED_AT_A_TIME = 1 << 20


class KeptAside(Struct, frozen=True):
    """Entries that are no longer in the journal, and the folder that has them; LSNs are 0 where none were."""

    folder: Path
    first_lsn: int
    last_lsn: int


def aside_folder(folder: Path) -> Path:
    """Return where what is taken out of the journal in `folder` is kept."""
    return folder.with_name(f"{folder.name}.aside")


def cut_tail(folder: Path, after_lsn: int, now_ns: int) -> KeptAside | None:
    """Take every entry after `after_lsn` out of a closed journal; return where they are, None if none were.

    `now_ns` (Unix time) only names the folder. Raises `JournalPruned` where the journal could not be read
    without them: every snapshot is of a later entry, and the entries before are pruned. Then replace it.
    """
    with acquire_lock(folder):
        segments = list_segments(folder)
        snapshots = list_snapshots(folder)
        later = [(lsn, path) for lsn, path in snapshots if lsn > after_lsn]
        first_held = segments[0][0] if segments else 1
        if (first_held > 1 and len(later) == len(snapshots)) or first_held > after_lsn + 1:
            raise JournalPruned(folder, after_lsn, first_held)
        kept = _copy_tail(folder, segments, after_lsn, now_ns)
        if kept is None:
            return None
        # Snapshots first, then segments from the last one: at no moment is a snapshot ahead of the log.
        for _, path in later:
            path.rename(kept.folder / path.name)
        sync_folder(kept.folder)
        for first_lsn, path in reversed(segments):
            if first_lsn <= after_lsn + 1:
                _end_after(path, after_lsn)
                break
            path.unlink()
        sync_folder(folder)
        return kept


def replace_journal(
    folder: Path, *, node: str, cell: str, lsn: int, snapshot: bytes, segment_bytes: int, now_ns: int
) -> KeptAside | None:
    """Put a journal that starts with `snapshot`, the state after entry `lsn`, in the place of the closed one.

    With `lsn` 0 there is no snapshot: the new journal is empty. Returns where the old one is, None if
    there was nothing in it.
    """
    with acquire_lock(folder):
        try:
            fresh = folder.with_name(f"{folder.name}.new")
            if fresh.exists():
                rmtree(fresh)  # of a process that died here before
            fresh.mkdir(mode=0o750)
            blank = fresh / SPARE_NAME
            fd = preallocate(blank, segment_bytes)
            create_segment(fresh, SegmentHeader(node, cell, lsn + 1), blank, fd, segment_bytes).close()
            sync_folder(fresh)
            if lsn:
                write_snapshot(fresh, lsn, snapshot)
            segments = list_segments(folder)
            first_lsn, last_lsn = (segments[0][0], _last_lsn(segments[-1][1])) if segments else (1, 0)
            place = _new_place(folder, first_lsn, last_lsn, now_ns)
            folder.rename(place)
            fresh.rename(folder)
            sync_folder(folder.parent)
            if last_lsn < first_lsn and not list_snapshots(place):
                rmtree(place)
                return None
            return KeptAside(place, first_lsn, last_lsn)
        except OSError as error:
            raise JournalError("cannot replace the journal", path=folder, errno=error.errno) from error


def _copy_tail(
    folder: Path, segments: list[tuple[int, Path]], after_lsn: int, now_ns: int
) -> KeptAside | None:
    last_lsn = _last_lsn(segments[-1][1]) if segments else 0
    if last_lsn <= after_lsn:
        return None
    place = _new_place(folder, after_lsn + 1, last_lsn, now_ns)
    place.mkdir(parents=True, mode=0o750)
    for index, (_, path) in enumerate(segments):
        if index + 1 < len(segments) and segments[index + 1][0] <= after_lsn + 1:
            continue
        source = open_segment(path)
        try:
            _copy_segment(source, place, after_lsn)
        finally:
            source.close()
    sync_folder(place)
    sync_folder(place.parent)
    return KeptAside(place, after_lsn + 1, last_lsn)


def _copy_segment(source: Segment, place: Path, after_lsn: int) -> None:
    first_lsn, start, end = _span(source, after_lsn)
    if start == end:
        return
    header = SegmentHeader(source.header.node, source.header.cell, first_lsn)
    blank = place / SPARE_NAME
    fd = preallocate(blank, end - start + source.start + FRAME.size)
    copy = create_segment(place, header, blank, fd, source.capacity)
    try:
        at = copy.start
        while start < end:
            data = os.pread(source.fd, min(_COPIED_AT_A_TIME, end - start), start)
            at += os.pwrite(copy.fd, data, at)
            start += len(data)
        os.fsync(copy.fd)
    finally:
        copy.close()


def _span(segment: Segment, after_lsn: int) -> tuple[int, int, int]:
    """Return the first LSN after `after_lsn` in a segment, and the offsets where it starts and all end."""
    first_lsn, start, end = max(after_lsn + 1, segment.header.first_lsn), segment.start, segment.start
    for offset, payload in frames(segment.fd, segment.start):
        end = offset + FRAME.size + len(payload)
        if lsn_of(payload) < first_lsn:
            start = end
    return first_lsn, start, end


def _end_after(path: Path, after_lsn: int) -> None:
    segment = open_segment(path, writable=True)
    try:
        _, start, _ = _span(segment, after_lsn)
        # Made shorter, not overwritten: that happens at once or not at all. `Journal.open` reserves the room anew.
        os.ftruncate(segment.fd, start)
        os.fsync(segment.fd)
    finally:
        segment.close()


def _last_lsn(path: Path) -> int:
    segment = open_segment(path)
    try:
        last = segment.header.first_lsn - 1
        for _, payload in frames(segment.fd, segment.start):
            last = lsn_of(payload)
        return last
    finally:
        segment.close()


def _new_place(folder: Path, first_lsn: int, last_lsn: int, now_ns: int) -> Path:
    place = aside_folder(folder) / f"{first_lsn}-{last_lsn}-{now_ns // 1_000_000}"
    place.parent.mkdir(parents=True, exist_ok=True, mode=0o750)
    return place
