"""The processes below this one, on Linux: none of them outlives it, and none is lost sight of."""

import ctypes
import os
import signal
from pathlib import Path
from typing import Final

__all__ = ["adopt_orphans", "die_with_parent", "kill_children", "reap_orphans"]

_PR_SET_PDEATHSIG: Final = 1
_PR_SET_CHILD_SUBREAPER: Final = 36
_LIBC: Final = ctypes.CDLL(None, use_errno=True)


def adopt_orphans() -> None:
    """Become the parent of whatever a child leaves running when it dies."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def die_with_parent(parent: int) -> None:
    """Have the kernel kill this process when `parent` dies, at once if that has happened already.

    To be called between fork and exec.
    """
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it died before the line above
        os._exit(1)


def reap_orphans(child: int) -> None:
    """Reap what has ended beside `child`, which its owner reaps and has not yet."""
    while (ended := _next_ended()) and ended != child:
        os.waitpid(ended, 0)


def kill_children() -> None:
    """Kill and reap every child, until there is none: one that forks while it dies leaves another."""
    while _has_children():
        for pid in _children():
            os.kill(pid, signal.SIGKILL)  # what has ended is still there until it is reaped
            os.waitpid(pid, 0)


_ENDED: Final = os.WEXITED | os.WNOHANG | os.WNOWAIT
"""Look at a child that has ended, without waiting and without reaping it."""


def _next_ended() -> int:
    ended = os.waitid(os.P_ALL, 0, _ENDED)
    return 0 if ended is None else ended.si_pid


def _has_children() -> bool:
    try:
        os.waitid(os.P_ALL, 0, _ENDED)
    except ChildProcessError:
        return False
    return True


def _children() -> list[int]:
    """Return the children that are easily found; `_has_children` says for certain whether there are more."""
    tasks = Path("/proc/self/task")
    try:
        # Orphans fall to any thread of this process.
        texts = [(task / "children").read_text() for task in tasks.iterdir()]
    except FileNotFoundError:  # a kernel without CONFIG_PROC_CHILDREN, or a thread that has just ended
        return _children_by_search(os.getpid())
    return [int(pid) for text in texts for pid in text.split()]


def _children_by_search(parent: int) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            stat = (entry / "stat").read_text()
        except OSError:
            continue  # it ended while we looked
        if int(stat.rpartition(")")[2].split()[1]) == parent:
            found.append(int(entry.name))
    return found


def _prctl(option: int, value: int) -> None:
    if _LIBC.prctl(option, value, 0, 0, 0) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"prctl({option}): {os.strerror(number)}")
