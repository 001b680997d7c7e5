"""A market for a node that is measured: a recording at a multiple of its pace, or a made-up one.

What arrived at one moment of the recording is handed over in one turn of the loop, as a socket does
with what it has read. Quotes go in as the venue's own frames, to be decoded; trades and depth as they are.
"""

import asyncio
import itertools
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import msgspec
from msgspec import Struct

from bench.binance_wire import RECORDED_FRAME
from bench.tick_to_order import SYMBOL, Rig
from host.api import BookTop, MarketEvent
from venue.recording import Recording

__all__ = ["PacedMarket", "Reactions"]

SYNTHETIC_GAP_NS: Final = 2_000_000
_FRAME: Final = (
    b'{"stream":"btcusdt@bookTicker","data":{"e":"bookTicker","u":%d,"s":"BTCUSDT",'
    b'"b":"%.2f","B":"%.3f","a":"%.2f","A":"%.3f","T":%d,"E":%d}}'
)


class Reactions(Struct):
    """How long orders took, in ns: from the frame, and from when the recording says it was due."""

    from_frame: list[int] = []
    from_due: list[int] = []
    messages: int = 0
    seconds: float = 0.0


class PacedMarket:
    """Plays on where it stopped; the recording begins anew at its end.

    Without a recording it is the recorded frame 500 times a second, its prices moved a few ticks each time.
    """

    def __init__(self, recording: Path | None, speed: float) -> None:
        self.name: Final = "synthetic" if recording is None else recording.name
        self.speed: Final = speed if recording is not None else 1.0
        self._events: Iterator[tuple[int, bytes | MarketEvent]]
        self._events = _synthetic() if recording is None else _recorded(recording)

    def next_frame(self) -> bytes:
        """Return the next quote's frame, whenever it is due."""
        return next(event for _, event in self._events if isinstance(event, bytes))

    async def play(self, rig: Rig, seconds: float, into: Reactions) -> None:
        """Hand over what is due, and measure each quote that led to orders."""
        now = time.perf_counter_ns
        first_ns: int | None = None
        begun_ns = now()
        end_ns = begun_ns + int(seconds * 1e9)
        for time_ns, event in self._events:
            if first_ns is None:
                first_ns = time_ns
            due_ns = begun_ns + int((time_ns - first_ns) / self.speed)
            if due_ns > end_ns:
                self._events = itertools.chain([(time_ns, event)], self._events)
                break
            if (ahead_ns := due_ns - now()) > 0:
                await asyncio.sleep(ahead_ns / 1e9)
            into.messages += 1
            if not isinstance(event, bytes):
                # As received now: risk checks go by the age of what is known.
                rig.adapter.ctx.market(msgspec.structs.replace(event, ts_recv=rig.clock.now_ns()))
                _settle(rig)
                continue
            started_ns = now()
            rig.tick(event)
            sent_ns = rig.adapter.sent_at_ns
            _settle(rig)
            if sent_ns > started_ns:
                into.from_frame.append(sent_ns - started_ns)
                into.from_due.append(sent_ns - due_ns)
        into.seconds += (now() - begun_ns) / 1e9


def _settle(rig: Rig) -> None:
    """Answer all that was sent, and what was sent for those answers."""
    while rig.acknowledge():
        continue


def _recorded(path: Path) -> Iterator[tuple[int, bytes | MarketEvent]]:
    """Yield when things arrived, and a frame for each quote."""
    for event in Recording.open(path, repeat=1_000_000).events():
        if isinstance(event, BookTop):
            ms = event.ts_event // 1_000_000
            frame = _FRAME % (event.seq, event.bid, event.bid_size, event.ask, event.ask_size, ms, ms)
            yield event.ts_recv, frame
        else:
            yield event.ts_recv, msgspec.structs.replace(event, symbol=SYMBOL)


def _synthetic() -> Iterator[tuple[int, bytes]]:
    for index in itertools.count():
        bid = 61800.2 + abs(index * 7 % 60 - 30) * 0.7
        moved = RECORDED_FRAME.replace(b"61800.20", b"%.2f" % bid).replace(b"61800.30", b"%.2f" % (bid + 0.1))
        yield index * SYNTHETIC_GAP_NS, moved.replace(b"5123107837620", b"%d" % (5123107837620 + index))
