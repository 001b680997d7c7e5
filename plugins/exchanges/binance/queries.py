"""What the host asks, answered over REST."""

import logging
from collections import OrderedDict
from collections.abc import Sequence
from decimal import Decimal
from typing import Final

import msgspec

from host.api import (
    AccountSnapshot,
    AdapterContext,
    ExchangeError,
    FillsSnapshot,
    OpenOrdersSnapshot,
    OrderFilled,
    OrderNotFound,
    OrderSnapshot,
    QueryAccount,
    QueryFills,
    QueryOpenOrders,
    QueryOrder,
    RejectReason,
    Report,
    RequestUnanswered,
)

from .._shared.numbers import require_finite
from .._shared.symbols import SymbolTable
from .answers import (
    PositionView,
    TradeView,
    account_snapshot,
    decode_account,
    decode_order,
    decode_orders,
    decode_positions,
    decode_trades,
    fill,
    order_snapshot,
)
from .products import Endpoint, Product
from .rest_calls import RestCalls, VenueRefused
from .signed import Params

__all__ = ["OrderIds", "Queries", "Query"]

_log = logging.getLogger("tandem.exchange")
_MS: Final = 1_000_000
_PAGE: Final = 1000
_MOST_WINDOWS: Final = 25
"""How many spans of history one question for fills goes back at most: USDⓈ-M keeps half a year."""
_IDS_KEPT: Final = 100_000
POSITIONS: Final = Endpoint("GET", "/fapi/v3/positionRisk", 5)

Query = QueryOrder | QueryOpenOrders | QueryFills | QueryAccount


class OrderIds:
    """Our client ids by the venue's order ids: lists of trades name only the latter."""

    def __init__(self) -> None:
        self._client_ids: OrderedDict[int, str] = OrderedDict()

    def learn(self, order_id: int, client_id: str) -> None:
        """Remember an order; the oldest are forgotten."""
        self._client_ids[order_id] = client_id
        if len(self._client_ids) > _IDS_KEPT:
            self._client_ids.popitem(last=False)

    def find(self, order_id: int) -> str | None:
        """Return the client id of an order, None where it is not known."""
        return self._client_ids.get(order_id)


