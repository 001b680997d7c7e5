"""Two connections deliver one market; whoever changes between them gets each event once, in order."""

from collections.abc import Callable
from itertools import pairwise

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from host.api import BookTop, Depth, MarketEvent, RequestUnanswered, Ticker, Trade
from host.api.exchange import Liquidity, OrderAmended, OrderCancelled, OrderFilled
from host.api.orders import Side
from host.runtime.reload.overlap import MOST_LAG_NS, Overlap
from host.runtime.reload.same_reports import SameReports

BTC = "BTC-USDT"
Make = Callable[[int, int], MarketEvent]
"""Makes the n-th event of its stream at a time."""


def quote(n: int, ts_ns: int) -> BookTop:
    return BookTop(BTC, 1.0 + n, 1.0, 2.0 + n, 1.0, ts_ns, 0, n)


def trade(n: int, ts_ns: int) -> Trade:
    return Trade(BTC, 1.0 + n, 1.0, True, n, ts_ns)


def depth(n: int, ts_ns: int) -> Depth:
    return Depth(BTC, ((1.0 + n, 1.0),), (), False, n, n, -1, ts_ns)


def ticker(n: int, ts_ns: int) -> Ticker:
    return Ticker(BTC, 1.0 + n, 1.0, 1.0, 1.0, 1.0, ts_ns)


def timeless(make: Make) -> Make:
    return lambda n, ts_ns: make(n, 0)


def unnumbered_trade(n: int, ts_ns: int) -> Trade:
    return Trade(BTC, 1.0, 1.0, True, 0, ts_ns)


def randomly_numbered_trade(n: int, ts_ns: int) -> Trade:
    return Trade(BTC, 1.0 + n, 1.0, True, n * 7_919 % 1_009 + 1, ts_ns)


def numbered_anew_trade(n: int, ts_ns: int) -> Trade:
    return Trade(BTC, 1.0 + n, 1.0, True, n % 7 + 1, ts_ns)


VENUES: dict[str, tuple[Make, ...]] = {
    "numbers and times": (quote, trade, depth, ticker),
    "numbers alone": (timeless(quote), timeless(trade), timeless(depth)),
    "times alone": (unnumbered_trade, ticker),
    "random numbers": (quote, randomly_numbered_trade),
    "numbers that start again": (numbered_anew_trade, quote),
}


class TwoConnections:
    """A market, two connections that deliver it from some event on, and the account that hears one."""

    def __init__(self, market: list[MarketEvent], starts: tuple[int, int], edit: bool) -> None:
        self.market = market
        self.at = list(starts)
        self.live = 0
        self.overlap = Overlap()
        self.heard: list[int] = []
        self._edit = edit
        self._index = {id(event): index for index, event in enumerate(market)}
        self._edited = [_edited(event) for event in market] if edit else market
        self._index |= {id(event): index for index, event in enumerate(self._edited)}

    def deliver(self, connection: int) -> None:
        """Have a connection deliver its next event."""
        at = self.at[connection]
        if at == len(self.market):
            return
        self.at[connection] += 1
        event = (self._edited if connection else self.market)[at]
        if connection != self.live:
            self.overlap.other(event)
        elif self.overlap.live(event, 0):
            self.heard.append(at)

    def change(self) -> None:
        """Have the account hear the other connection from now on."""
        self.live = 1 - self.live
        self.heard += [self._index[id(event)] for event in self.overlap.change()]


def _edited(event: MarketEvent) -> MarketEvent:
    """Return what an edited adapter makes of the same frame."""
    match event:
        case Trade():
            return msgspec.structs.replace(event, taker_is_buyer=not event.taker_is_buyer, ts_recv=5)
        case BookTop():
            return msgspec.structs.replace(event, bid_size=event.bid_size * 10, ts_recv=5)
    return msgspec.structs.replace(event, ts_recv=5)


