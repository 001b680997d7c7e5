"""What an account's strategies were handed lately, in order: what warm-up and rollback replay."""

from collections import deque
from itertools import islice
from typing import Any, Final

from msgspec import Struct

from host.api import Candle, Fill, Order

__all__ = ["HISTORY_EVENTS", "Due", "EventHistory", "OwnEvent"]

HISTORY_EVENTS: Final = 20_000
"""Events kept: some seconds of several busy symbols, and a few MB."""


class Due(Struct, frozen=True):
    """A trigger of the instance's schedule came due."""

    trigger: str


class OwnEvent(Struct, frozen=True):
    """An event that concerns one instance alone: its order (a copy), its fill, its candle, its trigger.

    Timers are not among them: each version of a strategy sets its own.
    """

    instance: str
    event: Order | Fill | Candle | Due
    ts_ns: int
    """The host's time when it was handed over."""


class EventHistory:
    """The latest events of one account; `sequence` counts all there ever were."""

    __slots__ = ("events", "sequence")

    def __init__(self) -> None:
        self.events: deque[Any] = deque(maxlen=HISTORY_EVENTS)
        self.sequence = 0

    def add(self, event: Any) -> None:
        """Remember one event."""
        self.events.append(event)
        self.sequence += 1

    def since(self, sequence: int) -> list[Any]:
        """Return the events after the one with that sequence, as far back as they are kept."""
        # From the newest backwards: a deque is slow to walk to its end from its beginning.
        latest = list(islice(reversed(self.events), self.sequence - sequence))
        latest.reverse()
        return latest
