"""A muted strategy: it is fed real events, and what it wants is written down instead of traded.

Warm-up and rollback replay are this one mechanism.
"""

from collections.abc import Iterable, Sequence
from typing import Any, Final

from msgspec import Struct

from host.api import (
    BookTop,
    Candle,
    Depth,
    Fill,
    Instrument,
    Order,
    OrderRequest,
    Position,
    Quote,
    Strategy,
    Ticker,
    Trade,
)
from host.runtime.history import OwnEvent, TimerFired
from host.runtime.instance import Instance

__all__ = ["Intent", "Shadow", "compare"]


class Intent(Struct, frozen=True):
    """What a strategy wanted at one event: quotes, an order, a cancel."""

    at: int
    action: str
    symbol: str
    what: Any


class Shadow:
    """Stands in for an instance (`StrategyContext`) while its strategy runs muted."""

    def __init__(self, instance: Instance) -> None:
        self.instance = instance.instance
        self.account = instance.account
        self.symbols = instance.symbols
        self.log = instance.log
        self.intents: list[Intent] = []
        self.timers: dict[str, tuple[int, int]] = {}
        self._instance: Final = instance
        self._now_ns = instance.now_ns()
        self._tops: dict[str, BookTop] = {}
        self._at = 0
        self._orders = 0

    # -- feeding ---------------------------------------------------------------------------------

    def run(self, strategy: Strategy[Any], events: Iterable[Any]) -> None:
        """Hand events to the strategy, in order; whatever it raises comes out of here."""
        for event in events:
            self._at += 1
            if isinstance(event, OwnEvent):
                if event.instance == self.instance:
                    self._hand_over_own(strategy, event.event)
            elif event.symbol in self.symbols:
                self._now_ns = event.ts_recv or self._now_ns
                self._hand_over(strategy, event)

    def _hand_over(self, strategy: Strategy[Any], event: BookTop | Trade | Depth | Ticker) -> None:
        if isinstance(event, BookTop):
            self._tops[event.symbol] = event
            strategy.on_book(event)
        elif isinstance(event, Trade):
            strategy.on_trade(event)
        elif isinstance(event, Depth):
            strategy.on_depth(event)
        else:
            strategy.on_ticker(event)

    def _hand_over_own(self, strategy: Strategy[Any], event: Order | Fill | TimerFired | Candle) -> None:
        if isinstance(event, Fill):
            self._now_ns = max(self._now_ns, event.ts_ns)
            strategy.on_fill(event)
        elif isinstance(event, Order):
            strategy.on_order(event)
        elif isinstance(event, Candle):
            strategy.on_candle(event)
        else:
            self._now_ns = max(self._now_ns, event.ts_ns)
            strategy.on_timer(event.name)

    # -- StrategyContext -------------------------------------------------------------------------

    def now_ns(self) -> int:
        """Return the time of the event being replayed."""
        return self._now_ns

    def instrument(self, symbol: str) -> Instrument:
        """Return what the venue allows for `symbol`."""
        return self._instance.instrument(symbol)

    def book(self, symbol: str) -> BookTop | None:
        """Return the top of book as replayed so far, or else the present one."""
        return self._tops.get(symbol) or self._instance.book(symbol)

    def position(self, symbol: str) -> Position:
        """Return the instance's present position: a replay does not unmake fills."""
        return self._instance.position(symbol)

    def inventory_ratio(self, symbol: str) -> float:
        """Return the instance's present inventory ratio."""
        return self._instance.inventory_ratio(symbol)

    def open_orders(self, symbol: str | None = None) -> list[Order]:
        """Return the instance's present open orders."""
        return self._instance.open_orders(symbol)

    def quote(self, symbol: str, quotes: Sequence[Quote]) -> None:
        """Write the wanted quotes down."""
        self.intents.append(Intent(self._at, "quote", symbol, tuple(quotes)))

    def place(self, request: OrderRequest) -> str:
        """Write the order down and return an id that no venue knows."""
        self._orders += 1
        self.intents.append(Intent(self._at, "place", request.symbol, request))
        return f"muted{self._orders}"

    def cancel(self, client_id: str) -> None:
        """Write the cancel down."""
        self.intents.append(Intent(self._at, "cancel", "", client_id))

    def set_timer(self, name: str, every_s: float) -> None:
        """Remember the timer: it is the instance's once this strategy is."""
        if every_s <= 0:
            raise ValueError(f"timer {name!r}: every_s must be above 0, was {every_s}")
        every_ns = int(every_s * 1e9)
        self.timers[name] = (self._now_ns + every_ns, every_ns)

    def cancel_timer(self, name: str) -> None:
        """Forget the timer."""
        self.timers.pop(name, None)

    def latest_quotes(self) -> dict[str, Sequence[Quote]]:
        """Return what is wanted at the end of the replay, for each symbol that was quoted."""
        return {intent.symbol: intent.what for intent in self.intents if intent.action == "quote"}


def compare(old: Sequence[Intent], new: Sequence[Intent]) -> str:
    """Say in words how two runs over the same events differ."""
    if old == new:
        return f"the same {len(new)} intents as the version that runs"
    if len(old) == len(new):
        differing = sum(a != b for a, b in zip(old, new, strict=True))
        first_old, first_new = next((a, b) for a, b in zip(old, new, strict=True) if a != b)
        return f"{differing} of {len(new)} intents differ; the first: {_words(first_old)}, now {_words(first_new)}"
    return f"{len(new)} intents, the version that runs has {len(old)}"


def _words(intent: Intent) -> str:
    if intent.action == "quote" and intent.what:
        quote = intent.what[0]
        return f"quote {intent.symbol} {quote.bid}/{quote.ask}"
    return f"{intent.action} {intent.symbol}".rstrip()
