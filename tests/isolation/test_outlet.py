"""Flow control: what a slow worker is sent, what waits, and what is left out and summed up."""

import logging
from math import inf, nan
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from host.api import BookTop, Depth, Ticker, Trade
from host.isolation.outlet import Item, Outlet
from host.isolation.settings import WorkerSettings
from host.wire import JSON, MSGPACK, Codec
from host.wire.messages import BookLost, Event, Events, Heartbeat, Missed, TimerEvent

MS = 1_000_000
BTC, ETH = "BTC-USDT", "ETH-USDT"
DECODE = msgspec.json.Decoder(Event).decode


def book(price: float, symbol: str = BTC) -> Item:
    return Item(BookTop(symbol, price, 1.0, price + 1, 1.0))


def trade(qty: float, *, is_buy: bool = True, symbol: str = BTC) -> Item:
    return Item(Trade(symbol, 1.0, qty, is_buy))


def depth(seq: int) -> Item:
    return Item(Depth(BTC, ((1.0, 1.0),), (), is_snapshot=False, first_seq=seq, seq=seq))


def whole(symbol: str) -> Depth:
    return Depth(symbol, ((1.0, 2.0),), ((3.0, 4.0),), is_snapshot=True, first_seq=9, seq=9)


def outlet(**settings: Any) -> Outlet:
    defaults = {"window": 4, "most_waiting": 8, "conflate_after_ns": 100 * MS}
    return Outlet(JSON, WorkerSettings(**{**defaults, **settings}), whole)


def taken(out: Outlet, now_ns: int = 0) -> list[Any]:
    return [DECODE(bytes(raw)) for raw in out.take(now_ns) or ()]


def test_events_go_out_at_once_until_the_window_is_full() -> None:
    out = outlet()
    for price in range(6):
        out.put(book(price), 0)
        taken(out)
    assert (out.sent, out.behind) == (4, 6)
    assert out.handle(2, 1)
    assert [event.data.bid for event in taken(out)] == [4.0, 5.0]
    assert out.sent == 6


def test_what_waits_too_long_is_conflated_to_the_newest() -> None:
    out = outlet()
    for price in range(6):
        out.put(book(price), 0)
        out.take(0)
    out.put(trade(0.5), 50 * MS)
    out.put(book(6.0), 150 * MS)  # two books and a trade wait, the oldest for too long
    out.put(trade(0.25, is_buy=False), 150 * MS)
    assert out.take(150 * MS) is None
    out.handle(4, 150 * MS)
    missed, newest = taken(out, 150 * MS)
    assert newest.data.bid == 6.0
    assert (missed.books, missed.trades, missed.bought, missed.sold) == (2, 2, 0.5, 0.25)
    assert out.conflated == 4
    assert out.behind == 2


def test_changes_of_the_book_give_way_to_the_whole_book() -> None:
    out = outlet(window=1)
    out.put(book(0.0), 0)
    out.take(0)
    for seq in range(20):
        out.put(depth(seq), 0)
    out.handle(1, 0)
    missed, snapshot = taken(out)
    assert missed.depths == 20
    assert snapshot.data.is_snapshot


def test_each_symbol_keeps_its_own_newest() -> None:
    out = outlet(window=1)
    for price in range(20):
        out.put(book(price, BTC), 0)
        out.put(book(price * 2, ETH), 0)
        out.take(0)
    out.handle(1, 0)
    newest = {event.data.symbol: event.data.bid for event in taken(out) if hasattr(event, "data")}
    assert newest == {BTC: 19.0, ETH: 38.0}


def test_of_a_book_that_is_lost_no_older_quote_is_the_last_word() -> None:
    out = outlet(window=1)
    out.put(book(0.0, ETH), 0)
    out.take(0)
    out.put(book(1.0), 0)
    out.put(Item(BookLost(BTC)), 0)
    for price in range(20):
        out.put(book(price, ETH), 200 * MS)
    out.handle(1, 200 * MS)
    assert [type(event).__name__ for event in taken(out)] == ["Missed", "BookLost", "Missed", "Book"]
    assert out.conflated == 1 + 19
    for price in range(20):
        out.put(Item(BookLost(BTC)), 200 * MS)
        out.put(book(price), 200 * MS)
    out.handle(out.sent, 200 * MS)
    assert taken(out, 200 * MS)[-1].data.bid == 19.0


def test_what_concerns_the_instance_is_never_left_out() -> None:
    out = outlet(window=1)
    for number in range(50):
        out.put(book(number), 0)
        out.put_own(TimerEvent(str(number)), 0)
    names: list[str] = []
    while events := taken(out):
        names += [event.name for event in events if isinstance(event, TimerEvent)]
        out.handle(out.sent, 0)
    assert names == [str(number) for number in range(50)]


def test_a_newest_ticker_is_kept_too() -> None:
    out = outlet(window=1)
    for last in range(30):
        out.put(Item(Ticker(BTC, float(last), 1, 1, 1, 1)), 0)
        if not last:
            out.take(0)
    out.handle(1, 0)
    assert taken(out)[-1].data.last == 29.0


def test_a_worker_is_stuck_only_while_it_has_something() -> None:
    out = outlet()
    assert out.stuck_ns(10**12) == 0
    out.put(book(1.0), 5)
    out.take(5)
    assert out.stuck_ns(105) == 100
    assert out.lag_ns(105) == 100
    out.handle(1, 110)
    assert (out.stuck_ns(10**12), out.lag_ns(10**12)) == (0, 0)


