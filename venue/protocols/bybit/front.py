"""Bybit v5 as a protocol of the venue: REST and the public, private and order-entry WebSockets.

| module | what it knows |
|---|---|
| `names`, `order_rows`, `account_rows`, `market_rows`, `refusals` | how the venue writes things |
| `reading`, `keys`, `limits` | what is asked, by whom, in time, and not too often |
| `orders`, `account_queries`, `market_queries` | what is done and answered |
| `books`, `public_streams`, `private_streams`, `disconnects` | what is pushed, and what a silence sets off |
"""

import asyncio
from http import HTTPStatus
from typing import Any, Final

from host.api import CancelOrder, MarketEvent
from venue.execution import ExecutionReport
from venue.perpetuals import FundingPayment
from venue.protocols.bybit.account_queries import AccountQueries
from venue.protocols.bybit.disconnects import DisconnectCancel
from venue.protocols.bybit.keys import DEFAULT_WINDOW_MS, check_login, check_time, signed_by, whole
from venue.protocols.bybit.ledger_view import LedgerView
from venue.protocols.bybit.limits import BybitLimits
from venue.protocols.bybit.market_queries import MarketQueries
from venue.protocols.bybit.members import Member, Members
from venue.protocols.bybit.names import Product, Symbols
from venue.protocols.bybit.orders import OrderDesk
from venue.protocols.bybit.private_streams import PrivateStreams
from venue.protocols.bybit.public_streams import PublicStreams
from venue.protocols.bybit.reading import (
    ORDER_OPS,
    PROTOCOL,
    frame_args,
    is_public,
    read_frame,
    read_rest,
)
from venue.protocols.bybit.refusals import (
    BAD_PARAMETER,
    NO_PERMISSION,
    SERVER_ERROR,
    TOO_MANY,
    UNKNOWN_OP,
    Refused,
)
from venue.protocols.connection import Connection
from venue.protocols.faults import Fault, FaultKind
from venue.protocols.front import Desk, Front
from venue.protocols.requests import Entry, Kind, Raw, Reply, Request, Verdict

__all__ = ["BybitFront"]

_MS: Final = 1_000_000
_PUBLIC_PATH: Final = "/v5/public/"
_PRIVATE_PATH: Final = "/v5/private"
_TRADE_PATH: Final = "/v5/trade"
_BUSY: Final = "Too many visits. Exceeded the API Rate Limit."


