"""Spot trading: place, cancel, replace, amend, query."""

import re
from collections import OrderedDict
from decimal import ROUND_FLOOR, Decimal
from enum import Enum
from secrets import token_hex
from typing import Any, Final

from host.api import (
    AmendOrder,
    CancelOrder,
    Instrument,
    OrderType,
    PlaceOrder,
    RejectReason,
    Side,
    TimeInForce,
)
from venue.execution import Answer, EntryRules
from venue.protocols.binance.errors import BinanceRefusal, missing, not_required, too_precise
from venue.protocols.binance.params import Params
from venue.protocols.binance.product import Call, Endpoint, Security
from venue.protocols.binance.security import late
from venue.protocols.binance.spot_shapes import (
    SpotTerms,
    ack,
    fill_row,
    order_row,
    result,
    terms_of,
    trade_row,
)
from venue.protocols.binance.symbols import Listing
from venue.protocols.front import Desk
from venue.protocols.requests import Entry, Kind, Verdict
from venue.records import OrderRecord
from venue.validation import Refusal, check_order, mid_price

__all__ = ["SpotOrders"]

LEGAL_ID: Final = re.compile(r"^[a-zA-Z0-9-_]{1,36}$")
RULES: Final = EntryRules(is_id_unique_ever=False, refused=frozenset({RejectReason.WOULD_TAKE}))
"""An id may come again once its order is done; orders that find nobody are taken and expire."""
MAX_DECIMALS: Final = 8
MAX_ROWS: Final = 1000
MAX_RENAMED: Final = 10_000
"""Orders that an amend renamed and that are found by their new id; as many as closed ones are kept."""

_ORDER_CODES: Final = {
    RejectReason.INSUFFICIENT_FUNDS: (-2010, "Account has insufficient balance for requested action."),
    RejectReason.WOULD_TAKE: (-2010, "Order would immediately match and take."),
    RejectReason.DUPLICATE_ID: (-2010, "Duplicate order sent."),
    RejectReason.NOT_FILLABLE: (-2010, "Order book liquidity is less than LOT_SIZE filter minimum quantity."),
    RejectReason.UNAVAILABLE: (-2010, "Market is closed."),
    RejectReason.INVALID_PRICE: (-1013, "Filter failure: PRICE_FILTER"),
    RejectReason.INVALID_QTY: (-1013, "Filter failure: LOT_SIZE"),
    RejectReason.MIN_NOTIONAL: (-1013, "Filter failure: NOTIONAL"),
    RejectReason.PRICE_BAND: (-1013, "Filter failure: PERCENT_PRICE_BY_SIDE"),
    RejectReason.UNKNOWN_SYMBOL: (-1121, "Invalid symbol."),
    RejectReason.UNKNOWN_ORDER: (-2011, "Unknown order sent."),
}


class _Sides(Enum):
    BUY = "BUY"
    SELL = "SELL"


class _Types(Enum):
    LIMIT = "LIMIT"
    MARKET = "MARKET"
    LIMIT_MAKER = "LIMIT_MAKER"
    STOP_LOSS = "STOP_LOSS"
    STOP_LOSS_LIMIT = "STOP_LOSS_LIMIT"
    TAKE_PROFIT = "TAKE_PROFIT"
    TAKE_PROFIT_LIMIT = "TAKE_PROFIT_LIMIT"


class _Validity(Enum):
    GTC = "GTC"
    IOC = "IOC"
    FOK = "FOK"


