"""Watches of resources: all of them at once, then those that journal entries speak of.

A watcher holds the names that changed since its last answer, and nothing else: one that is slow
skips what lies between.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Collection
from typing import Any

from msgspec import Struct

from host.control.subject import Subject
from host.control.tail import EventReader

__all__ = ["Changes", "changes"]


class Changes(Struct, frozen=True):
    """What to look at again. `is_all`: everything, the first time; `lsn` is up to where this holds."""

    names: frozenset[str]
    lsn: int
    is_all: bool = False


async def changes(subject: Subject, names_in: Callable[[Any], Collection[str]]) -> AsyncIterator[Changes]:
    """Yield everything once, then the names that `names_in` finds in journal entries as they are written."""
    journal = subject.engine.journal
    reader = EventReader(subject.tail, journal.flushed_lsn + 1)
    try:
        yield Changes(frozenset(), journal.flushed_lsn, is_all=True)
        while True:
            names: set[str] = set()
            while events := reader.read():
                for event in events:
                    names.update(names_in(event.record.entry))
                await asyncio.sleep(0)
            if names:
                yield Changes(frozenset(names), reader.next_lsn - 1)
            else:
                await reader.wait()
    finally:
        reader.close()
