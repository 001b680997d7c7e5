"""One worker process, from the host's side: started, measured, killed, and seen when it ends."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import IO, Final

from host.isolation.reaper import Reaper

__all__ = ["ASKS_WHERE", "ENDED_BY_ITSELF", "WorkerProcess"]

ENDED_BY_ITSELF: Final = "it exited with code 0"
"""How the end of a worker reads that had nothing more to do."""
ASKS_WHERE: Final = signal.SIGURG
"""Has a worker write down the stack of its thread, whatever that does; ignored by one that does not know it yet."""
LAST_WORDS: Final = 16_384
"""Bytes kept of what a worker wrote: a stack of a hundred frames has room."""
_STACK: Final = b"Stack (most recent call first):\n"
_OURS: Final = (f'File "{Path(__file__).parents[1]}/', 'File "<frozen ')
"""How the frames begin of what calls a plugin."""
READ_AT_ONCE: Final = 65_536
_PAGE: Final = os.sysconf("SC_PAGE_SIZE")
_TICK_NS: Final = 1_000_000_000 // os.sysconf("SC_CLK_TCK")


class WorkerProcess:
    """Belongs to the running loop. It waits for what it is to run until `assign`."""

    def __init__(self, process: "subprocess.Popen[bytes]", reaper: Reaper) -> None:
        self.pid: Final = process.pid
        self._reaper: Final = reaper
        self.has_ended = False
        self._process: Final = process
        self._on_exit: Callable[[str], None] = lambda _how: None
        self._words = b""
        self._written = self._asked_at = 0
        self._loop = asyncio.get_running_loop()
        self._pidfd = os.pidfd_open(process.pid)
        assert process.stdout is not None
        self._output: IO[bytes] = process.stdout
        os.set_blocking(self._output.fileno(), False)
        self._loop.add_reader(self._pidfd, self._exited)

    @classmethod
    async def start(cls, reaper: Reaper) -> "WorkerProcess":
        """Start a worker, beside the loop; raise `OSError` where the machine has no room for it.

        Its process group, with all that its strategy will start there, ends with this process by the `reaper`.
        """
        spawning = _Spawning(reaper)
        try:
            return cls(await asyncio.to_thread(spawning.run, os.getpid()), reaper)
        except BaseException as error:
            spawning.give_up()
            if isinstance(error, RuntimeError):  # no thread can be started
                raise OSError(str(error)) from error
            raise

    async def assign(self, assignment: bytes, on_exit: Callable[[str], None]) -> None:
        """Tell it what to run, beside the loop; `on_exit(how)` is told once how it ended, in words."""
        self._on_exit = on_exit
        if self.has_ended:
            on_exit(_in_words(self._process.returncode))
        else:
            await asyncio.to_thread(_feed, self._process, assignment)

    @property
    def last_words(self) -> str:
        """Return the end of what it wrote to its output."""
        return self._words.decode(errors="replace").strip()

    def ask_where(self) -> None:
        """Have it write down where it is; `where` returns that a moment later."""
        if not self.has_ended:
            self.read_output()
            self._asked_at = self._written
            signal.pidfd_send_signal(self._pidfd, ASKS_WHERE)

    @property
    def where(self) -> str:
        """Return the stack that it wrote since it was last asked, innermost frame first; empty where it could not.

        It ends with the callback: what calls that is the same for all.
        """
        if not self.has_ended:
            self.read_output()
        written = self._written - self._asked_at
        _, is_there, stack = self._words[-written:].rpartition(_STACK)
        return _without_ours(stack.decode(errors="replace")) if written and is_there else ""

    def memory_bytes(self) -> int:
        """Return what it holds in memory; 0 once it has ended."""
        try:
            return int(_proc(self.pid, "statm").split()[1]) * _PAGE
        except (OSError, IndexError):
            return 0

    def cpu_ns(self) -> int:
        """Return the processor time that it has used; 0 once it has ended."""
        try:
            fields = _proc(self.pid, "stat").rpartition(")")[2].split()
        except OSError:
            return 0
        return (int(fields[11]) + int(fields[12])) * _TICK_NS if len(fields) > 12 else 0

    def kill(self) -> None:
        """End it and what it started, whatever it is doing; `on_exit` follows."""
        if not self.has_ended:
            for kill in (os.killpg, os.kill):
                try:
                    kill(self.pid, signal.SIGKILL)
                except ProcessLookupError:
                    continue  # it ended this moment

    def close(self) -> None:
        """Kill it and wait for its end, which takes a moment; nothing is told any more."""
        self._on_exit = lambda _how: None
        if not self.has_ended:
            self.kill()
            self._process.wait()
            self._exited()

    def _exited(self) -> None:
        if self.has_ended:
            return
        if self._process.returncode is None:
            if os.waitid(os.P_PIDFD, self._pidfd, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
                return
            # What it started and left behind. Before it is reaped: its group's number is nobody else's until then.
            with suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)
            self._process.wait()
        self._reaper.forget(self.pid)
        self.has_ended = True
        self.read_output()
        self._loop.remove_reader(self._pidfd)
        os.close(self._pidfd)
        self._output.close()
        self._on_exit(_in_words(self._process.returncode))

    def read_output(self) -> None:
        """Take in what it wrote to its output; to be called a few times a second.

        Not whenever there is something: one that writes without end waits for us then, and not we for it.
        """
        try:
            data = os.read(self._output.fileno(), READ_AT_ONCE)
        except (BlockingIOError, ValueError):  # nothing is there, or it is closed
            return
        self._written += len(data)
        self._words = (self._words + data)[-LAST_WORDS:]


class _Spawning:
    """A start that may be given up: a thread cannot be cancelled, and must not leave a process behind."""

    def __init__(self, reaper: Reaper) -> None:
        self._reaper: Final = reaper
        self._process: subprocess.Popen[bytes] | None = None
        self._is_wanted = True

    def run(self, parent: int) -> "subprocess.Popen[bytes]":
        process = self._process = _spawn(parent)
        try:
            self._reaper.add(process.pid)
        except OSError:
            self._end(process)
            raise
        if not self._is_wanted:
            self._end(process)
        return process

    def give_up(self) -> None:
        self._is_wanted = False
        if self._process is not None:  # else the thread sees that it is not wanted
            self._end(self._process)

    def _end(self, process: "subprocess.Popen[bytes]") -> None:
        process.kill()
        process.wait()
        self._reaper.forget(process.pid)


def _spawn(parent: int) -> "subprocess.Popen[bytes]":
    # Nothing of the node's own settings and secrets is a plugin's business.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("TANDEM_")}
    return subprocess.Popen(
        [sys.executable, "-m", "host.isolation.worker", str(parent)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=environment,
        start_new_session=True,  # Ctrl-C is for the host, which stops its workers in order
    )


def _feed(process: "subprocess.Popen[bytes]", assignment: bytes) -> None:
    assert process.stdin is not None
    # It may have ended, which its exit tells.
    with suppress(BrokenPipeError), process.stdin as stdin:
        stdin.write(assignment)


def _proc(pid: int, name: str) -> str:
    return Path(f"/proc/{pid}/{name}").read_text(encoding="ascii", errors="replace")


def _without_ours(stack: str) -> str:
    frames = stack.strip().splitlines()
    theirs = list(frames)
    while theirs and theirs[-1].strip().startswith(_OURS):
        theirs.pop()
    return "\n".join(theirs or frames)


def _in_words(code: int) -> str:
    if code >= 0:
        return f"it exited with code {code}"
    try:
        return f"it was ended by {signal.Signals(-code).name}"
    except ValueError:
        return f"it was ended by signal {-code}"
