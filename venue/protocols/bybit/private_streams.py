"""Bybit's private WebSocket: orders, executions, positions and balances of who logged in."""

from collections.abc import Callable
from typing import Any, Final
from uuid import NAMESPACE_OID, uuid5

import msgspec

from host.api import OrderStatus
from venue.execution import ExecType, ExecutionReport
from venue.perpetuals import FundingPayment
from venue.protocols.bybit.account_rows import pushed_position
from venue.protocols.bybit.ledger_view import LedgerView
from venue.protocols.bybit.members import Member
from venue.protocols.bybit.names import Listing, Product, Symbols
from venue.protocols.bybit.order_rows import OrderView, Terms, pushed_order, view_of
from venue.protocols.connection import Connection
from venue.protocols.front import Desk
from venue.records import OrderRecord

__all__ = ["PrivateStreams"]

_MS: Final = 1_000_000
_BASES: Final = ("order", "execution", "execution.fast", "position", "wallet")
_TOPICS: Final = frozenset(
    {*_BASES}
    | {
        f"{base}.{product}"
        for base in ("order", "execution", "execution.fast", "position")
        for product in Product
    }
    | {"dcp.spot", "dcp.future", "dcp.option"}
)
_FAST_FIELDS: Final = (
    "category",
    "symbol",
    "execId",
    "execPrice",
    "execQty",
    "orderId",
    "isMaker",
    "orderLinkId",
    "side",
    "execTime",
    "seq",
)


class PrivateStreams:
    """Who listens to which account's topics, and what they are pushed."""

    def __init__(self, desk: Desk, symbols: Symbols, ledger: LedgerView) -> None:
        self._desk: Final = desk
        self._symbols: Final = symbols
        self._ledger: Final = ledger
        self._listeners: Final[dict[Connection, set[str]]] = {}
        self._pushes = 0
        self._encode: Final[Callable[[Any], bytes]] = msgspec.json.Encoder().encode

    def fault_in(self, topics: list[Any]) -> str:
        """Return what is wrong with a subscription; empty when it can be."""
        unknown = next((topic for topic in topics if topic not in _TOPICS), None)
        if unknown is not None:
            return f"Invalid topic: {unknown}"
        for base in ("order", "execution", "execution.fast", "position"):
            if base in topics and any(f"{base}.{product}" in topics for product in Product):
                return f"all-in-one and per-category topics of {base} cannot share a request"
        return ""

    def subscribe(self, connection: Connection, topics: list[Any]) -> None:
        """Push these topics of its account to a connection from now on."""
        self._listeners.setdefault(connection, set()).update(topics)

    def unsubscribe(self, connection: Connection, topics: list[Any]) -> None:
        """Push these no more."""
        self._listeners.get(connection, set()).difference_update(topics)

    def forget(self, connection: Connection) -> set[str]:
        """Take a connection off everything; return what it had subscribed."""
        return self._listeners.pop(connection, set())

    def has(self, account: str, topic: str) -> bool:
        """Return whether any connection of an account has subscribed to a topic."""
        return any(
            connection.account == account and topic in topics
            for connection, topics in self._listeners.items()
        )

    # -- what is pushed --------------------------------------------------------------------------

    def on_execution(self, member: Member, report: ExecutionReport) -> None:
        """Tell an account what happened to one of its orders, and what that did to its money."""
        listing = self._symbols.of(report.order.symbol)
        order = report.order
        if report.kind is ExecType.NEW and not order.is_open and not order.filled:
            return  # it ended at once, unfilled: that is all the venue tells of it
        terms = report.terms if isinstance(report.terms, Terms) else Terms("", 0)
        if report.kind in (ExecType.CANCELED, ExecType.EXPIRED):
            terms.end = report.reason
        at_ms = self._desk.shown_ns(report.ts_ns) // _MS
        view = view_of(listing, report, terms, at_ms)
        if report.fill is not None:
            row = self._ledger.execution(view, report.fill) | {"category": listing.product.value}
            self._push(member.name, "execution", listing, [row])
            self._push(member.name, "execution.fast", listing, [{name: row[name] for name in _FAST_FIELDS}])
        self._push(member.name, "order", listing, [pushed_order(view)])
        if report.fill is not None and not listing.is_spot:
            position = self._ledger.position(member.wallet, listing, at_ms)
            self._push(member.name, "position", listing, [pushed_position(position)])
        if report.fill is not None or listing.is_spot:
            self._push(member.name, "wallet", listing, [self._ledger.wallet(member.wallet)])

    def on_funding(self, member: Member, payment: FundingPayment) -> None:
        """Tell an account what its position was paid or cost."""
        listing = self._symbols.of(payment.symbol)
        row = self._ledger.note_funding(member.wallet, payment)
        self._push(member.name, "execution", listing, [row | {"category": listing.product.value}])
        self._push(member.name, "wallet", listing, [self._ledger.wallet(member.wallet)])

    def push_late_cancel(self, member: Member, record: OrderRecord) -> None:
        """Push a filled order once more, as the venue does when a cancel came too late by a moment."""
        view: OrderView = self._ledger.view(record)
        assert view.status is OrderStatus.FILLED, "only then is a cancel too late so"
        now_ms = self._desk.now_ns() // _MS
        row = pushed_order(view) | {
            "cancelType": "CancelByUser",
            "rejectReason": "EC_OrigClOrdIDDoesNotExist",
            "updatedTime": str(now_ms),
        }
        self._push(member.name, "order", view.listing, [row])

    def _push(self, account: str, base: str, listing: Listing, rows: list[dict[str, Any]]) -> None:
        self._pushes += 1
        for topic in (base, f"{base}.{listing.product}"):
            listeners = [
                connection
                for connection, topics in self._listeners.items()
                if connection.account == account and topic in topics
            ]
            if not listeners:
                continue
            frame = self._encode(
                {
                    "id": str(uuid5(NAMESPACE_OID, f"{account} {self._pushes}")),
                    "topic": topic,
                    "creationTime": self._desk.now_ns() // _MS,
                    "data": rows,
                }
            )
            for connection in listeners:
                connection.push(frame, "private", listing.name)
