"""What a path leads to, where the kernel's file events do not tell: links, and single files."""

import stat
import time
from collections.abc import Iterable
from pathlib import Path

from host.loader.tree import is_ignored

__all__ = ["Identity", "identity", "links_below"]

Identity = tuple[int, ...] | None
"""Equal as long as a path leads to the same folder, or to a file that nobody wrote to; None: nowhere."""

_YOUNG_NS = 50_000_000  # file times are coarse: a younger file may change again without a new time


def identity(path: Path) -> Identity:
    """Return what identifies the folder or the file content that this path leads to, links followed.

    A file just written is identified anew once it is a little older, so that a second change within
    the resolution of file times is not missed; its writer is then noticed twice.
    """
    try:
        status = path.stat()
    except OSError:
        return None
    if stat.S_ISDIR(status.st_mode):
        return (status.st_dev, status.st_ino)
    is_young = time.time_ns() - status.st_mtime_ns < _YOUNG_NS
    return (status.st_dev, status.st_ino, status.st_mtime_ns, status.st_size, is_young)


def links_below(folders: Iterable[Path]) -> set[Path]:
    """Return the symbolic links in these folders and whatever they lead to."""
    links: set[Path] = set()
    seen: set[Path] = set()
    waiting = list(folders)
    while waiting:
        folder = waiting.pop()
        if not folder.is_dir() or (resolved := folder.resolve()) in seen:
            continue
        seen.add(resolved)
        for entry in folder.iterdir():
            if not is_ignored(entry.name):
                if entry.is_symlink():
                    links.add(entry)
                waiting.append(entry)
    return links
