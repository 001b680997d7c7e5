"""Orders, amends and cancels: from Bybit's fields to the exchange and back to Bybit's answers."""

import re
from collections.abc import Awaitable, Callable
from decimal import Decimal, InvalidOperation
from typing import Any, Final

from host.api import (
    AmendOrder,
    CancelOrder,
    Command,
    OrderStatus,
    OrderType,
    PlaceOrder,
    RejectReason,
    Side,
    TimeInForce,
)
from venue.execution import Answer, EntryRules
from venue.protocols.bybit.ledger_view import LedgerView
from venue.protocols.bybit.members import Member
from venue.protocols.bybit.names import Listing, Product, Symbols, order_id_of
from venue.protocols.bybit.order_rows import Terms
from venue.protocols.bybit.refusals import BAD_PARAMETER, Refused, refusal_of
from venue.protocols.front import Desk
from venue.protocols.requests import Entry, Request, Verdict
from venue.records import OrderRecord

__all__ = ["OrderDesk"]

_RULES: Final = EntryRules(refused=frozenset())
"""A post-only order that would cross, or a fill-or-kill one that cannot be filled, is accepted and then ends."""
_LINK_ID: Final = re.compile(r"[A-Za-z0-9_-]{1,36}")
_SIDES: Final = {"Buy": Side.BUY, "Sell": Side.SELL}
_TIMES: Final = {"": TimeInForce.GTC, "GTC": TimeInForce.GTC, "IOC": TimeInForce.IOC, "FOK": TimeInForce.FOK}
_BATCH: Final = {Product.SPOT: 10, Product.LINEAR: 20, Product.INVERSE: 20}
LATE_CANCEL_MS: Final = 50
"""A cancel that comes so soon after the last fill crosses its report: it is taken in, and the order is
pushed once more as `Filled`."""

Late = Callable[[Member, OrderRecord], None]


