"""Ends what strategies started in their workers once the host is gone: `kill -9` leaves it no time to.

A worker itself is ended by the kernel, with its parent. What its strategy started knows of nothing, and is in the
worker's process group: so a small process is told of these groups over a pipe, and kills them when
the pipe closes. That happens with the host's end, however it came about.
"""

import logging
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import IO, Final

__all__ = ["Reaper"]

_log = logging.getLogger("tandem.workers")
_PROGRAM: Final = Path(__file__).with_name("_reaper_process.py")


class Reaper:
    """The host's side. The process starts with the first group, and again where it was lost; any thread may tell it."""

    def __init__(self) -> None:
        self._lock: Final = threading.Lock()
        self._groups: set[int] = set()
        self._process: subprocess.Popen[bytes] | None = None
        self._is_closed = False

    @property
    def pid(self) -> int:
        """Return the id of its process; 0 while none was needed."""
        return 0 if self._process is None else self._process.pid

    def add(self, group: int) -> None:
        """Have a process group end with the host; raise `OSError` where nothing will see to that."""
        with self._lock:
            if self._is_closed:
                raise OSError("the node ends, and starts no worker any more")
            self._groups.add(group)
            self._tell(f"{group}\n")

    def forget(self, group: int) -> None:
        """Leave a group alone, for it has ended, and its number may become another's."""
        with self._lock:
            self._groups.discard(group)
            if self._process is None:
                return
            try:
                self._tell(f"-{group}\n")
            except OSError as error:
                _log.warning("what strategies started may outlive this node, should it be killed: %s", error)

    def close(self) -> None:
        """End it, and all groups that it was told of and that were not forgotten."""
        with self._lock:
            self._is_closed = True
            if self._process is not None:
                _pipe(self._process).close()
                self._process.wait()
                self._process = None

    def _tell(self, line: str) -> None:
        if self._process is not None:
            try:
                os.write(_pipe(self._process).fileno(), line.encode())
            except (BrokenPipeError, BlockingIOError):
                # Killed first, lest it takes the closed pipe for the end of the host.
                self._process.kill()
                self._process.wait()
                _pipe(self._process).close()
                self._process = None
            else:
                return
        process = self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", _PROGRAM],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={},
            start_new_session=True,  # Ctrl-C is for the host
        )
        os.set_blocking(_pipe(process).fileno(), False)
        os.write(_pipe(process).fileno(), "".join(f"{one}\n" for one in sorted(self._groups)).encode())


def _pipe(process: "subprocess.Popen[bytes]") -> IO[bytes]:
    assert process.stdin is not None
    return process.stdin
