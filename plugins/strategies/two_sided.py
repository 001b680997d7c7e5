"""A market maker's first stage: quote both sides around the mid, lean against inventory."""

from decimal import Decimal
from typing import Annotated

from msgspec import Meta, structs

from host.api import BookTop, Fill, NonNegative, Params, Positive, Quote, Side, State, Strategy


class TwoSidedParams(Params, frozen=True):
    """Parameters of `TwoSided`."""

    half_spread_bps: Annotated[
        Positive, Meta(description="Distance of each quote from fair.", extra_json_schema={"unit": "bps"})
    ] = 5.0
    size: Annotated[Decimal, Meta(description="Quantity of each quote, in base units; above 0.")] = Decimal(
        "0.01"
    )
    skew_bps: Annotated[
        NonNegative,
        Meta(description="Shift of fair at the full position limit.", extra_json_schema={"unit": "bps"}),
    ] = 2.0

    def __post_init__(self) -> None:
        if self.size <= 0:
            raise ValueError(f"size must be above 0, was {self.size}")


class TwoSidedState(State):
    """What it has traded so far."""

    fills: int = 0
    traded_qty: Decimal = Decimal(0)
    """Bought minus sold over all symbols, in base units."""


class TwoSided(Strategy[TwoSidedParams]):
    """Quote both sides around the mid, leaning against inventory.

    Fair is the mid, lowered by up to `skew_bps` when long and raised when short, so that the quote
    which reduces the position is the one nearer the market. At the position limit the side that
    would add to it is pulled. Restating quotes on every book is free: the host sends nothing while
    the resting orders are within its tolerance.
    """

    state: TwoSidedState

    def on_book(self, book: BookTop) -> None:
        """Restate the quotes around the new mid."""
        p = self.params
        ratio = self.inventory_ratio(book.symbol)
        fair = book.mid * (1 - p.skew_bps * 1e-4 * ratio)
        quote = Quote.around(fair, p.half_spread_bps, p.size)
        if ratio >= 1.0:
            quote = structs.replace(quote, bid=None)
        elif ratio <= -1.0:
            quote = structs.replace(quote, ask=None)
        self.quote(book.symbol, quote)

    def on_fill(self, fill: Fill) -> None:
        """Count what was traded."""
        self.state.fills += 1
        self.state.traded_qty += fill.qty if fill.side is Side.BUY else -fill.qty
