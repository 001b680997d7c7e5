"""Two quotes that move with every tick: the most work that ticks can cause a market maker's host."""

from decimal import Decimal

from host.api import BookTop, Params, Positive, Quote, State, Strategy


class EveryTickParams(Params, frozen=True):
    """Parameters of `EveryTick`."""

    half_spread_bps: Positive = 5.0
    """Distance of the nearer quotes from the mid; far enough to be filled seldom."""
    size: Decimal = Decimal("0.01")


class EveryTickState(State):
    """Whether the farther quotes are the ones in the market."""

    is_far: bool = False


class EveryTick(Strategy[EveryTickParams]):
    """Quote at two distances in turn, so that next to no tick leaves an order where it was."""

    state: EveryTickState

    def on_book(self, book: BookTop) -> None:
        """Move both quotes."""
        quote = Quote.around(book.mid, self.params.half_spread_bps, self.params.size)
        self.state.is_far = not self.state.is_far
        if self.state.is_far and quote.bid is not None and quote.ask is not None:
            step = 2 * float(self.ctx.instrument(book.symbol).tick_size)
            quote = Quote(quote.bid - step, quote.bid_qty, quote.ask + step, quote.ask_qty)
        self.quote(book.symbol, quote)
