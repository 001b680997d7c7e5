"""`tandem pair` as a process: at a terminal, or without one."""

import os
import pty
import re
import select
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from fcntl import ioctl
from pathlib import Path
from struct import pack

DEADLINE_S = 90.0
"""Far above what anything here needs; only a test that has failed waits for it."""
WINDOW = 1 << 16
"""More than a picture has. Looking through all pictures again and again would take the machine's time."""
LONGEST = 1 << 17
COMMAND = [sys.executable, "-c", "import sys; from host.cli import main; sys.exit(main())", "pair"]
_ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\x1b[()=>][A-Za-z0-9]?")


def wait_until(is_true: Callable[[], bool], what: str) -> None:
    """Look again and again until it is so; fail, naming `what`, after the deadline."""
    end_s = time.monotonic() + DEADLINE_S
    while not is_true():
        assert time.monotonic() < end_s, f"waited {DEADLINE_S:g} s in vain for {what}"
        time.sleep(0.01)


def running_in(folder: Path) -> list[str]:
    """Return the command lines of all processes that name `folder`, but for this one and its own."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            with suppress(OSError):
                line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                if str(folder) in line:
                    found.append(f"{entry.name}: {line}")
    return found


class PairRun:
    """One run; `expect` reads on until it has said something."""

    def __init__(self, pid: int, fd: int) -> None:
        self.pid = pid
        self._fd = fd
        self._unread = ""
        self.said = ""
        """The latest of its output, without what moves the cursor."""
        self._code: int | None = None

    def expect(self, pattern: str) -> re.Match[str]:
        """Read until `pattern` is in what it has said since the last time; return the match."""
        end_s = time.monotonic() + DEADLINE_S
        while True:
            match = re.search(pattern, self._unread)
            if match is not None:
                self._unread = self._unread[match.end() :]
                return match
            self._unread = self._unread[-WINDOW:]
            left_s = end_s - time.monotonic()
            assert left_s > 0, (
                f"waited {DEADLINE_S:g} s in vain for {pattern!r}; it said:\n{self.said[-9000:]}"
            )
            assert self._read(left_s), f"it ended without saying {pattern!r}; it said:\n{self.said[-9000:]}"

    def press(self, keys: str) -> None:
        """Type."""
        self._unread = ""
        os.write(self._fd, keys.encode())

    def end(self) -> int:
        """Read to its end and return its exit code."""
        while self._read(DEADLINE_S):
            pass
        return self.wait()

    def wait(self) -> int:
        """Return its exit code, once it has ended."""
        if self._code is None:
            self._code = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        return self._code

    def close(self) -> None:
        """Kill it, if it is still there."""
        if self._code is None:
            os.kill(self.pid, signal.SIGKILL)
            self.wait()
        os.close(self._fd)

    def _read(self, within_s: float) -> bool:
        ready, _, _ = select.select([self._fd], [], [], within_s)
        if not ready:
            return True  # the caller looks at the time
        try:
            data = os.read(self._fd, 1 << 16)
        except OSError:  # the terminal's other end is closed
            return False
        text = _ESCAPES.sub("", data.decode(errors="replace"))
        self._unread += text
        self.said = self.said[-LONGEST:] + text
        return bool(data)


@contextmanager
def at_terminal(*arguments: str, width: int = 280, height: int = 40) -> Iterator[PairRun]:
    """Run it at a terminal of this size; it is gone after the block."""
    pid, fd = pty.fork()
    if pid == 0:
        # COLUMNS and LINES would count for more than the terminal's size; readline sets them behind Python's back.
        environment = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES")}
        ioctl(0, termios.TIOCSWINSZ, pack("HHHH", height, width, 0, 0))
        os.execve(sys.executable, [*COMMAND, *arguments], environment | {"TERM": "xterm-256color"})
    run = PairRun(pid, fd)
    try:
        yield run
    finally:
        run.close()


@contextmanager
def without_terminal(*arguments: str) -> Iterator[PairRun]:
    """Run it with pipes; it is gone after the block."""
    read, write = os.pipe()
    process = subprocess.Popen(
        [*COMMAND, *arguments], stdin=subprocess.DEVNULL, stdout=write, stderr=subprocess.STDOUT
    )
    os.close(write)
    run = PairRun(process.pid, read)
    try:
        yield run
    finally:
        run.close()
        process.returncode = run.wait()
