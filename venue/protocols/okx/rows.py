"""The shapes of OKX's messages: plain functions from what the exchange knows to what the wire says.

Numbers are text, as the venue has them; what does not apply is empty text; times are milliseconds.
"""

from decimal import Decimal
from typing import Any, Final

from msgspec import Struct

from host.api import (
    Balance,
    InstrumentKind,
    Liquidity,
    OrderFilled,
    OrderStatus,
    OrderType,
    Side,
    TimeInForce,
)
from venue.execution import ExecutionReport
from venue.perpetuals import MAINTENANCE_RATE
from venue.protocols.market_feed import DayStatistics
from venue.protocols.okx.names import Listing, order_id_of, text
from venue.records import OrderRecord

__all__ = [
    "OrderView",
    "PositionView",
    "Terms",
    "balance_row",
    "end_of",
    "execution_row",
    "group_of",
    "instrument_row",
    "order_row",
    "position_row",
    "ticker_row",
    "view_of",
    "view_of_record",
]

_STATES: Final = {
    OrderStatus.OPEN: "live",
    OrderStatus.PARTIALLY_FILLED: "partially_filled",
    OrderStatus.FILLED: "filled",
    OrderStatus.CANCELLED: "canceled",
    OrderStatus.EXPIRED: "canceled",
}
_ENDS: Final = {"would_take": "31", "self_trade": "32", "reduce_only": "23"}
_TIMES: Final = {TimeInForce.GTC: "limit", TimeInForce.IOC: "ioc", TimeInForce.FOK: "fok"}
_UNUSED: Final = (
    *("algoClOrdId", "algoId", "attachAlgoClOrdId", "ccy", "lever", "pxType", "pxUsd", "pxVol"),
    *("quickMgnType", "slOrdPx", "slTriggerPx", "slTriggerPxType", "source", "stpId"),
    *("tpOrdPx", "tpTriggerPx", "tpTriggerPxType"),
)
_EIGHT_PLACES: Final = Decimal("1e-8")


class Terms(Struct):
    """What OKX remembers of an order besides what the exchange knows."""

    client_id: str = ""
    tag: str = ""
    margin_mode: str = "cash"
    money_target: str = ""
    """`tgtCcy` as it was asked for."""
    created_ms: int = 0
    end: str = ""
    """Its `cancelSource`; empty while it lives or once it is filled."""
    request_id: str = ""
    """`reqId` of the last amend."""


class OrderView(Struct, frozen=True):
    """An order at one moment, however it was come by."""

    listing: Listing
    number: int
    terms: Terms
    side: Side
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


def view_of_record(listing: Listing, record: OrderRecord, updated_ms: int) -> OrderView:
    """Return an order as it is now."""
    order = record.order
    terms = record.terms if isinstance(record.terms, Terms) else Terms(order.client_id)
    return _view(listing, order, terms, order.price, order.qty, record.booked, record.quote_filled,
                 record.status, updated_ms)  # fmt: skip


def view_of(listing: Listing, report: ExecutionReport, terms: Terms, updated_ms: int) -> OrderView:
    """Return an order as it was just after something happened to it."""
    return _view(listing, report.order, terms, report.price, report.qty, report.filled,
                 report.quote_filled, report.status, updated_ms)  # fmt: skip


def _view(
    listing: Listing,
    order: Any,
    terms: Terms,
    price: Decimal | None,
    qty: Decimal,
    filled: Decimal,
    quote_filled: Decimal,
    status: OrderStatus,
    updated_ms: int,
) -> OrderView:
    shown = None if order.type is OrderType.MARKET else price
    return OrderView(listing, order.order_id, terms, order.side, order.type, order.time_in_force,
                     order.post_only, order.reduce_only, shown, qty, filled, quote_filled, status,
                     updated_ms)  # fmt: skip


def end_of(reason: str, time_in_force: TimeInForce) -> str:
    """Return the `cancelSource` of an order that the engine ended for a reason of its own."""
    if reason == "not_fillable":
        return "13" if time_in_force is TimeInForce.FOK else "14"
    return _ENDS.get(reason, "1")


