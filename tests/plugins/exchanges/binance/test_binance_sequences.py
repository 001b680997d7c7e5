"""Recorded runs rebuild the book: after each change its best prices are those of the newest quote."""

import gzip
import logging
from bisect import bisect_right
from pathlib import Path

import orjson
import pytest
from exchange_tools import vector_files

from host.api import BookTop, Depth, Level
from host.core.books import Book, DepthResult
from plugins.exchanges.binance.market_frames import MarketDecoder, depth_snapshot


class Everything(dict[str, str]):
    def __missing__(self, wire: str) -> str:
        return wire


@pytest.mark.parametrize("file", vector_files("wire/binance_*/sequences/*.txt.gz"))
def test_a_recorded_run_rebuilds_its_book(file: Path) -> None:
    """The oracle: best bid and ask, price and size, equal the newest quote that is not ahead of the change."""
    doubts: list[str | None] = []
    decoder = MarketDecoder(
        Everything(), lambda answer: None, doubts.append, logging.getLogger("tandem.test"), "test"
    )
    book = Book("any")
    quotes: list[BookTop] = []
    tops: list[tuple[int, Level, Level]] = []
    snapshots = 0
    for line in gzip.decompress(file.read_bytes()).splitlines():
        received_ns, _, raw = line.partition(b" ")
        message = orjson.loads(raw)
        if "lastUpdateId" in message:
            event = depth_snapshot(raw, "any", int(received_ns))
            snapshots += 1
        else:
            frame = raw if "stream" in message else b'{"stream":"any@%s","data":%s}' % (_kind(message), raw)
            decoded = decoder.decode(frame, int(received_ns))
            if isinstance(decoded, BookTop):
                quotes.append(decoded)
            if not isinstance(decoded, Depth):
                continue
            event = decoded
        result = book.apply_depth(event)
        assert result is not DepthResult.GAP, book.depth_fault
        if result is DepthResult.APPLIED:
            bids, asks = book.levels(1)
            tops.append((book.seq, bids[0], asks[0]))
    # A quote may arrive after the change that it agrees with, so all of them are known first.
    quotes.sort(key=lambda quote: quote.seq)
    ids = [quote.seq for quote in quotes]
    checked = 0
    for seq, bid, ask in tops:
        at = bisect_right(ids, seq)
        if at:
            newest = quotes[at - 1]
            assert (bid, ask) == ((newest.bid, newest.bid_size), (newest.ask, newest.ask_size)), seq
            checked += 1
    assert snapshots == 1 and checked > 0
    assert not doubts
    assert set(decoder.bad.counts) <= {"unknown stream"}  # recordings hold streams that we do not ask for


def _kind(message: dict[str, object]) -> bytes:
    if message.get("e") == "depthUpdate":
        return b"depth"
    return str(message.get("e", "bookTicker")).encode()
