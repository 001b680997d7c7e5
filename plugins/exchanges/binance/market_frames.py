"""Binance's market streams, frame by frame, into events.

A combined stream wraps each payload: `{"stream":"btcusdt@bookTicker","data":{...}}`. Quotes come on
connections of their own, where nothing is looked at before their typed decoder runs; elsewhere only
the stream's name is, so that each frame is decoded once.
Spot's bookTicker says neither what it is nor when it happened; USDⓈ-M's says both.
"""

import logging
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, Literal

import msgspec
from msgspec import Struct

from host.api import BookTop, Depth, Level, MarketEvent, Ticker, Trade

from .._shared.bad_frames import BadFrames

__all__ = ["MarketDecoder", "StreamAnswer", "depth_snapshot"]

_MS: Final = 1_000_000
_OPENING: Final = b'{"stream":'
_HEAD_BYTES: Final = 64
"""The stream's name is within these: the longest symbols have 20 letters."""


_LONG_BYTES: Final = 300
"""What is longer is a change of a book, as good as always: which stream it is of need not be looked up first."""


class _Quote(Struct, gc=False):
    u: int
    s: str
    b: float
    B: float
    a: float
    A: float
    T: int = 0


class _Changes(Struct):
    s: str
    U: int
    u: int
    b: tuple[Level, ...]
    a: tuple[Level, ...]
    pu: int = -1
    E: int = 0
    T: int = 0


class _Trade(Struct, gc=False):
    s: str
    p: float
    q: float
    m: bool
    t: int
    T: int = 0
    E: int = 0


class _AggTrade(Struct, gc=False):
    s: str
    p: float
    q: float
    m: bool
    a: int = -1
    """Left out by the venue in early recordings."""
    T: int = 0


class _Ticker(Struct, gc=False):
    s: str
    c: float
    o: float
    h: float
    l: float  # noqa: E741 - the venue's name
    v: float
    E: int = 0


class _QuoteFrame(Struct, gc=False):
    data: _Quote


class _ChangesFrame(Struct):
    data: _Changes


class _TradeFrame(Struct, gc=False):
    data: _Trade


class _AggTradeFrame(Struct, gc=False):
    data: _AggTrade


class _TickerFrame(Struct, gc=False):
    data: _Ticker


class _Snapshot(Struct):
    lastUpdateId: int  # noqa: N815 - the venue's name
    bids: tuple[Level, ...]
    asks: tuple[Level, ...]
    T: int = 0


class _Error(Struct):
    code: int = 0
    msg: str = ""


class StreamAnswer(Struct):
    """What is not data: the answer to a SUBSCRIBE, or news of the connection."""

    id: int | str | None = None
    error: _Error | None = None
    e: str = ""
    """`serverShutdown`: this connection will be closed soon."""


class _Wrapped(Struct):
    stream: str
    data: msgspec.Raw


# Numbers come as text; lax mode reads them.
_quote = msgspec.json.Decoder(_QuoteFrame, strict=False).decode
_changes = msgspec.json.Decoder(_ChangesFrame, strict=False).decode
_trade = msgspec.json.Decoder(_TradeFrame, strict=False).decode
_agg_trade = msgspec.json.Decoder(_AggTradeFrame, strict=False).decode
_ticker = msgspec.json.Decoder(_TickerFrame, strict=False).decode
_snapshot = msgspec.json.Decoder(_Snapshot, strict=False).decode
_wrapped = msgspec.json.Decoder(_Wrapped).decode
_answer = msgspec.json.Decoder(StreamAnswer).decode
_any = msgspec.json.Decoder().decode


def _quotes(
    symbols: Mapping[str, str], other: Callable[[memoryview | bytes, int], MarketEvent | None]
) -> Callable[[memoryview | bytes, int], MarketEvent | None]:
    """Return a function that decodes quotes. Its names are its own variables: found fastest.

    The symbols that are followed are part of what it decodes: msgspec then hands out a name that it has
    instead of making one. It learns of new symbols by the first quote that it does not understand.
    """
    make, known, decode = BookTop, len(symbols), _quote_of(symbols)

    def quote(frame: memoryview | bytes, now_ns: int) -> MarketEvent | None:
        nonlocal decode, known
        try:
            q = decode(frame).data
            return make(symbols[q.s], q.b, q.B, q.a, q.A, q.T * _MS, now_ns, q.u)
        except (msgspec.MsgspecError, KeyError, UnicodeDecodeError, RecursionError):
            if len(symbols) != known:
                known, decode = len(symbols), _quote_of(symbols)
            return other(frame, now_ns)

    return quote


def _quote_of(symbols: Iterable[str]) -> Callable[[memoryview | bytes], Any]:
    """Return what decodes quotes of these symbols alone; of none of them, it decodes none."""
    fields: list[tuple[str, Any, Any]] = [  # in the order in which they come: found fastest
        (field.name, field.type, field.default) for field in msgspec.structs.fields(_Quote)
    ]
    fields[1] = ("s", Literal[("", *symbols)], msgspec.NODEFAULT)  # made while it runs
    frame = msgspec.defstruct(
        "_QuoteFrame", [("data", msgspec.defstruct("_Quote", fields, gc=False))], gc=False
    )
    return msgspec.json.Decoder(frame, strict=False).decode


def depth_snapshot(body: bytes, symbol: str, now_ns: int) -> Depth:
    """Return the book that `GET depth` answers; raise `msgspec.MsgspecError` where it is none."""
    book = _snapshot(body)
    seq = book.lastUpdateId
    return Depth(symbol, book.bids, book.asks, True, seq, seq, -1, book.T * _MS, now_ns)


