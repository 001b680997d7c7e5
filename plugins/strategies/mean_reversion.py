"""A taker that fades moves: sells when the mid is far above its mean, buys when far below."""

from decimal import Decimal
from math import exp, log, sqrt
from typing import Annotated

from msgspec import Meta, Struct, field

from host.api import (
    BookTop,
    NonNegative,
    OrderRefused,
    Params,
    Positive,
    Seconds,
    State,
    Strategy,
    TimeInForce,
)


class MeanReversionParams(Params, frozen=True):
    """Parameters of `MeanReversion`."""

    size: Annotated[Decimal, Meta(description="Position taken against a move, in base units; above 0.")] = (
        Decimal("0.01")
    )
    half_life_s: Annotated[
        Seconds, Meta(description="Half-life of mean and deviation; two of them are the warm-up.")
    ] = 60.0
    entry_z: Annotated[Positive, Meta(description="Deviations from the mean that open a position.")] = 2.5
    exit_z: Annotated[NonNegative, Meta(description="Deviations from the mean that close it.")] = 0.5
    cooldown_s: Annotated[Seconds, Meta(description="Shortest time between two orders in a symbol.")] = 5.0
    long_only: Annotated[bool, Meta(description="Never sell short, as on a spot account.")] = False

    def __post_init__(self) -> None:
        if self.size <= 0:
            raise ValueError(f"size must be above 0, was {self.size}")
        if self.exit_z >= self.entry_z:
            raise ValueError(f"exit_z must be below entry_z ({self.entry_z}), was {self.exit_z}")


class Estimate(Struct):
    """Mean and variance of one symbol's mid."""

    mean: float
    started_ns: int
    updated_ns: int
    variance: float = 0.0
    next_order_ns: int = 0


class MeanReversionState(State):
    """The estimates of each symbol, and how many orders the host refused."""

    estimates: dict[str, Estimate] = field(default_factory=dict)
    refused: int = 0


class MeanReversion(Strategy[MeanReversionParams]):
    """Enter against a move of `entry_z` standard deviations, leave within `exit_z` of the mean.

    Orders are immediate-or-cancel at the far touch: they take what is offered there and leave
    nothing behind.
    """

    state: MeanReversionState

    def on_book(self, book: BookTop) -> None:
        """Score the mid, trade towards the position that the score asks for, then learn from it."""
        estimate = self.state.estimates.get(book.symbol)
        if estimate is None:
            estimate = self.state.estimates[book.symbol] = Estimate(book.mid, book.ts_recv, book.ts_recv)
        # The score comes first: a move that is already in the mean looks smaller than it was. The
        # variance starts at 0, so before two half-lives every score would be far too large.
        warm_up_ns = 2 * self.params.half_life_s * 1e9
        if estimate.variance > 0 and book.ts_recv - estimate.started_ns >= warm_up_ns:
            held = self.position(book.symbol).qty
            wanted = self._wanted(held, (book.mid - estimate.mean) / sqrt(estimate.variance))
            if wanted != held:
                self._trade(book, estimate, wanted - held)
        self._learn(estimate, book)

    def _learn(self, estimate: Estimate, book: BookTop) -> None:
        """Update by Finch, "Incremental calculation of weighted mean and variance" (2009), section 9."""
        elapsed = max(0, book.ts_recv - estimate.updated_ns) * 1e-9
        alpha = 1 - exp(-log(2) * elapsed / self.params.half_life_s)
        difference = book.mid - estimate.mean
        estimate.mean += alpha * difference
        estimate.variance = (1 - alpha) * (estimate.variance + alpha * difference * difference)
        estimate.updated_ns = max(estimate.updated_ns, book.ts_recv)

    def _wanted(self, held: Decimal, z: float) -> Decimal:
        p = self.params
        if z <= -p.entry_z:
            return p.size
        if z >= p.entry_z:
            return Decimal(0) if p.long_only else -p.size
        return Decimal(0) if abs(z) <= p.exit_z else held

    def _trade(self, book: BookTop, estimate: Estimate, change: Decimal) -> None:
        now = self.ctx.now_ns()
        # The host's list is the truth about orders in flight: it also knows of one sent before a
        # restart whose fate is still being asked for.
        if now < estimate.next_order_ns or self.ctx.open_orders(book.symbol):
            return
        instrument = self.ctx.instrument(book.symbol)
        qty = instrument.qty_floor(abs(change))
        if not qty:
            return
        estimate.next_order_ns = now + int(self.params.cooldown_s * 1e9)
        try:
            if change > 0:
                price = instrument.price_ceil(book.ask)
                self.buy_limit(book.symbol, qty, price, time_in_force=TimeInForce.IOC)
            else:
                price = instrument.price_floor(book.bid)
                self.sell_limit(book.symbol, qty, price, time_in_force=TimeInForce.IOC)
        except OrderRefused:
            self.state.refused += 1  # the host journals the reason; try again after the cooldown
