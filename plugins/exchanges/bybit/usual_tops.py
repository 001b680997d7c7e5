"""The pushes of best prices, straight into quotes: most of what a public connection carries.

A usual one is the next in its topic's numbering and names a bid and an ask that rest. Then it makes no difference
whether it is a snapshot or a change. Whatever is not exactly so is left to `market_codec`, which reads every
push and says what is wrong with it.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec
from msgspec import Struct

from host.api import BookTop, Level

from .frames import Frame

__all__ = ["MS", "BookState", "usual_tops"]

MS: Final = 1_000_000
"""Nanoseconds of a millisecond."""
_AT: Final = len(b'{"topic":"orderbook.1')
"""Where the name of a topic goes on with a dot, as the venue writes it, if its book has one level."""
_DOT: Final = ord(".")


class BookState:
    """How far one book topic is."""

    # Slots and no `Struct`: setting a field of one takes a fifth of the time.
    __slots__ = ("ask", "bid", "is_best_only", "seq", "symbol", "u")

    def __init__(self, symbol: str, *, is_best_only: bool) -> None:
        self.symbol: Final = symbol
        self.is_best_only: Final = is_best_only
        self.u = 0
        """0: no snapshot yet."""
        self.seq = 0
        self.bid: Level | None = None
        self.ask: Level | None = None


class _Data(Struct, gc=False):
    b: tuple[Level, ...]
    a: tuple[Level, ...]
    u: int
    seq: int


class _Push(Struct, gc=False):
    topic: str
    data: _Data
    cts: int


_NOT_SO: Final = (msgspec.MsgspecError, KeyError, IndexError, UnicodeDecodeError, RecursionError)


def usual_tops(books: Mapping[str, BookState]) -> Callable[[Frame, int], BookTop | None]:
    """Return a function that makes a quote of a push and the time of its receipt, and moves its state on.

    It returns None, and has changed nothing, for a push that is not a usual one. `books` holds the state of
    each topic, by its name.
    """
    # A function's own variables are found fastest, and this runs with every push.
    read: Callable[[Any], _Push] = msgspec.json.Decoder(_Push, strict=False).decode
    make = BookTop

    def top(frame: Frame, recv_ns: int) -> BookTop | None:
        try:
            if frame[_AT] != _DOT:
                return None
            push = read(frame)
            data, state = push.data, books[push.topic]
            number, bid, ask = data.u, data.b[0], data.a[0]
        except _NOT_SO:
            return None
        if number != state.u + 1 or number == 1 or not (bid[1] > 0.0 < ask[1] and state.is_best_only):
            return None
        seq = data.seq
        state.u, state.seq, state.bid, state.ask = number, seq, bid, ask
        return make(state.symbol, bid[0], bid[1], ask[0], ask[1], push.cts * MS, recv_ns, seq)

    return top
