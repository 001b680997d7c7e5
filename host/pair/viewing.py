"""Makes the view of a pair from what is known of it."""

import time

from host.pair.cell import Machine
from host.pair.pair import Pair
from host.pair.screen import NodePane, PairView, VenuePane, log_lines
from host.pair.watching import NodeSeen

__all__ = ["condition", "make_view"]

LOG_LINES = 5
SAID_BYTES = 3_000


def make_view(pair: Pair, *, chosen: int = 0, prompt: str = "", shows_help: bool = False) -> PairView:
    """Return what is to be seen now."""
    plan, seen, now_s = pair.plan, pair.seen, time.monotonic()
    return PairView(
        at_s=0.0 if pair.phase else pair.now_s,
        phase=pair.phase,
        setting=f"ttl {plan.ttl_ms} ms · {plan.durability}",
        folder=str(plan.folder),
        nodes=tuple(_pane(machine, seen, now_s, plan.ttl_ms) for machine in pair.cell.machines.values()),
        venue=_venue(pair),
        moments=tuple(pair.moments[-100:]),
        chosen=chosen,
        prompt=prompt,
        shows_help=shows_help,
    )


def _pane(machine: Machine, seen: dict[str, NodeSeen], now_s: float, ttl_ms: float) -> NodePane:
    own = seen.get(machine.name)
    how = condition(machine, own, now_s)
    told = next(
        (
            one.standbys[machine.name]
            for one in seen.values()
            if one.leads and one.is_current(now_s) and machine.name in one.standbys
        ),
        None,
    )
    why_not = "" if told is None else told.why_not
    if told is None and own is not None and how == "stands by":
        why_not = own.why_not
    return NodePane(
        name=machine.name,
        condition=how,
        epoch=0 if own is None else own.epoch,
        right_left_ms=own.right_left_at(now_s) if own is not None and how == "leads" else 0.0,
        ttl_ms=ttl_ms,
        lag=None if told is None else told.lag,
        round_trip_ms=None if told is None else told.round_trip_ms,
        why_not=why_not,
        orders=0 if own is None else own.orders,
        fills=0 if own is None else own.fills,
        open_orders=0 if own is None else own.open_orders,
        positions={} if own is None else own.positions,
        instances={} if own is None else own.instances,
        cuts=tuple(machine.cuts),
        takeover="" if own is None else own.takeover,
        log=log_lines(machine.child.said(SAID_BYTES), LOG_LINES),
    )


def condition(machine: Machine, own: NodeSeen | None, now_s: float) -> str:
    """Return how a node is, in the words of `NodePane.condition`: by its processes first, then by its own word."""
    if machine.is_frozen:
        return "frozen"
    if not machine.child.is_alive:
        return "gone" if machine.child.pid else "starting"
    if own is None or not machine.child.inner_pid():
        return "starting"
    if not own.is_current(now_s):
        return "no answer"
    if own.leads:
        # One that is cut off does not know yet who leads, but it knows that it may send nothing.
        return "leads" if own.right_left_at(now_s) > 0 else "lapsed"
    return "stands by" if own.state in ("watching", "acquiring") else "takes over"


def _venue(pair: Pair) -> VenuePane:
    judge = pair.judge
    verdict = judge.verdict
    last = ""
    if judge.switches:
        switch = judge.switches[-1]
        last = f"{switch.old_leader} → {switch.new_leader}, {switch.gap_ms:,.0f} ms without an order"
        if not pair.phase:
            last += f"; {len(judge.switches)} so far"
    return VenuePane(
        resting=judge.resting_by_epoch,
        accepted=judge.accepted,
        fills=judge.fills,
        refused=dict(judge.refused),
        last_switch=last,
        lost=len(verdict.lost),
        doubled=len(verdict.doubled),
        stale=len(verdict.stale),
        positions={symbol: format(qty.normalize(), "f") for symbol, qty in judge.positions.items()},
    )
