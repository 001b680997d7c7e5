"""The same market in the words of three venues, and msgspec's bare decode of them, for benchmarks of decoding.

Binance's changes of a book are recorded; OKX and Bybit say the same changes as they write them. The
bare decode is what anybody would write first: one typed structure for a message, numbers as numbers.
"""

import gzip
import os
from collections.abc import Callable, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

import msgspec
import orjson
from msgspec import Struct

__all__ = ["BARE", "CONTRACT", "Change", "binance_changes", "bybit_messages", "okx_messages", "tops"]

RECORDING: Final = "wire/binance_usdm/sequences/usdm_ethusdt_20240808.txt.gz"
CONTRACT: Final = Decimal("0.1")
"""What one contract of OKX's ETH-USDT-SWAP is worth."""
MADE_UP_CHANGES: Final = 600

Row = tuple[str, str]
"""Price and size as a venue writes them."""


class Change(Struct, gc=False):
    """A change of a book, or (the first of a run) a whole one."""

    seq: int
    prev: int
    ts: int
    bids: Sequence[Row]
    asks: Sequence[Row]


# -- what the recording says ---------------------------------------------------------------------


class _Text(Struct):
    u: int = 0
    pu: int = 0
    T: int = 0
    b: tuple[Row, ...] = ()
    a: tuple[Row, ...] = ()
    lastUpdateId: int = 0  # noqa: N815 - the venue's name
    bids: tuple[Row, ...] = ()
    asks: tuple[Row, ...] = ()


class _TextFrame(Struct):
    data: _Text


def fixtures() -> Path:
    """Return the folder of venue vectors."""
    return Path(os.environ.get("TANDEM_FIXTURES", Path(__file__).parents[2] / "shared" / "venues"))


def binance_changes() -> tuple[bytes, list[bytes], list[Change]]:
    """Return Binance's own book and changes as they came, and the same told in order, the book first.

    Made-up ones where there is no recording.
    """
    file = fixtures() / RECORDING
    book, frames = _recorded(file) if file.is_file() else _made_up()
    whole = msgspec.json.decode(book, type=_Text)
    told = [Change(whole.lastUpdateId, -1, whole.T, whole.bids, whole.asks)]
    for frame in frames:
        change = msgspec.json.decode(frame, type=_TextFrame).data
        if change.u >= whole.lastUpdateId:
            told.append(Change(change.u, told[-1].seq, change.T, change.b, change.a))
    return book, frames, told


def _recorded(file: Path) -> tuple[bytes, list[bytes]]:
    lines = [line.partition(b" ")[2] for line in gzip.decompress(file.read_bytes()).splitlines()]
    (book,) = [line for line in lines if b'"lastUpdateId"' in line[:200]]
    return book, [line for line in lines if b"@depth" in line[:64]]


def _made_up() -> tuple[bytes, list[bytes]]:
    levels = [[f"{2600 + n * 0.01:.2f}", "5.000"] for n in range(500)]
    book = orjson.dumps({"lastUpdateId": 1, "bids": levels[:250][::-1], "asks": levels[250:]})
    frames = []
    for n in range(2, MADE_UP_CHANGES):
        bids = [[f"{2600 + (n * 7 + k) % 250 * 0.01:.2f}", f"{k}.500"] for k in range(20)]
        asks = [[f"{2602.5 + (n * 5 + k) % 250 * 0.01:.2f}", f"{k}.250"] for k in range(20)]
        data = {"e": "depthUpdate", "E": n, "T": n, "s": "ETHUSDT", "U": n, "u": n, "pu": n - 1}
        frames.append(orjson.dumps({"stream": "ethusdt@depth@100ms", "data": data | {"b": bids, "a": asks}}))
    return book, frames


def tops(count: int) -> list[Change]:
    """Return so many best bids and asks, each of them new, as changes of a book of one level."""
    out = []
    for seq in range(1, count + 1):
        bid = 61800.2 + abs(seq * 7 % 60 - 30) * 0.7
        sizes = f"{1 + seq % 9}.203", f"{2 + seq % 7}.008"
        out.append(
            Change(seq, seq - 1, 1_723_161_256_000 + seq, [(f"{bid:.1f}", sizes[0])], [(f"{bid + 0.1:.1f}", sizes[1])])
        )  # fmt: skip
    return out


