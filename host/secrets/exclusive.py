"""One writer at a time for a file that is read, changed and replaced as a whole."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from host.config.private_files import PRIVATE_FILE, PrivateFileError

__all__ = ["exclusive"]


@contextmanager
def exclusive(path: Path) -> Iterator[None]:
    """Keep other writers of `path` out until the block ends, and clear away what a killed one left.

    Raises `PrivateFileError` where the lock file beside it cannot be made. The kernel drops the lock when its
    holder dies.
    """
    lock = path.with_name(f".{path.name}.lock")
    try:
        fd = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, PRIVATE_FILE)
    except OSError as error:
        raise PrivateFileError(f"cannot lock {path}: {lock}: {error.strerror}") from error
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        for leftover in path.parent.glob(f".{path.name}.*.new"):
            leftover.unlink(missing_ok=True)
        yield
    finally:
        os.close(fd)
