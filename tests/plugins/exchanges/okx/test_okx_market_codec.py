"""Public messages: each recorded one decodes to the right event, and a book is never silently wrong."""

import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from exchange_tools import vector_files, vectors
from hypothesis import given
from hypothesis import strategies as st
from okx_tools import filled_in, frame_of, listing, listings

from host.api import BookTop, Depth, MarketEvent, Ticker, Trade
from host.core.books import Book, DepthResult
from plugins.exchanges.okx.checksum import BookTexts, read_texts
from plugins.exchanges.okx.frames import BadFrame, read_market_frame
from plugins.exchanges.okx.market_codec import market_events

NOW_NS = 1_700_000_000_000_000_000
MS = 1_000_000


def push(vector: dict[str, Any]) -> dict[str, Any]:
    message: dict[str, Any] = filled_in(vector["message"])
    if "arg" not in message or "data" not in message:
        pytest.skip("not a push")
    return message


def events(message: dict[str, Any]) -> list[MarketEvent]:
    table = listings(message["arg"]["instId"])
    return list(market_events(table, read_market_frame(frame_of(message)), NOW_NS))


def unit(inst_id: str) -> float:
    return float(listing(inst_id).unit)


def levels(rows: list[list[str]], per: float) -> tuple[tuple[float, float], ...]:
    return tuple((float(row[0]), float(row[1]) * per) for row in rows)


@pytest.mark.parametrize("vector", vectors("wire/okx/bbo_tbt.json"))
def test_each_recorded_top_decodes_to_its_prices_and_sizes(vector: dict[str, Any]) -> None:
    message = push(vector)
    (row,), inst_id = message["data"], message["arg"]["instId"]
    (bid,), (ask,) = levels(row["bids"], unit(inst_id)), levels(row["asks"], unit(inst_id))
    (event,) = events(message)
    assert event == BookTop(listing(inst_id).symbol, *bid, *ask, int(row["ts"]) * MS, NOW_NS)


@pytest.mark.parametrize("vector", vectors("wire/okx/books.json"))
def test_each_recorded_book_decodes_to_its_levels_or_is_refused_without_its_place(
    vector: dict[str, Any],
) -> None:
    message = push(vector)
    (row,), inst_id = message["data"], message["arg"]["instId"]
    if "seqId" not in row:  # a capture of before the venue numbered its books
        with pytest.raises(BadFrame, match="seqId"):
            events(message)
        row |= {"seqId": 8, "prevSeqId": 7}
    (event,) = events(message)
    assert isinstance(event, Depth)
    assert event.is_snapshot == (message.get("action") != "update")
    assert event.bids == levels(row["bids"], unit(inst_id))
    assert event.asks == levels(row["asks"], unit(inst_id))
    assert (event.seq, event.ts_event) == (row["seqId"], int(row["ts"]) * MS)
    assert event.is_snapshot or event.prev_seq == row["prevSeqId"]


@pytest.mark.parametrize("vector", vectors("wire/okx/trades.json"))
def test_each_recorded_trade_decodes_to_its_price_size_and_taker(vector: dict[str, Any]) -> None:
    message = push(vector)
    inst_id = message["arg"]["instId"]
    wanted = [
        Trade(
            listing(inst_id).symbol,
            float(row["px"]),
            float(row["sz"]) * unit(inst_id),
            row["side"] == "buy",
            int(row["tradeId"]),
            int(row["ts"]) * MS,
            NOW_NS,
        )
        for row in message["data"]
    ]
    assert events(message) == wanted


@pytest.mark.parametrize("vector", vectors("wire/okx/tickers.json"))
def test_each_recorded_ticker_counts_its_volume_in_base_currency(vector: dict[str, Any]) -> None:
    message = push(vector)
    (row,), inst_id = message["data"], message["arg"]["instId"]
    (event,) = events(message)
    assert isinstance(event, Ticker)
    is_spot = inst_id.count("-") == 1
    assert event.volume == float(row["vol24h" if is_spot else "volCcy24h"])
    assert event.last == float(row["last"])


@pytest.mark.parametrize(
    "vector", [case for name in ("funding_rate", "mark_price") for case in vectors(f"wire/okx/{name}.json")]
)
def test_channels_that_are_not_read_say_nothing(vector: dict[str, Any]) -> None:
    assert events(push(vector)) == []


def recorded(file: Path) -> Iterator[dict[str, Any]]:
    with gzip.open(file, "rt") as lines:
        for line in lines:
            yield json.loads(line.partition(" ")[2])


@pytest.mark.parametrize("file", vector_files("wire/okx/sequences/*.txt.gz"))
def test_a_recorded_sequence_rebuilds_the_book_that_its_checksums_prove(file: Path) -> None:
    books, texts, checked, seq = Book("BTC-USDT"), BookTexts(), 0, 0
    for message in recorded(file):
        if message.get("arg", {}).get("channel") != "books" or "data" not in message:
            continue
        assert texts.apply(read_texts(json.dumps(message).encode()))
        # Recorded before the venue numbered its books: they are numbered here as it does now.
        for row in message["data"]:
            prev, seq = seq, seq + 3
            row.setdefault("prevSeqId", -1 if message["action"] == "snapshot" else prev)
            row.setdefault("seqId", seq)
        for event in events(message):
            assert isinstance(event, Depth)
            assert books.apply_depth(event) in (DepthResult.SNAPSHOT, DepthResult.APPLIED)
            checked += 1
        bids, asks = books.levels(25)
        assert bids == texts_of(texts, "_bids", reverse=True)
        assert asks == texts_of(texts, "_asks", reverse=False)
    assert checked > 50


