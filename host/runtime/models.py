"""Runs the quote models of one instance and keeps a slow or broken one from holding up its quotes."""

import asyncio
from collections.abc import Callable, Coroutine
from decimal import Decimal
from math import isfinite
from typing import Any

from msgspec import Struct

from host.api import NO_CHANGE, Adjustment, AsyncQuoteModel, Features, Quote, QuoteModel
from host.runtime.clock import Clock

__all__ = ["ModelStage"]

Spawn = Callable[[Coroutine[Any, Any, None], str], "asyncio.Task[None]"]


class ModelStage:
    """One model in an instance's chain: `adjust` returns the quote after it, come what may.

    A call that raises, overruns the model's budget or answers with nonsense leaves the quote as it
    was; `skipped` counts these and `last_error` says why. An asynchronous model is asked again as
    soon as it has answered, and its last answer is used while it is not older than `valid_ms`.
    """

    def __init__(self, name: str, model: QuoteModel[Any], clock: Clock, spawn: Spawn) -> None:
        self.name = name
        self.model = model
        self.used = 0
        self.skipped = 0
        self.last_error = ""
        self._clock = clock
        self._spawn = spawn
        self._budget_ns = int(model.budget_us * 1e3)
        self._stopwatch_ns = clock.stopwatch_ns
        self._adjust: Callable[[Features, Quote], Adjustment | None] = (
            self._latest if isinstance(model, AsyncQuoteModel) else model.adjust
        )
        self._answer: _Answer | None = None
        self._task: asyncio.Task[None] | None = None

    def adjust(self, features: Features, quote: Quote) -> Quote:
        """Return `quote` as the model wants it, or unchanged."""
        stopwatch_ns = self._stopwatch_ns
        started_ns = stopwatch_ns()
        try:
            adjustment = self._adjust(features, quote)
            if adjustment is None:
                return self._skip(quote, "it has no answer that is not too old")
            adjusted = quote if adjustment is NO_CHANGE else _apply(adjustment, quote)
        except (Exception, SystemExit) as error:  # noqa: BLE001 - plugin boundary: counted, the quote goes out
            return self._skip(quote, f"{type(error).__name__}: {error}")
        if stopwatch_ns() - started_ns > self._budget_ns:
            return self._skip(quote, f"needed longer than its budget of {self.model.budget_us:g} µs")
        if adjusted is None:
            return self._skip(quote, f"its answer makes no quote: {adjustment}")
        self.used += 1
        return adjusted

    def close(self) -> None:
        """End a prediction that is still under way."""
        if self._task is not None:
            self._task.cancel()

    def _skip(self, quote: Quote, why: str) -> Quote:
        self.skipped += 1
        self.last_error = why
        return quote

    def _latest(self, features: Features, _quote: Quote) -> Adjustment | None:
        model = self.model
        assert isinstance(model, AsyncQuoteModel)
        if self._task is None or self._task.done():
            self._task = self._spawn(self._predict(model, features), f"model {self.name}")
        answer = self._answer
        if answer is None or self._clock.now_ns() - answer.ts_ns > model.valid_ms * 1e6:
            return None
        return answer.adjustment

    async def _predict(self, model: AsyncQuoteModel[Any], features: Features) -> None:
        try:
            adjustment = await model.predict(features)
        except (Exception, SystemExit) as error:  # noqa: BLE001 - plugin boundary: the old answer expires
            self.last_error = f"{type(error).__name__}: {error}"
        else:
            self._answer = _Answer(adjustment, self._clock.now_ns())


class _Answer(Struct, frozen=True):
    adjustment: Adjustment
    ts_ns: int


def _apply(adjustment: Adjustment, quote: Quote) -> Quote | None:
    """Return the adjusted quote, or None where the numbers make none."""
    shift, scale = adjustment.shift_bps, adjustment.spread_scale
    bid_scale, ask_scale = adjustment.bid_size_scale, adjustment.ask_size_scale
    # The sum is finite only if each of them is.
    if not (
        isfinite(shift + scale + bid_scale + ask_scale) and scale > 0.0 <= bid_scale and ask_scale >= 0.0
    ):
        return None
    bid, ask = quote.bid, quote.ask
    if scale != 1.0 and bid is not None and ask is not None:
        middle, half = (bid + ask) * 0.5, (ask - bid) * 0.5 * scale
        bid, ask = middle - half, middle + half
    if shift != 0.0:
        factor = 1.0 + shift * 1e-4
        if bid is not None:
            bid *= factor
        if ask is not None:
            ask *= factor
    bid_qty, ask_qty = quote.bid_qty, quote.ask_qty
    if bid_scale != 1.0:
        bid_qty *= Decimal(repr(bid_scale))
    if ask_scale != 1.0:
        ask_qty *= Decimal(repr(ask_scale))
    return Quote(bid, bid_qty, ask, ask_qty)
