"""The host's questions about the account, each answered as of when it was asked.

A question without an answer is not reported; the host puts it again.
"""

import logging
from collections.abc import Callable
from typing import Any, Final

from host.api import (
    AccountSnapshot,
    FillsSnapshot,
    OpenOrdersSnapshot,
    OrderFilled,
    OrderNotFound,
    OrderSnapshot,
    QueryAccount,
    QueryFills,
    QueryOpenOrders,
    QueryOrder,
    Report,
    VenuePosition,
)

from .calls import CallFailed, Calls
from .codec import MS, balances_of, fill_of, position_of, snapshot_of
from .numbers import BadData
from .order_finder import OrderFinder
from .order_tracker import OrderTracker
from .params import EXCHANGE, Product
from .products import Listing, Listings
from .throttle import Turn

__all__ = ["AccountQueries", "Question"]

_log = logging.getLogger("tandem.ccxt")
_QUESTION: Final = Turn()
_OVERLAP_MS: Final = 1_000
"""The host's clock and the venue's may differ by less than this."""

Question = QueryOrder | QueryOpenOrders | QueryFills | QueryAccount


class AccountQueries:
    """Answers for the symbols that are followed: at many venues orders and trades can be asked for by symbol only."""

    def __init__(
        self,
        product: Product,
        listings: Listings,
        followed: Callable[[], list[Listing]],
        calls: Calls,
        tracker: OrderTracker,
        finder: OrderFinder,
        now_ns: Callable[[], int],
        report: Callable[[Report], None],
    ) -> None:
        self._product: Final = product
        self._listings: Final = listings
        self._followed: Final = followed
        self._calls: Final = calls
        self._tracker: Final = tracker
        self._finder: Final = finder
        self._now_ns: Final = now_ns
        self._report: Final = report

    async def answer(self, question: Question) -> None:
        """Ask the venue, and report the answer if there is one."""
        try:
            self._report(await self._answer(question))
        except (CallFailed, BadData) as error:
            _log.warning("%s: %s has no answer: %s", EXCHANGE, type(question).__name__, error)

    async def _answer(self, question: Question) -> Report:
        if isinstance(question, QueryOrder):
            return await self._order(question)
        asked_ns = self._now_ns()
        if isinstance(question, QueryOpenOrders):
            return OpenOrdersSnapshot(await self._open_orders(asked_ns), asked_ns)
        if isinstance(question, QueryFills):
            since_ms = question.since_ns // MS - _OVERLAP_MS if question.since_ns else None
            return FillsSnapshot(await self._fills(since_ms), asked_ns)
        balance = await self._calls(_QUESTION, "fetch_balance")
        return AccountSnapshot(balances_of(balance), await self._positions(), asked_ns)

    async def _order(self, question: QueryOrder) -> Report:
        listing = self._listings.known(question.symbol)
        order = self._tracker.known(question.client_id, question.symbol)
        async with order.lock:  # while a request about it is under way, no answer would be the last word
            asked_ns = self._now_ns()
            row = await self._finder.find(question.client_id, listing)
        if row is None:
            order.is_done = True  # nothing to look after, unless it comes yet: the host asks again
            return OrderNotFound(question.client_id, asked_ns)
        snapshot = snapshot_of(listing, row, question.client_id, asked_ns)
        order = self._tracker.known(question.client_id, question.symbol, snapshot.venue_id)
        order.is_accepted, order.is_done = True, snapshot.status.is_terminal
        if snapshot.price is not None:
            order.terms = (snapshot.price, snapshot.qty)
        return snapshot

    async def _open_orders(self, asked_ns: int) -> tuple[OrderSnapshot, ...]:
        found: list[OrderSnapshot] = []
        for listing in self._followed():
            for row in await self._finder.open_orders(listing):
                client_id = self._tracker.client_id_of(listing.symbol, row)
                snapshot = snapshot_of(listing, row, client_id, asked_ns)
                found.append(snapshot)
                if client_id:  # it may be from before this adapter: what becomes of it is looked after
                    order = self._tracker.known(client_id, listing.symbol, snapshot.venue_id)
                    order.terms = order.terms or (snapshot.price, snapshot.qty)
        return tuple(found)

    async def _fills(self, since_ms: int | None) -> tuple[OrderFilled, ...]:
        fills: list[OrderFilled] = []
        for listing in self._followed():
            trades = await self._finder.trades(listing, since_ms)
            ours = ((trade, self._tracker.client_id_of(listing.symbol, trade)) for trade in trades)
            fills.extend(fill_of(listing, trade, client_id) for trade, client_id in ours if client_id)
        return tuple(sorted(fills, key=lambda fill: fill.ts_ns))

    async def _positions(self) -> tuple[VenuePosition, ...]:
        if self._product is Product.SPOT:
            return ()
        found: list[Any] = await self._calls(
            _QUESTION, "fetch_positions", [listing.wire for listing in self._followed()]
        )
        positions = []
        for row in found:
            listing = self._listings.by_wire(row.get("symbol"))
            position = None if listing is None else position_of(listing, row)
            if position is not None:
                positions.append(position)
        return tuple(positions)
