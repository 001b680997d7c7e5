"""Whatever arrives, a decoder returns an event, counts it as bad, or raises what its caller handles."""

import json
import logging
from decimal import Decimal
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from host.api import BookTop, Depth, InstrumentKind, Ticker, Trade
from host.core.books import Book
from plugins.exchanges.binance import answers
from plugins.exchanges.binance.instruments import decode_exchange_info, instruments_of
from plugins.exchanges.binance.market_frames import MarketDecoder, depth_snapshot
from plugins.exchanges.binance.order_entry import decode_api_frame
from plugins.exchanges.binance.user_events import Execution, decode_user_event, reports_of

numbers = st.one_of(
    st.integers(-(2**70), 2**70),
    st.floats(),
    st.sampled_from(["0", "1.5", "-3", "1e400", "NaN", "Infinity", "", "x", "9" * 400]),
)
junk = st.recursive(
    st.one_of(st.none(), st.booleans(), numbers, st.text(max_size=12)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=6), inner, max_size=4)
    ),
    max_leaves=12,
)
kinds = st.sampled_from(["bookTicker", "depth@100ms", "trade", "aggTrade", "ticker", "kline_1m", ""])
SAMPLES: dict[str, dict[str, Any]] = {
    "bookTicker": {"u": 1, "s": "BTCUSDT", "b": "1", "B": "1", "a": "2", "A": "1"},
    "depth@100ms": {"s": "BTCUSDT", "U": 1, "u": 2, "pu": 0, "b": [["1", "2"]], "a": [["3", "0"]], "E": 1},
    "trade": {"s": "BTCUSDT", "p": "1", "q": "1", "m": True, "t": 1, "T": 1},
    "aggTrade": {"s": "BTCUSDT", "p": "1", "q": "1", "m": True, "a": 1, "T": 1},
    "ticker": {"s": "BTCUSDT", "c": "1", "o": "1", "h": "1", "l": "1", "v": "1", "E": 1},
}
EXECUTION: dict[str, Any] = {
    "s": "BTCUSDT", "c": "c1", "S": "BUY", "q": "1", "p": "1", "x": "TRADE", "X": "FILLED", "i": 1, "l": "1",
    "z": "1", "L": "1", "T": 1, "t": 1, "n": "0", "N": "USDT", "m": True, "C": "", "r": "NONE",
}  # fmt: skip


class Watched:
    def __init__(self) -> None:
        self.doubts: list[str | None] = []
        self.decoder = MarketDecoder(
            {"BTCUSDT": "BTC-USDT"},
            lambda answer: None,
            self.doubts.append,
            logging.getLogger("tandem.fuzz"),
            "fuzz",
        )

    def take(self, frame: bytes) -> object:
        before = self.decoder.bad.counts.total()
        event = self.decoder.decode(memoryview(frame), 1)
        assert event is None or isinstance(event, BookTop | Depth | Trade | Ticker)
        if event is not None:
            assert self.decoder.bad.counts.total() == before
            assert event.symbol == "BTC-USDT"
        if isinstance(event, Depth | BookTop):
            book = Book("BTC-USDT")  # the host's own check has the last word on senseless prices
            if isinstance(event, Depth):
                book.apply_depth(depth_snapshot(b'{"lastUpdateId":1,"bids":[],"asks":[]}', "BTC-USDT", 1))
                book.apply_depth(event)
            else:
                book.apply_top(event)
        quoted = self.decoder.quote(memoryview(frame), 1)
        assert quoted is None or quoted.symbol == "BTC-USDT"
        return event


@given(st.binary(max_size=200))
def test_bytes_of_any_kind(frame: bytes) -> None:
    Watched().take(frame)


@given(junk)
def test_json_of_any_shape(value: Any) -> None:
    Watched().take(json.dumps(value).encode())


@given(kinds, st.data())
@settings(max_examples=300)
def test_a_payload_with_one_field_missing_null_or_senseless(kind: str, data: st.DataObject) -> None:
    payload = dict(SAMPLES.get(kind, {"e": "other"}))
    field = data.draw(st.sampled_from(sorted(payload)))
    if data.draw(st.booleans()):
        del payload[field]
    else:
        payload[field] = data.draw(junk)
    frame = json.dumps({"stream": f"btcusdt@{kind}", "data": payload}).encode()
    watched = Watched()
    event = watched.take(frame)
    if event is None and kind == "depth@100ms" and watched.decoder.bad.counts:
        unknown_symbol = "unknown symbol" in watched.decoder.bad.counts
        assert unknown_symbol or "BTC-USDT" in watched.doubts  # its book is fetched anew


