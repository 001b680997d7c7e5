"""Runs the quote models of one instance and keeps a slow or broken one from holding up its quotes."""

import asyncio
import math
from collections.abc import Callable, Coroutine
from decimal import Decimal
from typing import Any

from msgspec import Struct

from host.api import Adjustment, AsyncQuoteModel, Features, Quote, QuoteModel
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
        self._is_async = isinstance(model, AsyncQuoteModel)
        self._answer: _Answer | None = None
        self._task: asyncio.Task[None] | None = None

    def adjust(self, features: Features, quote: Quote) -> Quote:
        """Return `quote` as the model wants it, or unchanged."""
        clock = self._clock
        started_ns = clock.stopwatch_ns()
        try:
            if self._is_async:
                adjustment = self._latest(features)
                if adjustment is None:
                    return self._skip(quote, "its last answer is too old")
            else:
                adjustment = self.model.adjust(features, quote)
            adjusted = _apply(adjustment, quote)
        except Exception as error:  # noqa: BLE001 - plugin boundary: counted, the quote goes out without it
            return self._skip(quote, f"{type(error).__name__}: {error}")
        if clock.stopwatch_ns() - started_ns > self._budget_ns:
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

    def _latest(self, features: Features) -> Adjustment | None:
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
        except Exception as error:  # noqa: BLE001 - plugin boundary: the old answer simply expires
            self.last_error = f"{type(error).__name__}: {error}"
        else:
            self._answer = _Answer(adjustment, self._clock.now_ns())


class _Answer(Struct, frozen=True):
    adjustment: Adjustment
    ts_ns: int


def _apply(adjustment: Adjustment, quote: Quote) -> Quote | None:
    """Return the adjusted quote, or None where the numbers make none."""
    bid, ask = quote.bid, quote.ask
    shift, scale = adjustment.shift_bps, adjustment.spread_scale
    if not (math.isfinite(shift) and math.isfinite(scale) and scale > 0.0):
        return None
    if scale != 1.0 and bid is not None and ask is not None:
        middle, half = (bid + ask) * 0.5, (ask - bid) * 0.5 * scale
        bid, ask = middle - half, middle + half
    if shift != 0.0:
        factor = 1.0 + shift * 1e-4
        bid = bid * factor if bid is not None else None
        ask = ask * factor if ask is not None else None
    bid_qty = _scaled(quote.bid_qty, adjustment.bid_size_scale)
    ask_qty = _scaled(quote.ask_qty, adjustment.ask_size_scale)
    if bid_qty is None or ask_qty is None:
        return None
    return Quote(bid, bid_qty, ask, ask_qty)


def _scaled(qty: Decimal, scale: float) -> Decimal | None:
    if scale == 1.0:
        return qty
    if not (math.isfinite(scale) and scale >= 0.0):
        return None
    return qty * Decimal(repr(scale))
