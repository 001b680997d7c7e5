"""Two connections deliver one market; whoever changes between them gets each event once."""

from hypothesis import given
from hypothesis import strategies as st

from host.api import BookTop, Depth, MarketEvent, RequestUnanswered, Trade
from host.api.exchange import OrderCancelled
from host.runtime.reload.overlap import MOST_LAG_NS, Overlap, SameReports

BTC = "BTC-USDT"


def event(number: int) -> MarketEvent:
    """Return one of three streams' events, as the venue numbers them."""
    kind, number = number % 3, number // 3 + 1
    if kind == 0:
        return BookTop(BTC, 1.0 + number, 1.0, 2.0 + number, 1.0, number, 0, number)
    if kind == 1:
        return Trade(BTC, float(number), 1.0, True, number, number)
    return Depth(BTC, ((float(number), 1.0),), (), False, number, number, -1, number)


@given(
    joins_at=st.integers(0, 10),
    order=st.lists(st.booleans(), max_size=60),
)
def test_any_interleaving_delivers_each_event_exactly_once(joins_at: int, order: list[bool]) -> None:
    overlap = Overlap(started_ns=0)
    live_at, other_at = joins_at, joins_at
    for is_live in order:
        if is_live:
            overlap.live(event(live_at), 0)
            live_at += 1
        else:
            overlap.other(event(other_at))
            other_at += 1
    # What is not known to be numbered alike is told by a whole book; here everything is.
    if overlap.waiting_for(0):
        return
    heard = [event(number) for number in range(joins_at, live_at)]
    heard += overlap.ahead()
    heard += [event(number) for number in range(other_at, other_at + 30) if overlap.is_new(event(number))]

    expected = [event(number) for number in range(joins_at, max(live_at, other_at + 30))]
    key = lambda e: (type(e).__name__, e.ts_event)  # noqa: E731
    assert sorted(heard, key=key) == sorted(expected, key=key)


def test_connection_that_falls_behind_is_waited_for() -> None:
    overlap = Overlap(started_ns=0)
    for number in range(6):
        overlap.live(event(number), 1)
    assert "nothing yet that both connections delivered" in overlap.waiting_for(1)
    for number in range(3):
        overlap.other(event(number))
    assert overlap.waiting_for(1 + MOST_LAG_NS) == ""
    assert "1.0 s behind" in overlap.waiting_for(2 + MOST_LAG_NS)
    for number in range(3, 6):
        overlap.other(event(number))
    assert overlap.waiting_for(2 + MOST_LAG_NS) == ""


def test_events_with_one_number_and_other_contents_are_not_taken_for_the_same() -> None:
    overlap = Overlap(started_ns=0)
    overlap.live(Trade(BTC, 1.0, 1.0, True, 7, 1), 0)
    overlap.other(Trade(BTC, 2.0, 1.0, True, 7, 1))
    assert not overlap.is_shared(Trade, BTC)
    assert overlap.is_new(Trade(BTC, 2.0, 1.0, True, 3, 1)), "its numbers mean nothing here"
    assert overlap.ahead() == []


def test_streams_without_a_common_event_are_told_apart_when_patience_ends() -> None:
    overlap = Overlap(started_ns=0)
    overlap.live(event(0), 0)
    overlap.give_up_matching()
    assert overlap.waiting_for(0) == ""
    assert not overlap.is_shared(BookTop, BTC)


def test_second_copy_of_a_report_is_dropped_but_each_request_has_its_own_silence() -> None:
    reports = SameReports()
    first, second = OrderCancelled("a", 1), OrderCancelled("b", 1)
    silence = RequestUnanswered("a", "", 1)
    reports.other(first)
    reports.other(second)
    reports.live(first)
    assert list(reports.take_ahead()) == [second]
    assert [reports.is_new(r) for r in (first, second, silence, silence)] == [False, False, True, True]
