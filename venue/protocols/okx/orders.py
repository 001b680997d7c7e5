"""Orders, amends and cancels: from OKX's fields to the exchange and back to OKX's answers.

The same operations come over REST and the WebSocket. Each order of a request has an outcome of its
own (`sCode`); the request as a whole says 0 for all well, 1 for all failed, 2 for a batch partly well.
"""

import re
from decimal import Decimal, InvalidOperation
from typing import Any, Final

from host.api import (
    AmendOrder,
    CancelOrder,
    Command,
    OrderType,
    PlaceOrder,
    RejectReason,
    Side,
    TimeInForce,
)
from venue.execution import Answer, EntryRules
from venue.protocols.front import Desk
from venue.protocols.okx.ledger_view import LedgerView
from venue.protocols.okx.members import Member
from venue.protocols.okx.names import Listing, Symbols, order_id_of
from venue.protocols.okx.refusals import Refused, gone, refusal_of
from venue.protocols.okx.rows import Terms
from venue.protocols.requests import Entry, Request, Verdict
from venue.records import OrderRecord

__all__ = ["CANCELLED_BY_SWITCH", "CANCELLED_BY_USER", "OrderDesk"]

_RULES: Final = EntryRules(refused=frozenset())
"""A post-only order that would cross, or a fill-or-kill one that cannot be filled, is accepted and then ends."""
_CLIENT_ID: Final = re.compile(r"[A-Za-z0-9]{1,32}")
_TAG: Final = re.compile(r"[A-Za-z0-9]{0,16}")
_SIDES: Final = {"buy": Side.BUY, "sell": Side.SELL}
_TYPES: Final = {
    "limit": (OrderType.LIMIT, TimeInForce.GTC),
    "post_only": (OrderType.LIMIT, TimeInForce.GTC),
    "ioc": (OrderType.LIMIT, TimeInForce.IOC),
    "fok": (OrderType.LIMIT, TimeInForce.FOK),
    "market": (OrderType.MARKET, TimeInForce.IOC),
    "optimal_limit_ioc": (OrderType.MARKET, TimeInForce.IOC),
}
_MOST_IN_BATCH: Final = 20
CANCELLED_BY_USER: Final = "1"
CANCELLED_BY_SWITCH: Final = "20"


