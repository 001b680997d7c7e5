"""USDⓈ-M trading: place, modify, cancel, batches, queries, the dead man's switch."""

import asyncio
import re
from collections.abc import Awaitable, Callable
from decimal import Decimal
from enum import Enum
from secrets import token_hex
from typing import Any, Final

import orjson

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
from venue.execution import EntryRules
from venue.protocols.binance.errors import BinanceRefusal, missing, not_required
from venue.protocols.binance.params import Params, from_frame
from venue.protocols.binance.product import Call, Endpoint, Security
from venue.protocols.binance.security import late
from venue.protocols.binance.symbols import Listing, decimals_of
from venue.protocols.binance.usdm_shapes import UsdmTerms, order_reply, order_row, terms_of, trade_row
from venue.protocols.front import NO_DEADLINE_NS, Desk
from venue.protocols.requests import Entry, Kind, Verdict
from venue.records import OrderRecord
from venue.validation import Refusal

__all__ = ["UsdmOrders"]

LEGAL_ID: Final = re.compile(r"^[.A-Z:/a-z0-9_-]{1,36}$")
RULES: Final = EntryRules(
    is_id_unique_ever=False, refused=frozenset({RejectReason.WOULD_TAKE, RejectReason.NOT_FILLABLE})
)
MAX_BATCH: Final = 5
MAX_BATCH_CANCEL: Final = 10
MAX_MODIFICATIONS: Final = 10_000
MAX_ROWS: Final = 1000

_CODES: Final = {
    RejectReason.INSUFFICIENT_FUNDS: (-2019, "Margin is insufficient."),
    RejectReason.WOULD_TAKE: (
        -5022,
        "Due to the order could not be executed as maker, the Post Only order will be rejected. "
        "The order will not be recorded in the order history",
    ),
    RejectReason.NOT_FILLABLE: (
        -5021,
        "Due to the order could not be filled immediately, the FOK order has been rejected. "
        "The order will not be recorded in the order history",
    ),
    RejectReason.REDUCE_ONLY: (-2022, "ReduceOnly Order is rejected."),
    RejectReason.DUPLICATE_ID: (-4116, "ClientOrderId is duplicated."),
    RejectReason.INVALID_PRICE: (-4014, "Price not increased by tick size."),
    RejectReason.INVALID_QTY: (-4023, "Qty not increased by step size."),
    RejectReason.PRICE_BAND: (
        -4131,
        "The counterparty's best price does not meet the PERCENT_PRICE filter limit.",
    ),
    RejectReason.UNKNOWN_SYMBOL: (-1121, "Invalid symbol."),
    RejectReason.UNAVAILABLE: (
        -4108,
        "Symbol is on delivering or delivered or settling or closed or pre-trading.",
    ),
    RejectReason.UNKNOWN_ORDER: (-2011, "Unknown order sent."),
}


class _Sides(Enum):
    BUY = "BUY"
    SELL = "SELL"


class _Types(Enum):
    LIMIT = "LIMIT"
    MARKET = "MARKET"


_CONDITIONAL: Final = frozenset(
    {"STOP", "STOP_MARKET", "TAKE_PROFIT", "TAKE_PROFIT_MARKET", "TRAILING_STOP_MARKET"}
)


class _Validity(Enum):
    GTC = "GTC"
    IOC = "IOC"
    FOK = "FOK"
    GTX = "GTX"