@given(data=st.data(), venue=st.sampled_from(sorted(VENUES)))
def test_any_delays_and_changes_deliver_each_event_exactly_once_and_in_order(
    data: st.DataObject, venue: str
) -> None:
    makers = VENUES[venue]
    counts = dict.fromkeys(makers, 0)
    market: list[MarketEvent] = []
    ts_ns = 1_000
    joins_at = data.draw(st.integers(0, 10))
    for make, pause_ns in data.draw(
        st.lists(st.tuples(st.sampled_from(makers), st.integers(0, 1)), min_size=20, max_size=80)
    ):
        counts[make] += 1
        # No connection begins between two events of one nanosecond.
        ts_ns += 1 if len(market) == joins_at else pause_ns
        market.append(make(counts[make], ts_ns))
    # Content without times must do where there are none, so nothing is edited there.
    edit = venue != "numbers alone" and data.draw(st.booleans())
    both = TwoConnections(market, (data.draw(st.integers(0, joins_at)), joins_at), edit)
    for connection in data.draw(st.lists(st.integers(0, 1), max_size=40)):
        both.deliver(connection)
    while not _may_change(both, joins_at) and both.at != [len(market)] * 2:
        both.deliver(0)
        both.deliver(1)
    if _may_change(both, joins_at):
        both.change()
        for what in data.draw(st.lists(st.sampled_from([0, 1, "change"]), max_size=80)):
            if isinstance(what, int):
                both.deliver(what)
            else:
                both.change()
    began_at = both.heard[0] if both.heard else both.at[both.live]
    for _ in market:
        both.deliver(both.live)

    assert sorted(both.heard) == list(range(began_at, len(market)))
    for make in makers:
        of_stream = [index for index in both.heard if type(market[index]) is type(make(1, 1))]
        assert of_stream == sorted(of_stream)


def _may_change(both: TwoConnections, joins_at: int) -> bool:
    """Return whether nothing is awaited, as before a swap. Depth that goes on is what is looked at here."""
    has_depth = any(isinstance(event, Depth) for event in both.market)
    return (
        not both.overlap.waiting_for(0)
        and both.at[0] >= joins_at
        and (both.overlap.is_matched(Depth, BTC) or not has_depth)
    )


@pytest.mark.parametrize("make", [quote, trade, ticker])
def test_repeats_are_dropped_where_the_new_connection_had_said_nothing_yet(make: Make) -> None:
    overlap = Overlap()
    events = [make(n, n) for n in range(1, 5)]
    for event in events[:3]:
        assert overlap.live(event, 0)
    assert overlap.change() == []
    assert not overlap.is_level
    assert [event for event in events if overlap.live(event, 0)] == [events[3]]
    assert overlap.is_level


def test_what_was_heard_before_the_connection_existed_is_not_told_again() -> None:
    overlap = Overlap([trade(7, 100), quote(9, 100)])
    overlap.other(trade(6, 90))
    overlap.other(trade(7, 100))
    overlap.other(trade(8, 110))
    overlap.other(quote(9, 100))
    assert overlap.change() == [trade(8, 110)]


def test_connection_that_falls_behind_is_waited_for() -> None:
    overlap = Overlap()
    for n in range(1, 7):
        overlap.live(quote(n, n), n)
    assert "nothing yet that both connections delivered" in overlap.waiting_for(1)
    for n in range(1, 4):
        overlap.other(quote(n, n))
    assert overlap.waiting_for(4 + MOST_LAG_NS) == ""
    assert "1.0 s behind" in overlap.waiting_for(5 + MOST_LAG_NS)
    for n in range(4, 7):
        overlap.other(quote(n, n))
    assert overlap.waiting_for(9 + MOST_LAG_NS) == ""


