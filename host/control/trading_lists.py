"""What a node's trading looks like now: orders, fills, positions, balances, books and limits, in pages.

Everything is read from the node's own memory, between two events: complete for what is live, bounded
for what is over (docs/trading-by-hand.md). The store has the rest.
"""

from collections.abc import Iterator
from decimal import Decimal
from itertools import chain
from typing import Final

from msgspec import Struct

from host.api import OrderStatus, Side
from host.control.call import Call
from host.control.convert_limits import limits_message
from host.control.convert_trading import (
    SIDES,
    STATUSES,
    balance_message,
    book_message,
    enum_of,
    fill_message,
    order_message,
    position_message,
    time_ns,
)
from host.control.names import child_of, id_of, read_scope
from host.control.paging import page_of
from host.control.reasons import Refused
from host.control.subject import HasEngine
from host.core.accounting import Holding
from host.runtime.engine import Engine
from host.runtime.feed import SymbolFeed
from host.runtime.scope import NotKnown
from tandem.v1 import trading_pb2 as pb

__all__ = ["Held", "TradingLists", "Wanted", "depth_of", "limits_scope", "parse_filter"]

MOST_LEVELS: Final = 100
USUAL_LEVELS: Final = 20


class Wanted(Struct, frozen=True):
    """Which orders, fills or positions a request is about; what is empty is not asked for."""

    account: str = ""
    instance: str = ""
    symbol: str = ""
    side: Side | None = None

    def takes(self, account: str, instance: str, symbol: str, side: Side | None) -> bool:
        """Return whether something is one of them."""
        return (
            (not self.account or self.account == account)
            and (not self.instance or self.instance == instance)
            and (not self.symbol or self.symbol == symbol)
            and (self.side is None or self.side is side)
        )


class Held(Struct, frozen=True):
    """What one instance holds in one symbol."""

    instance: str
    account: str
    symbol: str
    holding: Holding

    @property
    def side(self) -> Side | None:
        """Return what it would have been bought or sold for; None when flat."""
        return None if not self.holding.qty else Side.BUY if self.holding.qty > 0 else Side.SELL


def parse_filter(message: pb.TradingFilter) -> Wanted:
    """Return what a request's filter asks for; raise `Refused`."""
    account, instance = "", ""
    if message.account:
        account = id_of("filter.account", message.account, "accounts")
    if message.instance:
        instance = id_of("filter.instance", message.instance, "instances")
    side = enum_of("filter.side", message.side, SIDES) if message.side else None
    return Wanted(account, instance, message.symbol, side)


def depth_of(depth: int, usual: int) -> int:
    """Return how many levels are asked for; raise `Refused`."""
    if not 0 <= depth <= MOST_LEVELS:
        raise Refused.field("depth", f"expected 0 to {MOST_LEVELS}, was {depth}")
    return depth or usual


def limits_scope(field: str, name: str) -> str:
    """Return the scope of limits by their resource name; raise `Refused`."""
    scope, slash, rest = name.rpartition("/")
    if not slash or rest != "riskLimits":
        raise Refused.field(field, f'expected a scope and "/riskLimits", was {name[:300]!r}')
    return read_scope(field, scope)


