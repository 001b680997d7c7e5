"""Snapshots: the whole trading state as of one LSN, so that recovery need not start at entry 1.

File: magic, format version, CRC32C of the rest, LSN, length, data; named by LSN. It appears under
its name only when all of it is on disk.
"""

import os
from pathlib import Path
from struct import Struct as Layout

from google_crc32c import value as crc32c
from msgspec import Struct

from host.journal._errors import JournalError, JournalFull, is_no_room
from host.journal._segments import sync_folder

__all__ = [
    "KEPT_SNAPSHOTS",
    "Snapshot",
    "latest_snapshot",
    "list_snapshots",
    "snapshot_problem",
    "write_snapshot",
]

KEPT_SNAPSHOTS = 2
"""The newest, and one to fall back to."""

_SUFFIX = ".snap"
_MAGIC = b"TNDMSNAP"
_VERSION = 1
_HEADER = Layout("<8sII")
_BODY = Layout("<QQ")


class Snapshot(Struct, frozen=True):
    """`data` is the state after entry `lsn`. `skipped` names newer files that are damaged, and why."""

    lsn: int
    data: bytes
    skipped: tuple[str, ...] = ()


def list_snapshots(folder: Path) -> list[tuple[int, Path]]:
    """Return (LSN, path) of the snapshots in `folder`, oldest first; damaged ones too."""
    return sorted((int(path.stem), path) for path in folder.glob(f"*{_SUFFIX}") if path.stem.isdecimal())


def write_snapshot(folder: Path, lsn: int, data: bytes) -> Path:
    """Write a snapshot that is there whole or not at all, and delete all but the last two."""
    path = folder / f"{lsn:020d}{_SUFFIX}"
    temporary = path.with_suffix(".tmp")
    body = _BODY.pack(lsn, len(data)) + data
    try:
        with temporary.open("wb") as file:
            file.write(_HEADER.pack(_MAGIC, _VERSION, crc32c(body)))
            file.write(body)
            file.flush()
            os.fsync(file.fileno())
        temporary.rename(path)
        sync_folder(folder)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        kind = JournalFull if is_no_room(error) else JournalError
        raise kind("cannot write the snapshot", path=path, errno=error.errno) from error
    for _, old in list_snapshots(folder)[:-KEPT_SNAPSHOTS]:
        old.unlink(missing_ok=True)
    return path


def latest_snapshot(folder: Path) -> Snapshot | None:
    """Return the newest snapshot that is whole, or None where there is none.

    Damaged newer ones are named in `skipped`. Raises `JournalError` when all are damaged.
    """
    skipped: list[str] = []
    for lsn, path in reversed(list_snapshots(folder)):
        content = path.read_bytes()
        problem = snapshot_problem(content, lsn)
        if problem is None:
            return Snapshot(lsn, content[_HEADER.size + _BODY.size :], tuple(skipped))
        skipped.append(f"{path.name}: {problem}")
    if skipped:
        raise JournalError(
            f"no snapshot is whole ({'; '.join(skipped)}); restore one from a copy, or move them away if the "
            "log still starts with entry 1",
            path=folder,
        )
    return None


def snapshot_problem(content: bytes, lsn: int) -> str | None:
    """Return what is wrong with the content of a snapshot file, None where nothing is."""
    if len(content) < _HEADER.size + _BODY.size:
        return f"too short ({len(content)} bytes)"
    magic, version, crc = _HEADER.unpack_from(content)
    if magic != _MAGIC:
        return "not a snapshot file"
    if version != _VERSION:
        return f"format version {version}, expected {_VERSION}"
    if crc32c(content[_HEADER.size :]) != crc:
        return "its checksum does not match"
    if _BODY.unpack_from(content, _HEADER.size)[0] != lsn:
        return "its name does not match the entry inside"
    return None