def test_connection_that_is_always_a_little_behind_is_good_enough() -> None:
    overlap = Overlap()
    for n in range(1, 100):
        overlap.live(quote(n, n), n * MOST_LAG_NS // 10)
        if n > 3:
            overlap.other(quote(n - 3, n - 3))
            assert overlap.waiting_for(n * MOST_LAG_NS // 10) == ""


def test_numbers_that_mean_something_else_are_not_compared_but_times_are() -> None:
    overlap = Overlap()
    old = [Trade(BTC, 1.0 + n, 1.0, True, n, n) for n in range(10, 20)]
    new = [Trade(BTC, 1.0 + n, 1.0, True, n - 5, n) for n in range(10, 20)]
    for n in range(6):
        overlap.live(old[n], 0)
    for event in new[:8]:
        overlap.other(event)
    assert not overlap.is_matched(Trade, BTC)
    assert overlap.waiting_for(0) and not overlap.waiting_for(0, is_patient=False)
    assert overlap.change() == new[6:8]


def test_missed_events_are_not_taken_for_told_ones() -> None:
    overlap = Overlap()
    for n in range(1, 4):
        overlap.live(depth(n, n), 0)
        overlap.other(depth(n, n))
    assert overlap.is_matched(Depth, BTC)
    overlap.other(depth(4, 4))
    overlap.lose(Depth, BTC)
    assert not overlap.is_matched(Depth, BTC)
    assert overlap.change() == []


def test_old_book_is_no_news_while_its_changes_are_still_to_be_repeated() -> None:
    overlap = Overlap()
    for n in range(1, 6):
        overlap.live(depth(n, n), 0)
    overlap.other(depth(1, 1))
    assert overlap.change() == []
    assert not overlap.live(msgspec.structs.replace(depth(2, 2), is_snapshot=True), 0)
    assert [overlap.live(depth(n, n), 0) for n in range(2, 7)] == [False] * 4 + [True]
    # One that comes later, or is asked for, counts.
    assert overlap.live(msgspec.structs.replace(depth(7, 7), is_snapshot=True), 0)


def test_changes_of_depth_in_other_pieces_leave_no_gap() -> None:
    """The venue cuts its stream of changes for each connection at its own moments."""
    overlap = Overlap()

    def piece(first: int, last: int) -> Depth:
        return Depth(BTC, (), (), False, first, last, -1, last)

    heard = [piece(1, 4), piece(5, 6), piece(7, 9)]
    for event in heard:
        overlap.live(event, 0)
    overlap.other(piece(1, 4))
    overlap.change()
    heard += [event for event in (piece(5, 8), piece(9, 11), piece(12, 12)) if overlap.live(event, 0)]
    assert heard[3:] == [piece(9, 11), piece(12, 12)]
    assert all(after.first_seq <= before.seq + 1 for before, after in pairwise(heard))


def test_state_without_number_and_time_is_told_when_it_differs() -> None:
    for bid, expected in ((1.0, 0), (1.5, 1)):
        overlap = Overlap()
        overlap.live(BookTop(BTC, 1.0, 1.0, 2.0, 1.0), 0)
        overlap.other(BookTop(BTC, bid, 1.0, 2.0, 1.0))
        assert len(overlap.change()) == expected


def test_number_that_the_venue_never_reaches_is_noticed() -> None:
    overlap = Overlap()
    for n in range(1, 4):
        overlap.live(quote(n, n), 0)
        overlap.other(quote(n, n))
    overlap.change()
    overlap.live(quote(1 << 40, 4), 0)  # the new version reads the wrong field
    overlap.change()
    assert not overlap.live(quote(4, 4), 0)
    assert overlap.unreached() == {BTC}
    overlap.owe_nothing()
    assert overlap.live(quote(5, 5), 0)


def test_second_copy_of_a_report_is_dropped_but_each_request_has_its_own_silence() -> None:
    reports = SameReports()
    first, second = OrderCancelled("a", 1), OrderCancelled("b", 1)
    silence = RequestUnanswered("a", "", 1)
    reports.other(first)
    reports.other(second)
    reports.other(silence)
    reports.live(first)
    assert list(reports.take_ahead()) == [second]
    assert [reports.is_new(r) for r in (first, second, silence, silence)] == [False, False, True, True]


def test_fill_and_end_of_an_order_are_known_by_what_they_are_and_amends_by_all_they_say() -> None:
    reports = SameReports()
    fill = OrderFilled(
        "a", BTC, Side.BUY, "t1", 1, 1, 0, "USDT", Liquidity.MAKER, 1  # type: ignore[arg-type]
    )  # fmt: skip
    amended = OrderAmended("a", 1, 1, 1)  # type: ignore[arg-type]
    for report in (fill, amended, OrderCancelled("a", 2)):
        assert reports.is_new(report)
    later = [msgspec.structs.replace(report, ts_ns=9) for report in (fill, OrderCancelled("a", 2), amended)]
    assert [reports.is_new(report) for report in later] == [False, False, True]
    assert reports.is_new(msgspec.structs.replace(fill, trade_id="t2"))
