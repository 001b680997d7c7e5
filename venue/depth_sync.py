"""Turn a depth stream as a venue sends it into a snapshot and then contiguous changes.

Changes arrive before the snapshot that they build on, live and in a recording alike. The rules
are Binance's ("How to manage a local order book correctly", spot and USDⓈ-M futures): buffer
changes, load the snapshot, drop what it already contains, check that the first change kept
overlaps it and that each later one continues the one before.
"""

from collections.abc import Sequence

import msgspec

from host.api import Depth

__all__ = ["DepthSync"]


class DepthSync:
    """Feed every message in arrival order; take what is ready for a consumer.

    Messages that carry `prev_seq` follow the futures rules, those with -1 the spot rules.
    """

    def __init__(self) -> None:
        self._buffer: list[Depth] = []
        self._seq = -1
        self._is_bridged = False

    def on_message(self, message: Depth) -> Sequence[Depth]:
        """Return what consumers may apply now, in order; empty before the first snapshot.

        The first change after a snapshot is returned with `prev_seq` (futures) or `first_seq`
        (spot) set to follow the snapshot, so consumers need one rule only. Buffered changes are
        returned with the snapshot's `ts_recv`: no consumer could have used them earlier. Raises
        `ValueError` where updates are missing.
        """
        if message.is_snapshot:
            self._seq, self._is_bridged = message.seq, False
            ready = [message]
            for change in self._buffer:
                ready.extend(self._follow(msgspec.structs.replace(change, ts_recv=message.ts_recv)))
            self._buffer.clear()
            return ready
        if self._seq < 0:
            self._buffer.append(message)
            return ()
        return self._follow(message)

    def _follow(self, change: Depth) -> Sequence[Depth]:
        is_spot = change.prev_seq < 0
        if self._is_bridged:
            if (change.first_seq != self._seq + 1) if is_spot else (change.prev_seq != self._seq):
                found = change.first_seq - 1 if is_spot else change.prev_seq
                raise ValueError(
                    f"updates are missing: the change must follow id {self._seq}, followed {found}"
                )
        else:
            if change.seq <= self._seq if is_spot else change.seq < self._seq:
                return ()
            if change.first_seq > self._seq + 1:
                raise ValueError(
                    f"updates are missing: the first change after snapshot {self._seq} must start at or "
                    f"before {self._seq + 1}, started at {change.first_seq}"
                )
            bridge = {"first_seq": self._seq + 1} if is_spot else {"prev_seq": self._seq}
            change = msgspec.structs.replace(change, **bridge)
            self._is_bridged = True
        self._seq = change.seq
        return (change,)
