"""OKX's private WebSocket: orders, balances and positions of who logged in."""

from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any, Final

import msgspec

from venue.execution import ExecType, ExecutionReport
from venue.protocols.connection import Connection
from venue.protocols.front import Desk
from venue.protocols.okx.ledger_view import LedgerView, fee_currency
from venue.protocols.okx.members import Member
from venue.protocols.okx.names import Listing, Symbols, text
from venue.protocols.okx.orders import CANCELLED_BY_USER
from venue.protocols.okx.rows import Terms, end_of, order_row, view_of

__all__ = ["PrivateStreams"]

_MS: Final = 1_000_000
_CHANNELS: Final = ("orders", "account", "positions", "balance_and_position")


class PrivateStreams:
    """Who listens to which of an account's channels, and what they are pushed."""

    def __init__(
        self, desk: Desk, symbols: Symbols, ledger: LedgerView, on_push: Callable[[Connection], None]
    ) -> None:
        self._desk: Final = desk
        self._symbols: Final = symbols
        self._ledger: Final = ledger
        self._on_push: Final = on_push
        self._listeners: Final[dict[Connection, list[dict[str, Any]]]] = {}
        self._fees: Final[dict[int, Decimal]] = {}
        self._encode: Final[Callable[[Any], bytes]] = msgspec.json.Encoder().encode

    def fault_in(self, arg: Mapping[str, Any]) -> tuple[str, str]:
        """Return code and words of what is wrong with a subscription; empty when it can be."""
        channel = arg.get("channel")
        if channel == "fills":
            return "64003", "Your trading fee tier doesn't meet the requirement to access this channel"
        if channel not in _CHANNELS:
            words = ",".join(f"{name}:{value}" for name, value in arg.items())
            return "60018", f"Wrong URL or {words} doesn't exist."
        if channel in ("orders", "positions") and not arg.get("instType"):
            return "60012", f"Invalid request: {arg}"
        return "", ""

    def begin(self, connection: Connection, member: Member, arg: dict[str, Any]) -> None:
        """Push to a connection from now on; balances and positions begin with how they are."""
        self._listeners.setdefault(connection, []).append(arg)
        now_ms = self._now_ms()
        if arg["channel"] == "account":
            self._send(connection, arg, [self._ledger.balance(member.wallet, now_ms)], "")
        elif arg["channel"] == "positions":
            self._send(connection, arg, self._positions(member, arg, now_ms), "")

    def end(self, connection: Connection, arg: dict[str, Any]) -> None:
        """Take a connection off a channel."""
        args = self._listeners.get(connection, [])
        if arg in args:
            args.remove(arg)

    def forget(self, connection: Connection) -> None:
        """Take a connection off everything."""
        self._listeners.pop(connection, None)

    # -- what is pushed --------------------------------------------------------------------------

    def on_execution(self, member: Member, report: ExecutionReport) -> None:
        """Tell an account what happened to one of its orders, and what that did to its money."""
        order = report.order
        if report.kind is ExecType.NEW and not order.is_open and not order.filled:
            return  # it ended at once, unfilled: that is all the venue tells of it
        listing = self._symbols.of(order.symbol)
        terms = report.terms if isinstance(report.terms, Terms) else Terms(order.client_id)
        if report.kind in (ExecType.CANCELED, ExecType.EXPIRED):
            if report.reason:
                terms.end = end_of(report.reason, order.time_in_force)
            terms.end = terms.end or CANCELLED_BY_USER
        self._push_order(member, listing, report, terms)
        now_ms = self._now_ms()
        for connection, arg in self._subscriptions(member.name):
            if arg["channel"] == "account":
                self._send(connection, arg, [self._ledger.balance(member.wallet, now_ms)], listing.name)
            elif arg["channel"] == "positions" and report.fill is not None and _is_of(arg, listing):
                row = self._ledger.position(member, listing, now_ms)
                if not listing.is_spot:
                    self._send(connection, arg, [row], listing.name)
            elif arg["channel"] == "balance_and_position" and report.fill is not None:
                self._send(connection, arg, [self._both(member, now_ms)], listing.name)

    def on_funding(self, member: Member) -> None:
        """Tell an account that its money changed by funding."""
        now_ms = self._now_ms()
        for connection, arg in self._subscriptions(member.name):
            if arg["channel"] == "account":
                self._send(connection, arg, [self._ledger.balance(member.wallet, now_ms)], "")
            elif arg["channel"] == "balance_and_position":
                row = self._both(member, now_ms) | {"eventType": "funding_fee"}
                self._send(connection, arg, [row], "")

    def _push_order(self, member: Member, listing: Listing, report: ExecutionReport, terms: Terms) -> None:
        fill, number = report.fill, report.order.order_id
        if fill is not None:
            self._fees[number] = self._fees.get(number, Decimal(0)) + fill.fee
        at_ms = self._desk.shown_ns(report.ts_ns) // _MS
        view = view_of(listing, report, terms, at_ms)
        currency = fee_currency(view)
        row = order_row(view, self._fees.get(number, Decimal(0)), currency, fill)
        row |= {
            "amendResult": "0" if report.kind is ExecType.REPLACED else "",
            "reqId": terms.request_id if report.kind is ExecType.REPLACED else "",
            "amendSource": "1" if report.kind is ExecType.REPLACED else "",
            "code": "0",
            "msg": "",
            "execType": "",
            "fillFee": "0",
            "fillFeeCcy": "",
            "fillPnl": "0",
            "fillNotionalUsd": "",
            "notionalUsd": "",
            "lastPx": text(self._desk.feed[listing.symbol].mark),
        }
        if fill is not None:
            row |= {
                "fillFee": text(-fill.fee),
                "fillFeeCcy": fill.fee_currency,
                "fillTime": str(at_ms),
                "fillPnl": text(report.realised),
                "execType": "M" if fill.liquidity.value == "maker" else "T",
            }
        if view.status.is_terminal:
            self._fees.pop(number, None)
        for connection, arg in self._subscriptions(member.name):
            if arg["channel"] == "orders" and _is_of(arg, listing):
                self._send(connection, arg, [row], listing.name)

    def _both(self, member: Member, now_ms: int) -> dict[str, Any]:
        balances = self._ledger.balance(member.wallet, now_ms)["details"]
        positions = self._ledger.positions(member, now_ms)
        return {
            "pTime": str(now_ms),
            "eventType": "filled",
            "balData": [{name: row[name] for name in ("ccy", "cashBal", "uTime")} for row in balances],
            "posData": positions,
            "trades": [],
        }

    def _positions(self, member: Member, arg: Mapping[str, Any], now_ms: int) -> list[dict[str, Any]]:
        rows = self._ledger.positions(member, now_ms)
        return [row for row in rows if arg.get("instId") in (None, "", row["instId"])]

    def _subscriptions(self, account: str) -> list[tuple[Connection, dict[str, Any]]]:
        return [
            (connection, arg)
            for connection, args in self._listeners.items()
            if connection.account == account
            for arg in args
        ]

    def _send(self, connection: Connection, arg: dict[str, Any], rows: list[Any], name: str) -> None:
        frame = self._encode({"arg": arg | {"uid": connection.account}, "data": rows})
        connection.push(frame, "private", name)
        self._on_push(connection)

    def _now_ms(self) -> int:
        return self._desk.now_ns() // _MS


def _is_of(arg: Mapping[str, Any], listing: Listing) -> bool:
    """Return whether a subscription covers an instrument."""
    return (
        arg.get("instType") in ("ANY", listing.product)
        and arg.get("instId") in (None, "", listing.name)
        and arg.get("instFamily") in (None, "", listing.family)
    )
