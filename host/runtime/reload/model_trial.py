"""A new version of a quote model, started and asked what the one that runs was asked lately.

A model sees features and a quote, nothing else: so this is all that there is to try, and the answers of the
version that runs are what its own are compared with.
"""

import asyncio
import threading
from collections.abc import Callable, Sequence
from time import perf_counter_ns
from typing import Any, Final

from host.api import AsyncQuoteModel, QuoteModel, TandemError
from host.runtime.clock import Clock
from host.runtime.models import Answer, NotAsked, Sample, apply_adjustment
from host.runtime.plugin_errors import describe_error
from host.runtime.reload.model_probation import SLOW_SHARE
from host.runtime.reload.revision import RevisionFailed
from host.runtime.remote import RemoteModel

__all__ = ["ModelTrial"]

START_DEADLINE_S: Final = 10.0
"""For `on_start` and a first answer: loading a large file takes seconds, an endless loop for ever."""
SLICE_NS: Final = 100_000
"""How long answers are asked for at a stretch before the loop gets its turn."""
ASYNC_SAMPLES: Final = 3
"""Predictions tried of an asynchronous model, each of which may take as long as its answers hold."""
REMOTE_NS: Final = 3_000_000_000
"""How long a model in a worker is asked; after that only for the latest sample."""