@given(kinds, st.integers(0, 200), st.binary(max_size=3))
def test_a_frame_cut_short_or_spoilt(kind: str, at: int, noise: bytes) -> None:
    frame = json.dumps({"stream": f"btcusdt@{kind}", "data": SAMPLES.get(kind, {})}).encode()
    at = min(at, len(frame))
    Watched().take(frame[:at])
    Watched().take(frame[:at] + noise + frame[at + len(noise) :])


@given(kinds, st.booleans())
def test_keys_in_another_order_mean_the_same(kind: str, is_stream_first: bool) -> None:
    payload = SAMPLES.get(kind)
    if payload is None:
        return
    parts = {"stream": f"btcusdt@{kind}", "data": payload}
    keys = list(parts) if is_stream_first else list(reversed(parts))
    watched = Watched()
    event = watched.decoder.decode(json.dumps({key: parts[key] for key in keys}).encode(), 1)
    assert event is not None
    assert not watched.decoder.bad.counts


@given(st.data())
@settings(max_examples=300)
def test_private_events_with_one_field_missing_null_or_senseless(data: st.DataObject) -> None:
    fields = dict(EXECUTION)
    field = data.draw(st.sampled_from(sorted(fields)))
    if data.draw(st.booleans()):
        del fields[field]
    else:
        fields[field] = data.draw(junk)
    for event in ({"e": "executionReport", **fields}, {"e": "ORDER_TRADE_UPDATE", "o": fields}):
        try:
            decoded = decode_user_event(json.dumps(event).encode())
        except (msgspec.MsgspecError, ValueError):
            continue
        assert isinstance(decoded, Execution)
        try:
            reports = reports_of(decoded, {"BTCUSDT": "BTC-USDT"}.get)
        except ValueError:
            continue
        assert len(reports) <= 1
        for report in reports:
            numbers = [value for value in msgspec.structs.astuple(report) if isinstance(value, Decimal)]
            assert all(number.is_finite() for number in numbers)


ORDER: dict[str, Any] = {
    "symbol": "BTCUSDT", "orderId": 1, "clientOrderId": "c1", "price": "1", "origQty": "1", "executedQty": "0",
    "status": "NEW", "side": "BUY", "type": "LIMIT", "time": 1, "updateTime": 1,
}  # fmt: skip
LISTED: dict[str, Any] = {
    "symbol": "BTCUSDT", "status": "TRADING", "baseAsset": "BTC", "quoteAsset": "USDT", "filters": [
        {"filterType": "PRICE_FILTER", "tickSize": "0.01"},
        {"filterType": "LOT_SIZE", "stepSize": "0.01", "minQty": "0.01", "maxQty": "9"},
    ],
}  # fmt: skip


@given(st.data())
def test_an_order_with_one_field_missing_null_or_senseless(data: st.DataObject) -> None:
    fields = dict(ORDER)
    fields[data.draw(st.sampled_from(sorted(fields)))] = data.draw(junk)
    try:
        seen = answers.order_snapshot(answers.decode_order(json.dumps(fields).encode()), "BTC-USDT", 1)
    except (msgspec.MsgspecError, ValueError):
        return
    assert seen.qty.is_finite() and seen.filled.is_finite()
    assert seen.price is None or seen.price.is_finite()


@given(st.sampled_from(["tickSize", "stepSize", "minQty", "maxQty"]), junk)
def test_an_instrument_whose_filters_are_senseless_is_left_out(name: str, value: Any) -> None:
    listed = {
        **LISTED,
        "filters": [{**entry, **({name: value} if name in entry else {})} for entry in LISTED["filters"]],
    }
    try:
        info = decode_exchange_info(json.dumps({"symbols": [listed]}).encode())
    except msgspec.MsgspecError:
        return
    for item in instruments_of(info, InstrumentKind.SPOT, Decimal(0), Decimal(0)).values():
        assert item.tick_size.is_finite() and item.lot_size.is_finite() and item.min_qty.is_finite()
        assert item.tick_size > 0 and item.lot_size > 0


@pytest.mark.parametrize(
    "decode",
    [
        answers.decode_order,
        answers.decode_orders,
        answers.decode_trades,
        answers.decode_account,
        answers.decode_positions,
        answers.decode_error,
        answers.decode_server_time,
        answers.decode_listen_key,
        decode_exchange_info,
        decode_api_frame,
        decode_user_event,
        lambda raw: depth_snapshot(raw, "X", 1),
    ],
)
@given(value=junk)
def test_answers_of_any_shape_are_read_or_refused(decode: Any, value: Any) -> None:
    try:
        decode(json.dumps(value).encode())
    except msgspec.MsgspecError:
        return
