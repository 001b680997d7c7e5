"""The base class of strategies and what the host offers them."""

import inspect
import logging
from collections.abc import Sequence
from decimal import Decimal
from typing import Any, ClassVar, Generic, Protocol, TypeVar, get_type_hints

from host.api.account import Position
from host.api.market import BookTop, Candle, Depth, Instrument, Ticker, Trade
from host.api.orders import Fill, Order, OrderRequest, OrderType, Quote, Side, TimeInForce
from host.api.params import NoParams, NoState, Params, State, adopt_params_type

__all__ = ["Strategy", "StrategyContext"]

P = TypeVar("P", bound=Params)


class StrategyContext(Protocol):
    """The host's side of a strategy. Every order passes risk checks, the journal and the gate."""

    instance: str
    account: str
    symbols: tuple[str, ...]
    log: logging.LoggerAdapter[logging.Logger]

    def now_ns(self) -> int:
        """Return the host's time: nanoseconds since the Unix epoch; replayed time in a replay."""

    def instrument(self, symbol: str) -> Instrument:
        """Return what the venue allows for `symbol`."""

    def book(self, symbol: str) -> BookTop | None:
        """Return the latest top of book, or None before the first one."""

    def position(self, symbol: str) -> Position:
        """Return what this instance's own fills built up in `symbol`."""

    def inventory_ratio(self, symbol: str) -> float:
        """Return position / position limit, −1 to 1 (0 where no limit is configured)."""

    def open_orders(self, symbol: str | None = None) -> list[Order]:
        """Return this instance's orders that may still trade."""

    def quote(self, symbol: str, quotes: Sequence[Quote]) -> None:
        """State the wanted quotes, best level first; an empty sequence pulls them."""

    def place(self, request: OrderRequest) -> str:
        """Send one order and return its client order id; raise `OrderRefused` if it may not go."""

    def cancel(self, client_id: str) -> None:
        """Ask the venue to cancel one order; no effect on an order that is already done."""

    def set_timer(self, name: str, every_s: float) -> None:
        """Call `on_timer(name)` every `every_s` seconds until `cancel_timer`."""

    def cancel_timer(self, name: str) -> None:
        """Stop the timer; no effect when it is not set."""


class Strategy(Generic[P]):
    """Reacts to market data and account events; states quotes or sends orders.

    Callbacks run one at a time on the host's event loop and must not block. An exception
    quarantines the instance and pulls its orders; other instances do not notice. `state` is saved
    by the host and given back after restart, reload and failover: annotate it with a `State`
    subclass. Everything else on `self` is lost then.
    """

    params_type: ClassVar[type[Params]] = NoParams
    state_type: ClassVar[type[State]] = NoState
    candle_seconds: ClassVar[int] = 60
    """Length of the candles that `on_candle` receives."""

    params: P
    state: State
    ctx: StrategyContext

    def __init__(self, params: P) -> None:
        self.params = params
        self.state = self.state_type()

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        adopt_params_type(cls)
        if "state" in inspect.get_annotations(cls):
            cls.state_type = get_type_hints(cls)["state"]

    # -- callbacks, all optional -----------------------------------------------------------------

    def on_start(self) -> None:
        """Run once, after `ctx`, `params` and a restored `state` are set and before any event."""

    def on_stop(self) -> None:
        """Run once before the instance stops; its quotes are pulled afterwards."""

    def on_params(self, old: P) -> None:
        """Run after `params` changed; `old` is what they were."""

    def on_book(self, book: BookTop) -> None:
        """Handle a new best bid and ask."""

    def on_depth(self, depth: Depth) -> None:
        """Handle a book change that the host has applied without a gap."""

    def on_trade(self, trade: Trade) -> None:
        """Handle a public trade."""

    def on_ticker(self, ticker: Ticker) -> None:
        """Handle the venue's 24-hour summary."""

    def on_candle(self, candle: Candle) -> None:
        """Handle a completed candle of `candle_seconds`."""

    def on_order(self, order: Order) -> None:
        """Handle a change of one of this instance's orders. Read it; do not keep or change it."""

    def on_fill(self, fill: Fill) -> None:
        """Handle an execution of one of this instance's orders; the position already counts it."""

    def on_timer(self, name: str) -> None:
        """Handle a timer set with `ctx.set_timer`."""

    def on_takeover(self) -> None:
        """Run after this node took over order flow and reconciled, before the gate opens."""

    # -- what a strategy can do ------------------------------------------------------------------

    def quote(self, symbol: str, *quotes: Quote) -> None:
        """Want these quotes in the market, best level first; with none, pull this symbol's quotes.

        The OMS sends the fewest amends, cancels and orders that get there.
        """
        self.ctx.quote(symbol, quotes)

    def buy_limit(
        self,
        symbol: str,
        qty: Decimal,
        price: Decimal,
        *,
        time_in_force: TimeInForce = TimeInForce.GTC,
        post_only: bool = False,
        reduce_only: bool = False,
    ) -> str:
        """Buy `qty` at `price` or better and return the client order id; raise `OrderRefused`."""
        return self._limit(Side.BUY, symbol, qty, price, time_in_force, post_only, reduce_only)

    def sell_limit(
        self,
        symbol: str,
        qty: Decimal,
        price: Decimal,
        *,
        time_in_force: TimeInForce = TimeInForce.GTC,
        post_only: bool = False,
        reduce_only: bool = False,
    ) -> str:
        """Sell `qty` at `price` or better and return the client order id; raise `OrderRefused`."""
        return self._limit(Side.SELL, symbol, qty, price, time_in_force, post_only, reduce_only)

    def buy_market(self, symbol: str, qty: Decimal, *, reduce_only: bool = False) -> str:
        """Buy `qty` at once and return the client order id; raise `OrderRefused`."""
        return self._market(Side.BUY, symbol, qty, reduce_only)

    def sell_market(self, symbol: str, qty: Decimal, *, reduce_only: bool = False) -> str:
        """Sell `qty` at once and return the client order id; raise `OrderRefused`."""
        return self._market(Side.SELL, symbol, qty, reduce_only)

    def cancel_order(self, client_id: str) -> None:
        """Ask the venue to cancel one of this instance's orders."""
        self.ctx.cancel(client_id)

    def position(self, symbol: str) -> Position:
        """Return what this instance holds in `symbol`."""
        return self.ctx.position(symbol)

    def inventory_ratio(self, symbol: str) -> float:
        """Return position / position limit in `symbol`, −1 to 1."""
        return self.ctx.inventory_ratio(symbol)

    def _limit(
        self,
        side: Side,
        symbol: str,
        qty: Decimal,
        price: Decimal,
        time_in_force: TimeInForce,
        post_only: bool,
        reduce_only: bool,
    ) -> str:
        return self.ctx.place(
            OrderRequest(
                symbol=symbol,
                side=side,
                qty=qty,
                price=price,
                time_in_force=time_in_force,
                post_only=post_only,
                reduce_only=reduce_only,
            )
        )

    def _market(self, side: Side, symbol: str, qty: Decimal, reduce_only: bool) -> str:
        return self.ctx.place(
            OrderRequest(
                symbol=symbol,
                side=side,
                qty=qty,
                type=OrderType.MARKET,
                time_in_force=TimeInForce.IOC,
                reduce_only=reduce_only,
            )
        )