def texts_of(texts: BookTexts, side: str, *, reverse: bool) -> list[tuple[float, float]]:
    levels_ = getattr(texts, side)
    return [(float(levels_[at][0]), float(levels_[at][1])) for at in sorted(levels_, reverse=reverse)[:25]]


def book_push(action: str, prev: int, seq: int, **sides: list[list[str]]) -> dict[str, Any]:
    row = {"asks": [], "bids": [], "ts": "1", "checksum": 0, "prevSeqId": prev, "seqId": seq} | sides
    return {"arg": {"channel": "books", "instId": "BTC-USDT"}, "action": action, "data": [row]}


SNAPSHOT = book_push("snapshot", -1, 100, bids=[["10", "1", "0", "1"]], asks=[["11", "1", "0", "1"]])


def apply(book: Book, message: dict[str, Any]) -> DepthResult:
    (event,) = events(message)
    assert isinstance(event, Depth)
    return book.apply_depth(event)


def test_a_missing_change_is_a_gap_and_an_idle_one_is_not() -> None:
    book = Book("BTC-USDT")
    apply(book, SNAPSHOT)
    assert apply(book, book_push("update", 100, 100)) is DepthResult.APPLIED
    assert apply(book, book_push("update", 100, 140)) is DepthResult.APPLIED
    assert apply(book, book_push("update", 141, 150)) is DepthResult.GAP


def test_a_sequence_that_begins_anew_at_a_lower_number_goes_on_as_it_chains() -> None:
    book = Book("BTC-USDT")
    apply(book, SNAPSHOT)
    assert apply(book, book_push("update", 100, 3, bids=[["10.5", "2", "0", "1"]])) is DepthResult.APPLIED
    assert apply(book, book_push("update", 3, 7)) is DepthResult.APPLIED
    assert book.top is not None and book.top.bid == 10.5


def test_a_wrong_checksum_is_noticed_and_a_zero_says_nothing() -> None:
    texts = BookTexts()
    assert texts.apply(read_texts(frame_of(SNAPSHOT)))
    wrong = book_push("update", 100, 101)
    wrong["data"][0]["checksum"] = texts.checksum() + 1
    assert not texts.apply(read_texts(frame_of(wrong)))


def test_a_top_without_a_side_makes_the_host_distrust_it() -> None:
    book = Book("BTC-USDT")
    row = {"bids": [["10", "1", "0", "1"]], "asks": [], "ts": "1"}
    (event,) = events({"arg": {"channel": "bbo-tbt", "instId": "BTC-USDT"}, "data": [row]})
    assert isinstance(event, BookTop)
    assert not book.apply_top(event) and book.top_fault


@pytest.mark.parametrize(
    ("channel", "row"),
    [
        ("bbo-tbt", {"bids": [["1", "1"]], "ts": "1"}),
        ("bbo-tbt", {"bids": None, "asks": [["1", "1"]], "ts": "1"}),
        ("books", {"bids": [], "ts": "1", "seqId": 1}),
        ("books", {"bids": [["1"]], "asks": [], "ts": "1", "seqId": 1}),
        ("trades", {"px": "0", "sz": "1", "side": "buy", "tradeId": "1", "ts": "1"}),
        ("trades", {"px": "nan", "sz": "1", "side": "buy", "tradeId": "1", "ts": "1"}),
        ("trades", {"px": "1", "sz": "1", "side": "neither", "tradeId": "1", "ts": "1"}),
        ("trades", {"px": "1", "sz": "1", "side": "buy", "ts": "1"}),
        ("tickers", {"last": "1", "ts": "1"}),
        ("trades", "text"),
        ("trades", None),
    ],
)
def test_a_row_that_lacks_something_is_refused(channel: str, row: object) -> None:
    with pytest.raises(BadFrame):
        events({"arg": {"channel": channel, "instId": "BTC-USDT"}, "data": [row]})


def test_what_is_not_listed_says_nothing() -> None:
    frame = read_market_frame(frame_of(SNAPSHOT))
    assert list(market_events(listings("ETH-USDT"), frame, NOW_NS)) == []


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: (
        st.lists(inner) | st.dictionaries(st.sampled_from(["asks", "bids", "px", "sz", "x"]), inner)
    ),
    max_leaves=10,
)


@given(st.binary() | JSON.map(lambda value: json.dumps(value).encode()))
def test_anything_else_is_refused_and_never_raises_another_error(frame: bytes) -> None:
    try:
        list(market_events(listings("BTC-USDT"), read_market_frame(frame), NOW_NS))
    except BadFrame:
        return


@given(
    st.sampled_from(["bbo-tbt", "books", "trades", "tickers"]),
    st.sampled_from(["", "snapshot", "update"]),
    st.dictionaries(
        st.sampled_from(sorted({"asks", "bids", "ts", "seqId", "prevSeqId", "px", "sz", "side"})), JSON
    ),
)
def test_a_row_of_anything_is_read_or_refused(channel: str, action: str, row: dict[str, object]) -> None:
    message = {"arg": {"channel": channel, "instId": "BTC-USDT"}, "action": action, "data": [row]}
    try:
        events(message)
    except BadFrame:
        return
