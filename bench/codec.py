"""What decoding costs an adapter, as a ratio to msgspec's bare typed decode of the same bytes.

For each venue: a new best bid and ask into a quote, and a change of a book into the book that it
changes; and a private execution of Binance into reports. The bare decode and ours are measured in turn.
"""

import argparse
import json
import logging
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from decimal import Decimal
from typing import Any, Final

from msgspec import Struct
from rich.console import Console
from rich.table import Table

from bench.binance_wire import RECORDED_FRAME
from bench.codec_messages import BARE, CONTRACT, binance_changes, bybit_messages, okx_messages, tops
from host.api import Depth, Instrument, InstrumentKind, MarketEvent
from host.core.books import Book, DepthResult
from plugins.exchanges.binance import market_frames, user_events
from plugins.exchanges.bybit.market_codec import MarketCodec
from plugins.exchanges.bybit.products import Product
from plugins.exchanges.okx.frames import read_market_frame
from plugins.exchanges.okx.market_codec import market_events
from plugins.exchanges.okx.products import Listing, Listings
from plugins.exchanges.okx.usual_frames import usual_events

SYMBOLS: Final = {"BTCUSDT": "BTC-USDT-PERP", "ETHUSDT": "ETH-USDT-PERP"}
ETH: Final = SYMBOLS["ETHUSDT"]
SWAP: Final = "ETH-USDT-SWAP"
ROUNDS: Final = 40
QUOTES_A_ROUND: Final = 5000
EXECUTIONS_A_ROUND: Final = 1000
EXECUTION: Final = (
    b'{"e":"ORDER_TRADE_UPDATE","T":1568879465651,"E":1568879465651,"o":{"s":"BTCUSDT","c":"tdt1i1n1","S":"BUY",'
    b'"o":"LIMIT","f":"GTX","q":"0.001","p":"7100.50","ap":"7100.50","sp":"0","x":"TRADE","X":"PARTIALLY_FILLED",'
    b'"i":8886774,"l":"0.001","z":"0.001","L":"7100.50","N":"USDT","n":"0.01000000","T":1568879465651,"t":12345678,'
    b'"b":"0","a":"0","m":true,"R":false,"wt":"CONTRACT_PRICE","ot":"LIMIT","ps":"BOTH","cp":false,"rp":"0"}}'
)
TARGETS: Final = {"book_ticker": "1.5", "depth": "3 (with the book)", "execution": ""}

Ours = Callable[[Any, int], object]
"""Takes a message and the time of its receipt."""


class Case(Struct):
    """One measurement: messages, what decodes them barely, and what does with them what an adapter does."""

    name: str
    frames: Sequence[Any]
    bare: Callable[[Any], Any]
    ours: Callable[[], Ours]
    """Makes a fresh one for each round."""


def cases() -> list[Case]:
    """Return all measurements."""
    whole, changes, told = binance_changes()
    best = tops(QUOTES_A_ROUND)
    okx_whole, *okx_changes = _views(okx_messages("books", SWAP, told))
    bybit_top, *bybit_tops = _views(bybit_messages(1, "ETHUSDT", best))
    bybit_whole, *bybit_changes = _views(bybit_messages(50, "ETHUSDT", told))
    snapshot = market_frames.depth_snapshot(whole, ETH, 0)
    listings = okx_listings()
    usual = usual_events(listings.market_names)
    (okx_snapshot,) = market_events(listings, read_market_frame(okx_whole), 0)

    return [
        Case(
            "book_ticker",
            _views([RECORDED_FRAME]) * QUOTES_A_ROUND,
            BARE["book_ticker"],
            lambda: binance().quote,
        ),
        Case("depth", _views(changes), BARE["depth"], lambda: into_book(binance().decode, snapshot)),
        Case("okx_book_ticker", _views(okx_messages("bbo-tbt", SWAP, best)), BARE["okx"], lambda: usual),
        Case("okx_depth", okx_changes, BARE["okx"], lambda: into_book(usual, okx_snapshot)),
        Case("bybit_book_ticker", bybit_tops, BARE["bybit"], lambda: bybit(bybit_top).usual_top),
        Case("bybit_depth", bybit_changes, BARE["bybit"], lambda: into_book_of(bybit(), bybit_whole)),
        Case("execution", [EXECUTION] * EXECUTIONS_A_ROUND, BARE["execution"], lambda: reports),
    ]


