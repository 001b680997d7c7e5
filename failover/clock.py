"""The clock of leases, and how a right by it becomes a deadline by another clock."""

import time
from collections.abc import Callable

__all__ = ["boottime_ns", "on_clock"]


def boottime_ns() -> int:
    """Return CLOCK_BOOTTIME: it never jumps, and it counts while the machine is suspended."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


def on_clock(until_ns: int, now_ns: Callable[[], int], boot_ns: Callable[[], int] = boottime_ns) -> int:
    """Return `until_ns` of the boot clock as a time of the clock `now_ns`, never later than it is.

    The other clock is read first: a process that is stopped between the two readings loses time by it
    and gains none.
    """
    there_ns = now_ns()
    return there_ns + until_ns - boot_ns()
