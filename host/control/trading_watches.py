"""Watching a node's trading: the state of whatever changed, a few times a second.

A watcher is looked after only when it has taken its last answer, and is then told the latest state of what
changed meanwhile, once. So a slow one costs the node nothing and loses no news of where things stand; one
that reads nothing at all is dropped by the front. Each single event is in `NodeService.WatchEvents`.
"""

import asyncio
from collections.abc import AsyncIterator, Iterable
from typing import Any, Final

from host.api import Order
from host.control.call import Call
from host.control.convert_trading import balance_message, fill_message, order_message
from host.control.plain import duration_ns
from host.control.reasons import Refused, check_count
from host.control.subject import HasEngine
from host.control.trading_lists import Held, TradingLists, Wanted, depth_of, parse_filter
from host.runtime.engine import Engine
from host.runtime.feed import SymbolFeed
from tandem.v1 import trading_pb2 as pb

__all__ = ["WATCH_EVERY_S", "TradingWatches"]

WATCH_EVERY_S: Final = 0.1
"""How often a watcher is told what changed."""
MOST_PER_ANSWER: Final = 500
"""Fills or orders in one message: a message must not grow beyond what clients take (4 MB)."""
MOST_NAMED: Final = 1000
"""Each book that is named is looked at in every interval."""
LEAST_BOOK_INTERVAL_S: Final = 0.05
USUAL_BOOK_INTERVAL_S: Final = 0.2


class OrderChanges:
    """What one watcher has been told of orders."""

    def __init__(self, engine: Engine, wanted: Wanted) -> None:
        self._engine = engine
        self._wanted = wanted
        self._told: dict[str, tuple[Any, ...]] = {}
        self._last_done = next(reversed(engine.state.retired), "")
        self._next_fill_lsn = engine.state.lsn + 1

    def open_orders(self) -> list[Order]:
        """Return every order that may still trade; they count as told."""
        return list(self._changed(self._engine.state.orders.values()))

    def since_last(self) -> list[Order]:
        """Return the orders that changed since the last call, also those that ended."""
        state = self._engine.state
        ended = {order.client_id: order for order in self._ended()}
        for client_id in [client_id for client_id in self._told if client_id not in state.orders]:
            del self._told[client_id]
            if client_id in state.retired:
                ended[client_id] = state.retired[client_id]
        # Traded before it ended, told after: such a fill changes an order that was over.
        for booked in self._engine.fill_history.since(self._next_fill_lsn):
            order = state.retired.get(booked.fill.client_id)
            if order is not None and self._takes(order):
                ended[order.client_id] = order
        self._next_fill_lsn = state.lsn + 1
        return [*self._changed(state.orders.values()), *ended.values()]

    def _changed(self, orders: Iterable[Order]) -> list[Order]:
        changed = []
        for order in orders:
            if not self._takes(order):
                continue
            now = (
                order.status, order.filled, order.price, order.qty,
                order.pending_price, order.pending_qty, order.venue_id, order.updated_ns,
            )  # fmt: skip
            if self._told.get(order.client_id) != now:
                self._told[order.client_id] = now
                changed.append(order)
        return changed

    def _ended(self) -> list[Order]:
        """Return the orders that ended since the last call, whether they were told of before or not."""
        found = []
        retired = self._engine.state.retired
        for client_id in reversed(retired):
            if client_id == self._last_done:
                break
            if self._takes(retired[client_id]):
                found.append(retired[client_id])
        self._last_done = next(reversed(retired), "")
        found.reverse()
        return found

    def _takes(self, order: Order) -> bool:
        return self._wanted.takes(order.account, order.instance, order.symbol, order.side)