def order_row(view: OrderView, fee: Decimal, fee_currency: str, last: OrderFilled | None) -> dict[str, Any]:
    """Return an order as its lists and pushes show it; `last` is its latest trade."""
    listing, terms = view.listing, view.terms
    average = view.quote_filled / view.filled if view.filled else None
    kind = "market" if view.type is OrderType.MARKET else _TIMES[view.time_in_force]
    return {
        **dict.fromkeys(_UNUSED, ""),
        "instType": listing.product,
        "instId": listing.name,
        "ordId": order_id_of(view.number),
        "clOrdId": terms.client_id,
        "tag": terms.tag,
        "px": "" if view.price is None else text(view.price),
        "sz": listing.size(view.qty),
        "ordType": "post_only" if view.post_only else kind,
        "side": view.side.value,
        "posSide": "net",
        "tdMode": terms.margin_mode,
        "tgtCcy": terms.money_target,
        "accFillSz": listing.size(view.filled),
        "avgPx": "" if average is None else text(average),
        "fillPx": "" if last is None else text(last.price),
        "fillSz": "0" if last is None else listing.size(last.qty),
        "fillTime": "",
        "tradeId": "" if last is None else last.trade_id,
        "state": _STATES[view.status],
        "fee": text(-fee),
        "feeCcy": fee_currency,
        "rebate": "0",
        "rebateCcy": fee_currency,
        "pnl": "0",
        "category": "normal",
        "reduceOnly": "true" if view.reduce_only else "false",
        "cancelSource": terms.end,
        "cancelSourceReason": "",
        "stpMode": "cancel_maker",
        "isTpLimit": "false",
        "attachAlgoOrds": [],
        "linkedAlgoOrd": {"algoId": ""},
        "uTime": str(view.updated_ms),
        "cTime": str(terms.created_ms or view.updated_ms),
    }


def execution_row(listing: Listing, fill: OrderFilled, terms: Terms, at_ms: int) -> dict[str, Any]:
    """Return one fill as its lists show it."""
    return {
        "instType": listing.product,
        "instId": listing.name,
        "tradeId": fill.trade_id,
        "ordId": order_id_of(int(fill.venue_id)),
        "clOrdId": terms.client_id,
        "billId": order_id_of(int(fill.trade_id)),
        "subType": "1" if fill.side is Side.BUY else "2",
        "tag": terms.tag,
        "fillPx": text(fill.price),
        "fillSz": listing.size(fill.qty),
        "fillIdxPx": "",
        "fillPnl": "0",
        "fillPxVol": "",
        "fillPxUsd": "",
        "fillMarkVol": "",
        "fillFwdPx": "",
        "fillMarkPx": "",
        "side": fill.side.value,
        "posSide": "net",
        "execType": "M" if fill.liquidity is Liquidity.MAKER else "T",
        "feeCcy": fill.fee_currency,
        "fee": text(-fill.fee),
        "ts": str(at_ms),
        "fillTime": str(at_ms),
    }


def group_of(listing: Listing) -> str:
    """Return the fee group of an instrument: there is one for each kind."""
    return {InstrumentKind.SPOT: "1", InstrumentKind.LINEAR: "2", InstrumentKind.INVERSE: "3"}[
        listing.instrument.kind
    ]


def instrument_row(listing: Listing, since_ms: int) -> dict[str, Any]:
    """Return what may be traded, and how."""
    item = listing.instrument
    most = listing.size(item.max_qty) if item.max_qty is not None else "99999999"
    row: dict[str, Any] = {
        "alias": "",
        "auctionEndTime": "",
        "baseCcy": item.base if listing.is_spot else "",
        "category": "1",
        "ctMult": "",
        "ctType": "",
        "ctVal": "",
        "ctValCcy": "",
        "expTime": "",
        "futureSettlement": False,
        "groupId": group_of(listing),
        "instFamily": "" if listing.is_spot else listing.family,
        "instId": listing.name,
        "instIdCode": listing.code,
        "instType": listing.product,
        "lever": "10",
        "listTime": str(since_ms),
        "lotSz": listing.size(item.lot_size),
        "maxIcebergSz": most,
        "maxLmtAmt": "20000000",
        "maxLmtSz": most,
        "maxMktAmt": "1000000" if listing.is_spot else "",
        "maxMktSz": most,
        "maxStopSz": most,
        "maxTriggerSz": most,
        "maxTwapSz": most,
        "minSz": listing.size(item.min_qty or item.lot_size),
        "openType": "",
        "optType": "",
        "quoteCcy": item.quote if listing.is_spot else "",
        "ruleType": "normal",
        "settleCcy": "" if listing.is_spot else item.settle,
        "state": "live",
        "stk": "",
        "tickSz": text(item.tick_size),
        "tradeQuoteCcyList": [item.quote] if listing.is_spot else [],
        "uly": "" if listing.is_spot else listing.family,
    }
    if item.kind is InstrumentKind.LINEAR:
        row |= {"ctMult": "1", "ctType": "linear", "ctVal": text(listing.unit), "ctValCcy": item.base}
    elif item.kind is InstrumentKind.INVERSE:
        row |= {"ctMult": "1", "ctType": "inverse", "ctVal": text(item.contract_size), "ctValCcy": item.quote}
    return row


