"""One instance's step from one version of a quote model to another, and back if need be."""

from collections.abc import Callable, Mapping
from typing import Any, Final

from msgspec import Struct

from host.api import QuoteModel
from host.config.schema import ModelRef, WorkerLimits
from host.loader import Offer
from host.runtime.clock import Clock
from host.runtime.instance import Instance
from host.runtime.models import Answer, ModelStage
from host.runtime.reload.model_probation import ModelProbation
from host.runtime.reload.model_trial import ModelTrial
from host.runtime.reload.probation import ProbationLimits
from host.runtime.reload.revision import RevisionFailed
from host.runtime.remote import RemoteModel

__all__ = ["ModelRevision", "ModelUse"]


class ModelUse(Struct, frozen=True):
    """Which offer one place in an instance's chain of models runs, and its configured parameters."""

    offer: Offer
    params: Mapping[str, object]
    isolation: str = "inline"
    """`process` where it runs in a worker of its own."""
    worker: WorkerLimits = WorkerLimits()
    """What such a worker is held to."""

    @classmethod
    def of(cls, offer: Offer, ref: ModelRef) -> "ModelUse":
        """Return the use of an offer where an instance's configuration names it."""
        return cls(offer, ref.params, ref.isolation, ref.worker)


class ModelRevision:
    """Takes one place in an instance's chain from the model that runs to one of a new version.

    `build` and `warm_up` touch nothing that runs. `swap` is one assignment between two events. Where models run
    in workers, that of the old version stays, asked nothing, until the new one has earned its place.
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
        self.stage: Final[ModelStage] = instance.models[place]
        self.old: QuoteModel[Any] | None = None
        """What a rollback goes back to: that which has earned its place; known at the swap."""
        self.new: QuoteModel[Any] | None = None
        self.probation: ModelProbation | None = None
        self._clock = clock
        self._make = make
        self._limits = limits
        self._answer: Answer | None = None
        self._what = f"instance {instance.instance}: model {self.stage.name}"

    # -- before the swap -------------------------------------------------------------------------

    def build(self) -> str:
        """Construct the new model with the configured parameters; one in a worker is constructed there, later."""
        self.new = self._make()
        how = "runs in a worker of its own" if isinstance(self.new, RemoteModel) else "constructed"
        return f"{self.name}: model {self.stage.name} {how}"

    async def warm_up(self) -> str:
        """Start it, ask it what the old one was asked lately, and say how the answers differ.

        Raises `RevisionFailed` where it raises, answers with nonsense or takes too long.
        """
        assert self.new is not None, "built before"
        trial = ModelTrial(self.new, self._what, self._clock)
        running = self.stage.model
        # What a model in a worker said last is its answer to something older: it keeps what belongs together.
        samples = running.recent if isinstance(running, RemoteModel) and running.recent else self.stage.recent
        words = await trial.run(list(samples))
        self._answer = trial.answer
        return f"{self.name}: model {self.stage.name}: {words}"

    # -- the swap, and after ---------------------------------------------------------------------

    def prepare(self, now_ns: int) -> None:
        """See that the new model is still there; features are all that a model knows of what happened."""
        if isinstance(self.new, RemoteModel) and self.new.failure:
            raise RevisionFailed(f"{self._what}: its worker was lost: {self.new.failure}")

    def succeed(self, previous: object) -> None:
        """Take the place of a revision on probation: go back to what that would go back to."""
        assert isinstance(previous, ModelRevision)
        self.old = previous.old

    def swap(self, now_ns: int) -> None:
        """Let the new version answer from the next quote on."""
        assert self.new is not None, "built before"
        running = self.stage.model
        self.probation = ModelProbation(self.stage, self.new, self._limits, now_ns)
        self._answer = self.stage.take(self.new, self._answer)
        if self.old is None:
            self.old = running
        else:  # what runs never earned its place
            _end(running)

    def settle(self, now_ns: int) -> None:
        """End probation: the version has earned its place."""
        self.probation = None
        self._answer = None
        if self.old is not None:
            _end(self.old)
        if isinstance(self.new, RemoteModel):
            self.new.prove_itself()

    def abandon(self) -> None:
        """End the new model, where it does not come to a swap."""
        if self.new is not None and self.stage.model is not self.new:
            _end(self.new)

    def roll_back(self, reason: str, policy: str, now_ns: int) -> None:
        """Let the old version answer again. It has no memory to catch up with: features are that."""
        self.probation = None
        assert self.new is not None, "it was live"
        assert self.old is not None, "it was live"
        self.stage.take(self.old, self._answer)
        _end(self.new)


def _end(model: QuoteModel[Any]) -> None:
    if isinstance(model, RemoteModel):
        model.close()