class BybitFront(Front):
    """Speaks Bybit v5."""

    name = PROTOCOL

    def __init__(self, desk: Desk) -> None:
        super().__init__(desk)
        self._symbols = Symbols(desk.exchange.instruments)
        self._members = Members(desk.accounts, self._symbols)
        self._ledger = LedgerView(
            desk.exchange,
            self._symbols,
            desk.feed,
            lambda market_ns: desk.shown_ns(market_ns) // _MS,
        )
        self._market = MarketQueries(desk, self._symbols)
        self._account = AccountQueries(desk, self._symbols, self._ledger)
        self._public = PublicStreams(desk, self._symbols, self._market)
        self._private = PrivateStreams(desk, self._symbols, self._ledger)
        self._orders = OrderDesk(desk, self._symbols, self._ledger, self._private.push_late_cancel)
        self._limits = BybitLimits()
        self._disconnects = DisconnectCancel(self._private.has, self._cancel_product)
        self._cancelling: set[asyncio.Task[None]] = set()

    # -- requests --------------------------------------------------------------------------------

    def read(self, raw: Raw, arrived_ns: int) -> Request:
        """Return what a request asks for, without judging it."""
        if raw.connection is not None:
            return read_frame(raw, arrived_ns)
        account = self.desk.accounts.by_key(raw.headers.get("x-bapi-api-key", ""))
        return read_rest(raw, "" if account is None else account.name, arrived_ns)

    async def answer(self, request: Request) -> Reply | None:
        """Judge a request, carry it out and return the answer."""
        if request.raw.connection is None:
            return await self._answer_rest(request)
        # A login before it may have been carried out only now.
        request.account = request.account or request.raw.connection.account
        if request.raw.connection.path == _TRADE_PATH:
            return await self._answer_trade_frame(request, request.raw.connection)
        return self._answer_stream_frame(request, request.raw.connection)

    def failure(self, fault: Fault, request: Request) -> Reply:
        """Return how Bybit says that it is broken, too busy or being serviced."""
        if fault.kind is FaultKind.RATE_LIMIT:
            code, text, status = TOO_MANY, _BUSY, fault.status or HTTPStatus.OK
        elif fault.kind is FaultKind.MAINTENANCE:
            code, text, status = SERVER_ERROR, "Server error. Service is restarting.", HTTPStatus.OK
        else:
            code, text = SERVER_ERROR, "Server error."
            status = fault.status or HTTPStatus.INTERNAL_SERVER_ERROR
        if request.transport == "rest":
            return Reply(self._envelope(code, text, {}, {}), status=int(status))
        return Reply(self._trade_reply(request, code, text, {}, {}, {}))

    def halve(self, request: Request, reply: Reply) -> Reply:
        """Return the answer of a batch that tells the first half of its outcomes."""
        body = dict(reply.body)
        part = "data" if request.transport == "ws" else "result"
        for name in (part, "retExtInfo"):
            rows = body.get(name, {}).get("list")
            if rows is not None:
                body[name] = {"list": rows[: len(rows) // 2]}
        return Reply(body, reply.status, reply.headers)

    async def _answer_rest(self, request: Request) -> Reply:
        raw, now_ns = request.raw, self.desk.now_ns()
        if self.desk.has_rate_limits and not self._limits.takes_http(now_ns):
            return Reply(self._envelope(TOO_MANY, "access too frequent", {}, {}), status=HTTPStatus.FORBIDDEN)
        headers: dict[str, str] = {}
        try:
            if is_public(raw.path):
                return Reply(self._envelope(0, "OK", self._market.answer(raw.path, request.params), {}))
            account = signed_by(self.desk.accounts, raw)
            self._check_time(request, raw.headers.get("x-bapi-recv-window"))
            if request.kind in _TRADING and not account.can_trade:
                raise Refused(NO_PERMISSION, "Permission denied, please check your API key permissions.")
            headers = self._take(account.name, request)
            result, extra = await self._carry_out(self._members[account.name], request, raw.path)
            return Reply(self._envelope(0, "OK", result, extra), headers=headers)
        except Refused as refused:
            _note(request, refused)
            return Reply(self._envelope(refused.code, refused.text, {}, {}), headers=headers)

    async def _answer_trade_frame(self, request: Request, connection: Connection) -> Reply:
        op, headers = request.method, dict[str, str]()
        try:
            if op == "ping":
                return Reply(
                    {"retCode": 0, "op": "pong", "data": [str(self._now_ms())], "connId": _id(connection)}
                )
            if op == "auth":
                self._log_in(request, connection)
                return Reply({"retCode": 0, "retMsg": "OK", "op": "auth", "connId": _id(connection)})
            if op not in ORDER_OPS:
                raise Refused(UNKNOWN_OP, "op type is not found")
            if not connection.account:
                raise Refused(NO_PERMISSION, "Request not authorized")
            window_ns = request.valid_ns
            self._check_time(request, None if window_ns is None else window_ns // _MS)
            headers = self._take(connection.account, request)
            path = ORDER_OPS[op]
            data, extra = await self._carry_out(self._members[connection.account], request, path)
            return Reply(self._trade_reply(request, 0, "OK", data, extra, headers))
        except Refused as refused:
            _note(request, refused)
            return Reply(self._trade_reply(request, refused.code, refused.text, {}, {}, headers))

    def _answer_stream_frame(self, request: Request, connection: Connection) -> Reply | None:
        op, topics = request.method, frame_args(request.raw)
        is_private = connection.path == _PRIVATE_PATH
        base = {"conn_id": _id(connection), "req_id": str(request.id or ""), "op": op}
        if op == "ping":
            if is_private:
                return Reply({**base, "op": "pong", "args": [str(self._now_ms())]})
            return Reply({"success": True, "ret_msg": "pong", **base})
        if op == "auth" and is_private:
            try:
                self._log_in(request, connection)
            except Refused as refused:
                _note(request, refused)
                return Reply({"success": False, "ret_msg": refused.text, "retCode": refused.code, **base})
            return Reply({"success": True, "ret_msg": "", **base})
        if op not in {"subscribe", "unsubscribe"}:
            fault = "Request op is not supported"
        elif is_private:
            fault = self._private.fault_in(topics) if connection.account else "Request not authorized"
        else:
            fault = self._public.fault_in(connection.state, topics) if op == "subscribe" else ""
        if fault:
            _note(request, Refused(BAD_PARAMETER, fault))
            return Reply({"success": False, "ret_msg": fault, **base})
        if is_private:
            self._watch(connection, op, topics)
        elif op == "unsubscribe":
            self._public.unsubscribe(connection, connection.state, topics)
        else:
            # The snapshots follow the answer, as at the venue: it leaves when this turn is over.
            asyncio.get_running_loop().call_soon(self._begin, connection, topics)
        return Reply({"success": True, "ret_msg": op if op == "subscribe" else "", **base})

    # -- connections -----------------------------------------------------------------------------

    def opened(self, connection: Connection) -> bool:
        """Take a connection to one of the venue's three kinds of socket."""
        if connection.path in (_PRIVATE_PATH, _TRADE_PATH):
            return True
        product = connection.path.removeprefix(_PUBLIC_PATH)
        if not connection.path.startswith(_PUBLIC_PATH) or product not in set(Product):
            return False
        connection.state = Product(product)
        return True

    def closed(self, connection: Connection) -> None:
        """Forget a connection; with a watched private one, the count to cancelling begins."""
        self._public.forget(connection)
        topics = self._private.forget(connection)
        if connection.account and topics:
            self._disconnects.gone(self._members[connection.account], topics)

    def on_market(self, event: MarketEvent) -> None:
        """Push public market data."""
        self._public.on_market(event)

    def on_execution(self, report: ExecutionReport, account: str, wallet: str) -> None:
        """Push what happened to an order that was taken here."""
        if self._members.is_mine(wallet):
            self._private.on_execution(self._members[account], report)

    def on_funding(self, payment: FundingPayment, account: str, wallet: str) -> None:
        """Push what a position here was paid or cost."""
        if self._members.is_mine(wallet):
            self._private.on_funding(self._members[account], payment)

    def close(self) -> None:
        """Stop timers."""
        self._public.close()
        self._disconnects.close()
        for task in self._cancelling:
            task.cancel()

    # -- inside ----------------------------------------------------------------------------------

    async def _carry_out(
        self, member: Member, request: Request, path: str
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        fields = request.params
        if request.kind is Kind.BATCH:
            return await self._orders.batch(member, request, path, fields)
        if request.kind is Kind.CANCEL_ALL:
            return await self._orders.cancel_all(member, request, fields), {}
        single = {
            Kind.PLACE: self._orders.create,
            Kind.AMEND: self._orders.amend,
            Kind.CANCEL: self._orders.cancel,
        }
        carry_out = single.get(request.kind)
        if carry_out is None:
            return self._account.answer(request.method, member, fields), {}
        entry = Entry(request.client_id, request.symbol, fields)
        request.entries.append(entry)
        return await carry_out(member, request, fields, entry), {}

    def _log_in(self, request: Request, connection: Connection) -> None:
        account = check_login(self.desk.accounts, frame_args(request.raw), self._now_ms())
        request.account = connection.account = account.name

    def _watch(self, connection: Connection, op: str, topics: list[Any]) -> None:
        if op == "unsubscribe":
            self._private.unsubscribe(connection, topics)
            return
        self._private.subscribe(connection, topics)
        self._disconnects.back(connection.account, set(topics))

    def _begin(self, connection: Connection, topics: list[Any]) -> None:
        if not connection.is_closed:
            self._public.begin(connection, connection.state, topics)

    def _check_time(self, request: Request, window: object) -> None:
        stamp_ns = request.timestamp_ns
        window_ms = whole(window)
        check_time(
            None if stamp_ns is None else stamp_ns // _MS,
            DEFAULT_WINDOW_MS if window_ms is None else window_ms,
            self.desk.arrived_ns(request) // _MS,
        )

    def _take(self, account: str, request: Request) -> dict[str, str]:
        if not self.desk.has_rate_limits:
            return {}
        orders = request.params.get("request")
        cost = len(orders) if request.kind is Kind.BATCH and isinstance(orders, list) else 1
        fits, headers = self._limits.take(account, request, cost, self.desk.now_ns())
        if not fits:
            raise Refused(TOO_MANY, _BUSY)
        return headers

    def _cancel_product(self, member: Member, product: str) -> None:
        task = asyncio.create_task(self._cancel_lost(member, product))
        self._cancelling.add(task)
        task.add_done_callback(self._cancelling.discard)

    async def _cancel_lost(self, member: Member, product: str) -> None:
        """Cancel what an account has open in a group of products, as it lost touch for too long."""
        for record in self._ledger.orders(member.wallet):
            listing = self._symbols.of(record.order.symbol)
            if record.order.is_open and listing.is_spot is (product == "SPOT"):
                self._ledger.view(record).terms.cancel_type = "CancelByDCP"
                cancel = CancelOrder(record.order.client_id, listing.symbol)
                await self.desk.running.ask(member.wallet, cancel, _FOREVER_NS)

    def _now_ms(self) -> int:
        return self.desk.now_ns() // _MS

    def _envelope(
        self, code: int, text: str, result: dict[str, Any], extra: dict[str, Any]
    ) -> dict[str, Any]:
        return {
            "retCode": code,
            "retMsg": text,
            "result": result,
            "retExtInfo": extra,
            "time": self._now_ms(),
        }

    def _trade_reply(
        self,
        request: Request,
        code: int,
        text: str,
        data: dict[str, Any],
        extra: dict[str, Any],
        headers: dict[str, str],
    ) -> dict[str, Any]:
        connection = request.raw.connection
        return {
            "reqId": request.id,
            "retCode": code,
            "retMsg": text,
            "op": request.method,
            "data": data,
            "retExtInfo": extra,
            "header": {**headers, "Timenow": str(self._now_ms())},
            "connId": "" if connection is None else _id(connection),
        }


_FOREVER_NS: Final = 1 << 62
_TRADING: Final = frozenset({Kind.PLACE, Kind.AMEND, Kind.CANCEL, Kind.CANCEL_ALL, Kind.BATCH, Kind.SETTING})


def _note(request: Request, refused: Refused) -> None:
    """Put a refusal into the request's line of the log."""
    if not request.entries:
        request.entries.append(Entry(request.client_id, request.symbol, request.params))
    entry = request.entries[-1]
    entry.verdict, entry.reason = Verdict.REFUSED, f"{refused.code} {refused.text}"


def _id(connection: Connection) -> str:
    return f"venue-{connection.number:08x}"
