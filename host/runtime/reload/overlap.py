"""Two connections to one venue, side by side: which events of one the other has delivered too.

Both deliver the same market, one a little ahead of the other. So that a change from one to the other
neither loses an event nor hands one out twice, events are recognised by the venue's own numbers;
that the numbers mean the same on both connections is not believed before events with the same
number were seen to be equal.
"""

from collections import OrderedDict, deque
from collections.abc import Iterator
from typing import Any, Final

from host.api import (
    AccountSnapshot,
    BookTop,
    Depth,
    FillsSnapshot,
    MarketEvent,
    OpenOrdersSnapshot,
    OrderNotFound,
    OrderSnapshot,
    Report,
    RequestUnanswered,
    Trade,
)

__all__ = ["Overlap", "SameReports"]

EVENTS_KEPT: Final = 2_000
"""Of each stream: seconds of a fast one, and no connection should be further behind."""
REPORTS_KEPT: Final = 2_000
MOST_LAG_NS: Final = 1_000_000_000
"""How far the other connection may be behind the live one."""


_NOT_SHARED: Final = (
    RequestUnanswered, OrderSnapshot, OrderNotFound, OpenOrdersSnapshot, FillsSnapshot, AccountSnapshot
)  # fmt: skip
"""What answers one request: an equal one later answers another."""


class _Stream:
    """One kind of event of one symbol."""

    __slots__ = ("ahead", "behind_since_ns", "differs", "last", "matches", "recent")

    def __init__(self) -> None:
        self.last = 0
        """The newest number that the live connection delivered; 0 before the first."""
        self.recent: OrderedDict[int, Any] = OrderedDict()
        self.ahead: deque[tuple[int, int, Any]] = deque(maxlen=EVENTS_KEPT)
        """(Order of arrival, number, event) of what only the other connection has delivered."""
        self.matches = 0
        self.differs = False
        self.behind_since_ns = 0
        """When the live one delivered what the other has not yet; 0 while there is nothing such."""

    @property
    def is_shared(self) -> bool:
        """Return whether equal numbers mean equal events."""
        return self.matches > 0 and not self.differs

    def compare(self, one: Any, other: Any) -> None:
        """Note whether two events of the same number are the same."""
        if _content(one) == _content(other):
            self.matches += 1
        else:
            self.differs = True


class Overlap:
    """Follows the live connection (`live`) and another one (`other`) of the same account."""

    def __init__(self, started_ns: int) -> None:
        self._started_ns = started_ns
        self._streams: dict[tuple[type, str], _Stream] = {}
        self._arrivals = 0

    def live(self, event: MarketEvent, now_ns: int) -> None:
        """Take note of what the live connection delivered."""
        number, stream = _number(event), self._stream(event)
        if number > stream.last:
            stream.last = number
        while stream.ahead and stream.ahead[0][1] <= number:
            _, ahead_number, ahead = stream.ahead.popleft()
            if ahead_number == number and not _is_snapshot(event):
                stream.compare(event, ahead)
                return
        if _is_snapshot(event):
            return
        stream.recent[number] = event
        stream.behind_since_ns = stream.behind_since_ns or now_ns
        if len(stream.recent) > EVENTS_KEPT:
            stream.recent.popitem(last=False)

    def other(self, event: MarketEvent) -> None:
        """Take note of what the other connection delivered."""
        if _is_snapshot(event):
            return  # asked for by one connection, and no part of what both are told
        number, stream = _number(event), self._stream(event)
        if number > stream.last:
            self._arrivals += 1
            stream.ahead.append((self._arrivals, number, event))
            stream.behind_since_ns = 0
            return
        known = stream.recent.pop(number, None)
        if known is not None:
            stream.compare(known, event)
            if number == stream.last:
                stream.behind_since_ns = 0

    def waiting_for(self, now_ns: int) -> str:
        """Say in words what keeps the other connection from being as good as the live one."""
        for (kind, symbol), stream in self._streams.items():
            if stream.last and not stream.differs and (stream.recent or stream.matches):
                if not stream.matches:
                    return f"{symbol} {kind.__name__}: nothing yet that both connections delivered"
                if stream.behind_since_ns and now_ns - stream.behind_since_ns > MOST_LAG_NS:
                    lag_s = (now_ns - stream.behind_since_ns) / 1e9
                    return f"{symbol} {kind.__name__}: {lag_s:.1f} s behind the version that runs"
        return ""

    def give_up_matching(self) -> None:
        """Take it that streams without a common event so far are numbered differently."""
        for stream in self._streams.values():
            if stream.recent and not stream.matches:
                stream.differs = True

    def is_shared(self, kind: type, symbol: str) -> bool:
        """Return whether both connections number these events alike."""
        stream = self._streams.get((kind, symbol))
        return stream is not None and stream.is_shared

    def ahead(self) -> list[MarketEvent]:
        """Return, in order, what the other connection delivered and the live one never did."""
        found: list[tuple[int, int, Any]] = []
        for stream in self._streams.values():
            if stream.is_shared:
                found.extend(stream.ahead)
            elif not stream.last:
                # The live one was silent: what happened since both are there has not been told.
                found.extend(a for a in stream.ahead if a[2].ts_event >= self._started_ns)
        return [event for _, _, event in sorted(found, key=lambda ahead: ahead[0])]

    def is_new(self, event: MarketEvent) -> bool:
        """Return whether an event of the other connection, live by now, has not been delivered before."""
        stream = self._streams.get((type(event), event.symbol))
        return stream is None or not stream.is_shared or _is_snapshot(event) or _number(event) > stream.last

    def _stream(self, event: MarketEvent) -> _Stream:
        key = (type(event), event.symbol)
        stream = self._streams.get(key)
        if stream is None:
            stream = self._streams[key] = _Stream()
        return stream


class SameReports:
    """Recognises the second copy of a report that both connections deliver."""

    def __init__(self) -> None:
        self._told: OrderedDict[Report, None] = OrderedDict()
        self._ahead: OrderedDict[Report, None] = OrderedDict()

    def live(self, report: Report) -> None:
        """Take note of what was handed over."""
        self._ahead.pop(report, None)
        self._told[report] = None
        if len(self._told) > REPORTS_KEPT:
            self._told.popitem(last=False)

    def other(self, report: Report) -> None:
        """Take note of what the other connection delivered and nobody has seen yet."""
        if report not in self._told and not isinstance(report, _NOT_SHARED):
            self._ahead[report] = None
            if len(self._ahead) > REPORTS_KEPT:
                self._ahead.popitem(last=False)

    def take_ahead(self) -> Iterator[Report]:
        """Hand over, in order, what only the other connection delivered."""
        ahead, self._ahead = self._ahead, OrderedDict()
        for report in ahead:
            self.live(report)
            yield report

    def is_new(self, report: Report) -> bool:
        """Return whether a report was handed over by neither connection; from now on it was."""
        if isinstance(report, _NOT_SHARED):
            return True
        if report in self._told:
            return False
        self.live(report)
        return True


def _number(event: MarketEvent) -> int:
    if isinstance(event, BookTop | Depth):
        return event.seq or event.ts_event
    if isinstance(event, Trade):
        return event.trade_id or event.ts_event
    return event.ts_event


def _is_snapshot(event: MarketEvent) -> bool:
    return isinstance(event, Depth) and event.is_snapshot


def _content(event: Any) -> tuple[Any, ...]:
    """Return what must agree: all but when it was received here."""
    return tuple(getattr(event, name) for name in event.__struct_fields__ if name != "ts_recv")
