"""The part of a segment that is written next, as memory: a store there is a write to the file.

A `pwrite` of one entry costs 0.7 to 1 µs, a store through a shared mapping 0.1 µs, and both end in
the page cache: what is there survives `kill -9` and is seen by every reader. The price is how trouble
shows: a page that the file system cannot supply is a SIGBUS and no `OSError`. So a window is opened
only where the room that `posix_fallocate` reserved is a promise (`is_room_promised`).
"""

import mmap
import os
from pathlib import Path
from typing import Final

from host.journal._segments import Segment

__all__ = ["WINDOW_BYTES", "Window", "file_system_of", "is_room_promised"]

WINDOW_BYTES: Final = 1 << 20
"""Mapped at a time: a segment mapped whole would show as 64 MiB more of memory in use."""

_PROMISING: Final = frozenset({"ext4", "xfs", "tmpfs"})
"""They overwrite in place what they reserved; those that copy on write may find no room for the copy."""


class Window:
    """Where in a segment the next frame goes, and the memory to store it in.

    `memory[at:until]` may be stored to; `until` is 0 where nothing is mapped. The offset in the file
    is `base + at`.
    """

    __slots__ = ("_mapped", "_next_page", "_segment", "at", "base", "memory", "until")

    def __init__(self, offset: int) -> None:
        self.base = 0
        self.at = offset
        self.until = 0
        self.memory: mmap.mmap | bytearray = bytearray()
        self._segment: Segment | None = None
        self._mapped = 0
        self._next_page = 0

    @property
    def offset(self) -> int:
        """Return where in the file the next frame goes."""
        return self.base + self.at

    def open(self, segment: Segment, limit: int) -> None:
        """Let the segment be stored to from here on, at most up to the offset `limit`.

        Raises `OSError` where it cannot be mapped; nothing is mapped then.
        """
        if segment is not self._segment or self.at >= self._mapped:
            offset = self.offset
            self.close(offset)
            base = offset - offset % mmap.ALLOCATIONGRANULARITY
            size = min(WINDOW_BYTES, segment.capacity - base)
            if offset - base >= size:
                return
            self.memory = mmap.mmap(segment.fd, size, offset=base)
            self._segment, self._mapped = segment, size
            self.base, self.at = base, offset - base
            self._next_page = 0
        self.until = min(limit - self.base, self._mapped)

    def prefault(self) -> None:
        """Take in the page after the one that is being filled, so that no entry has to wait for it."""
        page = self._next_page
        if page < self.at + mmap.PAGESIZE:
            if page <= self.at:
                page = self.at - self.at % mmap.PAGESIZE + mmap.PAGESIZE
            if page < self._mapped:
                self.memory[page] = 0  # as it is anyway: nothing is written behind `at`
                self._next_page = page + mmap.PAGESIZE

    def close(self, offset: int) -> None:
        """Map nothing any more; the next frame goes to `offset`."""
        self.base, self.at, self.until = 0, offset, 0
        if self._segment is not None:
            assert isinstance(self.memory, mmap.mmap)
            self.memory.close()
            self.memory = bytearray()
            self._segment, self._mapped, self._next_page = None, 0, 0


def is_room_promised(folder: Path) -> bool:
    """Return whether reserved room in `folder` can always be written, as its file system's type says."""
    return file_system_of(folder) in _PROMISING


def file_system_of(folder: Path) -> str:
    """Return the type of the file system that `folder` is on, such as "ext4"; empty where nobody says."""
    device = folder.stat().st_dev
    wanted = f"{os.major(device)}:{os.minor(device)}"
    try:
        lines = Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""  # no Linux, or no /proc
    for line in lines:
        mount, _, what = line.partition(" - ")  # man 5 proc_pid_mountinfo
        if mount.split()[2] == wanted:
            return what.split()[0]
    return ""
