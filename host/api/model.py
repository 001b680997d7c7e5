"""Quote models: from features of the market to an adjustment of a quote."""

from typing import Any, ClassVar, Generic, TypeVar

from msgspec import Struct

from host.api.orders import Quote
from host.api.params import NoParams, Params, adopt_params_type

__all__ = ["FEATURE_NAMES", "NO_CHANGE", "Adjustment", "AsyncQuoteModel", "Features", "QuoteModel"]

P = TypeVar("P", bound=Params)


class Features(Struct, frozen=True, gc=False):
    """The fixed vector that models see, in this order. A change of it is a change of the API."""

    spread_bps: float
    """(ask − bid) / mid × 10⁴."""
    imbalance: float
    """(bid size − ask size) / (bid size + ask size) at the top of the book, −1 to 1."""
    microprice_bps: float
    """(microprice − mid) / mid × 10⁴."""
    volatility_bps: float
    """Exponentially weighted standard deviation of mid returns over one second, in bps."""
    trade_flow: float
    """Exponentially decayed signed trade volume over its absolute volume, −1 to 1."""
    momentum_bps: float
    """(mid − exponentially weighted mean of the mid) / mid × 10⁴."""
    inventory_ratio: float
    """Position / position limit of the instance, −1 to 1."""

    def vector(self) -> tuple[float, ...]:
        """Return the values in the order of `FEATURE_NAMES`."""
        return (
            self.spread_bps,
            self.imbalance,
            self.microprice_bps,
            self.volatility_bps,
            self.trade_flow,
            self.momentum_bps,
            self.inventory_ratio,
        )


FEATURE_NAMES: tuple[str, ...] = Features.__struct_fields__


class Adjustment(Struct, frozen=True, gc=False):
    """What a model does to a quote: shift both prices, widen or narrow, scale sizes."""

    shift_bps: float = 0.0
    """Moves both prices by this many basis points of their own value (positive is up)."""
    spread_scale: float = 1.0
    """Multiplies the distance between bid and ask around their middle; must be positive."""
    bid_size_scale: float = 1.0
    ask_size_scale: float = 1.0


NO_CHANGE = Adjustment()


class QuoteModel(Generic[P]):
    """Adjusts every quote of the instances that list it; plain, synchronous and quick.

    A model that raises or needs longer than `budget_us` is skipped for that quote and counted;
    the quote goes out without it.
    """

    params_type: ClassVar[type[Params]] = NoParams
    budget_us: ClassVar[float] = 200.0
    params: P

    def __init__(self, params: P) -> None:
        self.params = params

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        adopt_params_type(cls)

    def on_start(self) -> None:
        """Load files and warm up; runs once before the first `adjust`."""

    def adjust(self, features: Features, quote: Quote) -> Adjustment:
        """Return the adjustment for `quote` under `features`; `NO_CHANGE` leaves it alone."""
        raise NotImplementedError


class AsyncQuoteModel(QuoteModel[P]):
    """A model too slow for the quote path: `predict` runs beside it, its last answer is used.

    An answer older than `valid_ms` is not used: the unadjusted quote goes out and the model is
    counted as skipped.
    """

    valid_ms: ClassVar[float] = 1000.0

    async def predict(self, features: Features) -> Adjustment:
        """Return the adjustment for the market as `features` describe it."""
        raise NotImplementedError