class Queries:
    """Answers queries. Each is one coroutine that ends with one report, whatever happens."""

    def __init__(
        self, product: Product, ctx: AdapterContext, calls: RestCalls, table: SymbolTable, ids: OrderIds
    ) -> None:
        self._product: Final = product
        self._ctx: Final = ctx
        self._calls: Final = calls
        self._table: Final = table
        self._ids: Final = ids
        self.symbols: list[str] = []
        """Whose fills are asked for: those that are traded."""

    async def answer(self, command: Query) -> None:
        """Ask the venue and report what it said, or that it said nothing of use."""
        asked_ns = self._ctx.now_ns()
        report: Report
        try:
            report = await self._ask(command, asked_ns)
        except (ExchangeError, msgspec.MsgspecError, ValueError) as error:
            client_id = command.client_id if isinstance(command, QueryOrder) else ""
            report = RequestUnanswered(client_id, f"{type(command).__name__}: {error}", self._ctx.now_ns())
        self._ctx.report(report)

    async def _ask(self, command: Query, asked_ns: int) -> Report:
        if isinstance(command, QueryOrder):
            return await self._order(command, asked_ns)
        if isinstance(command, QueryOpenOrders):
            return await self._open_orders(asked_ns)
        if isinstance(command, QueryFills):
            return await self._fills(command.since_ns, asked_ns)
        return await self._account(asked_ns)

    async def _order(self, command: QueryOrder, asked_ns: int) -> OrderSnapshot | OrderNotFound:
        params: Params = {"origClientOrderId": command.client_id}
        try:
            body = await self._for_symbol(self._product.order, command.symbol, params, asked_ns)
        except VenueRefused as refused:
            if refused.verdict.reason is RejectReason.UNKNOWN_ORDER:
                return OrderNotFound(command.client_id, asked_ns)
            raise
        view = decode_order(body)
        self._ids.learn(view.orderId, view.clientOrderId)
        return order_snapshot(view, command.symbol, asked_ns)

    async def _open_orders(self, asked_ns: int) -> OpenOrdersSnapshot:
        views = decode_orders(await self._calls.signed(self._product.open_orders, {}, asked_ns))
        orders = []
        for view in views:
            self._ids.learn(view.orderId, view.clientOrderId)
            symbol = self._table.to_tandem(view.symbol)
            if symbol is not None:
                orders.append(order_snapshot(view, symbol, asked_ns))
        return OpenOrdersSnapshot(tuple(orders), asked_ns)

    async def _account(self, asked_ns: int) -> AccountSnapshot:
        account = decode_account(await self._calls.signed(self._product.account, {}, asked_ns))
        return account_snapshot(account, await self.positions(asked_ns), self._table.to_tandem, asked_ns)

    async def positions(self, asked_ns: int) -> Sequence[PositionView]:
        """Return the positions; none on spot. Raises `ValueError` for a number that is none."""
        if self._product.is_spot:
            return ()
        positions = decode_positions(await self._calls.signed(POSITIONS, {}, asked_ns))
        for position in positions:
            require_finite(position.symbol, liquidation=position.liquidationPrice, mark=position.markPrice)
        return positions

    async def fills_of(self, symbol: str, since_ns: int, asked_ns: int) -> list[TradeView]:
        """Return the account's trades in one symbol since a time, oldest first.

        One question spans a day on spot and seven on USDⓈ-M at most, so a longer time is asked for in
        spans, and a full page is followed by the next.
        """
        span_ns = self._product.history_ns
        earliest_ns = asked_ns - _MOST_WINDOWS * span_ns
        if since_ns < earliest_ns:
            if since_ns > 0:
                _log.warning(
                    "%s: fills from before %d days are not asked for",
                    symbol,
                    (asked_ns - earliest_ns) // (24 * 3600 * 10**9),
                )
            since_ns = earliest_ns
        found: dict[int, TradeView] = {}
        begin_ns = since_ns
        while begin_ns <= asked_ns:
            end_ns = begin_ns + span_ns
            params: Params = {"endTime": end_ns // _MS - 1, "limit": _PAGE, "startTime": begin_ns // _MS}
            page = decode_trades(await self._for_symbol(self._product.my_trades, symbol, params, asked_ns))
            found.update((trade.id, trade) for trade in page)
            if len(page) < _PAGE:
                begin_ns = end_ns
            else:
                # Trades of the same millisecond may be on both pages: `found` holds each once.
                newest_ns = max(trade.time for trade in page) * _MS
                begin_ns = newest_ns if newest_ns > begin_ns else begin_ns + _MS
        return [found[trade_id] for trade_id in sorted(found)]

    async def _fills(self, since_ns: int, asked_ns: int) -> FillsSnapshot:
        fills: list[OrderFilled] = []
        for symbol in self.symbols:
            for view in await self.fills_of(symbol, since_ns, asked_ns):
                client_id = self._ids.find(view.orderId)
                if client_id is None:
                    client_id = await self._client_id_of(view.orderId, symbol, asked_ns)
                fills.append(fill(view, client_id, symbol))
        fills.sort(key=lambda item: item.ts_ns)
        return FillsSnapshot(tuple(fills), asked_ns)

    async def _client_id_of(self, order_id: int, symbol: str, asked_ns: int) -> str:
        """Return the client id of an order that we have not seen; empty where the venue has forgotten it."""
        try:
            view = decode_order(
                await self._for_symbol(self._product.order, symbol, {"orderId": order_id}, asked_ns)
            )
        except VenueRefused as refused:
            if refused.verdict.reason is not RejectReason.UNKNOWN_ORDER:
                raise
            return ""
        self._ids.learn(order_id, view.clientOrderId)
        return view.clientOrderId

    async def _for_symbol(self, endpoint: Endpoint, symbol: str, params: Params, asked_ns: int) -> bytes:
        return await self._calls.signed(
            endpoint, {**params, "symbol": self._table.to_venue(symbol)}, asked_ns
        )

    async def account_fees(self) -> tuple[Decimal, Decimal] | None:
        """Return the account's maker and taker rates where the venue tells them; None otherwise."""
        now_ns = self._ctx.now_ns()
        account = decode_account(await self._calls.signed(self._product.account, {}, now_ns))
        rates = account.commissionRates
        return None if rates is None else (rates.maker, rates.taker)
