"""One kind of event of one symbol, as two connections deliver it.

An event's place is the venue's number for it, or its time at the venue, and which one it is of those
that have the same: both connections count alike. So places say what came first and what was told
without a look at what the events say, which an edit of the adapter may change.
"""

from collections import OrderedDict, deque
from enum import Enum
from typing import Any, Final

from host.api import BookTop, Depth, MarketEvent, Ticker, Trade

__all__ = ["Order", "Reader", "Stream", "is_book", "number_of"]

AHEAD_KEPT: Final = 10_000
"""Many seconds of a fast stream: a live connection further behind is as good as silent."""
PAIRS_SOUGHT: Final = 2_000
"""Of how many events the number is remembered until one is found that both delivered."""

Place = tuple[int, int]
_FIRST: Final[Place] = (0, 0)
_ALL: Final = 1 << 62
"""Of one number or time: all there are."""


class Order(Enum):
    """What tells which of two events came first."""

    NUMBER = "the venue's numbers"
    TIME = "the venue's time"
    ARRIVAL = "nothing but their arrival"


class Reader:
    """How far one connection is."""

    __slots__ = ("event", "events", "first_ns", "is_rising", "number", "seen", "time")

    def __init__(self) -> None:
        self.events = 0
        """How many it has delivered, whole books not among them."""
        self.first_ns = 0
        """The venue's time of the first of them."""
        self.event: MarketEvent | None = None
        self.number = self.time = _FIRST
        self.is_rising = True
        """Whether its numbers never fell, as random ones do, and those of a venue that starts again."""
        self.seen: OrderedDict[int, MarketEvent] = OrderedDict()
        """By number; empty once one was found that both connections delivered."""

    def read(self, event: MarketEvent) -> None:
        """Move on to an event."""
        number = number_of(event)
        self.is_rising &= number >= self.number[0]
        self.number = _next(self.number, number)
        self.time = _next(self.time, event.ts_event)
        self.event = event
        self.first_ns = self.first_ns or event.ts_event
        self.events += 1

    def read_book(self, book: MarketEvent) -> None:
        """Move on to a whole book, which includes all that has its number."""
        self.number, self.time = (number_of(book), _ALL), (book.ts_event, _ALL)
        self.event = book

    @property
    def last(self) -> tuple[int, int]:
        """Return number and time of what it delivered last."""
        return self.number[0], self.time[0]


