"""What operators may ask of a node's part in its cell: the control API's `Leadership`, on a membership."""

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from failover.clock import boottime_ns
from failover.replication import StandbyView
from host.control.leadership import FailoverStatus, StandbyStatus, Takeover
from host.control.reasons import Refused, Violation
from host.core import entries as e
from host.membership import CommandRefused
from host.runtime.turn import turn

if TYPE_CHECKING:
    from host.member import Member

__all__ = ["NodeLeadership"]

SETTLE_S: Final = 5.0
"""How long a switch may take beyond what the lease needs, before its caller is told that it did not come about."""
LOOK_S: Final = 0.005


class NodeLeadership:
    """Implements `host.control.leadership.Leadership` for a node of a cell."""

    def __init__(self, member: "Member") -> None:
        self._member: Final = member

    def status(self) -> FailoverStatus:
        """Return what is known now."""
        member, membership = self._member, self._member.membership
        section = membership.section
        if not membership.has_started:
            return FailoverStatus(
                cell=section.cell,
                epoch=0,
                holder="",
                state="watching",
                why_not="the node is starting",
                ttl_ns=section.ttl_ms * 1_000_000,
            )
        elector = membership.elector
        seen, now_ns = elector.watch.seen, boottime_ns()
        leads = membership.engine is not None
        standbys = membership.standbys() if leads else []
        durability = ""
        if leads:
            mode = membership.durability
            durability = member.config.node.durability if mode is None else mode.mode.value
        return FailoverStatus(
            cell=section.cell,
            epoch=0 if seen is None else seen.epoch,
            holder=elector.leader,
            state=elector.state.value,
            why_not="" if leads else elector.why_not,
            ttl_ns=section.ttl_ms * 1_000_000,
            right_left_ns=elector.right_until_ns - now_ns if elector.right_until_ns > now_ns else None,
            is_maintained=membership.is_maintained,
            durability=durability,
            standbys=[_standby(view) for view in standbys],
            ailments=sorted(membership.health.ailments),
            do_states_agree=member.do_states_agree(standbys),
            breaker_closes_ns=max(elector.breaker_closes_ns - now_ns, 0),
            last_takeover=self._last_takeover(),
            previous_holder=membership.previous_holder,
            last_change=membership.last_switch,
        )

    async def switchover(self, to: str, by: str) -> None:
        """Hand the lease to the standby `to`; return when it leads and this node follows it."""
        membership = self._member.membership
        if membership.engine is None:
            raise _refused("this node does not lead")
        try:
            membership.switch_over(to)
        except CommandRefused as error:
            raise _refused(str(error)) from error
        self._member.alert("switchover", f"to {to}, ordered by {by}")
        given_up = await membership.handed_over()
        if given_up:
            raise _failed(given_up)
        await self._until(
            lambda: membership.followed.primary == to, f"{to} has not taken over yet; look at its log"
        )

    async def promote(self, by: str) -> None:
        """Take the lease by force, with a fence; return when this node trades."""
        member, membership = self._member, self._member.membership
        self._check_started()
        try:
            membership.promote()
        except CommandRefused as error:
            raise _refused(str(error)) from error
        membership.last_switch = f"promotion ordered by {by}"
        await self._until(
            lambda: member.is_trading, "the lease was asked for, and this node does not trade yet"
        )

    async def set_maintenance(self, on: bool, by: str) -> None:
        """Have no node take over by itself, or let them again.

        The primary's word is journaled, and so holds for every node that follows it; that of a standby for itself.
        """
        membership = self._member.membership
        self._check_started()
        engine = membership.engine
        if engine is not None:
            with turn(engine) as now_ns:
                engine.record(e.MaintenanceSet(on, by), now_ns)
        membership.maintain(on)

    def _last_takeover(self) -> Takeover | None:
        steps, engine = self._member.takeover, self._member.engine
        if steps is None:
            return None
        return Takeover(
            epoch=steps.epoch,
            time_ns=engine.clock.now_ns() - (boottime_ns() - steps.since_ns),
            previous_holder=steps.previous_holder,
            reason=steps.reason,
            steps=list(steps.taken_ns.items()),
        )

    def _check_started(self) -> None:
        if not self._member.membership.has_started:
            raise _refused("the node is starting; ask again in a moment")

    async def _until(self, is_done: Callable[[], bool], text: str) -> None:
        section = self._member.membership.section
        give_up_ns = boottime_ns() + 4 * section.ttl_ms * 1_000_000 + int(SETTLE_S * 1e9)
        while not is_done():
            if boottime_ns() > give_up_ns:
                raise _failed(text)
            await asyncio.sleep(LOOK_S)


def _standby(view: StandbyView) -> StandbyStatus:
    return StandbyStatus(
        name=view.node,
        address=view.address,
        control_address=view.control_address,
        lag_entries=view.lag_entries,
        lag_bytes=view.lag_bytes,
        lag_ns=view.lag_ns,
        round_trip_ns=view.round_trip_ns,
        why_not=view.why_not or ("" if view.health.is_current else view.health.reason),
        ailments=view.health.ailments,
        differs_at_lsn=view.differs_at_lsn,
    )


def _refused(text: str) -> Refused:
    return Refused("SWITCH_REFUSED", text, Violation("lease", text))


def _failed(text: str) -> Refused:
    return Refused("SWITCH_FAILED", text, Violation("lease", text))
