"""Watching a new version of a quote model: how often quotes go out without it, and what its worker does."""

from typing import Any, Final

from msgspec import Struct

from host.api import QuoteModel
from host.runtime.models import ModelStage
from host.runtime.reload.probation import ProbationLimits
from host.runtime.remote import RemoteModel

__all__ = ["SLOW_SHARE", "ModelProbation"]

SLOW_SHARE: Final = 0.1
"""A model may overrun its budget in this share of its calls: the machine has bad moments too."""
MOST_SKIPS: Final = 10
"""Quotes on probation that may go out without the model, whatever the version before it did. Of calls
that overran, this holds once they are more than `SLOW_SHARE`."""


class _Calls(Struct, frozen=True):
    """How often a model was asked, needed too long, and gave nothing that could be used."""

    calls: int
    overran: int
    broken: int

    @classmethod
    def of(cls, stage: ModelStage) -> "_Calls":
        """Return what became of the quotes of a stage."""
        return cls(stage.used + stage.skipped, stage.overran, stage.skipped - stage.overran)

    @classmethod
    def of_questions(cls, model: QuoteModel[Any]) -> "_Calls":
        """Return what became of the questions to a model in another process: fewer than quotes, which do not wait."""
        return cls(model.asked, 0, model.broken) if isinstance(model, RemoteModel) else cls(0, 0, 0)

    def since(self, before: "_Calls") -> "_Calls":
        """Return what was added to `before`."""
        return _Calls(self.calls - before.calls, self.overran - before.overran, self.broken - before.broken)


class ModelProbation:
    """Compares how often a new version is of no use with how often the one before it was."""

    def __init__(
        self, stage: ModelStage, new: QuoteModel[Any], limits: ProbationLimits, started_ns: int
    ) -> None:
        """Watch `new` from here on; the stage still has the version before."""
        self._stage = stage
        self._limits = limits
        self._started_ns = started_ns
        self._before = _Calls.of(stage)
        self._questions_before = _Calls.of_questions(stage.model)
        self._questions = _Calls.of_questions(new)

    def fault(self) -> str:
        """Return why the version must go back, or an empty text."""
        stage, limits = self._stage, self._limits
        if isinstance(stage.model, RemoteModel) and (fault := self._remote_fault(stage.model)):
            return fault
        if stage.slowest_ns > limits.hang_ms * 1e6:
            held_ms = stage.slowest_ns / 1e6
            return (
                f"model {stage.name} held the loop for {held_ms:.1f} ms, the limit is {limits.hang_ms:g} ms"
            )
        before, now = self._before, self._counted()
        if now.overran > SLOW_SHARE * now.calls and _is_worse(now, before, now.overran, before.overran):
            budget = f"its budget of {stage.model.budget_us:g} µs"
            return f"model {stage.name} needed longer than {budget} for {now.overran} of {now.calls} quotes"
        if _is_worse(now, before, now.broken, before.broken):
            return (
                f"model {stage.name} was skipped for {now.broken} of {now.calls} quotes: {stage.last_error}"
            )
        return ""

    def _remote_fault(self, model: RemoteModel) -> str:
        name = self._stage.name
        if model.failure:
            return f"model {name}: its worker was lost: {model.failure}"
        before, now = self._questions_before, _Calls.of_questions(model).since(self._questions)
        if _is_worse(now, before, now.broken, before.broken):
            useless = f"{now.broken} of {now.calls} questions"
            return f"model {name} gave nothing of use to {useless}: {model.last_error}"
        return ""

    def is_over(self, now_ns: int) -> bool:
        """Return whether it has been watched for long enough."""
        is_time_up = now_ns - self._started_ns >= self._limits.seconds * 1e9
        return is_time_up and self._counted().calls >= self._limits.events

    def _counted(self) -> _Calls:
        return _Calls.of(self._stage).since(self._before)


def _is_worse(now: _Calls, before: _Calls, count: int, count_before: int) -> bool:
    """Return whether something happens more often than it may, and twice as often as before."""
    # Compared as products: the version before may never have been asked.
    return count > MOST_SKIPS and count * before.calls >= 2 * count_before * now.calls
