"""Public frames: each recorded one decodes to the right event, and a book is never silently wrong."""

import json
from decimal import Decimal
from typing import Any

import pytest
from bybit_tools import filled_in, frame_of, listing, only
from exchange_tools import vectors
from hypothesis import given
from hypothesis import strategies as st

from host.api import BookTop, Depth, MarketEvent, Ticker, Trade
from host.core.books import Book, DepthResult
from plugins.exchanges.bybit.frames import BadFrame
from plugins.exchanges.bybit.market_codec import MarketCodec
from plugins.exchanges.bybit.products import Product

NOW_NS = 1_700_000_000_000_000_000
SYMBOLS = {"BTCUSDT": "BTC-USDT"}


def product_of(message: dict[str, Any]) -> Product:
    symbol = str(message["topic"]).rpartition(".")[2]
    return Product.INVERSE if symbol.endswith("USD") or "USDU" in symbol else Product.LINEAR


def codec_for(message: dict[str, Any]) -> MarketCodec:
    data = message["data"]
    row = data[0] if isinstance(data, list) else data
    symbol = row.get("s") or row["symbol"]
    return MarketCodec(product_of(message), {symbol: listing(product_of(message), symbol).symbol})


def is_push(vector: dict[str, Any]) -> bool:
    # The full book has no snapshots on its topic, and is not subscribed.
    return "topic" in vector["message"] and ".full." not in vector["message"]["topic"]


def public(vector: dict[str, Any]) -> dict[str, Any]:
    message: dict[str, Any] = filled_in(vector["message"])
    return message


@pytest.mark.parametrize("vector", only(vectors("wire/bybit/orderbook.json"), is_push))
def test_each_recorded_book_decodes_to_its_levels(vector: dict[str, Any]) -> None:
    message = public(vector)
    data, codec = message["data"], codec_for(message)
    if message["type"] == "delta":
        assert codec.events(frame_of(vector), NOW_NS) == ()  # nothing is believed before a snapshot
        start = json.loads(frame_of(vector)) | {"type": "snapshot"}
        start["data"] = {"s": data["s"], "b": [["1", "1"]], "a": [["1e9", "1"]], "u": data["u"] - 1, "seq": 1}
        codec.events(json.dumps(start).encode(), NOW_NS)
    (event,) = codec.events(frame_of(vector), NOW_NS)
    at_ns = message.get("cts", message["ts"]) * 1_000_000
    assert (event.ts_event, event.ts_recv) == (at_ns, NOW_NS)
    bids, asks = ([(float(price), float(size)) for price, size in data[side]] for side in "ba")
    if ".1." in message["topic"]:
        assert isinstance(event, BookTop)
        left = next((level for level in bids if level[1]), (1.0, 1.0))
        right = next((level for level in asks if level[1]), (1e9, 1.0))
        assert ((event.bid, event.bid_size), (event.ask, event.ask_size)) == (left, right)
        assert event.seq == data["seq"]
    else:
        assert isinstance(event, Depth)
        assert (list(event.bids), list(event.asks)) == (bids, asks)
        assert (event.seq, event.prev_seq, event.is_snapshot) == (data["seq"], 1, False)


@pytest.mark.parametrize("vector", only(vectors("wire/bybit/public_trade.json"), is_push))
def test_each_recorded_trade_decodes(vector: dict[str, Any]) -> None:
    message = public(vector)
    trades = codec_for(message).events(frame_of(vector), NOW_NS)
    for trade, row in zip(trades, message["data"], strict=True):
        assert isinstance(trade, Trade)
        assert (trade.price, trade.qty) == (float(row["p"]), float(row["v"]))
        assert trade.taker_is_buyer is (row["S"] == "Buy")
        assert trade.ts_event == row["T"] * 1_000_000
        assert trade.trade_id == (int(row["i"]) if row["i"].isdigit() else 0)


