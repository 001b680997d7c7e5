"""What decoding costs an adapter, as a ratio to msgspec's bare typed decode of the same bytes.

Three messages of Binance USDⓈ-M: a bookTicker into a quote, a depth change into the book that it
changes, a private execution into reports. The bare decode and ours are measured in turn.
"""

import argparse
import gzip
import json
import logging
import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
from rich.console import Console
from rich.table import Table

from bench.binance_wire import RECORDED_FRAME
from host.api import Depth
from host.core.books import Book, DepthResult
from plugins.exchanges.binance import market_frames, user_events

SYMBOLS = {"BTCUSDT": "BTC-USDT-PERP", "ETHUSDT": "ETH-USDT-PERP"}
ROUNDS = 40
QUOTES_A_ROUND = 5000
RECORDING = "wire/binance_usdm/sequences/usdm_ethusdt_20240808.txt.gz"
EXECUTION = (
    b'{"e":"ORDER_TRADE_UPDATE","T":1568879465651,"E":1568879465651,"o":{"s":"BTCUSDT","c":"tdt1i1n1","S":"BUY",'
    b'"o":"LIMIT","f":"GTX","q":"0.001","p":"7100.50","ap":"7100.50","sp":"0","x":"TRADE","X":"PARTIALLY_FILLED",'
    b'"i":8886774,"l":"0.001","z":"0.001","L":"7100.50","N":"USDT","n":"0.01000000","T":1568879465651,"t":12345678,'
    b'"b":"0","a":"0","m":true,"R":false,"wt":"CONTRACT_PRICE","ot":"LIMIT","ps":"BOTH","cp":false,"rp":"0"}}'
)


def fixtures() -> Path:
    """Return the folder of venue vectors."""
    return Path(os.environ.get("TANDEM_FIXTURES", Path(__file__).parents[2] / "shared" / "venues"))


def depth_run() -> tuple[Depth, list[bytes]]:
    """Return a recorded book and the depth changes that follow it; made-up ones where there is no recording."""
    file = fixtures() / RECORDING
    if not file.is_file():
        return _made_up_run()
    snapshot, frames = None, []
    for line in gzip.decompress(file.read_bytes()).splitlines():
        raw = line.partition(b" ")[2]
        if b'"lastUpdateId"' in raw[:200]:
            snapshot = market_frames.depth_snapshot(raw, "ETH-USDT-PERP", 0)
        elif b"@depth" in raw[:64]:
            frames.append(raw)
    assert snapshot is not None, f"{file} holds no snapshot"
    return snapshot, frames


def _made_up_run() -> tuple[Depth, list[bytes]]:
    levels = [[f"{2600 + n * 0.01:.2f}", "5.000"] for n in range(500)]
    book = {"lastUpdateId": 1, "bids": levels[:250][::-1], "asks": levels[250:]}
    frames = [
        orjson.dumps(
            {
                "stream": "ethusdt@depth@100ms",
                "data": {
                    "e": "depthUpdate",
                    "E": n,
                    "T": n,
                    "s": "ETHUSDT",
                    "U": n,
                    "u": n,
                    "pu": n - 1,
                    "b": [[f"{2600 + (n * 7 + k) % 250 * 0.01:.2f}", f"{k}.500"] for k in range(20)],
                    "a": [[f"{2602.5 + (n * 5 + k) % 250 * 0.01:.2f}", f"{k}.250"] for k in range(20)],
                },
            }
        )
        for n in range(2, 600)
    ]
    return market_frames.depth_snapshot(orjson.dumps(book), "ETH-USDT-PERP", 0), frames


def timed(work: Callable[[], Any]) -> float:
    """Return the seconds that `work` took."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def compare(
    bare: Callable[[], Any],
    ours: Callable[[], Any],
    count: int,
    rounds: int,
    prepare: Callable[[], Any],
) -> tuple[float, float, float]:
    """Return the medians of bare and ours in µs a message, and of the ratio of each round's pair."""
    pairs = []
    for _ in range(rounds + 1):
        prepare()
        pairs.append((timed(bare), timed(ours)))
    del pairs[0]  # it warmed up
    return (
        statistics.median(pair[0] for pair in pairs) / count * 1e6,
        statistics.median(pair[1] for pair in pairs) / count * 1e6,
        statistics.median(pair[1] / pair[0] for pair in pairs),
    )


def measure(rounds: int) -> dict[str, float]:
    """Return ratios, and the times behind them in µs."""
    decoder = market_frames.MarketDecoder(
        SYMBOLS, lambda answer: None, lambda symbol: None, logging.getLogger("bench"), "bench"
    )
    frame = memoryview(RECORDED_FRAME)
    bare_quote, quote = market_frames._quote, decoder.quote

    def bare_quotes() -> None:
        for _ in range(QUOTES_A_ROUND):
            bare_quote(frame)

    def quotes() -> None:
        for _ in range(QUOTES_A_ROUND):
            quote(frame, 1)

    snapshot, changes = depth_run()
    bare_change = market_frames._changes

    def bare_depth() -> None:
        for raw in changes:
            bare_change(raw)

    books: list[Book] = []

    def depth() -> None:
        book = books.pop()
        for raw in changes:
            change = decoder.decode(raw, 1)
            if isinstance(change, Depth) and book.apply_depth(change) is DepthResult.GAP:
                raise RuntimeError(f"the recorded book has a gap: {book.depth_fault}")

    bare_execution = user_events._ORDER_EVENTS["ORDER_TRADE_UPDATE"]

    def bare_executions() -> None:
        for _ in range(1000):
            bare_execution(EXECUTION)

    def executions() -> None:
        for _ in range(1000):
            event = user_events.decode_user_event(EXECUTION)
            assert isinstance(event, user_events.Execution)
            user_events.reports_of(event, SYMBOLS.get)

    def new_book() -> None:
        books.append(Book("ETH-USDT-PERP"))
        books[0].apply_depth(snapshot)

    def nothing() -> None:
        """There is nothing to prepare."""

    out: dict[str, float] = {}
    for name, bare, ours, count, prepare in (
        ("book_ticker", bare_quotes, quotes, QUOTES_A_ROUND, nothing),
        ("depth", bare_depth, depth, len(changes), new_book),
        ("execution", bare_executions, executions, 1000, nothing),
    ):
        bare_us, ours_us, ratio = compare(bare, ours, count, rounds, prepare)
        out |= {f"{name}_ratio": ratio, f"{name}_us": ours_us, f"{name}_bare_us": bare_us}
    return {name: round(value, 3) for name, value in out.items()}


def main() -> int:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=ROUNDS, help="rounds of each measurement")
    parser.add_argument("--seconds", type=float, help="accepted like by every benchmark; rounds count here")
    parser.add_argument("--json", action="store_true", help="print one object")
    args = parser.parse_args()
    result = measure(args.runs)
    if args.json:
        print(json.dumps(result))
        return 0
    table = Table("message", "bare decode µs", "adapter µs", "ratio", "target")
    for name, target in (("book_ticker", "1.5"), ("depth", "3 (with the book)"), ("execution", "")):
        table.add_row(
            name,
            *(f"{result[f'{name}_{key}']:.2f}" for key in ("bare_us", "us", "ratio")),
            target,
        )
    Console().print(table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
