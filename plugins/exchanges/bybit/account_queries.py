"""The host's questions about the account, answered from REST.

An answer is as old as its question: that is the time it bears. A question without an answer is not
reported; the host puts it again.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeVar

from host.api import (
    AccountSnapshot,
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
    Report,
    VenuePosition,
)

from . import queries
from .answers import (
    PositionPage,
    balances_of,
    near_liquidation,
    positions_of,
    read_executions,
    read_orders,
    read_positions,
    read_wallet,
)
from .frames import BadFrame, OrderRow
from .order_codec import MS, fill_of, is_live, is_trade, snapshot_of
from .products import EXCHANGE, Listings, Product
from .rest_client import RestClient

__all__ = ["AccountQueries", "Question"]

_log = logging.getLogger("tandem.bybit")

Question = QueryOrder | QueryOpenOrders | QueryFills | QueryAccount
T = TypeVar("T")

_WEEK_MS: Final = 7 * 24 * 3_600_000
"""The longest time that one question about executions may span."""
_MOST_WEEKS: Final = 13
"""How far back executions are asked for; older ones are in statements."""


class AccountQueries:
    """Answers the host's questions for the products that are configured.

    `host_ns` turns the venue's time into the host's, `venue_ms` the other way round.
    """

    def __init__(
        self,
        rest: RestClient,
        listings: Listings,
        products: tuple[Product, ...],
        now_ns: Callable[[], int],
        host_ns: Callable[[int], int],
        venue_ms: Callable[[int], int],
        report: Callable[[Report], None],
        alarm_share: float,
    ) -> None:
        self._rest: Final = rest
        self._listings: Final = listings
        self._parts: Final = [
            (product, coin) for product in products for coin in queries.SETTLE_COINS[product]
        ]
        self._products: Final = products
        self._now_ns: Final = now_ns
        self._host_ns: Final = host_ns
        self._venue_ms: Final = venue_ms
        self._report: Final = report
        self._alarm_share: Final = alarm_share
        self.failures = 0
        """How many questions got no answer."""

    async def answer(self, question: Question) -> None:
        """Ask the venue, and report the answer if there is one."""
        try:
            self._report(await self._answer(question))
        except (ExchangeError, BadFrame) as error:
            self.failures += 1
            _log.warning("%s: %s has no answer: %s", EXCHANGE, type(question).__name__, error)

    async def _answer(self, question: Question) -> Report:
        asked_ns = self._now_ns()
        if isinstance(question, QueryOrder):
            return await self._order(question, asked_ns)
        if isinstance(question, QueryOpenOrders):
            found = await _all(self._open_orders(product, coin, asked_ns) for product, coin in self._parts)
            return OpenOrdersSnapshot(tuple(found), asked_ns)
        if isinstance(question, QueryFills):
            fills = await _all(self._fills(product, question.since_ns) for product in self._products)
            return FillsSnapshot(tuple(sorted(fills, key=lambda fill: fill.ts_ns)), asked_ns)
        wallet, positions = await asyncio.gather(
            self._rest.ask(queries.wallet()),
            _all(self._positions(p, coin) for p, coin in self._parts if p is not Product.SPOT),
        )
        return AccountSnapshot(balances_of(read_wallet(wallet.result)), tuple(positions), asked_ns)

    async def _order(self, question: QueryOrder, asked_ns: int) -> OrderSnapshot | OrderNotFound:
        listing = self._listings.known(question.symbol)
        for path in (queries.ORDER_NOW, queries.ORDER_HISTORY):
            answer = await self._rest.ask(queries.order_by_link_id(path, listing, question.client_id))
            for row in read_orders(answer.result).list:
                if row.order_link_id == question.client_id:
                    return snapshot_of(listing, row, asked_ns)
        return OrderNotFound(question.client_id, asked_ns)

    async def _open_orders(self, product: Product, coin: str, asked_ns: int) -> list[OrderSnapshot]:
        orders: list[OrderSnapshot] = []

        def take(result: Any) -> tuple[int, str]:
            page = read_orders(result)
            orders.extend(
                self._resting(product, row, asked_ns) for row in page.list if self._is_resting(product, row)
            )
            return len(page.list), page.next_page_cursor

        await self._pages(lambda cursor: queries.open_orders(product, coin, cursor), take)
        return orders

    def _is_resting(self, product: Product, row: OrderRow) -> bool:
        return is_live(row) and self._listings.find(product, row.symbol) is not None

    def _resting(self, product: Product, row: OrderRow, asked_ns: int) -> OrderSnapshot:
        listing = self._listings.find(product, row.symbol)
        assert listing is not None, "looked up before"
        return snapshot_of(listing, row, asked_ns)

    async def _fills(self, product: Product, since_ns: int) -> list[OrderFilled]:
        now_ms = self._venue_ms(self._now_ns()) + 1_000  # what the venue stamps now is not in our future
        start_ms = (
            max(self._venue_ms(since_ns), now_ms - _MOST_WEEKS * _WEEK_MS) if since_ns else now_ms - _WEEK_MS
        )
        fills: list[OrderFilled] = []

        def take(result: Any) -> tuple[int, str]:
            page = read_executions(result)
            for row in page.list:
                listing = self._listings.find(product, row.symbol)
                if listing is not None and row.order_link_id and is_trade(row):
                    fills.append(fill_of(listing, row, self._host_ns(row.exec_time * MS)))
            return len(page.list), page.next_page_cursor

        while start_ms < now_ms:
            end_ms = min(start_ms + _WEEK_MS, now_ms)
            await self._pages(_executions(product, start_ms, end_ms), take)
            start_ms = end_ms
        return fills

    async def _positions(self, product: Product, coin: str) -> list[VenuePosition]:
        positions: list[VenuePosition] = []

        def take(result: Any) -> tuple[int, str]:
            page = read_positions(result)
            self._look_out(product, page)
            positions.extend(positions_of(self._listings, product, page))
            return len(page.list), page.next_page_cursor

        await self._pages(lambda cursor: queries.positions(product, coin, cursor), take)
        return positions

    def _look_out(self, product: Product, page: PositionPage) -> None:
        for row in page.list:
            if near_liquidation(row, self._alarm_share):
                _log.error(
                    "%s: %s %s: the mark price %s is close to the liquidation price %s; reduce the position",
                    EXCHANGE,
                    product,
                    row.symbol,
                    row.mark_price,
                    row.liq_price,
                )

    async def _pages(
        self, query: Callable[[str], queries.Query], take: Callable[[Any], tuple[int, str]]
    ) -> None:
        """Ask page after page; the last one names no next, or the same, or is empty."""
        cursor = ""
        while True:
            answer = await self._rest.ask(query(cursor))
            rows, following = take(answer.result)
            if not rows or not following or following == cursor:
                return
            cursor = following


def _executions(product: Product, start_ms: int, end_ms: int) -> Callable[[str], queries.Query]:
    return lambda cursor: queries.executions(product, start_ms, end_ms, cursor)


async def _all(parts: Any) -> list[Any]:
    """Wait for every part; the first that fails fails the whole, for a part is no answer."""
    awaitables: list[Awaitable[list[Any]]] = list(parts)
    return [item for found in await asyncio.gather(*awaitables) for item in found]
