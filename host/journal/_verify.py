"""Checking a journal without changing it, and the digest that proves two runs equal."""

import hashlib
from pathlib import Path

from msgspec import Struct

from host.journal._errors import JournalCorrupt, JournalError
from host.journal._format import FRAME
from host.journal._reading import Source, decode, payloads
from host.journal._recovery import TornTail, check_join, check_tail, walk
from host.journal._segments import list_segments, open_segment
from host.journal._snapshots import list_snapshots, snapshot_problem

__all__ = ["VerifyReport", "journal_digest", "verify"]


class VerifyReport(Struct, frozen=True):
    """What `verify` found. `digest` covers the entries that could be read, in order."""

    segments: int
    first_lsn: int
    """0 when there is no entry."""
    last_lsn: int
    entries: int
    bytes: int
    """Frames, their headers included."""
    digest: str
    snapshots: tuple[int, ...]
    torn_tail: TornTail | None
    """An incomplete last entry: `Journal.open` will cut it off. Not a problem."""
    problems: tuple[str, ...]

    @property
    def is_sound(self) -> bool:
        """Return whether nothing is wrong."""
        return not self.problems


def journal_digest(source: Source, from_lsn: int = 1) -> str:
    """Return the SHA-256, in hex, of all encoded entries from `from_lsn` on, in order.

    Two runs that did the same at the same (replayed) time have the same digest. Raises as `read`.
    """
    digest = hashlib.sha256()
    for payload in payloads(source, from_lsn):
        digest.update(payload)
    return digest.hexdigest()


def verify(folder: str | Path) -> VerifyReport:
    """Check every header, checksum, LSN and entry, and every snapshot; never raises for damage."""
    folder = Path(folder)
    if not folder.is_dir():
        raise JournalError("there is no journal here: the folder does not exist", path=folder)
    digest = hashlib.sha256()
    problems: list[str] = []
    torn_tail: TornTail | None = None
    segments = list_segments(folder)
    first_lsn = last_lsn = entries = size = 0

    def visit(payload: bytes) -> None:
        nonlocal first_lsn, last_lsn, entries, size
        last_lsn = decode(payload).lsn
        first_lsn = first_lsn or last_lsn
        entries += 1
        size += FRAME.size + len(payload)
        digest.update(payload)

    for index, (_, path) in enumerate(segments):
        try:
            segment = open_segment(path)
        except JournalError as error:
            problems.append(str(error))
            continue
        try:
            offset, next_lsn = walk(segment, visit)
            tail = check_tail(segment, offset, next_lsn)
            if index + 1 < len(segments):
                check_join(segment, offset, next_lsn, tail, segments[index + 1][0])
            elif tail.dirty_bytes:
                torn_tail = TornTail(path.name, offset, tail.dirty_bytes)
        except JournalCorrupt as error:
            problems.append(str(error))
        finally:
            segment.close()
    snapshots = list_snapshots(folder)
    oldest_needed = snapshots[0][0] + 1 if snapshots else 1
    if segments and segments[0][0] > oldest_needed:
        problems.append(f"{folder}: entries {oldest_needed} to {segments[0][0] - 1} are missing")
    for lsn, path in snapshots:
        problem = snapshot_problem(path.read_bytes(), lsn)
        if problem is not None:
            problems.append(f"{path}: {problem}")
    return VerifyReport(
        segments=len(segments),
        first_lsn=first_lsn,
        last_lsn=last_lsn,
        entries=entries,
        bytes=size,
        digest=digest.hexdigest(),
        snapshots=tuple(lsn for lsn, _ in snapshots),
        torn_tail=torn_tail,
        problems=tuple(problems),
    )
