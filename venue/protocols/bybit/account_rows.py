"""Positions, funding, balances and fees as Bybit shows them."""

from decimal import Decimal
from typing import Any

from msgspec import Struct

from host.api import Balance
from venue.perpetuals import MAINTENANCE_RATE, FundingPayment
from venue.protocols.bybit.names import Listing, order_id_of
from venue.protocols.bybit.numbers_as_text import rounded, text
from venue.protocols.bybit.order_rows import execution_id

__all__ = [
    "PositionView",
    "coin_row",
    "fee_row",
    "funding_row",
    "position_row",
    "pushed_position",
]


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
        "avgPrice": rounded(position.entry) if qty else "0",
        "positionValue": rounded(value) if qty else "",
        "tradeMode": 0,
        "positionStatus": "Normal",
        "autoAddMargin": 0,
        "adlRankIndicator": 2 if qty else 0,
        "leverage": text(position.leverage),
        "breakEvenPrice": "",
        "positionBalance": "0",
        "markPrice": rounded(position.mark),
        "liqPrice": rounded(position.liquidation) if position.liquidation else "",
        "bustPrice": "",
        "positionMM": rounded(value * MAINTENANCE_RATE),
        "positionMMByMp": rounded(value * MAINTENANCE_RATE),
        "positionIM": rounded(position.margin),
        "positionIMByMp": rounded(position.margin),
        "tpslMode": "Full",
        "takeProfit": "",
        "stopLoss": "",
        "trailingStop": "0",
        "unrealisedPnl": rounded(position.profit) if qty else "",
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


def fee_row(listing: Listing) -> dict[str, Any]:
    """Return the fee rates of a symbol."""
    instrument = listing.instrument
    return {
        "symbol": listing.name,
        "baseCoin": "",
        "takerFeeRate": text(instrument.taker_fee),
        "makerFeeRate": text(instrument.maker_fee),
    }
