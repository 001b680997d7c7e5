"""What the nodes say of themselves, asked again and again over their control API."""

import asyncio
import time
from typing import Final

from msgspec import Struct

from host.client import Control, ControlError
from host.pair.cell import Machine
from tandem.v1 import failover_pb2, node_pb2, trading_pb2

__all__ = ["NodeSeen", "StandbySeen", "Watcher"]

ASK_EVERY_S: Final = 0.15
POSITIONS_EVERY: Final = 3
"""Every which time the positions are asked for too."""
ANSWER_S: Final = 0.5
STALE_S: Final = 1.0
"""What was said longer ago than this is history."""


class StandbySeen(Struct, frozen=True):
    """A standby as its leader sees it."""

    lag: int
    """Journal entries that it has not acknowledged."""
    round_trip_ms: float | None
    why_not: str
    """Why it could not take over; empty when it could."""


class NodeSeen(Struct, frozen=True, kw_only=True):
    """The latest that a node has said."""

    at_s: float
    """When, by the monotonic clock."""
    leads: bool
    phase: str
    state: str
    """Towards the lease, such as `leading`."""
    epoch: int
    holder: str
    right_left_ms: float | None
    """How long it may send without another renewal; None where it may not."""
    ttl_ms: float
    why_not: str
    standbys: dict[str, StandbySeen]
    ailments: tuple[str, ...]
    orders: int
    fills: int
    open_orders: int
    last_lsn: int
    instances: dict[str, int]
    """How many are in each state."""
    takeover: str = ""
    """How long its last takeover took, and each step of it, in ms."""
    positions: dict[str, str] = {}

    def right_left_at(self, now_s: float) -> float:
        """Return the milliseconds that are left of its right at `now_s`, as far as it has said."""
        if self.right_left_ms is None:
            return 0.0
        return max(self.right_left_ms - (now_s - self.at_s) * 1e3, 0.0)

    def is_current(self, now_s: float) -> bool:
        """Return whether it has said so within the last second."""
        return now_s - self.at_s < STALE_S


class Watcher:
    """Asks one node, from `run` until that is cancelled; `seen` is its latest answer."""

    def __init__(self, machine: Machine) -> None:
        self.seen: NodeSeen | None = None
        self.unanswered = 0
        """How often in a row it did not answer: it is starting, frozen or gone."""
        self._machine: Final = machine
        self._positions: dict[str, str] = {}

    def forget(self) -> None:
        """Take nothing for true that it has said: its process is gone."""
        self.seen = None
        self._positions = {}

    async def run(self) -> None:
        """Ask until cancelled; a node that does not answer is asked again."""
        count = 0
        async with Control([self._machine.control], timeout_s=ANSWER_S, patience_s=0.0) as control:
            while True:
                if self._machine.is_running:
                    try:
                        await self._ask(control, with_positions=count % POSITIONS_EVERY == 0)
                        self.unanswered = 0
                    except ControlError:
                        self.unanswered += 1
                    count += 1
                await asyncio.sleep(ASK_EVERY_S)

    async def _ask(self, control: Control, *, with_positions: bool) -> None:
        if with_positions:
            listed = await control.trading.list_positions(
                trading_pb2.ListPositionsRequest(page_size=100, include_flat=True)
            )
            self._positions = {one.symbol: one.qty for one in listed.positions}
        answer = await control.node.get_status(node_pb2.GetStatusRequest())
        self.seen = _seen(answer.status, self._positions)


def _seen(status: node_pb2.NodeStatus, positions: dict[str, str]) -> NodeSeen:
    failover = status.failover
    return NodeSeen(
        at_s=time.monotonic(),
        leads=status.role == node_pb2.NODE_ROLE_PRIMARY,
        phase=node_pb2.NodePhase.Name(status.phase).removeprefix("NODE_PHASE_").lower(),
        state=failover_pb2.ElectorState.Name(failover.state).removeprefix("ELECTOR_STATE_").lower(),
        epoch=failover.epoch,
        holder=failover.holder,
        right_left_ms=failover.right_left.ToMilliseconds() if failover.HasField("right_left") else None,
        ttl_ms=failover.ttl.ToMilliseconds(),
        why_not=failover.why_not,
        standbys={one.name: _standby(one) for one in failover.standbys},
        ailments=tuple(failover.ailments),
        orders=status.counters.orders + status.counters.amends,
        fills=status.counters.fills,
        open_orders=status.open_orders,
        last_lsn=status.last_lsn,
        instances=dict(status.instances),
        takeover=_takeover(failover),
        positions=positions,
    )


def _standby(one: failover_pb2.Standby) -> StandbySeen:
    trip_ms = one.round_trip.ToMicroseconds() / 1e3 if one.HasField("round_trip") else None
    return StandbySeen(one.lag_entries, trip_ms, "" if one.eligible else one.why_not or "it is not ready")


def _takeover(failover: failover_pb2.Failover) -> str:
    if not failover.HasField("last_takeover"):
        return ""
    steps = failover.last_takeover.steps
    parts = ", ".join(f"{step.name} {step.duration.ToMicroseconds() / 1e3:.0f}" for step in steps)
    return f"{failover.last_takeover.duration.ToMicroseconds() / 1e3:.0f} ms ({parts})"
