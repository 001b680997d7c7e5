from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from recording_tools import (
    QUOTES,
    depth,
    order,
    recorded_folder,
    script,
    top,
    trade,
    write_csv,
    write_recording,
)

from host.api import BookTop, Depth, MarketEvent, RejectReason, Side, TimeInForce
from venue.market import Ended, Execution, MarketOutput, VenueOrder
from venue.matching import SelfTrade
from venue.recorded_book import RecordedBook
from venue.recording import Recording, RecordingError
from venue.replay_market import ReplayMarket

D = Decimal
OPENING = (
    depth(
        1,
        [(100.0, 5.0), (99.9, 8.0), (99.0, 50.0)],
        [(100.2, 2.0), (100.3, 3.0), (101.0, 40.0)],
        10,
        is_snapshot=True,
    ),
    top(2, 100.0, 5.0, 100.2, 2.0, 11),
)


def open_market(*events: MarketEvent, self_trade: SelfTrade = SelfTrade.CANCEL_TAKER) -> ReplayMarket:
    market = ReplayMarket(script(*OPENING, *events), self_trade=self_trade)
    assert market.step(2) == list(OPENING)
    return market


def executions(outputs: list[MarketOutput]) -> list[tuple[Decimal, Decimal]]:
    return [(event.price, event.qty) for event in outputs if isinstance(event, Execution)]


# -- resting -------------------------------------------------------------------------------------


def test_a_trade_is_followed_by_its_fill_once_the_queue_ahead_is_gone() -> None:
    first, second = trade(10, 100.0, 4.0, Side.SELL), trade(11, 100.0, 1.25, Side.SELL)
    market = open_market(first, second)
    bid = order(1, Side.BUY, "100", "1", post_only=True)
    assert market.submit(bid, 5) == []
    assert market.next_time_ns() == 10
    assert market.step(10) == [first]
    assert market.step(11) == [second, Execution(D(100), D("0.25"), bid, None, 11)]
    assert (bid.filled, bid.is_open) == (D("0.25"), True)
    assert market.next_time_ns() is None


def test_a_buyer_at_our_bid_price_does_not_fill_our_bid() -> None:
    market = open_market(trade(10, 100.0, 50.0, Side.BUY))
    market.submit(order(1, Side.BUY, "100", "1"), 5)
    assert executions(market.step(10)) == []


def test_a_trade_through_our_price_fills_us_whole() -> None:
    market = open_market(trade(10, 99.9, 0.01, Side.SELL), trade(11, 100.3, 0.01, Side.BUY))
    bid, ask = order(1, Side.BUY, "100", "3"), order(2, Side.SELL, "100.2", "4")
    market.submit(bid, 5)
    market.submit(ask, 5)
    assert executions(market.step(10)) == [(D(100), D(3))]
    assert executions(market.step(11)) == [(D("100.2"), D(4))]
    assert not bid.is_open
    assert not ask.is_open


def test_a_late_print_of_a_trade_before_our_order_does_not_fill_it() -> None:
    market = open_market(
        top(10, 100.0, 5.0, 100.2, 2.0, 12, event=5000), trade(20, 99.0, 9.0, Side.SELL, event=4999)
    )
    market.step(10)
    market.submit(order(1, Side.BUY, "100", "1"), 15)
    assert executions(market.step(20)) == []


def test_an_opposite_quote_that_crosses_us_fills_up_to_its_size_once() -> None:
    crossing = top(10, 99.8, 1.0, 99.9, 0.5, 12)
    market = open_market(crossing, top(11, 99.8, 1.5, 99.9, 0.5, 13), top(12, 99.8, 1.5, 99.9, 0.25, 14))
    bid = order(1, Side.BUY, "100", "1")
    market.submit(bid, 5)
    assert market.step(10) == [crossing, Execution(D(100), D("0.5"), bid, None, 10)]
    assert executions(market.step(11)) == []
    assert executions(market.step(12)) == [(D(100), D("0.25"))]


def test_depth_that_overtook_the_quotes_is_believed_and_the_old_quote_is_not() -> None:
    market = open_market(depth(10, [(100.2, 1.0)], [(100.2, 0.0)], 20), top(11, 99.7, 5.0, 99.9, 2.0, 15))
    market.step(10)
    assert market.best() == (D("100.2"), D("100.3"))
    market.submit(order(1, Side.BUY, "100", "1"), 10)
    assert executions(market.step(11)) == []
    assert market.best() == (D("100.2"), D("100.3"))


def test_a_better_price_than_the_markets_is_first_in_line() -> None:
    market = open_market(trade(10, 100.1, 0.4, Side.SELL))
    bid = order(1, Side.BUY, "100.1", "1")
    market.submit(bid, 5)
    assert market.best() == (D("100.1"), D("100.2"))
    assert executions(market.step(10)) == [(D("100.1"), D("0.4"))]


