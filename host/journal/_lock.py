"""One writer per journal: an exclusive lock on a file that holds the writer's process id."""

import fcntl
import os
from pathlib import Path

from host.journal._errors import JournalError, JournalLocked, is_no_room

__all__ = ["acquire_lock"]

_LOCK_NAME = "writer.lock"


def acquire_lock(folder: Path) -> int:
    """Lock `folder` for this process and return the descriptor that holds the lock.

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
    return fd
