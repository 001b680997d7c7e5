"""The order book of one symbol: best quotes and depth, checked for gaps and nonsense.

Two streams feed it that the venue does not order against each other: quotes (`BookTop`) and depth
(`Depth`). Sequence numbers say which one knows more. Prices and sizes are floats, because a book
is for estimating; nothing here reaches an order.
"""

from collections import deque
from enum import Enum
from math import inf
from typing import Final

from host.api import BookTop, Depth, Level, Side
from host.core.book_side import BadLevel, BookSide

__all__ = ["MAX_HELD_UPDATES", "Book", "DepthResult"]

MAX_HELD_UPDATES: Final = 1_000
"""Depth updates kept while a snapshot is awaited: 100 s of a 100 ms stream, far above a request's time."""

_NO_TOP: Final = "no data: no top of book yet"
_NO_SNAPSHOT: Final = "no snapshot: depth changes came before one"


class DepthResult(Enum):
    """What became of a depth message."""

    APPLIED = "applied"
    SNAPSHOT = "snapshot"
    """The book was replaced (and held updates that continue it were applied)."""
    STALE = "stale"
    """The book already covers it; dropped."""
    HELD = "held"
    """No valid book to apply it to; kept for the snapshot that is due."""
    GAP = "gap"
    """Depth has just become invalid and stays so until the next snapshot; ask for one."""


