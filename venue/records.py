"""What the venue remembers of one account's orders and fills, within fixed bounds.

Open orders are always kept. Of the closed ones the last `CLOSED_ORDERS` can be queried, and of the
fills the last `FILLS`; older ones are forgotten, as real venues do after some days.
"""

from collections import OrderedDict, deque
from collections.abc import Iterator
from decimal import Decimal
from hashlib import blake2b
from typing import Any

from msgspec import Struct

from host.api import OrderFilled, OrderSnapshot, OrderStatus, OrderType
from venue.market import VenueOrder

__all__ = ["CLOSED_ORDERS", "FILLS", "IDS_PER_GENERATION", "OrderRecord", "Records"]

CLOSED_ORDERS = 10_000
FILLS = 10_000
IDS_PER_GENERATION = 100_000
"""A client id is refused as a duplicate for at least this many further orders, and never after twice that."""


class OrderRecord(Struct):
    """An order with what the market does not know: how it ended."""

    order: VenueOrder
    end: OrderStatus | None = None
    """None while open or once filled; otherwise CANCELLED or EXPIRED."""
    updated_ns: int = 0
    booked: Decimal = Decimal(0)
    """What of `order.filled` is booked on the account: while a batch is booked, less than all of it."""
    quote_filled: Decimal = Decimal(0)
    """The sum of price × quantity over the fills."""
    terms: Any = None
    """What the protocol that took the order wants to remember of it."""

    @property
    def status(self) -> OrderStatus:
        """Return the venue's word on the order."""
        order = self.order
        if self.end is not None:
            return self.end
        if order.filled >= order.qty:
            return OrderStatus.FILLED
        return OrderStatus.PARTIALLY_FILLED if order.filled else OrderStatus.OPEN

    def snapshot(self, now_ns: int) -> OrderSnapshot:
        """Return the order as a query reports it; a market order's protective price is not shown."""
        order = self.order
        price = None if order.type is OrderType.MARKET else order.price
        return OrderSnapshot(
            order.client_id,
            str(order.order_id),
            order.symbol,
            order.side,
            price,
            order.qty,
            order.filled,
            self.status,
            now_ns,
        )


class _SeenIds:
    """Client ids used before, as 64-bit hashes in two generations, so that memory stays bounded.

    Two different ids collide with a probability of about 1e-14 per order at the full bound.
    """

    def __init__(self) -> None:
        self._young: set[int] = set()
        self._old: set[int] = set()

    def __contains__(self, client_id: str) -> bool:
        digest = _digest(client_id)
        return digest in self._young or digest in self._old

    def add(self, client_id: str) -> None:
        if len(self._young) >= IDS_PER_GENERATION:
            self._old = self._young
            self._young = set()
        self._young.add(_digest(client_id))


class Records:
    """The orders, fills and used ids of one account."""

    def __init__(self) -> None:
        self._open: dict[str, OrderRecord] = {}
        self._closed: OrderedDict[int, OrderRecord] = OrderedDict()
        self._by_order_id: dict[int, OrderRecord] = {}
        # Several closed orders may have had one client id: the last of them is the one that it names.
        self._last_closed: dict[str, OrderRecord] = {}
        self._fills: deque[OrderFilled] = deque(maxlen=FILLS)
        self._realised: dict[str, Decimal] = {}
        self._seen = _SeenIds()

    def is_used(self, client_id: str) -> bool:
        """Return whether an order with this id was ever sent, rejected ones included."""
        return client_id in self._open or client_id in self._seen

    def use(self, client_id: str) -> None:
        """Remember that this id is taken."""
        self._seen.add(client_id)

    def add(self, order: VenueOrder, terms: Any = None) -> OrderRecord:
        """Keep a new open order."""
        record = OrderRecord(order, updated_ns=order.created_ns, terms=terms)
        self._open[order.client_id] = self._by_order_id[order.order_id] = record
        return record

    def find(self, client_id: str) -> OrderRecord | None:
        """Return the order, open or closed; None when it is unknown or forgotten."""
        return self._open.get(client_id) or self._last_closed.get(client_id)

    def find_open(self, client_id: str) -> OrderRecord | None:
        """Return the order only while it is open."""
        return self._open.get(client_id)

    def find_by_order_id(self, order_id: int) -> OrderRecord | None:
        """Return the order with the venue's own number, open or closed."""
        return self._by_order_id.get(order_id)

    def open(self) -> Iterator[OrderRecord]:
        """Iterate over the open orders, oldest first; safe against changes while iterating."""
        return iter(list(self._open.values()))

    def all(self) -> list[OrderRecord]:
        """Return every order that is remembered, by the venue's number."""
        return sorted(self._by_order_id.values(), key=lambda record: record.order.order_id)

    def close(self, client_id: str, end: OrderStatus | None, now_ns: int) -> None:
        """Move an open order to the closed ones; `end` is None where it was filled."""
        record = self._open.pop(client_id)
        record.end = end
        record.updated_ns = now_ns
        self._closed[record.order.order_id] = self._last_closed[client_id] = record
        if len(self._closed) > CLOSED_ORDERS:
            _, oldest = self._closed.popitem(last=False)
            self._by_order_id.pop(oldest.order.order_id, None)
            if self._last_closed.get(oldest.order.client_id) is oldest:
                del self._last_closed[oldest.order.client_id]

    def add_fill(self, fill: OrderFilled, realised: Decimal = Decimal(0)) -> None:
        """Keep one fill, with the profit that it realised on a perpetual."""
        if len(self._fills) == FILLS:
            self._realised.pop(self._fills[0].trade_id, None)
        self._fills.append(fill)
        if realised:
            self._realised[fill.trade_id] = realised

    def realised(self, trade_id: str) -> Decimal:
        """Return the profit that a fill realised, zero for one that realised none or is forgotten."""
        return self._realised.get(trade_id, Decimal(0))

    def fills_since(self, since_ns: int) -> tuple[OrderFilled, ...]:
        """Return the fills at or after `since_ns`, oldest first."""
        return tuple(fill for fill in self._fills if fill.ts_ns >= since_ns)


def _digest(client_id: str) -> int:
    return int.from_bytes(blake2b(client_id.encode(), digest_size=8).digest(), "big")
