"""Flow control of one stream: what was sent, what of it was acknowledged, what may be sent now."""

from collections import deque
from typing import Final

from failover.replication.errors import Reason, StreamBroken

__all__ = ["SendWindow"]


class SendWindow:
    """At most `max_bytes` are on their way unacknowledged, but one batch always may be."""

    def __init__(self, resume_lsn: int, max_bytes: int) -> None:
        self.max_bytes: Final = max_bytes
        self.sent_lsn = resume_lsn
        self.acked_lsn = resume_lsn
        self.bytes_in_flight = 0
        self._in_flight: deque[tuple[int, int]] = deque()  # last LSN and bytes of each batch

    @property
    def room(self) -> int:
        """Return how many bytes the next batch may have; 0: wait for an acknowledgement."""
        return max(self.max_bytes - self.bytes_in_flight, 0)

    def send(self, first_lsn: int, last_lsn: int, size: int) -> None:
        """Note a batch as sent."""
        if first_lsn != self.sent_lsn + 1 or last_lsn < first_lsn:
            raise AssertionError(f"entries {first_lsn} to {last_lsn} do not follow entry {self.sent_lsn}")
        self.sent_lsn = last_lsn
        self.bytes_in_flight += size
        self._in_flight.append((last_lsn, size))

    def ack(self, lsn: int) -> bool:
        """Take an acknowledgement of everything up to `lsn`; return whether it says anything new.

        Raises `StreamBroken` for one that takes something back or is of what was never sent. It may end
        inside a batch: then that batch counts as on its way until all of it is acknowledged.
        """
        if not self.acked_lsn <= lsn <= self.sent_lsn:
            raise StreamBroken(
                Reason.BAD_ACK,
                f"an acknowledgement should be of an entry from {self.acked_lsn} to {self.sent_lsn}, was of {lsn}",
            )
        if lsn == self.acked_lsn:
            return False
        self.acked_lsn = lsn
        while self._in_flight and self._in_flight[0][0] <= lsn:
            self.bytes_in_flight -= self._in_flight.popleft()[1]
        return True