class OrderDesk:
    """Takes orders for one protocol."""

    def __init__(self, desk: Desk, symbols: Symbols, ledger: LedgerView) -> None:
        self._desk: Final = desk
        self._symbols: Final = symbols
        self._ledger: Final = ledger
        self._unnamed = 0

    async def carry_out(
        self, member: Member, request: Request, op: str, orders: Any
    ) -> tuple[str, list[dict[str, Any]]]:
        """Carry out an operation on one order or several; return its code and each order's outcome.

        Raises `Refused` where it makes no sense as a whole.
        """
        if not isinstance(orders, list) or not orders or not all(isinstance(each, dict) for each in orders):
            raise Refused("50002", "JSON syntax error")
        if len(orders) > _MOST_IN_BATCH:
            raise Refused("51111", f"Maximum {_MOST_IN_BATCH} orders can be placed in bulk")
        work = self._place if "amend" not in op and "cancel" not in op else self._amend
        work = self._cancel if "cancel" in op else work
        rows = []
        for fields in orders:
            listing = self._symbols.find(fields.get("instId"), fields.get("instIdCode"))
            name = str(fields.get("instId") or "") if listing is None else listing.name
            entry = Entry(str(fields.get("clOrdId") or ""), name, fields)
            request.entries.append(entry)
            row = {"clOrdId": entry.client_id, "ordId": "", "ts": str(self._desk.now_ns() // 1_000_000)}
            row |= {"reqId": str(fields.get("reqId") or "")} if "amend" in op else {}
            row |= {"tag": str(fields.get("tag") or "")} if work == self._place else {}
            try:
                if listing is None:
                    raise refusal_of(RejectReason.UNKNOWN_SYMBOL, name)
                number = await work(member, request, listing, fields, entry)
                rows.append(row | {"ordId": order_id_of(number), "sCode": "0", "sMsg": ""})
            except Refused as refused:
                entry.verdict, entry.reason = Verdict.REFUSED, str(refused)
                rows.append(row | {"sCode": refused.code, "sMsg": refused.text})
        failed = sum(row["sCode"] != "0" for row in rows)
        return "0" if not failed else "1" if failed == len(rows) else "2", rows

    async def cancel_open(self, member: Member, tag: str) -> None:
        """Cancel every order with a tag, without one every order: the dead man's switch ran out."""
        for record in list(self._desk.exchange.records(member.wallet).open()):
            terms = record.terms if isinstance(record.terms, Terms) else Terms()
            if not tag or terms.tag == tag:
                terms.end = CANCELLED_BY_SWITCH
                command = CancelOrder(record.order.client_id, record.order.symbol)
                await self._desk.running.ask(member.wallet, command, 1 << 62)

    # -- operations ------------------------------------------------------------------------------

    async def _place(
        self, member: Member, request: Request, listing: Listing, fields: dict[str, Any], entry: Entry
    ) -> int:
        place, terms = self._read_place(listing, fields)
        answer = await self._ask(request, entry, member, place, terms)
        assert answer.record is not None, "an order that was not refused is on record"
        return answer.record.order.order_id

    async def _amend(
        self, member: Member, request: Request, listing: Listing, fields: dict[str, Any], entry: Entry
    ) -> int:
        record = self._open(member, listing, fields, is_amend=True)
        order = record.order
        size = _number(fields.get("newSz"), "newSz")
        price = _number(fields.get("newPx"), "newPx") or order.price
        qty = order.qty if size is None else size * listing.unit
        if price is None or (size is None and not fields.get("newPx")):
            raise Refused("51500", "Either order price or amount is required")
        if isinstance(record.terms, Terms):
            record.terms.request_id = str(fields.get("reqId") or "")
        await self._ask(
            request, entry, member, AmendOrder(order.client_id, listing.symbol, order.side, price, qty)
        )
        return order.order_id

    async def _cancel(
        self, member: Member, request: Request, listing: Listing, fields: dict[str, Any], entry: Entry
    ) -> int:
        record = self._open(member, listing, fields, is_amend=False)
        terms = record.terms if isinstance(record.terms, Terms) else Terms()
        terms.end = CANCELLED_BY_USER
        try:
            await self._ask(request, entry, member, CancelOrder(record.order.client_id, listing.symbol))
        except Refused:
            terms.end = ""
            raise
        return record.order.order_id

    # -- reading ---------------------------------------------------------------------------------

    def _read_place(self, listing: Listing, fields: dict[str, Any]) -> tuple[PlaceOrder, Terms]:
        side, kind = _SIDES.get(str(fields.get("side"))), str(fields.get("ordType"))
        if side is None:
            raise Refused("51000", "Parameter side error")
        if kind not in _TYPES:
            raise Refused("51000", "Parameter ordType error")
        if fields.get("attachAlgoOrds"):
            raise Refused("51000", "Parameter attachAlgoOrds error: this venue takes no conditional orders")
        margin_mode = str(fields.get("tdMode") or "")
        if margin_mode not in (("cash",) if listing.is_spot else ("cross", "isolated")):
            raise Refused("51000", "Parameter tdMode error")
        if str(fields.get("posSide") or "net") != "net":
            raise Refused("51000", "Parameter posSide error")
        client_id, tag = str(fields.get("clOrdId") or ""), str(fields.get("tag") or "")
        if client_id and not _CLIENT_ID.fullmatch(client_id):
            raise Refused("51000", "Parameter clOrdId error")
        if not _TAG.fullmatch(tag):
            raise Refused("51000", "Parameter tag error")
        size = _number(fields.get("sz"), "sz")
        if size is None or size <= 0:
            raise Refused("51000", "Parameter sz error")
        order_type, time_in_force = _TYPES[kind]
        is_market = order_type is OrderType.MARKET
        price = None if is_market else _number(fields.get("px"), "px")
        if not is_market and (price is None or price <= 0):
            raise Refused("51000", "Parameter px error")
        target = str(fields.get("tgtCcy") or "")
        qty = size * listing.unit
        if is_market and listing.is_spot and _is_in_money(side, target):
            qty = self._base_qty(listing, side, size)
        self._unnamed += 1
        place = PlaceOrder(
            client_id or f"okx {self._unnamed}",  # no id of a client has a space
            listing.symbol,
            side,
            order_type,
            time_in_force,
            price,
            qty,
            kind == "post_only",
            str(fields.get("reduceOnly")).lower() == "true" and not listing.is_spot,
        )
        return place, Terms(client_id, tag, margin_mode, target, self._desk.now_ns() // 1_000_000)

    def _base_qty(self, listing: Listing, side: Side, amount: Decimal) -> Decimal:
        """Return how much of the base currency an amount of money is at the best price."""
        bid, ask = self._desk.exchange.best(listing.symbol)
        best = ask if side is Side.BUY else bid
        if best is None:
            raise refusal_of(RejectReason.NOT_FILLABLE, listing.name)
        return listing.instrument.qty_floor(amount / best)

    def _open(
        self, member: Member, listing: Listing, fields: dict[str, Any], *, is_amend: bool
    ) -> OrderRecord:
        order_id, client_id = str(fields.get("ordId") or ""), str(fields.get("clOrdId") or "")
        if not order_id and not client_id:
            raise Refused("51003", "Either client order ID or order ID is required")
        record = self._ledger.find(member.wallet, listing, order_id, client_id)
        if record is None or not record.order.is_open:
            raise gone(record, is_amend=is_amend)
        return record

    async def _ask(
        self, request: Request, entry: Entry, member: Member, command: Command, terms: Terms | None = None
    ) -> Answer:
        answer = await self._desk.ask(request, entry, member.wallet, command, rules=_RULES, terms=terms)
        if answer.refusal is not None:
            reason, text = answer.refusal
            if reason is RejectReason.UNKNOWN_ORDER:
                raise gone(None, is_amend=isinstance(command, AmendOrder))
            raise refusal_of(reason, text)
        return answer


def _is_in_money(side: Side, target: str) -> bool:
    """Return whether a spot market order's size is an amount of money: a buy's is by default."""
    return target == "quote_ccy" or (side is Side.BUY and target != "base_ccy")


def _number(value: object, name: str) -> Decimal | None:
    if value is None or value == "":
        return None
    try:
        number = Decimal(str(value))
    except InvalidOperation:
        raise Refused("51000", f"Parameter {name} error") from None
    if not number.is_finite():
        raise Refused("51000", f"Parameter {name} error")
    return number
