"""Watching an adapter's version that has just gone live: its connections, its answers, its books."""

from collections.abc import Callable, Sequence
from typing import Final

from host.core.books import Book
from host.runtime.reload.probation import ProbationLimits

__all__ = ["AdapterProbation"]

MOST_LOSSES: Final = 2
MOST_UNANSWERED: Final = 5
MOST_BOOK_FAULT_NS: Final = 3_000_000_000
MOST_SILENCE_NS: Final = 10_000_000_000
"""Of all books together, where the version before delivered events all the time."""


class AdapterProbation:
    """Counts what goes wrong on the connections of a version that has just gone live."""

    def __init__(
        self, books: Sequence[Book], limits: ProbationLimits, now_ns: Callable[[], int], *, was_busy: bool
    ) -> None:
        self.losses = 0
        self.unanswered = 0
        self.failure = ""
        """What its code raised."""
        self._books = [book for book in books if book.is_valid]
        self._limits = limits
        self._now_ns = now_ns
        self._started_ns = now_ns()
        self._was_busy = was_busy
        self._bad_since_ns = 0
        """Since when a look at the books has always found a bad one."""

    def fault(self) -> str:
        """Return why the version must go back, or an empty text."""
        now_ns = self._now_ns()
        if all(book.is_valid for book in self._books):
            self._bad_since_ns = 0
        elif not self._bad_since_ns:
            self._bad_since_ns = now_ns
        if self.failure:
            return self.failure
        if self.losses > MOST_LOSSES:
            return f"it lost {self.losses} connections"
        if self.unanswered > MOST_UNANSWERED:
            return f"{self.unanswered} of its requests stayed without an answer"
        if self._bad_since_ns and now_ns - self._bad_since_ns > MOST_BOOK_FAULT_NS:
            [bad, *_] = [book for book in self._books if not book.is_valid]
            return f"its book of {bad.symbol} is no good: {bad.invalid_reason}"
        silent_ns = min((book.age_ns(now_ns) for book in self._books), default=0)
        if self._was_busy and min(silent_ns, now_ns - self._started_ns) > MOST_SILENCE_NS:
            return f"it has delivered nothing for {silent_ns / 1e9:.0f} s"
        return ""

    def is_over(self, now_ns: int) -> bool:
        """Return whether it has been watched for long enough."""
        return now_ns - self._started_ns >= self._limits.seconds * 1e9
