"""The shapes of Bybit's messages: plain functions from what the exchange knows to what the wire says.

Numbers are text, as the venue has them; times are milliseconds, as text within rows.
"""

from decimal import Decimal
from typing import Any, Final

from msgspec import Struct

from host.api import Balance, Instrument, Liquidity, OrderFilled, OrderStatus, OrderType, TimeInForce
from venue.execution import ExecutionReport
from venue.perpetuals import MAINTENANCE_RATE, FundingPayment
from venue.protocols.bybit.names import SIDES, Listing, Product, order_id_of
from venue.protocols.market_feed import DayStatistics

__all__ = [
    "OrderView",
    "PositionView",
    "Terms",
    "coin_row",
    "execution_row",
    "fee_row",
    "funding_row",
    "instrument_row",
    "order_row",
    "position_row",
    "pushed_order",
    "pushed_position",
    "text",
    "ticker_row",
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


class PositionView(Struct, frozen=True):
    """A position at one moment; amounts are in settlement currency."""

    listing: Listing
    qty: Decimal
    """Signed: positive is long."""
    entry: Decimal
    mark: Decimal
    leverage: Decimal
    value: Decimal
    margin: Decimal
    liquidation: Decimal
    """Zero where no price liquidates it."""
    profit: Decimal
    at_ms: int


def text(value: Decimal | float | int) -> str:
    """Write a number in plain digits, without zeros at the end of a fraction."""
    exact = value if isinstance(value, Decimal) else Decimal(repr(value))
    plain = f"{exact:f}"
    return (plain.rstrip("0").rstrip(".") or "0") if "." in plain else plain


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


def position_row(position: PositionView) -> dict[str, Any]:
    """Return a position as the position list shows it."""
    listing, qty = position.listing, position.qty
    value = abs(position.value)
    at_ms = str(position.at_ms)
    return {
        "positionIdx": 0,
        "riskId": 1,
        "riskLimitValue": "2000000",
        "symbol": listing.name,
        "side": "Buy" if qty > 0 else "Sell" if qty < 0 else "",
        "size": text(abs(qty)),
        "avgPrice": _rounded(position.entry) if qty else "0",
        "positionValue": _rounded(value) if qty else "",
        "tradeMode": 0,
        "positionStatus": "Normal",
        "autoAddMargin": 0,
        "adlRankIndicator": 2 if qty else 0,
        "leverage": text(position.leverage),
        "breakEvenPrice": "",
        "positionBalance": "0",
        "markPrice": _rounded(position.mark),
        "liqPrice": _rounded(position.liquidation) if position.liquidation else "",
        "bustPrice": "",
        "positionMM": _rounded(value * MAINTENANCE_RATE),
        "positionMMByMp": _rounded(value * MAINTENANCE_RATE),
        "positionIM": _rounded(position.margin),
        "positionIMByMp": _rounded(position.margin),
        "tpslMode": "Full",
        "takeProfit": "",
        "stopLoss": "",
        "trailingStop": "0",
        "unrealisedPnl": _rounded(position.profit) if qty else "",
        "curRealisedPnl": "0",
        "cumRealisedPnl": "0",
        "seq": position.at_ms,
        "isReduceOnly": False,
        "mmrSysUpdatedTime": "",
        "leverageSysUpdatedTime": "",
        "sessionAvgPrice": "",
        "createdTime": at_ms,
        "updatedTime": at_ms,
    }


def pushed_position(position: PositionView) -> dict[str, Any]:
    """Return a position as the `position` topic shows it, which calls the average price `entryPrice`."""
    row = position_row(position)
    row["entryPrice"] = row.pop("avgPrice")
    return row | {"category": position.listing.product.value}


def funding_row(
    listing: Listing, payment: FundingPayment, qty: Decimal, mark: float, at_ms: int, number: int
) -> dict[str, Any]:
    """Return a funding payment as the executions show it: of no order, its fee positive when paid."""
    return {
        "symbol": listing.name,
        "orderId": order_id_of(listing.product, number),
        "orderLinkId": "",
        "side": "Sell" if qty > 0 else "Buy",
        "orderPrice": "0",
        "orderQty": "0",
        "leavesQty": "0",
        "createType": "",
        "orderType": "UNKNOWN",
        "stopOrderType": "UNKNOWN",
        "execFee": text(-payment.amount),
        "execId": execution_id(listing.product, str(number)),
        "execPrice": text(mark),
        "execQty": text(abs(qty)),
        "execType": "Funding",
        "execValue": "0",
        "execTime": str(at_ms),
        "feeCurrency": "",
        "isMaker": False,
        "feeRate": text(payment.rate),
        "tradeIv": "",
        "markIv": "",
        "markPrice": text(mark),
        "indexPrice": "",
        "underlyingPrice": "",
        "blockTradeId": "",
        "closedSize": "0",
        "isLeverage": "0",
        "extraFees": "",
        "marketUnit": "",
        "seq": number,
    }


def _rounded(value: Decimal) -> str:
    return text(value.quantize(Decimal("1e-8")))


def coin_row(balance: Balance) -> dict[str, Any]:
    """Return one coin of a unified account; what margin ties up is told as locked, like spot orders."""
    total = text(balance.total)
    return {
        "coin": balance.currency,
        "equity": total,
        "usdValue": total,
        "walletBalance": total,
        "free": "",
        "locked": text(balance.locked),
        "availableToWithdraw": text(balance.free),
        "availableToBorrow": "",
        "borrowAmount": "0",
        "accruedInterest": "0",
        "totalOrderIM": "0",
        "totalPositionIM": "0",
        "totalPositionMM": "0",
        "unrealisedPnl": "0",
        "cumRealisedPnl": "0",
        "bonus": "0",
        "marginCollateral": True,
        "collateralSwitch": True,
        "spotHedgingQty": "0",
        "spotBorrow": "0",
    }


def instrument_row(listing: Listing) -> dict[str, Any]:
    """Return what `instruments-info` says of a symbol."""
    instrument = listing.instrument
    most = text(instrument.max_qty if instrument.max_qty is not None else Decimal(1_000_000))
    row: dict[str, Any] = {
        "symbol": listing.name,
        "baseCoin": instrument.base,
        "quoteCoin": instrument.quote,
        "status": "Trading",
        "riskParameters": _risk_parameters(instrument),
        "symbolType": "",
    }
    tick = text(instrument.tick_size)
    if listing.is_spot:
        row |= {"innovation": "0", "marginTrading": "none", "stTag": "0", "priceFilter": {"tickSize": tick}}
        row["lotSizeFilter"] = {
            "basePrecision": text(instrument.lot_size),
            "quotePrecision": "0.0000001",
            "minOrderQty": text(instrument.min_qty),
            "maxOrderQty": most,
            "minOrderAmt": text(instrument.min_notional),
            "maxOrderAmt": "8000000",
            "maxLimitOrderQty": most,
            "maxMarketOrderQty": most,
            "postOnlyMaxLimitOrderSize": most,
        }
        return row
    row |= {
        "contractType": "InversePerpetual" if listing.product is Product.INVERSE else "LinearPerpetual",
        "launchTime": "1584230400000",
        "deliveryTime": "0",
        "deliveryFeeRate": "",
        "priceScale": str(max(0, -int(instrument.tick_size.as_tuple().exponent))),
        "leverageFilter": {"minLeverage": "1", "maxLeverage": "100.00", "leverageStep": "0.01"},
        "priceFilter": {"minPrice": tick, "maxPrice": "1999999.80", "tickSize": tick},
        "lotSizeFilter": {
            "maxOrderQty": most,
            "minOrderQty": text(instrument.min_qty),
            "qtyStep": text(instrument.lot_size),
            "postOnlyMaxOrderQty": most,
            "maxMktOrderQty": most,
            "minNotionalValue": text(instrument.min_notional),
        },
        "unifiedMarginTrade": True,
        "fundingInterval": 480,
        "settleCoin": instrument.settle,
        "copyTrading": "none",
        "upperFundingRate": "0.005",
        "lowerFundingRate": "-0.005",
        "isPreListing": False,
        "preListingInfo": None,
        "displayName": "",
    }
    return row


def _risk_parameters(instrument: Instrument) -> dict[str, str]:
    band = instrument.price_band
    ratio = text(band.up - 1) if band is not None else "1"
    return {"priceLimitRatioX": ratio, "priceLimitRatioY": ratio}


def fee_row(listing: Listing) -> dict[str, Any]:
    """Return the fee rates of a symbol."""
    instrument = listing.instrument
    return {
        "symbol": listing.name,
        "baseCoin": "",
        "takerFeeRate": text(instrument.taker_fee),
        "makerFeeRate": text(instrument.maker_fee),
    }


def ticker_row(
    listing: Listing, day: DayStatistics, bid: tuple[float, float], ask: tuple[float, float], mark: float
) -> dict[str, Any]:
    """Return the 24-hour summary of a symbol, as REST and the topic have it."""
    change = (day.last - day.open) / day.open if day.open else 0.0
    turnover = day.quote_volume
    if listing.product is Product.INVERSE:  # quantities are dollars there, and the turnover is in coins
        turnover = day.volume / day.last if day.last else 0.0
    row = {
        "symbol": listing.name,
        "lastPrice": text(day.last),
        "prevPrice24h": text(day.open),
        "price24hPcnt": text(round(change, 6)),
        "highPrice24h": text(day.high),
        "lowPrice24h": text(day.low),
        "turnover24h": text(round(turnover, 4)),
        "volume24h": text(round(day.volume, 6)),
    }
    best = {
        "bid1Price": text(bid[0]),
        "bid1Size": text(bid[1]),
        "ask1Price": text(ask[0]),
        "ask1Size": text(ask[1]),
    }
    if listing.is_spot:
        return row | {"usdIndexPrice": text(mark)} | best
    more = {
        "markPrice": text(mark),
        "indexPrice": text(mark),
        "prevPrice1h": text(day.open),
        "openInterest": "0",
        "openInterestValue": "0",
        "fundingRate": "0.0001",
        "nextFundingTime": "0",
    }
    return row | more | best


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
