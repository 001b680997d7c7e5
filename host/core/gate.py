"""The gate: every order, amend and cancel passes it on its way out.

The right to send is a deadline, never a role flag: a comparison with the clock cannot be late the
way a flag is (FAILOVER.md, result 3). A single node holds its right for ever; a pair moves the
deadline with each renewal of its lease.
"""

from collections.abc import Callable
from typing import Final

__all__ = ["FOREVER_NS", "Gate"]

FOREVER_NS: Final = 2**63 - 1


class Gate:
    """Permits sending until `valid_until_ns`; `order_window_ns` bounds how long a request may live."""

    __slots__ = ("clock_ns", "order_window_ns", "valid_until_ns")

    def __init__(self, order_window_ns: int, valid_until_ns: int = FOREVER_NS) -> None:
        self.order_window_ns = order_window_ns
        self.valid_until_ns = valid_until_ns
        self.clock_ns: Callable[[], int] | None = None
        """Read anew before anything leaves, where the right to send ends: a process may have been frozen
        since the turn began. None where the right lasts for ever."""

    def lease(self, clock_ns: Callable[[], int], until_ns: int = 0) -> None:
        """Hold the gate to a right that ends at `until_ns` of `clock_ns`, the host's time."""
        self.clock_ns = clock_ns
        self.valid_until_ns = until_ns

    def permit(self, now_ns: int) -> bool:
        """Return whether a command may leave at `now_ns`."""
        return now_ns < self.valid_until_ns

    def deadline_ns(self, now_ns: int) -> int:
        """Return the time after which the venue must not accept a request sent at `now_ns`."""
        deadline_ns = now_ns + self.order_window_ns
        return deadline_ns if deadline_ns < self.valid_until_ns else self.valid_until_ns

    def close(self) -> None:
        """Permit nothing from here on."""
        self.valid_until_ns = 0
