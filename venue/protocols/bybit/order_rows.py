"""Orders and executions as Bybit shows them: plain functions from what the exchange knows to what the wire says.

Numbers are text, as the venue has them; times are milliseconds, as text within rows.
"""

from decimal import Decimal
from typing import Any, Final

from msgspec import Struct

from host.api import Liquidity, OrderFilled, OrderStatus, OrderType, TimeInForce
from venue.execution import ExecutionReport
from venue.protocols.bybit.names import SIDES, Listing, Product, order_id_of
from venue.protocols.bybit.numbers_as_text import text

__all__ = [
    "OrderView",
    "Terms",
    "execution_id",
    "execution_row",
    "order_row",
    "pushed_order",
    "view_of",
]

_TIMES: Final = {TimeInForce.GTC: "GTC", TimeInForce.IOC: "IOC", TimeInForce.FOK: "FOK"}
_STATUSES: Final = {
    OrderStatus.OPEN: "New",
    OrderStatus.PARTIALLY_FILLED: "PartiallyFilled",
    OrderStatus.FILLED: "Filled",
    OrderStatus.CANCELLED: "Cancelled",
    OrderStatus.EXPIRED: "Cancelled",
}
_ENDS: Final = {
    "would_take": "EC_PostOnlyWillTakeLiquidity",
    "not_fillable": "EC_NoImmediateQtyToFill",
    "self_trade": "EC_SelfMatch",
    "reduce_only": "EC_PerCancelRequest",
}


class Terms(Struct):
    """What Bybit remembers of an order besides what the exchange knows."""

    link_id: str
    created_ms: int
    market_unit: str = ""
    end: str = ""
    """Why it ended, in the engine's word; empty while it lives or when somebody cancelled it."""
    cancel_type: str = "UNKNOWN"


class OrderView(Struct, frozen=True):
    """An order at one moment, however it was come by."""

    listing: Listing
    number: int
    terms: Terms
    side: str
    type: OrderType
    time_in_force: TimeInForce
    post_only: bool
    reduce_only: bool
    price: Decimal | None
    qty: Decimal
    filled: Decimal
    quote_filled: Decimal
    status: OrderStatus
    updated_ms: int


def order_row(view: OrderView, fees: Decimal = Decimal(0)) -> dict[str, Any]:
    """Return an order as the order lists show it; the `order` topic adds to it (`pushed_order`)."""
    order, terms, listing = view, view.terms, view.listing
    left = order.qty - order.filled if not order.status.is_terminal else Decimal(0)
    status = _STATUSES[order.status]
    if status == "Cancelled" and order.filled and listing.is_spot:
        status = "PartiallyFilledCanceled"
    average = order.quote_filled / order.filled if order.filled else Decimal(0)
    is_market = order.type is OrderType.MARKET
    row: dict[str, Any] = {
        "symbol": listing.name,
        "orderId": order_id_of(listing.product, order.number),
        "orderLinkId": terms.link_id,
        "blockTradeId": "",
        "side": order.side,
        "positionIdx": 0,
        "orderStatus": status,
        "createType": "CreateByUser",
        "cancelType": terms.cancel_type,
        "rejectReason": _ENDS.get(terms.end, "EC_NoError"),
        "timeInForce": "PostOnly" if order.post_only else "IOC" if is_market else _TIMES[order.time_in_force],
        "isLeverage": "0" if listing.is_spot else "",
        "price": "0" if is_market or order.price is None else text(order.price),
        "qty": text(order.qty),
        "avgPrice": text(average.quantize(Decimal("1e-8"))) if order.filled else "",
        "leavesQty": text(left),
        "leavesValue": text(left * (order.price or Decimal(0))),
        "cumExecQty": text(order.filled),
        "cumExecValue": text(order.quote_filled),
        "cumExecFee": text(fees),
        "orderType": "Market" if is_market else "Limit",
        "stopOrderType": "",
        "orderIv": "",
        "triggerPrice": "",
        "takeProfit": "",
        "stopLoss": "",
        "triggerBy": "",
        "tpTriggerBy": "",
        "slTriggerBy": "",
        "tpLimitPrice": "",
        "slLimitPrice": "",
        "triggerDirection": 0,
        "placeType": "",
        "lastPriceOnCreated": "",
        "closeOnTrigger": False,
        "reduceOnly": order.reduce_only,
        "smpGroup": 0,
        "smpType": "None",
        "smpOrderId": "",
        "marketUnit": terms.market_unit,
        "slippageTolerance": "",
        "slippageToleranceType": "UNKNOWN",
        "extraFees": "",
        "cumFeeDetail": {},
        "rpiTakerAccess": False,
        "rpiMatchedQty": "0",
        "createdTime": str(terms.created_ms),
        "updatedTime": str(order.updated_ms),
    }
    if not listing.is_spot:  # clients tell the products apart by this
        row["tpslMode"] = ""
    return row


def pushed_order(view: OrderView) -> dict[str, Any]:
    """Return an order as the `order` topic shows it."""
    return order_row(view) | {
        "category": view.listing.product.value,
        "feeCurrency": "",
        "closedPnl": "0",
    }


def execution_row(view: OrderView, fill: OrderFilled, at_ms: int, seq: int, mark: float) -> dict[str, Any]:
    """Return a fill as the execution list shows it; the `execution` topic adds the category."""
    listing = view.listing
    value = fill.qty / fill.price if listing.product is Product.INVERSE else fill.price * fill.qty
    return {
        "symbol": listing.name,
        "orderId": order_id_of(listing.product, view.number),
        "orderLinkId": view.terms.link_id,
        "side": SIDES[fill.side],
        "orderPrice": text(view.price or Decimal(0)),
        "orderQty": text(view.qty),
        "leavesQty": text(view.qty - view.filled),
        "createType": "CreateByUser",
        "orderType": "Market" if view.type is OrderType.MARKET else "Limit",
        "stopOrderType": "UNKNOWN",
        "execFee": text(fill.fee),
        "execId": execution_id(listing.product, fill.trade_id),
        "execPrice": text(fill.price),
        "execQty": text(fill.qty),
        "execType": "Trade",
        "execValue": text(value.quantize(Decimal("1e-8"))),
        "execTime": str(at_ms),
        "feeCurrency": fill.fee_currency if listing.is_spot else "",
        "isMaker": fill.liquidity is Liquidity.MAKER,
        "feeRate": text(abs(fill.fee / value).quantize(Decimal("1e-6"))) if value else "0",
        "tradeIv": "",
        "markIv": "",
        "markPrice": text(mark),
        "indexPrice": "",
        "underlyingPrice": "",
        "blockTradeId": "",
        "closedSize": "",
        "isLeverage": "0",
        "extraFees": "",
        "marketUnit": view.terms.market_unit,
        "seq": seq,
    }


def execution_id(product: Product, trade_id: str) -> str:
    """Return how Bybit names a trade: by number on spot, by UUID elsewhere."""
    number = int(trade_id)
    if product is Product.SPOT:
        return str(2_290_000_000_000_000_000 + number)
    return f"e0cbe81d-0f18-5866-9415-{number:012x}"


def view_of(listing: Listing, report: ExecutionReport, terms: Terms, at_ms: int) -> OrderView:
    """Return the order that something has just happened to."""
    order = report.order
    return OrderView(
        listing,
        order.order_id,
        terms,
        SIDES[order.side],
        order.type,
        order.time_in_force,
        order.post_only,
        order.reduce_only,
        report.price,
        report.qty,
        report.filled,
        report.quote_filled,
        report.status,
        at_ms,
    )
