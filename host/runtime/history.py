"""What an account's strategies were handed lately, in order: what warm-up and rollback replay."""

from collections import deque
from itertools import islice
from typing import Any, Final

from msgspec import Struct

from host.api import Candle, Fill, Order

__all__ = ["HISTORY_EVENTS", "EventHistory", "OwnEvent", "TimerFired"]

HISTORY_EVENTS: Final = 20_000
"""Events kept: some seconds of several busy symbols, and a few MB."""


class TimerFired(Struct, frozen=True):
    """A timer of an instance came due."""

    name: str
    ts_ns: int


class OwnEvent(Struct, frozen=True):
    """An event that concerns one instance alone: its order (a copy), its fill, its timer, its candle."""

    instance: str
    event: Order | Fill | TimerFired | Candle


class EventHistory:
    """The latest events of one account; `sequence` counts all there ever were."""

    __slots__ = ("_events", "sequence")

    def __init__(self) -> None:
        self._events: deque[Any] = deque(maxlen=HISTORY_EVENTS)
        self.sequence = 0

    def add(self, event: Any) -> None:
        """Remember one event."""
        self._events.append(event)
        self.sequence += 1

    def since(self, sequence: int) -> list[Any]:
        """Return the events after the one with that sequence, as far back as they are kept."""
        wanted = self.sequence - sequence
        kept = len(self._events)
        return list(islice(self._events, max(kept - wanted, 0), kept))