class UsdmOrders:
    """The trading endpoints."""

    def __init__(self, desk: Desk, listing: Listing) -> None:
        self._desk = desk
        self._listing = listing
        self._switches: dict[tuple[str, str], asyncio.Task[None]] = {}

    def endpoints(self) -> tuple[Endpoint, ...]:
        """Return what can be asked for."""
        signed, path, batch = Security.SIGNED, "/fapi/v1/order", "/fapi/v1/batchOrders"
        query = Kind.QUERY
        return (
            Endpoint("order.place", Kind.PLACE, signed, self._place, 0, (f"POST {path}",), False, True),
            Endpoint("order.modify", Kind.AMEND, signed, self._modify, 0, (f"PUT {path}",), False, True),
            Endpoint("order.cancel", Kind.CANCEL, signed, self._cancel, 1, (f"DELETE {path}",)),
            Endpoint("order.status", query, signed, self._status, 1, (f"GET {path}",)),
            Endpoint("order.test", query, signed, self._test, 0, (f"POST {path}/test",)),
            Endpoint("order.open", query, signed, self._open_order, 1, ("GET /fapi/v1/openOrder",)),
            Endpoint("batch.place", Kind.BATCH, signed, self._place_batch, 5, (f"POST {batch}",)),
            Endpoint("batch.modify", Kind.BATCH, signed, self._modify_batch, 5, (f"PUT {batch}",)),
            Endpoint("batch.cancel", Kind.BATCH, signed, self._cancel_batch, 1, (f"DELETE {batch}",)),
            Endpoint(
                "cancelAll", Kind.CANCEL_ALL, signed, self._cancel_all, 1, ("DELETE /fapi/v1/allOpenOrders",)
            ),
            Endpoint(
                "countdown", Kind.SETTING, signed, self._count_down, 10, ("POST /fapi/v1/countdownCancelAll",)
            ),
            Endpoint(
                "openOrders", query, signed, self._open_orders, _open_weight, ("GET /fapi/v1/openOrders",)
            ),
            Endpoint("allOrders", query, signed, self._all_orders, 5, ("GET /fapi/v1/allOrders",)),
            Endpoint("userTrades", query, signed, self._user_trades, 5, ("GET /fapi/v1/userTrades",)),
            Endpoint(
                "conditional", Kind.PLACE, signed, self._no_conditional, 1, ("POST /fapi/v1/algoOrder",)
            ),
            Endpoint("conditional.open", query, signed, self._no_rows, 1, ("GET /fapi/v1/openAlgoOrders",)),
        )

    def close(self) -> None:
        """Stop the dead man's switches."""
        for task in self._switches.values():
            task.cancel()

    # -- place -----------------------------------------------------------------------------------

    async def _place(self, call: Call) -> Any:
        return await self._place_one(call, call.params)

    async def _place_one(self, call: Call, params: Params) -> dict[str, Any]:
        instrument, place, terms = self._read_order(params)
        call.request.client_id = call.request.client_id or place.client_id
        entry = call.entry(params, client_id=place.client_id)
        answer = await self._desk.ask(call.request, entry, call.wallet, place, rules=RULES, terms=terms)
        if answer.refusal is not None or answer.record is None:
            raise self._refusal(answer.refusal, instrument)
        return self._reply(answer.record, answer.ts_ns)

    async def _test(self, call: Call) -> Any:
        self._read_order(call.params)
        return {}

    def _read_order(self, params: Params) -> tuple[Instrument, PlaceOrder, UsdmTerms]:
        instrument = self._listing.instrument(params)
        side = params.choice("side", _Sides, BinanceRefusal(-1117, "Invalid side."))
        if params.text("type") in _CONDITIONAL:
            # Conditional orders moved to /fapi/v1/algoOrder at the end of 2025.
            raise BinanceRefusal(
                -4120,
                "Order type not supported for this endpoint. Please use the Algo Order API endpoints instead.",
            )
        kind = params.choice("type", _Types, BinanceRefusal(-1116, "Invalid orderType."))
        if params.text("positionSide", "BOTH") != "BOTH":
            raise BinanceRefusal(-4061, "Order's position side does not match user's setting.")
        client_id = params.text("newClientOrderId")
        if client_id and not LEGAL_ID.match(client_id):
            raise BinanceRefusal(-4015, "Client order id is not valid.")
        qty = _number(params, "quantity", instrument.lot_size)
        price: Decimal | None = None
        validity = _Validity.GTC
        if kind is _Types.LIMIT:
            validity = params.choice("timeInForce", _Validity, BinanceRefusal(-1115, "Invalid timeInForce."))
            price = _number(params, "price", instrument.tick_size)
        elif "timeInForce" in params or "price" in params:
            raise not_required("timeInForce" if "timeInForce" in params else "price")
        rest = {_Validity.IOC: TimeInForce.IOC, _Validity.FOK: TimeInForce.FOK}.get(validity, TimeInForce.GTC)
        place = PlaceOrder(
            client_id or token_hex(11),
            instrument.symbol,
            Side.BUY if side is _Sides.BUY else Side.SELL,
            OrderType.MARKET if price is None else OrderType.LIMIT,
            TimeInForce.IOC if price is None else rest,
            price,
            qty,
            validity is _Validity.GTX,
            params.boolean("reduceOnly"),
        )
        return instrument, place, UsdmTerms(validity.value)

    # -- modify and cancel -----------------------------------------------------------------------

    async def _modify(self, call: Call) -> Any:
        return await self._modify_one(call, call.params)

    async def _modify_one(self, call: Call, params: Params) -> dict[str, Any]:
        instrument = self._listing.instrument(params)
        params.choice("side", _Sides, BinanceRefusal(-1117, "Invalid side."))
        qty = _number(params, "quantity", instrument.lot_size)
        price = _number(params, "price", instrument.tick_size)
        record = self._find(call, params, instrument)
        entry = call.entry(params, client_id=_client_id_of(params, record))
        if record is None or not record.order.is_open:
            raise BinanceRefusal(-2013, "Order does not exist.")
        order, terms = record.order, terms_of(record.terms, record.order)
        if terms.modifications >= MAX_MODIFICATIONS:
            raise BinanceRefusal(-5026, "Exceed maximum modify order limit.")
        if order.price == price and order.qty == qty:
            raise BinanceRefusal(-5027, "No need to modify the order.")
        if qty <= order.filled:
            return await self._cancel_one(call, entry, record)
        command = AmendOrder(order.client_id, order.symbol, order.side, price, qty)
        answer = await self._desk.ask(call.request, entry, call.wallet, command)
        if answer.refusal is not None:
            raise self._refusal(answer.refusal, instrument)
        record.terms = UsdmTerms(terms.time_in_force, terms.modifications + 1)
        return self._reply(record, answer.ts_ns)

    async def _cancel(self, call: Call) -> Any:
        instrument = self._listing.instrument(call.params)
        record = self._find(call, call.params, instrument)
        entry = call.entry(client_id=_client_id_of(call.params, record))
        return await self._cancel_one(call, entry, record)

    async def _cancel_one(self, call: Call, entry: Entry, record: OrderRecord | None) -> dict[str, Any]:
        if record is None or not record.order.is_open:
            raise BinanceRefusal(-2011, "Unknown order sent.")
        order = record.order
        command = CancelOrder(order.client_id, order.symbol)
        answer = await self._desk.ask(call.request, entry, call.wallet, command)
        if answer.refusal is not None:
            raise self._refusal(answer.refusal, self._desk.exchange.instrument(order.symbol))
        return self._reply(record, answer.ts_ns)

    async def _cancel_all(self, call: Call) -> Any:
        symbol = self._listing.instrument(call.params).symbol
        records = [
            each for each in self._desk.exchange.records(call.wallet).open() if each.order.symbol == symbol
        ]
        if not records:
            call.entry()
        for record in records:
            await self._cancel_one(call, call.entry(client_id=record.order.client_id), record)
        return {"code": 200, "msg": "The operation of cancel all open order is done."}

    # -- batches ---------------------------------------------------------------------------------

    async def _place_batch(self, call: Call) -> Any:
        return await self._each(call, _orders(call.params), self._place_one, Kind.PLACE)

    async def _modify_batch(self, call: Call) -> Any:
        return await self._each(call, _orders(call.params), self._modify_one, Kind.AMEND)

    async def _cancel_batch(self, call: Call) -> Any:
        symbol = self._listing.name_of(self._listing.instrument(call.params).symbol)
        # The documents have them in mixed case; ccxt sends lower case, and is served.
        numbers = _listed(call.params, "orderIdList") or _listed(call.params, "orderidlist")
        ids = _listed(call.params, "origClientOrderIdList") or _listed(call.params, "origclientorderidlist")
        if not numbers and not ids:
            raise missing("orderIdList")
        if len(numbers) + len(ids) > MAX_BATCH_CANCEL:
            raise BinanceRefusal(-4005, "Quantity greater than max quantity.")
        orders = [{"symbol": symbol, "orderId": each} for each in numbers]
        orders += [{"symbol": symbol, "origClientOrderId": each} for each in ids]

        async def cancel(call: Call, params: Params) -> dict[str, Any]:
            record = self._find(call, params, self._listing.instrument(params))
            entry = call.entry(params, client_id=_client_id_of(params, record))
            return await self._cancel_one(call, entry, record)

        return await self._each(call, [from_frame(each) for each in orders], cancel, Kind.CANCEL)

    async def _each(
        self,
        call: Call,
        orders: list[Params],
        carry_out: Callable[[Call, Params], Awaitable[dict[str, Any]]],
        kind: Kind,
    ) -> list[dict[str, Any]]:
        """Carry out a batch's orders in turn; a refused one keeps none of the others back."""
        rows = []
        for params in orders:
            before = len(call.request.entries)
            try:
                rows.append(await carry_out(call, params))
            except BinanceRefusal as refusal:
                rows.append(refusal.body())
                if len(call.request.entries) == before:
                    call.entry(params, client_id=params.text("newClientOrderId"))
                entry = call.request.entries[-1]
                entry.verdict = Verdict.REFUSED
                entry.reason = f"{refusal.code} {refusal.text}" + (
                    f" ({entry.reason})" if entry.reason else ""
                )
            call.request.entries[-1].kind = kind
        return rows

    # -- dead man's switch -----------------------------------------------------------------------

    async def _count_down(self, call: Call) -> Any:
        instrument = self._listing.instrument(call.params)
        after_ms = call.params.integer("countdownTime")
        if after_ms is None:
            raise missing("countdownTime")
        key = (call.wallet, instrument.symbol)
        armed = self._switches.pop(key, None)
        if armed is not None:
            armed.cancel()
        if after_ms:
            self._switches[key] = asyncio.create_task(self._run_out(*key, after_ms / 1e3))
        return {"symbol": self._listing.name_of(instrument.symbol), "countdownTime": str(after_ms)}

    async def _run_out(self, wallet: str, symbol: str, after_s: float) -> None:
        await self._desk.clock.sleep(after_s)
        for record in self._desk.exchange.records(wallet).open():
            if record.order.symbol == symbol:
                command = CancelOrder(record.order.client_id, symbol)
                self._desk.running.submit(wallet, command, NO_DEADLINE_NS)
        self._desk.running.step()

    # -- queries ---------------------------------------------------------------------------------

    async def _status(self, call: Call) -> Any:
        record = self._find(call, call.params, self._listing.instrument(call.params))
        if record is None:
            raise BinanceRefusal(-2013, "Order does not exist.")
        return self._row(record)

    async def _open_order(self, call: Call) -> Any:
        record = self._find(call, call.params, self._listing.instrument(call.params))
        if record is None or not record.order.is_open:
            raise BinanceRefusal(-2013, "Order does not exist.")
        return self._row(record)

    async def _open_orders(self, call: Call) -> Any:
        symbol = self._listing.instrument(call.params).symbol if "symbol" in call.params else ""
        records = self._desk.exchange.records(call.wallet).open()
        return [self._row(each) for each in records if symbol in ("", each.order.symbol)]

    async def _all_orders(self, call: Call) -> Any:
        symbol, params = self._listing.instrument(call.params).symbol, call.params
        first = params.integer("orderId", 0) or 0
        rows = [
            self._row(each)
            for each in self._desk.exchange.records(call.wallet).all()
            if each.order.symbol == symbol and each.order.order_id >= first
        ]
        return _window(params, rows, "orderId")

    async def _user_trades(self, call: Call) -> Any:
        instrument, params = self._listing.instrument(call.params), call.params
        name = self._listing.name_of(instrument.symbol)
        first, order_id = params.integer("fromId", 0) or 0, params.integer("orderId")
        records = self._desk.exchange.records(call.wallet)
        rows = [
            trade_row(
                fill,
                instrument,
                name,
                records.realised(fill.trade_id),
                self._desk.shown_ns(fill.ts_ns) // 1_000_000,
            )
            for fill in records.fills_since(0)
            if fill.symbol == instrument.symbol
            and int(fill.trade_id) >= first
            and order_id in (None, int(fill.venue_id))
        ]
        return _window(params, rows, "fromId")

    async def _no_conditional(self, call: Call) -> Any:
        raise BinanceRefusal(-4120, "Conditional orders are not served here.")

    async def _no_rows(self, call: Call) -> Any:
        return []

    # -- finding and writing ---------------------------------------------------------------------

    def _find(self, call: Call, params: Params, instrument: Instrument) -> OrderRecord | None:
        number, client_id = params.integer("orderId"), params.text("origClientOrderId")
        if number is None and not client_id:
            raise BinanceRefusal(
                -1102, "Param 'origClientOrderId' or 'orderId' must be sent, but both were empty/null!"
            )
        record = self._desk.exchange.find_order(call.wallet, client_id=client_id, order_id=number)
        call.request.client_id = client_id
        if record is None or record.order.symbol != instrument.symbol:
            return None
        return record

    def _reply(self, record: OrderRecord, ts_ns: int) -> dict[str, Any]:
        symbol = record.order.symbol
        return order_reply(
            record,
            self._desk.exchange.instrument(symbol),
            self._listing.name_of(symbol),
            self._desk.shown_ns(ts_ns) // 1_000_000,
        )

    def _row(self, record: OrderRecord) -> dict[str, Any]:
        symbol, shown = record.order.symbol, self._desk.shown_ns
        return order_row(
            record,
            self._desk.exchange.instrument(symbol),
            self._listing.name_of(symbol),
            shown(record.order.created_ns) // 1_000_000,
            shown(record.updated_ns) // 1_000_000,
        )

    @staticmethod
    def _refusal(refusal: Refusal | None, instrument: Instrument) -> BinanceRefusal:
        if refusal is None:
            return BinanceRefusal(-1000, "An unknown error occurred while processing the request.")
        reason, text = refusal
        if reason is RejectReason.EXPIRED_REQUEST:
            return late()
        if reason is RejectReason.MIN_NOTIONAL:
            least = f"{instrument.min_notional.normalize():f}"
            return BinanceRefusal(
                -4164, f"Order's notional must be no smaller than {least} (unless you choose reduce only)."
            )
        code, words = _CODES.get(reason, (-2010, text))
        return BinanceRefusal(code, words)


