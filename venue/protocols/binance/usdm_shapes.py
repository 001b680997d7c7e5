"""USDⓈ-M orders and fills as Binance writes them.

Since July 2026 replies to new, changed and cancelled orders have neither `avgPrice` nor `cumQuote`;
queries still do.
"""

from decimal import Decimal
from typing import Any, Final

from msgspec import Struct

from host.api import Instrument, Liquidity, OrderFilled, OrderStatus, OrderType, RejectReason, Side
from venue.execution import ExecType, ExecutionReport
from venue.market import VenueOrder
from venue.protocols.binance.symbols import decimals_of, fixed
from venue.records import OrderRecord

__all__ = ["UsdmTerms", "order_reply", "order_row", "order_update", "terms_of", "trade_row"]

_STATUS: Final = {
    OrderStatus.OPEN: "NEW",
    OrderStatus.PARTIALLY_FILLED: "PARTIALLY_FILLED",
    OrderStatus.FILLED: "FILLED",
    OrderStatus.CANCELLED: "CANCELED",
    OrderStatus.EXPIRED: "EXPIRED",
}
_EXEC_TYPE: Final = {
    ExecType.NEW: "NEW",
    ExecType.REPLACED: "AMENDMENT",
    ExecType.TRADE: "TRADE",
    ExecType.CANCELED: "CANCELED",
    ExecType.EXPIRED: "EXPIRED",
}
_ZERO = Decimal(0)


class UsdmTerms(Struct):
    """What the matching engine does not know of an order."""

    time_in_force: str
    """`GTX` is what post-only is called here."""
    modifications: int = 0


def terms_of(terms: Any, order: VenueOrder) -> UsdmTerms:
    """Return the order's terms, rebuilt from what the engine knows where they were lost."""
    if isinstance(terms, UsdmTerms):
        return terms
    if order.post_only:
        return UsdmTerms("GTX")
    return UsdmTerms("GTC" if order.type is OrderType.MARKET else order.time_in_force.upper())


def order_reply(record: OrderRecord, instrument: Instrument, name: str, updated_ms: int) -> dict[str, Any]:
    """Return the answer to a new, changed or cancelled order."""
    order = record.order
    size = decimals_of(instrument.lot_size)
    kind = order.type.upper()
    return {
        "orderId": order.order_id,
        "symbol": name,
        "status": _STATUS[record.status],
        "clientOrderId": order.client_id,
        "price": _price(order, instrument),
        "origQty": fixed(order.qty, size),
        "executedQty": fixed(record.booked, size),
        "cumQty": fixed(record.booked, size),
        "timeInForce": terms_of(record.terms, order).time_in_force,
        "type": kind,
        "reduceOnly": order.reduce_only,
        "closePosition": False,
        "side": order.side.upper(),
        "positionSide": "BOTH",
        "stopPrice": fixed(_ZERO, decimals_of(instrument.tick_size)),
        "workingType": "CONTRACT_PRICE",
        "priceProtect": False,
        "origType": kind,
        "priceMatch": "NONE",
        "selfTradePreventionMode": "EXPIRE_TAKER",
        "goodTillDate": 0,
        "updateTime": updated_ms,
    }


def order_row(
    record: OrderRecord, instrument: Instrument, name: str, created_ms: int, updated_ms: int
) -> dict[str, Any]:
    """Return an order as queries list it."""
    row = order_reply(record, instrument, name, updated_ms)
    del row["cumQty"]
    return {
        **row,
        "avgPrice": fixed(
            _average(record.quote_filled, record.booked), decimals_of(instrument.tick_size) + 3
        ),
        "cumQuote": fixed(record.quote_filled, 5),
        "time": created_ms,
    }