def test_cancels_at_our_price_move_us_up_in_proportion() -> None:
    market = open_market(
        top(10, 100.0, 8.0, 100.2, 2.0, 12),
        top(11, 100.0, 4.0, 100.2, 2.0, 13),
        trade(10**9, 100.0, 3.0, Side.SELL),
    )
    market.submit(order(1, Side.BUY, "100", "1"), 5)
    market.step(11)
    # 5 ahead and 3 behind: of the 4 that went, 2.5 were ahead. The print comes too late to explain them.
    assert executions(market.step(10**9)) == [(D(100), D("0.5"))]


def test_cancelling_ends_the_wait() -> None:
    market = open_market(trade(10, 99.0, 100.0, Side.SELL))
    bid = order(1, Side.BUY, "100", "1")
    market.submit(bid, 5)
    assert market.cancel(bid, 6) == []
    assert not bid.is_open
    assert market.cancel(bid, 7) == []
    assert executions(market.step(10)) == []


def test_an_amend_keeps_its_place_only_for_less_at_the_same_price() -> None:
    market = open_market(trade(10, 100.0, 4.0, Side.SELL))
    bid = order(1, Side.BUY, "100", "2")
    market.submit(bid, 5)
    market.step(10)

    def ahead() -> float:
        queued = market.queue_of(bid)
        assert queued is not None
        return queued.ahead

    assert ahead() == 1.0
    assert market.amend(bid, D(100), D(1), 11) == []
    assert (ahead(), bid.qty) == (1.0, D(1))
    # The print came before the smaller size is displayed: what is left of 5 is 1.
    assert market.amend(bid, D(100), D(2), 12) == []
    assert ahead() == 5.0
    assert market.amend(bid, D("99.9"), D(2), 13) == []
    assert ahead() == 8.0
    assert executions(market.amend(bid, D("100.2"), D(3), 14)) == [(D("100.2"), D(2))]
    assert bid.is_open


# -- taking --------------------------------------------------------------------------------------


def test_a_taker_walks_the_recorded_levels_and_rests_the_remainder() -> None:
    market = open_market()
    taker = order(1, Side.BUY, "100.3", "6")
    assert executions(market.submit(taker, 5)) == [(D("100.2"), D(2)), (D("100.3"), D(3))]
    assert (taker.is_open, taker.remaining) == (True, D(1))
    assert market.best() == (D("100.3"), D("100.2"))


def test_taken_size_comes_back_when_the_recording_next_changes_the_level() -> None:
    market = open_market(top(10, 100.0, 6.0, 100.2, 2.0, 12), top(11, 100.0, 6.0, 100.2, 1.5, 13))
    ioc = TimeInForce.IOC
    assert executions(market.submit(order(1, Side.BUY, "100.2", "1.5", ioc), 5)) == [(D("100.2"), D("1.5"))]
    market.step(10)
    assert executions(market.submit(order(2, Side.BUY, "100.2", "9", ioc), 10)) == [(D("100.2"), D("0.5"))]
    market.step(11)
    assert executions(market.submit(order(3, Side.BUY, "100.2", "9", ioc), 11)) == [(D("100.2"), D("1.5"))]


@pytest.mark.parametrize(
    ("taker", "reason", "filled"),
    [
        (order(1, Side.BUY, "100.2", "1", post_only=True), RejectReason.WOULD_TAKE, "0"),
        (order(1, Side.BUY, "100.2", "2.01", TimeInForce.FOK), RejectReason.NOT_FILLABLE, "0"),
        (order(1, Side.SELL, "100", "6", TimeInForce.IOC), RejectReason.NOT_FILLABLE, "5"),
        (order(1, Side.SELL, "100.1", "6", TimeInForce.IOC), RejectReason.NOT_FILLABLE, "0"),
        (order(1, Side.SELL, None, "99"), RejectReason.NOT_FILLABLE, "63"),
    ],
)
def test_an_order_that_may_not_rest_ends_with_its_reason(
    taker: VenueOrder, reason: RejectReason, filled: str
) -> None:
    out = open_market().submit(taker, 5)
    assert out[-1] == Ended(taker, reason, 5)
    assert (taker.is_open, taker.filled) == (False, D(filled))


def test_a_fok_that_fits_fills_whole() -> None:
    taker = order(1, Side.BUY, "100.3", "5", TimeInForce.FOK)
    assert executions(open_market().submit(taker, 5)) == [(D("100.2"), D(2)), (D("100.3"), D(3))]
    assert not taker.is_open


