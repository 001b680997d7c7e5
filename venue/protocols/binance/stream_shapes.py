"""Messages of the market streams, spot's and the futures'."""

from typing import Any, Protocol

from host.api import BookTop, Depth, Trade
from venue.protocols.binance.symbols import Listing, decimals_of, fixed
from venue.protocols.front import Desk
from venue.protocols.market_feed import SymbolFeed

__all__ = ["FuturesShapes", "Shapes", "SpotShapes"]


class Shapes(Protocol):
    """How one product writes its market data; None where a stream has nothing to tell."""

    def book_ticker(self, top: BookTop, name: str) -> dict[str, Any]:
        """Return a best bid and ask."""

    def trade(self, trade: Trade, name: str) -> dict[str, Any]:
        """Return one trade."""

    def agg_trade(self, trade: Trade, name: str) -> dict[str, Any]:
        """Return one trade as an aggregate of itself alone."""

    def depth(self, change: Depth, name: str) -> dict[str, Any]:
        """Return a change of the book."""

    def partial(self, book: Depth, name: str, levels: int) -> dict[str, Any]:
        """Return the best levels of the book."""

    def ticker(self, feed: SymbolFeed, name: str, what: str) -> dict[str, Any] | None:
        """Return what a periodical stream tells."""


class SpotShapes:
    """Spot: eight decimals everywhere, no event time on the book ticker."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    def book_ticker(self, top: BookTop, name: str) -> dict[str, Any]:
        """Return a `bookTicker` message."""
        return {
            "u": top.seq,
            "s": name,
            "b": fixed(top.bid),
            "B": fixed(top.bid_size),
            "a": fixed(top.ask),
            "A": fixed(top.ask_size),
        }

    def trade(self, trade: Trade, name: str) -> dict[str, Any]:
        """Return a `trade` message."""
        time_ms = self._desk.shown_ns(trade.ts_recv) // 1_000_000
        return {
            "e": "trade",
            "E": self._desk.now_ns() // 1_000_000,
            "s": name,
            "t": trade.trade_id,
            "p": fixed(trade.price),
            "q": fixed(trade.qty),
            "T": time_ms,
            "m": not trade.taker_is_buyer,
            "M": True,
        }

    def agg_trade(self, trade: Trade, name: str) -> dict[str, Any]:
        """Return an `aggTrade` message."""
        told = self.trade(trade, name)
        number = told.pop("t")
        return {**told, "e": "aggTrade", "a": number, "f": number, "l": number}

    def depth(self, change: Depth, name: str) -> dict[str, Any]:
        """Return a `depthUpdate` message."""
        return {
            "e": "depthUpdate",
            "E": self._desk.now_ns() // 1_000_000,
            "s": name,
            "U": change.first_seq,
            "u": change.seq,
            "b": _levels(change.bids),
            "a": _levels(change.asks),
        }

    def partial(self, book: Depth, name: str, levels: int) -> dict[str, Any]:
        """Return a partial book: it has neither event type nor symbol."""
        return {
            "lastUpdateId": book.seq,
            "bids": _levels(book.bids[:levels]),
            "asks": _levels(book.asks[:levels]),
        }

    def ticker(self, feed: SymbolFeed, name: str, what: str) -> dict[str, Any] | None:
        """Return a `24hrTicker` or `24hrMiniTicker` message."""
        day, top, now_ms = feed.day, feed.top, self._desk.now_ns() // 1_000_000
        if top is None or what not in ("ticker", "miniTicker"):
            return None
        told = _day_row(feed, name, now_ms)
        if what == "miniTicker":
            kept = ("E", "s", "c", "o", "h", "l", "v", "q")
            return {"e": "24hrMiniTicker", **{key: told[key] for key in kept}}
        return {
            **told,
            "x": fixed(day.open),
            "b": fixed(top.bid),
            "B": fixed(top.bid_size),
            "a": fixed(top.ask),
            "A": fixed(top.ask_size),
        }


class FuturesShapes:
    """USDⓈ-M: each symbol's own decimals, event and transaction time, `pu` on depth."""

    def __init__(self, desk: Desk, listing: Listing) -> None:
        self._desk = desk
        self._prices = {name: decimals_of(each.tick_size) for name, each in listing.by_name.items()}
        self._sizes = {name: decimals_of(each.lot_size) for name, each in listing.by_name.items()}

    def book_ticker(self, top: BookTop, name: str) -> dict[str, Any]:
        """Return a `bookTicker` message."""
        price, size = self._prices[name], self._sizes[name]
        return {
            "e": "bookTicker",
            "u": top.seq,
            "s": name,
            "ps": name,
            "b": fixed(top.bid, price),
            "B": fixed(top.bid_size, size),
            "a": fixed(top.ask, price),
            "A": fixed(top.ask_size, size),
            "T": self._desk.shown_ns(top.ts_recv) // 1_000_000,
            "E": self._desk.now_ns() // 1_000_000,
            "st": 1,
        }

    def trade(self, trade: Trade, name: str) -> dict[str, Any]:
        """Return a `trade` message."""
        return {
            "e": "trade",
            "E": self._desk.now_ns() // 1_000_000,
            "T": self._desk.shown_ns(trade.ts_recv) // 1_000_000,
            "s": name,
            "t": trade.trade_id,
            "p": fixed(trade.price, self._prices[name]),
            "q": fixed(trade.qty, self._sizes[name]),
            "X": "MARKET",
            "m": not trade.taker_is_buyer,
            "ps": name,
            "st": 1,
        }

    def agg_trade(self, trade: Trade, name: str) -> dict[str, Any]:
        """Return an `aggTrade` message."""
        told = self.trade(trade, name)
        del told["X"]
        number = told.pop("t")
        return {**told, "e": "aggTrade", "a": number, "f": number, "l": number}

    def depth(self, change: Depth, name: str) -> dict[str, Any]:
        """Return a `depthUpdate` message with the id before it."""
        return {
            "e": "depthUpdate",
            "E": self._desk.now_ns() // 1_000_000,
            "T": self._desk.shown_ns(change.ts_recv) // 1_000_000,
            "s": name,
            "ps": name,
            "U": change.first_seq,
            "u": change.seq,
            "pu": change.prev_seq,
            "b": self._levels(change.bids, name),
            "a": self._levels(change.asks, name),
            "st": 1,
        }

    def partial(self, book: Depth, name: str, levels: int) -> dict[str, Any]:
        """Return the best levels, as a `depthUpdate` that stands for itself."""
        return {
            **self.depth(book, name),
            "b": self._levels(book.bids[:levels], name),
            "a": self._levels(book.asks[:levels], name),
        }

    def ticker(self, feed: SymbolFeed, name: str, what: str) -> dict[str, Any] | None:
        """Return a `24hrTicker`, `24hrMiniTicker` or `markPriceUpdate` message."""
        now_ms = self._desk.now_ns() // 1_000_000
        if what.startswith("markPrice"):
            mark = fixed(feed.mark)
            return {
                "e": "markPriceUpdate",
                "E": now_ms,
                "s": name,
                "p": mark,
                "ap": mark,
                "P": mark,
                "i": mark,
                "r": fixed(0.0001),
                "T": (now_ms // 28_800_000 + 1) * 28_800_000,
                "st": 1,
            }
        told = _day_row(feed, name, now_ms)
        if what == "miniTicker":
            kept = ("E", "s", "c", "o", "h", "l", "v", "q")
            return {"e": "24hrMiniTicker", **{key: told[key] for key in kept}, "ps": name, "st": 1}
        return {**told, "ps": name, "st": 1}

    def _levels(self, levels: tuple[tuple[float, float], ...], name: str) -> list[list[str]]:
        price, size = self._prices[name], self._sizes[name]
        return [[fixed(at, price), fixed(qty, size)] for at, qty in levels]


def _levels(levels: tuple[tuple[float, float], ...]) -> list[list[str]]:
    return [[fixed(price), fixed(size)] for price, size in levels]


def _day_row(feed: SymbolFeed, name: str, now_ms: int) -> dict[str, Any]:
    day = feed.day
    change = day.last - day.open
    return {
        "e": "24hrTicker",
        "E": now_ms,
        "s": name,
        "p": fixed(change),
        "P": fixed(100 * change / day.open if day.open else 0.0, 3),
        "w": fixed(day.quote_volume / day.volume if day.volume else 0.0),
        "c": fixed(day.last),
        "Q": fixed(day.last_qty),
        "o": fixed(day.open),
        "h": fixed(day.high),
        "l": fixed(day.low),
        "v": fixed(day.volume),
        "q": fixed(day.quote_volume),
        "O": now_ms - 86_400_000,
        "C": now_ms,
        "F": day.first_trade_id,
        "L": day.last_trade_id,
        "n": day.count,
    }