@pytest.mark.parametrize("vector", only(vectors("wire/bybit/tickers.json"), is_push))
def test_each_recorded_ticker_decodes(vector: dict[str, Any]) -> None:
    message = public(vector)
    data = message["data"]
    events = codec_for(message).events(frame_of(vector), NOW_NS)
    volume = data.get("turnover24h" if product_of(message) is Product.INVERSE else "volume24h")
    values = [data.get(key) for key in ("lastPrice", "prevPrice24h", "highPrice24h", "lowPrice24h")] + [
        volume
    ]
    if None in values:
        assert events == ()  # a change without its snapshot, or an option's
        return
    (ticker,) = events
    assert isinstance(ticker, Ticker)
    assert [ticker.last, ticker.open, ticker.high, ticker.low, ticker.volume] == [
        float(value) for value in values
    ]


def test_a_ticker_change_keeps_what_it_does_not_name() -> None:
    codec = MarketCodec(Product.LINEAR, SYMBOLS)
    full = {"lastPrice": "2", "prevPrice24h": "1", "highPrice24h": "3", "lowPrice24h": "1", "volume24h": "9"}
    frame = {"topic": "tickers.BTCUSDT", "type": "snapshot", "ts": 1, "data": {"symbol": "BTCUSDT", **full}}
    codec.events(json.dumps(frame).encode(), NOW_NS)
    frame |= {"type": "delta", "data": {"symbol": "BTCUSDT", "lastPrice": "2.5"}}
    (ticker,) = codec.events(json.dumps(frame).encode(), NOW_NS)
    assert ticker == Ticker("BTC-USDT", 2.5, 1.0, 3.0, 1.0, 9.0, 1_000_000, NOW_NS)


def book_frame(
    u: int, *, kind: str = "delta", depth: int = 50, seq: int | None = None, **sides: Any
) -> bytes:
    data = {"s": "BTCUSDT", "b": [], "a": [], "u": u, "seq": u * 10 if seq is None else seq} | sides
    return json.dumps({"topic": f"orderbook.{depth}.BTCUSDT", "ts": 1, "type": kind, "data": data}).encode()


SNAPSHOT: dict[str, Any] = {
    "kind": "snapshot",
    "b": [["10", "1"], ["9", "2"]],
    "a": [["11", "1"], ["12", "2"]],
}


def feed(codec: MarketCodec, book: Book, frame: bytes) -> list[DepthResult]:
    events = codec.events(frame, NOW_NS)
    return [book.apply_depth(event) for event in events if isinstance(event, Depth)]


def test_changes_apply_one_after_the_other_although_seq_jumps() -> None:
    codec, book = MarketCodec(Product.SPOT, SYMBOLS), Book("BTC-USDT")
    assert feed(codec, book, book_frame(5, seq=70, **SNAPSHOT)) == [DepthResult.SNAPSHOT]
    assert feed(codec, book, book_frame(6, seq=999, b=[["10", "0"]])) == [DepthResult.APPLIED]
    assert feed(codec, book, book_frame(7, seq=1003, a=[["10.5", "4"]])) == [DepthResult.APPLIED]
    assert book.levels(2) == ([(9.0, 2.0)], [(10.5, 4.0), (11.0, 1.0)])
    assert codec.lost == []


def test_a_missing_change_makes_the_host_see_a_gap_and_the_topic_is_lost_until_its_snapshot() -> None:
    codec, book = MarketCodec(Product.SPOT, SYMBOLS), Book("BTC-USDT")
    feed(codec, book, book_frame(5, **SNAPSHOT))
    assert feed(codec, book, book_frame(7, b=[["10", "3"]])) == [DepthResult.GAP]
    assert codec.lost == ["orderbook.50.BTCUSDT"]
    assert not book.is_valid
    assert feed(codec, book, book_frame(8)) == []
    assert feed(codec, book, book_frame(9, **SNAPSHOT)) == [DepthResult.SNAPSHOT]
    assert book.is_valid


