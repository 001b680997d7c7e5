"""What a worker may send: its turns in order, not too many messages, and next to none that break the rules.

Sans-IO; times are any clock's that does not go back, in ns.
"""

from collections import deque
from typing import Final

from host.isolation.settings import SECOND_NS, WorkerSettings

__all__ = ["FLOOD_NS", "Conduct"]

FLOOD_NS: Final = SECOND_NS // 10
"""Over which messages are counted."""
_STRIKES_NS: Final = 10 * SECOND_NS


class Conduct:
    """Watches what comes from one worker. `fault` says why it is to be cut off; empty while it is not."""

    def __init__(self, settings: WorkerSettings) -> None:
        self.fault = ""
        self.refused = 0
        """Messages that were not taken in, ever."""
        self.repeated = 0
        """Turns that had come before, ever."""
        self.last_turn = 0
        self._settings: Final = settings
        self._strikes: deque[int] = deque()
        self._began_ns = 0
        self._messages = 0

    def count(self, now_ns: int, weight: int = 1) -> None:
        """Count one message, as so many."""
        if now_ns - self._began_ns >= FLOOD_NS:
            self._began_ns, self._messages = now_ns, 0
        self._messages += weight
        if self._messages > self._settings.messages_at_once:
            self.fault = f"it sent more than {self._settings.messages_at_once} messages within 0.1 s"

    def strike(self, what: str, now_ns: int) -> None:
        """Refuse a message that breaks the rules."""
        self.refused += 1
        strikes = self._strikes
        strikes.append(now_ns)
        while strikes[0] < now_ns - _STRIKES_NS:
            strikes.popleft()
        if len(strikes) >= self._settings.strikes:
            self.fault = f"{len(strikes)} of its messages within 10 s broke the protocol, the last: {what}"

    def is_due(self, seq: int) -> bool:
        """Return whether a turn is the one that comes next; count one that came before."""
        self.repeated += seq <= self.last_turn
        return seq == self.last_turn + 1
