"""Time for the runtime: the real one, and one that a replay sets."""

import functools
import time
from collections.abc import Callable
from typing import Final, Protocol

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


_BOOT_NS: Final = functools.partial(time.clock_gettime_ns, time.CLOCK_BOOTTIME)


class LiveClock:
    """The wall clock's date carried on by CLOCK_BOOTTIME: steps of the wall clock do not show.

    It counts on while the machine sleeps, as the clock of leases does: a right to send that ended
    meanwhile has ended by this clock too.
    """

    __slots__ = ("_offset_ns", "stopwatch_ns")

    def __init__(self) -> None:
        self._offset_ns = time.time_ns() - _BOOT_NS()
        self.stopwatch_ns = time.perf_counter_ns

    def now_ns(self, _boot_ns: Callable[[], int] = _BOOT_NS) -> int:
        """Return the time."""
        return self._offset_ns + _boot_ns()


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
