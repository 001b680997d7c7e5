"""Finding an order and our trades at the venue, whichever way ccxt has for it there."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

from host.api import RejectReason

from .calls import CallFailed, Calls
from .codec import Row
from .order_tracker import OrderTracker
from .products import Listing
from .throttle import Turn

__all__ = ["OrderFinder"]

_MOST_PAGES: Final = 200
_LEAST_PAGE: Final = 10
"""Venues list more than this at a time: a shorter list is the last one."""
_QUESTION: Final = Turn()


class OrderFinder:
    """Asks about orders by client id. ccxt has no call for that which every venue knows; its lists have both ids."""

    def __init__(self, calls: Calls, tracker: OrderTracker) -> None:
        self._calls: Final = calls
        self._tracker: Final = tracker
        self._lists: Final = ("fetch_open_orders", *_histories(calls.client.has))

    async def find(self, client_id: str, listing: Listing, turn: Turn = _QUESTION) -> Row | None:
        """Return an order as the venue has it, None where it is in none of its lists; raise `CallFailed`."""
        known = self._tracker.find(client_id)
        if known is not None and known.venue_id:
            try:
                return await self.by_venue_id(known.venue_id, listing, turn)
            except CallFailed as error:
                if error.verdict.reason is not RejectReason.UNKNOWN_ORDER:
                    raise
        for method in self._lists:
            rows: Sequence[Row] = await self._calls(turn, method, listing.wire)
            for row in rows:
                if row.get("clientOrderId") == client_id:
                    return row
        return None

    async def by_venue_id(self, venue_id: str, listing: Listing, turn: Turn = _QUESTION) -> Row:
        """Return an order by the venue's id; raise `CallFailed`."""
        row: Row = await self._calls(turn, "fetch_order", venue_id, listing.wire)
        return row

    async def open_orders(self, listing: Listing) -> Sequence[Row]:
        """Return the open orders of one symbol, anybody's; raise `CallFailed`."""
        rows: Sequence[Row] = await self._calls(_QUESTION, "fetch_open_orders", listing.wire)
        return rows

    async def trades(self, listing: Listing, since_ms: int | None) -> list[Row]:
        """Return the account's trades of one symbol since then, as far back as the venue shows them.

        Each is attributed to its order before this returns. Raises `CallFailed`.
        """
        found: dict[str, Row] = {}
        for _ in range(_MOST_PAGES):
            page: Sequence[Row] = await self._calls(_QUESTION, "fetch_my_trades", listing.wire, since_ms)
            is_news = any(str(row.get("id")) not in found for row in page)
            found |= {str(row.get("id")): row for row in page}
            if since_ms is None or len(page) < _LEAST_PAGE:
                break
            latest_ms = max(row.get("timestamp") or 0 for row in page)
            # From the last one's time on, which others may share; past it once that brought nothing new.
            since_ms = max(latest_ms, since_ms) if is_news else latest_ms + 1
        await self.attribute(listing, found.values())
        return list(found.values())

    async def attribute(self, listing: Listing, trades: Iterable[Row]) -> None:
        """Find out whose orders trades are of, where they do not say and nobody knows yet. Raises `CallFailed`."""
        for venue_id in {str(row.get("order") or "") for row in trades if not row.get("clientOrderId")}:
            if venue_id and not self._tracker.is_told(listing.symbol, venue_id):
                try:
                    row = await self.by_venue_id(venue_id, listing)
                except CallFailed as error:
                    if error.verdict.reason is not RejectReason.UNKNOWN_ORDER:
                        raise
                    row = {}  # too old to be told; not one that is open
                self._tracker.learned(listing.symbol, venue_id, str(row.get("clientOrderId") or ""))


def _histories(has: Mapping[str, Any]) -> Iterator[str]:
    """Yield the calls that list what is not open any more, as few as there can be."""
    if has.get("fetchOrders") is True:
        yield "fetch_orders"
    elif has.get("fetchCanceledAndClosedOrders") is True:
        yield "fetch_canceled_and_closed_orders"
    else:
        yield "fetch_closed_orders"
        if has.get("fetchCanceledOrders"):
            yield "fetch_canceled_orders"
