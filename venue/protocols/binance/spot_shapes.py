"""Spot orders, fills and balances as Binance writes them, in answers and in the user data stream."""

from decimal import Decimal
from typing import Any, Final

from msgspec import Struct

from host.api import Liquidity, OrderFilled, OrderStatus, OrderType, RejectReason, Side, TimeInForce
from venue.execution import ExecType, ExecutionReport
from venue.market import VenueOrder
from venue.protocols.binance.symbols import fixed
from venue.records import OrderRecord

__all__ = [
    "SpotTerms",
    "account_position",
    "ack",
    "execution_report",
    "fill_row",
    "result",
    "terms_of",
    "trade_row",
]

_STATUS: Final = {
    OrderStatus.OPEN: "NEW",
    OrderStatus.PARTIALLY_FILLED: "PARTIALLY_FILLED",
    OrderStatus.FILLED: "FILLED",
    OrderStatus.CANCELLED: "CANCELED",
    OrderStatus.EXPIRED: "EXPIRED",
}
_EXEC_TYPE: Final = {
    ExecType.NEW: "NEW",
    ExecType.REPLACED: "REPLACED",
    ExecType.TRADE: "TRADE",
    ExecType.CANCELED: "CANCELED",
    ExecType.EXPIRED: "EXPIRED",
}
_ZERO = Decimal(0)


class SpotTerms(Struct):
    """What an order was called when it came in, which the matching engine does not know."""

    type: str
    client_id: str
    """An amend may give the order a new one."""
    quote_qty: Decimal = _ZERO
    """`quoteOrderQty` of a market order."""


def terms_of(record_terms: Any, order: VenueOrder) -> SpotTerms:
    """Return the order's terms, rebuilt from what the engine knows where they were lost."""
    if isinstance(record_terms, SpotTerms):
        return record_terms
    kind = "MARKET" if order.type is OrderType.MARKET else "LIMIT_MAKER" if order.post_only else "LIMIT"
    return SpotTerms(kind, order.client_id)


def ack(record: OrderRecord, name: str, time_ms: int) -> dict[str, Any]:
    """Return the shortest answer to a new order."""
    return {
        "symbol": name,
        "orderId": record.order.order_id,
        "orderListId": -1,
        "clientOrderId": terms_of(record.terms, record.order).client_id,
        "transactTime": time_ms,
    }


def result(record: OrderRecord) -> dict[str, Any]:
    """Return what RESULT and FULL answers, cancels and queries have in common."""
    order, terms = record.order, terms_of(record.terms, record.order)
    return {
        "price": _price(order),
        "origQty": fixed(order.qty),
        "executedQty": fixed(record.booked),
        "origQuoteOrderQty": fixed(terms.quote_qty),
        "cummulativeQuoteQty": fixed(record.quote_filled),
        "status": status_of(record),
        "timeInForce": _time_in_force(order),
        "type": terms.type,
        "side": order.side.upper(),
        "selfTradePreventionMode": "EXPIRE_TAKER",
    }


def status_of(record: OrderRecord) -> str:
    """Return the order's state in Binance's words."""
    return _STATUS[record.status]


def order_row(record: OrderRecord, name: str, time_ms: int, updated_ms: int) -> dict[str, Any]:
    """Return an order as queries list it."""
    order, terms = record.order, terms_of(record.terms, record.order)
    return {
        "symbol": name,
        "orderId": order.order_id,
        "orderListId": -1,
        "clientOrderId": terms.client_id,
        **result(record),
        "stopPrice": fixed(_ZERO),
        "icebergQty": fixed(_ZERO),
        "time": time_ms,
        "updateTime": updated_ms,
        "isWorking": True,
        "workingTime": time_ms,
    }


def amended(row: dict[str, Any], old_id: str) -> dict[str, Any]:
    """Return an order that was amended, out of its row; `old_id` is what it was called before."""
    same = ("price", "executedQty", "status", "timeInForce", "type", "side", "workingTime")
    return {
        "symbol": row["symbol"],
        "orderId": row["orderId"],
        "orderListId": -1,
        "origClientOrderId": old_id,
        "clientOrderId": row["clientOrderId"],
        "qty": row["origQty"],
        "preventedQty": fixed(_ZERO),
        "quoteOrderQty": row["origQuoteOrderQty"],
        "cumulativeQuoteQty": row["cummulativeQuoteQty"],
        **{key: row[key] for key in same},
        "selfTradePreventionMode": row["selfTradePreventionMode"],
    }


