"""The host's questions about the account, answered from REST.

An answer is as old as its question: that is the time it bears. A question without an answer is not
reported; the host puts it again.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable
from typing import Final

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
)

from .answers import (
    PositionRow,
    balances_of,
    near_liquidation,
    positions_of,
    read_balances,
    read_executions,
    read_orders,
    read_positions,
)
from .errors import UNKNOWN_ORDER_CODE
from .frames import BadFrame, ExecutionRow, OrderRow
from .order_codec import execution_of, is_live, snapshot_of, time_ns
from .products import EXCHANGE, Listings
from .rest_client import RestClient, VenueRefused

__all__ = ["AccountQueries", "Question"]

_log = logging.getLogger("tandem.okx")
Question = QueryOrder | QueryOpenOrders | QueryFills | QueryAccount

_PAGE: Final = 100
_RECENT_MS: Final = 3 * 24 * 3_600_000 - 60_000
"""How far back `fills` goes; further back there is `fills-history`, which is asked for less often."""


class AccountQueries:
    """Answers the host's questions.

    `host_ns` turns the venue's time into the host's, `venue_ms` the other way round. A position whose mark
    price is within `alarm_share` of its liquidation price is logged as an error.
    """

    def __init__(
        self,
        rest: RestClient,
        listings: Listings,
        now_ns: Callable[[], int],
        host_ns: Callable[[int], int],
        venue_ms: Callable[[int], int],
        report: Callable[[Report], None],
        alarm_share: float,
    ) -> None:
        self._alarm_share: Final = alarm_share
        self._rest: Final = rest
        self._listings: Final = listings
        self._now_ns: Final = now_ns
        self._host_ns: Final = host_ns
        self._venue_ms: Final = venue_ms
        self._report: Final = report
        self.failures = 0
        """How many questions got no answer."""

    async def answer(self, question: Question) -> None:
        """Ask the venue, and report the answer if there is one."""
        try:
            self._report(await self._answer(question))
        except ExchangeError as error:
            self.failures += 1
            _log.warning("%s: %s has no answer: %s", EXCHANGE, type(question).__name__, error)

    async def _answer(self, question: Question) -> Report:
        asked_ns = self._now_ns()
        if isinstance(question, QueryOrder):
            return await self._order(question, asked_ns)
        if isinstance(question, QueryOpenOrders):
            return OpenOrdersSnapshot(await self._open_orders(asked_ns), asked_ns)
        if isinstance(question, QueryFills):
            return FillsSnapshot(await self._fills(question.since_ns), asked_ns)
        balance, positions = await asyncio.gather(
            self._rest.ask("/api/v5/account/balance"), self._rest.ask("/api/v5/account/positions")
        )
        held = read_positions(positions.data)
        self._look_out(held)
        return AccountSnapshot(
            balances_of(read_balances(balance.data)), positions_of(self._listings, held), asked_ns
        )

    def _look_out(self, held: Iterable[PositionRow]) -> None:
        for row in held:
            if near_liquidation(row, self._alarm_share):
                _log.error(
                    "%s: %s: the mark price %s is close to the liquidation price %s; reduce the position",
                    EXCHANGE,
                    row.inst_id,
                    row.mark_px,
                    row.liq_px,
                )

    async def _order(self, question: QueryOrder, asked_ns: int) -> OrderSnapshot | OrderNotFound:
        listing = self._listings.known(question.symbol)
        try:
            answer = await self._rest.ask(
                "/api/v5/trade/order", {"instId": listing.inst_id, "clOrdId": question.client_id}
            )
        except VenueRefused as error:
            if error.code != UNKNOWN_ORDER_CODE:
                raise
            return OrderNotFound(question.client_id, asked_ns)
        for row in read_orders(answer.data):
            if row.cl_ord_id == question.client_id:
                return snapshot_of(listing, row, asked_ns)
        raise BadFrame("order of another id", f"asked for {question.client_id}")

    async def _open_orders(self, asked_ns: int) -> tuple[OrderSnapshot, ...]:
        rows: list[OrderRow] = []
        after: dict[str, str] = {}
        while True:
            answer = await self._rest.ask("/api/v5/trade/orders-pending", {"limit": str(_PAGE), **after})
            page = read_orders(answer.data)
            rows += page
            if len(page) < _PAGE:
                break
            after = {"after": page[-1].ord_id}
        found: dict[str, OrderSnapshot] = {}
        for row in rows:
            listing = self._listings.find(row.inst_id)
            if listing is not None and is_live(row):
                found[row.ord_id] = snapshot_of(listing, row, asked_ns)
        return tuple(found.values())

    async def _fills(self, since_ns: int) -> tuple[OrderFilled, ...]:
        begin_ms, now_ms = max(self._venue_ms(since_ns), 0), self._venue_ms(self._now_ns())
        is_recent = now_ms - begin_ms < _RECENT_MS
        rows: list[ExecutionRow] = []
        for product in ("SPOT", "SWAP"):
            rows += await self._executions(product, begin_ms, is_recent=is_recent)
        fills = []
        for row in reversed(rows):  # the venue's newest come first, also within a millisecond
            listing = self._listings.find(row.inst_id)
            if listing is not None and row.cl_ord_id:
                fills.append(execution_of(listing, row, self._host_ns(time_ns(row.ts))))
        return tuple(sorted(fills, key=lambda fill: fill.ts_ns))

    async def _executions(self, product: str, begin_ms: int, *, is_recent: bool) -> list[ExecutionRow]:
        path = "/api/v5/trade/fills" if is_recent else "/api/v5/trade/fills-history"
        query = {"instType": product, "limit": str(_PAGE)}
        if begin_ms:
            query["begin"] = str(begin_ms)
        rows: list[ExecutionRow] = []
        while True:
            answer = await self._rest.ask(path, query)
            page = read_executions(answer.data)
            rows += page
            if len(page) < _PAGE or query.get("after") == page[-1].bill_id:
                return rows
            query["after"] = page[-1].bill_id  # newest first: the next page is older
