"""Files that only the node's own user may read or change: keys, tokens, secrets, the audit log.

They are written whole or not at all, and checked before they are trusted: a file that others can
change proves nothing, and one that others can read keeps nothing.
"""

import os
import stat
from pathlib import Path
from typing import Final

from host.api import TandemError

__all__ = [
    "PRIVATE_FILE",
    "PRIVATE_FOLDER",
    "NotPrivate",
    "PrivateFileError",
    "make_private_folder",
    "read_private",
    "write_private",
]

PRIVATE_FILE: Final = 0o600
PRIVATE_FOLDER: Final = 0o700

_OTHERS: Final = stat.S_IRWXG | stat.S_IRWXO


class PrivateFileError(TandemError):
    """The file system does not do what a private file needs."""


class NotPrivate(PrivateFileError):  # noqa: N818 - the fact, in the words operators see
    """A file or folder can be used by others; the message holds the command that mends it."""


def make_private_folder(folder: Path) -> None:
    """Create `folder` with mode 0700, or check that an existing one is ours and has that mode.

    Raises `NotPrivate`, or `PrivateFileError` where it cannot be made.
    """
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        try:
            folder.mkdir(mode=PRIVATE_FOLDER)
        except FileExistsError:
            check_private(folder, folder.stat(), PRIVATE_FOLDER)
    except OSError as error:
        raise PrivateFileError(f"cannot make the folder {folder}: {error.strerror}") from error


def check_private(path: Path, found: os.stat_result, mode: int) -> None:
    """Raise `NotPrivate` unless `found`, the status of `path`, is ours (or root's) and closed to others."""
    kind = "folder" if mode == PRIVATE_FOLDER else "file"
    is_right_kind = stat.S_ISDIR(found.st_mode) if kind == "folder" else stat.S_ISREG(found.st_mode)
    if not is_right_kind:
        raise NotPrivate(f"{path} should be a {kind}, and is something else; move it away")
    if found.st_uid not in (os.geteuid(), 0):
        raise NotPrivate(
            f"{path} should belong to the user of this process (uid {os.geteuid()}), belongs to uid "
            f"{found.st_uid}: sudo chown {os.geteuid()} {path}"
        )
    if found.st_mode & _OTHERS:
        raise NotPrivate(
            f"{path} should have mode {mode:04o}, has {stat.S_IMODE(found.st_mode):04o}, which lets other "
            f"users in: chmod {mode:o} {path}"
        )


def read_private(path: Path) -> bytes:
    """Return what is in `path`; raise `NotPrivate`, `PrivateFileError` or `FileNotFoundError`."""
    try:
        with path.open("rb") as file:
            # The open file is checked, not the name: between two looks a name can come to mean another.
            check_private(path, os.fstat(file.fileno()), PRIVATE_FILE)
            return file.read()
    except FileNotFoundError:
        raise
    except OSError as error:
        raise PrivateFileError(f"cannot read {path}: {error.strerror}") from error


def write_private(path: Path, data: bytes) -> None:
    """Put `data` in the place of what `path` holds, with mode 0600, on disk when this returns.

    A crash leaves the old content or the new. Raises `PrivateFileError`.
    """
    new = path.with_name(f".{path.name}.{os.getpid()}.new")
    try:
        fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, PRIVATE_FILE)
        try:
            with os.fdopen(fd, "wb") as file:
                os.fchmod(fd, PRIVATE_FILE)  # an umask can only take away, a leftover can have more
                file.write(data)
                file.flush()
                os.fsync(fd)
            new.replace(path)
        except BaseException:
            new.unlink(missing_ok=True)
            raise
        sync_folder(path.parent)
    except OSError as error:
        raise PrivateFileError(f"cannot write {path}: {error.strerror}") from error


def sync_folder(folder: Path) -> None:
    """Make the names in `folder` durable."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
