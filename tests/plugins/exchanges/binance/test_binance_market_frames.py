"""The quick ways of Binance's decoder say what the thorough one says."""

import json
import logging
from typing import Any

import pytest

from host.api import BookTop, Depth, MarketEvent, Trade
from plugins.exchanges.binance.market_frames import MarketDecoder

NOW_NS = 1_700_000_000_000_000_000
FILLING = "x" * 400
"""In a field that nobody reads, it makes any message a long one."""
QUOTE = {
    "e": "bookTicker",
    "u": 7,
    "s": "BTCUSDT",
    "b": "1.5",
    "B": "2",
    "a": "1.6",
    "A": "3",
    "T": 4,
    "E": 5,
}
CHANGE = {"e": "depthUpdate", "E": 5, "s": "BTCUSDT", "U": 8, "u": 9, "b": [["1", "2"]], "a": [["3", "0"]]}
TRADE = {"e": "trade", "s": "BTCUSDT", "p": "1.5", "q": "2", "m": True, "t": 11, "T": 4}


class Counting(MarketDecoder):
    """Counts what was decoded the thorough way."""

    thorough = 0

    def decode(self, frame: memoryview | bytes, now_ns: int) -> MarketEvent | None:
        self.thorough += 1
        return super().decode(frame, now_ns)


class Decoding:
    def __init__(self, *wires: str) -> None:
        self.symbols = {wire: f"{wire[:3]}-USDT" for wire in wires}
        self.doubts: list[str | None] = []
        self.decoder = Counting(
            self.symbols, lambda answer: None, self.doubts.append, logging.getLogger("tandem.test"), "test"
        )

    def follow(self, wire: str) -> None:
        self.symbols[wire] = f"{wire[:3]}-USDT"


def frame_of(stream: str, data: dict[str, Any], **more: Any) -> memoryview:
    return memoryview(json.dumps({"stream": stream, "data": data | more}, separators=(",", ":")).encode())


@pytest.mark.parametrize("first", [(), ("BTCUSDT",)])
def test_a_symbol_that_is_followed_later_is_understood_from_its_first_quote(first: tuple[str, ...]) -> None:
    at = Decoding(*first)
    for number, wire in enumerate(("ETHUSDT", "XRPUSDT"), start=1):
        at.follow(wire)
        for _ in range(3):
            event = at.decoder.quote(frame_of("x@bookTicker", QUOTE, s=wire), NOW_NS)
            assert event == BookTop(f"{wire[:3]}-USDT", 1.5, 2.0, 1.6, 3.0, 4_000_000, NOW_NS, 7)
        assert at.decoder.thorough == number, "the first quote alone had to be looked at closely"
    assert not at.decoder.bad.counts


@pytest.mark.parametrize("wire", ["", "ETHUSDT"])
def test_a_quote_of_a_symbol_that_is_not_followed_is_counted_and_nobodys(wire: str) -> None:
    at = Decoding("BTCUSDT")
    assert at.decoder.quote(frame_of("x@bookTicker", QUOTE, s=wire), NOW_NS) is None
    assert at.decoder.bad.counts == {"unknown symbol": 1}


def test_a_long_message_is_what_a_short_one_is() -> None:
    at = Decoding("BTCUSDT")
    for stream, data, kind in (
        ("btcusdt@depth@100ms", CHANGE, Depth),
        ("btcusdt@bookTicker", QUOTE, BookTop),
        ("btcusdt@trade", TRADE, Trade),
    ):
        event = at.decoder.decode(frame_of(stream, data), NOW_NS)
        assert type(event) is kind
        at.decoder._last_trade.clear()  # or the second is the same trade told twice
        assert at.decoder.decode(frame_of(stream, data, filling=FILLING), NOW_NS) == event


def test_a_long_change_that_cannot_be_read_leaves_its_book_in_doubt_once() -> None:
    at = Decoding("BTCUSDT")
    frame = frame_of("btcusdt@depth@100ms", CHANGE, b=[["1", "x"]], filling=FILLING)
    assert at.decoder.decode(frame, NOW_NS) is None
    assert at.doubts == ["BTC-USDT"]
    assert at.decoder.bad.counts == {"ValidationError": 1}
