"""Whatever is saved, and whenever: the orders are those of a host that ran what survived, all along.

Every order, amend and cancel is the same, in the same order. What a version placed itself that was taken
back is there too: with the policy `keep` it stays; with `cancel` the other host's operator cancels, in
that turn, what its strategy placed since the swap; with `flatten` he closes the position as well.
"""

import os
import shutil
import tempfile
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal

import pytest
from desk_tools import BTC, Desk, ScriptedVenue
from hypothesis import given, settings
from hypothesis import strategies as st
from reload_tools import ReloadDesk, taking

from host.api import AmendOrder, BookTop, CancelOrder, Fill, NoParams, PlaceOrder, Quote, State, Strategy
from host.core import entries as e
from host.core.entries import InstanceState, VersionState
from host.runtime.reload import ProbationLimits, ReloadSettings

EXAMPLES = int(os.environ.get("TANDEM_RELOAD_EXAMPLES", "25"))

VERSION = """
    from decimal import Decimal
    from typing import ClassVar

    from host.api import BookTop, Fill, Quote, State, Strategy

    # edit {number}

    class MakerState(State):
        state_version: ClassVar[int] = {state_version}
        books: int = 0
        fills: int = 0
        traded: Decimal = Decimal(0)
        padding: list[int] = []

        @classmethod
        def upgrade(cls, version, data):
            return {{**data, "padding": [*data["padding"], version]}}

    class Maker(Strategy):
        state: MakerState

        def on_start(self) -> None:
            self.own_books = 0

        def on_book(self, book: BookTop) -> None:
            self.state.books += 1
            self.own_books += 1
            away = {offset} + 0.01 * (self.state.fills % 5)
            one = Decimal(1)
            self.quote(book.symbol, Quote(book.bid - away, one, book.ask + away, one))
            if self.state.books % 4 == 0:
                self.buy_limit(book.symbol, one, Decimal(str(round(book.bid - 5, 2))))
            if {is_bad} and self.state.books >= {bad_from}:
                {bug}

        def on_fill(self, fill: Fill) -> None:
            self.state.fills += 1
            self.state.traded += fill.qty
"""


class ReferenceState(State):
    """What every version remembers."""

    books: int = 0
    fills: int = 0
    traded: Decimal = Decimal(0)


class Reference(Strategy[NoParams]):
    """What all versions do, with the offset of the one that has the word."""

    state: ReferenceState
    offset = 0.02

    def on_book(self, book: BookTop) -> None:
        self.state.books += 1
        away = self.offset + 0.01 * (self.state.fills % 5)
        one = Decimal(1)
        self.quote(book.symbol, Quote(book.bid - away, one, book.ask + away, one))
        if self.state.books % 4 == 0:
            self.buy_limit(book.symbol, one, Decimal(str(round(book.bid - 5, 2))))

    def on_fill(self, fill: Fill) -> None:
        self.state.fills += 1
        self.state.traded += fill.qty


Policy = Literal["keep", "cancel", "flatten"]
BUGS = {"raises": "raise RuntimeError('bad')", "hangs": taking(150.0)}

events = st.one_of(
    st.tuples(st.just("top"), st.integers(-8, 8)),
    st.tuples(st.just("top"), st.integers(-8, 8)),
    st.tuples(st.just("fill"), st.integers(0, 5)),
    st.tuples(st.just("wait"), st.integers(1, 3_000)),
)
edits = st.one_of(
    st.tuples(st.sampled_from(["good", "state", "cannot start", "no python"]), st.integers(2, 9)),
    st.tuples(st.sampled_from(["raises", "hangs"]), st.integers(1, 4)),
)


