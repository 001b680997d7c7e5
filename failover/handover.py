"""A leader's handover: why it drains, to whom the lease goes, and whether a peer would lead better."""

from typing import Final

from msgspec import Struct

from failover.lease.record import Status
from failover.peers import PeerBook
from failover.settings import ElectorSettings
from failover.watch import SwitchBreaker

__all__ = ["Handing", "Handover"]


class Handover(Struct, frozen=True):
    """Why a leader drains. A switchover on request may be given up; a stop or a sick leader's may not."""

    heir: str
    reason: str
    until_ns: int
    may_be_given_up: bool


class Handing:
    """The handover under way, if any, and how long a peer has been the better leader.

    `parting` is what the record is to say once it is given up, and `yield_until_ns` how long the store is
    waited for then.
    """

    def __init__(self, settings: ElectorSettings, peers: PeerBook, breaker: SwitchBreaker) -> None:
        self.current: Handover | None = None
        self.parting = Status.RELEASED
        self.yield_until_ns = 0
        self._better_since_ns = 0
        self._settings: Final = settings
        self._peers: Final = peers
        self._breaker: Final = breaker

    @property
    def wanted(self) -> Handover:
        """The handover, of a node that hands over."""
        assert self.current is not None
        return self.current

    @property
    def weigh_again_ns(self) -> int:
        """When a peer that does better will have done so for long enough; 0 where none does."""
        return self._yield_at_ns() if self._better_since_ns else 0

    def begin(self, heir: str, reason: str, now_ns: int, *, may_be_given_up: bool) -> None:
        """Begin to drain."""
        until_ns = now_ns + self._settings.drain_ms * 1_000_000
        self.current = Handover(heir, reason, until_ns, may_be_given_up)
        self._better_since_ns = 0

    def make_final(self, reason: str) -> None:
        """Have the handover under way not be given up any more, for this reason."""
        handover = self.wanted
        self.current = Handover(handover.heir, reason, handover.until_ns, may_be_given_up=False)

    def let_go(self, parting: Status, now_ns: int) -> Handover:
        """Begin to give the record up, and return with which handover."""
        self.parting = parting
        if self.current is None:
            self.current = Handover("", "stop", 0, False)
        self.yield_until_ns = now_ns + self._settings.ttl_ns
        return self.current

    def forget_peers(self) -> None:
        """Begin anew to weigh peers: another epoch has begun."""
        self._better_since_ns = 0

    def better_peer(self, ailments: frozenset[str], now_ns: int) -> str:
        """Return the peer that has done better than a node with these ailments for long enough; else empty."""
        heir = self._peers.better_than(ailments, now_ns)
        if not heir:
            self._better_since_ns = 0
            return ""
        if not self._better_since_ns:
            self._better_since_ns = now_ns
        return heir if now_ns >= self._yield_at_ns() else ""

    def _yield_at_ns(self) -> int:
        return max(self._better_since_ns + self._settings.sick_ms * 1_000_000, self._breaker.closes_ns())
