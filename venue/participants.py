"""The contract between a live market and whoever trades in it besides the accounts.

A `LiveMarket` asks its participants when they next want to act, and at that time lets them look at
the book and answer with actions, which it carries out in order at that same instant. Participants
are deterministic: they draw from their own seeded generator and see nothing but the book.
"""

from collections.abc import Sequence
from decimal import Decimal
from typing import Protocol

from msgspec import Struct

from host.api import OrderType, Side, TimeInForce
from venue.market import VenueOrder

__all__ = ["Action", "BookView", "CancelResting", "Participants", "SubmitOrder"]


class SubmitOrder(Struct, frozen=True, gc=False):
    """Send an order. `price` is None for a market order; both numbers must be on the instrument's grid."""

    side: Side
    type: OrderType
    price: Decimal | None
    qty: Decimal
    time_in_force: TimeInForce = TimeInForce.GTC
    post_only: bool = False


class CancelResting(Struct, frozen=True):
    """Take one of `BookView.own_orders` out; no effect on an order that is already done."""

    order: VenueOrder


Action = SubmitOrder | CancelResting


class BookView(Protocol):
    """What participants see of the book: everybody's sizes, and their own orders.

    A view is live: it shows the book as it is while `act` runs, before any of the actions that
    `act` will return.
    """

    @property
    def own_orders(self) -> Sequence[VenueOrder]:
        """The participants' resting orders, in an arbitrary but repeatable order; read only.

        Indexing is O(1), so a random one is cheap to pick.
        """

    def best_bid(self) -> Decimal | None:
        """Return the highest bid price, None where there is none."""

    def best_ask(self) -> Decimal | None:
        """Return the lowest ask price, None where there is none."""

    def size_at(self, side: Side, price: Decimal) -> Decimal:
        """Return the total resting quantity at one price, zero where there is none."""

    def levels(self, side: Side, count: int) -> list[tuple[Decimal, Decimal]]:
        """Return up to `count` (price, size) levels, best first."""


class Participants(Protocol):
    """A deterministic crowd. The market calls `act` exactly at the times that `next_time_ns` named."""

    def next_time_ns(self) -> int:
        """Return when to call `act` next; later than the previous `act` by at least 1 ns."""

    def act(self, book: BookView, now_ns: int) -> list[Action]:
        """Return what to do at `now_ns`, in order; an empty list to do nothing."""
