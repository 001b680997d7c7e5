"""Dead man's switches: timers that cancel an account's orders unless they are armed again in time."""

from collections.abc import Callable
from typing import Final

__all__ = ["REASON", "DeadManSwitches"]

REASON: Final = "dead man's switch"
"""Why an order was cancelled that a switch reached."""


class DeadManSwitches:
    """One switch per account and tag; it covers the orders whose client ids begin with the tag.

    `at` calls something back at a time of the exchange's, `run_out` cancels what an account's tag covers.
    """

    def __init__(
        self,
        at: Callable[[int, Callable[[int], None]], None],
        run_out: Callable[[str, str, int], None],
    ) -> None:
        self._at = at
        self._run_out = run_out
        self._armings: dict[tuple[str, str], int] = {}

    def arm(self, account: str, tag: str, after_ns: int, now_ns: int) -> None:
        """Have the switch run out in `after_ns` unless it is armed again before; 0 disarms it."""
        number = self._armings[account, tag] = self._armings.get((account, tag), 0) + 1

        def due(due_ns: int) -> None:
            if self._armings[account, tag] == number:  # else it was armed again
                self._run_out(account, tag, due_ns)

        if after_ns:
            self._at(now_ns + after_ns, due)
