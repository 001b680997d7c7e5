"""Segment files: their names, their preallocated room, and opening them."""

import os
from pathlib import Path

from host.journal._errors import JournalCorrupt, JournalError, JournalFull, is_no_room
from host.journal._format import MAX_HEADER_BYTES, SegmentHeader, pack_header, unpack_header

__all__ = [
    "Segment",
    "create_segment",
    "list_segments",
    "open_segment",
    "preallocate",
    "segment_path",
    "sync_folder",
]

_SUFFIX = ".seg"


class Segment:
    """One open segment file. Frames start at `start`; `capacity` is its preallocated size."""

    __slots__ = ("capacity", "fd", "header", "is_closed", "path", "start")

    def __init__(self, path: Path, fd: int, header: SegmentHeader, start: int, capacity: int) -> None:
        self.path = path
        self.fd = fd
        self.header = header
        self.start = start
        self.capacity = capacity
        self.is_closed = False

    def close(self) -> None:
        """Close the file; harmless when it is closed already."""
        if not self.is_closed:
            self.is_closed = True
            os.close(self.fd)


def segment_path(folder: Path, first_lsn: int) -> Path:
    """Return where the segment that starts with `first_lsn` is."""
    return folder / f"{first_lsn:020d}{_SUFFIX}"


def list_segments(folder: Path) -> list[tuple[int, Path]]:
    """Return (first LSN, path) of the segments in `folder`, oldest first."""
    return sorted((int(path.stem), path) for path in folder.glob(f"*{_SUFFIX}") if path.stem.isdecimal())


def open_segment(path: Path, *, writable: bool = False) -> Segment:
    """Open a segment and check its header against its name."""
    fd = os.open(path, (os.O_RDWR if writable else os.O_RDONLY) | os.O_CLOEXEC)
    try:
        header, start = unpack_header(path, os.pread(fd, MAX_HEADER_BYTES, 0))
        if header.first_lsn != int(path.stem):
            raise JournalCorrupt(
                f"the header says that it starts with entry {header.first_lsn}, the name says "
                f"{int(path.stem)}; give the file its name back",
                path=path,
                offset=0,
            )
        return Segment(path, fd, header, start, os.fstat(fd).st_size)
    except BaseException:
        os.close(fd)
        raise


def preallocate(path: Path, size: int) -> int:
    """Create `path` with `size` bytes of disk space that are its own; return its descriptor.

    Raises `JournalFull` where there is no such room (and then leaves no file), `JournalError` for
    any other failure. A file that has its room cannot run out of it in the middle of a write.
    """
    fd = -1
    try:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o640)
        os.posix_fallocate(fd, 0, size)
    except OSError as error:
        if fd >= 0:
            os.close(fd)
            path.unlink(missing_ok=True)
        kind = JournalFull if is_no_room(error) else JournalError
        raise kind(
            f"cannot create a segment of {size} bytes; free disk space or set a smaller segment size",
            path=path,
            errno=error.errno,
        ) from error
    return fd


def create_segment(folder: Path, header: SegmentHeader, blank: Path, fd: int, capacity: int) -> Segment:
    """Turn the preallocated file `blank` into the segment that starts with `header.first_lsn`.

    The name appears last, so that a reader who sees the file sees a whole header.
    """
    data = pack_header(header)
    path = segment_path(folder, header.first_lsn)
    try:
        os.pwrite(fd, data, 0)
        blank.rename(path)
    except OSError as error:
        raise JournalError("cannot start the next segment", path=path, errno=error.errno) from error
    return Segment(path, fd, header, len(data), capacity)


def sync_folder(folder: Path) -> None:
    """Make the names in `folder` durable."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