def trade_row(
    fill: OrderFilled, instrument: Instrument, name: str, realised: Decimal, time_ms: int
) -> dict[str, Any]:
    """Return a fill as `userTrades` lists it."""
    return {
        "symbol": name,
        "id": int(fill.trade_id),
        "orderId": int(fill.venue_id),
        "side": fill.side.upper(),
        "price": fixed(fill.price, decimals_of(instrument.tick_size)),
        "qty": fixed(fill.qty, decimals_of(instrument.lot_size)),
        "realizedPnl": fixed(realised),
        "marginAsset": instrument.quote,
        "quoteQty": fixed(fill.price * fill.qty, 5),
        "commission": fixed(fill.fee),
        "commissionAsset": fill.fee_currency,
        "time": time_ms,
        "positionSide": "BOTH",
        "buyer": fill.side is Side.BUY,
        "maker": fill.liquidity is Liquidity.MAKER,
    }


def order_update(
    report: ExecutionReport,
    instrument: Instrument,
    name: str,
    *,
    event_ms: int,
    time_ms: int,
    order_values: tuple[Decimal, Decimal],
) -> dict[str, Any]:
    """Return an `ORDER_TRADE_UPDATE`; `order_values` are those of the open bids and asks."""
    order, fill = report.order, report.fill
    price, size = decimals_of(instrument.tick_size), decimals_of(instrument.lot_size)
    kind = order.type.upper()
    told: dict[str, Any] = {
        "s": name,
        "c": order.client_id,
        "S": order.side.upper(),
        "o": kind,
        "f": terms_of(report.terms, order).time_in_force,
        "q": fixed(report.qty, size),
        "p": fixed(_ZERO if order.type is OrderType.MARKET or report.price is None else report.price, price),
        "ap": fixed(_average(report.quote_filled, report.filled), price),
        "sp": "0",
        "x": _EXEC_TYPE[report.kind],
        "X": _STATUS[report.status],
        "i": order.order_id,
        "l": fixed(_ZERO if fill is None else fill.qty, size),
        "z": fixed(report.filled, size),
        "L": fixed(_ZERO if fill is None else fill.price, price),
        "N": instrument.quote,
        "n": fixed(_ZERO if fill is None else fill.fee),
        "T": time_ms,
        "t": 0 if fill is None else int(fill.trade_id),
        "b": fixed(order_values[0], 5),
        "a": fixed(order_values[1], 5),
        "m": fill is not None and fill.liquidity is Liquidity.MAKER,
        "R": order.reduce_only,
        "wt": "CONTRACT_PRICE",
        "ot": kind,
        "ps": "BOTH",
        "cp": False,
        "rp": fixed(report.realised),
        "pP": False,
        "si": 0,
        "ss": 0,
        "V": "EXPIRE_TAKER",
        "pm": "NONE",
        "gtd": 0,
        "W": time_ms,
        "st": 1,
    }
    if report.kind is ExecType.EXPIRED and report.reason == RejectReason.SELF_TRADE:
        told["X"] = "EXPIRED_IN_MATCH"
    return {"e": "ORDER_TRADE_UPDATE", "E": event_ms, "T": time_ms, "o": told}


def trade_lite(report: ExecutionReport, name: str, event_ms: int, time_ms: int) -> dict[str, Any] | None:
    """Return a `TRADE_LITE`, None where nothing traded."""
    fill, order = report.fill, report.order
    if fill is None:
        return None
    return {
        "e": "TRADE_LITE",
        "E": event_ms,
        "T": time_ms,
        "s": name,
        "q": f"{report.qty:f}",
        "p": f"{report.price or _ZERO:f}",
        "m": fill.liquidity is Liquidity.MAKER,
        "c": order.client_id,
        "S": order.side.upper(),
        "L": f"{fill.price:f}",
        "l": f"{fill.qty:f}",
        "t": int(fill.trade_id),
        "i": order.order_id,
    }


def _price(order: VenueOrder, instrument: Instrument) -> str:
    price = _ZERO if order.type is OrderType.MARKET or order.price is None else order.price
    return fixed(price, decimals_of(instrument.tick_size))


def _average(quote: Decimal, qty: Decimal) -> Decimal:
    return quote / qty if qty else _ZERO
