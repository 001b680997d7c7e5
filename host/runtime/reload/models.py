"""One instance's step from one version of a quote model to another, and back if need be.

A model sees features and a quote, nothing else: so what the instance asked lately is what a new
version is tried with, and the old version's answers are what it is compared with.
"""

import asyncio
import threading
from collections.abc import Callable, Mapping
from time import perf_counter_ns
from typing import Any, Final

from msgspec import Struct

from host.api import AsyncQuoteModel, Features, Quote, QuoteModel
from host.loader import Offer
from host.runtime.clock import Clock
from host.runtime.instance import Instance
from host.runtime.models import Answer, ModelStage, NotAsked, Sample, apply_adjustment
from host.runtime.plugin_errors import describe_error
from host.runtime.reload.probation import ProbationLimits
from host.runtime.reload.revision import RevisionFailed
from host.runtime.remote import RemoteModel

__all__ = ["ModelProbation", "ModelRevision", "ModelUse"]

START_DEADLINE_S: Final = 10.0
"""For `on_start` and a first answer: loading a large file takes seconds, an endless loop for ever."""
SLICE_NS: Final = 100_000
"""How long answers are asked for at a stretch before the loop gets its turn."""
ASYNC_SAMPLES: Final = 3
"""Predictions tried of an asynchronous model, each of which may take as long as its answers hold."""
SLOW_SHARE: Final = 0.1
"""A model may overrun its budget in this share of its calls: the machine has bad moments too."""
MOST_SKIPS: Final = 10
"""Quotes on probation that may go out without the model, whatever the version before it did. Of calls
that overran, this holds once they are more than `SLOW_SHARE`."""


class ModelUse(Struct, frozen=True):
    """Which offer one place in an instance's chain of models runs, and its configured parameters."""

    offer: Offer
    params: Mapping[str, object]
    isolation: str = "inline"
    """`process` where it runs in a worker of its own."""


class _Calls(Struct, frozen=True):
    """How often a model was asked, needed too long, and gave nothing that could be used."""

    calls: int
    overran: int
    broken: int

    @classmethod
    def of(cls, stage: ModelStage) -> "_Calls":
        return cls(stage.used + stage.skipped, stage.overran, stage.skipped - stage.overran)


class ModelProbation:
    """Compares how often a new version is skipped with how often the one before it was."""

    def __init__(self, stage: ModelStage, limits: ProbationLimits, started_ns: int) -> None:
        self._stage = stage
        self._limits = limits
        self._started_ns = started_ns
        self._before = _Calls.of(stage)

    def fault(self) -> str:
        """Return why the version must go back, or an empty text."""
        stage, limits = self._stage, self._limits
        if stage.slowest_ns > limits.hang_ms * 1e6:
            held_ms = stage.slowest_ns / 1e6
            return (
                f"model {stage.name} held the loop for {held_ms:.1f} ms, the limit is {limits.hang_ms:g} ms"
            )
        before, now = self._before, self._counted()
        is_slow = now.overran > max(MOST_SKIPS, SLOW_SHARE * now.calls)
        # Compared as products: the version before may never have been asked.
        if is_slow and now.overran * before.calls >= 2 * before.overran * now.calls:
            budget = f"its budget of {stage.model.budget_us:g} µs"
            return f"model {stage.name} needed longer than {budget} for {now.overran} of {now.calls} quotes"
        if now.broken > MOST_SKIPS and now.broken * before.calls >= 2 * before.broken * now.calls:
            return (
                f"model {stage.name} was skipped for {now.broken} of {now.calls} quotes: {stage.last_error}"
            )
        return ""

    def is_over(self, now_ns: int) -> bool:
        """Return whether it has been watched for long enough."""
        is_time_up = now_ns - self._started_ns >= self._limits.seconds * 1e9
        return is_time_up and self._counted().calls >= self._limits.events

    def _counted(self) -> "_Calls":
        now, before = _Calls.of(self._stage), self._before
        return _Calls(now.calls - before.calls, now.overran - before.overran, now.broken - before.broken)


