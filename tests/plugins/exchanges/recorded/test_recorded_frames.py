"""Every quote, trade and change of a book that was recorded arrives through each venue's protocol, without a gap.

`TANDEM_RECORDED_S=1000 pytest -s tests/plugins/exchanges/recorded` plays all of it, and says how much that was.
"""

import asyncio
import logging
import os
import time
from pathlib import Path

import pytest
import uvloop
from exchange_tools import REPO
from recorded_venue import ADAPTERS, SPEED, WINDOWS, Played, play

from host.api import BookTop, Depth, Trade
from host.core.books import Book, DepthResult

SECONDS = float(os.environ.get("TANDEM_RECORDED_S", "5"))
"""How much of a recording is played, at ten times its pace."""
MARKETDATA = Path(os.environ.get("TANDEM_MARKETDATA", REPO.parent / "shared" / "marketdata"))
RECORDINGS = {"spot": "binance_spot_BTCUSDT_20240808-09", "perpetual": "binance_usdm_BTCUSDT_20240808"}
PATIENCE_S = 60.0 + SECONDS
"""However busy the machine is."""
DIGITS = 9
"""Of quantities: contracts times their size are a hair off as floats."""


@pytest.mark.timeout(2 * PATIENCE_S)
@pytest.mark.parametrize("case", ADAPTERS)
def test_a_recording_at_ten_times_its_pace_arrives_whole_and_without_a_gap(
    case: str, caplog: pytest.LogCaptureFixture
) -> None:
    venue, _, market = case.partition(" ")
    folder = MARKETDATA / RECORDINGS[market]
    if not folder.is_dir():
        pytest.skip(f"no recording at {folder}; set TANDEM_MARKETDATA to the folder of recordings")
    started_s = time.monotonic()
    with caplog.at_level(logging.WARNING):
        played = uvloop.run(asyncio.wait_for(play(folder, case, SECONDS), PATIENCE_S))
    assert [record.getMessage() for record in caplog.records] == []
    assert quotes_of(played, "told") == quotes_of(played, "recorded")
    assert trades_of(played, "told") == trades_of(played, "recorded")
    changes = [event for event in played.told if isinstance(event, Depth)]
    if venue not in WINDOWS:
        assert [shape_of(change) for change in changes] == [
            shape_of(event) for event in played.recorded if isinstance(event, Depth)
        ]
    book = Book(played.whole.symbol)
    assert book.apply_depth(played.whole) is DepthResult.SNAPSHOT
    results = [book.apply_depth(change) for change in changes]
    assert set(results) <= {DepthResult.APPLIED, DepthResult.STALE}
    assert results.count(DepthResult.APPLIED) > len(changes) * 0.9
    if venue in WINDOWS:
        levels = len(played.whole.bids)
        bids, asks = book.levels(levels)
        assert rounded(bids) == rounded(played.at_the_end.bids[:levels])
        assert rounded(asks) == rounded(played.at_the_end.asks[:levels])
    print(
        f"\n{case}: {len(quotes_of(played, 'told'))} quotes, {len(trades_of(played, 'told'))} trades, "
        f"{len(changes)} changes of the book, 0 gaps; {SECONDS:g} s at most at {SPEED:g} times their pace "
        f"in {time.monotonic() - started_s:.1f} s"
    )


def quotes_of(played: Played, which: str) -> list[tuple[float, ...]]:
    return [
        (event.bid, round(event.bid_size, DIGITS), event.ask, round(event.ask_size, DIGITS))
        for event in getattr(played, which)
        if isinstance(event, BookTop)
    ]


def trades_of(played: Played, which: str) -> list[tuple[float, float, bool]]:
    return [
        (event.price, round(event.qty, DIGITS), event.taker_is_buyer)
        for event in getattr(played, which)
        if isinstance(event, Trade)
    ]


def shape_of(change: Depth) -> tuple[int, int, dict[float, float], dict[float, float]]:
    return change.first_seq, change.seq, dict(change.bids), dict(change.asks)


def rounded(levels: object) -> list[tuple[float, float]]:
    assert isinstance(levels, list | tuple)
    return [(price, round(size, DIGITS)) for price, size in levels]
