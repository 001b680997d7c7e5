"""Write small recordings, script markets, and find the real recordings."""

import gzip
import json
import os
from collections.abc import Iterator, Sequence
from decimal import Decimal
from pathlib import Path

import pytest

from host.api import (
    BookTop,
    Depth,
    Instrument,
    InstrumentKind,
    Level,
    MarketEvent,
    OrderType,
    Side,
    TimeInForce,
    Trade,
)
from venue.market import VenueOrder
from venue.recording import Recording

HEADERS = {
    "trades": "seq,ts_exchange_ns,ts_recv_ns,symbol,price,qty,side,trade_id,kind",
    "quotes": "seq,ts_exchange_ns,ts_recv_ns,symbol,bid_px,bid_qty,ask_px,ask_qty,update_id",
    "depth": (
        "seq,ts_exchange_ns,ts_recv_ns,symbol,is_snapshot,first_update_id,last_update_id,"
        "prev_update_id,side,price,qty"
    ),
}
INSTRUMENTS = {
    "binance_spot:XYZUSDT": {
        "type": "spot",
        "base": "XYZ",
        "quote": "USDT",
        "price_tick": "0.1",
        "qty_step": "0.01",
    }
}
INSTRUMENT = Instrument(
    symbol="XYZ-USDT",
    kind=InstrumentKind.SPOT,
    base="XYZ",
    quote="USDT",
    tick_size=Decimal("0.1"),
    lot_size=Decimal("0.01"),
)

TRADES = ["4,3000,5000,XYZUSDT,100.1,0.5,buy,900,MARKET", "7,6000,8000,XYZUSDT,100,2,sell,901,MARKET"]
QUOTES = ["1,,1500,XYZUSDT,100,3,100.1,4,12", "5,,6000,XYZUSDT,100,3,100.2,1,15"]
DEPTH = [
    "0,900,1000,XYZUSDT,0,8,10,,bid,99.9,7",
    "2,1900,2000,XYZUSDT,0,11,13,,ask,100.1,4",
    "3,,2500,XYZUSDT,1,12,12,,bid,100,3",
    "3,,2500,XYZUSDT,1,12,12,,bid,99.9,7",
    "3,,2500,XYZUSDT,1,12,12,,ask,100.1,5",
    "6,6900,7000,XYZUSDT,0,14,15,,ask,100.1,0",
    "6,6900,7000,XYZUSDT,0,14,15,,ask,100.2,1",
]


def write_csv(folder: Path, name: str, lines: Sequence[str], *, header: str | None = None) -> None:
    text = "\n".join([HEADERS[name] if header is None else header, *lines]) + "\n"
    (folder / f"{name}.csv.gz").write_bytes(gzip.compress(text.encode()))


def write_recording(
    parent: Path,
    trades: Sequence[str] = TRADES,
    quotes: Sequence[str] = QUOTES,
    depth: Sequence[str] = DEPTH,
) -> Path:
    folder = parent / "binance_spot_XYZUSDT_20240101"
    folder.mkdir()
    (parent / "instruments.json").write_text(json.dumps(INSTRUMENTS))
    write_csv(folder, "trades", trades)
    write_csv(folder, "quotes", quotes)
    write_csv(folder, "depth", depth)
    return folder


def recorded_folder(name: str) -> Path:
    """Return a folder of real recordings; skip the test where there is none."""
    default = Path(__file__).parents[3] / "shared" / "marketdata"
    folder = Path(os.environ.get("TANDEM_MARKETDATA", default)) / name
    if not folder.is_dir():
        pytest.skip(f"no recording at {folder}; set TANDEM_MARKETDATA to the folder of recordings")
    return folder


class Script(Recording, frozen=True, dict=True):
    """A recording whose events are given in the test."""

    script: tuple[MarketEvent, ...] = ()

    def events(self) -> Iterator[MarketEvent]:
        return iter(self.script)


def script(*events: MarketEvent) -> Script:
    return Script(Path("script"), INSTRUMENT, 1, events)


def top(
    ns: int, bid: float, bid_size: float, ask: float, ask_size: float, seq: int = 0, event: int = 0
) -> BookTop:
    return BookTop("XYZ-USDT", bid, bid_size, ask, ask_size, event, ns, seq)


def trade(ns: int, price: float, qty: float, taker: Side, event: int = 0) -> Trade:
    return Trade("XYZ-USDT", price, qty, taker is Side.BUY, 1, event, ns)


def depth(
    ns: int, bids: Sequence[Level], asks: Sequence[Level], seq: int, *, is_snapshot: bool = False
) -> Depth:
    return Depth("XYZ-USDT", tuple(bids), tuple(asks), is_snapshot, seq, seq, ts_recv=ns)


def order(
    number: int,
    side: Side,
    price: str | None,
    qty: str,
    time_in_force: TimeInForce = TimeInForce.GTC,
    *,
    post_only: bool = False,
    owner: str = "ours",
) -> VenueOrder:
    kind = OrderType.MARKET if price is None else OrderType.LIMIT
    limit = None if price is None else Decimal(price)
    return VenueOrder(
        number, owner, f"c{number}", "XYZ-USDT", side, kind, time_in_force, limit, Decimal(qty), post_only
    )
