"""Books and trades of the symbols that are followed: streamed where ccxt has streams, else asked for.

ccxt keeps a streamed book by the venue's own sequence rules and begins anew where it finds a gap. What is
handed over is the whole book as it stands, numbered here.
"""

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Callable, Coroutine
from typing import Any, Final

from host.api import BookTop, Depth, MarketEvent, Trade

from .._shared.backoff import Backoff
from .._shared.bad_frames import BadFrames
from .calls import CallFailed, Calls
from .codec import MS, Row, levels_of
from .numbers import BadData
from .params import EXCHANGE, CcxtParams
from .products import Listing
from .throttle import Turn

__all__ = ["MarketFeed"]

_log = logging.getLogger("tandem.ccxt")
_MOST_LEVELS: Final = 1_000
_MOST_TRADES: Final = 2_000
"""Trades are remembered so many deep, by symbol: the lists of venues overlap."""


class MarketFeed:
    """The market data of one account. `changed(is_up, text)` hears of it as one: all symbols, or not."""

    def __init__(
        self,
        params: CcxtParams,
        calls: Calls,
        now_ns: Callable[[], int],
        hand_over: Callable[[MarketEvent], None],
        changed: Callable[[bool, str], None],
        spawn: Callable[[Coroutine[Any, Any, None], str], object],
    ) -> None:
        self._params: Final = params
        self._calls: Final = calls
        self._now_ns: Final = now_ns
        self._hand_over: Final = hand_over
        self._changed: Final = changed
        self._spawn: Final = spawn
        self._bad: Final = BadFrames(_log, f"{EXCHANGE} {params.venue} market data")
        self._numbers: dict[str, int] = {}
        self._is_up = False
        self._waiting: set[str] = set()
        """The symbols whose books are not there: not yet, or not any more."""

    def follow(self, listing: Listing) -> None:
        """Begin to hand over a symbol's books and trades."""
        self._waiting.add(listing.symbol)
        self._spawn(self._books(listing), f"books of {listing.symbol}")
        if self._params.trades and (
            self._streams("watchTrades") or self._calls.client.has.get("fetchTrades")
        ):
            self._spawn(self._trades(listing), f"trades of {listing.symbol}")

    def look_again(self, listing: Listing) -> None:
        """Ask for the whole book now."""
        self._spawn(self._once(listing), f"book of {listing.symbol}")

    def _streams(self, name: str) -> bool:
        return self._params.streams and bool(self._calls.client.has.get(name))

    # -- books -------------------------------------------------------------------------------------

    async def _books(self, listing: Listing) -> None:
        is_streamed, backoff = self._streams("watchOrderBook"), Backoff(0.2, 10.0)
        while True:
            try:
                self._hand_book(listing, await (self._next(listing) if is_streamed else self._ask(listing)))
            except CallFailed as error:
                self._lost(listing, str(error))
                await asyncio.sleep(backoff.next_s())
                continue
            backoff.reset()
            if not is_streamed:
                await asyncio.sleep(self._params.book_every_ms / 1e3)

    async def _next(self, listing: Listing) -> Row:
        """Wait for the streamed book; a silence that lasts is looked into. Raises `CallFailed`."""
        limit = [] if self._params.depth is None else [self._params.depth]
        waiting = asyncio.ensure_future(self._calls(Turn(), "watch_order_book", listing.wire, *limit))
        try:
            while True:
                done, _ = await asyncio.wait({waiting}, timeout=self._params.lost_after_s)
                if done:
                    book: Row = waiting.result()
                    return book
                self._hand_book(listing, await self._ask(listing))
        finally:
            waiting.cancel()

    async def _ask(self, listing: Listing) -> Row:
        limit = [] if self._params.depth is None else [self._params.depth]
        book: Row = await self._calls(Turn(), "fetch_order_book", listing.wire, *limit)
        return book

    async def _once(self, listing: Listing) -> None:
        try:
            self._hand_book(listing, await self._ask(listing))
        except CallFailed as error:
            self._lost(listing, str(error))

    def _hand_book(self, listing: Listing, book: Row) -> None:
        try:
            bids, asks = (levels_of(listing, book[side], _MOST_LEVELS) for side in ("bids", "asks"))
        except (BadData, KeyError) as error:
            self._bad.note("book", repr(book), error)
            self._lost(listing, f"a book that cannot be read: {error}")
            return
        symbol = listing.symbol
        self._waiting_no_more(symbol)
        number = self._numbers[symbol] = self._numbers.get(symbol, 0) + 1
        sent_ns, now_ns = int(book.get("timestamp") or 0) * MS, self._now_ns()
        self._hand_over(Depth(symbol, bids, asks, True, number, number, -1, sent_ns, now_ns))
        if bids and asks:
            self._hand_over(BookTop(symbol, *bids[0], *asks[0], sent_ns, now_ns, number))

    def _lost(self, listing: Listing, text: str) -> None:
        self._waiting.add(listing.symbol)
        if self._is_up:
            self._is_up = False
            self._changed(False, text)

    def _waiting_no_more(self, symbol: str) -> None:
        self._waiting.discard(symbol)
        if not self._waiting and not self._is_up:
            self._is_up = True
            self._changed(True, "every book is there")

    # -- trades ------------------------------------------------------------------------------------

    async def _trades(self, listing: Listing) -> None:
        is_streamed, backoff = self._streams("watchTrades"), Backoff(0.2, 30.0)
        told: OrderedDict[str, None] = OrderedDict()
        method, is_first = "watch_trades" if is_streamed else "fetch_trades", not is_streamed
        while True:
            try:
                rows = await self._calls(Turn(), method, listing.wire)
            except CallFailed as error:
                _log.info("%s: %s; trying again", EXCHANGE, error)
                await asyncio.sleep(backoff.next_s())
                continue
            backoff.reset()
            for row in list(rows):
                self._hand_trade(listing, row, told, is_old=is_first)
            is_first = False
            if not is_streamed:
                await asyncio.sleep(self._params.book_every_ms / 1e3)

    def _hand_trade(
        self, listing: Listing, row: Row, told: "OrderedDict[str, None]", *, is_old: bool
    ) -> None:
        """Hand one trade over, unless it was or is from before the first question."""
        key = str(row.get("id") or (row.get("timestamp"), row.get("price"), row.get("amount")))
        if key in told:
            return
        told[key] = None
        if len(told) > _MOST_TRADES:
            told.popitem(last=False)
        if is_old:
            return
        try:
            price, qty = float(row["price"]), float(row["amount"]) * float(listing.per_contract)
        except (KeyError, TypeError, ValueError) as error:
            self._bad.note("trade", repr(row), error)
            return
        number = int(key) if key.isdecimal() and len(key) < 19 else 0
        sent_ns = int(row.get("timestamp") or 0) * MS
        self._hand_over(
            Trade(listing.symbol, price, qty, row.get("side") == "buy", number, sent_ns, self._now_ns())
        )
