"""What a peer may send: its turns in order, not too much at once, and next to nothing that breaks the rules.

Sans-IO; times are any clock's that does not go back, in ns.
"""

from collections import deque
from typing import Final

from host.isolation.settings import SECOND_NS, WorkerSettings
from host.runtime.plugin_errors import shortened

__all__ = ["ALLOWED_NS", "FLOOD_NS", "Conduct", "Tally"]

FLOOD_NS: Final = SECOND_NS // 10
"""Over which messages are counted."""
SHARE: Final = 5
"""One part in so many of the host's time is a peer's to fill with what nothing asked it for, ..."""
ALLOWED_NS: Final = SECOND_NS // 20
"""... and so much of it at once."""
MOST_LONG_BYTES: Final = 256 << 10
"""Who breaks the rules with a longer message is cut off at once: reading twenty of them would hold up the host."""
_STRIKES_NS: Final = 10 * SECOND_NS


class Tally:
    """What was not taken in of what the peers of one instance sent, and not told them, since the process began."""

    def __init__(self) -> None:
        self.refused = 0
        """Messages and requests that broke the rules, and hellos that were turned away."""
        self.repeated = 0
        """Turns that had come before."""
        self.strangers = 0
        """Messages and subscriptions without the token, and messages of more frames than two."""
        self.conflated = 0
        """Market events left out of what those were told who are gone."""

    def counts(self, conflated: int = 0) -> dict[str, int]:
        """Return the counts by the names that `RemoteStatus` has for them; `conflated` is of who is there."""
        return {
            "refused": self.refused,
            "repeated": self.repeated,
            "strangers": self.strangers,
            "conflated": self.conflated + conflated,
        }


class Conduct:
    """Watches what comes from one peer. `fault` says why it is to be cut off; empty while it is not."""

    def __init__(self, settings: WorkerSettings, tally: Tally | None = None) -> None:
        self.fault = ""
        self.tally: Final = tally or Tally()
        self.last_turn = 0
        self._settings: Final = settings
        self._strikes: deque[int] = deque()
        self._began_ns = 0
        self._messages = 0
        self._left_ns = ALLOWED_NS
        """What is left of the time that it may fill unasked."""
        self._spent_ns = 0
        self._calm_ns = 0
        """When all of that was last left."""

    @property
    def refused(self) -> int:
        """Return how many messages and requests were not taken in, ever."""
        return self.tally.refused

    def count(self, now_ns: int, weight: int = 1) -> None:
        """Count one message, as so many."""
        if now_ns - self._began_ns >= FLOOD_NS:
            self._began_ns, self._messages = now_ns, 0
        self._messages += weight
        if self._messages > self._settings.messages_at_once:
            self.fault = f"it sent more than {self._settings.messages_at_once} messages within 0.1 s"

    def strike(self, what: str, now_ns: int, size: int = 0) -> None:
        """Refuse a message that breaks the rules, `size` bytes long; `what` may repeat some of it."""
        what = shortened(what)
        self.tally.refused += 1
        strikes = self._strikes
        strikes.append(now_ns)
        while strikes[0] < now_ns - _STRIKES_NS:
            strikes.popleft()
        if len(strikes) >= self._settings.strikes:
            self.fault = f"{len(strikes)} of its messages within 10 s broke the protocol, the last: {what}"
        elif size > MOST_LONG_BYTES:
            self.fault = f"a message of {size} bytes broke the protocol: {what}"

    def spend(self, taken_ns: int, now_ns: int) -> int:
        """Note what a message took that nothing asked for; return for how long no more is to be read, 0 for no pause.

        So whoever sends without end has a share of the host's time, the same on any machine. It is cut off when
        it never lets that share recover for long.
        """
        left_ns = min(self._left_ns + (now_ns - self._spent_ns) // SHARE, ALLOWED_NS)
        self._spent_ns = now_ns
        if left_ns == ALLOWED_NS:
            self._calm_ns = now_ns
        elif now_ns - self._calm_ns > self._settings.busy_ns:
            self.fault = (
                f"for {self._settings.busy_ns / 1e9:g} s on end it asked for more than a fifth of the host's time, "
                "where nothing had happened"
            )
        self._left_ns = left_ns - taken_ns
        return max(-self._left_ns, 0) * SHARE

    def is_due(self, seq: int) -> bool:
        """Return whether a turn is the one that comes next; count one that came before."""
        self.tally.repeated += seq <= self.last_turn
        return seq == self.last_turn + 1
