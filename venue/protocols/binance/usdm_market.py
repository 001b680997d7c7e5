"""USDⓈ-M public data: contracts, the book, trades, prices, funding."""

from decimal import Decimal
from typing import Any, Final

from host.api import Instrument, Trade
from venue.perpetuals import MAINTENANCE_RATE
from venue.protocols.binance.limits import Limits
from venue.protocols.binance.params import Params
from venue.protocols.binance.product import Call, Endpoint, Security
from venue.protocols.binance.symbols import Listing, decimals_of, fixed
from venue.protocols.front import Desk
from venue.protocols.requests import Kind

__all__ = ["FUNDING_HOURS", "FUNDING_RATE", "UsdmMarket"]

FUNDING_RATE: Final = Decimal("0.0001")
FUNDING_HOURS: Final = 8
DEPTH_WEIGHTS: Final = ((50, 2), (100, 5), (500, 10), (1000, 20))
MAX_QTY: Final = Decimal(1000)


class UsdmMarket:
    """The public endpoints."""

    def __init__(self, desk: Desk, listing: Listing, limits: Limits) -> None:
        self._desk = desk
        self._listing = listing
        self._limits = limits

    def endpoints(self) -> tuple[Endpoint, ...]:
        """Return what can be asked for."""
        public, market, path = Security.NONE, Kind.MARKET, "GET /fapi/v1/"
        return (
            Endpoint("ping", market, public, self._ping, 1, (f"{path}ping",)),
            Endpoint("time", market, public, self._time, 1, (f"{path}time",)),
            Endpoint("exchangeInfo", market, public, self._exchange_info, 1, (f"{path}exchangeInfo",)),
            Endpoint("depth", market, public, self._depth, _depth_weight, (f"{path}depth",)),
            Endpoint("trades", market, public, self._trades, 5, (f"{path}trades",)),
            Endpoint("aggTrades", market, public, self._agg_trades, 20, (f"{path}aggTrades",)),
            Endpoint("ticker.book", market, public, self._book_ticker, 2, (f"{path}ticker/bookTicker",)),
            Endpoint(
                "ticker.price",
                market,
                public,
                self._price,
                1,
                (f"{path}ticker/price", "GET /fapi/v2/ticker/price"),
            ),
            Endpoint("ticker.24hr", market, public, self._day, 40, (f"{path}ticker/24hr",)),
            Endpoint("premiumIndex", market, public, self._premium, 10, (f"{path}premiumIndex",)),
            Endpoint("coin.exchangeInfo", market, public, self._no_coin, 1, ("GET /dapi/v1/exchangeInfo",)),
            Endpoint("fundingRate", market, public, self._no_rows, 1, (f"{path}fundingRate",)),
            Endpoint("fundingInfo", market, public, self._funding_info, 1, (f"{path}fundingInfo",)),
        )

    async def _ping(self, call: Call) -> Any:
        return {}

    async def _no_rows(self, call: Call) -> Any:
        return []

    async def _no_coin(self, call: Call) -> Any:
        # Coin-margined contracts are not served; clients ask for their list while they load markets.
        return {
            "timezone": "UTC",
            "serverTime": self._now_ms(),
            "rateLimits": [],
            "exchangeFilters": [],
            "symbols": [],
        }

    async def _time(self, call: Call) -> Any:
        return {"serverTime": self._now_ms()}

    async def _exchange_info(self, call: Call) -> Any:
        assets = sorted({each.quote for each in self._listing.by_name.values()})
        return {
            "timezone": "UTC",
            "serverTime": self._now_ms(),
            "futuresType": "U_MARGINED",
            "rateLimits": self._limits.listed(),
            "exchangeFilters": [],
            "assets": [{"asset": each, "marginAvailable": True, "autoAssetExchange": "0"} for each in assets],
            "symbols": [self._listed(name, each) for name, each in self._listing.by_name.items()],
        }

    def _listed(self, name: str, instrument: Instrument) -> dict[str, Any]:
        is_trading = self._desk.exchange.has_market(instrument.symbol)
        return {
            "symbol": name,
            "pair": name,
            "contractType": "PERPETUAL",
            "deliveryDate": 4_133_404_800_000,
            "onboardDate": 1_569_398_400_000,
            "status": "TRADING" if is_trading else "SETTLING",
            "maintMarginPercent": fixed(MAINTENANCE_RATE * 100, 4),
            "requiredMarginPercent": "5.0000",
            "baseAsset": instrument.base,
            "quoteAsset": instrument.quote,
            "marginAsset": instrument.quote,
            "pricePrecision": decimals_of(instrument.tick_size),
            "quantityPrecision": decimals_of(instrument.lot_size),
            "baseAssetPrecision": 8,
            "quotePrecision": 8,
            "underlyingType": "COIN",
            "underlyingSubType": ["PoW"],
            "triggerProtect": "0.0500",
            "liquidationFee": "0.012500",
            "marketTakeBound": "0.05",
            "maxMoveOrderLimit": 10_000,
            "filters": _filters(instrument),
            "orderTypes": ["LIMIT", "MARKET"],
            "timeInForce": ["GTC", "IOC", "FOK", "GTX"],
            "permissionSets": ["GRID", "COPY"],
        }

    async def _depth(self, call: Call) -> Any:
        instrument = self._listing.instrument(call.params)
        limit = min(call.params.integer("limit", 500) or 500, 1000)
        name = self._listing.name_of(instrument.symbol)
        is_stale = self._desk.faults.is_stale(self._desk.protocol, name)
        book = self._desk.feed[instrument.symbol].book(self._desk.exchange, is_stale=is_stale)
        price, size = _decimals(instrument)
        return {
            "lastUpdateId": book.seq,
            "E": self._now_ms(),
            "T": self._desk.shown_ns(book.ts_recv) // 1_000_000,
            "bids": [[fixed(at, price), fixed(qty, size)] for at, qty in book.bids[:limit]],
            "asks": [[fixed(at, price), fixed(qty, size)] for at, qty in book.asks[:limit]],
        }

    async def _trades(self, call: Call) -> Any:
        instrument, trades = self._recent(call.params)
        price, size = _decimals(instrument)
        return [
            {
                "id": trade.trade_id,
                "price": fixed(trade.price, price),
                "qty": fixed(trade.qty, size),
                "quoteQty": fixed(trade.price * trade.qty, 2),
                "time": self._desk.shown_ns(trade.ts_recv) // 1_000_000,
                "isBuyerMaker": not trade.taker_is_buyer,
            }
            for trade in trades
        ]

    async def _agg_trades(self, call: Call) -> Any:
        instrument, trades = self._recent(call.params)
        price, size = _decimals(instrument)
        return [
            {
                "a": trade.trade_id,
                "p": fixed(trade.price, price),
                "q": fixed(trade.qty, size),
                "f": trade.trade_id,
                "l": trade.trade_id,
                "T": self._desk.shown_ns(trade.ts_recv) // 1_000_000,
                "m": not trade.taker_is_buyer,
            }
            for trade in trades
        ]

    def _recent(self, params: Params) -> tuple[Instrument, list[Trade]]:
        instrument = self._listing.instrument(params)
        limit = min(params.integer("limit", 500) or 500, 1000)
        return instrument, list(self._desk.feed[instrument.symbol].trades)[-limit:]

    async def _book_ticker(self, call: Call) -> Any:
        return self._for_each(call, self._book_ticker_row)

    def _book_ticker_row(self, name: str, instrument: Instrument) -> dict[str, Any]:
        top = self._desk.feed[instrument.symbol].top
        price, size = _decimals(instrument)
        bid, bid_size, ask, ask_size = (
            (0.0,) * 4 if top is None else (top.bid, top.bid_size, top.ask, top.ask_size)
        )
        return {
            "symbol": name,
            "bidPrice": fixed(bid, price),
            "bidQty": fixed(bid_size, size),
            "askPrice": fixed(ask, price),
            "askQty": fixed(ask_size, size),
            "time": self._now_ms(),
            "lastUpdateId": 0 if top is None else top.seq,
        }

    async def _price(self, call: Call) -> Any:
        return self._for_each(call, self._price_row)

    def _price_row(self, name: str, instrument: Instrument) -> dict[str, Any]:
        feed = self._desk.feed[instrument.symbol]
        last = feed.day.last or feed.mark
        return {"symbol": name, "price": fixed(last, _decimals(instrument)[0]), "time": self._now_ms()}

    async def _day(self, call: Call) -> Any:
        return self._for_each(call, self._day_row)

    def _day_row(self, name: str, instrument: Instrument) -> dict[str, Any]:
        day, now_ms = self._desk.feed[instrument.symbol].day, self._now_ms()
        price, size = _decimals(instrument)
        change = day.last - day.open
        return {
            "symbol": name,
            "priceChange": fixed(change, price),
            "priceChangePercent": fixed(100 * change / day.open if day.open else 0.0, 3),
            "weightedAvgPrice": fixed(day.quote_volume / day.volume if day.volume else 0.0, price),
            "lastPrice": fixed(day.last, price),
            "lastQty": fixed(day.last_qty, size),
            "openPrice": fixed(day.open, price),
            "highPrice": fixed(day.high, price),
            "lowPrice": fixed(day.low, price),
            "volume": fixed(day.volume, size),
            "quoteVolume": fixed(day.quote_volume, 2),
            "openTime": now_ms - 86_400_000,
            "closeTime": now_ms,
            "firstId": day.first_trade_id,
            "lastId": day.last_trade_id,
            "count": day.count,
        }

    async def _premium(self, call: Call) -> Any:
        return self._for_each(call, self._premium_row)

    def _premium_row(self, name: str, instrument: Instrument) -> dict[str, Any]:
        mark, now_ms = fixed(self._desk.feed[instrument.symbol].mark), self._now_ms()
        hours_ms = FUNDING_HOURS * 3_600_000
        return {
            "symbol": name,
            "markPrice": mark,
            "indexPrice": mark,
            "estimatedSettlePrice": mark,
            "lastFundingRate": fixed(FUNDING_RATE),
            "interestRate": "0.00010000",
            "nextFundingTime": (now_ms // hours_ms + 1) * hours_ms,
            "time": now_ms,
        }

    async def _funding_info(self, call: Call) -> Any:
        return [
            {
                "symbol": name,
                "adjustedFundingRateCap": "0.02000000",
                "adjustedFundingRateFloor": "-0.02000000",
                "fundingIntervalHours": FUNDING_HOURS,
                "disclaimer": False,
            }
            for name in self._listing.by_name
        ]

    def _for_each(self, call: Call, row: Any) -> Any:
        """Return one row where the request names one symbol, and a list otherwise."""
        if "symbol" in call.params:
            instrument = self._listing.instrument(call.params)
            return row(self._listing.name_of(instrument.symbol), instrument)
        return [row(name, each) for name, each in self._listing.by_name.items()]

    def _now_ms(self) -> int:
        return self._desk.now_ns() // 1_000_000


def _decimals(instrument: Instrument) -> tuple[int, int]:
    return decimals_of(instrument.tick_size), decimals_of(instrument.lot_size)


def _filters(instrument: Instrument) -> list[dict[str, Any]]:
    band = instrument.price_band
    up, down = ("5", "0.2") if band is None else (f"{band.up.normalize():f}", f"{band.down.normalize():f}")
    tick, lot = f"{instrument.tick_size:f}", f"{instrument.lot_size:f}"
    sizes = {
        "minQty": f"{instrument.min_qty or instrument.lot_size:f}",
        "maxQty": f"{instrument.max_qty or MAX_QTY:f}",
        "stepSize": lot,
    }
    return [
        {"filterType": "PRICE_FILTER", "minPrice": tick, "maxPrice": "4529764", "tickSize": tick},
        {"filterType": "LOT_SIZE", **sizes},
        {"filterType": "MARKET_LOT_SIZE", **sizes},
        {"filterType": "MAX_NUM_ORDERS", "limit": 200},
        {"filterType": "MAX_NUM_ALGO_ORDERS", "limit": 10},
        {"filterType": "MIN_NOTIONAL", "notional": f"{instrument.min_notional.normalize():f}"},
        {"filterType": "PERCENT_PRICE", "multiplierUp": up, "multiplierDown": down, "multiplierDecimal": "4"},
        {"filterType": "POSITION_RISK_CONTROL", "positionControlSide": "NONE"},
    ]


def _depth_weight(params: Params) -> int:
    limit = params.integer("limit", 500) or 500
    return next((weight for most, weight in DEPTH_WEIGHTS if limit <= most), 20)
