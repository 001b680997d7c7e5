"""OKX v5 as a protocol of the venue: REST and the public, private and business WebSockets.

| module | what it knows |
|---|---|
| `names`, `rows`, `refusals` | how the venue writes things: instruments, ids, messages, errors |
| `reading`, `keys`, `limits` | what is asked, by whom, in time, and not too often |
| `orders`, `account_queries`, `market_queries` | what is done and answered |
| `books`, `public_streams`, `private_streams`, `switches`, `silence` | what is pushed, and what a silence sets off |
"""

from http import HTTPStatus
from typing import Any, Final

import msgspec

from host.api import MarketEvent
from venue.execution import ExecutionReport
from venue.perpetuals import FundingPayment
from venue.protocols.connection import Connection
from venue.protocols.faults import Fault, FaultKind
from venue.protocols.front import Desk, Front
from venue.protocols.okx.account_queries import AccountQueries
from venue.protocols.okx.keys import check_login, check_time, signed_by, whole_ms
from venue.protocols.okx.ledger_view import LedgerView
from venue.protocols.okx.limits import OkxLimits
from venue.protocols.okx.market_queries import MarketQueries
from venue.protocols.okx.members import Members
from venue.protocols.okx.names import Symbols
from venue.protocols.okx.orders import OrderDesk
from venue.protocols.okx.private_streams import PrivateStreams
from venue.protocols.okx.public_streams import PublicStreams
from venue.protocols.okx.reading import (
    ORDER_OPS,
    ORDER_PATHS,
    PROTOCOL,
    frame_args,
    is_public,
    read_frame,
    read_rest,
)
from venue.protocols.okx.refusals import Refused
from venue.protocols.okx.silence import Silence
from venue.protocols.okx.switches import Switches
from venue.protocols.requests import Entry, Kind, Raw, Reply, Request, Verdict

__all__ = ["OkxFront"]

_MS: Final = 1_000_000
_ENCODE: Final = msgspec.json.Encoder().encode
_PUBLIC_PATHS: Final = ("/ws/v5/public", "/ws/v5/business")
_PRIVATE_PATH: Final = "/ws/v5/private"
_SWITCH_PATH: Final = "/api/v5/trade/cancel-all-after"
_LEAST_S: Final = 10
_MOST_S: Final = 120
_TOO_MANY: Final = ("50011", "Too Many Requests")
_SERVICE: Final = ("50001", "Service temporarily unavailable. Please try again later.")
_BROKEN: Final = ("50026", "System error. Please try again later.")
_TRADING: Final = (Kind.PLACE, Kind.AMEND, Kind.CANCEL, Kind.BATCH, Kind.SETTING)


