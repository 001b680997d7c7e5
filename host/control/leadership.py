"""What the control API asks of a node's part in its cell: who leads, who could, and to change that.

The node implements `Leadership`; nothing here knows how leaders are elected. Times are lengths in
nanoseconds, but for `Takeover.time_ns`, which is in the node's time.
"""

from collections.abc import Sequence
from typing import Protocol

from msgspec import Struct

from host.control.reasons import Refused, Violation

__all__ = ["FailoverStatus", "Leadership", "StandbyStatus", "Takeover", "heir_of"]


class StandbyStatus(Struct, frozen=True, kw_only=True):
    """A standby, as the primary sees it."""

    name: str
    address: str
    """Where its replication stream comes from."""
    control_address: str = ""
    lag_entries: int = 0
    lag_bytes: int = 0
    lag_ns: int = 0
    round_trip_ns: int = 0
    """0 before the first heartbeat was acknowledged."""
    why_not: str = ""
    """Why it could not take over; empty if it could."""
    ailments: Sequence[str] = ()
    differs_at_lsn: int = 0
    """The entry at which its state was found to differ; 0 where it was not."""


class Takeover(Struct, frozen=True, kw_only=True):
    """How this node became the primary."""

    epoch: int
    time_ns: int
    previous_holder: str = ""
    reason: str = ""
    steps: Sequence[tuple[str, int]] = ()
    """What was done, and how long it took, in order."""


class FailoverStatus(Struct, frozen=True, kw_only=True):
    """What a node knows of who leads its cell."""

    cell: str
    epoch: int
    """Of the latest lease seen."""
    holder: str
    """Who holds the lease; empty where nobody does."""
    state: str
    """Where this node stands towards it: a word of the elector, such as `leading`."""
    why_not: str = ""
    """Why this node does not take the lease; empty on the leader."""
    ttl_ns: int
    right_left_ns: int | None = None
    """How much longer this node may trade without another renewal; None where it may not."""
    is_maintained: bool = False
    """Whether no node takes over by itself, on an operator's word."""
    durability: str = ""
    """What holds an entry before its order is sent: `process`, `disk`, `replica`, `halting` or `halted`;
    empty on a standby."""
    standbys: Sequence[StandbyStatus] = ()
    ailments: Sequence[str] = ()
    do_states_agree: bool | None = None
    """Whether both nodes' digests agree; None before the first comparison."""
    breaker_closes_ns: int = 0
    """Until nodes may take over by themselves again, after too many switches; 0 while they may."""
    last_takeover: Takeover | None = None
    previous_holder: str = ""
    last_change: str = ""
    """Why the leader changed the last time, in words."""


class Leadership(Protocol):
    """A node's part in its cell. What is refused raises `Refused` and has changed nothing.

    The reasons are `SWITCH_REFUSED` where it cannot begin, and `SWITCH_FAILED` where it began and
    came to nothing. `by` is who asks, and why. Calls may come on a primary and on a standby.
    """

    def status(self) -> FailoverStatus:
        """Return what is known now."""

    async def switchover(self, to: str, by: str) -> None:
        """Hand the lease to the standby `to`; return when it leads and this node follows it."""

    async def promote(self, by: str) -> None:
        """Take the lease by force, with a fence; return when this node trades."""

    async def set_maintenance(self, on: bool, by: str) -> None:
        """Have no node take over by itself, or let them again; return when that holds."""


def heir_of(status: FailoverStatus, to: str) -> StandbyStatus:
    """Return the standby that `to` names, or the best one; raise `Refused` where it could not take over.

    The best has the fewest ailments, and of those the least lag.
    """
    named = [one for one in status.standbys if to in ("", one.name)]
    if not named:
        known = ", ".join(sorted(one.name for one in status.standbys)) or "none"
        text = f"no standby is named {to}; attached are: {known}" if to else "no standby is attached"
        raise Refused("STANDBY_NOT_FOUND" if to else "NOT_ELIGIBLE", text, Violation(to or "standbys", text))
    able = [one for one in named if not one.why_not]
    if not able:
        problems = [Violation(one.name, one.why_not) for one in named]
        text = "; ".join(f"{one.field} could not take over: {one.text}" for one in problems)
        raise Refused("NOT_ELIGIBLE", text, *problems)
    return min(able, key=lambda one: (len(one.ailments), one.lag_entries, one.lag_ns, one.name))
