"""What the warm-up says of how two versions differ."""

from types import SimpleNamespace
from typing import Any, cast

from hypothesis import given
from hypothesis import strategies as st

from host.api import Quote
from host.runtime.reload.comparison import Comparison
from host.runtime.reload.probation import Baseline
from host.runtime.reload.shadow import Intent, Shadow

Wanted = list[list[int]]
"""The prices of the bids that a version wanted, event by event."""


class Told:
    """Stands where a shadow would: what its strategy wanted is given."""

    def __init__(self, wanted: Wanted) -> None:
        self.wanted = wanted
        self.heard = 0
        self.counted = Baseline(events=len(wanted), handler_ns=1_500 * len(wanted))
        self._intents: list[Intent] = []

    def hear(self, until: int) -> None:
        for at in range(self.heard, until):
            self._intents += [Intent(at, "quote", "X", (_quote(price),)) for price in self.wanted[at]]
        self.heard = until

    def take_intents(self) -> list[Intent]:
        taken, self._intents = self._intents, []
        return taken


def _quote(price: int) -> Quote:
    return cast(Quote, SimpleNamespace(bid=price, ask=price + 2))


def compared(old: Wanted, new: Wanted, cuts: set[int]) -> str:
    before, now = Told(old), Told(new)
    comparison = Comparison(cast(Shadow, before), cast(Shadow, now))
    for until in [*sorted(cut for cut in cuts if cut < len(old)), len(old)]:
        before.hear(until)
        now.hear(until)
        comparison.step()
    return comparison.words()


COST = "; 1.5 µs per event, was 1.5 µs"
events = st.lists(st.tuples(*[st.lists(st.integers(1, 3), max_size=3)] * 2), max_size=8)


def test_equal_versions_are_said_to_be_so() -> None:
    assert compared([[1], [], [2, 3]], [[1], [], [2, 3]], set()) == (
        f"the same 3 intents as the version that runs{COST}"
    )


def test_more_or_fewer_intents_are_counted() -> None:
    assert compared([[1], [2]], [[1], [2, 3]], set()) == f"3 intents, the version that runs has 2{COST}"


def test_first_difference_is_shown_and_what_follows_is_paired_by_event() -> None:
    assert compared([[1], [2], [3]], [[1], [7], [3]], set()) == (
        f"1 of 3 intents differ, the first: quote X 2/4, now quote X 7/9{COST}"
    )
    assert compared([[1], [2], [3]], [[], [2, 1], [3]], set()) == (
        f"2 of 3 intents differ, the first: quote X 1/3, now nothing{COST}"
    )


@given(events, st.sets(st.integers(0, 8)))
def test_how_often_the_loop_gets_its_turn_does_not_show(told: list[Any], cuts: set[int]) -> None:
    old, new = [list(event[0]) for event in told], [list(event[1]) for event in told]

    assert compared(old, new, cuts) == compared(old, new, set())
