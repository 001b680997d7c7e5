"""One running strategy and the host's side of it (`StrategyContext`)."""

import logging
from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from msgspec import Struct

from host.api import (
    BookTop,
    Candle,
    Instrument,
    Order,
    OrderRefused,
    OrderRequest,
    Params,
    Position,
    Quote,
    Strategy,
)
from host.core.carried import StateNotCarried, carry_state, encode_state
from host.core.channel import Channel
from host.core.entries import InstanceState
from host.runtime.candles import CandleMaker
from host.runtime.feed import SymbolFeed
from host.runtime.history import EventHistory
from host.runtime.models import ModelStage
from host.runtime.remote import RemoteStrategy

if TYPE_CHECKING:
    from host.runtime.engine import Engine
    from host.runtime.reload.fallback import Fallback
    from host.runtime.reload.probation import Baseline, Probation
    from host.runtime.reload.shadow import Shadow

__all__ = ["SECOND_NS", "Checkpoint", "Instance", "StateNotCarried", "carry_state", "encode_state"]

LOGGER: Final = "tandem.strategy"
"""Above the loggers of all strategies: each has its own, `tandem.strategy.NAME`, so that a line says whose it is."""


class Checkpoint(Struct, frozen=True):
    """A strategy at one moment: where a warm-up starts from."""

    sequence: int
    """Place in the account's history."""
    state_version: int
    state: bytes
    commands: int = 0
    """Orders and amends that the instance had sent by then."""
    refusals: int = 0


