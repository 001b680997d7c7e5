"""Two connections to one venue, side by side: which of their events the account was told already.

Both deliver the same market, one a little ahead of the other, and the account hears one of them at a
time. Every event has a place in the order that the venue gave it, and the account was told everything
up to some place. So a change from one connection to the other, and back, is exact: whoever is heard
from then on is heard from that place on, whether it has yet to get there or is past it.
"""

from collections.abc import Iterable
from typing import Final

from host.api import BookTop, Depth, MarketEvent
from host.runtime.reload.stream import Stream, is_book, number_of

__all__ = ["Overlap"]

MOST_LAG_NS: Final = 1_000_000_000
"""How far the other connection may be behind the live one."""


class Overlap:
    """Follows the connection that the account hears (`live`) and another one (`other`).

    `told` are the latest events that the account heard before the two were compared.
    """

    def __init__(self, told: Iterable[MarketEvent] = ()) -> None:
        self._streams: dict[tuple[type, str], Stream] = {}
        self._arrivals = 0
        for event in {(type(event), event.symbol): event for event in told}.values():
            self._stream(event).tell_all_of(number_of(event), event.ts_event)

    # -- what comes in ---------------------------------------------------------------------------

    def live(self, event: MarketEvent, now_ns: int) -> bool:
        """Take note of what the live connection delivers; return whether it is news to the account."""
        stream = self._stream(event)
        if is_book(event):
            if stream.is_owed and (number_of(event), 0) < stream.told_number:
                return False  # the account is past it, and was told what follows it
            stream.live.read_book(event)
            stream.tell_all_of(*stream.live.last)
        else:
            stream.live.read(event)
            stream.pair(stream.live, stream.other, event)
            if stream.is_owed and stream.is_told(stream.live):
                stream.repeats += 1
                return False
            stream.tell(stream.live, now_ns)
        stream.is_owed = False
        return True

    def repeated(self, event: MarketEvent) -> None:
        """Take note that the live connection is still on its way to where the account is."""
        if not is_book(event):
            self._stream(event).live.read(event)

    def other(self, event: MarketEvent) -> None:
        """Take note of what the other connection delivers, which the account does not hear."""
        if is_book(event):
            return  # asked for by one connection, and no part of what both are told
        stream = self._stream(event)
        stream.other.read(event)
        stream.pair(stream.other, stream.live, event)
        self._arrivals += 1
        stream.keep_ahead(self._arrivals, event)

    # -- the change ------------------------------------------------------------------------------

    def waiting_for(self, now_ns: int, *, is_patient: bool = True) -> str:
        """Say in words what keeps the other connection from being as good as the live one.

        `is_patient`: what both deliver is waited for, so that nothing can be missing between the end of
        one and the beginning of the other. Some never find it: an edit may change the numbers.
        """
        for (kind, symbol), stream in self._streams.items():
            if is_patient and stream.live.events and not stream.is_joined:
                return f"{symbol} {kind.__name__}: nothing yet that both connections delivered"
            if (lag_ns := stream.lag_ns(now_ns)) > MOST_LAG_NS:
                return f"{symbol} {kind.__name__}: {lag_ns / 1e9:.1f} s behind the version that runs"
        return ""

    def is_matched(self, kind: type, symbol: str) -> bool:
        """Return whether both connections are known to number these events alike."""
        stream = self._streams.get((kind, symbol))
        return stream is not None and stream.is_matched

    def change(self) -> list[MarketEvent]:
        """Have the other connection be the live one; return, in order, what it is ahead by.

        Depth that is not known to be numbered alike is told anew by a whole book: all that follows
        that is news.
        """
        found: list[tuple[int, MarketEvent]] = []
        for (kind, _), stream in self._streams.items():
            if kind is Depth and not stream.is_matched:
                stream.start_over()
                stream.change()
                stream.is_owed = False
            else:
                found += stream.change()
        return [event for _, event in sorted(found, key=lambda ahead: ahead[0])]

    @property
    def is_level(self) -> bool:
        """Return whether the live connection has reached, in all streams, what the account was told."""
        return not any(stream.is_owed for stream in self._streams.values())

    def unreached(self) -> set[str]:
        """Return the symbols whose book the live connection tells without reaching what the account was told."""
        return {
            symbol
            for (kind, symbol), stream in self._streams.items()
            if kind in (BookTop, Depth) and stream.is_owed and stream.repeats
        }

    def owe_nothing(self, kind: type | None = None, symbol: str = "") -> None:
        """Take all that the live connection delivers from now on for news: in one stream, or in every one."""
        for stream in self._chosen(kind, symbol):
            stream.is_owed = False

    def lose(self, kind: type | None = None, symbol: str = "") -> None:
        """Take it that the other connection missed something: in one stream, or in every one."""
        for stream in self._chosen(kind, symbol):
            stream.start_over()

    def forget(self, symbol: str) -> None:
        """Compare nothing of a symbol any more."""
        for key in [key for key in self._streams if key[1] == symbol]:
            del self._streams[key]

    def _chosen(self, kind: type | None, symbol: str) -> list[Stream]:
        return [stream for key, stream in self._streams.items() if kind is None or key == (kind, symbol)]

    def _stream(self, event: MarketEvent) -> Stream:
        key = (type(event), event.symbol)
        stream = self._streams.get(key)
        if stream is None:
            stream = self._streams[key] = Stream()
        return stream
