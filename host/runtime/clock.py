"""Time for the runtime: the real one, and one that a replay sets."""

import time
from typing import Protocol

__all__ = ["Clock", "LiveClock", "VirtualClock"]


class Clock(Protocol):
    """Tells the time in nanoseconds since the Unix epoch; it never goes back."""

    def now_ns(self) -> int:
        """Return the time."""

    def stopwatch_ns(self) -> int:
        """Return a reading for measuring how long plugin code takes; always 0 in a replay.

        What a plugin may do must not depend on how fast this machine replays it.
        """


class LiveClock:
    """The wall clock's date carried on by the monotonic clock: steps of the wall clock do not show."""

    __slots__ = ("_offset_ns",)

    def __init__(self) -> None:
        self._offset_ns = time.time_ns() - time.monotonic_ns()

    def now_ns(self) -> int:
        """Return the time."""
        return self._offset_ns + time.monotonic_ns()

    def stopwatch_ns(self) -> int:
        """Return the performance counter."""
        return time.perf_counter_ns()


class VirtualClock:
    """Stands where the driver of a replay put it."""

    __slots__ = ("_now_ns",)

    def __init__(self, now_ns: int = 0) -> None:
        self._now_ns = now_ns

    def now_ns(self) -> int:
        """Return the time."""
        return self._now_ns

    def stopwatch_ns(self) -> int:
        """Return 0: replayed code takes no time."""
        return 0

    def set(self, now_ns: int) -> None:
        """Move to `now_ns`; an earlier time leaves the clock where it is."""
        if now_ns > self._now_ns:
            self._now_ns = now_ns
