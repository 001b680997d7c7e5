"""Which files on disk count as parts of plugins."""

import os
from collections.abc import Iterator
from pathlib import Path

__all__ = ["full_path", "is_ignored", "walk"]

_IGNORED_SUFFIXES = (
    *("~", ".swp", ".swo", ".swx", ".bak", ".orig", "___jb_tmp___", "___jb_old___"),  # editors
    *(".pyc", ".pyo"),
)
_IGNORED_NAMES = frozenset({"__pycache__", "4913"})  # vim creates 4913 to learn whether it may write here


def full_path(path: str | Path) -> Path:
    """Return a path from the root and without `..`, so that two names of one place are one.

    Links are kept as they are: a release folder is changed by changing the link to it.
    """
    return Path(os.path.abspath(path))  # noqa: PTH100 - `absolute()` keeps "..", `resolve()` follows links


def is_ignored(name: str) -> bool:
    """Return whether a file or folder of this name is no part of any plugin."""
    return name.startswith((".", "#")) or name.endswith(_IGNORED_SUFFIXES) or name in _IGNORED_NAMES


def walk(folder: Path) -> Iterator[Path]:
    """Yield every file below a folder that is not ignored; raise `OSError` for what cannot be read."""
    for entry in sorted(folder.iterdir()):
        if is_ignored(entry.name):
            continue
        if entry.is_dir():
            yield from walk(entry)
        else:
            yield entry
