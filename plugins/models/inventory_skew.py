"""A quote model that leans against inventory and widens in a fast market."""

from typing import Annotated

from msgspec import Meta

from host.api import Adjustment, Features, NonNegative, Params, Quote, QuoteModel


class InventorySkewParams(Params, frozen=True):
    """Parameters of `InventorySkew`."""

    skew_bps: Annotated[
        NonNegative,
        Meta(
            description="Shift of both prices at the full position limit.", extra_json_schema={"unit": "bps"}
        ),
    ] = 2.0
    widen_per_bps: Annotated[
        NonNegative, Meta(description="Added to the spread's scale per bps of one-second volatility.")
    ] = 0.1
    max_scale: Annotated[float, Meta(ge=1, description="Widest spread, as a multiple of the quoted one.")] = (
        3.0
    )


class InventorySkew(QuoteModel[InventorySkewParams]):
    """Shift both prices by −skew × inventory ratio and scale the spread with volatility.

    Long inventory lowers bid and ask, so that selling becomes likelier than buying. Both effects
    are those of Avellaneda and Stoikov, "High-frequency trading in a limit order book" (2008),
    where the reservation price falls in inventory and the spread grows with variance, here in a
    linear form whose two coefficients are set by hand.
    """

    def adjust(self, features: Features, quote: Quote) -> Adjustment:
        """Return the shift and the scale that inventory and volatility ask for."""
        p = self.params
        return Adjustment(
            shift_bps=-p.skew_bps * features.inventory_ratio,
            spread_scale=min(1.0 + p.widen_per_bps * features.volatility_bps, p.max_scale),
        )