class SpotOrders:
    """The trading endpoints. `cancel_ids` tells the user data stream how cancels were called."""

    def __init__(self, desk: Desk, listing: Listing) -> None:
        self._desk = desk
        self._listing = listing
        self.cancel_ids: dict[int, str] = {}
        self._renamed: OrderedDict[tuple[str, str], int] = OrderedDict()

    def endpoints(self) -> tuple[Endpoint, ...]:
        """Return what can be asked for."""
        signed = Security.SIGNED
        order, open_orders = "/api/v3/order", "/api/v3/openOrders"
        return (
            Endpoint("order.place", Kind.PLACE, signed, self._place, 1, (f"POST {order}",), True, True),
            Endpoint("order.test", Kind.QUERY, signed, self._test, 1, (f"POST {order}/test",)),
            Endpoint("order.cancel", Kind.CANCEL, signed, self._cancel, 1, (f"DELETE {order}",), True),
            Endpoint("order.status", Kind.QUERY, signed, self._status, 4, (f"GET {order}",)),
            Endpoint(
                "order.cancelReplace",
                Kind.AMEND,
                signed,
                self._cancel_replace,
                1,
                (f"POST {order}/cancelReplace",),
                True,
                True,
            ),
            Endpoint(
                "order.amend.keepPriority",
                Kind.AMEND,
                signed,
                self._amend,
                4,
                (f"PUT {order}/amend/keepPriority",),
                True,
            ),
            Endpoint(
                "openOrders.cancelAll",
                Kind.CANCEL_ALL,
                signed,
                self._cancel_all,
                1,
                (f"DELETE {open_orders}",),
                True,
            ),
            Endpoint(
                "openOrders.status",
                Kind.QUERY,
                signed,
                self._open_orders,
                _open_weight,
                (f"GET {open_orders}",),
            ),
            Endpoint("allOrders", Kind.QUERY, signed, self._all_orders, 20, ("GET /api/v3/allOrders",)),
            Endpoint("myTrades", Kind.QUERY, signed, self._my_trades, 20, ("GET /api/v3/myTrades",)),
        )

    # -- place -----------------------------------------------------------------------------------

    async def _place(self, call: Call) -> Any:
        instrument, place, terms = self._read_order(call.params, call.wallet)
        call.request.client_id = place.client_id
        entry = call.entry(client_id=place.client_id)
        answer = await self._desk.ask(call.request, entry, call.wallet, place, rules=RULES, terms=terms)
        return self._placed(answer, instrument, call.params, terms)

    async def _test(self, call: Call) -> Any:
        self._read_order(call.params, call.wallet)
        return {}

    def _read_order(self, params: Params, wallet: str) -> tuple[Instrument, PlaceOrder, SpotTerms]:
        instrument = self._listing.instrument(params)
        side = params.choice("side", _Sides, BinanceRefusal(-1117, "Invalid side."))
        kind = params.choice("type", _Types, BinanceRefusal(-1116, "Invalid orderType."))
        if kind not in (_Types.LIMIT, _Types.MARKET, _Types.LIMIT_MAKER):
            family = "Stop loss" if "STOP" in kind.value else "Take profit"
            raise BinanceRefusal(-2010, f"{family} orders are not supported for this symbol.")
        client_id = params.client_id("newClientOrderId", LEGAL_ID) or token_hex(11)
        self._refuse_renamed(wallet, client_id)
        terms = SpotTerms(kind.value, client_id)
        price: Decimal | None = None
        validity = TimeInForce.GTC
        if kind is _Types.LIMIT:
            found = params.choice("timeInForce", _Validity, BinanceRefusal(-1115, "Invalid timeInForce."))
            validity = TimeInForce(found.value.lower())
        elif "timeInForce" in params:
            raise not_required("timeInForce")
        if kind is _Types.MARKET:
            if "price" in params:
                raise not_required("price")
            validity = TimeInForce.IOC
            qty, terms.quote_qty = self._market_qty(instrument, params, _side(side))
        else:
            if "quoteOrderQty" in params:
                raise not_required("quoteOrderQty")
            qty, price = _number(params, "quantity"), _number(params, "price")
        place = PlaceOrder(
            client_id,
            instrument.symbol,
            _side(side),
            OrderType.MARKET if price is None else OrderType.LIMIT,
            validity,
            price,
            qty,
            kind is _Types.LIMIT_MAKER,
            False,
        )
        return instrument, place, terms

    def _market_qty(self, instrument: Instrument, params: Params, side: Side) -> tuple[Decimal, Decimal]:
        """Return how much a market order is for, and `quoteOrderQty` where that decides it."""
        if "quantity" in params:
            if "quoteOrderQty" in params:
                raise BinanceRefusal(-1128, "Combination of optional parameters invalid.")
            return _number(params, "quantity"), Decimal(0)
        if "quoteOrderQty" not in params:
            raise missing("quantity")
        quote = _number(params, "quoteOrderQty")
        book = self._desk.exchange.snapshot(instrument.symbol)
        left, qty = quote, Decimal(0)
        for price, size in book.asks if side is Side.BUY else book.bids:
            level_price, level_size = Decimal(str(price)), Decimal(str(size))
            taken = min(level_size, left / level_price)
            qty += taken
            left -= taken * level_price
            if left <= 0:
                break
        lots = (qty / instrument.lot_size).to_integral_value(ROUND_FLOOR)
        return lots * instrument.lot_size, quote

    def _placed(
        self, answer: Answer, instrument: Instrument, params: Params, terms: SpotTerms
    ) -> dict[str, Any]:
        record = answer.record
        if answer.refusal is not None or record is None:
            raise order_refusal(answer.refusal)
        name = self._listing.name_of(instrument.symbol)
        time_ms = self._desk.shown_ns(answer.ts_ns) // 1_000_000
        default = "ACK" if terms.type == "LIMIT_MAKER" else "FULL"
        shape = params.text("newOrderRespType", default)
        body = ack(record, name, time_ms)
        if shape in ("RESULT", "FULL"):
            body |= {**result(record), "workingTime": time_ms}
        if shape == "FULL":
            body["fills"] = [fill_row(each.fill) for each in answer.executions if each.fill is not None]
        return body

    # -- cancel ----------------------------------------------------------------------------------

    async def _cancel(self, call: Call) -> Any:
        instrument = self._listing.instrument(call.params)
        record = self._find(call, instrument, "orderId", "origClientOrderId")
        entry = call.entry(client_id=call.request.client_id)
        return await self._cancel_one(call, entry, instrument, record, call.params.text("newClientOrderId"))

    async def _cancel_one(
        self, call: Call, entry: Entry, instrument: Instrument, record: OrderRecord | None, cancel_id: str
    ) -> dict[str, Any]:
        if record is None or not record.order.is_open:
            raise BinanceRefusal(-2011, "Unknown order sent.")
        _check_restriction(call.params, record)
        order = record.order
        cancel_id = cancel_id or token_hex(11)
        self.cancel_ids[order.order_id] = cancel_id
        try:
            answer = await self._desk.ask(
                call.request, entry, call.wallet, CancelOrder(order.client_id, order.symbol)
            )
        finally:
            self.cancel_ids.pop(order.order_id, None)
        if answer.refusal is not None:
            raise order_refusal(answer.refusal)
        return {
            "symbol": self._listing.name_of(instrument.symbol),
            "origClientOrderId": terms_of(record.terms, order).client_id,
            "orderId": order.order_id,
            "orderListId": -1,
            "clientOrderId": cancel_id,
            "transactTime": self._desk.shown_ns(answer.ts_ns) // 1_000_000,
            **result(record),
        }

    async def _cancel_all(self, call: Call) -> Any:
        instrument = self._listing.instrument(call.params)
        orders = [each for each in self._records(call) if each.order.symbol == instrument.symbol]
        if not orders:
            call.entry()
            raise BinanceRefusal(-2011, "Unknown order sent.")
        rows = []
        for record in orders:
            entry = call.entry(client_id=terms_of(record.terms, record.order).client_id)
            rows.append(await self._cancel_one(call, entry, instrument, record, ""))
        return rows

    # -- replace and amend -----------------------------------------------------------------------

    async def _cancel_replace(self, call: Call) -> Any:
        params = call.params
        mode = params.required("cancelReplaceMode")
        if mode not in ("STOP_ON_FAILURE", "ALLOW_FAILURE"):
            raise BinanceRefusal(-1130, "Data sent for parameter 'cancelReplaceMode' is not valid.")
        instrument, place, terms = self._read_order(params, call.wallet)
        self._check_filters(instrument, place)
        record = self._find(call, instrument, "cancelOrderId", "cancelOrigClientOrderId")
        cancel_entry = call.entry(client_id=call.request.client_id, kind=Kind.CANCEL)
        cancelled: dict[str, Any]
        is_cancelled = True
        try:
            cancelled = await self._cancel_one(
                call, cancel_entry, instrument, record, params.text("cancelNewClientOrderId")
            )
        except BinanceRefusal as refusal:
            is_cancelled, cancelled = False, refusal.body()
            cancel_entry.verdict = Verdict.REFUSED
            cancel_entry.reason = f"{refusal.code} {refusal.text}"
            if mode == "STOP_ON_FAILURE":
                data = _replaced("FAILURE", "NOT_ATTEMPTED", cancelled, None)
                raise BinanceRefusal(-2022, "Order cancel-replace failed.", data=data) from None
        place_entry = call.entry(client_id=place.client_id, kind=Kind.PLACE)
        try:
            answer = await self._desk.ask(
                call.request, place_entry, call.wallet, place, rules=RULES, terms=terms
            )
            placed = self._placed(answer, instrument, params, terms)
        except BinanceRefusal as refusal:
            place_entry.reason = f"{refusal.code} {refusal.text}"
            data = _replaced("SUCCESS" if is_cancelled else "FAILURE", "FAILURE", cancelled, refusal.body())
            if is_cancelled:
                raise BinanceRefusal(
                    -2021, "Order cancel-replace partially failed.", status=409, data=data
                ) from None
            raise BinanceRefusal(-2022, "Order cancel-replace failed.", data=data) from None
        if not is_cancelled:
            data = _replaced("FAILURE", "SUCCESS", cancelled, placed)
            raise BinanceRefusal(-2021, "Order cancel-replace partially failed.", status=409, data=data)
        return _replaced("SUCCESS", "SUCCESS", cancelled, placed)

    def _check_filters(self, instrument: Instrument, place: PlaceOrder) -> None:
        # Before the cancel: a replacement that no filter lets through must not cost the old order.
        reference = mid_price(*self._desk.exchange.best(instrument.symbol))
        refusal = check_order(instrument, place.price, place.qty, reference)
        if refusal is not None:
            raise order_refusal(refusal)

    async def _amend(self, call: Call) -> Any:
        params = call.params
        instrument = self._listing.instrument(params)
        qty = _number(params, "newQty")
        record = self._find(call, instrument, "orderId", "origClientOrderId")
        entry = call.entry(client_id=call.request.client_id)
        if record is None or not record.order.is_open:
            raise BinanceRefusal(-2011, "Unknown order sent.")
        order, terms = record.order, terms_of(record.terms, record.order)
        if order.price is None or qty >= order.qty:
            raise BinanceRefusal(
                -2038, "The order amend is rejected: newQty must be below the order's quantity."
            )
        old_id = terms.client_id
        new_id = params.client_id("newClientOrderId", LEGAL_ID) or token_hex(11)
        record.terms = SpotTerms(terms.type, new_id, terms.quote_qty)
        answer = await self._desk.ask(
            call.request,
            entry,
            call.wallet,
            AmendOrder(order.client_id, order.symbol, order.side, order.price, qty),
        )
        if answer.refusal is not None:
            record.terms = terms
            raise order_refusal(answer.refusal)
        self._renamed[(call.wallet, new_id)] = order.order_id
        if len(self._renamed) > MAX_RENAMED:
            self._renamed.popitem(last=False)
        amended = order_row(record, params.text("symbol"), 0, 0)
        return {
            "transactTime": self._desk.shown_ns(answer.ts_ns) // 1_000_000,
            "executionId": answer.ts_ns // 1_000,
            "amendedOrder": {
                "symbol": amended["symbol"],
                "orderId": order.order_id,
                "orderListId": -1,
                "origClientOrderId": old_id,
                "clientOrderId": new_id,
                "price": amended["price"],
                "qty": amended["origQty"],
                "executedQty": amended["executedQty"],
                "preventedQty": "0.00000000",
                "quoteOrderQty": amended["origQuoteOrderQty"],
                "cumulativeQuoteQty": amended["cummulativeQuoteQty"],
                "status": amended["status"],
                "timeInForce": amended["timeInForce"],
                "type": amended["type"],
                "side": amended["side"],
                "workingTime": self._desk.shown_ns(order.created_ns) // 1_000_000,
                "selfTradePreventionMode": amended["selfTradePreventionMode"],
            },
        }

    # -- queries ---------------------------------------------------------------------------------

    async def _status(self, call: Call) -> Any:
        instrument = self._listing.instrument(call.params)
        record = self._find(call, instrument, "orderId", "origClientOrderId")
        if record is None:
            raise BinanceRefusal(-2013, "Order does not exist.")
        return self._row(record)

    async def _open_orders(self, call: Call) -> Any:
        symbol = self._listing.instrument(call.params).symbol if "symbol" in call.params else ""
        return [self._row(each) for each in self._records(call) if symbol in ("", each.order.symbol)]

    async def _all_orders(self, call: Call) -> Any:
        symbol, params = self._listing.instrument(call.params).symbol, call.params
        first = params.integer("orderId", 0) or 0
        rows = [
            self._row(each)
            for each in self._desk.exchange.records(call.wallet).all()
            if each.order.symbol == symbol and each.order.order_id >= first
        ]
        rows = [row for row in rows if _is_within(params, row["time"])]
        limit = min(params.integer("limit", 500) or 500, MAX_ROWS)
        return rows[:limit] if "orderId" in params else rows[-limit:]

    async def _my_trades(self, call: Call) -> Any:
        instrument, params = self._listing.instrument(call.params), call.params
        name = self._listing.name_of(instrument.symbol)
        first, order_id = params.integer("fromId", 0) or 0, params.integer("orderId")
        rows = [
            trade_row(fill, name, self._desk.shown_ns(fill.ts_ns) // 1_000_000)
            for fill in self._desk.exchange.records(call.wallet).fills_since(0)
            if fill.symbol == instrument.symbol
            and int(fill.trade_id) >= first
            and order_id in (None, int(fill.venue_id))
        ]
        rows = [row for row in rows if _is_within(params, row["time"])]
        limit = min(params.integer("limit", 500) or 500, MAX_ROWS)
        return rows[:limit] if "fromId" in params else rows[-limit:]

    # -- finding orders --------------------------------------------------------------------------

    def _find(self, call: Call, instrument: Instrument, by_number: str, by_id: str) -> OrderRecord | None:
        """Return the order that a request names, None for an unknown one; raise where it names none."""
        params = call.params
        number, client_id = params.integer(by_number), params.text(by_id)
        if number is None and not client_id:
            raise BinanceRefusal(
                -1102,
                f"Param '{by_id}' or '{by_number}' must be sent, but both were empty/null!",
            )
        record = None
        if client_id:
            call.request.client_id = client_id
            record = self._by_client_id(call.wallet, client_id)
        if number is not None:
            by_number_found = self._desk.exchange.find_order(call.wallet, order_id=number)
            if client_id and by_number_found is not record:
                raise BinanceRefusal(-2039, "The orderId and origClientOrderId do not belong together.")
            record = by_number_found
        if record is None or record.order.symbol != instrument.symbol:
            return None
        if not client_id:
            call.request.client_id = terms_of(record.terms, record.order).client_id
        return record

    def _by_client_id(self, wallet: str, client_id: str) -> OrderRecord | None:
        exchange = self._desk.exchange
        number = self._renamed.get((wallet, client_id))
        if number is not None:
            return exchange.find_order(wallet, order_id=number)
        record = exchange.find_order(wallet, client_id=client_id)
        if record is None or terms_of(record.terms, record.order).client_id != client_id:
            return None  # it was called that before an amend renamed it
        return record

    def _refuse_renamed(self, wallet: str, client_id: str) -> None:
        number = self._renamed.get((wallet, client_id))
        record = None if number is None else self._desk.exchange.find_order(wallet, order_id=number)
        if record is not None and record.order.is_open:
            raise BinanceRefusal(-2010, "Duplicate order sent.")
        self._renamed.pop((wallet, client_id), None)

    def _records(self, call: Call) -> list[OrderRecord]:
        return list(self._desk.exchange.records(call.wallet).open())

    def _row(self, record: OrderRecord) -> dict[str, Any]:
        shown = self._desk.shown_ns
        return order_row(
            record,
            self._listing.name_of(record.order.symbol),
            shown(record.order.created_ns) // 1_000_000,
            shown(record.updated_ns) // 1_000_000,
        )


def order_refusal(refusal: Refusal | None) -> BinanceRefusal:
    """Return the engine's refusal of an order, cancel or amend in Binance's words."""
    if refusal is None:
        return BinanceRefusal(-1000, "An unknown error occurred while processing the request.")
    reason, text = refusal
    if reason is RejectReason.EXPIRED_REQUEST:
        return late()
    code, words = _ORDER_CODES.get(reason, (-2010, text))
    return BinanceRefusal(code, words)


def _number(params: Params, name: str) -> Decimal:
    value = params.required_decimal(name)
    exponent = value.normalize().as_tuple().exponent
    if isinstance(exponent, int) and -exponent > MAX_DECIMALS:
        raise too_precise(name)
    if not value:
        raise BinanceRefusal(-1013, f"Invalid {name}.")
    return value


def _side(side: _Sides) -> Side:
    return Side.BUY if side is _Sides.BUY else Side.SELL


def _open_weight(params: Params) -> int:
    return 6 if "symbol" in params else 80


def _check_restriction(params: Params, record: OrderRecord) -> None:
    wanted = params.text("cancelRestrictions")
    if not wanted:
        return
    if wanted not in ("ONLY_NEW", "ONLY_PARTIALLY_FILLED"):
        raise BinanceRefusal(-1145, "Invalid cancelRestrictions")
    if (wanted == "ONLY_NEW") is bool(record.booked):
        raise BinanceRefusal(-2011, "Order was not canceled due to cancel restrictions.")


def _is_within(params: Params, time_ms: int) -> bool:
    start, end = params.integer("startTime", 0) or 0, params.integer("endTime")
    return time_ms >= start and (end is None or time_ms <= end)


def _replaced(cancel: str, new: str, cancelled: Any, placed: Any) -> dict[str, Any]:
    return {
        "cancelResult": cancel,
        "newOrderResult": new,
        "cancelResponse": cancelled,
        "newOrderResponse": placed,
    }
