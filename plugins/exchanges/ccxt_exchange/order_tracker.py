"""What ccxt says of our orders and trades: each thing is told to the host once, whoever brought it.

Every answer brings whole orders. This remembers for each order which ids it has and what was told, so that
what was told before says nothing new. No I/O.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from decimal import Decimal
from typing import Final

import msgspec
from msgspec import Struct

from host.api import (
    OrderAccepted,
    OrderAmended,
    OrderCancelled,
    OrderExpired,
    OrderFilled,
    OrderRejected,
    OrderStatus,
    PlaceOrder,
    RejectReason,
    Report,
)

from .codec import Row, fill_of, filled_of, price_of, qty_of, status_of
from .products import Listing

__all__ = ["KnownOrder", "OrderTracker"]

_MOST_ENDED: Final = 10_000
_MOST_TRADES: Final = 20_000
_ZERO: Final = Decimal(0)


class KnownOrder(Struct):
    """What is known of one of our orders."""

    client_id: str
    symbol: str
    venue_id: str = ""
    is_accepted: bool = False
    is_done: bool = False
    is_post_only: bool = False
    is_cancelling: bool = False
    """Whether we have asked for its end."""
    is_resting: bool = True
    """Whether it is to stay in the book; one that is not expires by its own terms."""
    filled: Decimal = _ZERO
    """As much of it as was told, trade by trade."""
    shown_filled: Decimal = _ZERO
    """As much as the venue has shown."""
    terms: tuple[Decimal | None, Decimal] | None = None
    """Price and quantity that the host knows; None: not known."""
    changes: int = 0
    """Counts beginnings and ends of requests that change it: what was asked before one says nothing of its terms."""
    lock: asyncio.Lock = msgspec.field(default_factory=asyncio.Lock)
    """Held by the one request about it that is under way: they must not overtake each other."""


class OrderTracker:
    """The orders of one account."""

    def __init__(self) -> None:
        self._orders: OrderedDict[str, KnownOrder] = OrderedDict()
        self._by_venue_id: OrderedDict[tuple[str, str], str] = OrderedDict()
        self._trades: OrderedDict[tuple[str, str], None] = OrderedDict()

    # -- orders and their ids ----------------------------------------------------------------------

    def placed(self, place: PlaceOrder) -> KnownOrder:
        """Note an order that is being sent."""
        return self._remember(
            KnownOrder(
                place.client_id,
                place.symbol,
                is_post_only=place.post_only,
                is_resting=place.price is not None and place.time_in_force.value == "gtc",
                terms=(place.price, place.qty),
            )
        )

    def known(self, client_id: str, symbol: str, venue_id: str = "") -> KnownOrder:
        """Return an order of ours; one of before this adapter is noted as one that the host knows."""
        order = self._orders.get(client_id)
        if order is None:
            order = self._remember(KnownOrder(client_id, symbol, is_accepted=True))
        if venue_id and not order.venue_id:
            self._name(order, venue_id)
        return order

    def find(self, client_id: str) -> KnownOrder | None:
        """Return an order that was noted before."""
        return self._orders.get(client_id)

    def client_id_of(self, symbol: str, row: Row) -> str:
        """Return whose order or trade a row is: our id, empty where that is not known."""
        venue_id = str(row.get("order") or row.get("id") or "")
        return str(row.get("clientOrderId") or self._by_venue_id.get((symbol, venue_id), ""))

    def learned(self, symbol: str, venue_id: str, client_id: str) -> None:
        """Note whose a venue's id is, found out by asking; an empty `client_id` is somebody else's."""
        self._by_venue_id[symbol, venue_id] = client_id
        if len(self._by_venue_id) > _MOST_TRADES:
            self._by_venue_id.popitem(last=False)

    def is_told(self, symbol: str, venue_id: str) -> bool:
        """Return whether it is known whose a venue's id is."""
        return (symbol, venue_id) in self._by_venue_id

    @property
    def live(self) -> Iterator[KnownOrder]:
        """Yield the orders that the venue has, as far as is known."""
        return (order for order in list(self._orders.values()) if order.is_accepted and not order.is_done)

    # -- what is news --------------------------------------------------------------------------------

    def accepted(self, order: KnownOrder, venue_id: str, ts_ns: int) -> Sequence[Report]:
        """Take in that the venue has an order."""
        self._name(order, venue_id)
        if order.is_accepted or order.is_done:
            return ()
        order.is_accepted = True
        return (OrderAccepted(order.client_id, venue_id, ts_ns),)

    def row(
        self, order: KnownOrder, listing: Listing, row: Row, ts_ns: int, *, has_terms: bool
    ) -> Sequence[Report]:
        """Return what an order's row says that the host does not know; raise `BadData`.

        `has_terms` says that price and quantity in it are from after the last amend.
        """
        if order.is_done:
            return ()
        status, filled = status_of(listing, row), filled_of(listing, row)
        order.shown_filled = max(order.shown_filled, filled)
        was_accepted = order.is_accepted
        venue_id = str(row.get("id") or order.venue_id)
        if not status.is_terminal:
            accepted = self.accepted(order, venue_id, ts_ns)
            return [*accepted, *(_amended(order, listing, row, ts_ns) if has_terms else ())]
        self._name(order, venue_id)
        order.is_done = True
        if not was_accepted and not filled and (status is OrderStatus.REJECTED or order.is_post_only):
            order.is_accepted = True
            reason = RejectReason.WOULD_TAKE if order.is_post_only else RejectReason.OTHER
            return [OrderRejected(order.client_id, reason, f"the venue ended it: {row.get('status')}", ts_ns)]
        order.is_accepted = True
        accepted = () if was_accepted else (OrderAccepted(order.client_id, venue_id, ts_ns),)
        if status is OrderStatus.FILLED:
            return accepted  # its trades say the rest
        if status is OrderStatus.EXPIRED or not order.is_resting:
            return [*accepted, OrderExpired(order.client_id, ts_ns, str(row.get("status")), filled)]
        would_take = order.is_post_only and not filled and not order.is_cancelling
        why = RejectReason.WOULD_TAKE.value if would_take else ""
        return [*accepted, OrderCancelled(order.client_id, ts_ns, why, filled)]

    def fills(self, listing: Listing, trades: Iterable[Row]) -> list[OrderFilled]:
        """Return the trades of our orders that were not told; raise `BadData`. Whose they are must be known."""
        news = []
        for trade in trades:
            client_id = self.client_id_of(listing.symbol, trade)
            key = listing.symbol, str(trade.get("id"))
            if not client_id or key in self._trades:
                continue
            fill = fill_of(listing, trade, client_id)
            self._trades[key] = None
            if len(self._trades) > _MOST_TRADES:
                self._trades.popitem(last=False)
            self.known(client_id, listing.symbol, fill.venue_id).filled += fill.qty
            news.append(fill)
        return news

    def _name(self, order: KnownOrder, venue_id: str) -> None:
        if venue_id:
            order.venue_id = venue_id
            self.learned(order.symbol, venue_id, order.client_id)

    def _remember(self, order: KnownOrder) -> KnownOrder:
        self._orders[order.client_id] = order
        if len(self._orders) > _MOST_ENDED:
            oldest = next((one for one in self._orders.values() if one.is_done), None)
            if oldest is not None:
                del self._orders[oldest.client_id]
                self._by_venue_id.pop((oldest.symbol, oldest.venue_id), None)
        return order


def _amended(order: KnownOrder, listing: Listing, row: Row, ts_ns: int) -> Sequence[Report]:
    price, qty = price_of(row), qty_of(listing, row)
    was, order.terms = order.terms, (price, qty)
    if price is None or was is None or was == (price, qty):
        return ()
    return (OrderAmended(order.client_id, price, qty, ts_ns),)