# -- what the others make of it ------------------------------------------------------------------


def okx_messages(channel: str, inst_id: str, changes: Sequence[Change]) -> list[bytes]:
    """Return the pushes of a channel; sizes are in contracts of `CONTRACT`."""

    def rows(levels: Sequence[Row]) -> list[list[str]]:
        return [
            [price, f"{Decimal(size) / CONTRACT:f}", "0", "1" if float(size) else "0"]
            for price, size in levels
        ]

    frames = []
    for change in changes:
        row: dict[str, Any] = {"asks": rows(change.asks), "bids": rows(change.bids), "ts": str(change.ts)}
        push: dict[str, Any] = {"arg": {"channel": channel, "instId": inst_id}}
        if channel == "books":
            push["action"] = "snapshot" if change.prev < 0 else "update"
            row |= {"checksum": 0, "prevSeqId": change.prev}
        frames.append(orjson.dumps(push | {"data": [row | {"seqId": change.seq}]}))
    return frames


def bybit_messages(depth: int, symbol: str, changes: Sequence[Change]) -> list[bytes]:
    """Return the pushes of the topic of a book of so many levels; `u` rises by one, as it must."""
    return [
        orjson.dumps(
            {
                "topic": f"orderbook.{depth}.{symbol}",
                "ts": change.ts + 2,
                "type": "snapshot" if number == 0 else "delta",
                "data": {
                    "s": symbol,
                    "b": change.bids,
                    "a": change.asks,
                    "u": 77 + number,
                    "seq": change.seq,
                },
                "cts": change.ts,
            }
        )
        for number, change in enumerate(changes)
    ]


# -- the bare decode -----------------------------------------------------------------------------


class _BinanceQuote(Struct, gc=False):
    u: int
    s: str
    b: float
    B: float
    a: float
    A: float
    T: int


class _BinanceQuoteFrame(Struct, gc=False):
    data: _BinanceQuote


class _BinanceChange(Struct):
    T: int
    s: str
    U: int
    u: int
    pu: int
    b: tuple[tuple[float, float], ...]
    a: tuple[tuple[float, float], ...]


class _BinanceChangeFrame(Struct):
    data: _BinanceChange


class _BinanceExecution(Struct):
    s: str
    c: str
    S: str
    q: Decimal
    p: Decimal
    x: str
    X: str
    i: int
    l: Decimal  # noqa: E741 - the venue's name
    z: Decimal
    L: Decimal
    N: str
    n: Decimal
    T: int
    t: int
    m: bool


class _BinanceExecutionFrame(Struct):
    e: str
    o: _BinanceExecution


class _OkxArg(Struct, gc=False):
    channel: str
    instId: str  # noqa: N815 - the venue's name


class _OkxLevel(Struct, array_like=True, gc=False):
    price: float
    size: float


class _OkxRow(Struct):
    asks: tuple[_OkxLevel, ...]
    bids: tuple[_OkxLevel, ...]
    ts: int
    seqId: int  # noqa: N815
    prevSeqId: int = -1  # noqa: N815


class _OkxFrame(Struct):
    arg: _OkxArg
    data: tuple[_OkxRow, ...]
    action: str = ""


class _BybitBook(Struct):
    s: str
    b: tuple[tuple[float, float], ...]
    a: tuple[tuple[float, float], ...]
    u: int
    seq: int


class _BybitFrame(Struct):
    topic: str
    type: str
    ts: int
    data: _BybitBook
    cts: int


def _decoder(of: type[Struct]) -> Callable[[Any], Any]:
    return msgspec.json.Decoder(of, strict=False).decode


BARE: Final[dict[str, Callable[[Any], Any]]] = {
    "book_ticker": _decoder(_BinanceQuoteFrame),
    "depth": _decoder(_BinanceChangeFrame),
    "execution": _decoder(_BinanceExecutionFrame),
    "okx": _decoder(_OkxFrame),
    "bybit": _decoder(_BybitFrame),
}
"""Bytes into one typed structure."""
