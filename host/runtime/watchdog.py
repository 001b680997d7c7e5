"""The watchdog: a thread that notices when the event loop is blocked, and by which code.

The loop beats by a timer. While a beat is overdue nothing on the loop can say so, and afterwards nobody knows what
it was: so a thread looks at the stack of the loop's thread meanwhile. Code that blocks without giving up the
interpreter's lock blocks the watchdog too; it is measured all the same once it is over.
"""

import asyncio
import logging
import sys
import threading
import traceback
from collections import deque
from collections.abc import Callable
from time import monotonic_ns
from types import FrameType
from typing import Final

from msgspec import Struct

__all__ = ["Block", "LoopWatchdog"]

_log = logging.getLogger("tandem.watchdog")

BEAT_S: Final = 0.1
FRAMES: Final = 12
"""How many frames of a stack are shown: those nearest to what blocks."""
KEPT: Final = 64
"""Blocks kept that nobody has taken yet."""


class Block(Struct, frozen=True):
    """Once that the loop was blocked. `stack` is empty where it was too short, or no thread could look."""

    lasted_ns: int
    ended_ns: int
    """By the monotonic clock."""
    stack: str


class LoopWatchdog:
    """Watches the event loop of the thread that calls `start`.

    What blocks it for longer than `limit_s` is logged with its stack at once, by `on_blocked`, on the watchdog's
    own thread and once per block. `take` and `longest_ns` are for the loop's side.
    """

    def __init__(
        self, limit_s: float = 0.5, window_s: float = 10.0, on_blocked: Callable[[str], None] | None = None
    ) -> None:
        self._limit_ns: Final = int(limit_s * 1e9)
        self._window_ns: Final = int(window_s * 1e9)
        self._on_blocked: Final = on_blocked or _tell
        self._due_ns = 0
        self._named = (0, "")
        """The stack of the block that began with the beat due then."""
        self._blocks: deque[Block] = deque(maxlen=KEPT)
        self._lags: deque[tuple[int, int]] = deque()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._thread: threading.Thread | None = None
        self._ends = threading.Event()

    # -- on the loop -----------------------------------------------------------------------------

    def start(self) -> None:
        """Begin to watch the running loop; `stop` must be called on it."""
        self._loop = asyncio.get_running_loop()
        self._due_ns = monotonic_ns() + int(BEAT_S * 1e9)
        self._timer = self._loop.call_later(BEAT_S, self._beat)
        watched = threading.get_ident()
        self._thread = threading.Thread(target=self._watch, args=(watched,), name="watchdog", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Watch no more; harmless when it was not started."""
        if self._timer is not None:
            self._timer.cancel()
        self._ends.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def longest_ns(self) -> int:
        """Return the longest that the loop was blocked within the last `window_s`."""
        return max((lag_ns for _, lag_ns in self._lags), default=0)

    def take(self) -> list[Block]:
        """Return the blocks beyond the limit that are over and were not taken yet."""
        taken = list(self._blocks)
        self._blocks.clear()
        return taken

    def _beat(self) -> None:
        now_ns, due_ns = monotonic_ns(), self._due_ns
        lag_ns = now_ns - due_ns
        self._due_ns = now_ns + int(BEAT_S * 1e9)
        self._lags.append((now_ns, lag_ns))
        while self._lags[0][0] < now_ns - self._window_ns:
            self._lags.popleft()
        if lag_ns > self._limit_ns:
            named_ns, stack = self._named
            self._blocks.append(Block(lag_ns, now_ns, stack if named_ns == due_ns else ""))
        assert self._loop is not None
        self._timer = self._loop.call_later(BEAT_S, self._beat)

    # -- on its own thread -----------------------------------------------------------------------

    def _watch(self, watched: int) -> None:
        named_ns = 0
        while not self._ends.wait(self._limit_ns / 2e9):
            due_ns = self._due_ns
            if due_ns == named_ns or monotonic_ns() - due_ns <= self._limit_ns:
                continue
            named_ns = due_ns  # this block is named now, and not again
            stack = _stack_of(sys._current_frames().get(watched))
            if self._due_ns == due_ns:  # else it has just ended, and this is the stack of something else
                self._named = (due_ns, stack)
                self._on_blocked(stack)


def _stack_of(frame: FrameType | None) -> str:
    if frame is None:
        return ""
    return "".join(traceback.format_stack(frame, FRAMES))


def _tell(stack: str) -> None:
    _log.error("the event loop is blocked; its thread is here:\n%s", stack)
