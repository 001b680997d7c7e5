"""What the roster knows of a strategy whose code runs in another process."""

from collections import deque
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from msgspec import Raw, Struct

from host.api import Adjustment, Features, Instrument, Quote, QuoteModel, Strategy
from host.core.entries import InstanceState

if TYPE_CHECKING:
    from host.loader import Offer
    from host.runtime.models import Sample
    from host.runtime.reload.uses import Revision
    from host.runtime.reload.version_change import VersionChange

__all__ = ["RemoteModel", "RemoteStatus", "RemoteStrategy", "class_of"]


class RemoteStatus(Struct, frozen=True, kw_only=True):
    """How things are between the host and a strategy in another process."""

    state: str
    """`starting`, `running`, `waiting` (lost and soon started again, or no client is there), `stopping` or `ended`."""
    pid: int = 0
    """Of its process, where the host started it; else 0."""
    restarts: int = 0
    behind: int = 0
    """Events that it has not handled."""
    lag_ns: int = 0
    """Since when the oldest of them is with it."""
    conflated: int = 0
    """Market events left out because it was too slow."""
    slowest_us: int = 0
    """The longest that it took for one event, as it says."""
    handled_p50_us: float = 0.0
    handled_p99_us: float = 0.0
    """From an event sent until the host hears that it is handled."""
    memory_bytes: int = 0
    refused: int = 0
    """Messages, and requests in them, that broke the rules, and programs that were turned away."""
    repeated: int = 0
    """Turns that had come before."""
    strangers: int = 0
    """Messages and subscriptions without the token."""


class RemoteStrategy(Strategy[Any]):
    """Stands in an instance for a strategy in another process: its callbacks pass on what happened.

    What comes back enters as a turn of its own. `state` is what was last saved, as bytes. A report
    counts as heard when the other side says so (`Roster.heard`), not when it is told: until then it
    is in `TradingState.unheard`, for whoever takes that side's place.
    """

    stands_for: ClassVar[type[Strategy[Any]]] = Strategy
    """The plugin's class."""

    def __init__(self, params: Any) -> None:
        self.params = params
        self.state: Any = Raw(b"\xc0")

    def revision(self, change: "VersionChange") -> "Revision":
        """Return what takes its instance to another version; raise `TandemError` where the host cannot."""
        raise NotImplementedError

    def status(self) -> RemoteStatus:
        """Return how things are with the other side."""
        raise NotImplementedError

    @property
    def is_there(self) -> bool:
        """Return whether anybody is on the other side who hears what is passed on."""
        raise NotImplementedError

    def restore(self, version: int, data: bytes) -> None:
        """Keep a saved state for the other side, which brings it up to its own version."""
        raise NotImplementedError

    def tell(self) -> None:
        """Pass on what was reported in this turn, at its end."""
        raise NotImplementedError

    def ask_state(self) -> None:
        """Have the other side send its state as it is by now; `owes_state` until it has."""
        raise NotImplementedError

    @property
    def owes_state(self) -> bool:
        """Return whether the other side is there, and has yet to send the state that it was asked for."""
        raise NotImplementedError

    def relisted(self, instruments: Sequence[Instrument]) -> None:
        """Pass on what the venue allows from here on for some of its instance's symbols."""
        raise NotImplementedError

    def moved(self, state: InstanceState) -> None:
        """Take note of the state that the instance has reached."""
        raise NotImplementedError


class RemoteModel(QuoteModel[Any]):
    """Stands in a chain of models for one in another process: `adjust` returns what that said last.

    A version on trial that is lost stays so: `failure` says why, until then it is empty.
    """

    budget_us = 1000.0  # asking takes a message, however long the answer takes
    failure = ""
    asked = 0
    """Questions, ever; there are fewer than quotes."""
    broken = 0
    """Those of them at which its code raised, or gave an answer that makes no quote."""

    def status(self) -> RemoteStatus:
        """Return how things are with its worker; what concerns events alone is left out."""
        raise NotImplementedError

    last_error = ""
    """Why there is no answer, where there is none."""
    valid_ms = 1000.0
    """How long an answer holds."""

    def __init__(self, params: Any) -> None:
        super().__init__(params)
        self.recent: deque[Sample] = deque()
        """What it was asked lately, each with its own answer."""

    def renewed(self, offer: "Offer", params: Mapping[str, object]) -> "RemoteModel":
        """Return what stands for another version of it, not started; raise `ParamsInvalid`."""
        raise NotImplementedError

    async def begin_trial(self) -> None:
        """Start it, and return once it can be asked; raise `TandemError` where it does not come to that."""
        raise NotImplementedError

    async def answer(self, features: Features, quote: Quote) -> Adjustment:
        """Ask it and wait for the answer; raise `TandemError` where none comes that is of use."""
        raise NotImplementedError

    def prove_itself(self) -> None:
        """Have it on trial no more: lost, it is started again."""
        raise NotImplementedError

    def close(self) -> None:
        """End it for good."""
        raise NotImplementedError


def class_of(strategy: Strategy[Any]) -> type[Strategy[Any]]:
    """Return the plugin's class that an instance runs, wherever it does."""
    return strategy.stands_for if isinstance(strategy, RemoteStrategy) else type(strategy)