def fill_row(fill: OrderFilled) -> dict[str, Any]:
    """Return one of the `fills` of a FULL answer."""
    return {
        "price": fixed(fill.price),
        "qty": fixed(fill.qty),
        "commission": fixed(fill.fee),
        "commissionAsset": fill.fee_currency,
        "tradeId": int(fill.trade_id),
    }


def trade_row(fill: OrderFilled, name: str, time_ms: int) -> dict[str, Any]:
    """Return a fill as `myTrades` lists it."""
    return {
        "symbol": name,
        "id": int(fill.trade_id),
        "orderId": int(fill.venue_id),
        "orderListId": -1,
        "price": fixed(fill.price),
        "qty": fixed(fill.qty),
        "quoteQty": fixed(fill.price * fill.qty),
        "commission": fixed(fill.fee),
        "commissionAsset": fill.fee_currency,
        "time": time_ms,
        "isBuyer": fill.side is Side.BUY,
        "isMaker": fill.liquidity is Liquidity.MAKER,
        "isBestMatch": True,
    }


def execution_report(
    report: ExecutionReport,
    name: str,
    *,
    event_ms: int,
    time_ms: int,
    created_ms: int,
    number: int,
    cancel_id: str = "",
) -> dict[str, Any]:
    """Return the user data event of one thing that happened to an order.

    `cancel_id` is the cancel request's own client id: the event carries it in place of the order's,
    which moves to `C`.
    """
    order, terms, fill = report.order, terms_of(report.terms, report.order), report.fill
    status = _STATUS[report.status]
    is_working = report.status in (OrderStatus.OPEN, OrderStatus.PARTIALLY_FILLED)
    event: dict[str, Any] = {
        "e": "executionReport",
        "E": event_ms,
        "s": name,
        "c": cancel_id or terms.client_id,
        "S": order.side.upper(),
        "o": terms.type,
        "f": _time_in_force(order),
        "q": fixed(report.qty),
        "p": fixed(_ZERO if order.type is OrderType.MARKET or report.price is None else report.price),
        "P": fixed(_ZERO),
        "F": fixed(_ZERO),
        "g": -1,
        "C": terms.client_id if cancel_id else "",
        "x": _EXEC_TYPE[report.kind],
        "X": status,
        "r": "NONE",
        "i": order.order_id,
        "l": fixed(_ZERO if fill is None else fill.qty),
        "z": fixed(report.filled),
        "L": fixed(_ZERO if fill is None else fill.price),
        "n": "0" if fill is None else fixed(fill.fee),
        "N": None if fill is None else fill.fee_currency,
        "T": time_ms,
        "t": -1 if fill is None else int(fill.trade_id),
        "I": number,
        "w": is_working,
        "m": fill is not None and fill.liquidity is Liquidity.MAKER,
        "M": fill is not None,
        "O": created_ms,
        "Z": fixed(report.quote_filled),
        "Y": fixed(_ZERO if fill is None else fill.price * fill.qty),
        "Q": fixed(terms.quote_qty),
        "W": created_ms,
        "V": "EXPIRE_TAKER",
    }
    if report.kind is ExecType.EXPIRED and report.reason == RejectReason.SELF_TRADE:
        event["x"], event["X"] = "TRADE_PREVENTION", "EXPIRED_IN_MATCH"
    elif report.kind is ExecType.EXPIRED:
        event["eR"] = 1
    return event


def account_position(
    balances: list[tuple[str, Decimal, Decimal]], event_ms: int, time_ms: int
) -> dict[str, Any]:
    """Return the event with (asset, free, locked) of every balance that may have changed."""
    return {
        "e": "outboundAccountPosition",
        "E": event_ms,
        "u": time_ms,
        "B": [{"a": asset, "f": fixed(free), "l": fixed(locked)} for asset, free, locked in balances],
    }


def _price(order: VenueOrder) -> str:
    return fixed(_ZERO if order.type is OrderType.MARKET or order.price is None else order.price)


def _time_in_force(order: VenueOrder) -> str:
    # A market order is immediate by nature; Binance shows GTC for it.
    return "GTC" if order.type is OrderType.MARKET else TimeInForce(order.time_in_force).upper()
