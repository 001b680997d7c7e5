"""Placing spot orders."""

import re
from decimal import ROUND_FLOOR, Decimal
from enum import Enum
from secrets import token_hex
from typing import Any, Final

from host.api import Instrument, OrderType, PlaceOrder, RejectReason, Side, TimeInForce
from venue.execution import Answer, EntryRules
from venue.protocols.binance.errors import BinanceRefusal, missing, not_required, too_precise
from venue.protocols.binance.params import Params
from venue.protocols.binance.product import Call, Endpoint, Security
from venue.protocols.binance.spot_lookup import SpotLookup
from venue.protocols.binance.spot_refusals import order_refusal
from venue.protocols.binance.spot_shapes import SpotTerms, ack, fill_row, result
from venue.protocols.binance.symbols import Listing
from venue.protocols.front import Desk
from venue.protocols.requests import Kind

__all__ = ["LEGAL_ID", "RULES", "SpotPlacing", "number"]

LEGAL_ID: Final = re.compile(r"^[a-zA-Z0-9-_]{1,36}$")
RULES: Final = EntryRules(is_id_unique_ever=False, refused=frozenset({RejectReason.WOULD_TAKE}))
"""An id may come again once its order is done; orders that find nobody are taken and expire."""
MAX_DECIMALS: Final = 8


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


class SpotPlacing:
    """The endpoints that place orders, and what replacing one has in common with them."""

    def __init__(self, desk: Desk, listing: Listing, lookup: SpotLookup) -> None:
        self._desk = desk
        self._listing = listing
        self._lookup = lookup

    def endpoints(self) -> tuple[Endpoint, ...]:
        """Return what can be asked for."""
        signed, path = Security.SIGNED, "POST /api/v3/order"
        return (
            Endpoint("order.place", Kind.PLACE, signed, self._place, 1, (path,), True, True),
            Endpoint("order.test", Kind.QUERY, signed, self._test, 1, (f"{path}/test",)),
        )

    def read_order(self, params: Params, wallet: str) -> tuple[Instrument, PlaceOrder, SpotTerms]:
        """Return the order that a request asks for; raise `BinanceRefusal` for one that cannot be."""
        instrument = self._listing.instrument(params)
        side = params.choice("side", _Sides, BinanceRefusal(-1117, "Invalid side."))
        kind = params.choice("type", _Types, BinanceRefusal(-1116, "Invalid orderType."))
        if kind not in (_Types.LIMIT, _Types.MARKET, _Types.LIMIT_MAKER):
            family = "Stop loss" if "STOP" in kind.value else "Take profit"
            raise BinanceRefusal(-2010, f"{family} orders are not supported for this symbol.")
        client_id = params.client_id("newClientOrderId", LEGAL_ID) or token_hex(11)
        self._lookup.refuse_taken(wallet, client_id)
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
            qty, price = number(params, "quantity"), number(params, "price")
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

    def placed(
        self, answer: Answer, instrument: Instrument, params: Params, terms: SpotTerms
    ) -> dict[str, Any]:
        """Return the answer to an order that the engine took; raise its refusal otherwise."""
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

    async def _place(self, call: Call) -> Any:
        instrument, place, terms = self.read_order(call.params, call.wallet)
        call.request.client_id = place.client_id
        entry = call.entry(client_id=place.client_id)
        answer = await self._desk.ask(call.request, entry, call.wallet, place, rules=RULES, terms=terms)
        return self.placed(answer, instrument, call.params, terms)

    async def _test(self, call: Call) -> Any:
        self.read_order(call.params, call.wallet)
        return {}

    def _market_qty(self, instrument: Instrument, params: Params, side: Side) -> tuple[Decimal, Decimal]:
        """Return how much a market order is for, and `quoteOrderQty` where that decides it."""
        if "quantity" in params:
            if "quoteOrderQty" in params:
                raise BinanceRefusal(-1128, "Combination of optional parameters invalid.")
            return number(params, "quantity"), Decimal(0)
        if "quoteOrderQty" not in params:
            raise missing("quantity")
        quote = number(params, "quoteOrderQty")
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


def number(params: Params, name: str) -> Decimal:
    """Return a price or quantity of a request; raise for none, for zero and for too many decimals."""
    value = params.required_decimal(name)
    exponent = value.normalize().as_tuple().exponent
    if isinstance(exponent, int) and -exponent > MAX_DECIMALS:
        raise too_precise(name)
    if not value:
        raise BinanceRefusal(-1013, f"Invalid {name}.")
    return value


def _side(side: _Sides) -> Side:
    return Side.BUY if side is _Sides.BUY else Side.SELL
