"""Public questions: time, instruments, books, trades, tickers."""

from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any, Final

from host.api import Trade
from venue.protocols.front import Desk
from venue.protocols.market_feed import DayStatistics
from venue.protocols.okx.books import levels_of
from venue.protocols.okx.names import PRODUCTS, Listing, Symbols, text
from venue.protocols.okx.refusals import Refused
from venue.protocols.okx.rows import instrument_row, ticker_row

__all__ = ["MarketQueries", "trade_row"]

_MS: Final = 1_000_000
_FUNDING_RATE: Final = "0.0001"
"""What the venue takes unless it is configured otherwise."""
_OTHER_PRODUCTS: Final = ("MARGIN", "FUTURES", "OPTION")
"""Products that OKX has and this venue lists nothing of."""


class MarketQueries:
    """Answers what anybody may ask."""

    def __init__(self, desk: Desk, symbols: Symbols) -> None:
        self._desk: Final = desk
        self._symbols: Final = symbols
        self._since_ms: Final = desk.now_ns() // _MS
        self._answers: Final[Mapping[str, Callable[[Mapping[str, Any]], list[Any]]]] = {
            "/api/v5/public/time": lambda _: [{"ts": str(self._now_ms())}],
            "/api/v5/public/instruments": self.instruments,
            "/api/v5/public/mark-price": self._mark_prices,
            "/api/v5/public/price-limit": lambda params: [self.price_limit(self._listing(params))],
            "/api/v5/public/funding-rate": self._funding_rates,
            "/api/v5/market/ticker": lambda params: [self.ticker(self._listing(params))],
            "/api/v5/market/tickers": self._tickers,
            "/api/v5/market/books": self._book,
            "/api/v5/market/books-full": self._book,
            "/api/v5/market/trades": self._trades,
            "/api/v5/system/status": lambda _: [],
        }

    def answer(self, path: str, params: Mapping[str, Any]) -> list[Any]:
        """Return the rows that answer a call; raise `Refused`."""
        answer = self._answers.get(path)
        if answer is None:
            raise Refused("50404", f"this venue does not serve {path}", status=404)
        return answer(params)

    def instruments(self, params: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Return what a product lists. Raises `Refused`."""
        wanted = params.get("instId")
        return [
            instrument_row(listing, self._since_ms)
            for listing in self._in_product(params)
            if not wanted or listing.name == wanted
        ]

    def ticker(self, listing: Listing) -> dict[str, Any]:
        """Return the summary of an instrument."""
        feed = self._desk.feed[listing.symbol]
        top = feed.top
        shown = ("", "0", "", "0")
        if top is not None:
            shown = (
                text(top.bid),
                listing.size_of(top.bid_size),
                text(top.ask),
                listing.size_of(top.ask_size),
            )
        day = feed.day
        if not day.count:  # nothing has traded yet: the mark price stands in
            mark = feed.mark
            day = DayStatistics(open=mark, high=mark, low=mark, last=mark)
        return ticker_row(listing, day, shown, self._now_ms())

    def mark_price(self, listing: Listing) -> dict[str, str]:
        """Return the mark price of an instrument."""
        mark = text(self._desk.feed[listing.symbol].mark)
        return {
            "instType": listing.product,
            "instId": listing.name,
            "markPx": mark,
            "ts": str(self._now_ms()),
        }

    def price_limit(self, listing: Listing) -> dict[str, Any]:
        """Return the highest price of a buy and the lowest of a sell that are taken now."""
        mark, band = self._desk.feed[listing.symbol].mark, listing.instrument.price_band
        row = {"instType": listing.product, "instId": listing.name, "ts": str(self._now_ms())}
        if band is None or not mark:
            return row | {"buyLmt": "", "sellLmt": "", "enabled": False}
        instrument, middle = listing.instrument, Decimal(repr(mark))
        highest, lowest = instrument.price_floor(middle * band.up), instrument.price_ceil(middle * band.down)
        return row | {"buyLmt": f"{highest:f}", "sellLmt": f"{lowest:f}", "enabled": True}

    # -- inside ----------------------------------------------------------------------------------

    def _listing(self, params: Mapping[str, Any]) -> Listing:
        listing = self._symbols.find(params.get("instId"))
        if listing is None:
            raise Refused("51001", "Instrument ID doesn't exist.")
        return listing

    def _in_product(self, params: Mapping[str, Any]) -> list[Listing]:
        product = str(params.get("instType") or "")
        if product not in (*PRODUCTS, *_OTHER_PRODUCTS):
            raise Refused("51000", "Parameter instType error")
        return self._symbols.in_product(product)

    def _tickers(self, params: Mapping[str, Any]) -> list[dict[str, Any]]:
        return [self.ticker(listing) for listing in self._in_product(params)]

    def _mark_prices(self, params: Mapping[str, Any]) -> list[dict[str, str]]:
        wanted = params.get("instId")
        found = [listing for listing in self._in_product(params) if not wanted or listing.name == wanted]
        return [self.mark_price(listing) for listing in found]

    def _funding_rates(self, params: Mapping[str, Any]) -> list[dict[str, str]]:
        listing = self._listing(params)
        now_ms = self._now_ms()
        eight_hours_ms = 8 * 3_600_000
        due_ms = (now_ms // eight_hours_ms + 1) * eight_hours_ms
        return [
            {
                "instType": listing.product,
                "instId": listing.name,
                "fundingRate": _FUNDING_RATE,
                "fundingTime": str(due_ms),
                "nextFundingRate": "",
                "nextFundingTime": str(due_ms + eight_hours_ms),
                "method": "current_period",
                "ts": str(now_ms),
            }
        ]

    def _book(self, params: Mapping[str, Any]) -> list[dict[str, Any]]:
        listing = self._listing(params)
        is_stale = self._desk.faults.is_stale(self._desk.protocol, listing.name)
        book = self._desk.feed[listing.symbol].book(self._desk.exchange, is_stale=is_stale)
        depth = str(params.get("sz") or "1")
        most = min(int(depth), 5000) if depth.isdecimal() else 1
        return [
            {
                "asks": levels_of(listing, book.asks[:most]),
                "bids": levels_of(listing, book.bids[:most]),
                "ts": str(self._now_ms()),
                "seqId": book.seq,
            }
        ]

    def _trades(self, params: Mapping[str, Any]) -> list[dict[str, str]]:
        listing = self._listing(params)
        wanted = str(params.get("limit") or "100")
        most = min(int(wanted), 500) if wanted.isdecimal() else 100
        trades = list(self._desk.feed[listing.symbol].trades)[::-1][:most]
        return [trade_row(self._desk, listing, trade) for trade in trades]

    def _now_ms(self) -> int:
        return self._desk.now_ns() // _MS


def trade_row(desk: Desk, listing: Listing, trade: Trade) -> dict[str, str]:
    """Return one public trade."""
    return {
        "instId": listing.name,
        "tradeId": str(trade.trade_id),
        "px": text(trade.price),
        "sz": listing.size_of(trade.qty),
        "side": "buy" if trade.taker_is_buyer else "sell",
        "ts": str(desk.shown_ns(trade.ts_event or trade.ts_recv) // _MS),
    }
