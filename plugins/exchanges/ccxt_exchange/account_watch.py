"""What happens to our orders at the venue: asked for while orders are open, and at once when a stream stirs.

A stream of ccxt may miss events when its connection is lost, and does not say so. So what counts is what the
venue answers: its open orders and the latest trades of each symbol.
"""

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any, Final

from host.api import ConnectionChanged, Report

from .._shared.backoff import Backoff
from .._shared.bad_frames import BadFrames
from .calls import CallFailed, Calls
from .codec import Row, is_live
from .numbers import BadData
from .order_finder import OrderFinder
from .order_tracker import KnownOrder, OrderTracker
from .params import EXCHANGE, CcxtParams
from .products import Listing, Listings
from .throttle import Turn

__all__ = ["AccountWatch"]

_log = logging.getLogger("tandem.ccxt")
_OVERLAP_MS: Final = 10_000
"""Trades are asked for from so long before the latest one that was seen: venues may tell them out of order."""
_FIRST_MS: Final = 60_000
"""How far back the first question goes; the host asks for what is older."""


class AccountWatch:
    """Hands over what becomes of our orders, and whether the venue answers."""

    def __init__(
        self,
        params: CcxtParams,
        listings: Listings,
        calls: Calls,
        tracker: OrderTracker,
        finder: OrderFinder,
        now_ns: Callable[[], int],
        report: Callable[[Report], None],
        spawn: Callable[[Coroutine[Any, Any, None], str], object],
    ) -> None:
        self._params: Final = params
        self._listings: Final = listings
        self._calls: Final = calls
        self._tracker: Final = tracker
        self._finder: Final = finder
        self._now_ns: Final = now_ns
        self._report: Final = report
        self._spawn: Final = spawn
        self._bad: Final = BadFrames(_log, f"{EXCHANGE} {params.venue}")
        self._wish: Final = asyncio.Event()
        self._wanted: set[str] = set()
        self._seen_ms: dict[str, int] = {}
        """The time of the latest trade seen, by symbol."""
        self._is_up = True

    def look_soon(self, symbol: str) -> None:
        """Have the open orders and trades of a symbol asked for now."""
        self._wanted.add(symbol)
        self._wish.set()

    def follow(self, listing: Listing) -> None:
        """Open the streams of a symbol, where there are any."""
        has = self._calls.client.has
        if not self._params.streams:
            return
        for name, method in (("watchOrders", "watch_orders"), ("watchMyTrades", "watch_my_trades")):
            if has.get(name):
                self._spawn(self._stream(method, listing), f"{method} of {listing.symbol}")

    async def keep(self) -> None:
        """Look at every symbol with live orders again and again, and at once where that is wished for."""
        every_s, backoff = self._params.account_every_ms / 1e3, Backoff(0.2, 5.0)
        while True:
            try:
                async with asyncio.timeout(every_s):
                    await self._wish.wait()
            except TimeoutError:
                pass
            self._wish.clear()
            wanted, self._wanted = self._wanted | {order.symbol for order in self._tracker.live}, set()
            try:
                for symbol in sorted(wanted):
                    await self.look(self._listings.known(symbol))
            except CallFailed as error:
                self._wanted |= wanted
                self._changed(False, str(error))
                await asyncio.sleep(backoff.next_s())
            else:
                backoff.reset()
                if wanted:
                    self._changed(True, "it answers again")

    async def look(self, listing: Listing) -> None:
        """Compare the venue's open orders and latest trades of a symbol with what is known; raise `CallFailed`."""
        before = {
            order.client_id: order.changes for order in self._tracker.live if order.symbol == listing.symbol
        }
        rows = await self._finder.open_orders(listing)
        by_id = {self._tracker.client_id_of(listing.symbol, row): row for row in rows}
        await self._look_at_trades(listing)
        for client_id, changes in before.items():
            order = self._tracker.find(client_id)
            if order is None or order.is_done:
                continue
            row = by_id.get(client_id)
            if row is None:  # not open any more, or not when the list was made: only the venue knows
                row = await self._finder.find(client_id, listing)
            if row is not None:
                await self.take(order, listing, row, has_terms=order.changes == changes and not changes % 2)

    async def take(self, order: KnownOrder, listing: Listing, row: Row, *, has_terms: bool) -> None:
        """Tell the host what an order's row says that is new; its trades first. Raises `CallFailed`."""
        try:
            ended = not is_live(listing, row)
            if ended and listing.qty(row.get("filled"), "filled") > order.filled:
                await self._look_at_trades(listing)
            for report in self._tracker.row(order, listing, row, self._now_ns(), has_terms=has_terms):
                self._report(report)
        except BadData as error:
            self._bad.note("order", repr(row), error)

    async def _look_at_trades(self, listing: Listing) -> None:
        latest_ms = self._seen_ms.get(listing.symbol, self._calls.client.milliseconds() - _FIRST_MS)
        trades = await self._finder.trades(listing, latest_ms - _OVERLAP_MS)
        self._tell_trades(listing, trades)

    def _tell_trades(self, listing: Listing, trades: list[Row]) -> None:
        for trade in trades:
            try:
                for fill in self._tracker.fills(listing, [trade]):
                    self._report(fill)
            except BadData as error:
                self._bad.note("trade", repr(trade), error)
            latest_ms = int(trade.get("timestamp") or 0)
            self._seen_ms[listing.symbol] = max(latest_ms, self._seen_ms.get(listing.symbol, 0))

    async def _stream(self, method: str, listing: Listing) -> None:
        """Look whenever a stream says anything: what it says is asked for, for it may have missed what came before."""
        backoff = Backoff(0.2, 30.0)
        while True:
            try:
                await self._calls(Turn(), method, listing.wire)
                backoff.reset()
            except CallFailed as error:
                _log.info("%s: %s; asking goes on", EXCHANGE, error)
                await asyncio.sleep(backoff.next_s())
            self.look_soon(listing.symbol)

    def _changed(self, is_up: bool, text: str) -> None:
        if is_up is not self._is_up:
            self._is_up = is_up
            self._report(ConnectionChanged("private", is_up, text, self._now_ns()))