class Stream:
    """Where the account is in it, and each of the two connections."""

    __slots__ = (
        "_lacking",
        "ahead",
        "is_matched",
        "is_owed",
        "live",
        "other",
        "repeats",
        "told_number",
        "told_time",
    )

    def __init__(self) -> None:
        self.live, self.other = Reader(), Reader()
        self.told_number = self.told_time = _FIRST
        """Up to where the account was told."""
        self.is_matched = False
        """Whether an event was found that has the same number on both connections."""
        self.is_owed = False
        """Whether the live connection, since the change to it, may still repeat what was told."""
        self.repeats = 0
        """How often it did."""
        self.ahead: deque[tuple[int, MarketEvent, Place, Place]] = deque(maxlen=AHEAD_KEPT)
        """Arrival, event and places of what the account was not told and the other connection delivered."""
        self._lacking: deque[tuple[int, int]] = deque(maxlen=AHEAD_KEPT)
        """Number and moment of what only the live connection has delivered."""

    def order_for(self, reader: Reader) -> Order:
        """Return what a connection's events are compared with the told ones by.

        Numbers, once they are known to mean the same on both connections: an edit may change what the
        adapter takes for one. Unproven ones are better only than no order at all.
        """
        is_timed = bool(self.told_time[0] and reader.time[0])
        is_numbered = bool(self.told_number[0] and reader.number[0])
        is_rising = self.live.is_rising and self.other.is_rising
        if is_numbered and is_rising and (self.is_matched or not is_timed):
            return Order.NUMBER
        return Order.TIME if is_timed else Order.ARRIVAL

    def is_told(self, reader: Reader) -> bool:
        """Return whether the account was told what a connection delivered last."""
        return self._is_told(self.order_for(reader), reader.number, reader.time)

    def _is_told(self, order: Order, number: Place, time: Place) -> bool:
        if order is Order.NUMBER:
            return number <= self.told_number
        return order is Order.TIME and time <= self.told_time

    def tell(self, reader: Reader, now_ns: int) -> None:
        """Note that the account was told what the live connection delivered last."""
        self.told_number = max(self.told_number, reader.number)
        self.told_time = max(self.told_time, reader.time)
        if reader.number > self.other.number:
            self._lacking.append((reader.number[0], now_ns))
        self._forget_told()

    def tell_all_of(self, number: int, time_ns: int) -> None:
        """Note that the account was told everything up to a number and a time."""
        self.told_number, self.told_time = (number, _ALL), max(self.told_time, (time_ns, _ALL))
        self._forget_told()

    def keep_ahead(self, arrival: int, event: MarketEvent) -> None:
        """Remember what the other connection delivered last, if the account was not told it."""
        other = self.other
        while self._lacking and self._lacking[0][0] <= other.number[0]:
            self._lacking.popleft()
        self.ahead.append((arrival, event, other.number, other.time))
        self._forget_told()

    def _forget_told(self) -> None:
        ahead = self.ahead
        if not ahead:
            return
        order = self.order_for(self.other)
        if order is Order.TIME and self.other.number[0]:
            return  # that may yet turn out to be the coarser order of the two
        while ahead and self._is_told(order, *ahead[0][2:]):
            ahead.popleft()

    @property
    def is_joined(self) -> bool:
        """Return whether the account was told what came after the other connection's first event."""
        if self.live.number[0] and self.live.is_rising and self.other.is_rising:
            return self.is_matched
        return not self.live.time[0] or 0 < self.other.first_ns < self.told_time[0]

    def lag_ns(self, now_ns: int) -> int:
        """Return how long ago the live connection delivered the first that the other one lacks."""
        if not self._lacking or self.order_for(self.other) is not Order.NUMBER:
            return 0
        return now_ns - self._lacking[0][1]

    def pair(self, reader: Reader, across: Reader, event: MarketEvent) -> None:
        """Look for the event of this number among those of the connection across."""
        number = number_of(event)
        if self.is_matched or not number:
            return
        found = across.seen.get(number)
        if found is not None and _is_same(event, found):
            self.is_matched = True
            reader.seen.clear()
            across.seen.clear()
            return
        reader.seen[number] = event
        if len(reader.seen) > PAIRS_SOUGHT:
            reader.seen.popitem(last=False)

    def start_over(self) -> None:
        """Forget what the other connection delivered, and that its numbers were known."""
        self.is_matched = False
        self.ahead.clear()
        self._lacking.clear()
        self.live.seen.clear()
        self.other.seen.clear()

    def change(self) -> list[tuple[int, MarketEvent]]:
        """Have the other connection be the live one; return, with its arrival, what it is ahead by."""
        found = self._news()
        other = self.other
        is_behind = {
            Order.NUMBER: other.number < self.told_number,
            Order.TIME: other.time < self.told_time,
            Order.ARRIVAL: True,  # what it delivers next will say
        }
        self.is_owed = not found and is_behind[self.order_for(other)]
        self.told_number = max(self.told_number, other.number)
        self.told_time = max(self.told_time, other.time)
        self.repeats = 0
        self.live, self.other = other, self.live
        self.ahead.clear()
        self._lacking.clear()
        return found

    def _news(self) -> list[tuple[int, MarketEvent]]:
        order = self.order_for(self.other)
        is_untold = self.told_number == self.told_time == _FIRST
        if is_untold or order is not Order.ARRIVAL:
            return [
                (arrival, event)
                for arrival, event, number, time in self.ahead
                if is_untold or not self._is_told(order, number, time)
            ]
        # Of a state that comes without number and time, the newest is as good as all.
        newest = list(self.ahead)[-1:]
        return [
            (arrival, event)
            for arrival, event, *_ in newest
            if isinstance(event, BookTop | Ticker)
            and (self.live.event is None or _content(self.live.event) != _content(event))
        ]


def number_of(event: MarketEvent) -> int:
    """Return the venue's number of an event, 0 where it gives none."""
    if isinstance(event, BookTop | Depth):
        return event.seq
    return event.trade_id if isinstance(event, Trade) else 0


def is_book(event: MarketEvent) -> bool:
    """Return whether an event is a whole book and no change."""
    return isinstance(event, Depth) and event.is_snapshot


def _content(event: MarketEvent) -> tuple[Any, ...]:
    """Return what an event says, all times left out."""
    return tuple(getattr(event, name) for name in event.__struct_fields__ if not name.startswith("ts_"))


def _is_same(one: MarketEvent, other: MarketEvent) -> bool:
    """Return whether two events of one number are one: an edit may change what is made of either half."""
    return one.ts_event == other.ts_event != 0 or _content(one) == _content(other)


def _next(place: Place, value: int) -> Place:
    return (value, place[1] + 1) if value == place[0] else (value, 1)
