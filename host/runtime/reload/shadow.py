"""A muted strategy: it is fed real events, and what it wants is written down instead of traded.

Warm-up, the version kept for a rollback and its catching up are this one mechanism.
"""

import logging
from collections.abc import Callable, Iterable, Sequence
from time import perf_counter_ns
from typing import Any, Final

from msgspec import Struct

from host.api import (
    BookTop,
    Candle,
    Depth,
    Fill,
    Instrument,
    MarketEvent,
    Order,
    OrderRequest,
    OrderStatus,
    Position,
    Quote,
    Strategy,
    Ticker,
    Trade,
)
from host.runtime.history import Due, OwnEvent
from host.runtime.instance import SECOND_NS, Instance
from host.runtime.reload.probation import Baseline

__all__ = ["Intent", "Shadow", "time_of"]

_CALLBACKS: Final = {
    BookTop: "on_book",
    Depth: "on_depth",
    Trade: "on_trade",
    Ticker: "on_ticker",
    Fill: "on_fill",
    Order: "on_order",
    Candle: "on_candle",
}


class Intent(Struct, frozen=True):
    """What a strategy wanted at one event: quotes, an order, a cancel."""

    at: int
    action: str
    symbol: str
    what: Any


class Shadow:
    """Stands in for an instance (`StrategyContext`) while its strategy runs muted.

    Time is that of the events fed. Timers are the strategy's own and fire by that time. Positions
    and open orders are the instance's present ones: muting does not unmake fills.
    """

    def __init__(
        self,
        instance: Instance,
        strategy: Strategy[Any],
        now_ns: int,
        stopwatch_ns: Callable[[], int],
        *,
        timers: dict[str, tuple[int, int]] | None = None,
        keeps_intents: bool = True,
    ) -> None:
        self.instance = instance.instance
        self.account = instance.account
        self.symbols = instance.symbols
        self.log = logging.LoggerAdapter(instance.log.logger.getChild("muted"), instance.log.extra)
        """Its own, for what it logs is not what is traded on."""
        self.intents: list[Intent] = []
        self.quotes: dict[str, tuple[Quote, ...]] = {}
        """What it wants by now, for each symbol that it ever quoted."""
        self.timers: dict[str, tuple[int, int]] = dict(timers or {})
        """(next due, every), both in ns, by name."""
        self.counted = Baseline()
        self.strategy: Final = strategy
        self._instance: Final = instance
        self._stopwatch_ns = stopwatch_ns
        self._keeps_intents = keeps_intents
        self._now_ns = now_ns
        self._tops: dict[str, BookTop] = {}
        self._at = 0
        self._muted_orders: dict[str, OrderRequest] = {}
        self._orders = 0
        self._handlers: dict[type[Any], Callable[[Any], None]] = {
            kind: getattr(strategy, name)
            for kind, name in _CALLBACKS.items()
            if getattr(type(strategy), name) is not getattr(Strategy, name)
        }
        self._due_ns = self._next_due_ns()
        strategy.ctx = self

    # -- feeding: whatever the strategy raises comes out of these --------------------------------

    def start(self) -> None:
        """Run the strategy's `on_start`."""
        self.strategy.on_start()

    def run(self, events: Iterable[Any], slice_ns: int = 0) -> int:
        """Hand events over, in order, for `slice_ns` at most (0: all); return how many it were."""
        ends_ns = perf_counter_ns() + slice_ns
        taken = 0
        for event in events:
            self._take(event)
            taken += 1
            if slice_ns and perf_counter_ns() >= ends_ns:
                break
        return taken

    def advance(self, now_ns: int) -> None:
        """Let time pass: timers that are due by then fire, a late one once."""
        while self.timers and self._due_ns <= now_ns:
            name, (due_ns, every_ns) = min(self.timers.items(), key=lambda item: item[1][0])
            self._now_ns = max(self._now_ns, due_ns)
            late_ns = max(self._now_ns - due_ns, 0) % every_ns
            self.timers[name] = (self._now_ns - late_ns + every_ns, every_ns)
            self._due_ns = self._next_due_ns()
            self._call(self.strategy.on_timer, name)
        self._now_ns = max(self._now_ns, now_ns)

    def take_intents(self) -> list[Intent]:
        """Return what was wanted since this was last asked."""
        taken, self.intents = self.intents, []
        return taken

    def end(self) -> None:
        """Say of every muted order that it is gone, so that the strategy waits for none of them."""
        for client_id, request in list(self._muted_orders.items()):
            self._tell_cancelled(client_id, request)

    def _take(self, event: MarketEvent | OwnEvent) -> None:
        self._at += 1
        if isinstance(event, OwnEvent):
            if event.instance != self.instance:
                return
            own = event.event
            self.advance(event.ts_ns)
            if isinstance(own, Due):
                self._call(self.strategy.on_timer, own.trigger)
                return
            handle = self._handlers.get(type(own))
            if handle is not None and not (isinstance(own, Candle) and not self._takes(own)):
                self._call(handle, own)
        elif event.symbol in self.symbols:
            self.advance(event.ts_recv)
            if isinstance(event, BookTop):
                self._tops[event.symbol] = event
            handle = self._handlers.get(type(event))
            if handle is not None and self._instance.hears_market:
                self._call(handle, event)

    def _takes(self, candle: Candle) -> bool:
        return candle.interval_ns == self.strategy.candle_seconds * SECOND_NS

    def _call(self, handle: Callable[[Any], None], event: Any) -> None:
        started_ns = self._stopwatch_ns()
        handle(event)
        taken_ns = self._stopwatch_ns() - started_ns
        self.counted.events += not isinstance(event, Order | Fill)
        self.counted.handler_ns += taken_ns
        if taken_ns > self.counted.slowest_ns:
            self.counted.slowest_ns = taken_ns

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
        """Return the instance's present position."""
        return self._instance.position(symbol)

    def inventory_ratio(self, symbol: str) -> float:
        """Return the instance's present inventory ratio."""
        return self._instance.inventory_ratio(symbol)

    def open_orders(self, symbol: str | None = None) -> list[Order]:
        """Return the instance's present open orders."""
        return self._instance.open_orders(symbol)

    def quote(self, symbol: str, quotes: Sequence[Quote]) -> None:
        """Write the wanted quotes down."""
        wanted, before = tuple(quotes), self.quotes.get(symbol, ())
        if wanted != before:
            self.quotes[symbol] = wanted
            self.counted.commands += 2 * max(len(wanted), len(before))
        self._note("quote", symbol, wanted)

    def place(self, request: OrderRequest) -> str:
        """Write the order down and return an id that no venue knows."""
        self._orders += 1
        self.counted.commands += 1
        client_id = f"muted{self._orders}"
        self._muted_orders[client_id] = request
        self._note("place", request.symbol, request)
        return client_id

    def cancel(self, client_id: str) -> None:
        """Write the cancel down; a muted order is gone with it."""
        self._note("cancel", "", client_id)
        request = self._muted_orders.get(client_id)
        if request is not None:
            self._tell_cancelled(client_id, request)

    def set_timer(self, name: str, every_s: float) -> None:
        """Call `on_timer(name)` every `every_s` seconds; it is the instance's once this strategy is."""
        if every_s <= 0:
            raise ValueError(f"timer {name!r}: every_s must be above 0, was {every_s}")
        every_ns = max(int(every_s * 1e9), 1)
        self.timers[name] = (self._now_ns + every_ns, every_ns)
        self._due_ns = self._next_due_ns()

    def cancel_timer(self, name: str) -> None:
        """Forget the timer."""
        self.timers.pop(name, None)
        self._due_ns = self._next_due_ns()

    # -- inside ----------------------------------------------------------------------------------

    def _next_due_ns(self) -> int:
        return min((due_ns for due_ns, _ in self.timers.values()), default=0)

    def _note(self, action: str, symbol: str, what: Any) -> None:
        if self._keeps_intents:
            self.intents.append(Intent(self._at, action, symbol, what))

    def _tell_cancelled(self, client_id: str, request: OrderRequest) -> None:
        del self._muted_orders[client_id]
        handle = self._handlers.get(Order)
        if handle is not None:
            handle(_cancelled(client_id, request, self._instance, self._now_ns))


def time_of(event: MarketEvent | OwnEvent) -> int:
    """Return the host's time when an event was handed over."""
    return event.ts_ns if isinstance(event, OwnEvent) else event.ts_recv


def _cancelled(client_id: str, request: OrderRequest, instance: Instance, now_ns: int) -> Order:
    why = "muted: it never left the host"
    return request.as_order(
        client_id, instance.instance, instance.account, OrderStatus.CANCELLED, now_ns, why
    )
