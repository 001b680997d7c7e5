"""Watching a version of a strategy that has just gone live in a worker."""

from collections.abc import Callable
from typing import Any, Final

from host.isolation.session import Session
from host.runtime.reload.probation import Baseline, Probation, too_slow

__all__ = ["WorkerProbation"]


class WorkerProbation(Probation):
    """Has the guards of an inline version, but goes by what the worker says its callbacks took.

    What the host measures is how long it takes to pass an event on. A callback that never ends breaks the
    worker's deadline, which loses it. `pace_before` is the version before in its rehearsal; of no events, where
    that came to nothing.
    """

    def __init__(
        self, *args: Any, pace_before: Baseline, session: Callable[[], Session | None], **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        self._pace_before: Final = pace_before
        self._session: Final = session

    def fault(self) -> str:
        """Return why the version must go back, or an empty text."""
        return super().fault() or self._slowness()

    def _slowness(self) -> str:
        session = self._session()
        # Not those that the host passed on: of a slow version's, most are left out.
        events = 0 if session is None or session.outlet is None else session.outlet.handled
        if session is None or events < self.limits.events:
            return ""
        # Its start is among these times, and as a rule the slowest of them, which does not count.
        pace = Baseline(events, handler_ns=session.busy_ns, slowest_ns=session.slowest_us * 1000)
        return too_slow(self.limits, pace, self._pace_before)
