"""What the roster knows of a strategy whose code runs in another process."""

from typing import Any

from msgspec import Raw

from host.api import Strategy
from host.core.entries import InstanceState

__all__ = ["RemoteStrategy"]


class RemoteStrategy(Strategy[Any]):
    """Stands in an instance for a strategy in another process: its callbacks pass on what happened.

    What comes back enters as a turn of its own. `state` is what was last saved, as bytes. A report
    counts as heard when the other side says so (`Roster.heard`), not when it is told: until then it
    is in `TradingState.unheard`, for whoever takes that side's place.
    """

    def __init__(self, params: Any) -> None:
        self.params = params
        self.state: Any = Raw(b"\xc0")

    def restore(self, version: int, data: bytes) -> None:
        """Keep a saved state for the other side, which brings it up to its own version."""
        raise NotImplementedError

    def tell(self) -> None:
        """Pass on what was reported in this turn, at its end."""
        raise NotImplementedError

    def moved(self, state: InstanceState) -> None:
        """Take note of the state that the instance has reached."""
        raise NotImplementedError