def test_our_own_order_stops_our_taker() -> None:
    market = open_market()
    ask = order(1, Side.SELL, "100.2", "1")
    market.submit(ask, 5)
    taker = order(2, Side.BUY, "100.3", "9")
    out = market.submit(taker, 6)
    # The recorded 2 stand ahead of our ask; then our taker meets it and ends.
    assert executions(out) == [(D("100.2"), D(2))]
    assert out[-1] == Ended(taker, RejectReason.SELF_TRADE, 6)
    assert (ask.is_open, taker.is_open) == (True, False)


def test_our_own_maker_gives_way_where_the_venue_says_so() -> None:
    market = open_market(self_trade=SelfTrade.CANCEL_MAKER)
    ask = order(1, Side.SELL, "100.1", "1")
    market.submit(ask, 5)
    taker = order(2, Side.BUY, "100.2", "1")
    assert market.submit(taker, 6) == [
        Ended(ask, RejectReason.SELF_TRADE, 6),
        Execution(D("100.2"), D(1), None, taker, 6),
    ]


def test_two_accounts_trade_with_each_other() -> None:
    market = open_market()
    ask = order(1, Side.SELL, "100.1", "1", owner="other")
    market.submit(ask, 5)
    taker = order(2, Side.BUY, "100.2", "1.5")
    assert market.submit(taker, 6) == [
        Execution(D("100.1"), D(1), ask, taker, 6),
        Execution(D("100.2"), D("0.5"), None, taker, 6),
    ]
    assert not ask.is_open


# -- the book and the end ------------------------------------------------------------------------


def test_the_snapshot_continues_into_the_recorded_changes() -> None:
    market = open_market(top(10, 99.9, 1.0, 100.2, 2.0, 14))
    market.step(10)
    snapshot = market.snapshot(10)
    assert (snapshot.is_snapshot, snapshot.seq) == (True, 10)
    assert snapshot.bids == ((99.9, 1.0), (99.0, 50.0))
    assert snapshot.asks == ((100.2, 2.0), (100.3, 3.0), (101.0, 40.0))


def test_events_before_a_bad_line_are_all_delivered(tmp_path: Path) -> None:
    folder = write_recording(tmp_path)
    write_csv(folder, "quotes", [*QUOTES, "8,,9000,XYZUSDT,61x.3,3,100.2,1,16"])
    good = list(Recording.open(write_recording_copy(tmp_path)).events())
    market = ReplayMarket(Recording.open(folder))
    delivered: list[MarketOutput] = []
    with pytest.raises(RecordingError, match=r"quotes.csv.gz line 4: bid_px"):
        while market.next_time_ns() is not None:
            delivered.extend(market.step(10**18))
    # A stream is read one line ahead, so at most the last event before the bad line waits behind it.
    assert len(delivered) >= len(good) - 2
    assert delivered == good[: len(delivered)]
    assert market.next_time_ns() is None


def write_recording_copy(parent: Path) -> Path:
    copy = parent / "good"
    copy.mkdir()
    return write_recording(copy)


@pytest.mark.parametrize("name", ["binance_spot_BTCUSDT_20240808-09", "binance_usdm_BTCUSDT_20240808"])
def test_the_fused_book_is_never_crossed_and_keeps_to_the_newer_stream(name: str) -> None:
    recording = Recording.open(recorded_folder(name))
    book = RecordedBook(recording.symbol, float(recording.instrument.tick_size))
    quote: BookTop | None = None
    for event in recording.events():
        if isinstance(event, BookTop):
            if book.on_top(event):
                quote = event
                assert (book.best_bid, book.best_ask) == (event.bid, event.ask)
                assert book.bids[event.bid] == event.bid_size
        elif isinstance(event, Depth):
            book.on_depth(event)
            if quote is not None and quote.seq > event.seq:
                assert (book.best_bid, book.best_ask) == (quote.bid, quote.ask)
        assert book.best_bid < book.best_ask
    snapshot = book.snapshot(0)
    assert snapshot.bids[0][0] == book.best_bid
    assert snapshot.asks[0][0] == book.best_ask


def quote_along(name: str, limit_ns: int) -> list[tuple[int, Decimal, Decimal, Decimal]]:
    """Keep one order on each recorded best price; return (time, price, quantity, signed) of the fills."""
    market = ReplayMarket(Recording.open(recorded_folder(name)))
    mine: dict[Side, VenueOrder] = {}
    fills: list[tuple[int, Decimal, Decimal, Decimal]] = []
    number = 0
    end_ns = (market.next_time_ns() or 0) + limit_ns
    while (now_ns := market.next_time_ns()) is not None and now_ns < end_ns:
        for event in market.step(now_ns):
            if isinstance(event, Execution):
                maker = event.maker
                assert maker is not None
                assert maker.filled <= maker.qty
                fills.append((now_ns, event.price, event.qty, maker.filled))
            elif isinstance(event, BookTop):
                for side, price in ((Side.BUY, event.bid), (Side.SELL, event.ask)):
                    wanted = market.instrument.price_floor(price)
                    resting = mine.get(side)
                    if resting is not None and resting.is_open:
                        if resting.price == wanted:
                            continue
                        market.cancel(resting, now_ns)
                    number += 1
                    mine[side] = order(number, side, str(wanted), "0.02", post_only=True)
                    market.submit(mine[side], now_ns)
    return fills


