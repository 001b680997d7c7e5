"""Watching a version that has just gone live.

Guards, each against what the version before it did: an exception, a callback that holds the loop,
vetoes by risk checks, order rate, latency. They are asked after each callback, so that a version is
taken back before the next event; they cost nothing once probation is over, because the watched
handlers are replaced by the plain ones.
"""

from collections.abc import Callable
from typing import Any

from msgspec import Struct

from host.api import Fill, Order

__all__ = ["Baseline", "Probation", "ProbationLimits", "too_slow"]


class ProbationLimits(Struct, frozen=True, kw_only=True):
    """When a version on probation is taken back. Rates are compared with the version before it."""

    seconds: float = 30.0
    events: int = 50
    """Probation lasts for both: this long, and at least so many events handled."""
    hang_ms: float = 100.0
    """The longest that one callback may hold the loop, in warm-up too."""
    vetoes: int = 10
    """Refusals by risk checks that are no reason yet; beyond, the rate must not be twice the old one's."""
    order_rate_factor: float = 5.0
    min_order_rate: float = 0.5
    """Orders and amends per event that are never too many."""
    min_commands: int = 200
    """Orders and amends before the rate is judged."""
    latency_factor: float = 10.0
    min_latency_us: float = 500.0
    """A mean callback time below this is never too slow."""


class Baseline(Struct):
    """What one version did in some time.

    `events` do not count what its own orders led to: a storm of orders would excuse itself.
    """

    events: int = 0
    commands: int = 0
    refusals: int = 0
    handler_ns: int = 0
    slowest_ns: int = 0
    """The longest of these callbacks."""

    @property
    def usual_us(self) -> float:
        """Return the mean time of a callback but for the slowest: the machine has bad moments too."""
        return (self.handler_ns - self.slowest_ns) / (self.events - 1) / 1e3 if self.events > 1 else 0.0

    @property
    def mean_us(self) -> float:
        """Return the mean time of a callback."""
        return self.handler_ns / self.events / 1e3 if self.events else 0.0

    @property
    def order_rate(self) -> float:
        """Return how many orders and amends an event led to."""
        return self.commands / self.events if self.events else 0.0

    @property
    def refusal_rate(self) -> float:
        """Return how many refusals an event led to."""
        return self.refusals / self.events if self.events else 0.0


class Probation:
    """Counts what an instance's new version does and says when it has gone too far.

    `counts()` are the instance's orders-and-amends and refusals, ever. `on_fault(why)` is called
    once, from within the event that was too much.
    """

    def __init__(
        self,
        limits: ProbationLimits,
        before: Baseline,
        started_ns: int,
        *,
        counts: Callable[[], tuple[int, int]],
        stopwatch_ns: Callable[[], int],
        on_fault: Callable[[str], object],
    ) -> None:
        self.limits = limits
        self.before = before
        self.counted = Baseline()
        self.started_ns = started_ns
        self._counts = counts
        self._commands_before, self._refusals_before = counts()
        self._stopwatch_ns = stopwatch_ns
        self._on_fault = on_fault
        self._has_told = False

    def watch(self, handle: Callable[[Any], None]) -> Callable[[Any], None]:
        """Return `handle`, timed and counted."""
        stopwatch_ns = self._stopwatch_ns

        def watched(event: Any) -> None:
            started_ns = stopwatch_ns()
            try:
                handle(event)
            finally:
                self._count(event, stopwatch_ns() - started_ns)

        watched.__name__ = getattr(handle, "__name__", "callback")
        return watched

    def _count(self, event: Any, taken_ns: int) -> None:
        counted = self.counted
        if not isinstance(event, Order | Fill):
            counted.events += 1
        counted.handler_ns += taken_ns
        if taken_ns > counted.slowest_ns:
            counted.slowest_ns = taken_ns
        commands, refusals = self._counts()
        counted.commands = commands - self._commands_before
        counted.refusals = refusals - self._refusals_before
        fault = "" if self._has_told else self.fault()
        if fault:
            self._has_told = True
            self._on_fault(fault)

    def fault(self) -> str:
        """Return why the version must go back, or an empty text."""
        limits, now, before = self.limits, self.counted, self.before
        if now.slowest_ns > limits.hang_ms * 1e6:
            held_ms = now.slowest_ns / 1e6
            return f"a callback held the loop for {held_ms:.1f} ms, the limit is {limits.hang_ms:g} ms"
        if now.refusals > limits.vetoes and now.refusal_rate > 2 * before.refusal_rate:
            return (
                f"{now.refusals} of its orders and amends were refused in {now.events} events, "
                f"{before.refusals} in {before.events} of the version before"
            )
        if now.commands > limits.min_commands and before.events >= limits.events:
            rate, was = now.order_rate, before.order_rate
            if rate > max(limits.order_rate_factor * was, limits.min_order_rate):
                return f"it sends {rate:.2f} orders and amends per event, the version before {was:.2f}"
        if now.events >= limits.events:
            return too_slow(limits, now, before)
        return ""

    def is_over(self, now_ns: int) -> bool:
        """Return whether it has been watched for long enough."""
        is_time_up = now_ns - self.started_ns >= self.limits.seconds * 1e9
        return is_time_up and self.counted.events >= self.limits.events


def too_slow(limits: ProbationLimits, measured: Baseline, before: Baseline) -> str:
    """Return in words how callbacks are slower than the version before allows, or an empty text."""
    mean, was = measured.usual_us, before.usual_us
    if before.events and mean > max(limits.min_latency_us, limits.latency_factor * was):
        return f"its callbacks take {mean:.0f} µs on average, those of the version before {was:.0f} µs"
    return ""