class TradingLists:
    """The methods of `TradingService` that answer once and change nothing."""

    def __init__(self, subject: HasEngine) -> None:
        self._subject = subject

    @property
    def _engine(self) -> Engine:
        return self._subject.engine

    # -- orders and fills --------------------------------------------------------------------------

    def list_orders(self, request: pb.ListOrdersRequest, _call: Call) -> pb.ListOrdersResponse:
        """Return a page of orders, newest first."""
        wanted = parse_filter(request.filter)
        statuses = {enum_of("statuses", number, STATUSES) for number in request.statuses}
        since_ns = time_ns(request.since) if request.HasField("since") else None
        until_ns = time_ns(request.until) if request.HasField("until") else None
        state = self._engine.state
        done = state.retired.values() if request.include_done or _asks_for_done(statuses) else ()
        fitting = {
            (order.created_ns, order.client_id): order
            for order in chain(state.orders.values(), done)
            if wanted.takes(order.account, order.instance, order.symbol, order.side)
            and (not statuses or order.status in statuses)
            and (since_ns is None or order.created_ns >= since_ns)
            and (until_ns is None or order.created_ns < until_ns)
        }
        asked = (wanted, request.include_done, sorted(statuses), since_ns, until_ns)
        keys, token = page_of(list(fitting), request, *asked, descending=True)
        orders = [order_message(fitting[key]) for key in keys]
        return pb.ListOrdersResponse(orders=orders, next_page_token=token)

    def get_order(self, request: pb.GetOrderRequest, _call: Call) -> pb.GetOrderResponse:
        """Return one order."""
        client_id = id_of("name", request.name, "orders")
        return pb.GetOrderResponse(order=order_message(self._engine.by_hand.find(client_id)))

    def list_fills(self, request: pb.ListFillsRequest, _call: Call) -> pb.ListFillsResponse:
        """Return a page of fills, newest first."""
        wanted = parse_filter(request.filter)
        since_ns = time_ns(request.since) if request.HasField("since") else None
        until_ns = time_ns(request.until) if request.HasField("until") else None
        fitting = {
            (booked.lsn, booked.fill.trade_id): booked
            for booked in self._engine.fill_history.newest_first()
            if wanted.takes(booked.fill.account, booked.fill.instance, booked.fill.symbol, booked.fill.side)
            and (since_ns is None or booked.fill.ts_ns >= since_ns)
            and (until_ns is None or booked.fill.ts_ns < until_ns)
        }
        keys, token = page_of(list(fitting), request, wanted, since_ns, until_ns, descending=True)
        return pb.ListFillsResponse(fills=[fill_message(fitting[key]) for key in keys], next_page_token=token)

    # -- what is held ------------------------------------------------------------------------------

    def list_positions(self, request: pb.ListPositionsRequest, _call: Call) -> pb.ListPositionsResponse:
        """Return a page of positions, by name."""
        wanted = parse_filter(request.filter)
        fitting = {
            f"{one.instance}/{one.symbol}": one
            for one in self.held(wanted, include_flat=request.include_flat)
        }
        keys, token = page_of(list(fitting), request, wanted, request.include_flat)
        positions = [self.position(fitting[key]) for key in keys]
        return pb.ListPositionsResponse(positions=positions, next_page_token=token)

    def held(self, wanted: Wanted, *, include_flat: bool = False) -> Iterator[Held]:
        """Return the holdings of all instances that `wanted` takes."""
        state = self._engine.state
        for instance, by_symbol in state.holdings.items():
            record = state.instances.get(instance)
            if record is None:
                continue  # fills of unknown orders, which are no instance's
            for symbol, holding in by_symbol.items():
                one = Held(instance, record.account, symbol, holding)
                has_been = holding.qty or (include_flat and holding.fills)
                if has_been and wanted.takes(record.account, instance, symbol, one.side):
                    yield one

    def position(self, one: Held) -> pb.Position:
        """Return a holding at its present mark."""
        instrument = self._engine.state.instruments[one.account][one.symbol]
        return position_message(one.instance, one.account, instrument, one.holding, self.mark(one))

    def mark(self, one: Held) -> Decimal | None:
        """Return what a holding is valued at, None without a price to trust."""
        return self._engine.upkeep.mark(one.account, one.symbol)

    def list_balances(self, request: pb.ListBalancesRequest, _call: Call) -> pb.ListBalancesResponse:
        """Return a page of balances, by name."""
        wanted = self.account("account", request.account)
        fitting = {
            f"{account}/{currency}": (account, currency, total)
            for account, balances in self._engine.state.balances.items()
            if wanted in ("", account)
            for currency, total in balances.items()
        }
        keys, token = page_of(list(fitting), request, wanted)
        balances = [balance_message(*fitting[key]) for key in keys]
        return pb.ListBalancesResponse(balances=balances, next_page_token=token)

    def account(self, field: str, name: str) -> str:
        """Return the account that a request names, empty for none; raise `Refused` and `NotKnown`."""
        if not name:
            return ""
        account = id_of(field, name, "accounts")
        known = {*self._engine.feeds, *self._engine.state.balances}
        if account not in known:
            raise NotKnown("account", account, f"there are {', '.join(sorted(known)) or 'none'}")
        return account

    # -- books -------------------------------------------------------------------------------------

    def list_books(self, request: pb.ListBooksRequest, _call: Call) -> pb.ListBooksResponse:
        """Return a page of books, by name."""
        depth = depth_of(request.depth, 1)
        wanted = self.account("account", request.account)
        fitting = {
            f"{feed.account}/{symbol}": symbol_feed
            for feed in self._engine.feeds.values()
            if wanted in ("", feed.account)
            for symbol, symbol_feed in feed.symbols.items()
        }
        keys, token = page_of(list(fitting), request, wanted, depth)
        return pb.ListBooksResponse(
            books=[self.book(fitting[key], depth) for key in keys], next_page_token=token
        )

    def get_book(self, request: pb.GetBookRequest, _call: Call) -> pb.GetBookResponse:
        """Return one book."""
        depth = depth_of(request.depth, USUAL_LEVELS)
        return pb.GetBookResponse(book=self.book(self.symbol_feed("name", request.name), depth))

    def symbol_feed(self, field: str, name: str) -> SymbolFeed:
        """Return what follows the book that a request names; raise `Refused` and `NotKnown`."""
        account, symbol = child_of(field, name, "accounts", "books")
        feed = self._engine.feeds.get(account)
        found = None if feed is None else feed.symbols.get(symbol)
        if found is None:
            known = [f"accounts/{a}/books/{s}" for a, f in self._engine.feeds.items() for s in f.symbols]
            raise NotKnown("book", name, f"there are {', '.join(known) or 'none'}")
        return found

    def book(self, feed: SymbolFeed, depth: int) -> pb.Book:
        """Return a book as it is now."""
        instrument = self._engine.state.instruments.get(feed.account, {}).get(feed.symbol)
        return book_message(feed.account, feed.book, instrument, depth)

    # -- limits ------------------------------------------------------------------------------------

    def list_risk_limits(self, request: pb.ListRiskLimitsRequest, _call: Call) -> pb.ListRiskLimitsResponse:
        """Return a page of limits, by scope."""
        in_force = self._engine.risk_settings.in_force()
        scopes, token = page_of(list(in_force), request)
        messages = [limits_message(scope, in_force[scope]) for scope in scopes]
        return pb.ListRiskLimitsResponse(limits=messages, next_page_token=token)

    def get_risk_limits(self, request: pb.GetRiskLimitsRequest, _call: Call) -> pb.GetRiskLimitsResponse:
        """Return the limits of one scope."""
        scope = limits_scope("name", request.name)
        return pb.GetRiskLimitsResponse(
            limits=limits_message(scope, self._engine.risk_settings.limits(scope))
        )


def _asks_for_done(statuses: set[OrderStatus]) -> bool:
    return any(status.is_terminal for status in statuses)