class MarketDecoder:
    """Turns frames into events of ours, and says what could not be turned into any.

    `symbols` maps the venue's names (upper case) to ours; a frame about another symbol is counted as bad. A depth
    change that cannot be read leaves a hole in the book, so `on_doubt(symbol)` is called then: with
    None where the frame does not even say which symbol it is about.
    """

    def __init__(
        self,
        symbols: Mapping[str, str],
        on_answer: Callable[[StreamAnswer], None],
        on_doubt: Callable[[str | None], None],
        log: logging.Logger,
        source: str,
    ) -> None:
        self._symbols: Final = symbols
        self._on_answer: Final = on_answer
        self._on_doubt: Final = on_doubt
        self.bad: Final = BadFrames(log, source)
        self._last_trade: Final[dict[str, int]] = {}
        self.quote: Final = _quotes(symbols, self.decode)
        """Does what `decode` does, fastest for quotes: for connections that carry nothing else."""

    def decode(self, frame: memoryview | bytes, now_ns: int) -> MarketEvent | None:
        """Return the event in a frame, or None where there is none for the host."""
        if len(frame) > _LONG_BYTES:
            try:
                return self._change(frame, now_ns)
            except (KeyError, msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
                pass  # it is something else, or bad: below it is looked at closely
        head = bytes(frame[:_HEAD_BYTES])
        at = head.find(b"@", 11)
        kind = head[at + 1 : at + 2] if at > 0 and head.startswith(_OPENING) else b""
        try:
            if kind == b"b":
                quote = _quote(frame).data
                return BookTop(
                    self._symbols[quote.s], quote.b, quote.B, quote.a, quote.A, quote.T * _MS, now_ns, quote.u
                )
            if kind == b"d":
                return self._change(frame, now_ns)
            return self._rarer(frame, head, at, now_ns)
        except KeyError as error:
            self.bad.note("unknown symbol", frame, error)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            self._not_understood(frame, head, error)
        return None

    def _change(self, frame: memoryview | bytes, now_ns: int) -> Depth:
        change = _changes(frame).data
        return Depth(
            self._symbols[change.s],
            change.b,
            change.a,
            False,
            change.U,
            change.u,
            change.pu,
            (change.T or change.E) * _MS,
            now_ns,
        )

    def _rarer(self, frame: memoryview | bytes, head: bytes, at: int, now_ns: int) -> MarketEvent | None:
        if at < 0 or not head.startswith(_OPENING):
            return self._unwrapped(frame, now_ns)
        name = head[at + 1 :]
        if name.startswith(b"trade"):
            trade = _trade(frame).data
            at_ns = (trade.T or trade.E) * _MS
            return self._new_trade(trade.s, trade.p, trade.q, not trade.m, trade.t, at_ns, now_ns)
        if name.startswith(b"aggTrade"):
            agg = _agg_trade(frame).data
            return self._new_trade(agg.s, agg.p, agg.q, not agg.m, agg.a, agg.T * _MS, now_ns)
        if name.startswith(b"ticker"):
            t = _ticker(frame).data
            return Ticker(self._symbols[t.s], t.c, t.o, t.h, t.l, t.v, t.E * _MS, now_ns)
        self.bad.note("unknown stream", frame)
        return None

    def _new_trade(
        self, wire: str, price: float, qty: float, is_buy: bool, trade_id: int, at_ns: int, now_ns: int
    ) -> Trade | None:
        symbol = self._symbols[wire]
        if qty <= 0.0:
            return None  # USDⓈ-M tells of the insurance fund's dealings this way
        if trade_id >= 0:
            if trade_id <= self._last_trade.get(wire, -1):
                return None  # told twice, while a connection is being renewed
            self._last_trade[wire] = trade_id
        return Trade(symbol, price, qty, is_buy, trade_id, at_ns, now_ns)

    def _unwrapped(self, frame: memoryview | bytes, now_ns: int) -> MarketEvent | None:
        """Take a frame that is no stream's, or one whose keys are in another order."""
        fields = _any(frame)
        if not isinstance(fields, dict):
            self.bad.note("not an object", frame)
        elif isinstance(fields.get("stream"), str) and "data" in fields:
            wrapped = _wrapped(frame)
            if wrapped.stream.startswith("!"):
                self._on_answer(_answer(wrapped.data))
            elif not bytes(frame[:_HEAD_BYTES]).startswith(_OPENING):
                head = msgspec.json.encode({"stream": wrapped.stream})[:-1]
                return self.decode(head + b',"data":' + bytes(wrapped.data) + b"}", now_ns)
            else:
                self.bad.note("unknown stream", frame)
        elif "id" in fields or "error" in fields or "e" in fields:
            self._on_answer(_answer(frame))
        else:
            self.bad.note("unknown message", frame)
        return None

    def _not_understood(self, frame: memoryview | bytes, head: bytes, error: Exception) -> None:
        self.bad.note(type(error).__name__, frame, error)
        name, separator, kind = head[len(_OPENING) :].partition(b"@")
        if not head.startswith(_OPENING) or not separator:
            self._on_doubt(None)
        elif kind.startswith(b"depth"):
            # Any other kind of message stands for itself; a book is made of all of its changes.
            self._on_doubt(self._symbols.get(name.strip(b' "').decode("ascii", "replace").upper()))
