"""The venue's clock: market time, which may be that of a recording and run faster, and wall time.

Markets and the matching engine live in market time. Clients stamp their requests with the wall
clock and expect the venue's times to be near it, so everything that a protocol shows or judges is
in wall time: for a recording that plays ten times as fast, an event a second later in the market
is a tenth of a second later on the wall.
"""

import asyncio
import time

__all__ = ["VenueClock"]


class VenueClock:
    """The venue's time: never goes back, and may start in the past to play a recording."""

    def __init__(self, start_ns: int | None = None, speed: float = 1.0) -> None:
        self._started_ns = time.monotonic_ns()
        self._wall_ns = time.time_ns()
        self._start_ns = self._wall_ns if start_ns is None else start_ns
        self._speed = speed

    def now_ns(self) -> int:
        """Return the market time, in nanoseconds since the Unix epoch."""
        elapsed_ns = time.monotonic_ns() - self._started_ns
        return self._start_ns + (elapsed_ns if self._speed == 1.0 else int(elapsed_ns * self._speed))

    def wall_now_ns(self) -> int:
        """Return the wall time as the venue has it: the system's at the start, and monotonic since."""
        return self._wall_ns + time.monotonic_ns() - self._started_ns

    def to_wall_ns(self, market_ns: int) -> int:
        """Return when on the wall `market_ns` is."""
        passed_ns = market_ns - self._start_ns
        return self._wall_ns + (passed_ns if self._speed == 1.0 else int(passed_ns / self._speed))

    def to_market_ns(self, wall_ns: int) -> int:
        """Return which market time `wall_ns` is."""
        passed_ns = wall_ns - self._wall_ns
        return self._start_ns + (passed_ns if self._speed == 1.0 else int(passed_ns * self._speed))

    def wait_s(self, market_ns: int) -> float:
        """Return the seconds from now until the market time `market_ns`; negative once it has passed."""
        return (market_ns - self.now_ns()) / 1e9 / self._speed

    async def sleep(self, wall_s: float) -> None:
        """Wait for so many seconds of wall time."""
        await asyncio.sleep(wall_s)

    @property
    def lag_ns(self) -> int:
        """Return how far the market's time is behind the wall clock: years, for a recording."""
        return self.wall_now_ns() - self.now_ns()
