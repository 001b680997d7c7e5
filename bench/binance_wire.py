"""Binance USDⓈ-M's wire format for one quote stream and order entry, as benchmarks need it.

Decoding and signing are what the venue demands of every client, so they are the floor that the rest
of a node is measured against. It connects to nothing.
"""

import hmac
import time
from collections.abc import Sequence
from decimal import Decimal
from typing import Any, Final

import msgspec
import orjson

from host.api import (
    AmendOrder,
    BookTop,
    CancelOrder,
    Command,
    ExchangeAdapter,
    Instrument,
    InstrumentKind,
    PlaceOrder,
    Side,
)

RECORDED_FRAME: Final = (
    b'{"stream":"btcusdt@bookTicker","data":{"e":"bookTicker","u":5123107837620,"s":"BTCUSDT",'
    b'"b":"61800.20","B":"2.507","a":"61800.30","A":"3.330","T":1723161256301,"E":1723161256302}}'
)
"""A bookTicker as received on 2024-08-08 (public recording of nkaz001/hftbacktest, MIT)."""

_KEY: Final = "vmPUZE6mv9SD5VNHk4HlWFsOr6aKE2zvsw0MuIgwCIPy6utIco14y7Ju91duEh8A"
_SECRET: Final = b"NhqPtmdSJYdKjVHjA7PZj4Mge3R5YNiP1e3UZjInClVN65XAbvqqM6A7H5fATj0j"
"""The example key pair of Binance's own documentation."""


class _Data(msgspec.Struct, gc=False):
    s: str
    u: int
    b: float
    B: float
    a: float
    A: float
    T: int


class _Frame(msgspec.Struct, gc=False):
    data: _Data


_decode_frame = msgspec.json.Decoder(_Frame, strict=False).decode
_mac = hmac.new(_SECRET, digestmod="sha256")


def decode(frame: bytes, symbol: str, now_ns: int) -> BookTop:
    """Return the quote that a bookTicker frame holds."""
    data = _decode_frame(frame).data
    return BookTop(symbol, data.b, data.B, data.a, data.A, data.T * 1_000_000, now_ns, data.u)


def encode(
    command: PlaceOrder | AmendOrder | CancelOrder, wire_symbol: str, window_ms: int, now_ms: int
) -> bytes:
    """Return the signed WebSocket API request of a command.

    Signed are the parameters in name order, `k=v` joined by `&`; so they are written in that order.
    """
    params: dict[str, str | int] = {"apiKey": _KEY}
    if isinstance(command, AmendOrder):
        method = "order.modify"
        params["origClientOrderId"] = command.client_id
        params["price"] = f"{command.price:f}"
        params["quantity"] = f"{command.qty:f}"
        params["recvWindow"] = window_ms
        params["side"] = "BUY" if command.side is Side.BUY else "SELL"
        params["symbol"] = wire_symbol
        params["timestamp"] = now_ms
    elif isinstance(command, PlaceOrder):
        method = "order.place"
        params["newClientOrderId"] = command.client_id
        params["price"] = f"{command.price:f}"
        params["quantity"] = f"{command.qty:f}"
        params["recvWindow"] = window_ms
        params["side"] = "BUY" if command.side is Side.BUY else "SELL"
        params["symbol"] = wire_symbol
        params["timeInForce"] = "GTX"
        params["timestamp"] = now_ms
        params["type"] = "LIMIT"
    else:
        method = "order.cancel"
        params["origClientOrderId"] = command.client_id
        params["recvWindow"] = window_ms
        params["symbol"] = wire_symbol
        params["timestamp"] = now_ms
    mac = _mac.copy()
    mac.update("&".join([f"{name}={value}" for name, value in params.items()]).encode())
    params["signature"] = mac.hexdigest()
    return orjson.dumps({"id": command.client_id, "method": method, "params": params})


class BenchAdapter(ExchangeAdapter[Any]):
    """Decodes frames and keeps the signed bytes that a socket would have been given."""

    def __init__(self, symbols: Sequence[str]) -> None:
        self.instruments = [bench_instrument(symbol) for symbol in symbols]
        self.sent: list[tuple[Command, bytes]] = []
        """What went out, to be answered."""
        self.sent_at_ns = 0
        """Reading of the performance counter when the latest bytes were ready for the socket."""

    async def connect(self) -> Sequence[Instrument]:
        """Return the instruments."""
        return self.instruments

    async def subscribe(self, symbols: Sequence[str]) -> None:
        """Nothing to start: the benchmark hands over frames itself."""

    def on_frame(self, frame: bytes, symbol: str) -> None:
        """Take one frame as a socket's callback would."""
        ctx = self.ctx
        market = ctx.market
        now_ns = ctx.now_ns
        market(decode(frame, symbol, now_ns()))

    def send(self, command: Command, deadline_ns: int) -> None:
        """Encode and sign; the bytes are kept instead of sent."""
        kind = type(command)
        if kind is AmendOrder or kind is PlaceOrder or kind is CancelOrder:
            now_ns = time.time_ns()  # the venue's clock is the wall's
            window_ms = (deadline_ns - now_ns) // 1_000_000
            wire = encode(command, "BTCUSDT", window_ms, now_ns // 1_000_000)  # type: ignore[arg-type]
            self.sent.append((command, wire))
            self.sent_at_ns = time.perf_counter_ns()

    def resync(self, symbol: str) -> None:
        """Nothing to fetch: there is no depth here."""

    async def close(self) -> None:
        """Nothing to close."""


def bench_instrument(symbol: str) -> Instrument:
    """Return BTCUSDT's terms under any name."""
    return Instrument(
        symbol=symbol,
        kind=InstrumentKind.LINEAR,
        base="BTC",
        quote="USDT",
        tick_size=Decimal("0.1"),
        lot_size=Decimal("0.001"),
        min_qty=Decimal("0.001"),
        min_notional=Decimal(100),
        maker_fee=Decimal("0.0002"),
        taker_fee=Decimal("0.0005"),
    )


def moving_frames(count: int) -> list[bytes]:
    """Return the recorded frame with its prices moved by a few ticks each time, sequence rising."""
    frames = []
    for index in range(count):
        bid = 61800.2 + abs(index * 7 % 60 - 30) * 0.7
        frames.append(
            RECORDED_FRAME.replace(b"61800.20", b"%.2f" % bid)
            .replace(b"61800.30", b"%.2f" % (bid + 0.1))
            .replace(b"5123107837620", b"%d" % (5123107837620 + index))
        )
    return frames


def some_orders() -> tuple[AmendOrder, AmendOrder]:
    """Return two amends such as every tick of the benchmark leads to."""
    return (
        AmendOrder("tdt1i1n1", "BTC-USDT-PERP", Side.BUY, Decimal("61769.3"), Decimal("0.010"), "8886774"),
        AmendOrder("tdt1i1n2", "BTC-USDT-PERP", Side.SELL, Decimal("61831.2"), Decimal("0.010"), "8886775"),
    )