class Comparison:
    """A desk whose strategy is edited all the time beside one that is never reloaded."""

    def __init__(self, folder: Path, policy: Policy) -> None:
        limits = ProbationLimits(seconds=2.0, events=5)
        self.rig = ReloadDesk(folder, settings=ReloadSettings(rollback_policy=policy, limits=limits))
        self.policy = policy
        self.rig.write(self.text(0.02))
        self.rig.load()
        self.instance = self.rig.run("mm")
        self.desk = Desk(folder / "reference", ScriptedVenue())
        self.reference = Reference(NoParams())
        self.desk.run("mm", self.reference)
        self.edits = self.rollbacks = 0
        self.swapped_ns = 0
        self.tops = 0
        self.price = 60_000.0
        self.offsets = {self.digest: 0.02}

    @property
    def digest(self) -> str:
        return self.rig.desk.engine.state.instances["mm"].digest

    @property
    def state(self) -> Any:
        return self.instance.strategy.state

    def text(self, offset: float, **changes: Any) -> str:
        fields = {"number": 0, "state_version": 1, "is_bad": False, "bad_from": 0, "bug": "pass"}
        return VERSION.format(**fields | {"offset": offset} | changes)

    def step(self, action: str, number: int) -> None:
        if action == "top":
            self.tops += 1
            self.price += number / 10
            self.rig.desk.top(self.price, self.price + 0.1)
            now_ns = self.desk.clock.now_ns()
            self.desk.feed.market(
                BookTop(BTC, self.price, 1.0, self.price + 0.1, 1.0, now_ns, now_ns, self.tops)
            )
            if self.was_rolled_back():
                self.undo(now_ns)
            self.desk.settle()
        elif action == "fill":
            for desk in (self.rig.desk, self.desk):
                # What closes a position has no price, and this venue trades at an order's own.
                resting = [order for order in desk.venue.open() if order.price is not None]
                if resting:
                    desk.venue.trade(resting[number % len(resting)], "0.5" if number % 2 else "0.25")
                desk.settle()
        elif action == "wait":
            for desk in (self.rig.desk, self.desk):
                desk.advance(number / 1000)
        else:
            self.edit(action, number)
        # A bug is added to what has earned its place, so taking it back changes no logic.
        self.reference.offset = self.offsets[self.digest]

    def was_rolled_back(self) -> bool:
        before = self.rollbacks
        self.rollbacks = sum(report.state is VersionState.ROLLED_BACK for report in self.rig.reports)
        return self.rollbacks > before

    def undo(self, now_ns: int) -> None:
        """Do by hand what the policy says of a version that is taken back."""
        engine = self.desk.engine
        if self.policy == "keep":
            return
        engine.begin_turn(now_ns)
        placed = [o for o in engine.state.orders.values() if o.slot < 0 and o.created_ns >= self.swapped_ns]
        engine.oms.cancel_all(placed, "rolled back", now_ns)
        if self.policy == "flatten":
            engine.safety.flattening.begin("instance:mm", "rolled back")
        engine.end_turn(now_ns, 0)

    def edit(self, kind: str, number: int) -> None:
        for desk in (self.rig.desk, self.desk):
            desk.advance(0.001)  # so that what was placed before the swap is seen to be
        if not self.rig.reloader.on_probation:
            self.swapped_ns = self.rig.desk.clock.now_ns()
        self.edits += 1
        permanent = self.offsets[self.rig.desk.engine.state.plugin("maker").permanent]
        changes: dict[str, Any] = {"number": self.edits, "state_version": type(self.state).state_version}
        offset = permanent
        if kind in ("good", "state"):
            offset = number / 100
            changes["state_version"] += kind == "state"
        elif kind in BUGS:
            changes |= {"is_bad": True, "bad_from": self.state.books + number, "bug": BUGS[kind]}
        text = self.text(offset, **changes)
        if kind == "cannot start":
            text = text.replace("self.own_books = 0", "self.own_books = 1 / 0")
        elif kind == "no python":
            text += "\n    def\n"
        report = self.rig.save(text, is_ordered=True)
        is_live = kind not in ("cannot start", "no python")
        assert report.state is (VersionState.ACTIVE if is_live else VersionState.REFUSED), report.reason
        self.offsets[report.digest] = offset

    def check(self) -> None:
        sent, wanted = (
            [c for c in desk.venue.sent if isinstance(c, PlaceOrder | AmendOrder | CancelOrder)]
            for desk in (self.rig.desk, self.desk)
        )
        assert sent == wanted
        closing, wanted_closing = (
            [(entry.scope, entry.is_on) for entry in desk.entries if isinstance(entry, e.FlattenSet)]
            for desk in (self.rig.desk, self.desk)
        )
        assert closing == wanted_closing
        state, reference = self.state, self.reference.state
        assert (state.books, state.fills, state.traded) == (
            reference.books,
            reference.fills,
            reference.traded,
        )
        assert state.books == self.tops, "every event once"
        assert self.rig.desk.state_of("mm") is InstanceState.RUNNING
        assert self.rig.desk.engine.state.orders.keys() == self.desk.engine.state.orders.keys()

    def close(self) -> None:
        self.rig.close()
        self.desk.journal.close()


@pytest.mark.parametrize("policy", ["keep", "cancel", "flatten"])
@settings(max_examples=EXAMPLES, deadline=None)
@given(st.lists(st.one_of(events, events, events, edits), max_size=60))
def test_orders_are_those_of_a_host_that_ran_the_surviving_versions(
    policy: Policy, steps: list[tuple[str, int]]
) -> None:
    folder = Path(tempfile.mkdtemp())
    comparison = Comparison(folder, policy)
    try:
        for action, number in steps:
            comparison.step(action, number)
        comparison.check()
    finally:
        comparison.close()
        shutil.rmtree(folder)
