"""Bybit's public REST calls."""

from collections.abc import Callable
from typing import Any, Final
from uuid import UUID

from host.api import Trade
from venue.protocols.bybit.books import book_data
from venue.protocols.bybit.keys import whole
from venue.protocols.bybit.market_rows import instrument_row, ticker_row
from venue.protocols.bybit.names import Listing, Product, Symbols
from venue.protocols.bybit.numbers_as_text import text
from venue.protocols.bybit.refusals import BAD_PARAMETER, NO_ROUTE, Refused
from venue.protocols.front import Desk

__all__ = ["MarketQueries", "trade_id_of"]

_MS: Final = 1_000_000
_MOST_TRADES: Final = 60
_MOST_LEVELS: Final = 1_000


def trade_id_of(listing: Listing, trade: Trade) -> str:
    """Return how Bybit names a public trade: by number on spot, by UUID elsewhere."""
    if listing.is_spot:
        return str(2_290_000_000_000_000_000 + trade.trade_id)
    return str(UUID(int=0x2033_0000_0000_4000_8000 << 48 | trade.trade_id))


class MarketQueries:
    """Answers what needs no key. Each method returns the `result` or raises `Refused`."""

    def __init__(self, desk: Desk, symbols: Symbols) -> None:
        self._desk: Final = desk
        self._symbols: Final = symbols
        self._calls: Final[dict[str, Callable[[dict[str, Any]], dict[str, Any]]]] = {
            "/v5/market/time": self._time,
            "/v5/system/status": lambda _: {"list": []},
            "/v5/market/instruments-info": self._instruments,
            "/v5/market/orderbook": self._orderbook,
            "/v5/market/tickers": self._tickers,
            "/v5/market/recent-trade": self._trades,
        }

    def answer(self, path: str, params: dict[str, Any]) -> dict[str, Any]:
        """Answer one call. Raises `Refused`."""
        call = self._calls.get(path)
        if call is None:
            raise Refused(NO_ROUTE, f"Route not found: {path}")
        return call(params)

    def _time(self, _params: dict[str, Any]) -> dict[str, Any]:
        now_ns = self._desk.now_ns()
        return {"timeSecond": str(now_ns // 1_000_000_000), "timeNano": str(now_ns)}

    def _instruments(self, params: dict[str, Any]) -> dict[str, Any]:
        product = str(params.get("category") or "")
        if product == "option":
            return {"category": product, "nextPageCursor": "", "list": []}
        rows = [instrument_row(listing) for listing in self._wanted(params)]
        return {"category": product, "nextPageCursor": "", "list": rows}

    def _orderbook(self, params: dict[str, Any]) -> dict[str, Any]:
        listing = self._one(params)
        limit = min(whole(params.get("limit")) or 25, _MOST_LEVELS)
        is_stale = self._desk.faults.is_stale(self._desk.protocol, listing.name)
        book = self._desk.feed[listing.symbol].book(self._desk.exchange, is_stale=is_stale)
        now_ms = self._desk.now_ns() // _MS
        data = book_data(
            listing.name, list(book.bids[:limit]), list(book.asks[:limit]), book.seq + 1, book.seq
        )
        return data | {"ts": now_ms, "cts": self._desk.shown_ns(book.ts_event or book.ts_recv) // _MS}

    def _tickers(self, params: dict[str, Any]) -> dict[str, Any]:
        rows = [self.ticker(listing) for listing in self._wanted(params)]
        return {"category": str(params.get("category")), "list": rows}

    def ticker(self, listing: Listing) -> dict[str, Any]:
        """Return the 24-hour summary of a symbol."""
        feed = self._desk.feed[listing.symbol]
        top = feed.top
        bid = (top.bid, top.bid_size) if top is not None else (0.0, 0.0)
        ask = (top.ask, top.ask_size) if top is not None else (0.0, 0.0)
        return ticker_row(listing, feed.day, bid, ask, feed.mark)

    def _trades(self, params: dict[str, Any]) -> dict[str, Any]:
        listing = self._one(params)
        limit = min(whole(params.get("limit")) or _MOST_TRADES, _MOST_TRADES)
        newest = list(self._desk.feed[listing.symbol].trades)[-limit:]
        rows = [self._trade(listing, trade) for trade in reversed(newest)]
        return {"category": listing.product.value, "list": rows}

    def _trade(self, listing: Listing, trade: Trade) -> dict[str, Any]:
        return {
            "execId": trade_id_of(listing, trade),
            "symbol": listing.name,
            "price": text(trade.price),
            "size": text(trade.qty),
            "side": "Buy" if trade.taker_is_buyer else "Sell",
            "time": str(self._desk.shown_ns(trade.ts_event or trade.ts_recv) // _MS),
            "isBlockTrade": False,
            "isRPITrade": False,
            "seq": str(trade.trade_id),
        }

    def _wanted(self, params: dict[str, Any]) -> list[Listing]:
        category = str(params.get("category") or "")
        if category not in set(Product):
            raise Refused(BAD_PARAMETER, "params error: category invalid")
        if params.get("symbol"):
            return [self._one(params)]
        base = str(params.get("baseCoin") or "")
        found = self._symbols.in_product(Product(category))
        return [listing for listing in found if not base or listing.instrument.base == base]

    def _one(self, params: dict[str, Any]) -> Listing:
        category, name = str(params.get("category") or ""), str(params.get("symbol") or "")
        listing = self._symbols.find(category, name)
        if listing is None:
            if category not in set(Product):
                raise Refused(BAD_PARAMETER, "params error: category invalid")
            raise Refused(BAD_PARAMETER, f"params error: symbol invalid {name}")
        return listing
