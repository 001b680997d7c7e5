"""Orders on their way out: one request at a time about each order, cancels before everything else.

What an answer means is asked: many venues say yes to having taken a request in, and ccxt does not say which.
No answer, or one that does not say, is told as unanswered: the host asks by client id.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from decimal import Decimal
from typing import Any, Final

from host.api import (
    AmendOrder,
    AmendRejected,
    CancelOrder,
    CancelRejected,
    ExchangeError,
    OrderRejected,
    PlaceOrder,
    RejectReason,
    Report,
    RequestUnanswered,
    TimeInForce,
)

from .account_watch import AccountWatch
from .calls import CallFailed, Calls
from .numbers import BadData, as_float
from .order_finder import OrderFinder
from .order_tracker import KnownOrder, OrderTracker
from .params import EXCHANGE, Product
from .products import Listing, Listings
from .throttle import CANCEL, ORDER, Turn

__all__ = ["OrderCommand", "OrderEntry"]

OrderCommand = PlaceOrder | AmendOrder | CancelOrder

_LOOKS_S: Final = (0.0, 0.05, 0.2, 0.5, 1.0)
"""Pauses before each look at an order that a request has changed, if the venue took it in."""
_CANCEL: Final = Turn(CANCEL)
"""Late it does no harm."""


class OrderEntry:
    """Sends order commands, and reports what became of each."""

    def __init__(
        self,
        product: Product,
        listings: Listings,
        calls: Calls,
        tracker: OrderTracker,
        finder: OrderFinder,
        watch: AccountWatch,
        now_ns: Callable[[], int],
        report: Callable[[Report], None],
        spawn: Callable[[Coroutine[Any, Any, None], str], object],
    ) -> None:
        self._product: Final = product
        self._listings: Final = listings
        self._calls: Final = calls
        self._tracker: Final = tracker
        self._finder: Final = finder
        self._watch: Final = watch
        self._now_ns: Final = now_ns
        self._report: Final = report
        self._spawn: Final = spawn

    def send(self, command: OrderCommand, deadline_ns: int) -> None:
        """Send one command when it is its turn, an order until `deadline_ns` or not at all.

        Raises `ExchangeError` when it is certain already that nothing will be sent.
        """
        client_id = command.client_id
        if isinstance(command, PlaceOrder):
            listing = self._listings.listed(command.symbol)
            arguments = self._place_arguments(listing, command)
            order = self._tracker.placed(command)
            self._spawn(self._place(order, arguments, Turn(ORDER, deadline_ns)), f"place {client_id}")
            return
        listing = self._listings.known(command.symbol)
        order = self._tracker.known(client_id, command.symbol, command.venue_id)
        if isinstance(command, AmendOrder):
            amount = listing.sent_qty(command.qty)
            price = as_float(command.price, f"{command.symbol}: the price")
            terms = ("limit", command.side.value, amount, price)
            wanted = (command.price, command.qty)
            self._spawn(
                self._amend(order, listing, terms, wanted, Turn(ORDER, deadline_ns)), f"amend {client_id}"
            )
        else:
            order.is_cancelling = True
            self._spawn(self._cancel(order, listing), f"cancel {client_id}")

    def _place_arguments(self, listing: Listing, place: PlaceOrder) -> tuple[Any, ...]:
        if place.reduce_only and self._product is Product.SPOT:
            raise ExchangeError(
                f"{EXCHANGE}: {place.symbol}: reduce-only is for perpetuals; nothing was sent"
            )
        params: dict[str, Any] = {"clientOrderId": place.client_id}
        if place.post_only:
            params["postOnly"] = True
        elif place.price is not None and place.time_in_force is not TimeInForce.GTC:
            params["timeInForce"] = place.time_in_force.value.upper()
        if place.reduce_only:
            params["reduceOnly"] = True
        price = None if place.price is None else as_float(place.price, f"{place.symbol}: the price")
        kind = "market" if place.price is None else "limit"
        return listing.wire, kind, place.side.value, listing.sent_qty(place.qty), price, params

    # -- one request each ------------------------------------------------------------------------

    async def _place(self, order: KnownOrder, arguments: tuple[Any, ...], turn: Turn) -> None:
        async with self._changing(order):
            try:
                row = await self._calls(turn, "create_order", *arguments)
            except CallFailed as error:
                if error.is_unknown:
                    self._unanswered(order, error)
                else:
                    order.is_done = True
                    reason = error.verdict.reason
                    self._report(OrderRejected(order.client_id, reason, error.text, self._now_ns()))
                return
            if not row.get("id"):
                self._unanswered(order, "the answer has no order id")
                return
            for report in self._tracker.accepted(order, str(row["id"]), self._now_ns()):
                self._report(report)
        self._watch.look_soon(order.symbol)

    async def _cancel(self, order: KnownOrder, listing: Listing) -> None:
        async with self._changing(order):
            try:
                if not order.venue_id and not await self._learn_id(order, listing):
                    text = "the venue lists no such order"
                    reason = RejectReason.UNKNOWN_ORDER
                    self._report(CancelRejected(order.client_id, reason, text, self._now_ns()))
                    return
                await self._calls(_CANCEL, "cancel_order", order.venue_id, listing.wire)
            except CallFailed as error:
                if error.is_unknown:
                    self._unanswered(order, error)
                else:
                    reason = error.verdict.reason
                    self._report(CancelRejected(order.client_id, reason, error.text, self._now_ns()))
                    self._watch.look_soon(order.symbol)
                return
        await self._look_until(order, listing, lambda: order.is_done)

    async def _amend(
        self,
        order: KnownOrder,
        listing: Listing,
        terms: tuple[Any, ...],
        wanted: tuple[Decimal, Decimal],
        turn: Turn,
    ) -> None:
        async with self._changing(order):
            try:
                if not order.venue_id and not await self._learn_id(order, listing):
                    text, reason = "the venue lists no such order", RejectReason.UNKNOWN_ORDER
                    self._report(AmendRejected(order.client_id, reason, text, self._now_ns()))
                    return
                await self._calls(turn, "edit_order", order.venue_id, listing.wire, *terms)
            except CallFailed as error:
                if error.is_unknown:
                    self._unanswered(order, error)
                else:
                    reason = error.verdict.reason
                    self._report(AmendRejected(order.client_id, reason, error.text, self._now_ns()))
                return
            order.terms = order.terms or (
                None,
                Decimal(0),
            )  # whatever the host knows, this is other than that
        await self._look_until(order, listing, lambda: order.is_done or order.terms == wanted)

    async def _learn_id(self, order: KnownOrder, listing: Listing) -> bool:
        row = await self._finder.find(order.client_id, listing, _CANCEL)
        if row is None:
            return False
        order = self._tracker.known(order.client_id, order.symbol, str(row["id"]))
        return bool(order.venue_id)

    async def _look_until(self, order: KnownOrder, listing: Listing, is_so: Callable[[], bool]) -> None:
        """Look at an order until the venue shows what it was asked for; else that is not known."""
        try:
            for pause_s in _LOOKS_S:
                await asyncio.sleep(pause_s)
                if is_so():
                    return
                changes = order.changes
                row = await self._finder.by_venue_id(order.venue_id, listing, _CANCEL)
                await self._watch.take(order, listing, row, has_terms=order.changes == changes)
            if not is_so():
                self._unanswered(order, "the venue said yes, and shows no effect")
        except (CallFailed, BadData) as error:
            self._unanswered(order, error)

    @asynccontextmanager
    async def _changing(self, order: KnownOrder) -> AsyncIterator[None]:
        async with order.lock:
            order.changes += 1
            try:
                yield
            finally:
                order.changes += 1

    def _unanswered(self, order: KnownOrder, why: object) -> None:
        self._report(RequestUnanswered(order.client_id, str(why), self._now_ns()))
