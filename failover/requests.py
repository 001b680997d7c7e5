"""What an elector asks of the lease store: one request at a time, and what is not known of the last one.

Rule S3 of the elector is kept here: whatever was not answered is read again, and each attempt's record
differs, so that reading tells which one counted.
"""

from typing import Final

from msgspec import Struct

from failover.lease.record import Record
from failover.settings import FOREVER_NS
from failover.signals import Read, Swap

__all__ = ["Request", "StoreRequests"]


class Request(Struct, frozen=True):
    """A read, or a swap where there is a `new` record; `sent_ns` is from before it was sent."""

    number: int
    sent_ns: int
    expected: Record | None
    new: Record | None


class StoreRequests:
    """The request under way, if any, and when the next one is due.

    `lost` is a swap of which nobody knows whether it took effect; only a read that was sent after it tells.
    `last_claim` is the last swap with which this node wanted to become the holder.
    """

    def __init__(self, ttl_ns: int, now_ns: int) -> None:
        self.pending: Request | None = None
        self.lost: Request | None = None
        self.last_claim: Request | None = None
        self.must_read = True
        self.is_failing = False
        """Whether the last request was not answered."""
        self.next_ns = now_ns
        self._retry_ns: Final = ttl_ns // 16
        self._attempts = 0
        self._count = 0

    @property
    def due_ns(self) -> int:
        """When the next request is due; never while one is under way."""
        return FOREVER_NS if self.pending is not None else self.next_ns

    @property
    def is_fresh(self) -> bool:
        """Whether what is known of the record is. A claim that gets no answer has to be looked up first."""
        return not self.must_read and not self.is_failing

    def attempt(self) -> int:
        """Return a number that no earlier attempt of this node has."""
        self._attempts += 1
        return self._attempts

    def read(self, now_ns: int) -> Read:
        """Begin a read."""
        return Read(self._begin(None, None, now_ns).number)

    def swap(self, expected: Record | None, new: Record, now_ns: int) -> Swap:
        """Begin a swap."""
        return Swap(self._begin(expected, new, now_ns).number, expected, new)

    def answered(self, number: int) -> Request | None:
        """Return the request that an answer is to; None for one that nobody waits for."""
        request = self.pending
        if request is None or request.number != number:
            return None
        self.pending = None
        return request

    def unanswered(self, sent: Request, now_ns: int) -> None:
        """Note that a request was not answered in time. S3: its effect is looked up, never assumed."""
        self.is_failing = True
        if sent.new is not None:
            self.lost = sent
        self.must_read = True
        self.next_ns = max(now_ns, sent.sent_ns + self._retry_ns)

    def take_lost(self) -> Request | None:
        """Return the swap of unknown effect, which is known from here on."""
        lost, self.lost = self.lost, None
        return lost

    def _begin(self, expected: Record | None, new: Record | None, now_ns: int) -> Request:
        self._count += 1
        self.pending = Request(self._count, now_ns, expected, new)
        return self.pending
