"""One writer per journal: an exclusive lock on a file that holds the writer's process id."""

import fcntl
import os
from pathlib import Path
from typing import Final, Self

from host.journal._errors import JournalError, JournalLocked, is_no_room

__all__ = ["WriterLock", "acquire_lock"]

_LOCK_NAME = "writer.lock"


class WriterLock:
    """A journal's lock, held from `acquire_lock` until `release`, or the end of a `with` block."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._pid: Final = os.getpid()

    @property
    def is_held(self) -> bool:
        """Return whether it was not released yet."""
        return self._fd >= 0

    def release(self) -> None:
        """Let another writer have the journal; harmless when that was done before."""
        if self.is_held:
            # Closing alone would not do: a process that this one is about to start has a copy of the descriptor
            # until its exec, and holds the lock by that. In such a copy of this process only the copy is closed.
            if os.getpid() == self._pid:
                fcntl.flock(self._fd, fcntl.LOCK_UN)
            os.close(self._fd)
            self._fd = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


def acquire_lock(folder: Path) -> WriterLock:
    """Lock `folder` for this process.

    The kernel lets go of it when the process dies, however it dies. Raises `JournalLocked`.
    """
    path = folder / _LOCK_NAME
    try:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
    except OSError as error:
        raise JournalError("cannot open the lock file", path=path, errno=error.errno) from error
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        holder = os.pread(fd, 32, 0).strip()
        os.close(fd)
        raise JournalLocked(folder, int(holder) if holder.isdigit() else None) from error
    except OSError as error:
        os.close(fd)
        raise JournalError("cannot lock the journal", path=path, errno=error.errno) from error
    try:
        os.ftruncate(fd, 0)
        os.pwrite(fd, b"%d\n" % os.getpid(), 0)
    except OSError as error:
        # The name of the holder is a courtesy, and a full disk must not keep a node from starting:
        # it has orders to cancel.
        if not is_no_room(error):
            os.close(fd)
            raise JournalError("cannot write the lock file", path=path, errno=error.errno) from error
    return WriterLock(fd)
