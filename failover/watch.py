"""What a node has seen of the record, and since when by its own clock."""

from collections import deque

from failover.lease.record import CANDIDATE_WAIT, Record

__all__ = ["RecordWatch", "SwitchBreaker", "wait_ns"]


def wait_ns(ttl_ns: int) -> int:
    """Return how long an unchanged record must be watched before it may be claimed."""
    return ttl_ns * CANDIDATE_WAIT[0] // CANDIDATE_WAIT[1]


class RecordWatch:
    """The last version read and the time at which this node first saw it.

    The age of a version counts from the moment its *answer* came: the holder wrote it before that, so
    its right, which counts from before its request, ends sooner.
    """

    __slots__ = ("first_seen_ns", "has_read", "known_epoch", "seen", "ttl_ns")

    def __init__(self, ttl_ns: int, known_epoch: int) -> None:
        self.seen: Record | None = None
        self.has_read = False
        self.first_seen_ns = 0
        self.ttl_ns = ttl_ns
        self.known_epoch = known_epoch

    def observe(self, record: Record | None, now_ns: int) -> bool:
        """Take in what was read and return whether it is another version than before."""
        if self.has_read and record == self.seen:
            return False
        self.has_read = True
        self.seen = record
        self.first_seen_ns = now_ns
        if record is not None:
            self.ttl_ns = record.ttl_ns
            if record.epoch > self.known_epoch:
                self.known_epoch = record.epoch
        return True

    def expires_ns(self) -> int:
        """Return when the version seen may be claimed though nobody has given it up."""
        return self.first_seen_ns + wait_ns(self.ttl_ns)

    def is_trustworthy(self) -> bool:
        """Return whether no later epoch than that of the record is known: the store has not gone back."""
        return self.seen is not None and self.seen.epoch >= self.known_epoch


class SwitchBreaker:
    """Counts changes of leader: more than `limit` within `window_ns` and there is no automatic next one."""

    __slots__ = ("_limit", "_switches_ns", "_window_ns")

    def __init__(self, limit: int, window_ns: int) -> None:
        self._limit = limit
        self._window_ns = window_ns
        self._switches_ns: deque[int] = deque(maxlen=limit)

    def count(self, now_ns: int) -> None:
        """Note a change of leader."""
        self._switches_ns.append(now_ns)

    def closes_ns(self) -> int:
        """Return from when on the next switch is allowed."""
        switches = self._switches_ns
        return switches[0] + self._window_ns if len(switches) == self._limit else 0

    def reset(self) -> None:
        """Forget the past, on an operator's word."""
        self._switches_ns.clear()