def _number(params: Params, name: str, step: Decimal) -> Decimal:
    value = params.required_decimal(name)
    # Too many decimals are told apart from a value between two steps.
    if decimals_of(value) > decimals_of(step):
        raise BinanceRefusal(-1111, "Precision is over the maximum defined for this asset.")
    if not value:
        raise BinanceRefusal(
            -4003 if name == "quantity" else -4001, f"{name.title()} less than or equal to zero."
        )
    return value


def _client_id_of(params: Params, record: OrderRecord | None) -> str:
    return params.text("origClientOrderId") if record is None else record.order.client_id


def _orders(params: Params) -> list[Params]:
    try:
        orders = orjson.loads(params.required("batchOrders"))
    except orjson.JSONDecodeError:
        orders = None
    if not isinstance(orders, list) or not all(isinstance(each, dict) for each in orders):
        raise BinanceRefusal(-1130, "Data sent for parameter 'batchOrders' is not valid.")
    if not 0 < len(orders) <= MAX_BATCH:
        raise BinanceRefusal(-4082, "Invalid number of batch place orders.")
    return [from_frame(each) for each in orders]


def _listed(params: Params, name: str) -> list[Any]:
    text = params.text(name)
    if not text:
        return []
    try:
        found = orjson.loads(text)
    except orjson.JSONDecodeError:
        found = None
    if not isinstance(found, list):
        raise BinanceRefusal(-1130, f"Data sent for parameter '{name}' is not valid.")
    return found


def _window(params: Params, rows: list[dict[str, Any]], first: str) -> list[dict[str, Any]]:
    start, end = params.integer("startTime", 0) or 0, params.integer("endTime")
    found = [row for row in rows if row["time"] >= start and (end is None or row["time"] <= end)]
    limit = min(params.integer("limit", 500) or 500, MAX_ROWS)
    return found[:limit] if first in params else found[-limit:]


def _open_weight(params: Params) -> int:
    return 1 if "symbol" in params else 40