class OkxFront(Front):
    """Speaks OKX v5."""

    name = PROTOCOL

    def __init__(self, desk: Desk) -> None:
        super().__init__(desk)
        self._symbols = Symbols(desk.exchange.instruments)
        self._members = Members(desk.accounts, self._symbols)
        self._ledger = LedgerView(
            desk.exchange, self._symbols, desk.feed, lambda market_ns: desk.shown_ns(market_ns) // _MS
        )
        self._market = MarketQueries(desk, self._symbols)
        self._account = AccountQueries(desk, self._symbols, self._ledger, self._market)
        self._silence = Silence()
        self._public = PublicStreams(desk, self._symbols, self._market, self._silence.broken)
        self._private = PrivateStreams(desk, self._symbols, self._ledger, self._silence.broken)
        self._orders = OrderDesk(desk, self._symbols, self._ledger)
        self._limits = OkxLimits()
        self._switches = Switches(self._orders.cancel_open)

    # -- requests --------------------------------------------------------------------------------

    def read(self, raw: Raw, arrived_ns: int) -> Request:
        """Return what a request asks for, without judging it."""
        if raw.connection is not None:
            self._silence.broken(raw.connection)
            return read_frame(raw, self._symbols, arrived_ns)
        account = self.desk.accounts.by_key(raw.headers.get("ok-access-key", ""))
        return read_rest(raw, "" if account is None else account.name, self._symbols, arrived_ns)

    async def answer(self, request: Request) -> Reply | None:
        """Judge a request, carry it out and return the answer."""
        connection = request.raw.connection
        if connection is None:
            return await self._answer_rest(request)
        if request.raw.body == b"ping":
            return Reply(b"pong")
        if request.method in ORDER_OPS:
            return await self._answer_order(request, connection)
        return self._answer_frame(request, connection)

    def failure(self, fault: Fault, request: Request) -> Reply:
        """Return how OKX says that it is broken, too busy or being serviced."""
        if fault.kind is FaultKind.RATE_LIMIT:
            (code, text), status = _TOO_MANY, fault.status or HTTPStatus.TOO_MANY_REQUESTS
        elif fault.kind is FaultKind.MAINTENANCE:
            (code, text), status = _SERVICE, HTTPStatus.SERVICE_UNAVAILABLE
        else:
            (code, text), status = _BROKEN, fault.status or HTTPStatus.INTERNAL_SERVER_ERROR
        if request.transport == "rest":
            return Reply({"code": code, "data": [], "msg": text}, status=int(status))
        if request.method in ORDER_OPS:
            return Reply(self._order_reply(request, code, text, []))
        connection = request.raw.connection
        return Reply(_event("error", connection, code=code, msg=text))

    def halve(self, request: Request, reply: Reply) -> Reply:
        """Return the answer of a batch that tells the first half of its outcomes."""
        body = dict(reply.body)
        body["data"] = body["data"][: len(body["data"]) // 2]
        return Reply(body, reply.status, reply.headers)

    async def _answer_rest(self, request: Request) -> Reply:
        raw = request.raw
        in_ns = self.desk.now_ns()
        try:
            if is_public(raw.path):
                self._count(raw.headers.get("host", ""), request)
                return Reply(_envelope("0", "", self._market.answer(raw.path, request.params)))
            account = signed_by(self.desk.accounts, raw)
            check_time(request.timestamp_ns, self.desk.arrived_ns(request))
            if request.kind in _TRADING and not account.can_trade:
                raise Refused("50030", "No permission to use this API.", status=HTTPStatus.FORBIDDEN)
            self._check_window(request, raw.headers.get("exptime"))
            member = self._members[account.name]
            op = ORDER_PATHS.get(raw.path) if raw.method == "POST" else None
            if op is None:
                self._count(account.name, request)
                if raw.path == _SWITCH_PATH:
                    return Reply(_envelope("0", "", [self._set_switch(account.name, request)]))
                if raw.path == "/api/v5/trade/close-position":
                    raise Refused("51010", "This venue closes positions by orders alone.")
                return Reply(_envelope("0", "", self._account.answer(request.method, member, request.params)))
            orders = request.params.get("orders", [request.params])
            self._count_orders(account.name, request, op, orders)
            code, rows = await self._orders.carry_out(member, request, op, orders)
            times = {"inTime": str(in_ns // 1000), "outTime": str(self.desk.now_ns() // 1000)}
            return Reply(_envelope(code, _words(code), rows) | times)
        except Refused as refused:
            _note(request, refused)
            return Reply(_envelope(refused.code, refused.text, []), status=refused.status)

    async def _answer_order(self, request: Request, connection: Connection) -> Reply:
        try:
            if connection.path != _PRIVATE_PATH or not connection.account:
                raise Refused("60011", "Please log in.")
            self._check_window(request, _frame_window(request))
            orders = request.params["orders"] if request.kind is Kind.BATCH else [request.params]
            self._count_orders(connection.account, request, request.method, orders)
            member = self._members[connection.account]
            code, rows = await self._orders.carry_out(member, request, request.method, orders)
            return Reply(self._order_reply(request, code, _words(code), rows))
        except Refused as refused:
            _note(request, refused)
            return Reply(self._order_reply(request, refused.code, refused.text, []))

    def _answer_frame(self, request: Request, connection: Connection) -> Reply | None:
        try:
            if request.method == "login":
                return self._log_in(request, connection)
            args = frame_args(request.raw)
            if request.method not in ("subscribe", "unsubscribe") or not args:
                body = request.raw.body.decode(errors="replace")[:200]
                raise Refused("60012", f"Invalid request: {body}")
            for arg in args:
                if not isinstance(arg, dict):
                    raise Refused("60013", "Invalid args")
                self._subscribe(connection, request.method, arg)
        except Refused as refused:
            _note(request, refused)
            return Reply(_event("error", connection, code=refused.code, msg=refused.text))
        return None

    # -- connections -----------------------------------------------------------------------------

    def opened(self, connection: Connection) -> bool:
        """Take a connection to one of the venue's kinds of socket."""
        if connection.path not in (*_PUBLIC_PATHS, _PRIVATE_PATH):
            return False
        self._silence.watch(connection)
        return True

    def closed(self, connection: Connection) -> None:
        """Forget a connection."""
        self._silence.forget(connection)
        self._public.forget(connection)
        self._private.forget(connection)

    def on_market(self, event: MarketEvent) -> None:
        """Push public market data."""
        self._public.on_market(event)

    def on_execution(self, report: ExecutionReport, account: str, wallet: str) -> None:
        """Push what happened to an order that was taken here."""
        if self._members.is_mine(wallet):
            self._private.on_execution(self._members[account], report)

    def on_funding(self, payment: FundingPayment, account: str, wallet: str) -> None:
        """Push what funding did to an account's money."""
        if self._members.is_mine(wallet):
            self._private.on_funding(self._members[account])

    def close(self) -> None:
        """Stop timers."""
        self._public.close()
        self._silence.close()
        self._switches.close()

    # -- inside ----------------------------------------------------------------------------------

    def _log_in(self, request: Request, connection: Connection) -> Reply:
        args = frame_args(request.raw)
        if connection.path != _PRIVATE_PATH:
            raise Refused("60018", "Wrong URL: log in at /ws/v5/private.")
        account = check_login(self.desk.accounts, args[0] if args else None, self.desk.now_ns())
        request.account = connection.account = account.name
        return Reply(_event("login", connection, code="0", msg=""))

    def _subscribe(self, connection: Connection, op: str, arg: dict[str, Any]) -> None:
        """Answer one subscription, then begin it: the answer goes out first, as at the venue."""
        is_private = connection.path == _PRIVATE_PATH
        if is_private and not connection.account:
            raise Refused("60011", "Please log in.")
        if op == "unsubscribe":
            (self._private if is_private else self._public).end(connection, arg)
            connection.send(_ENCODE(_event(op, connection, arg=arg)))
            return
        if is_private:
            code, words = self._private.fault_in(arg)
        else:
            words = self._public.fault_in(arg)
            code = "60018" if words else ""
        if code:
            raise Refused(code, words)
        connection.send(_ENCODE(_event(op, connection, arg=arg)))
        if is_private:
            self._private.begin(connection, self._members[connection.account], arg)
        else:
            self._public.begin(connection, arg)

    def _check_window(self, request: Request, last: object) -> None:
        """Refuse an `expTime` that is none, and one that has passed; the engine looks again."""
        if last is None or last == "":
            return
        last_ms = whole_ms(last)
        if last_ms is None:
            raise Refused("50036", "Invalid expTime.")
        if self.desk.arrived_ns(request) > last_ms * _MS:
            raise Refused("51149", "Order timed out. Please try again later.")

    def _set_switch(self, account: str, request: Request) -> dict[str, str]:
        seconds = whole_ms(request.params.get("timeOut"))
        if seconds is None or not (seconds == 0 or _LEAST_S <= seconds <= _MOST_S):
            raise Refused("51000", "Parameter timeOut error")
        tag = str(request.params.get("tag") or "")
        self._switches.set(self._members[account], tag, seconds)
        now_ms = self.desk.now_ns() // _MS
        due_ms = str(now_ms + seconds * 1000) if seconds else "0"
        return {"triggerTime": due_ms, "tag": tag, "ts": str(now_ms)}

    def _count(self, who: str, request: Request) -> None:
        if self.desk.has_rate_limits and not self._limits.takes_question(who, request, self.desk.now_ns()):
            raise Refused(*_TOO_MANY, status=HTTPStatus.TOO_MANY_REQUESTS)

    def _count_orders(self, account: str, request: Request, op: str, orders: Any) -> None:
        count = len(orders) if isinstance(orders, list) else 1
        now_ns = self.desk.now_ns()
        if self.desk.has_rate_limits and not self._limits.takes_order(account, request, op, count, now_ns):
            raise Refused(*_TOO_MANY, status=HTTPStatus.TOO_MANY_REQUESTS)

    def _order_reply(self, request: Request, code: str, text: str, rows: list[Any]) -> dict[str, Any]:
        in_us, out_us = request.arrived_ns // 1000, self.desk.now_ns() // 1000
        return {
            "id": request.id,
            "op": request.method,
            "code": code,
            "msg": text,
            "data": rows,
            "inTime": str(in_us),
            "outTime": str(out_us),
        }


def _envelope(code: str, text: str, rows: list[Any]) -> dict[str, Any]:
    return {"code": code, "data": rows, "msg": text}


def _words(code: str) -> str:
    return {"0": "", "1": "All operations failed", "2": "Bulk operation partially succeeded"}[code]


def _event(event: str, connection: Connection | None, **fields: Any) -> dict[str, Any]:
    number = 0 if connection is None else connection.number
    return {"event": event, **fields, "connId": f"{number:08x}"}


def _frame_window(request: Request) -> object:
    return None if request.timestamp_ns is None else request.timestamp_ns // _MS


def _note(request: Request, refused: Refused) -> None:
    """Put a refusal of the request as a whole into its line of the log."""
    if not request.entries:
        request.entries.append(Entry(request.client_id, request.symbol, request.params))
    for entry in request.entries:
        if entry.verdict is None:
            entry.verdict, entry.reason = Verdict.REFUSED, str(refused)