class ModelRevision:
    """Takes one place in an instance's chain from the model that runs to one of a new version.

    `build` and `warm_up` touch nothing that runs. `swap` is one assignment between two events.
    """

    def __init__(
        self,
        clock: Clock,
        instance: Instance,
        place: int,
        make: Callable[[], QuoteModel[Any]],
        limits: ProbationLimits,
    ) -> None:
        self.instance: Final = instance
        self.name: Final = instance.instance
        self.place: Final = f"model {place}"
        self.stage: Final = (stage := instance.models[place])
        self.old = stage.model
        self.new: QuoteModel[Any] | None = None
        self.probation: ModelProbation | None = None
        self._clock = clock
        self._make = make
        self._limits = limits
        self._answer: Answer | None = None
        self._what = f"instance {instance.instance}: model {stage.name}"

    # -- before the swap -------------------------------------------------------------------------

    def build(self) -> str:
        """Construct the new model with the configured parameters."""
        if isinstance(self.old, RemoteModel):
            raise RevisionFailed(
                f"{self._what}: RESTART_REQUIRED: it runs in a worker, whose code a restart of the node changes"
            )
        self.new = self._make()
        return f"{self.instance.instance}: model {self.stage.name} constructed"

    async def warm_up(self) -> str:
        """Start it, ask it what the old one was asked lately, and say how the answers differ.

        Raises `RevisionFailed` where it raises, answers with nonsense or takes longer than its budget.
        """
        new = self.new
        assert new is not None, "built before"
        samples = list(self.stage.recent)
        if isinstance(new, AsyncQuoteModel):
            # On the loop, because it may need the loop.
            self._guard("on_start", new.on_start)
            return await self._try_async(new, samples[-ASYNC_SAMPLES:])
        await self._start_aside(new, samples[-1] if samples else None)
        return await self._try(new, samples)

    async def _start_aside(self, new: QuoteModel[Any], sample: Sample | None) -> None:
        """Run `on_start` and one answer in a thread: what never returns must not stop the loop."""

        def start() -> None:
            self._guard("on_start", new.on_start)
            if sample is not None:
                self._guard("adjust", new.adjust, sample[0], sample[1])

        await _aside(start, START_DEADLINE_S, f"{self._what}: its start")

    async def _try(self, new: QuoteModel[Any], samples: list[Sample]) -> str:
        stopwatch_ns = self._clock.stopwatch_ns
        differences: list[float] = []
        costs_ns: list[int] = []
        slice_ends_ns = perf_counter_ns() + SLICE_NS
        for features, quote, before in samples:
            started_ns = stopwatch_ns()
            adjustment = self._guard("adjust", new.adjust, features, quote)
            costs_ns.append(stopwatch_ns() - started_ns)
            differences.extend(self._difference_bps(adjustment, before, quote))
            if perf_counter_ns() >= slice_ends_ns:
                await asyncio.sleep(0)
                slice_ends_ns = perf_counter_ns() + SLICE_NS
        if not samples:
            return f"{self.instance.instance}: model {self.stage.name} was asked nothing yet"
        costs_ns.sort()
        slow_ns = costs_ns[int((len(costs_ns) - 1) * (1 - SLOW_SHARE))]
        if slow_ns > new.budget_us * 1e3:
            raise RevisionFailed(
                f"{self._what}: its budget is {new.budget_us:g} µs a call, but 1 in {1 / SLOW_SHARE:g} "
                f"took longer than {slow_ns / 1e3:.0f} µs; make it quicker or an AsyncQuoteModel"
            )
        cost = f"{costs_ns[len(costs_ns) // 2] / 1e3:.0f} µs a call of {new.budget_us:g}"
        return f"{self.instance.instance}: model {self.stage.name}: {_words(differences)}, {cost}"

    async def _try_async(self, new: AsyncQuoteModel[Any], samples: list[Sample]) -> str:
        differences: list[float] = []
        for features, quote, before in samples:
            try:
                async with asyncio.timeout(new.valid_ms / 1e3):
                    adjustment = await new.predict(features)
            except TimeoutError as error:
                raise RevisionFailed(
                    f"{self._what}: its answers hold for {new.valid_ms:g} ms, but predict took longer"
                ) from error
            except (Exception, SystemExit) as error:
                raise RevisionFailed(f"{self._what}: predict raised {describe_error(error)}") from error
            differences.extend(self._difference_bps(adjustment, before, quote))
            # What it goes live with: no quote goes out without it because of the reload.
            self._answer = Answer(adjustment, self._clock.now_ns())
        return f"{self.instance.instance}: model {self.stage.name}: {_words(differences)}"

    def _guard(self, what: str, call: Callable[..., Any], *args: Features | Quote) -> Any:
        try:
            return call(*args)
        except (Exception, SystemExit) as error:
            raise RevisionFailed(f"{self._what}: {what} raised {describe_error(error)}") from error

    def _difference_bps(self, new: Any, old: Any, quote: Quote) -> list[float]:
        """Return how far the prices after the new answer are from those after the old one."""
        adjusted = self._guard("adjust", apply_adjustment, new, quote)
        if adjusted is None:
            raise RevisionFailed(f"{self._what}: its answer makes no quote: {new}")
        if old is NotAsked.NOT_ASKED:  # the version before the one that runs was
            return []
        before = apply_adjustment(old, quote) if old is not None else quote
        if before is None:
            before = quote  # so it went out: the old answer was nonsense
        return [
            abs(now - then) / then * 1e4
            for now, then in ((adjusted.bid, before.bid), (adjusted.ask, before.ask))
            if now is not None and then
        ]

    # -- the swap, and after ---------------------------------------------------------------------

    def prepare(self, now_ns: int) -> None:
        """Have nothing left to do: features are all that a model knows of what happened."""

    def succeed(self, previous: object) -> None:
        """Take the place of a revision on probation: go back to what that would go back to."""
        assert isinstance(previous, ModelRevision)
        self.old = previous.old

    def swap(self, now_ns: int) -> None:
        """Let the new version answer from the next quote on."""
        assert self.new is not None, "built before"
        self.probation = ModelProbation(self.stage, self._limits, now_ns)
        self._answer = self.stage.take(self.new, self._answer)

    def settle(self, now_ns: int) -> None:
        """End probation: the version has earned its place."""
        self.probation = None
        self._answer = None

    def abandon(self) -> None:
        """Have nothing to undo: the new model was never connected to anything."""

    def roll_back(self, reason: str, policy: str, now_ns: int) -> None:
        """Let the old version answer again. It has no memory to catch up with: features are that."""
        self.probation = None
        self.stage.take(self.old, self._answer)


def _words(differences: list[float]) -> str:
    if not differences:
        return "nothing to compare yet"
    if not any(differences):
        return f"the same {len(differences)} prices as the version that runs"
    mean = sum(differences) / len(differences)
    return f"{len(differences)} prices differ by {mean:.2f} bps on average, {max(differences):.2f} at most"


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
