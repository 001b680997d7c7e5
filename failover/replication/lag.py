"""How far a standby is behind, in entries, bytes and time, and whether it could take over."""

from collections import deque

from msgspec import Struct

__all__ = ["EligibilityLimits", "LagClock", "StandbyHealth", "StandbyView", "why_not_eligible"]


class StandbyHealth(Struct, frozen=True):
    """What a node says about itself: the elector's `Health`, as it travels."""

    is_fit: bool = True
    is_current: bool = True
    ailments: tuple[str, ...] = ()
    reason: str = ""


class EligibilityLimits(Struct, frozen=True):
    """What a standby that could take over may lag at most."""

    lag_entries: int = 10_000
    lag_ns: int = 1_000_000_000


class StandbyView(Struct, frozen=True):
    """What a primary knows of one standby. `why_not` says why it could not take over; empty if it could."""

    node: str
    address: str
    acked_lsn: int
    """The last entry that the standby has written: it survives the death of its process."""
    applied_lsn: int
    lag_entries: int
    lag_bytes: int
    """At most: of a journal segment that is read from its middle on, all is counted."""
    lag_ns: int
    """For how long the oldest entry that is not acknowledged has been waiting."""
    round_trip_ns: int
    """From the latest heartbeat to its acknowledgement; 0 before the first."""
    health: StandbyHealth
    differs_at_lsn: int
    """Where its state was found to differ; 0: nowhere."""
    why_not: str
    control_address: str = ""
    """Where clients reach it; empty where it said nothing."""

    @property
    def is_eligible(self) -> bool:
        """Whether it could take over."""
        return not self.why_not


class LagClock:
    """Since when entries wait: the times at which the journal was seen to have grown, by one clock."""

    def __init__(self, acked_lsn: int, spacing_ns: int) -> None:
        self._spacing_ns = spacing_ns
        self._acked_lsn = acked_lsn
        self._marks: deque[tuple[int, int]] = deque()

    def grew(self, lsn: int, now_ns: int) -> None:
        """Note that the journal ends with entry `lsn` now."""
        marks = self._marks
        if lsn <= self._acked_lsn or (marks and lsn <= marks[-1][0]):
            return
        if marks and now_ns - marks[-1][1] < self._spacing_ns:
            # Counted from the mark's time: a little early, so that the lag is never shown too small.
            marks[-1] = (lsn, marks[-1][1])
        else:
            marks.append((lsn, now_ns))

    def acked(self, lsn: int) -> None:
        """Note that everything up to `lsn` is acknowledged."""
        self._acked_lsn = lsn
        while self._marks and self._marks[0][0] <= lsn:
            self._marks.popleft()

    def lag_ns(self, now_ns: int) -> int:
        """Return how long the oldest entry that is not acknowledged has been waiting."""
        return now_ns - self._marks[0][1] if self._marks else 0


def why_not_eligible(view: StandbyView, limits: EligibilityLimits) -> str:
    """Return why the standby could not take over; empty if it could."""
    if view.differs_at_lsn:
        return f"its state differs from the primary's since entry {view.differs_at_lsn} at the latest"
    if not view.health.is_fit:
        return view.health.reason or "it says that it is unfit"
    if view.lag_entries > limits.lag_entries:
        return f"it is {view.lag_entries} entries behind, {limits.lag_entries} are allowed"
    if view.lag_ns > limits.lag_ns:
        return f"it is {view.lag_ns / 1e6:.0f} ms behind, {limits.lag_ns / 1e6:.0f} ms are allowed"
    unapplied = view.acked_lsn - view.applied_lsn
    if unapplied > limits.lag_entries:
        return f"it has {unapplied} entries to take in yet, {limits.lag_entries} are allowed"
    return ""
