"""The part of NodeService that is about events: the journal, a page or a stream at a time."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Final, get_args

from host.control.call import Call
from host.control.event_json import instance_numbers, instances_of
from host.control.names import id_of
from host.control.paging import page_size_of
from host.control.reasons import Refused
from host.control.subject import Subject
from host.control.tail import SLICE, EventReader, TailEvent
from host.core import entries as e
from host.journal import Journal
from tandem.v1 import node_pb2 as pb

__all__ = ["KINDS", "EventMethods"]

KINDS: Final = frozenset(str(kind.__struct_config__.tag) for kind in get_args(e.Entry))
"""Every kind of event there is."""
SCANNED: Final = 20 * SLICE
"""A page looks at so many entries at most; a filter that few of them pass gets more, shorter pages."""


class EventMethods:
    """Reads the journal for clients; at most as far as it is flushed."""

    def __init__(self, subject: Subject) -> None:
        self._subject = subject

    @property
    def _journal(self) -> Journal:
        return self._subject.engine.journal

    async def list_events(self, request: pb.ListEventsRequest, _call: Call) -> pb.ListEventsResponse:
        """Return a page of events."""
        size = page_size_of(request.page_size)
        passes = self._filter(request.filter)
        reader = EventReader(self._subject.tail, self._start(request.from_lsn, self._journal.first_lsn))
        response = pb.ListEventsResponse(next_lsn=reader.next_lsn)
        scanned = 0
        try:
            while len(response.events) < size and scanned < SCANNED and (events := reader.read()):
                scanned += len(events)
                for event in events:
                    if passes(event):
                        response.events.append(event.message)
                    response.next_lsn = event.record.lsn + 1
                    if len(response.events) == size:
                        break
                await asyncio.sleep(0)
        finally:
            reader.close()
        response.has_more = response.next_lsn <= self._journal.flushed_lsn
        return response

    async def watch_events(
        self, request: pb.WatchEventsRequest, _call: Call
    ) -> AsyncIterator[pb.WatchEventsResponse]:
        """Send events from an LSN on, and go on as more are written."""
        passes = self._filter(request.filter)
        newest = self._journal.flushed_lsn + 1
        reader = EventReader(self._subject.tail, self._start(request.from_lsn, newest))
        try:
            yield pb.WatchEventsResponse(next_lsn=reader.next_lsn)
            while True:
                events = reader.read()
                if not events:
                    await reader.wait()
                    continue
                wanted = [event.message for event in events if passes(event)]
                if wanted:
                    yield pb.WatchEventsResponse(events=wanted, next_lsn=reader.next_lsn)
                else:
                    await asyncio.sleep(0)
        finally:
            reader.close()

    def _start(self, from_lsn: int, otherwise: int) -> int:
        journal = self._journal
        if from_lsn < 0:
            raise Refused.field("from_lsn", f"expected 0 or more, was {from_lsn}")
        if from_lsn > journal.flushed_lsn + 1:
            text = f"from_lsn: the next entry is {journal.flushed_lsn + 1}, was {from_lsn}"
            raise Refused("LSN_TOO_NEW", text, next_lsn=str(journal.flushed_lsn + 1))
        if 0 < from_lsn < journal.first_lsn:
            text = f"from_lsn: the oldest entry left is {journal.first_lsn}, was {from_lsn}"
            raise Refused("LSN_TOO_OLD", text, first_lsn=str(journal.first_lsn))
        return from_lsn or otherwise

    def _filter(self, wanted: pb.EventFilter) -> Callable[[TailEvent], bool]:
        kinds = frozenset(wanted.kinds)
        if unknown := kinds - KINDS:
            found = ", ".join(sorted(unknown))[:200]
            raise Refused.field("filter.kinds", f"expected some of {', '.join(sorted(KINDS))}; was {found}")
        if not wanted.instance:
            return (lambda event: event.kind in kinds) if kinds else (lambda _event: True)
        name = id_of("filter.instance", wanted.instance, "instances")
        records = self._subject.engine.state.instances  # a watch ends with the role, and so with this state
        return lambda event: (
            (not kinds or event.kind in kinds)
            and (instances_of(event.record.entry) in instance_numbers(records, name))
        )
