"""Counting requests the way venues do: so many per window, windows aligned to the clock."""

from typing import Final

from msgspec import Struct

__all__ = ["FixedWindow", "SlidingWindow"]

SECOND_NS: Final = 1_000_000_000


class _Count(Struct):
    window: int = 0
    used: int = 0


class FixedWindow:
    """At most `limit` per window of `seconds`, per key. Windows begin at multiples of their length.

    The key is whatever the venue counts by: an address, an account, an account and a symbol.
    """

    def __init__(self, limit: int, seconds: float) -> None:
        self.limit: Final = limit
        self.length_ns: Final = int(seconds * SECOND_NS)
        self._counts: dict[str, _Count] = {}

    def add(self, key: str, cost: int, now_ns: int) -> int:
        """Count `cost` (negative to give back) and return what is used of the present window."""
        count = self._count(key, now_ns)
        count.used = max(0, count.used + cost)
        return count.used

    def used(self, key: str, now_ns: int) -> int:
        """Return what is used of the present window."""
        return self._count(key, now_ns).used

    def is_over(self, key: str, cost: int, now_ns: int) -> bool:
        """Return whether `cost` more would go beyond the limit."""
        return self.used(key, now_ns) + cost > self.limit

    def reset_ns(self, now_ns: int) -> int:
        """Return when the present window ends."""
        return (now_ns // self.length_ns + 1) * self.length_ns

    def _count(self, key: str, now_ns: int) -> _Count:
        count = self._counts.get(key)
        if count is None:
            count = self._counts[key] = _Count()
        window = now_ns // self.length_ns
        if count.window != window:
            count.window, count.used = window, 0
        return count


class SlidingWindow:
    """At most `limit` within any `seconds`, per key."""

    def __init__(self, limit: int, seconds: float) -> None:
        self.limit: Final = limit
        self.length_ns: Final = int(seconds * SECOND_NS)
        self._times: dict[str, list[int]] = {}

    def take(self, key: str, cost: int, now_ns: int) -> bool:
        """Count `cost` if it still fits, and return whether it did."""
        times = self._times.setdefault(key, [])
        oldest_ns = now_ns - self.length_ns
        expired = next((i for i, time_ns in enumerate(times) if time_ns > oldest_ns), len(times))
        del times[:expired]
        if len(times) + cost > self.limit:
            return False
        times.extend([now_ns] * cost)
        return True
