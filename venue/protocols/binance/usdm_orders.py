"""USDⓈ-M trading: place, modify, cancel."""

import re
from decimal import Decimal
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
from venue.execution import EntryRules
from venue.protocols.binance.errors import BinanceRefusal, not_required
from venue.protocols.binance.params import Params
from venue.protocols.binance.product import Call, Endpoint, Security
from venue.protocols.binance.symbols import Listing, decimals_of
from venue.protocols.binance.usdm_lookup import UsdmLookup
from venue.protocols.binance.usdm_refusals import order_refusal
from venue.protocols.binance.usdm_shapes import UsdmTerms, terms_of
from venue.protocols.front import Desk
from venue.protocols.requests import Entry, Kind
from venue.records import OrderRecord

__all__ = ["UsdmOrders"]

LEGAL_ID: Final = re.compile(r"^[.A-Z:/a-z0-9_-]{1,36}$")
RULES: Final = EntryRules(
    is_id_unique_ever=False,
    refused=frozenset({RejectReason.WOULD_TAKE, RejectReason.NOT_FILLABLE}),
    amend_keeps_place=False,
)
MAX_MODIFICATIONS: Final = 10_000


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
    """The endpoints that place and change single orders, and the same for one order of a batch."""

    def __init__(self, desk: Desk, listing: Listing, lookup: UsdmLookup) -> None:
        self._desk = desk
        self._listing = listing
        self._lookup = lookup

    def endpoints(self) -> tuple[Endpoint, ...]:
        """Return what can be asked for."""
        signed, path = Security.SIGNED, "/fapi/v1/order"
        everything, conditional = ("DELETE /fapi/v1/allOpenOrders",), ("POST /fapi/v1/algoOrder",)
        return (
            Endpoint("order.place", Kind.PLACE, signed, self._place, 0, (f"POST {path}",), False, True),
            Endpoint("order.modify", Kind.AMEND, signed, self._modify, 0, (f"PUT {path}",), False, True),
            Endpoint("order.cancel", Kind.CANCEL, signed, self._cancel, 1, (f"DELETE {path}",)),
            Endpoint("order.test", Kind.QUERY, signed, self._test, 0, (f"POST {path}/test",)),
            Endpoint("cancelAll", Kind.CANCEL_ALL, signed, self._cancel_all, 1, everything),
            Endpoint("conditional", Kind.PLACE, signed, self._no_conditional, 1, conditional),
        )

    async def place(self, call: Call, params: Params) -> dict[str, Any]:
        """Place the order that `params` describe; raise `BinanceRefusal`."""
        instrument, place, terms = self._read_order(params)
        call.request.client_id = call.request.client_id or place.client_id
        entry = call.entry(params, client_id=place.client_id)
        answer = await self._desk.ask(call.request, entry, call.wallet, place, rules=RULES, terms=terms)
        if answer.refusal is not None or answer.record is None:
            raise order_refusal(answer.refusal, instrument)
        return self._lookup.reply(answer.record, answer.ts_ns)

    async def modify(self, call: Call, params: Params) -> dict[str, Any]:
        """Change the order that `params` name; one that is filled as far as it shall go is cancelled."""
        instrument = self._listing.instrument(params)
        params.choice("side", _Sides, BinanceRefusal(-1117, "Invalid side."))
        qty = _number(params, "quantity", instrument.lot_size)
        price = _number(params, "price", instrument.tick_size)
        record = self._lookup.find(call, params, instrument)
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
        answer = await self._desk.ask(call.request, entry, call.wallet, command, rules=RULES)
        if answer.refusal is not None:
            raise order_refusal(answer.refusal, instrument)
        record.terms = UsdmTerms(terms.time_in_force, terms.modifications + 1)
        return self._lookup.reply(record, answer.ts_ns)

    async def cancel(self, call: Call, params: Params) -> dict[str, Any]:
        """Cancel the order that `params` name."""
        record = self._lookup.find(call, params, self._listing.instrument(params))
        entry = call.entry(params, client_id=_client_id_of(params, record))
        return await self._cancel_one(call, entry, record)

    async def _place(self, call: Call) -> Any:
        return await self.place(call, call.params)

    async def _modify(self, call: Call) -> Any:
        return await self.modify(call, call.params)

    async def _cancel(self, call: Call) -> Any:
        return await self.cancel(call, call.params)

    async def _test(self, call: Call) -> Any:
        self._read_order(call.params)
        return {}

    async def _cancel_one(self, call: Call, entry: Entry, record: OrderRecord | None) -> dict[str, Any]:
        if record is None or not record.order.is_open:
            raise BinanceRefusal(-2011, "Unknown order sent.")
        order = record.order
        command = CancelOrder(order.client_id, order.symbol)
        answer = await self._desk.ask(call.request, entry, call.wallet, command)
        if answer.refusal is not None:
            raise order_refusal(answer.refusal, self._desk.exchange.instrument(order.symbol))
        return self._lookup.reply(record, answer.ts_ns)

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

    async def _no_conditional(self, call: Call) -> Any:
        raise BinanceRefusal(-4120, "Conditional orders are not served here.")

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