def ticker_row(
    listing: Listing, day: DayStatistics, top: tuple[str, str, str, str], at_ms: int
) -> dict[str, Any]:
    """Return the summary of a day; `top` is bid, its size, ask, its size."""
    bid, bid_size, ask, ask_size = top
    return {
        "instType": listing.product,
        "instId": listing.name,
        "last": text(day.last),
        "lastSz": listing.size_of(day.last_qty),
        "askPx": ask,
        "askSz": ask_size,
        "bidPx": bid,
        "bidSz": bid_size,
        "open24h": text(day.open),
        "high24h": text(day.high),
        "low24h": text(day.low),
        "volCcy24h": text(day.quote_volume if listing.is_spot else day.volume),
        "vol24h": listing.size_of(day.volume),
        "sodUtc0": text(day.open),
        "sodUtc8": text(day.open),
        "ts": str(at_ms),
    }


def balance_row(balance: Balance, at_ms: int) -> dict[str, Any]:
    """Return what an account holds of one currency."""
    total, locked, free = text(balance.total), text(balance.locked), text(balance.free)
    unused = ("mgnRatio", "imr", "mmr", "notionalLever", "clSpotInUseAmt", "maxSpotInUseAmt", "spotInUseAmt")
    zero = ("borrowFroz", "crossLiab", "fixedBal", "interest", "isoEq", "isoLiab", "isoUpl", "liab", "maxLoan",
            "rewardBal", "spotIsoBal", "stgyEq", "twap", "upl", "uplLiab")  # fmt: skip
    return {
        **dict.fromkeys(unused, ""),
        **dict.fromkeys(zero, "0"),
        "ccy": balance.currency,
        "cashBal": total,
        "eq": total,
        "availBal": free,
        "availEq": free,
        "frozenBal": locked,
        "ordFrozen": locked,
        "disEq": total,
        "eqUsd": total,
        "coinUsdPrice": "1",
        "uTime": str(at_ms),
    }


class PositionView(Struct, frozen=True):
    """A position at one moment. Money is in the settlement currency."""

    listing: Listing
    qty: Decimal
    """Signed."""
    entry: Decimal
    mark: Decimal
    leverage: Decimal
    value: Decimal
    margin: Decimal
    liquidation: Decimal
    """Zero where no price would do it."""
    gain: Decimal


def position_row(view: PositionView, margin_mode: str, at_ms: int) -> dict[str, Any]:
    """Return one position; `pos` is signed, in contracts."""
    listing, qty, is_held = view.listing, view.qty, bool(view.qty)
    tick = listing.instrument.tick_size
    liquidation = view.liquidation.quantize(tick)
    unused = ("adl", "baseBal", "baseBorrowed", "baseInterest", "bizRefId", "bizRefType", "deltaBS", "deltaPA",
              "gammaBS", "gammaPA", "idxPx", "interest", "liab", "liabCcy", "optVal",
              "pendingCloseOrdLiabVal", "posCcy", "quoteBal", "quoteBorrowed", "quoteInterest", "spotInUseAmt",
              "spotInUseCcy", "thetaBS", "thetaPA", "usdPx", "vegaBS", "vegaPA")  # fmt: skip
    zero = ("fee", "fundingFee", "liqPenalty", "pnl", "realizedPnl", "uplLastPx", "uplRatioLastPx")
    return {
        **dict.fromkeys(unused, ""),
        **dict.fromkeys(zero, "0"),
        "instType": listing.product,
        "instId": listing.name,
        "mgnMode": margin_mode,
        "posId": order_id_of(listing.code),
        "posSide": "net",
        "pos": listing.size(qty),
        "availPos": listing.size(abs(qty)),
        "avgPx": text(view.entry) if is_held else "",
        "bePx": text(view.entry) if is_held else "",
        "ccy": listing.instrument.settle,
        "lever": text(view.leverage),
        "last": text(view.mark),
        "markPx": text(view.mark),
        "liqPx": text(liquidation) if liquidation > 0 else "",
        "imr": _money(view.margin),
        "margin": "",
        "mgnRatio": "",
        "mmr": _money(abs(view.value) * MAINTENANCE_RATE),
        "notionalUsd": _money(abs(view.value)),
        "upl": _money(view.gain),
        "uplRatio": "0",
        "closeOrderAlgo": [],
        "tradeId": "",
        "cTime": str(at_ms),
        "uTime": str(at_ms),
    }


def _money(value: Decimal) -> str:
    return text(value.quantize(_EIGHT_PLACES))
