"""Failsafe: leading on without the store, while every peer promises not to claim.

The leader's side counts what was promised; the peer's side keeps its word. A promise covers a claim by
expiry only: a record that its holder gave up may be claimed, because then the leader is gone.
"""

from collections.abc import Sequence

from failover.watch import wait_ns

__all__ = ["PeerPromises", "PromiseKept"]


class PeerPromises:
    """What the peers of a leader have promised in its epoch."""

    __slots__ = ("_asked_ns", "_peers")

    def __init__(self, peers: Sequence[str]) -> None:
        self._peers = frozenset(peers)
        self._asked_ns: dict[str, int] = {}

    @property
    def is_possible(self) -> bool:
        """Whether there is anybody to ask. Without peers, whoever else reads the store is unknown."""
        return bool(self._peers)

    def clear(self) -> None:
        """Forget everything: a new epoch begins."""
        self._asked_ns.clear()

    def add(self, peer: str, asked_ns: int) -> None:
        """Note that `peer` promised in answer to the question of `asked_ns`, this node's own time."""
        if peer in self._peers and asked_ns > self._asked_ns.get(peer, 0):
            self._asked_ns[peer] = asked_ns

    def since_ns(self) -> int | None:
        """Return the time of the oldest question that stands answered by every peer; None if one is missing."""
        if len(self._asked_ns) < len(self._peers):
            return None
        return min(self._asked_ns.values(), default=None)


class PromiseKept:
    """What this node has promised to a leader."""

    __slots__ = ("epoch", "until_ns")

    def __init__(self) -> None:
        self.epoch = 0
        self.until_ns = 0

    def make(self, epoch: int, ttl_ns: int, now_ns: int) -> None:
        """Promise not to claim by expiry for as long as a candidate waits."""
        self.epoch = epoch
        self.until_ns = max(self.until_ns, now_ns + wait_ns(ttl_ns))
