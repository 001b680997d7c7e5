"""How long each step of a takeover took."""

from collections.abc import Callable

from failover.clock import boottime_ns
from failover.signals import Lead

__all__ = ["Steps"]


class Steps:
    """Times of the steps since the lease was won, in nanoseconds, in the order in which they were done."""

    def __init__(self, lead: Lead, since_ns: int, now_ns: Callable[[], int] = boottime_ns) -> None:
        self.epoch = lead.epoch
        self.reason = lead.succession.value
        self.previous_holder = "" if lead.previous is None else lead.previous.holder
        self.since_ns = since_ns
        """When the lease was won, by CLOCK_BOOTTIME."""
        self.taken_ns: dict[str, int] = {}
        self._last_ns = since_ns
        self._now_ns = now_ns

    def done(self, step: str) -> None:
        """Note that a step is done; its time is that since the one before."""
        now_ns = self._now_ns()
        self.taken_ns[step] = now_ns - self._last_ns
        self._last_ns = now_ns

    @property
    def total_ns(self) -> int:
        """Return the time of all steps so far."""
        return self._last_ns - self.since_ns

    def __str__(self) -> str:
        steps = ", ".join(f"{name} {ns / 1e6:.1f}" for name, ns in self.taken_ns.items())
        return f"{self.total_ns / 1e6:.1f} ms ({steps})"
