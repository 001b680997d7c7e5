"""Runs the quote models of one instance and keeps a slow or broken one from holding up its quotes."""

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine
from decimal import Decimal
from enum import Enum
from math import isfinite
from typing import Any, Final

from msgspec import Struct

from host.api import NO_CHANGE, Adjustment, AsyncQuoteModel, Features, Quote, QuoteModel
from host.runtime.clock import Clock
from host.runtime.remote import RemoteModel

__all__ = ["Answer", "ModelStage", "NotAsked", "Sample", "apply_adjustment"]

Spawn = Callable[[Coroutine[Any, Any, None], str], "asyncio.Task[None]"]

SAMPLES_KEPT: Final = 128
"""Some seconds of quoting, and more calls than it takes to know what a model costs."""

SAMPLE_EVERY: Final = 16
"""Once there are so many, one quote in 16 is kept: what is kept long enough to leave the processor's
caches costs more to let go of again than all else here."""


class NotAsked(Enum):
    """Stands for the answer of a version that was not asked: another one was."""

    NOT_ASKED = "not asked"


Sample = tuple[Features, Quote, Adjustment | NotAsked | None]
"""What a model was asked, and what the version that runs said (None: nothing that could be used)."""


class Answer(Struct, frozen=True):
    """What an asynchronous model said, and when."""

    adjustment: Adjustment
    ts_ns: int


class ModelStage:
    """One model in an instance's chain: `adjust` returns the quote after it, come what may.

    A call that raises, overruns the model's budget or answers with nonsense leaves the quote as it
    was; `skipped` counts these and `last_error` says why. An asynchronous model is asked again as
    soon as it has answered, and its last answer is used while it is not older than `valid_ms`.
    """

    def __init__(self, name: str, model: QuoteModel[Any], clock: Clock, spawn: Spawn) -> None:
        self.name = name
        self.model = model
        """The version that runs; a reload replaces it between two events."""
        self.used = 0
        self.skipped = 0
        self.last_error = ""
        self.overran = 0
        """How many of the skipped needed too long; the machine has bad moments too."""
        self.slowest_ns = 0
        """The longest call among those that overran the budget."""
        self.recent: deque[Sample] = deque(maxlen=SAMPLES_KEPT)
        """What a new version is tried with and measured by."""
        self._next_sample = 0
        """How many answers have to be used before one is kept again."""
        self._clock = clock
        self._spawn = spawn
        self._budget_ns = int(model.budget_us * 1e3)
        self._stopwatch_ns = clock.stopwatch_ns
        self._adjust = self._way_to(model)
        self._answer: Answer | None = None
        self._task: asyncio.Task[None] | None = None

    def adjust(self, features: Features, quote: Quote) -> Quote:
        """Return `quote` as the model wants it, or unchanged."""
        stopwatch_ns = self._stopwatch_ns
        ask = self._adjust  # a function that an attribute holds is called faster so, up to Python 3.11
        started_ns = stopwatch_ns()
        try:
            adjustment = ask(features, quote)
            if adjustment is None:
                self.recent.append((features, quote, None))
                return self._skip(quote, "it has no answer that is not too old")
            adjusted = quote if adjustment is NO_CHANGE else apply_adjustment(adjustment, quote)
        except (Exception, SystemExit) as error:  # noqa: BLE001 - plugin boundary: counted, the quote goes out
            self.recent.append((features, quote, None))
            return self._skip(quote, f"{type(error).__name__}: {error}")
        taken_ns = stopwatch_ns() - started_ns
        if self.used >= self._next_sample:
            self._keep(features, quote, adjustment)
        if taken_ns > self._budget_ns:
            self.overran += 1
            self.slowest_ns = max(self.slowest_ns, taken_ns)
            return self._skip(quote, f"needed longer than its budget of {self.model.budget_us:g} µs")
        if adjusted is None:
            return self._skip(quote, f"its answer makes no quote: {adjustment}")
        self.used += 1
        return adjusted

    def take(self, model: QuoteModel[Any], answer: Answer | None = None) -> Answer | None:
        """Run `model`, which was started, from the next quote on.

        `answer` is what an asynchronous model goes on with until its own next one; the answer that
        the model before it had is returned. One in another process that goes is not ended: it may come back.
        """
        self._cancel()
        before, self._answer = self._answer, answer
        self._task = None
        self.slowest_ns = 0
        asked = ((features, quote, NotAsked.NOT_ASKED) for features, quote, _ in self.recent)
        self.recent = deque(asked, maxlen=SAMPLES_KEPT)
        self._budget_ns = int(model.budget_us * 1e3)
        self._adjust = self._way_to(model)
        self.model = model
        return before

    def close(self) -> None:
        """End a prediction that is still under way, and a model in another process."""
        self._cancel()
        if isinstance(self.model, RemoteModel):
            self.model.close()

    def _cancel(self) -> None:
        if self._task is not None:
            self._task.cancel()

    def _way_to(self, model: QuoteModel[Any]) -> Callable[[Features, Quote], Adjustment | None]:
        return self._latest if isinstance(model, AsyncQuoteModel) else model.adjust

    def _keep(self, features: Features, quote: Quote, adjustment: Adjustment) -> None:
        self.recent.append((features, quote, adjustment))
        if len(self.recent) == SAMPLES_KEPT:
            self._next_sample = self.used + SAMPLE_EVERY

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
            if model is self.model:  # else one that is no longer asked, and did not heed its cancellation
                self._answer = Answer(adjustment, self._clock.now_ns())


def apply_adjustment(adjustment: Adjustment, quote: Quote) -> Quote | None:
    """Return the adjusted quote, or None where the numbers make none."""
    bid = quote.bid
    ask = quote.ask
    bid_qty = quote.bid_qty
    ask_qty = quote.ask_qty
    shift = adjustment.shift_bps
    scale = adjustment.spread_scale
    bid_scale = adjustment.bid_size_scale
    ask_scale = adjustment.ask_size_scale
    # A sum is finite only if all that is in it is.
    if not (scale > 0.0 and isfinite(shift + scale)):
        return None
    if bid_scale != 1.0 or ask_scale != 1.0:
        if not (bid_scale >= 0.0 and ask_scale >= 0.0 and isfinite(bid_scale + ask_scale)):
            return None
        if bid_scale != 1.0:
            bid_qty *= Decimal(repr(float(bid_scale)))  # NumPy's own numbers are written in another way
        if ask_scale != 1.0:
            ask_qty *= Decimal(repr(float(ask_scale)))
    factor = 1.0 + shift * 1e-4
    if bid is not None and ask is not None:
        if scale != 1.0:
            middle = (bid + ask) * 0.5
            half = (ask - bid) * 0.5 * scale
            bid = middle - half
            ask = middle + half
        return Quote(bid * factor, bid_qty, ask * factor, ask_qty)
    return Quote(
        None if bid is None else bid * factor, bid_qty, None if ask is None else ask * factor, ask_qty
    )
