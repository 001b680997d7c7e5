"""The watchdog: notices that the event loop is blocked, and by which code, though nothing on the loop can say so.

Three lines, each for when the one before it cannot work:

a thread       looks at the stack of the loop's thread while a beat of the loop is overdue
faulthandler   writes that stack down where even the thread cannot run: code that blocks and keeps the interpreter's
               lock, as a regular expression or a C library may. What it wrote is read once that is over, or by
               the next process
the kernel     ends the process (SIGALRM) where control does not come back for a limit, if one is given; whoever
               started it, a guardian for example, starts it again
"""

import asyncio
import faulthandler
import logging
import os
import signal
import sys
import threading
from collections import deque
from collections.abc import Callable
from io import FileIO
from pathlib import Path
from time import clock_gettime_ns, monotonic_ns, pthread_getcpuclockid, thread_time_ns
from types import FrameType
from typing import Final

import msgspec
from msgspec import Struct

from host.runtime.culprit import Culprit, callback_frame, culprit_in, culprit_of

__all__ = ["Block", "LoopWatchdog", "take_last_words"]

_log = logging.getLogger("tandem.watchdog")

BEAT_S: Final = 0.1
KEPT: Final = 64
"""Blocks kept that nobody has taken yet."""
LOOKS: Final = 4
"""How often the thread looks within the limit."""


class Block(Struct, frozen=True):
    """Once that the loop was blocked. `culprit` is None where it was too short, or nothing could look."""

    lasted_ns: int
    ended_ns: int
    """By the monotonic clock."""
    culprit: Culprit | None

    @property
    def stack(self) -> str:
        """The stack of the loop's thread meanwhile, innermost last; empty where it is not known."""
        return "" if self.culprit is None else self.culprit.stack


class _Look(Struct):
    """What the watchdog's thread has found of one block."""

    due_ns: int = 0
    called: FrameType | None = None
    """The call of a plugin that the loop was in at the last look."""
    seen_ns: int = 0
    cpu_ns: int = 0
    """When it was first found there, and what the loop's thread had used of a processor by then."""
    is_named: bool = False
    is_told: bool = False


