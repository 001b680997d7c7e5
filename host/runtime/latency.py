"""A histogram of durations that takes constant memory, however long a node runs."""

from typing import Final

__all__ = ["Histogram"]

_SUB_BITS: Final = 5
_SUB: Final = 1 << _SUB_BITS
"""Buckets per power of two: a quantile is at most 1/32 = 3 % above the true one."""
_BUCKETS: Final = 64 * _SUB


class Histogram:
    """Counts durations in nanoseconds in buckets that grow with their size."""

    __slots__ = ("_counts", "count", "max_ns")

    def __init__(self) -> None:
        self._counts = [0] * _BUCKETS
        self.count = 0
        self.max_ns = 0

    def add(self, duration_ns: int) -> None:
        """Count one duration."""
        shift = duration_ns.bit_length() - _SUB_BITS - 1
        index = duration_ns if shift <= 0 else (shift << _SUB_BITS) + (duration_ns >> shift)
        self._counts[index] += 1
        self.count += 1
        if duration_ns > self.max_ns:
            self.max_ns = duration_ns

    def quantile_us(self, fraction: float) -> float:
        """Return the duration that `fraction` of all stay at or below, in µs; 0 when empty."""
        wanted = fraction * self.count
        seen = 0
        for index, count in enumerate(self._counts):
            seen += count
            if count and seen >= wanted:
                return min(_upper_ns(index), self.max_ns) / 1e3
        return 0.0


def _upper_ns(index: int) -> int:
    shift = (index >> _SUB_BITS) - 1
    if shift <= 0:
        return index
    return (((index & (_SUB - 1)) + _SUB + 1) << shift) - 1
