"""The latest events: read backwards from the journal's end, a piece at a time."""

from typing import Final

import click

from host.client import Control
from tandem.v1 import node_pb2 as n

__all__ = ["latest_events"]

PIECE: Final = 10_000
MOST_LOOKED_AT: Final = 200_000
"""So many entries back are looked at for what is rare; further back it is for --from to say where."""


async def latest_events(control: Control, wanted: n.EventFilter, limit: int) -> list[n.Event]:
    """Return the latest events that a filter passes, oldest first."""
    status = (await control.node.get_status(n.GetStatusRequest())).status
    end, oldest = status.flushed_lsn + 1, max(status.first_lsn, 1)
    stop = max(oldest, end - MOST_LOOKED_AT)
    found: list[n.Event] = []
    size = max(limit, 100) if not (wanted.kinds or wanted.instance) else PIECE
    while end > stop and len(found) < limit:
        begin = max(stop, end - size)
        found = await _between(control, wanted, begin, end) + found
        end = begin
    if len(found) < limit and stop > oldest:
        click.echo(f"looked back to LSN {stop}; older ones: --from LSN", err=True)
    return found[-limit:]


async def _between(control: Control, wanted: n.EventFilter, first: int, end: int) -> list[n.Event]:
    found: list[n.Event] = []
    request = n.ListEventsRequest(from_lsn=first, page_size=1000, filter=wanted)
    while request.from_lsn < end:
        answer = await control.node.list_events(request)
        found.extend(event for event in answer.events if event.lsn < end)
        if answer.next_lsn == request.from_lsn:
            break  # there is nothing more: the journal was cut shorter meanwhile
        request.from_lsn = answer.next_lsn
    return found