def test_what_is_heard_rises_with_what_is_handled() -> None:
    out = outlet(window=9)
    out.put(book(1.0), 0)
    out.put_own(Heartbeat(0), 0, mark=3)
    out.put(book(2.0), 0)
    out.put_own(Heartbeat(0), 0, mark=5)
    out.take(0)
    heard = []
    for number in range(1, 5):
        out.handle(number, 0)
        heard.append(out.heard)
    assert heard == [0, 3, 3, 5]


def test_little_is_with_a_worker_that_is_slow_and_more_again_once_it_is_quick() -> None:
    out = outlet(window=64, most_waiting=10_000, conflate_after_ns=10**15)
    now_ns, sizes = 0, []
    for number in range(3000):
        out.put(book(float(number)), 0)
    for took_ms in (30, 30, 30, 30, 30, 30, 10, 1, 1, 1):
        out.take(now_ns)
        sizes.append(out.sent - out.handled)
        now_ns += took_ms * MS
        out.handle(out.sent, now_ns)
    assert sizes == [64, 32, 16, 8, 4, 4, 4, 4, 8, 16]


def test_what_was_not_sent_cannot_be_handled() -> None:
    out = outlet()
    out.put(book(1.0), 0)
    out.take(0)
    out.handle(1, 0)
    assert not out.handle(2, 0)
    assert not out.handle(0, 0)
    assert out.handled == 1


@given(steps=st.lists(st.tuples(st.sampled_from("btdoh"), st.integers(0, 60)), max_size=200))
def test_it_never_grows_and_never_loses_count(steps: list[tuple[str, int]]) -> None:
    out = outlet()
    now_ns = books = trades = 0
    events: list[Any] = []
    for kind, passed_ms in steps:
        now_ns += passed_ms * MS
        if kind == "b":
            books += 1
            out.put(book(float(books)), now_ns)
        elif kind == "t":
            trades += 1
            out.put(trade(1.0), now_ns)
        elif kind == "d":
            out.put(depth(1), now_ns)
        elif kind == "o":
            out.put_own(TimerEvent("t"), now_ns)
        else:
            out.handle(out.sent, now_ns)
        events += taken(out, now_ns)
        own = sum(step[0] == "o" for step in steps)
        assert out.behind <= 4 + 8 + 4 + own
    while out.handle(out.sent, now_ns) and (more := taken(out, now_ns)):
        events += more
    assert len(events) == out.sent
    assert (
        sum(e.bought for e in events if type(e).__name__ == "Missed")
        + sum(type(e).__name__ == "TradeEvent" for e in events)
        == trades
    )
    if books:
        assert [e.data.bid for e in events if type(e).__name__ == "Book"][-1] == float(books)


def test_nothing_is_said_to_be_left_out_where_nothing_was() -> None:
    out = outlet(window=1)
    out.put(book(0.0, ETH), 0)
    out.take(0)
    out.put(book(1.0, BTC), 0)
    for price in range(20):
        out.put(book(price, ETH), 200 * MS)
    out.handle(1, 200 * MS)
    missed = [event for event in taken(out) if isinstance(event, Missed)]
    assert [(event.symbol, event.books) for event in missed] == [(ETH, 19)]


@pytest.mark.parametrize(
    ("codec", "event"),
    [
        (JSON, Ticker(BTC, 1.0, nan, 1.0, 1.0, 1.0)),
        (JSON, Trade(BTC, inf, 1.0, True)),
        (MSGPACK, Trade(BTC, 1.0, 1.0, True, 1 << 100)),
        (MSGPACK, Trade("\ud800", 1.0, 1.0, True)),
    ],
)
@pytest.mark.parametrize("window", [1, 9])
def test_what_cannot_be_told_takes_nothing_along(
    caplog: pytest.LogCaptureFixture, codec: Codec, event: Trade | Ticker, window: int
) -> None:
    out = Outlet(codec, WorkerSettings(window=window), whole)
    for _ in range(3):
        out.put(Item(event), 0)
        out.put_own(TimerEvent("own"), 0, mark=1)
    told: list[Any] = []
    with caplog.at_level(logging.WARNING, "tandem.workers"):
        while (batch := out.take(0)) is not None:
            told += codec.decode_from_host(codec.encode(Events(1, tuple(batch)))).events  # type: ignore[arg-type, union-attr]
            out.handle(out.sent, 0)
    assert told == [TimerEvent("own")] * 3
    assert (out.sent, out.behind, out.heard) == (3, 0, 1)
    assert len(caplog.records) == 1
    assert "cannot be told in" in caplog.text


def test_a_trade_of_no_number_is_counted_and_not_summed() -> None:
    out = outlet(window=1)
    out.put(book(0.0), 0)
    out.take(0)
    for number in range(20):
        out.put(trade(nan if number == 19 else 1.0), 0)
    out.handle(1, 0)
    (missed,) = taken(out)
    assert (missed.trades, missed.bought) == (20, 19.0)


def test_a_symbol_that_reads_like_no_number_is_told() -> None:
    out = outlet()
    out.put(trade(1.0, symbol="null"), 0)
    assert [event.data.symbol for event in taken(out)] == ["null"]
