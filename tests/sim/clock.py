"""The clocks of one simulated node."""

from typing import Final

MILLION: Final = 1_000_000


class SimClock:
    """CLOCK_BOOTTIME of a machine: another zero and another rate than real time, and never a jump."""

    __slots__ = ("_base", "_rate")

    def __init__(self, base_ns: int, drift_ppm: int) -> None:
        self._base = base_ns
        self._rate = MILLION + drift_ppm

    def local_ns(self, real_ns: int) -> int:
        """Return what the clock shows at a real time."""
        return self._base + real_ns * self._rate // MILLION

    def real_ns(self, local_ns: int) -> int:
        """Return the first real time at which the clock shows `local_ns` or more."""
        return -((self._base - local_ns) * MILLION // self._rate)

    def step(self, by_ns: int) -> None:
        """Jump. Only a mutant lets the lease depend on a clock that does."""
        self._base += by_ns
