"""Spot public data: what is listed, the book, trades, prices."""

from decimal import Decimal
from typing import Any, Final

from host.api import Instrument, Trade
from venue.protocols.binance.errors import BinanceRefusal
from venue.protocols.binance.limits import Limits
from venue.protocols.binance.params import Params
from venue.protocols.binance.product import Call, Endpoint, Security
from venue.protocols.binance.symbols import Listing, fixed
from venue.protocols.front import Desk
from venue.protocols.requests import Kind

__all__ = ["SpotMarket"]

MAX_PRICE: Final = Decimal(10_000_000)
MAX_QTY: Final = Decimal(9_000_000)
DEPTH_WEIGHTS: Final = ((100, 5), (500, 25), (1000, 50), (5000, 250))


class SpotMarket:
    """The public endpoints."""

    def __init__(self, desk: Desk, listing: Listing, limits: Limits) -> None:
        self._desk = desk
        self._listing = listing
        self._limits = limits

    def endpoints(self) -> tuple[Endpoint, ...]:
        """Return what can be asked for."""
        public, market = Security.NONE, Kind.MARKET
        return (
            Endpoint("ping", market, public, self._ping, 1, ("GET /api/v3/ping",)),
            Endpoint("time", market, public, self._time, 1, ("GET /api/v3/time",)),
            Endpoint("exchangeInfo", market, public, self._exchange_info, 20, ("GET /api/v3/exchangeInfo",)),
            Endpoint("depth", market, public, self._depth, _depth_weight, ("GET /api/v3/depth",)),
            Endpoint("trades.recent", market, public, self._trades, 25, ("GET /api/v3/trades",)),
            Endpoint(
                "trades.historical", market, public, self._trades, 25, ("GET /api/v3/historicalTrades",)
            ),
            Endpoint("trades.aggregate", market, public, self._agg_trades, 4, ("GET /api/v3/aggTrades",)),
            Endpoint("ticker.book", market, public, self._book_ticker, 4, ("GET /api/v3/ticker/bookTicker",)),
            Endpoint("ticker.price", market, public, self._price, 4, ("GET /api/v3/ticker/price",)),
            Endpoint("ticker.24hr", market, public, self._day, 80, ("GET /api/v3/ticker/24hr",)),
            Endpoint("avgPrice", market, public, self._average, 2, ("GET /api/v3/avgPrice",)),
        )

    async def _ping(self, call: Call) -> Any:
        return {}

    async def _time(self, call: Call) -> Any:
        return {"serverTime": self._desk.now_ns() // 1_000_000}

    async def _exchange_info(self, call: Call) -> Any:
        names = self._names(call.params) or list(self._listing.by_name)
        raw = {"rateLimitType": "RAW_REQUESTS", "interval": "MINUTE", "intervalNum": 5, "limit": 300_000}
        return {
            "timezone": "UTC",
            "serverTime": self._desk.now_ns() // 1_000_000,
            "rateLimits": [*self._limits.listed(), raw],
            "exchangeFilters": [],
            "symbols": [self._listed(name) for name in names],
        }

    def _listed(self, name: str) -> dict[str, Any]:
        instrument = self._listing.by_name[name]
        is_trading = self._desk.exchange.has_market(instrument.symbol)
        return {
            "symbol": name,
            "status": "TRADING" if is_trading else "BREAK",
            "baseAsset": instrument.base,
            "baseAssetPrecision": 8,
            "quoteAsset": instrument.quote,
            "quotePrecision": 8,
            "quoteAssetPrecision": 8,
            "baseCommissionPrecision": 8,
            "quoteCommissionPrecision": 8,
            "orderTypes": ["LIMIT", "LIMIT_MAKER", "MARKET"],
            "icebergAllowed": False,
            "ocoAllowed": False,
            "otoAllowed": False,
            "opoAllowed": False,
            "quoteOrderQtyMarketAllowed": True,
            "allowTrailingStop": False,
            "cancelReplaceAllowed": True,
            "amendAllowed": True,
            "pegInstructionsAllowed": False,
            "isSpotTradingAllowed": True,
            "isMarginTradingAllowed": False,
            "filters": _filters(instrument),
            "permissions": [],
            "permissionSets": [["SPOT"]],
            "defaultSelfTradePreventionMode": "EXPIRE_TAKER",
            "allowedSelfTradePreventionModes": ["EXPIRE_TAKER"],
        }

    async def _depth(self, call: Call) -> Any:
        instrument = self._listing.instrument(call.params)
        limit = min(call.params.integer("limit", 100) or 100, 5000)
        name = self._listing.name_of(instrument.symbol)
        is_stale = self._desk.faults.is_stale(self._desk.protocol, name)
        book = self._desk.feed[instrument.symbol].book(self._desk.exchange, is_stale=is_stale)
        return {
            "lastUpdateId": book.seq,
            "bids": [[fixed(price), fixed(size)] for price, size in book.bids[:limit]],
            "asks": [[fixed(price), fixed(size)] for price, size in book.asks[:limit]],
        }

    async def _trades(self, call: Call) -> Any:
        return [self._trade_row(trade) for trade in self._recent(call.params)]

    async def _agg_trades(self, call: Call) -> Any:
        return [
            {
                "a": trade.trade_id,
                "p": fixed(trade.price),
                "q": fixed(trade.qty),
                "f": trade.trade_id,
                "l": trade.trade_id,
                "T": self._desk.shown_ns(trade.ts_recv) // 1_000_000,
                "m": not trade.taker_is_buyer,
                "M": True,
            }
            for trade in self._recent(call.params)
        ]

    def _recent(self, params: Params) -> list[Trade]:
        instrument = self._listing.instrument(params)
        limit = min(params.integer("limit", 500) or 500, 1000)
        first = params.integer("fromId", -1)
        found = [
            trade
            for trade in self._desk.feed[instrument.symbol].trades
            if first is None or trade.trade_id >= first
        ]
        return found[:limit] if "fromId" in params else found[-limit:]

    def _trade_row(self, trade: Trade) -> dict[str, Any]:
        return {
            "id": trade.trade_id,
            "price": fixed(trade.price),
            "qty": fixed(trade.qty),
            "quoteQty": fixed(trade.price * trade.qty),
            "time": self._desk.shown_ns(trade.ts_recv) // 1_000_000,
            "isBuyerMaker": not trade.taker_is_buyer,
            "isBestMatch": True,
        }

    async def _book_ticker(self, call: Call) -> Any:
        return self._for_each(call, self._book_ticker_row)

    def _book_ticker_row(self, name: str) -> dict[str, Any]:
        top = self._desk.feed[self._listing.by_name[name].symbol].top
        bid, bid_size, ask, ask_size = (
            (0.0,) * 4 if top is None else (top.bid, top.bid_size, top.ask, top.ask_size)
        )
        return {
            "symbol": name,
            "bidPrice": fixed(bid),
            "bidQty": fixed(bid_size),
            "askPrice": fixed(ask),
            "askQty": fixed(ask_size),
        }

    async def _price(self, call: Call) -> Any:
        return self._for_each(
            call,
            lambda name: {"symbol": name, "price": fixed(self._feed(name).day.last or self._feed(name).mark)},
        )

    async def _day(self, call: Call) -> Any:
        return self._for_each(call, self._day_row)

    def _day_row(self, name: str) -> dict[str, Any]:
        day, book = self._feed(name).day, self._book_ticker_row(name)
        now_ms = self._desk.now_ns() // 1_000_000
        change = day.last - day.open
        return {
            "symbol": name,
            "priceChange": fixed(change),
            "priceChangePercent": fixed(100 * change / day.open if day.open else 0.0, 3),
            "weightedAvgPrice": fixed(day.quote_volume / day.volume if day.volume else 0.0),
            "prevClosePrice": fixed(day.open),
            "lastPrice": fixed(day.last),
            "lastQty": fixed(day.last_qty),
            **{key: book[key] for key in ("bidPrice", "bidQty", "askPrice", "askQty")},
            "openPrice": fixed(day.open),
            "highPrice": fixed(day.high),
            "lowPrice": fixed(day.low),
            "volume": fixed(day.volume),
            "quoteVolume": fixed(day.quote_volume),
            "openTime": now_ms - 86_400_000,
            "closeTime": now_ms,
            "firstId": day.first_trade_id,
            "lastId": day.last_trade_id,
            "count": day.count,
        }

    async def _average(self, call: Call) -> Any:
        name = self._listing.name_of(self._listing.instrument(call.params).symbol)
        trades = self._feed(name).trades
        mean = sum(trade.price for trade in trades) / len(trades) if trades else self._feed(name).mark
        closed_ms = self._desk.now_ns() // 1_000_000
        return {"mins": 5, "price": fixed(mean), "closeTime": closed_ms}

    def _feed(self, name: str) -> Any:
        return self._desk.feed[self._listing.by_name[name].symbol]

    def _for_each(self, call: Call, row: Any) -> Any:
        """Return one row where the request names one symbol, and a list otherwise."""
        if "symbol" in call.params:
            return row(self._listing.name_of(self._listing.instrument(call.params).symbol))
        return [row(name) for name in self._names(call.params) or self._listing.by_name]

    def _names(self, params: Params) -> list[str]:
        if "symbol" in params:
            return [self._listing.name_of(self._listing.instrument(params).symbol)]
        text = params.text("symbols").strip("[]").replace("'", "")
        names = [part.strip().strip('"') for part in text.split(",") if part.strip()]
        if any(name not in self._listing.by_name for name in names):
            raise BinanceRefusal(-1121, "Invalid symbol.")
        return names


def _filters(instrument: Instrument) -> list[dict[str, Any]]:
    band = instrument.price_band
    up, down = ("5", "0.2") if band is None else (f"{band.up.normalize():f}", f"{band.down.normalize():f}")
    max_qty = instrument.max_qty or MAX_QTY
    return [
        {
            "filterType": "PRICE_FILTER",
            "minPrice": fixed(instrument.tick_size),
            "maxPrice": fixed(MAX_PRICE),
            "tickSize": fixed(instrument.tick_size),
        },
        {
            "filterType": "LOT_SIZE",
            "minQty": fixed(instrument.min_qty or instrument.lot_size),
            "maxQty": fixed(max_qty),
            "stepSize": fixed(instrument.lot_size),
        },
        {"filterType": "ICEBERG_PARTS", "limit": 10},
        {
            "filterType": "MARKET_LOT_SIZE",
            "minQty": fixed(0.0),
            "maxQty": fixed(max_qty),
            "stepSize": fixed(0.0),
        },
        {
            "filterType": "PERCENT_PRICE_BY_SIDE",
            "bidMultiplierUp": up,
            "bidMultiplierDown": down,
            "askMultiplierUp": up,
            "askMultiplierDown": down,
            "avgPriceMins": 5,
        },
        {
            "filterType": "NOTIONAL",
            "minNotional": fixed(instrument.min_notional),
            "applyMinToMarket": True,
            "maxNotional": "9000000000.00000000",
            "applyMaxToMarket": False,
            "avgPriceMins": 5,
        },
        {"filterType": "MAX_NUM_ORDERS", "maxNumOrders": 200},
        {"filterType": "MAX_NUM_ALGO_ORDERS", "maxNumAlgoOrders": 5},
    ]


def _depth_weight(params: Params) -> int:
    limit = params.integer("limit", 100) or 100
    return next((weight for most, weight in DEPTH_WEIGHTS if limit <= most), 250)