class ModelTrial:
    """One version's. `what` names the model in a refusal, `answer` is what an asynchronous one may go live with."""

    def __init__(self, model: QuoteModel[Any], what: str, clock: Clock) -> None:
        self.answer: Answer | None = None
        self._model: Final = model
        self._what: Final = what
        self._clock: Final = clock
        self._differences: list[float] = []

    async def run(self, samples: Sequence[Sample]) -> str:
        """Start it, have it answer, and say how the answers differ and what they cost.

        Raises `RevisionFailed` where it raises, answers with nonsense or takes too long.
        """
        model = self._model
        if isinstance(model, RemoteModel):
            return await self._run_remote(model, samples)
        if isinstance(model, AsyncQuoteModel):
            # On the loop, because it may need the loop.
            self._guard("on_start", model.on_start)
            return await self._run_async(model, samples[-ASYNC_SAMPLES:])
        await self._start_aside(model, samples[-1] if samples else None)
        return await self._run_inline(model, samples)

    # -- on the loop -----------------------------------------------------------------------------

    async def _start_aside(self, model: QuoteModel[Any], sample: Sample | None) -> None:
        """Run `on_start` and one answer in a thread: what never returns must not stop the loop."""

        def start() -> None:
            self._guard("on_start", model.on_start)
            if sample is not None:
                self._guard("adjust", model.adjust, sample[0], sample[1])

        await _aside(start, START_DEADLINE_S, f"{self._what}: its start")

    async def _run_inline(self, model: QuoteModel[Any], samples: Sequence[Sample]) -> str:
        stopwatch_ns = self._clock.stopwatch_ns
        costs_ns: list[int] = []
        slice_ends_ns = perf_counter_ns() + SLICE_NS
        for sample in samples:
            started_ns = stopwatch_ns()
            adjustment = self._guard("adjust", model.adjust, sample[0], sample[1])
            costs_ns.append(stopwatch_ns() - started_ns)
            self._compare(adjustment, sample)
            if perf_counter_ns() >= slice_ends_ns:
                await asyncio.sleep(0)
                slice_ends_ns = perf_counter_ns() + SLICE_NS
        if not samples:
            return "was asked nothing yet"
        costs_ns.sort()
        slow_ns = costs_ns[int((len(costs_ns) - 1) * (1 - SLOW_SHARE))]
        if slow_ns > model.budget_us * 1e3:
            raise RevisionFailed(
                f"{self._what}: its budget is {model.budget_us:g} µs a call, but 1 in {1 / SLOW_SHARE:g} "
                f"took longer than {slow_ns / 1e3:.0f} µs; make it quicker or an AsyncQuoteModel"
            )
        return f"{self._words()}, {_middle_us(costs_ns):.0f} µs a call of {model.budget_us:g}"

    async def _run_async(self, model: AsyncQuoteModel[Any], samples: Sequence[Sample]) -> str:
        for sample in samples:
            try:
                async with asyncio.timeout(model.valid_ms / 1e3):
                    adjustment = await model.predict(sample[0])
            except TimeoutError as error:
                raise self._too_late(model.valid_ms, "predict") from error
            except (Exception, SystemExit) as error:
                raise RevisionFailed(f"{self._what}: predict raised {describe_error(error)}") from error
            self._compare(adjustment, sample)
            # What it goes live with: no quote goes out without it because of the reload.
            self.answer = Answer(adjustment, self._clock.now_ns())
        return self._words()

    # -- in a worker -----------------------------------------------------------------------------

    async def _run_remote(self, model: RemoteModel, samples: Sequence[Sample]) -> str:
        costs_ns: list[int] = []
        ends_ns = perf_counter_ns() + REMOTE_NS
        try:
            await model.begin_trial()
            for sample in samples:
                if perf_counter_ns() > ends_ns and sample is not samples[-1]:
                    continue  # that one at least: it goes live with what it says to it
                started_ns = perf_counter_ns()
                async with asyncio.timeout(model.valid_ms / 1e3):
                    adjustment = await model.answer(sample[0], sample[1])
                costs_ns.append(perf_counter_ns() - started_ns)
                self._compare(adjustment, sample)
        except TimeoutError as error:
            raise self._too_late(model.valid_ms, "one") from error
        except RevisionFailed:
            raise
        except TandemError as error:
            raise RevisionFailed(f"{self._what}: {error}") from error
        if not costs_ns:
            return "was asked nothing yet"
        return (
            f"{self._words()}, {_middle_us(costs_ns):.0f} µs for an answer that holds {model.valid_ms:g} ms"
        )

    # -- what came of it -------------------------------------------------------------------------

    def _guard(self, what: str, call: Callable[..., Any], *args: Any) -> Any:
        try:
            return call(*args)
        except (Exception, SystemExit) as error:
            raise RevisionFailed(f"{self._what}: {what} raised {describe_error(error)}") from error

    def _too_late(self, valid_ms: float, what: str) -> RevisionFailed:
        return RevisionFailed(f"{self._what}: its answers hold for {valid_ms:g} ms, but {what} took longer")

    def _compare(self, adjustment: Any, sample: Sample) -> None:
        """Note how far the prices after an answer are from those after the answer of the version that runs."""
        _, quote, old = sample
        adjusted = self._guard("adjust", apply_adjustment, adjustment, quote)
        if adjusted is None:
            raise RevisionFailed(f"{self._what}: its answer makes no quote: {adjustment}")
        if old is NotAsked.NOT_ASKED:  # the version before the one that runs was
            return
        before = apply_adjustment(old, quote) if old is not None else quote
        if before is None:
            before = quote  # so it went out: the old answer was nonsense
        self._differences += [
            abs(now - then) / then * 1e4
            for now, then in ((adjusted.bid, before.bid), (adjusted.ask, before.ask))
            if now is not None and then
        ]

    def _words(self) -> str:
        differences = self._differences
        if not differences:
            return "nothing to compare yet"
        if not any(differences):
            return f"the same {len(differences)} prices as the version that runs"
        mean = sum(differences) / len(differences)
        return (
            f"{len(differences)} prices differ by {mean:.2f} bps on average, {max(differences):.2f} at most"
        )


def _middle_us(costs_ns: Sequence[int]) -> float:
    return sorted(costs_ns)[len(costs_ns) // 2] / 1e3


async def _aside(work: Callable[[], None], deadline_s: float, what: str) -> None:
    """Run `work` in a thread of its own; raise `RevisionFailed` when it is not done in time.

    A thread cannot be killed: one that never ends stays until the process does, and does not keep
    the process from ending.
    """
    loop = asyncio.get_running_loop()
    done: asyncio.Future[None] = loop.create_future()

    def settle(error: BaseException | None) -> None:
        if done.done():
            return
        if error is None:
            done.set_result(None)
        else:
            done.set_exception(error)

    def run() -> None:
        error: BaseException | None = None
        try:
            work()
        except BaseException as raised:  # noqa: BLE001 - handed to whoever waits
            error = raised
        try:
            loop.call_soon_threadsafe(settle, error)
        except RuntimeError:
            return  # the loop is closed: nobody waits any more

    threading.Thread(target=run, name=what, daemon=True).start()
    try:
        await asyncio.wait_for(done, deadline_s)
    except TimeoutError as error:
        raise RevisionFailed(f"{what} did not end within {deadline_s:g} s") from error