class TradingWatches:
    """The methods of `TradingService` that go on answering."""

    def __init__(self, subject: HasEngine, lists: TradingLists) -> None:
        self._subject = subject
        self._lists = lists

    @property
    def _engine(self) -> Engine:
        return self._subject.engine

    async def watch_orders(
        self, request: pb.WatchOrdersRequest, _call: Call
    ) -> AsyncIterator[pb.WatchOrdersResponse]:
        """Send the open orders, then each one that changes."""
        changes = OrderChanges(self._engine, parse_filter(request.filter))
        orders, is_first = changes.open_orders(), True
        while True:
            for part in _parts(orders, at_least_one=is_first):
                yield pb.WatchOrdersResponse(
                    snapshot=is_first, orders=map(order_message, part), lsn=self._engine.state.lsn
                )
                is_first = False
            await asyncio.sleep(WATCH_EVERY_S)
            orders = changes.since_last()

    async def watch_fills(
        self, request: pb.WatchFillsRequest, _call: Call
    ) -> AsyncIterator[pb.WatchFillsResponse]:
        """Send fills as they are booked, each one, from a journal entry on."""
        wanted = parse_filter(request.filter)
        history, state = self._engine.fill_history, self._engine.state
        next_lsn = request.from_lsn or state.lsn + 1
        if not 0 < next_lsn <= state.lsn + 1:
            text = f"expected 1 to {state.lsn + 1}, was {next_lsn}"
            raise Refused.field("from_lsn", text, "LSN_TOO_NEW" if next_lsn > 0 else "INVALID_FIELD")
        is_first = True
        while True:
            if next_lsn < history.first_lsn:
                text = f"fills are kept here from entry {history.first_lsn} on, was asked for {next_lsn}"
                raise Refused(
                    "LSN_TOO_OLD", f"{text}; the store has older ones", first_lsn=str(history.first_lsn)
                )
            booked, up_to = history.since(next_lsn), state.lsn
            booked = [
                one
                for one in booked
                if wanted.takes(one.fill.account, one.fill.instance, one.fill.symbol, one.fill.side)
            ]
            for part in _parts(booked, at_least_one=is_first):
                is_first = False  # the first one says where to resume, whether there are fills or not
                is_last = not part or part[-1] is booked[-1]
                next_lsn = up_to + 1 if is_last else part[-1].lsn + 1
                yield pb.WatchFillsResponse(fills=map(fill_message, part), next_lsn=next_lsn)
            next_lsn = up_to + 1
            await asyncio.sleep(WATCH_EVERY_S)

    async def watch_positions(
        self, request: pb.WatchPositionsRequest, _call: Call
    ) -> AsyncIterator[pb.WatchPositionsResponse]:
        """Send all positions, then each one that changes, in value too."""
        wanted = parse_filter(request.filter)
        told: dict[tuple[str, str], tuple[Any, ...]] = {}
        is_first = True
        while True:
            changed: list[Held] = []
            for one in self._lists.held(wanted, include_flat=True):
                holding, key = one.holding, (one.instance, one.symbol)
                now = (
                    holding.qty,
                    holding.cash,
                    holding.open_cost,
                    dict(holding.fees),
                    self._lists.mark(one),
                )
                if holding.qty or key in told:
                    if told.get(key) != now:
                        changed.append(one)
                    told[key] = now
            for part in _parts(changed, at_least_one=is_first):
                yield pb.WatchPositionsResponse(
                    snapshot=is_first, positions=map(self._lists.position, part), lsn=self._engine.state.lsn
                )
                is_first = False
            await asyncio.sleep(WATCH_EVERY_S)

    async def watch_balances(
        self, request: pb.WatchBalancesRequest, _call: Call
    ) -> AsyncIterator[pb.WatchBalancesResponse]:
        """Send all balances, then each one that changes."""
        wanted = self._lists.account("account", request.account)
        told: dict[tuple[str, str], Any] = {}
        is_first = True
        while True:
            changed = []
            for account, balances in self._engine.state.balances.items():
                for currency, total in balances.items() if wanted in ("", account) else ():
                    if told.get((account, currency)) != total:
                        told[account, currency] = total
                        changed.append(balance_message(account, currency, total))
            for part in _parts(changed, at_least_one=is_first):
                yield pb.WatchBalancesResponse(snapshot=is_first, balances=part, lsn=self._engine.state.lsn)
                is_first = False
            await asyncio.sleep(WATCH_EVERY_S)

    async def watch_books(
        self, request: pb.WatchBooksRequest, _call: Call
    ) -> AsyncIterator[pb.WatchBooksResponse]:
        """Send books as they change, each at most once per interval."""
        depth = depth_of(request.depth, 1)
        interval_s = (
            duration_ns(request.interval) / 1e9 if request.HasField("interval") else USUAL_BOOK_INTERVAL_S
        )
        if interval_s < LEAST_BOOK_INTERVAL_S:
            text = f"expected at least {LEAST_BOOK_INTERVAL_S} s, was {interval_s:g} s"
            raise Refused.field("interval", text)
        check_count("names", len(request.names), MOST_NAMED)
        named = [self._lists.symbol_feed("names", name) for name in request.names]
        told: dict[tuple[str, str], tuple[Any, ...]] = {}
        while True:
            changed = []
            for feed in named or self._followed():
                now = (feed.book.top, feed.book.seq, feed.book.top_fault)
                if told.get((feed.account, feed.symbol)) != now:
                    told[feed.account, feed.symbol] = now
                    changed.append(self._lists.book(feed, depth))
            for part in _parts(changed):
                yield pb.WatchBooksResponse(books=part)
            await asyncio.sleep(interval_s)

    def _followed(self) -> list[SymbolFeed]:
        return [one for feed in self._engine.feeds.values() for one in feed.symbols.values()]


def _parts(changed: list[Any], *, at_least_one: bool = False) -> list[list[Any]]:
    """Return what changed in parts of a size that fits a message; one that is empty where one has to be."""
    parts = [changed[at : at + MOST_PER_ANSWER] for at in range(0, len(changed), MOST_PER_ANSWER)]
    return parts or ([[]] if at_least_one else [])
