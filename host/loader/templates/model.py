"""Shift quotes with the order flow and widen them when the market is restless.

Check this file with `tandem plugin check FILE`, then list it with an instance:

    [[instance]]
    ...
    models = ["example"]
"""

from host.api import Adjustment, Features, NonNegative, Params, Quote, QuoteModel


class ExampleParams(Params, frozen=True):
    """What an operator can set."""

    flow_bps: NonNegative = 1.0
    """Shift when all recent trades were on one side."""
    calm_volatility_bps: NonNegative = 1.0
    """Volatility up to which the spread stays as the strategy wants it."""
    max_widening: NonNegative = 2.0
    """The spread becomes at most 1 + this many times as wide."""


class Example(QuoteModel[ExampleParams]):
    """Lean with the flow, widen with volatility."""

    def on_start(self) -> None:
        """Load files and warm up here. A file of a plugin folder is read with `importlib.resources`."""

    def adjust(self, features: Features, quote: Quote) -> Adjustment:
        """Return what to do to `quote`; quick, because every quote waits for it."""
        params = self.params
        restless = max(0.0, features.volatility_bps - params.calm_volatility_bps)
        return Adjustment(
            shift_bps=params.flow_bps * features.trade_flow,
            spread_scale=1.0 + min(params.max_widening, restless / 10.0),
        )
