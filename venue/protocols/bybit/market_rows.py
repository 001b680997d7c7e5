"""What is listed, and its 24-hour summary, as Bybit shows them."""

from decimal import Decimal
from typing import Any

from host.api import Instrument
from venue.protocols.bybit.names import Listing, Product
from venue.protocols.bybit.numbers_as_text import text
from venue.protocols.market_feed import DayStatistics

__all__ = [
    "instrument_row",
    "ticker_row",
]


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