class LoopWatchdog:
    """Watches the event loop of the thread that calls `start`.

    What blocks it for longer than `limit_s` is told to `on_blocked` once per block; by default it is logged.
    `on_culprit` is told of it once it is proven that one call of a plugin is what takes so long, and not a machine that
    has no time for this process: it has been in that call for half the limit, and either waits there or has used as
    much processor time. Both happen on the watchdog's own thread. `take` and `longest_ns` are for the
    loop's side.

    With `last_words`, a file, the stack is written down there while it lasts. With `give_up_s` a loop that is
    blocked for so long, or up to a beat less, ends the process.
    """

    def __init__(
        self,
        limit_s: float = 0.5,
        window_s: float = 10.0,
        on_blocked: Callable[[Culprit], None] | None = None,
        on_culprit: Callable[[Culprit], None] = lambda _culprit: None,
        *,
        last_words: Path | None = None,
        give_up_s: float | None = None,
    ) -> None:
        self._limit_ns: Final = int(limit_s * 1e9)
        self._window_ns: Final = int(window_s * 1e9)
        self._on_blocked: Final = on_blocked or _tell
        self._on_culprit: Final = on_culprit
        self._give_up_s: Final = give_up_s
        self._path: Final = last_words
        self._file: FileIO | None = None
        self._due_ns = 0
        self._named: tuple[int, Culprit | None] = (0, None)
        """Whose block it is that began with the beat due then."""
        self._blocks: deque[Block] = deque(maxlen=KEPT)
        self._lags: deque[tuple[int, int]] = deque()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._thread: threading.Thread | None = None
        self._watched = self._native = self._cpu_clock = self._beat_cpu_ns = 0
        self._ends = threading.Event()

    # -- on the loop -----------------------------------------------------------------------------

    def start(self) -> None:
        """Begin to watch the running loop; `stop` must be called on it."""
        self._loop = asyncio.get_running_loop()
        self._watched, self._native = threading.get_ident(), threading.get_native_id()
        self._cpu_clock, self._beat_cpu_ns = pthread_getcpuclockid(self._watched), thread_time_ns()
        if self._path is not None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._file = FileIO(self._path, "w")
        self._due_ns = monotonic_ns() + int(BEAT_S * 1e9)
        self._timer = self._loop.call_later(BEAT_S, self._beat)
        self._arm_alarm()
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Watch no more; harmless when it was not started."""
        if self._timer is not None:
            self._timer.cancel()
        self._ends.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None
            if self._give_up_s is not None:
                signal.setitimer(signal.ITIMER_REAL, 0)
        if self._file is not None:
            faulthandler.cancel_dump_traceback_later()
            self._file.close()
            self._file = None

    def longest_ns(self) -> int:
        """Return the longest that the loop was blocked within the last `window_s`."""
        return max((lag_ns for _, lag_ns in self._lags), default=0)

    def take(self) -> list[Block]:
        """Return the blocks beyond the limit that are over and were not taken yet."""
        taken = list(self._blocks)
        self._blocks.clear()
        return taken

    def _beat(self) -> None:
        self._arm_alarm()
        now_ns, due_ns = monotonic_ns(), self._due_ns
        lag_ns = now_ns - due_ns
        used_ns, self._beat_cpu_ns = thread_time_ns() - self._beat_cpu_ns, thread_time_ns()
        self._due_ns = now_ns + int(BEAT_S * 1e9)
        self._lags.append((now_ns, lag_ns))
        while self._lags[0][0] < now_ns - self._window_ns:
            self._lags.popleft()
        if lag_ns > self._limit_ns:
            named_ns, culprit = self._named
            dumped = self._dumped()
            if dumped is not None:  # the thread could not come to it in time
                culprit = dumped
                if used_ns >= self._limit_ns / 2:
                    self._on_culprit(culprit)
            elif named_ns != due_ns:
                culprit = None
            self._blocks.append(Block(lag_ns, now_ns, culprit))
            self._forget_last_words()
        assert self._loop is not None
        self._timer = self._loop.call_later(BEAT_S, self._beat)

    def _arm_alarm(self) -> None:
        if self._give_up_s is not None:
            signal.setitimer(signal.ITIMER_REAL, self._give_up_s)

    def _dumped(self) -> Culprit | None:
        """Return what `faulthandler` wrote of the loop's thread, which the thread could not look at."""
        if self._path is None:
            return None
        return culprit_in(self._path.read_text(errors="replace"), self._watched)

    # -- the file --------------------------------------------------------------------------------

    def _forget_last_words(self) -> None:
        if self._file is not None:
            self._file.seek(0)
            self._file.truncate()

    def _note_last_words(self, culprit: Culprit) -> None:
        if self._file is not None:
            self._forget_last_words()
            self._file.write(msgspec.json.encode(culprit) + b"\n")

    # -- on its own thread -----------------------------------------------------------------------

    def _watch(self) -> None:
        armed_ns = 0
        look = _Look()
        while not self._ends.wait(self._limit_ns / LOOKS / 1e9):
            now_ns, due_ns = monotonic_ns(), self._due_ns
            if self._file is not None and now_ns - armed_ns >= self._limit_ns:
                armed_ns = now_ns  # it writes once this thread could not come here for so long
                faulthandler.dump_traceback_later(2 * self._limit_ns / 1e9, file=self._file)
            overdue_ns = now_ns - due_ns
            frame = sys._current_frames().get(self._watched)
            if overdue_ns <= self._limit_ns / LOOKS or frame is None or self._due_ns != due_ns:
                self._forget_stale_words()  # none, or it has just ended and this is the stack of something else
                look = _Look()
                continue
            called = callback_frame(frame)
            if look.due_ns != due_ns:
                look = _Look(due_ns)
            if look.called is not called:  # what came before it in this block is not its fault
                look.called, look.seen_ns, look.cpu_ns = called, now_ns, clock_gettime_ns(self._cpu_clock)
            if overdue_ns > self._limit_ns:
                self._judge(look, frame, now_ns)
            del frame, called

    def _judge(self, look: "_Look", frame: FrameType, now_ns: int) -> None:
        """Name a block once, and say once that a culprit is proven, which may be later and another."""
        if look.is_told:
            return
        dumped = self._dumped()
        if dumped is not None:  # nothing could run until now: what the stack was then counts
            seen = culprit_of(frame)
            instance = seen.instance if seen.calls == dumped.calls else ""
            culprit = msgspec.structs.replace(dumped, instance=instance)
            is_proven = clock_gettime_ns(self._cpu_clock) - self._beat_cpu_ns >= self._limit_ns / 2
        else:
            used_ns = clock_gettime_ns(self._cpu_clock) - look.cpu_ns
            has_lasted = look.called is not None and now_ns - look.seen_ns >= self._limit_ns / 2
            is_proven = has_lasted and (used_ns >= self._limit_ns / 2 or self._is_asleep())
            if look.is_named and not is_proven:
                return
            culprit = culprit_of(frame)
        if self._due_ns != look.due_ns:
            return
        self._named = (look.due_ns, culprit)
        self._note_last_words(culprit)
        if not look.is_named:
            look.is_named = True
            self._on_blocked(culprit)
        if is_proven:
            look.is_told = True
            self._on_culprit(culprit)

    def _is_asleep(self) -> bool:
        """Return whether the loop's thread waits for something else than a processor."""
        try:
            text = Path(f"/proc/self/task/{self._native}/stat").read_text()
        except OSError:
            return False
        return text.rpartition(")")[2].split()[0] in ("S", "D")

    def _forget_stale_words(self) -> None:
        if self._file is not None and os.fstat(self._file.fileno()).st_size:
            self._forget_last_words()


def _tell(culprit: Culprit) -> None:
    _log.error("the event loop is blocked by %s; its thread is here:\n%s", culprit, culprit.stack)


def take_last_words(path: Path) -> Culprit | None:
    """Return what blocked the loop of the process before this one when it ended; None where nothing did.

    The file is empty then, so that this is told once.
    """
    try:
        text = path.read_text(errors="replace")
    except FileNotFoundError:
        return None
    if not text:
        return None
    path.write_text("")
    dumped = culprit_in(text)  # behind what the thread wrote, if it could: then this is what came after
    try:
        named = msgspec.json.decode(text.partition("\n")[0], type=Culprit)
    except msgspec.MsgspecError:
        return dumped or Culprit()
    return named if dumped is None or dumped.calls == named.calls else dumped
