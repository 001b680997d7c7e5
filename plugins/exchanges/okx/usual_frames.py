"""The messages that nearly all traffic is made of, straight into events: tops, and changes of books.

Which of the two a message may be is seen by one byte of its channel's name, where the venue always writes it; then
a decoder that takes exactly such messages reads what is needed and skips the rest. Whatever is not exactly
so is left to `market_codec`, which reads every message and says what is wrong with it.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final, Literal

import msgspec
from msgspec import Struct

from host.api import BookTop, Depth, MarketEvent

from .frames import Frame, LevelRow
from .market_codec import MS
from .products import MarketName

__all__ = ["usual_events"]

_AT: Final = len(b'{"arg":{"channel":"b')
"""Where channels' names differ by their second letter."""
_TOPS, _BOOKS = b"bo"  # bbo-tbt, books


class _TopArg(Struct, gc=False, rename={"inst_id": "instId"}):
    channel: Literal["bbo-tbt"]
    inst_id: str


class _TopRow(Struct, gc=False):
    asks: tuple[LevelRow]
    bids: tuple[LevelRow]
    ts: int


class _TopPush(Struct, gc=False):
    arg: _TopArg
    data: tuple[_TopRow]


class _ChangeArg(Struct, gc=False, rename={"inst_id": "instId"}):
    channel: Literal["books"]
    inst_id: str


class _ChangeRow(Struct, gc=False, rename="camel"):
    asks: tuple[LevelRow, ...]
    bids: tuple[LevelRow, ...]
    ts: int
    seq_id: int
    prev_seq_id: int


class _ChangePush(Struct, gc=False):
    arg: _ChangeArg
    action: Literal["update"]
    data: tuple[_ChangeRow]


_NOT_SO: Final = (msgspec.MsgspecError, KeyError, IndexError, UnicodeDecodeError, RecursionError)


def usual_events(names: Mapping[str, MarketName]) -> Callable[[Frame, int], MarketEvent | None]:
    """Return a function that makes an event of a message and the time of its receipt.

    It returns None for a message that is not a usual one. `names` maps the venue's `instId`.
    """
    # A function's own variables are found fastest, and this runs with every message.
    read_top: Callable[[Any], _TopPush] = msgspec.json.Decoder(_TopPush, strict=False).decode
    read_change: Callable[[Any], _ChangePush] = msgspec.json.Decoder(_ChangePush, strict=False).decode
    make_top, astuple = BookTop, msgspec.structs.astuple

    def event(frame: Frame, recv_ns: int) -> MarketEvent | None:
        try:
            sort = frame[_AT]
            if sort == _TOPS:
                top = read_top(frame)
                row = top.data[0]
                bid, ask = row.bids[0], row.asks[0]
                name = names[top.arg.inst_id]
                unit = name.scale
                return make_top(
                    name.symbol, bid.price, bid.size * unit, ask.price, ask.size * unit, row.ts * MS, recv_ns
                )
            if sort == _BOOKS:
                change = read_change(frame)
                news = change.data[0]
                name, prev = names[change.arg.inst_id], news.prev_seq_id
                if prev < 0:
                    return None
                unit = name.scale
                if unit == 1.0:
                    bids, asks = tuple(map(astuple, news.bids)), tuple(map(astuple, news.asks))
                else:
                    bids = tuple([(level.price, level.size * unit) for level in news.bids])
                    asks = tuple([(level.price, level.size * unit) for level in news.asks])
                return Depth(
                    name.symbol, bids, asks, False, prev + 1, news.seq_id, prev, news.ts * MS, recv_ns
                )
        except _NOT_SO:
            pass
        return None

    return event
