"""Durability `replica`: which entries count as safe, and what happens when no standby holds them.

A standby counts while it is attached, eligible and keeps up; an entry is safe once every standby that
counts has it, for any of them may be the next to lead. (Kafka's in-sync replicas are the same idea.)
Nobody waits for ever: a standby that lets an entry wait for longer than `patience_ns` does not count any
more, and when none is left after that time, the operator's choice takes effect:

- `process`: entries are safe once they are written here, as with durability `process`.
- `halt`: quoting stops. Whoever owns this pulls its quotes when it hears of `HALTING`; until
  `order_window_ns` later nothing is released, so that an order that was waiting is too late by then, and
  refused as such. Then (`HALTED`) entries are safe once written: what is journaled now are cancels.

A standby counts (again) when it has acknowledged all that was written at the tick before. Sans-IO: times
are arguments, by one clock.
"""

from collections.abc import Sequence
from enum import StrEnum
from typing import Final, Literal

from msgspec import Struct

from failover.replication.errors import ReplicationConfigError
from failover.replication.lag import LagClock, StandbyView

__all__ = ["DurabilitySettings", "Mode", "ModeChange", "ReplicaDurability"]


class Mode(StrEnum):
    """What an entry's safety means now."""

    REPLICA = "replica"
    PROCESS = "process"
    """Degraded: no standby holds what is sent."""
    HALTING = "halting"
    """Quotes are being pulled; what waits is waited out."""
    HALTED = "halted"
    """Nothing is quoted; cancels leave."""


class DurabilitySettings(Struct, frozen=True):
    """`on_lost` is the operator's choice; `order_window_ns` is the validity window of an order."""

    on_lost: Literal["process", "halt"] = "process"
    patience_ns: int = 300_000_000
    order_window_ns: int = 2_000_000_000


class ModeChange(Struct, frozen=True):
    """The mode is another one; for an alert."""

    mode: Mode
    text: str


class ReplicaDurability:
    """Says up to where entries are safe: `durable_lsn`, which never falls."""

    def __init__(self, settings: DurabilitySettings, flushed_lsn: int, now_ns: int) -> None:
        if settings.on_lost not in ("process", "halt"):
            raise ReplicationConfigError(
                f"a lost standby should mean 'process' or 'halt', was {settings.on_lost!r}"
            )
        if settings.patience_ns <= 0:
            raise ReplicationConfigError(f"patience_ns should be more than 0, was {settings.patience_ns}")
        self.settings: Final = settings
        self.mode = Mode.REPLICA
        self.durable_lsn = flushed_lsn
        self._flushed_lsn = flushed_lsn
        self._at_last_tick_lsn = flushed_lsn
        self._counting: dict[str, int] = {}
        self._waiting = LagClock(flushed_lsn, settings.patience_ns // 16)
        self._alone_since_ns: int | None = now_ns
        self._halting_since_ns = 0

    @property
    def counting(self) -> tuple[str, ...]:
        """Return the names of the standbys whose acknowledgements count now."""
        return tuple(self._counting)

    def flushed(self, lsn: int, now_ns: int) -> None:
        """Note that entries up to `lsn` are written here."""
        self._flushed_lsn = lsn
        self._waiting.grew(lsn, now_ns)
        if self.mode is Mode.PROCESS or self.mode is Mode.HALTED:
            self._rise(lsn)

    def acked(self, node: str, lsn: int) -> None:
        """Note that a standby holds the entries up to `lsn`."""
        if node in self._counting:
            self._counting[node] = lsn
            self._settle()

    def tick(self, standbys: Sequence[StandbyView], now_ns: int) -> list[ModeChange]:
        """Look at who is attached, and how well; a few times within `patience_ns` at least."""
        changes: list[ModeChange] = []
        able = {view.node: view.acked_lsn for view in standbys if view.is_eligible}
        lost = [node for node in self._counting if node not in able]
        for node in lost:
            del self._counting[node]
        if self._counting and self._waiting.lag_ns(now_ns) > self.settings.patience_ns:
            slowest = min(self._counting.values())
            for node in [node for node, lsn in self._counting.items() if lsn == slowest]:
                del self._counting[node]
                lost.append(node)
                del able[node]
        for node, lsn in able.items():
            if lsn >= self._at_last_tick_lsn:
                self._counting.setdefault(node, lsn)
        self._at_last_tick_lsn = self._flushed_lsn
        if self._counting:
            self._alone_since_ns = None
            if self.mode is not Mode.REPLICA:
                changes.append(self._change(Mode.REPLICA, f"{', '.join(self._counting)} holds every entry"))
            self._settle()
        else:
            if self._alone_since_ns is None:
                self._alone_since_ns = now_ns
            changes += self._be_alone(self._alone_since_ns, ", ".join(lost), now_ns)
        return changes

    def _be_alone(self, since_ns: int, lost: str, now_ns: int) -> list[ModeChange]:
        waited_ns = max(now_ns - since_ns, self._waiting.lag_ns(now_ns))
        if self.mode is Mode.REPLICA and waited_ns >= self.settings.patience_ns:
            why = f"{lost} does not keep up" if lost else "no standby holds what is written"
            if self.settings.on_lost == "halt":
                self._halting_since_ns = now_ns
                return [self._change(Mode.HALTING, f"{why}: quoting stops")]
            change = self._change(
                Mode.PROCESS, f"{why}: entries are safe from the death of this process only"
            )
            self._rise(self._flushed_lsn)
            return [change]
        if self.mode is Mode.HALTING and now_ns - self._halting_since_ns >= self.settings.order_window_ns:
            change = self._change(Mode.HALTED, "what was waiting is too late by now; cancels leave")
            self._rise(self._flushed_lsn)
            return [change]
        return []

    def _change(self, mode: Mode, text: str) -> ModeChange:
        self.mode = mode
        return ModeChange(mode, text)

    def _settle(self) -> None:
        if self.mode is Mode.REPLICA and self._counting:
            self._rise(min(self._counting.values()))

    def _rise(self, lsn: int) -> None:
        if lsn > self.durable_lsn:
            self.durable_lsn = lsn
            self._waiting.acked(lsn)