class OrderDesk:
    """Takes orders for one protocol. `on_late_cancel` hears of each cancel that came too late by a moment."""

    def __init__(self, desk: Desk, symbols: Symbols, ledger: LedgerView, on_late_cancel: Late) -> None:
        self._desk: Final = desk
        self._symbols: Final = symbols
        self._ledger: Final = ledger
        self._on_late_cancel: Final = on_late_cancel
        self._unnamed = 0

    async def create(
        self, member: Member, request: Request, fields: dict[str, Any], entry: Entry
    ) -> dict[str, Any]:
        """Place an order and return its ids. Raises `Refused`."""
        listing = self._listing(fields)
        place, terms = self._place(listing, fields)
        answer = await self._ask(request, entry, member, place, listing, terms)
        assert answer.record is not None, "an order that was not refused is on record"
        return _ids(listing, answer.record.order.order_id, terms.link_id)

    async def amend(
        self, member: Member, request: Request, fields: dict[str, Any], entry: Entry
    ) -> dict[str, Any]:
        """Change an open order and return its ids. Raises `Refused`."""
        listing = self._listing(fields)
        record = self._open(member, listing, fields)
        order = record.order
        price = _number(fields.get("price"), "price") or order.price
        qty = _number(fields.get("qty"), "qty") or order.qty
        if price is None or (price, qty) == (order.price, order.qty):
            raise Refused(*_unchanged(listing))
        amend = AmendOrder(order.client_id, listing.symbol, order.side, price, qty)
        await self._ask(request, entry, member, amend, listing)
        return _ids(listing, order.order_id, self._ledger.view(record).terms.link_id)

    async def cancel(
        self, member: Member, request: Request, fields: dict[str, Any], entry: Entry
    ) -> dict[str, Any]:
        """Cancel an open order and return its ids. Raises `Refused`."""
        listing = self._listing(fields)
        found = self._ledger.find(
            member.wallet, listing, str(fields.get("orderId") or ""), str(fields.get("orderLinkId") or "")
        )
        if found is not None and self._filled_just_now(found):
            entry.verdict = Verdict.ACCEPTED
            self._on_late_cancel(member, found)
            return _ids(listing, found.order.order_id, self._ledger.view(found).terms.link_id)
        record = self._open(member, listing, fields)
        view = self._ledger.view(record)
        view.terms.cancel_type = "CancelByUser"
        try:
            await self._ask(
                request, entry, member, CancelOrder(record.order.client_id, listing.symbol), listing
            )
        except Refused:
            view.terms.cancel_type = "UNKNOWN"
            raise
        return _ids(listing, record.order.order_id, view.terms.link_id)

    async def cancel_all(self, member: Member, request: Request, fields: dict[str, Any]) -> dict[str, Any]:
        """Cancel what is open in a symbol, a settlement coin or a product, and return the ids. Raises `Refused`."""
        category = str(fields.get("category") or "")
        if category not in set(Product):
            raise Refused(BAD_PARAMETER, "params error: category invalid")
        coin = str(fields.get("settleCoin") or "")
        symbol = str(fields.get("symbol") or "")
        if category == Product.LINEAR and not (symbol or coin or fields.get("baseCoin")):
            raise Refused(BAD_PARAMETER, "params error: symbol, baseCoin or settleCoin is required")
        if symbol:
            self._listing(fields)
        cancelled = []
        for record in self._ledger.orders(member.wallet):
            listing = self._symbols.of(record.order.symbol)
            if (
                not record.order.is_open
                or listing.product != category
                or (symbol and listing.name != symbol)
                or (coin and listing.instrument.settle != coin)
            ):
                continue
            view = self._ledger.view(record)
            entry = Entry(view.terms.link_id, listing.name, fields)
            request.entries.append(entry)
            view.terms.cancel_type = "CancelByUser"
            cancel = CancelOrder(record.order.client_id, listing.symbol)
            answer = await self._desk.ask(request, entry, member.wallet, cancel)
            if answer.refusal is None:
                cancelled.append(_ids(listing, record.order.order_id, view.terms.link_id))
        return {"list": cancelled, "success": "1"}

    async def batch(
        self, member: Member, request: Request, path: str, fields: dict[str, Any]
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Carry out a batch; return `result` and `retExtInfo`, whose lists run in parallel. Raises `Refused`."""
        category = str(fields.get("category") or "")
        orders = fields.get("request")
        if category not in set(Product) or not isinstance(orders, list) or not orders:
            raise Refused(BAD_PARAMETER, "params error: category or request invalid")
        if len(orders) > _BATCH[Product(category)]:
            raise Refused(
                BAD_PARAMETER, f"params error: at most {_BATCH[Product(category)]} orders in a batch"
            )
        single = {"create": self.create, "amend": self.amend, "cancel": self.cancel}
        carry_out = single[path.rpartition("/")[2].removesuffix("-batch")]
        rows, codes = [], []
        for order in orders:
            one = {"category": category, **order} if isinstance(order, dict) else {}
            entry = Entry(str(one.get("orderLinkId") or ""), str(one.get("symbol") or ""), one)
            request.entries.append(entry)
            row, code = await _attempt(carry_out(member, request, one, entry), entry)
            named = {"category": category, "symbol": entry.symbol, **row}
            rows.append(named | ({"createAt": str(self._now_ms())} if "create" in path else {}))
            codes.append(code)
        return {"list": rows}, {"list": codes}

    # -- reading an order ------------------------------------------------------------------------

    def _listing(self, fields: dict[str, Any]) -> Listing:
        category, name = str(fields.get("category") or ""), str(fields.get("symbol") or "")
        if category not in set(Product):
            raise Refused(BAD_PARAMETER, "params error: category invalid")
        listing = self._symbols.find(category, name)
        if listing is None:
            raise refusal_of(Product(category), RejectReason.UNKNOWN_SYMBOL, name)
        return listing

    def _place(self, listing: Listing, fields: dict[str, Any]) -> tuple[PlaceOrder, Terms]:
        side, kind = _SIDES.get(str(fields.get("side"))), str(fields.get("orderType"))
        if side is None:
            raise Refused(BAD_PARAMETER, "Side invalid")
        if kind not in {"Limit", "Market"}:
            raise Refused(BAD_PARAMETER, "OrderType invalid")
        if fields.get("triggerPrice") or fields.get("takeProfit") or fields.get("stopLoss"):
            raise Refused(BAD_PARAMETER, "params error: this venue takes no conditional orders")
        link_id = str(fields.get("orderLinkId") or "")
        if link_id and not _LINK_ID.fullmatch(link_id):
            raise Refused(
                BAD_PARAMETER, "params error: OrderLinkID must be 1 to 36 of letters, digits, '-', '_'"
            )
        qty = _number(fields.get("qty"), "qty")
        if qty is None or qty <= 0:
            raise Refused(BAD_PARAMETER, "Qty invalid")
        time = str(fields.get("timeInForce") or "")
        post_only = time == "PostOnly"
        if not post_only and time not in _TIMES:
            raise Refused(BAD_PARAMETER, "TimeInForce invalid")
        is_market = kind == "Market"
        price = None if is_market else _number(fields.get("price"), "price")
        if not is_market and price is None:
            raise Refused(BAD_PARAMETER, "params error: price is required")
        unit = str(fields.get("marketUnit") or "")
        if is_market and listing.is_spot and _is_quote_sized(side, unit):
            qty = self._base_qty(listing, side, qty)
        self._unnamed += 1
        if not link_id and listing.is_spot:
            link_id = str(1_900_000_000_000_000_000 + self._unnamed)
        place = PlaceOrder(
            link_id or f"bybit {self._unnamed}",  # no id of a client has a space
            listing.symbol,
            side,
            OrderType.MARKET if is_market else OrderType.LIMIT,
            TimeInForce.IOC if is_market else TimeInForce.GTC if post_only else _TIMES[time],
            price,
            qty,
            post_only,
            bool(fields.get("reduceOnly")) and not listing.is_spot,
        )
        return place, Terms(link_id, self._now_ms(), unit)

    def _base_qty(self, listing: Listing, side: Side, amount: Decimal) -> Decimal:
        """Return how much of the base currency an amount of quote currency is at the best price."""
        bid, ask = self._desk.exchange.best(listing.symbol)
        best = ask if side is Side.BUY else bid
        if best is None:
            raise refusal_of(listing.product, RejectReason.NOT_FILLABLE, listing.name)
        return listing.instrument.qty_floor(amount / best)

    def _open(self, member: Member, listing: Listing, fields: dict[str, Any]) -> OrderRecord:
        order_id, link_id = str(fields.get("orderId") or ""), str(fields.get("orderLinkId") or "")
        if not order_id and not link_id:
            raise Refused(BAD_PARAMETER, "params error: OrderId or OrderLinkID is required")
        record = self._ledger.find(member.wallet, listing, order_id, link_id)
        if record is None or not record.order.is_open:
            raise refusal_of(listing.product, RejectReason.UNKNOWN_ORDER, "")
        return record

    # -- inside ----------------------------------------------------------------------------------

    async def _ask(
        self,
        request: Request,
        entry: Entry,
        member: Member,
        command: Command,
        listing: Listing,
        terms: Terms | None = None,
    ) -> Answer:
        answer = await self._desk.ask(request, entry, member.wallet, command, rules=_RULES, terms=terms)
        if answer.refusal is not None:
            raise refusal_of(listing.product, *answer.refusal)
        return answer

    def _filled_just_now(self, record: OrderRecord) -> bool:
        if record.status is not OrderStatus.FILLED:
            return False
        filled_ms = self._desk.shown_ns(record.updated_ns) // 1_000_000
        return self._now_ms() - filled_ms <= LATE_CANCEL_MS

    def _now_ms(self) -> int:
        return self._desk.now_ns() // 1_000_000


def _is_quote_sized(side: Side, unit: str) -> bool:
    """Return whether a spot market order's quantity is an amount of quote currency: a buy's is by default."""
    return unit == "quoteCoin" or (side is Side.BUY and unit != "baseCoin")


def _number(value: object, name: str) -> Decimal | None:
    if value is None or value == "":
        return None
    try:
        number = Decimal(str(value))
    except InvalidOperation:
        raise Refused(BAD_PARAMETER, f"params error: {name} invalid") from None
    if not number.is_finite():
        raise Refused(BAD_PARAMETER, f"params error: {name} invalid")
    return number


def _unchanged(listing: Listing) -> tuple[int, str]:
    if listing.is_spot:
        return 170312, "The current order does not support modification"
    return BAD_PARAMETER, "The order remains unchanged as the parameters entered match the existing ones."


def _ids(listing: Listing, number: int, link_id: str) -> dict[str, Any]:
    return {"orderId": order_id_of(listing.product, number), "orderLinkId": link_id}


async def _attempt(work: Awaitable[dict[str, Any]], entry: Entry) -> tuple[dict[str, Any], dict[str, Any]]:
    try:
        return await work, {"code": 0, "msg": "OK"}
    except Refused as refused:
        entry.verdict, entry.reason = Verdict.REFUSED, f"{refused.code} {refused.text}"
        return {"orderId": "", "orderLinkId": entry.client_id}, {"code": refused.code, "msg": refused.text}
