"""A deterministic world: real time, a store, links that delay and lose, a venue, and nodes.

Everything happens in one heap of events. What is random comes from one generator per schedule, so a
seed is a reproducer. Times are integers of nanoseconds.
"""

import heapq
import random
from collections.abc import Callable
from typing import Any, Final

from failover.elector import Elector
from failover.lease import Record
from tests.sim.exchange import SimVenue, ViolationError

TTL_MS: Final = 600
TTL: Final = TTL_MS * 1_000_000
MS: Final = 1_000_000
CELL: Final = "main"
STORE_DEADLINE: Final = TTL // 4
ORDER_WINDOW: Final = TTL // 3
VENUE_QUEUE: Final = TTL // 20
"""How long an order may wait in the venue after its window was checked: what the guard has to cover."""
CLOCK_ERROR: Final = 5 * MS
"""The bound of a node's error about the venue's time, which it takes off every deadline."""


class SimStore:
    """The lease record, and how the store and the ways to it are."""

    def __init__(self, world: "World") -> None:
        self.world = world
        self.record: Record | None = None
        self.down_until = 0
        self.hangs_until = 0
        self.slow_until = 0
        self.wipes = 0
        self.outages = 0

    def is_well(self, now_ns: int) -> bool:
        """Return whether it answers quickly."""
        return now_ns >= self.down_until and now_ns >= self.slow_until and now_ns >= self.hangs_until


class World:
    """One schedule. `quirks` name what a mutant breaks outside the elector."""

    def __init__(
        self,
        seed: int,
        elector: type[Elector] = Elector,
        quirks: frozenset[str] = frozenset(),
        trace: Callable[[str], None] | None = None,
    ) -> None:
        from tests.sim.faults import plan
        from tests.sim.node import SimNode

        self.seed = seed
        self.random: Final = random.Random(seed)
        self.elector: Final = elector
        self.quirks: Final = quirks
        self.trace = trace
        self.now = 1_000 * TTL
        self.started = self.now
        self._heap: list[tuple[int, int, Callable[..., None], tuple[Any, ...]]] = []
        self._count = 0
        self.store: Final = SimStore(self)
        self.venue: Final = SimVenue()
        self.venue_slow_until = 0
        self.wild = 0.0
        """How often a request is delayed far beyond its deadline, and a pause strikes between two steps."""
        size = 2 if self.random.random() < 0.6 else 3
        names = [f"n{number}" for number in range(size)]
        self.nodes: Final = [SimNode(self, name, names) for name in names]
        self.last_gate_end = self.now
        self.first_gate: int | None = None
        self.gaps_ns = 0
        self.terms = 0
        self.latest_epoch = 0
        self.plan: Final = plan(self)

    def push(self, delay_ns: int, act: Callable[..., None], *arguments: Any) -> None:
        """Let `act` happen `delay_ns` from now."""
        self._count += 1
        heapq.heappush(self._heap, (self.now + delay_ns, self._count, act, arguments))

    def run(self) -> "World":
        """Run to the end of the plan; raise `ViolationError` where an invariant breaks."""
        end = self.plan.end_ns
        heap, pop = self._heap, heapq.heappop
        for node in self.nodes:
            node.start()
        self.push(TTL, self._check_liveness)
        while heap and heap[0][0] <= end:
            self.now, _, act, arguments = pop(heap)
            act(*arguments)
        return self

    def note(self, text: str) -> None:
        """Say what happens, where somebody wants to read it."""
        if self.trace is not None:
            self.trace(f"{(self.now - self.started) / TTL:8.3f} ttl  {text}")

    def gate_opened(self, node: Any, end_ns: int) -> None:
        """P4 by gates: at no real instant are two of them open."""
        now = self.now
        for other in self.nodes:
            if other is not node and other.gate_end > now:
                raise ViolationError(
                    f"P4: the gates of {node.name} (epoch {node.gate_epoch}) and {other.name} (epoch "
                    f"{other.gate_epoch}) are open at once, for another {(other.gate_end - now) / MS:.1f} ms"
                )
        if self.first_gate is None:
            self.first_gate = now
        elif now > self.last_gate_end:
            self.gaps_ns += now - self.last_gate_end
        self.last_gate_end = max(self.last_gate_end, end_ns)

    def led(self, name: str, epoch: int) -> int:
        """Count a leadership and return its term. Epochs grow, as long as the store keeps its data."""
        if epoch <= self.latest_epoch and not self.store.wipes:
            raise ViolationError(f"epochs: {name} leads in epoch {epoch} after epoch {self.latest_epoch}")
        self.latest_epoch = max(epoch, self.latest_epoch)
        self.terms += 1
        return self.terms

    def upset_all(self) -> None:
        """No node counts as undisturbed before now."""
        for node in self.nodes:
            node.undisturbed_since = max(node.undisturbed_since, self.now)

    def _check_liveness(self) -> None:
        """Some node leads within 3 ttl whenever a healthy one can reach the store."""
        now = self.now
        end = max(node.gate_end for node in self.nodes)
        self.last_gate_end = max(min(self.last_gate_end, max(now, end)), end)
        for node in self.nodes:
            since = node.healthy_since(now)
            if since is None:
                continue
            leaderless = now - max(since, self.last_gate_end)
            if leaderless > 3 * TTL:
                raise ViolationError(
                    f"liveness: {node.name} is healthy and reaches the store, and nobody has led for "
                    f"{leaderless / TTL:.2f} ttl ({node.elector.state.value}: {node.elector.why_not})"
                )
        self.push(TTL // 2, self._check_liveness)
