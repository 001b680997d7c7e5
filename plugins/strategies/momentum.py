"""A taker that follows trends: long while the fast average of the mid is above the slow one."""

from decimal import Decimal
from math import exp, log
from typing import Annotated

from msgspec import Meta, Struct, field

from host.api import BookTop, NonNegative, OrderRefused, Params, Seconds, State, Strategy, TimeInForce


class MomentumParams(Params, frozen=True):
    """Parameters of `Momentum`."""

    size: Annotated[Decimal, Meta(description="Position held in a trend, in base units; above 0.")] = Decimal(
        "0.01"
    )
    fast_half_life_s: Annotated[Seconds, Meta(description="Half-life of the fast average.")] = 5.0
    slow_half_life_s: Annotated[
        Seconds, Meta(description="Half-life of the slow average; also how long to warm up.")
    ] = 30.0
    threshold_bps: Annotated[
        NonNegative,
        Meta(description="Fast over slow that opens a position.", extra_json_schema={"unit": "bps"}),
    ] = 2.0
    cooldown_s: Annotated[Seconds, Meta(description="Shortest time between two orders in a symbol.")] = 5.0
    long_only: Annotated[bool, Meta(description="Never sell short, as on a spot account.")] = False

    def __post_init__(self) -> None:
        if self.size <= 0:
            raise ValueError(f"size must be above 0, was {self.size}")
        if self.fast_half_life_s >= self.slow_half_life_s:
            raise ValueError(
                f"fast_half_life_s must be below slow_half_life_s ({self.slow_half_life_s}), "
                f"was {self.fast_half_life_s}"
            )


class Trend(Struct):
    """The averages of one symbol's mid."""

    fast: float
    slow: float
    started_ns: int
    updated_ns: int
    next_order_ns: int = 0


class MomentumState(State):
    """The trend of each symbol, and how many orders the host refused."""

    trends: dict[str, Trend] = field(default_factory=dict)
    refused: int = 0


class Momentum(Strategy[MomentumParams]):
    """Buy what rises, sell what falls, get out when the trend turns.

    A position opens when fast is `threshold_bps` away from slow and closes when they cross; between
    the two nothing happens, so it does not flip at the threshold. Orders are immediate-or-cancel
    at the far touch: they take what is offered there and leave nothing behind.
    """

    state: MomentumState

    def on_book(self, book: BookTop) -> None:
        """Update the averages and trade towards the position that they ask for."""
        trend = self._update(book)
        if trend.updated_ns - trend.started_ns < self.params.slow_half_life_s * 1e9:
            return
        held = self.position(book.symbol).qty
        wanted = self._wanted(held, (trend.fast - trend.slow) / trend.slow * 1e4)
        if wanted != held:
            self._trade(book, trend, wanted - held)

    def _update(self, book: BookTop) -> Trend:
        mid, now = book.mid, book.ts_recv
        trend = self.state.trends.get(book.symbol)
        if trend is None:
            trend = self.state.trends[book.symbol] = Trend(mid, mid, now, now)
        elapsed = max(0, now - trend.updated_ns) * 1e-9
        trend.fast += (1 - exp(-log(2) * elapsed / self.params.fast_half_life_s)) * (mid - trend.fast)
        trend.slow += (1 - exp(-log(2) * elapsed / self.params.slow_half_life_s)) * (mid - trend.slow)
        trend.updated_ns = max(trend.updated_ns, now)
        return trend

    def _wanted(self, held: Decimal, signal_bps: float) -> Decimal:
        p = self.params
        if signal_bps > p.threshold_bps:
            return p.size
        if signal_bps < -p.threshold_bps:
            return Decimal(0) if p.long_only else -p.size
        has_turned = (held > 0 and signal_bps < 0) or (held < 0 and signal_bps > 0)
        return Decimal(0) if has_turned else held

    def _trade(self, book: BookTop, trend: Trend, change: Decimal) -> None:
        now = self.ctx.now_ns()
        # The host's list is the truth about orders in flight: it also knows of one sent before a
        # restart whose fate is still being asked for.
        if now < trend.next_order_ns or self.ctx.open_orders(book.symbol):
            return
        instrument = self.ctx.instrument(book.symbol)
        qty = instrument.qty_floor(abs(change))
        if not qty:
            return
        trend.next_order_ns = now + int(self.params.cooldown_s * 1e9)
        try:
            if change > 0:
                price = instrument.price_ceil(book.ask)
                self.buy_limit(book.symbol, qty, price, time_in_force=TimeInForce.IOC)
            else:
                price = instrument.price_floor(book.bid)
                self.sell_limit(book.symbol, qty, price, time_in_force=TimeInForce.IOC)
        except OrderRefused:
            self.state.refused += 1  # the host journals the reason; try again after the cooldown
