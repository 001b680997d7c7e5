"""A holder's tenure: the record that it holds, its epoch, and the right to send that comes with it.

Rules S1, S2, S5 and S6 of the elector are kept here, as far as they are about how long a right lasts.
"""

from collections.abc import Sequence
from typing import Final

from failover.failsafe import PeerPromises
from failover.lease.record import HOLDER_RIGHT, Record, Status
from failover.signals import Action, Lead, OpenGate, Succession
from failover.watch import wait_ns

__all__ = ["Tenure"]


class Tenure:
    """What this node holds; `epoch` and `right_until_ns` are 0 while it holds nothing.

    `record` is the last version known to be this node's, `fence_ns` until when an earlier holder may have a
    right, and `promises` is what the peers have promised in this epoch.
    """

    def __init__(self, peers: Sequence[str]) -> None:
        self.epoch = 0
        self.right_until_ns = 0
        self.record: Record | None = None
        self.fence_ns = 0
        self.promises: Final = PeerPromises(peers)
        self._announcement: Lead | None = None

    @property
    def held(self) -> Record:
        """The record, of a node that holds one."""
        assert self.record is not None
        return self.record

    def begin(self, new: Record, expected: Record | None, now_ns: int) -> None:
        """Begin with a claim that took effect, answered now; `expected` is the record that it replaced."""
        self.epoch = new.epoch
        self.right_until_ns = 0
        self.promises.clear()
        succession = _succession(expected)
        if new.status is Status.FENCING:
            # S5, counted from the answer: every renewal of an earlier holder came before it.
            self.fence_ns = now_ns + wait_ns(new.ttl_ns)
            if expected is not None:
                succession = Succession.FORCED
        self._announcement = Lead(new.epoch, succession, expected)

    def right_ns(self, since_ns: int) -> int:
        """Return when the right ends that was earned at `since_ns`. S1, S2."""
        return since_ns + self.held.ttl_ns * HOLDER_RIGHT[0] // HOLDER_RIGHT[1]

    def lengthen(self, since_ns: int, now_ns: int) -> list[Action]:
        """Let the right run on from `since_ns`, where that makes it longer; return what to do then."""
        until_ns = self.right_ns(since_ns)
        if until_ns <= now_ns or until_ns <= self.right_until_ns:
            return []
        self.right_until_ns = until_ns
        # Announced only now: an answer that came too late to earn a right may be about a record long gone.
        announced, self._announcement = self._announcement, None
        gate = OpenGate(self.epoch, until_ns)
        return [gate] if announced is None else [announced, gate]

    def renewal(self, attempt: int, now_ns: int) -> Record:
        """Return the next version of the record; it says so while an earlier holder is still waited out."""
        status = self.held.status
        if status is Status.FENCING and now_ns >= self.fence_ns:
            status = Status.HELD
        return self.held.renewed(attempt, status)

    def end(self) -> None:
        """Hold nothing any more; the right has ended before."""
        self.epoch = 0
        self.record = self._announcement = None


def _succession(expected: Record | None) -> Succession:
    if expected is None:
        return Succession.FIRST
    if expected.status is Status.RELEASED:
        return Succession.RELEASED
    if expected.status is Status.ABANDONED:
        return Succession.ABANDONED
    return Succession.EXPIRED
