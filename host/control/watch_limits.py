"""How many watches may go on at a time: each is a stream, a task and a reader of the journal."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from host.config import ControlSection
from host.control.reasons import Refused

__all__ = ["WatchLimits"]


class WatchLimits:
    """Counts the watches under way, of all callers and of each."""

    def __init__(self) -> None:
        self._of_callers: Counter[str] = Counter()

    @contextmanager
    def one_more(self, caller: str, limits: ControlSection) -> Iterator[None]:
        """Count one more while the body runs; raise `Refused` where there are enough."""
        own, all_ = self._of_callers[caller], self._of_callers.total()
        for count, most, whose in (
            (own, limits.max_watches_per_caller, f"{caller} has"),
            (all_, limits.max_watches, "there are"),
        ):
            if count >= most:
                text = f"{whose} {count} watches already, which is as many as may be; end one first"
                raise Refused("TOO_MANY_WATCHES", text, most=str(most))
        self._of_callers[caller] += 1
        try:
            yield
        finally:
            self._of_callers[caller] -= 1
            if not self._of_callers[caller]:
                del self._of_callers[caller]
