"""Quote both sides around the microprice, wider when the market moves, and skip a bad market.

Check this file with `tandem plugin check FILE`, then name it in the configuration:

    [[instance]]
    name = "example-btc"
    plugin = "example"
    account = "paper"
    symbols = ["BTC-USDT"]
    params = { half_spread_bps = 5.0, size = "0.01" }
"""

from decimal import Decimal
from typing import Annotated

from msgspec import Meta

from host.api import BookTop, Fill, NonNegative, Params, Positive, Quote, State, Strategy


class ExampleParams(Params, frozen=True):
    """What an operator can set. Each field has a type and a default; bounds are checked by the host."""

    half_spread_bps: Positive = 5.0
    size: Decimal = Decimal("0.01")
    """Quantity of each side, in base units. Anything that becomes an order is Decimal."""
    skew_bps: NonNegative = 2.0
    """How far the whole quote leans against a position at its limit."""
    max_spread_bps: Annotated[float, Meta(gt=0, description="Quote nothing while the market is wider.")] = (
        50.0
    )


class ExampleState(State):
    """What survives restart, reload and failover: plain data, and a default for every field."""

    fills: int = 0


class Example(Strategy[ExampleParams]):
    """Quote both sides around the microprice, leaning against inventory."""

    state: ExampleState

    def on_start(self) -> None:
        """Say so; `ctx`, `params` and a restored `state` are in place here, and not in `__init__`."""
        self.ctx.log.info("quoting %s after %d fills", ", ".join(self.ctx.symbols), self.state.fills)

    def on_book(self, book: BookTop) -> None:
        """Restate the wanted quotes; the host sends only what differs from the orders in the market."""
        params = self.params
        if book.spread > params.max_spread_bps * 1e-4 * book.mid:
            self.quote(book.symbol)  # no quotes: pull what is there
            return
        lean = params.skew_bps * 1e-4 * self.inventory_ratio(book.symbol)
        self.quote(
            book.symbol, Quote.around(book.microprice * (1 - lean), params.half_spread_bps, params.size)
        )

    def on_fill(self, fill: Fill) -> None:
        """Count; the position already includes this fill."""
        self.state.fills += 1