class Instance:
    """A named, configured, running copy of a strategy class.

    Only a RUNNING instance's wishes reach the OMS; in every other state its quotes are ignored and
    its orders refused, so that a paused, starting or replayed strategy cannot trade.
    """

    def __init__(
        self,
        engine: "Engine",
        name: str,
        account: str,
        symbols: Sequence[str],
        strategy: Strategy[Any],
        models: Sequence[ModelStage],
    ) -> None:
        self.instance = name
        self.account = account
        self.symbols = tuple(symbols)
        self.strategy = strategy
        """The version that runs; a reload replaces it between two events."""
        self.models = tuple(models)
        self.state = InstanceState.LOADED
        self.is_trading = False
        """Whether it runs and its account is in touch, kept beside `state` because every quote asks."""
        self.hears_market = True
        """Whether market data calls its strategy, as its schedule says."""
        self.log = logging.LoggerAdapter(logging.getLogger(f"{LOGGER}.{name}"), {"instance": name})
        self.channels: dict[str, Channel] = {}
        self.feeds: dict[str, SymbolFeed] = {}
        self.timers: dict[str, tuple[int, int]] = {}
        """(next due, every), both in ns, by name."""
        self.candle_makers: dict[str, CandleMaker] = {}
        self.saved_state = b""
        self.checkpoints: deque[Checkpoint] = deque(maxlen=2)
        """Its state at two recent places in the account's history."""
        self.probation: Probation | None = None
        """What watches a version that has just gone live."""
        self.fallback: Fallback | None = None
        """What a version on probation is rolled back to."""
        self.baseline: Baseline | None = None
        """What the present version did on its own probation."""
        self.shadow: Shadow | None = None
        """What its strategy runs in while this node is a standby."""
        self.unheard_refusals: dict[str, Order] = {}
        """Orders of a strategy in another process that were refused, by client id, until it has handled that."""
        self._engine: Final = engine
        strategy.ctx = self

    # -- StrategyContext -------------------------------------------------------------------------

    def now_ns(self) -> int:
        """Return the host's time."""
        return self._engine.clock.now_ns()

    def instrument(self, symbol: str) -> Instrument:
        """Return what the venue allows for `symbol`."""
        if symbol in self.symbols and symbol not in self.channels:  # a standby's, which trades nothing yet
            return self._engine.state.instruments[self.account][symbol]
        return self._channel(symbol).instrument

    def book(self, symbol: str) -> BookTop | None:
        """Return the latest top of book that can be trusted."""
        book = self.feeds[symbol].book
        return None if book.top_fault else book.top

    def position(self, symbol: str) -> Position:
        """Return what this instance's own fills built up in `symbol`."""
        return self._engine.state.position(self.instance, symbol)

    def inventory_ratio(self, symbol: str) -> float:
        """Return position / position limit, −1 to 1 (0 where no limit is configured)."""
        try:
            return self.channels[symbol].risk.inventory_ratio
        except KeyError:
            if symbol not in self.symbols:
                raise self._unknown(symbol) from None
            return self._engine.risk.lane(
                self.instance, self.account, self.instrument(symbol)
            ).inventory_ratio

    def open_orders(self, symbol: str | None = None) -> list[Order]:
        """Return this instance's orders that may still trade."""
        return [
            order
            for order in self._engine.state.orders.values()
            if order.instance == self.instance and symbol in (None, order.symbol)
        ]

    def quote(self, symbol: str, quotes: Sequence[Quote]) -> None:
        """State the wanted quotes, best level first; an empty sequence pulls them."""
        if not self.is_trading:
            return
        try:
            channel = self.channels[symbol]
        except KeyError:
            raise self._unknown(symbol) from None
        feed = self.feeds[symbol]
        book = feed.book
        top = None if book.top_fault else book.top
        models = self.models
        engine = self._engine
        if models and quotes:
            maker = feed.features
            assert maker is not None  # made together with the models' instance
            features = maker.features(channel.risk.inventory_ratio)
            if len(quotes) == 1:
                quote = quotes[0]
                for model in models:
                    quote = model.adjust(features, quote)
                engine.oms.quoter.set_quote(channel, quote, top, engine.now_ns)
                return
            adjusted = []
            for quote in quotes:
                for model in models:
                    quote = model.adjust(features, quote)  # noqa: PLW2901 - each model sees the last one's
                adjusted.append(quote)
            quotes = adjusted
        if len(quotes) == 1:
            engine.oms.quoter.set_quote(channel, quotes[0], top, engine.now_ns)
        else:
            engine.oms.quoter.set_quotes(channel, quotes, top, engine.now_ns)

    def place(self, request: OrderRequest, client_id: str = "") -> str:
        """Send one order and return its client order id; raise `OrderRefused` if it may not go.

        `client_id` is one that was reserved for it; empty: it gets the next.
        """
        if not self.is_trading:
            if self.state is InstanceState.RUNNING:
                why = self._engine.standing_back
                if why:
                    raise OrderRefused("STANDING_BACK", f"no instance may trade for now: {why}")
                raise OrderRefused("NOT_CONNECTED", f"account {self.account} is not in touch with its venue")
            raise OrderRefused("NOT_RUNNING", f"instance {self.instance} is {self.state}, not running")
        channel = self._channel(request.symbol)
        engine = self._engine
        now_ns = engine.clock.now_ns()
        return engine.oms.place(channel, request, self.book(request.symbol), now_ns, client_id=client_id)

    def cancel(self, client_id: str) -> None:
        """Ask the venue to cancel one of this instance's orders."""
        order = self._engine.state.orders.get(client_id)
        if order is not None and order.instance != self.instance:
            raise OrderRefused("NOT_YOURS", f"order {client_id} belongs to instance {order.instance}")
        self._engine.oms.outbox.cancel(client_id, "strategy", self._engine.clock.now_ns())

    def set_timer(self, name: str, every_s: float) -> None:
        """Call `on_timer(name)` every `every_s` seconds until `cancel_timer`."""
        if every_s <= 0:
            raise ValueError(f"timer {name!r}: every_s must be above 0, was {every_s}")
        every_ns = max(int(every_s * 1e9), 1)
        self.timers[name] = (self.now_ns() + every_ns, every_ns)

    def cancel_timer(self, name: str) -> None:
        """Stop the timer; no effect when it is not set."""
        self.timers.pop(name, None)

    # -- for the engine --------------------------------------------------------------------------

    def overrides(self, callback: str) -> bool:
        """Return whether the strategy's class defines `callback` itself."""
        return getattr(type(self.strategy), callback) is not getattr(Strategy, callback)

    def run_timers(self, now_ns: int) -> None:
        """Call the timers that are due; a late one is called once, not once per missed time."""
        for name, (due_ns, every_ns) in list(self.timers.items()):
            if now_ns >= due_ns and name in self.timers:  # another timer may have cancelled it
                late_ns = (now_ns - due_ns) % every_ns
                self.timers[name] = (now_ns - late_ns + every_ns, every_ns)
                self.strategy.on_timer(name)

    def next_timer_ns(self) -> int | None:
        """Return when the next timer is due."""
        return min((due_ns for due_ns, _ in self.timers.values()), default=None)

    @property
    def account_history(self) -> EventHistory:
        """Return what the strategies of this account were handed lately."""
        return self._engine.feeds[self.account].history

    def checkpoint(self) -> Checkpoint:
        """Return its present state together with the present place in the history.

        Raises whatever a state that is no plain data raises.
        """
        return Checkpoint(
            self.account_history.sequence,
            self.strategy.state_type.state_version,
            self.encode_state(),
            *self.counts(),
        )

    def counts(self) -> tuple[int, int]:
        """Return how many orders and amends it has sent and how many of its wishes were refused, ever."""
        channels = self.channels.values()
        return sum(c.commands for c in channels), sum(c.refusals for c in channels)

    def takes(self, candle: Candle) -> bool:
        """Return whether the present strategy asks for candles of this length."""
        return self.overrides("on_candle") and candle.interval_ns == self.strategy.candle_seconds * SECOND_NS

    def encode_state(self) -> bytes:
        """Return the strategy's state as msgpack of plain data."""
        return encode_state(self.strategy)

    def restore_state(self, version: int, data: bytes) -> None:
        """Give the strategy a saved state, upgraded step by step; raise `StateNotCarried`."""
        if not data:
            return
        if isinstance(self.strategy, RemoteStrategy):
            self.strategy.restore(version, data)
        else:
            self.strategy.state = carry_state(self.strategy.state_type, version, data, self.instance)
        self.saved_state = data

    def set_params(self, params: Params) -> None:
        """Change the parameters between two events and tell the strategy."""
        old = self.strategy.params
        self.strategy.params = params
        self.strategy.on_params(old)

    def _channel(self, symbol: str) -> Channel:
        channel = self.channels.get(symbol)
        if channel is None:
            raise self._unknown(symbol)
        return channel

    def _unknown(self, symbol: str) -> OrderRefused:
        known = ", ".join(self.symbols)
        return OrderRefused(
            "UNKNOWN_SYMBOL", f"instance {self.instance} trades {known}, was asked for {symbol}"
        )


SECOND_NS: Final = 1_000_000_000