class Book:
    """Top of book and depth of one symbol.

    `top` is the newest best bid and ask known from either stream. It is replaced only by a quote,
    by depth that shows other prices or sizes, or by depth that ends a fault, so `book.top is
    before` tells that depth changed nothing there. While `top_fault` is set it is the last good one.

    The book is valid while `invalid_reason` is empty: the top is known and sane, and depth, once
    any was received, is without a gap. `top_fault` and `depth_fault` tell the two apart for
    callers that need only one. A fault reads "kind: details", and the kind is a stable phrase.
    """

    __slots__ = (
        "_asks",
        "_bids",
        "_held",
        "_is_synced",
        "_last_recv_ns",
        "_top_seq",
        "depth_fault",
        "seq",
        "symbol",
        "top",
        "top_fault",
    )

    def __init__(self, symbol: str) -> None:
        self.symbol: Final = symbol
        self.top: BookTop | None = None
        self.seq = 0
        """`seq` of the last depth message applied; 0 before the first."""
        self.top_fault = _NO_TOP
        self.depth_fault = ""
        self._top_seq = 0
        self._last_recv_ns = 0
        self._is_synced = False
        self._bids: Final = BookSide(Side.BUY)
        self._asks: Final = BookSide(Side.SELL)
        self._held: deque[Depth] = deque(maxlen=MAX_HELD_UPDATES)

    # -- what comes in ---------------------------------------------------------------------------

    def apply_top(self, top: BookTop) -> bool:
        """Take over a quote; return False, and keep what is known, when it is older or senseless.

        A quote without a sequence number (0) counts as newer. One that is crossed, locked, not
        positive or not a number makes the book invalid until the next good one.
        """
        seq = top.seq
        if seq < self._top_seq and seq > 0:
            return False
        ask = top.ask
        bid_size = top.bid_size
        ask_size = top.ask_size
        # The sum is finite only if each of them is.
        if not (0.0 < top.bid < ask and bid_size >= 0.0 <= ask_size and ask + bid_size + ask_size < inf):
            self.top_fault = (
                f"bad quote: expected 0 < bid < ask and sizes of at least 0 in seq {seq}, "
                f"was bid {top.bid!r} × {top.bid_size!r}, ask {top.ask!r} × {top.ask_size!r}"
            )
            return False
        self.top = top
        self._top_seq = seq
        self._last_recv_ns = top.ts_recv
        if self.top_fault:
            self.top_fault = ""
        return True

    def apply_depth(self, depth: Depth) -> DepthResult:
        """Take over a depth snapshot or change, if the sequence numbers allow.

        A change covers the venue's updates after `prev_seq` up to `seq`; where the venue sends
        none, `prev_seq` is `first_seq` − 1. As sizes are absolute, it brings a book at any point
        inside that range to `seq`. This one rule is what Binance asks of spot (U ≤ last + 1 ≤ u) and
        USDⓈ-M (U ≤ S ≤ u, then `pu` = last) and OKX of `prevSeqId`, whose sequence may also
        restart lower: `prev_seq` equal to the last one always applies.

        A snapshot always replaces the book: venues send one to correct us.
        """
        if depth.is_snapshot:
            return self._replace(depth)
        if not self._is_synced:
            self.depth_fault = self.depth_fault or _NO_SNAPSHOT
            self._held.append(depth)
            return DepthResult.HELD
        return self._continue(depth)

    def invalidate(self, reason: str) -> None:
        """Forget everything, as after a lost connection: invalid until new data arrives."""
        self.top = None
        self.top_fault = reason
        self._top_seq = self._last_recv_ns = 0
        if self._is_synced or self.depth_fault:
            self._drop_depth(reason)

    def forget_numbers(self) -> None:
        """Take it that the venue's numbers mean something else from here on: the next quote is newer."""
        self._top_seq = 0

    # -- what is known ---------------------------------------------------------------------------

    @property
    def is_valid(self) -> bool:
        """Return whether the book can be relied on; `invalid_reason` says why not."""
        return not (self.top_fault or self.depth_fault)

    @property
    def invalid_reason(self) -> str:
        """Return what is wrong, in words; empty when the book is valid."""
        return self.top_fault or self.depth_fault

    def age_ns(self, now_ns: int) -> int:
        """Return the time since the last accepted message was received; `now_ns` before the first."""
        return now_ns - self._last_recv_ns

    def levels(self, n: int) -> tuple[list[Level], list[Level]]:
        """Return up to `n` levels of bids and of asks, best first; empty while depth is invalid."""
        return self._bids.levels(n), self._asks.levels(n)

    def whole(self) -> Depth | None:
        """Return all levels as a snapshot, received when the latest message was; None while depth is not valid."""
        if not self._is_synced:
            return None
        bids, asks = self.levels(len(self._bids.sizes) + len(self._asks.sizes))
        return Depth(
            self.symbol, tuple(bids), tuple(asks), is_snapshot=True, first_seq=self.seq, seq=self.seq,
            ts_recv=self._last_recv_ns,
        )  # fmt: skip

    def size_at(self, side: Side, price: float) -> float:
        """Return the size resting at exactly `price` among the bids (`BUY`) or the asks (`SELL`)."""
        return self._side(side).sizes.get(price, 0.0)

    def depth_qty(self, side: Side, price: float) -> float:
        """Return the total size at `price` or better among the bids (`BUY`) or the asks (`SELL`)."""
        return self._side(side).qty(price)

    def _side(self, side: Side) -> BookSide:
        return self._bids if side is Side.BUY else self._asks

    # -- depth -----------------------------------------------------------------------------------

    def _replace(self, snapshot: Depth) -> DepthResult:
        held = list(self._held)
        self._drop_depth("")
        self._is_synced = True
        self.seq = snapshot.seq
        result = self._apply_levels(snapshot)
        for depth in held:
            if result is DepthResult.GAP:
                # Still older than what we hold: the next snapshot may connect to it.
                self._held.append(depth)
            else:
                result = self._continue(depth)
        return result if result is DepthResult.GAP else DepthResult.SNAPSHOT

    def _continue(self, depth: Depth) -> DepthResult:
        last = self.seq
        prev = depth.prev_seq if depth.prev_seq >= 0 else depth.first_seq - 1
        if prev != last:
            if depth.seq <= last:
                return DepthResult.STALE
            if prev > last:
                self._drop_depth(f"depth gap: expected an update that follows seq {last}, was after {prev}")
                self._held.append(depth)
                return DepthResult.GAP
        self.seq = depth.seq
        if depth.seq < last:
            self._top_seq = 0  # the venue's numbering restarted; the old top's number means nothing now
        return self._apply_levels(depth)

    def _apply_levels(self, depth: Depth) -> DepthResult:
        try:
            bid, ask = self._bids.merge(depth.bids), self._asks.merge(depth.asks)
        except BadLevel as error:
            self._drop_depth(f"{error} in seq {depth.seq}")
            return DepthResult.GAP
        if bid >= ask > 0.0:
            self._drop_depth(
                f"crossed depth: expected best bid < best ask, was bid {bid!r}, ask {ask!r} in seq {depth.seq}"
            )
            return DepthResult.GAP
        self._last_recv_ns = depth.ts_recv
        if depth.seq >= self._top_seq:
            self._derive_top(depth, bid, ask)
        return DepthResult.APPLIED

    def _derive_top(self, depth: Depth, bid: float, ask: float) -> None:
        self._top_seq = depth.seq
        if not bid or not ask:
            self.top_fault = f"empty side: no {'asks' if bid else 'bids'} as of depth seq {depth.seq}"
            return
        was_faulty, self.top_fault = bool(self.top_fault), ""
        bid_size, ask_size = self._bids.sizes[bid], self._asks.sizes[ask]
        top = self.top
        if (
            was_faulty
            or top is None
            or bid != top.bid
            or ask != top.ask
            or bid_size != top.bid_size
            or ask_size != top.ask_size
        ):
            self.top = BookTop(
                self.symbol, bid, bid_size, ask, ask_size, depth.ts_event, depth.ts_recv, depth.seq
            )

    def _drop_depth(self, reason: str) -> None:
        self.depth_fault = reason
        self._is_synced = False
        self.seq = 0
        self._bids.clear()
        self._asks.clear()
        self._held.clear()
