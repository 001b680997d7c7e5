"""Watching a version that has just gone live.

Guards, each against what the version before it did: an exception, a callback that holds the loop,
vetoes by risk checks, order rate, latency. They cost nothing once probation is over, because the
watched handlers are replaced by the plain ones.
"""

from collections.abc import Callable
from time import perf_counter_ns
from typing import Any

from msgspec import Struct

from host.core.oms import Oms

__all__ = ["Baseline", "Probation", "ProbationLimits"]


class ProbationLimits(Struct, frozen=True, kw_only=True):
    """When a version on probation is taken back. Rates are compared with the version before it."""

    seconds: float = 30.0
    events: int = 50
    """Probation lasts for both: this long, and at least so many events handled."""
    hang_ms: float = 100.0
    """The longest that one callback may hold the loop."""
    vetoes: int = 20
    """Refusals by risk checks beyond which the share of refused commands must not exceed the old one's."""
    order_rate_factor: float = 5.0
    min_commands: int = 200
    """Commands before the order rate is judged."""
    latency_factor: float = 10.0
    min_latency_us: float = 500.0
    """A mean callback time below this is never too slow."""


class Baseline(Struct):
    """What one version did, counted by its handlers."""

    events: int = 0
    commands: int = 0
    vetoes: int = 0
    handler_ns: int = 0
    slowest_ns: int = 0

    @property
    def mean_us(self) -> float:
        """Return the mean time of a callback."""
        return self.handler_ns / self.events / 1e3 if self.events else 0.0

    @property
    def commands_per_event(self) -> float:
        """Return how many orders, amends and cancels an event led to."""
        return self.commands / self.events if self.events else 0.0


class Probation:
    """Counts what an instance's new version does and says when it has gone too far."""

    def __init__(self, oms: Oms, limits: ProbationLimits, before: Baseline, started_ns: int) -> None:
        self.limits = limits
        self.before = before
        self.counted = Baseline()
        self.started_ns = started_ns
        self._oms = oms

    def watch(self, handle: Callable[[Any], None]) -> Callable[[Any], None]:
        """Return `handle`, timed and counted."""
        oms, counted = self._oms, self.counted

        def watched(event: Any) -> None:
            commands = oms.orders_sent + oms.amends_sent + oms.cancels_sent
            refused = oms.refused
            started_ns = perf_counter_ns()
            try:
                handle(event)
            finally:
                taken_ns = perf_counter_ns() - started_ns
                counted.events += 1
                counted.handler_ns += taken_ns
                if taken_ns > counted.slowest_ns:
                    counted.slowest_ns = taken_ns
                counted.commands += oms.orders_sent + oms.amends_sent + oms.cancels_sent - commands
                counted.vetoes += oms.refused - refused

        watched.__name__ = getattr(handle, "__name__", "callback")
        return watched

    def fault(self) -> str:
        """Return why the version must go back, or an empty text."""
        limits, now, before = self.limits, self.counted, self.before
        if now.slowest_ns > limits.hang_ms * 1e6:
            return f"a callback held the loop for {now.slowest_ns / 1e6:.1f} ms, the limit is {limits.hang_ms:g} ms"
        if now.vetoes > limits.vetoes and now.vetoes > 2 * before.vetoes:
            return f"risk checks refused {now.vetoes} of its commands, the version before had {before.vetoes} refused"
        if now.commands > limits.min_commands and before.events:
            rate, was = now.commands_per_event, before.commands_per_event
            if rate > limits.order_rate_factor * max(was, 0.05):
                return f"it sends {rate:.2f} commands per event, the version before sent {was:.2f}"
        if now.events >= limits.events and before.events:
            mean, was = now.mean_us, before.mean_us
            if mean > limits.min_latency_us and mean > limits.latency_factor * was:
                return (
                    f"its callbacks take {mean:.0f} µs on average, those of the version before {was:.0f} µs"
                )
        return ""

    def is_over(self, now_ns: int) -> bool:
        """Return whether it has been watched for long enough."""
        return (
            now_ns - self.started_ns >= self.limits.seconds * 1e9
            and self.counted.events >= self.limits.events
        )
