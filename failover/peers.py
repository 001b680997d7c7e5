"""What the peers last said about themselves, and which of them would lead best."""

from failover.signals import Health, PeerStatus

__all__ = ["PeerBook"]


class PeerBook:
    """The last word of each peer; a word counts for `fresh_ns`."""

    __slots__ = ("_fresh_ns", "_heard")

    def __init__(self, fresh_ns: int) -> None:
        self._fresh_ns = fresh_ns
        self._heard: dict[str, tuple[PeerStatus, int]] = {}

    def hear(self, status: PeerStatus, now_ns: int) -> None:
        """Take in what a peer says."""
        self._heard[status.name] = (status, now_ns)

    def why_not_ready(self, name: str, now_ns: int) -> str:
        """Return why the lease cannot be handed to peer `name`; empty if it can."""
        status = self._fresh(name, now_ns)
        if status is None:
            return f"node {name!r} is not connected"
        if not _is_ready(status.health):
            return f"node {name!r} is not ready: {status.health.reason or 'its replica lags'}"
        return ""

    def best(self, now_ns: int) -> str:
        """Return the ready peer with the fewest ailments and then the least lag; empty if there is none."""
        ready = [
            (len(status.health.ailments), status.lag, name)
            for name in self._heard
            if (status := self._fresh(name, now_ns)) is not None and _is_ready(status.health)
        ]
        return min(ready)[2] if ready else ""

    def better_than(self, ailments: frozenset[str], now_ns: int) -> str:
        """Return the best peer if it has some of these ailments less, and none more; else empty.

        Two nodes with the same or with different ailments are no better than each other, so they cannot
        pass the lease back and forth.
        """
        name = self.best(now_ns) if ailments else ""
        return name if name and self._heard[name][0].health.ailments < ailments else ""

    def _fresh(self, name: str, now_ns: int) -> PeerStatus | None:
        heard = self._heard.get(name)
        return heard[0] if heard is not None and now_ns - heard[1] <= self._fresh_ns else None


def _is_ready(health: Health) -> bool:
    return health.is_fit and health.is_current