def test_quoting_along_a_real_recording_fills_and_repeats_exactly() -> None:
    name = "binance_usdm_BTCUSDT_20240808"
    first = quote_along(name, 120 * 10**9)
    assert 100 < len(first) < 2000
    assert first == quote_along(name, 120 * 10**9)


# -- properties ----------------------------------------------------------------------------------

PRICES = st.integers(995, 1005)
SIZES = st.integers(1, 20)
SIDES = st.sampled_from([Side.BUY, Side.SELL])
STEPS = st.one_of(
    st.tuples(st.just("quote"), PRICES, st.integers(1, 3), SIZES, SIZES),
    st.tuples(st.just("trade"), PRICES, SIZES, SIDES),
    st.tuples(st.just("level"), PRICES, st.integers(0, 20), SIDES),
    st.tuples(
        st.just("submit"),
        PRICES,
        SIZES,
        SIDES,
        st.sampled_from(list(TimeInForce)),
        st.booleans(),
        st.sampled_from(["a", "b"]),
    ),
    st.tuples(st.just("cancel"), st.integers(0, 30)),
    st.tuples(st.just("amend"), st.integers(0, 30), PRICES, SIZES),
)


@settings(max_examples=150, deadline=None)
@given(st.lists(STEPS, max_size=60))
def test_no_order_ever_fills_more_or_worse_than_it_asked(steps: list[tuple[object, ...]]) -> None:
    events: list[MarketEvent] = []
    requests: list[tuple[int, tuple[object, ...]]] = []
    for index, step in enumerate(steps):
        ns = 10 + index
        match step:
            case ("quote", int(bid), int(spread), int(bid_size), int(ask_size)):
                events.append(
                    top(ns, bid / 10, float(bid_size), (bid + spread) / 10, float(ask_size), 100 + index)
                )
            case ("trade", int(price), int(size), Side() as side):
                events.append(trade(ns, price / 10, size / 4, side))
            case ("level", int(price), int(size), Side() as side):
                level = [(price / 10, float(size))]
                bids, asks = (level, []) if side is Side.BUY else ([], level)
                events.append(depth(ns, bids, asks, 100 + index))
            case _:
                requests.append((ns, step))
    market = open_market(*events)
    orders: list[VenueOrder] = []
    filled: dict[int, Decimal] = {}

    def check(outputs: list[MarketOutput]) -> None:
        for event in outputs:
            if isinstance(event, Ended):
                assert not event.order.is_open
            if not isinstance(event, Execution):
                continue
            assert event.qty > 0
            maker, taker = event.maker, event.taker
            assert maker is None or taker is None or maker.owner != taker.owner
            for mine in (maker, taker):
                if mine is not None:
                    filled[mine.order_id] = filled.get(mine.order_id, D(0)) + event.qty
                    assert mine.price is not None
                    assert event.price <= mine.price if mine.side is Side.BUY else event.price >= mine.price
            assert maker is None or maker.price == event.price

    for ns, request in requests:
        check(market.step(ns))
        match request:
            case (
                "submit",
                int(price),
                int(size),
                Side() as side,
                TimeInForce() as tif,
                bool(post),
                str(owner),
            ):
                orders.append(
                    order(
                        len(orders),
                        side,
                        str(D(price) / 10),
                        str(D(size) / 4),
                        tif,
                        post_only=post,
                        owner=owner,
                    )
                )
                check(market.submit(orders[-1], ns))
            case ("cancel", int(index)) if index < len(orders):
                check(market.cancel(orders[index], ns))
            case ("amend", int(index), int(price), int(size)) if index < len(orders):
                if orders[index].is_open and D(size) / 4 > orders[index].filled:
                    check(market.amend(orders[index], D(price) / 10, D(size) / 4, ns))
    check(market.step(10**6))
    for mine in orders:
        assert mine.filled == filled.get(mine.order_id, D(0)) <= mine.qty
        queued = market.queue_of(mine)
        assert mine.is_open == (queued is not None)
        assert not mine.is_open or mine.time_in_force is TimeInForce.GTC
        assert queued is None or queued.ahead >= 0.0
