"""Two nodes look at one market: do they see the same?

The primary sends its best prices now and then, and the standby looks for them among those that it had lately
itself. Prices on their way differ for moments; a difference that stays means that one of the two has a wrong
book, and nobody can tell here which: it is reported, and a standby that differs is second choice.
"""

from collections.abc import Iterator
from typing import Final

from failover.replication.events import MarketSeen, SeenTop
from host.runtime.engine import Engine

__all__ = ["MarketComparison", "seen_by"]

TOLERANCE: Final = 1e-3
"""How far, as a share of the price, the other node's prices may be beyond all that this one saw lately: 10 bps,
several times the spread of a liquid market, for a sample is up to a second old."""
SAMPLES_IN_A_ROW: Final = 5
"""So many samples must differ, about as many seconds, before it is said."""


def seen_by(engine: Engine) -> Iterator[SeenTop]:
    """Return the best prices of every book that this node trusts."""
    for account, feed in engine.feeds.items():
        for symbol, symbol_feed in feed.symbols.items():
            top = symbol_feed.book.top
            if top is not None and not symbol_feed.book.top_fault:
                yield SeenTop(account, symbol, top.bid, top.ask)


class MarketComparison:
    """Compares what the primary sees with what `engine`, a standby's, saw lately."""

    def __init__(self, engine: Engine) -> None:
        self._engine: Final = engine
        self._in_a_row: dict[tuple[str, str], int] = {}
        self.differences: dict[tuple[str, str], str] = {}
        """By account and symbol, in words: what differs, and has for a while."""

    def take(self, seen: MarketSeen) -> list[str]:
        """Take in a sample; return what is new to be said.

        What one of the nodes does not trust any more, or has no prices of, is not compared, and no difference.
        """
        news = []
        texts = {(theirs.account, theirs.symbol): self._difference(theirs) for theirs in seen.tops}
        self._forget({key for key, text in texts.items() if text is not None})
        for theirs in seen.tops:
            key = (theirs.account, theirs.symbol)
            text = texts[key]
            if not text:
                self._in_a_row.pop(key, None)
                if self.differences.pop(key, None) is not None:
                    news.append(f"{theirs.account} {theirs.symbol}: both nodes see the same prices again")
                continue
            self._in_a_row[key] = self._in_a_row.get(key, 0) + 1
            if self._in_a_row[key] == SAMPLES_IN_A_ROW:
                self.differences[key] = text
                news.append(text)
        return news

    @property
    def ailments(self) -> frozenset[str]:
        """Return a stable word for each account on which the nodes differ."""
        return frozenset(f"market_differs:{account}" for account, _ in self.differences)

    def _forget(self, compared: set[tuple[str, str]]) -> None:
        """Keep only what concerns prices that can be compared now."""
        self._in_a_row = {key: count for key, count in self._in_a_row.items() if key in compared}
        self.differences = {key: text for key, text in self.differences.items() if key in compared}

    def _difference(self, theirs: SeenTop) -> str | None:
        """Return what differs, in words, empty for nothing; None where there is nothing to compare with."""
        feed = self._engine.feeds.get(theirs.account)
        symbol = None if feed is None else feed.symbols.get(theirs.symbol)
        if symbol is None or symbol.book.top is None or symbol.book.top_fault:
            return None  # this node's own trouble, which is an ailment of another name
        ours = [*symbol.quotes, symbol.book.top]
        for what, price, seen in (
            ("bid", theirs.bid, [quote.bid for quote in ours]),
            ("ask", theirs.ask, [quote.ask for quote in ours]),
        ):
            low, high = min(seen) * (1 - TOLERANCE), max(seen) * (1 + TOLERANCE)
            if not low <= price <= high:
                return (
                    f"{theirs.account} {theirs.symbol}: the primary's best {what} is {price:g}, this node's "
                    f"were {min(seen):g} to {max(seen):g} lately"
                )
        return ""
