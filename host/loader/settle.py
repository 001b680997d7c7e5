"""Captures a plugin once its files have come to rest.

A file event says that writing began, not that it ended. What says so is that two captures in a row are
equal, that nobody has one of the files open for writing, and that git is not at work.
"""

import asyncio
import fcntl
import os
import signal
from collections.abc import Sequence
from pathlib import Path

from msgspec import Struct

from host.api import TandemError
from host.loader.capture import Version, capture
from host.loader.git_lock import git_lock
from host.loader.problem import PluginRejected

__all__ = ["NotStable", "settle", "settle_files"]


class NotStable(TandemError):  # noqa: N818 - the answer to "may this be loaded?"
    """A plugin's files did not come to rest in time; nothing is wrong with the plugin itself."""

    def __init__(self, path: Path, waited_s: float, reason: str, next_step: str) -> None:
        super().__init__(
            f"plugin {path.stem}: {path} did not come to rest within {waited_s:g} s: {reason}; {next_step}"
        )
        self.path = path
        self.reason = reason


async def settle(path: Path, *, apart_ms: float = 25.0, give_up_s: float = 10.0) -> Version:
    """Capture a plugin until two captures `apart_ms` milliseconds apart are equal, and return that.

    Raises `NotStable` after `give_up_s` seconds, and `PluginRejected` when the plugin cannot be
    captured twice in a row for the same reason. Reads files in a worker thread.
    """
    clock = asyncio.get_running_loop().time
    give_up_at = clock() + give_up_s
    before: _Look | None = None
    while True:
        look = await asyncio.to_thread(_look, path)
        if look.unrest is None and before is not None and before.unrest is None and look.same_as(before):
            if isinstance(look.found, Version):
                return look.found
            raise look.found
        if clock() >= give_up_at:
            reason, next_step = look.unrest or (
                "its files kept changing",
                "save it again when they are complete",
            )
            raise NotStable(path, give_up_s, reason, next_step)
        before = look
        await asyncio.sleep(apart_ms / 1e3)


async def settle_files(
    paths: Sequence[Path], *, apart_ms: float = 25.0, gone_ms: float = 250.0, give_up_s: float = 10.0
) -> None:
    """Wait until plain files are at rest: twice the same, and open for writing nowhere.

    A file that is missing is waited for during `gone_ms`, because editors and deploys delete and
    create anew. Raises `NotStable` after `give_up_s` seconds. Reads files in a worker thread.
    """
    clock = asyncio.get_running_loop().time
    started = clock()
    before: dict[Path, bytes | None] | None = None
    while True:
        found, busy = await asyncio.to_thread(_read, paths)
        waited = clock() - started
        is_whole = None not in found.values() or waited >= gone_ms / 1e3
        if found == before and busy is None and is_whole:
            return
        if waited >= give_up_s:
            path = busy or paths[0]
            reason = f"{busy} is open for writing" if busy else "its contents kept changing"
            raise NotStable(path, give_up_s, reason, "save it again when it is complete")
        before = found
        await asyncio.sleep(apart_ms / 1e3)


def _read(paths: Sequence[Path]) -> tuple[dict[Path, bytes | None], Path | None]:
    """Return the contents of each file, None where there is none, and one that is being written."""
    found: dict[Path, bytes | None] = {}
    for path in paths:
        try:
            found[path] = path.read_bytes()
        except OSError:
            found[path] = None
    return found, next((path for path in paths if _is_open_for_writing(path)), None)


class _Look(Struct, frozen=True):
    found: Version | PluginRejected
    unrest: tuple[str, str] | None = None

    def same_as(self, other: "_Look") -> bool:
        if isinstance(self.found, Version):
            return isinstance(other.found, Version) and self.found.digest == other.found.digest
        return isinstance(other.found, PluginRejected) and self.found.problems == other.found.problems


def _look(path: Path) -> _Look:
    try:
        found = capture(path)
    except PluginRejected as rejected:
        return _Look(rejected, _git_unrest(path))
    for file in found.sources:
        on_disk = found.folder / file
        if _is_open_for_writing(on_disk):
            return _Look(found, (f"{on_disk} is open for writing", "close it where it is written"))
    return _Look(found, _git_unrest(path))


def _git_unrest(path: Path) -> tuple[str, str] | None:
    lock = git_lock([path])
    return (f"git holds {lock}", "if no git is running, delete that file") if lock else None


def _is_open_for_writing(path: Path) -> bool:
    """Ask the kernel, which grants a read lease on a file only while nobody can write to it.

    False where it cannot tell (another user's file, a network folder): equal captures decide then.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError:
        return False  # gone since the capture: the next one will differ
    try:
        # Whoever opens the file for writing meanwhile breaks the lease, which signals this process:
        # with SIGIO, which would end it, unless told to use one that is ignored by default.
        fcntl.fcntl(descriptor, fcntl.F_SETSIG, signal.SIGURG)
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_RDLCK)
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    except BlockingIOError:
        return True
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return False