def test_a_gap_is_seen_whatever_the_shared_number_says() -> None:
    for seq in (0, 50, 51, 52):
        codec, book = MarketCodec(Product.SPOT, SYMBOLS), Book("BTC-USDT")
        feed(codec, book, book_frame(5, seq=50, **SNAPSHOT))
        assert feed(codec, book, book_frame(9, seq=seq)) == [DepthResult.GAP]


def test_what_is_told_twice_or_late_changes_nothing() -> None:
    codec, book = MarketCodec(Product.SPOT, SYMBOLS), Book("BTC-USDT")
    feed(codec, book, book_frame(5, **SNAPSHOT))
    feed(codec, book, book_frame(6, b=[["10", "3"]]))
    assert feed(codec, book, book_frame(6, b=[["10", "7"]])) == []
    assert feed(codec, book, book_frame(5, b=[["10", "8"]])) == []
    assert book.levels(1)[0] == [(10.0, 3.0)]
    assert feed(codec, book, book_frame(7, b=[["10", "4"]])) == [DepthResult.APPLIED]


def test_numbers_that_restart_without_a_snapshot_are_a_gap() -> None:
    codec, book = MarketCodec(Product.SPOT, SYMBOLS), Book("BTC-USDT")
    feed(codec, book, book_frame(500, **SNAPSHOT))
    assert feed(codec, book, book_frame(3, seq=6000)) == [DepthResult.GAP]


def test_a_change_numbered_one_is_the_whole_book_of_a_venue_that_restarted() -> None:
    codec, book = MarketCodec(Product.SPOT, SYMBOLS), Book("BTC-USDT")
    feed(codec, book, book_frame(500, **SNAPSHOT))
    assert feed(codec, book, book_frame(1, b=[["8", "1"]], a=[["9", "1"]])) == [DepthResult.SNAPSHOT]
    assert book.levels(5) == ([(8.0, 1.0)], [(9.0, 1.0)])


def test_the_best_prices_follow_level_one_changes() -> None:
    codec = MarketCodec(Product.SPOT, SYMBOLS)
    top: dict[str, Any] = {"depth": 1, "kind": "snapshot", "b": [["10", "1"]], "a": [["11", "1"]]}
    codec.events(book_frame(5, **top), NOW_NS)
    (moved,) = codec.events(book_frame(6, depth=1, b=[["10", "0"], ["9.5", "4"]]), NOW_NS)
    assert moved == BookTop("BTC-USDT", 9.5, 4.0, 11.0, 1.0, 1_000_000, NOW_NS, 60)
    assert codec.events(book_frame(7, depth=1, a=[["11", "0"]]), NOW_NS) == ()  # one side is empty
    assert codec.events(book_frame(9, depth=1, a=[["12", "1"]]), NOW_NS) == ()  # and one push is missing
    assert codec.lost == ["orderbook.1.BTCUSDT"]


def test_a_repeated_best_is_handed_over_again_as_it_proves_that_the_line_is_alive() -> None:
    codec = MarketCodec(Product.SPOT, SYMBOLS)
    top: dict[str, Any] = {"depth": 1, "kind": "snapshot", "b": [["10", "1"]], "a": [["11", "1"]]}
    assert codec.events(book_frame(5, **top), NOW_NS)
    assert codec.events(book_frame(5, **top), NOW_NS + 1)


def test_a_topic_decodes_whatever_the_order_of_keys() -> None:
    codec = MarketCodec(Product.SPOT, SYMBOLS)
    frame = json.loads(book_frame(5, **SNAPSHOT))
    assert codec.events(json.dumps(dict(reversed(frame.items()))).encode(), NOW_NS)