def _views(frames: Sequence[bytes]) -> list[memoryview]:
    """Return messages as sockets hand them over."""
    return [memoryview(frame) for frame in frames]


def binance() -> market_frames.MarketDecoder:
    """Return a decoder of Binance's market streams."""
    return market_frames.MarketDecoder(
        SYMBOLS, lambda answer: None, lambda symbol: None, logging.getLogger("bench"), "bench"
    )


def okx_listings() -> Listings:
    """Return a table that lists OKX's ETH swap."""
    terms = Instrument(
        symbol=ETH,
        kind=InstrumentKind.LINEAR,
        base="ETH",
        quote="USDT",
        tick_size=Decimal("0.01"),
        lot_size=CONTRACT,
    )
    listings = Listings()
    listings.replace([Listing("SWAP", SWAP, terms, CONTRACT, None)])
    return listings


def into_book(decode: Callable[[Any, int], MarketEvent | None], snapshot: MarketEvent) -> Ours:
    """Return what decodes changes of a book and applies them to it."""
    book = _book(snapshot)

    def apply(frame: Any, now_ns: int) -> None:
        change = decode(frame, now_ns)
        if type(change) is Depth and book.apply_depth(change) is DepthResult.GAP:
            raise RuntimeError(f"the book has a gap: {book.depth_fault}")

    return apply


def bybit(*frames: memoryview) -> MarketCodec:
    """Return a codec of Bybit that has taken these messages."""
    codec = MarketCodec(Product.LINEAR, SYMBOLS)
    for frame in frames:
        codec.events(frame, 0)
    return codec


def into_book_of(codec: MarketCodec, whole: memoryview) -> Ours:
    """Return what does as Bybit's stream does: the quick way first, which no change of a book goes."""
    (snapshot,) = codec.events(whole, 0)
    book = _book(snapshot)

    def apply(frame: Any, now_ns: int) -> None:
        codec.usual_top(frame, now_ns)
        for event in codec.events(frame, now_ns):
            if book.apply_depth(event) is DepthResult.GAP:  # type: ignore[arg-type]  # there is nothing else
                raise RuntimeError(f"the book has a gap: {book.depth_fault}")

    return apply


def _book(snapshot: MarketEvent) -> Book:
    assert isinstance(snapshot, Depth)
    book = Book(ETH)
    book.apply_depth(snapshot)
    return book


def reports(frame: bytes, _now_ns: int) -> object:
    """Do with a private message of Binance what its adapter does."""
    event = user_events.decode_user_event(frame)
    assert isinstance(event, user_events.Execution)
    return user_events.reports_of(event, SYMBOLS.get)


def compare(case: Case, rounds: int) -> tuple[float, float, float]:
    """Return the medians of bare and ours in µs a message, and of the ratio of each round's pair."""
    pairs = []
    for _ in range(rounds + 1):
        bare, ours, frames = case.bare, case.ours(), case.frames
        now = time.thread_time  # of this thread alone: what else the machine does counts less
        started = now()
        for frame in frames:
            bare(frame)
        between = now()
        for frame in frames:
            ours(frame, 1)
        pairs.append((between - started, now() - between))
    del pairs[0]  # it warmed up
    per_message = 1e6 / len(case.frames)
    return (
        statistics.median(pair[0] for pair in pairs) * per_message,
        statistics.median(pair[1] for pair in pairs) * per_message,
        statistics.median(pair[1] / pair[0] for pair in pairs),
    )


def measure(rounds: int) -> dict[str, float]:
    """Return ratios, and the times behind them in µs."""
    out: dict[str, float] = {}
    for case in cases():
        bare_us, ours_us, ratio = compare(case, rounds)
        out |= {f"{case.name}_ratio": ratio, f"{case.name}_us": ours_us, f"{case.name}_bare_us": bare_us}
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
    for name in [name.removesuffix("_ratio") for name in result if name.endswith("_ratio")]:
        table.add_row(
            name,
            *(f"{result[f'{name}_{key}']:.2f}" for key in ("bare_us", "us", "ratio")),
            TARGETS[name.removeprefix("okx_").removeprefix("bybit_")],
        )
    Console().print(table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
