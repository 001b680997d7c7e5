"""How long to wait before the next attempt: longer each time, and never all clients at once."""

import random
from collections.abc import Callable
from typing import Final

__all__ = ["Backoff"]


class Backoff:
    """Pauses between attempts: doubled each time up to `most_s`, of which a random part is taken.

    Each pause lies between half and all of its step ("equal jitter"), so that clients which lost the
    venue together do not come back together, and none comes back at once.
    """

    def __init__(
        self, first_s: float = 0.1, most_s: float = 30.0, random_: Callable[[], float] = random.random
    ) -> None:
        self._first_s: Final = first_s
        self._most_s: Final = most_s
        self._random: Final = random_
        self._step_s = first_s

    def next_s(self) -> float:
        """Return the seconds to wait now; the next pause is about twice as long."""
        step_s = self._step_s
        self._step_s = min(step_s * 2, self._most_s)
        return step_s * (0.5 + 0.5 * self._random())

    def reset(self) -> None:
        """Begin again with the shortest pause: an attempt succeeded."""
        self._step_s = self._first_s
