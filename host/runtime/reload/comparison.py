"""How two versions of a strategy differ over the same events: in what they wanted and what it cost."""

from collections import defaultdict
from collections.abc import Iterable
from itertools import zip_longest
from typing import Final, Protocol

from host.runtime.reload.probation import Baseline
from host.runtime.reload.shadow import Intent

__all__ = ["Comparison"]


class Muted(Protocol):
    """A version that is fed events, and what it wanted."""

    @property
    def counted(self) -> Baseline:
        """Return what it did."""

    def take_intents(self) -> list[Intent]:
        """Return what it wanted since this was asked before."""


class Comparison:
    """Compares a version with the one that runs, a few events at a time.

    Intents are taken out of both shadows as they are compared: those of ten seconds are tens of
    thousands, which to compare at one stretch, or to have the collector walk, would hold the loop.
    """

    def __init__(self, old: Muted, new: Muted) -> None:
        self._old: Final = old
        self._new: Final = new
        self._before = self._now = self._differing = 0
        self._first: tuple[Intent | None, Intent | None] | None = None

    def step(self) -> None:
        """Compare what both wanted since the last step; they have heard the same events."""
        old, new = self._old.take_intents(), self._new.take_intents()
        self._before += len(old)
        self._now += len(new)
        if old == new:
            return
        for was, now in _by_event(old, new):
            if was != now:
                self._differing += 1
                self._first = self._first or (was, now)

    def words(self) -> str:
        """Say how they differ."""
        mean_us, was_us = self._new.counted.mean_us, self._old.counted.mean_us
        cost = f"{mean_us:.1f} µs per event, was {was_us:.1f} µs"
        if self._first is None:
            return f"the same {self._now} intents as the version that runs; {cost}"
        if self._before != self._now:
            return f"{self._now} intents, the version that runs has {self._before}; {cost}"
        words = f"the first: {_words(self._first[0])}, now {_words(self._first[1])}"
        return f"{self._differing} of {self._now} intents differ, {words}; {cost}"


def _by_event(old: Iterable[Intent], new: Iterable[Intent]) -> list[tuple[Intent | None, Intent | None]]:
    """Pair what was wanted at one event, in order; None where one version wanted less."""
    events: defaultdict[int, tuple[list[Intent], list[Intent]]] = defaultdict(lambda: ([], []))
    for side, intents in enumerate((old, new)):
        for intent in intents:
            events[intent.at][side].append(intent)
    return [pair for at in sorted(events) for pair in zip_longest(*events[at])]


def _words(intent: Intent | None) -> str:
    if intent is None:
        return "nothing"
    if intent.action == "quote" and intent.what:
        quote = intent.what[0]
        return f"quote {intent.symbol} {quote.bid}/{quote.ask}"
    return f"{intent.action} {intent.symbol}".rstrip()
