"""The journal's latest entries, read and converted once for everybody who watches.

Whoever watches from further back reads the journal alone, until there. Nothing is read while nobody
watches, and nothing here is on the path of an order: entries are taken from the journal's files.
"""

import asyncio
from typing import Final

from host.control.event_json import event_json
from host.control.plain import timestamp
from host.core import entries as e
from host.journal import Follower, Journal
from tandem.v1 import node_pb2 as pb

__all__ = ["SLICE", "EventReader", "JournalTail", "TailEvent"]

SLICE: Final = 256
"""Entries taken at a time: about 1 ms, after which others have the loop."""
KEPT: Final = 8192
"""Entries kept for those who are nearly up to date; a watcher further behind reads for itself."""
POLL_S: Final = 0.02
"""How often the journal is looked at while somebody waits: how old the news may be."""


class TailEvent:
    """One journal entry, and the same as a message, made when it is first asked for."""

    __slots__ = ("_message", "kind", "record")

    def __init__(self, record: e.Record) -> None:
        self.record = record
        self.kind: str = type(record.entry).__struct_config__.tag  # type: ignore[assignment]
        self._message: pb.Event | None = None

    @property
    def message(self) -> pb.Event:
        """Return the entry as clients get it."""
        if self._message is None:
            record = self.record
            self._message = pb.Event(
                lsn=record.lsn, time=timestamp(record.ts_ns), kind=self.kind, json=event_json(record.entry)
            )
        return self._message


class JournalTail:
    """Keeps what was flushed last, as long as somebody asks."""

    def __init__(self, journal: Journal) -> None:
        self.journal: Final = journal
        self.next_lsn = 1
        """The first entry that is not here yet."""
        self._events: list[TailEvent] = []
        self._follower: Follower | None = None
        self._news: asyncio.Event | None = None
        self._waiting = 0

    @property
    def first_lsn(self) -> int:
        """Return the LSN of the oldest entry kept."""
        return self.next_lsn - len(self._events)

    def catch_up(self) -> None:
        """Take in one slice of what was flushed since; skip what would only be thrown away."""
        if self._follower is None or self.journal.flushed_lsn - self.next_lsn > KEPT:
            self.close()
            self.next_lsn = self.journal.flushed_lsn + 1
            self._follower = Follower(self.journal, self.next_lsn)
            self._events.clear()
        if self.next_lsn > self.journal.flushed_lsn:
            return
        self._events += map(TailEvent, self._follower.poll(SLICE))
        self.next_lsn = self._follower.next_lsn
        if len(self._events) > 2 * KEPT:
            del self._events[:KEPT]

    def since(self, lsn: int) -> list[TailEvent] | None:
        """Return a slice of entries from `lsn` on; None where they are not kept any more."""
        self.catch_up()
        start = lsn - self.first_lsn
        return None if start < 0 else self._events[start : start + SLICE]

    async def wait(self, lsn: int) -> None:
        """Return when the entry `lsn` was flushed."""
        self._waiting += 1
        try:
            while self.journal.flushed_lsn < lsn:
                if self._news is None:
                    self._news = asyncio.Event()
                    asyncio.get_running_loop().call_later(POLL_S, self._look, self.journal.flushed_lsn)
                await self._news.wait()
        finally:
            self._waiting -= 1

    def _look(self, seen_lsn: int) -> None:
        """Wake those who wait, if there is news; one look serves all of them."""
        assert self._news is not None
        if self.journal.flushed_lsn == seen_lsn and self._waiting:
            asyncio.get_running_loop().call_later(POLL_S, self._look, seen_lsn)
            return
        news, self._news = self._news, None
        news.set()

    def close(self) -> None:
        """Let go of the journal's file."""
        if self._follower is not None:
            self._follower.close()
            self._follower = None


class EventReader:
    """Reads on from an LSN: from the tail where it can, else from the journal itself."""

    def __init__(self, tail: JournalTail, from_lsn: int) -> None:
        self.next_lsn = from_lsn
        self._tail = tail
        self._follower: Follower | None = None

    def read(self) -> list[TailEvent]:
        """Return the next slice; empty at the end. Raises `JournalPruned` where it is gone."""
        events = self._tail.since(self.next_lsn)
        if events is None:
            if self._follower is None:
                self._follower = Follower(self._tail.journal, self.next_lsn)
            events = list(map(TailEvent, self._follower.poll(SLICE)))
        elif self._follower is not None:
            self.close()
        if events:
            self.next_lsn = events[-1].record.lsn + 1
        return events

    async def wait(self) -> None:
        """Return when there is more."""
        await self._tail.wait(self.next_lsn)

    def close(self) -> None:
        """Let go of the journal's file."""
        if self._follower is not None:
            self._follower.close()
            self._follower = None