@pytest.mark.parametrize(
    "frame",
    [
        b"",
        b"not json",
        b"[]",
        b'{"topic":"orderbook.50.BTCUSDT"}',
        b'{"topic":"orderbook.50.BTCUSDT","ts":1,"type":"delta","data":null}',
        b'{"topic":"publicTrade.BTCUSDT","data":[{"T":1,"s":"BTCUSDT","S":"Buy","v":"-1","p":"2","i":"3"}]}',
        b'{"topic":"publicTrade.BTCUSDT","data":[{"T":1,"s":"BTCUSDT","S":"Buy","v":"nan","p":"2","i":"3"}]}',
        b'{"topic":"kline.1.BTCUSDT","data":[]}',
        b'\xff\xfe{"topic":1}',
    ],
)
def test_what_is_no_frame_of_the_venue_is_named_and_not_guessed(frame: bytes) -> None:
    codec = MarketCodec(Product.SPOT, SYMBOLS)
    with pytest.raises(BadFrame) as caught:
        codec.events(frame, NOW_NS)
    assert caught.value.kind


def test_a_frame_of_another_symbol_is_nobodys() -> None:
    codec = MarketCodec(Product.SPOT, SYMBOLS)
    assert codec.events(book_frame(5, **SNAPSHOT).replace(b"BTCUSDT", b"ETHUSDT"), NOW_NS) == ()


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
LEVELS = st.lists(
    st.tuples(st.sampled_from(["8", "9", "10", "11", "nan", "-1", ""]), st.sampled_from(["0", "1", "x"]))
)


@given(
    topic=st.sampled_from(
        ["orderbook.50.BTCUSDT", "orderbook.1.BTCUSDT", "publicTrade.BTCUSDT", "tickers.BTCUSDT", "x"]
    ),
    data=JSON
    | st.fixed_dictionaries(
        {"s": st.just("BTCUSDT"), "b": LEVELS, "a": LEVELS, "u": st.integers(), "seq": st.integers()}
    ),
    kind=st.sampled_from(["snapshot", "delta", "?"]),
)
def test_no_frame_makes_the_decoder_fall_over(topic: str, data: Any, kind: str) -> None:
    frame = json.dumps({"topic": topic, "type": kind, "ts": 1, "data": data}).encode()
    codec = MarketCodec(Product.SPOT, SYMBOLS)
    for _ in range(2):
        try:
            events: Any = codec.events(frame, NOW_NS)
        except BadFrame:
            continue
        assert all(isinstance(event, MarketEvent) for event in events)


@given(st.binary(max_size=200))
def test_no_bytes_make_the_decoder_fall_over(frame: bytes) -> None:
    try:
        assert MarketCodec(Product.SPOT, SYMBOLS).events(frame, NOW_NS) == ()
    except BadFrame as error:
        assert error.kind


@given(
    st.lists(
        st.tuples(st.sampled_from("ba"), st.integers(90, 110), st.integers(0, 3)), min_size=1, max_size=40
    ),
    st.integers(0, 39),
)
def test_a_book_is_the_venues_or_says_that_it_is_not(
    changes: list[tuple[str, int, int]], missing: int
) -> None:
    codec, book = MarketCodec(Product.SPOT, SYMBOLS), Book("BTC-USDT")
    venue: dict[str, dict[Decimal, Decimal]] = {
        "b": {Decimal(50): Decimal(1)},
        "a": {Decimal(200): Decimal(1)},
    }
    feed(codec, book, book_frame(10, kind="snapshot", b=[["50", "1"]], a=[["200", "1"]]))
    for index, (side, tick, size) in enumerate(changes):
        price = Decimal(tick if side == "b" else tick + 40)  # never crossed
        if size:
            venue[side][price] = Decimal(size)
        else:
            venue[side].pop(price, None)
        change: dict[str, Any] = {side: [[str(price), str(size)]]}
        if index != missing:
            feed(codec, book, book_frame(11 + index, **change))
        if book.is_valid and index != missing:
            bids, asks = book.levels(100)
            assert dict(bids) == {float(p): float(s) for p, s in venue["b"].items()}
            assert dict(asks) == {float(p): float(s) for p, s in venue["a"].items()}
