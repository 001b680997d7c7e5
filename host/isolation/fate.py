"""How often a worker may be lost, and how long to wait before it is started again. Sans-IO."""

from collections import deque
from typing import Final

from host.isolation.settings import WorkerSettings

__all__ = ["Fate"]


class Fate:
    """Remembers when one worker was lost."""

    def __init__(self, settings: WorkerSettings) -> None:
        self._settings: Final = settings
        self._lost_ns: deque[int] = deque()

    def lost(self, now_ns: int) -> int | None:
        """Count a loss; return for how many ns to wait before a restart, or None for none: it is a loop."""
        settings, lost = self._settings, self._lost_ns
        lost.append(now_ns)
        while lost[0] < now_ns - settings.crash_window_ns:
            lost.popleft()
        if len(lost) >= settings.crashes:
            return None
        return int(min(settings.backoff_ns << (len(lost) - 1), settings.most_backoff_ns))

    @property
    def count(self) -> int:
        """Return how often it was lost of late."""
        return len(self._lost_ns)

    def forget(self) -> None:
        """Begin anew: other code runs now, or somebody who looked into it started it."""
        self._lost_ns.clear()
