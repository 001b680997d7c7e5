"""Time for the runtime: the real one, and one that a replay sets."""

import time
from collections.abc import Callable
from typing import Protocol

__all__ = ["Clock", "LiveClock", "VirtualClock"]


class Clock(Protocol):
    """Tells the time in nanoseconds since the Unix epoch; it never goes back."""

    def now_ns(self) -> int:
        """Return the time."""

    @property
    def stopwatch_ns(self) -> Callable[[], int]:
        """A function whose readings tell how long plugin code takes; always 0 in a replay.

        What a plugin may do must not depend on how fast this machine replays it.
        """


class LiveClock:
    """The wall clock's date carried on by the monotonic clock: steps of the wall clock do not show."""

    __slots__ = ("_offset_ns", "stopwatch_ns")

    def __init__(self) -> None:
        self._offset_ns = time.time_ns() - time.monotonic_ns()
        self.stopwatch_ns = time.perf_counter_ns

    def now_ns(self, _monotonic_ns: Callable[[], int] = time.monotonic_ns) -> int:
        """Return the time."""
        return self._offset_ns + _monotonic_ns()


class VirtualClock:
    """Stands where the driver of a replay put it."""

    __slots__ = ("_now_ns", "stopwatch_ns")

    def __init__(self, now_ns: int = 0) -> None:
        self._now_ns = now_ns
        self.stopwatch_ns: Callable[[], int] = lambda: 0

    def now_ns(self) -> int:
        """Return the time."""
        return self._now_ns

    def set(self, now_ns: int) -> None:
        """Move to `now_ns`; an earlier time leaves the clock where it is."""
        if now_ns > self._now_ns:
            self._now_ns = now_ns
