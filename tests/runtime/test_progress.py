"""Progress, not pulse: what becomes an ailment, from when on, and that none comes and goes."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from desk_tools import ACCOUNT, SECOND, Desk, Quoter, ScriptedVenue
from hypothesis import given
from hypothesis import strategies as st

from host.core.entries import InstanceState
from host.runtime.facts import EngineFacts
from host.runtime.progress import AccountFacts, Condition, Facts, Progress, ProgressSettings

STEP_NS = SECOND // 10
SETTINGS = ProgressSettings(least_disk_bytes=1 << 30)


class Watched:
    """A node that a test makes up, looked at ten times a second."""

    def __init__(self, settings: ProgressSettings = SETTINGS) -> None:
        self.progress = Progress(settings)
        self.now_ns = 0
        self.events = 0
        self.condition = Condition()

    def run(self, seconds: float, events_per_s: float = 0.0, **facts: Any) -> frozenset[str]:
        """Let time pass; `facts` are of the one account."""
        account = facts.pop("account", {})
        until_ns = self.now_ns + round(seconds * SECOND)
        first_ns, first = self.now_ns, self.events
        while self.now_ns < until_ns:
            self.now_ns += STEP_NS
            self.events = first + int((self.now_ns - first_ns) / SECOND * events_per_s)
            accounts = {"acc": AccountFacts(events=self.events, **account)}
            self.condition = self.progress.look(Facts(accounts=accounts, **facts), self.now_ns)
        return self.condition.ailments


def test_a_node_that_gets_on_has_no_ailment() -> None:
    watched = Watched()
    assert watched.run(60, events_per_s=20, disk_free_bytes=1 << 40) == frozenset()
    assert watched.condition == Condition()


def test_market_data_that_falls_silent_is_an_ailment_after_some_seconds() -> None:
    watched = Watched()
    watched.run(600, events_per_s=20)
    assert watched.run(3.0) == frozenset()
    assert watched.run(1.0) == {"market_data:acc"}
    assert watched.condition.reason.startswith("market_data:acc: no event for ")


def test_a_slow_market_is_given_more_time() -> None:
    watched = Watched()
    watched.run(300, events_per_s=0.5)  # one each 2 s
    assert watched.run(17) == frozenset()
    assert watched.run(5) == {"market_data:acc"}


def test_a_market_of_bursts_is_judged_by_its_pauses() -> None:
    watched = Watched()
    for _ in range(30):
        watched.run(1, events_per_s=1_000)
        assert watched.run(5) == frozenset()
    assert watched.run(30) == frozenset()  # and 5 s before
    assert watched.run(20) == {"market_data:acc"}


def test_a_market_that_has_become_faster_is_judged_by_what_it_is_now() -> None:
    watched = Watched()
    watched.run(1_000, events_per_s=0.1)
    watched.run(3_600, events_per_s=20)
    assert watched.run(5) == {"market_data:acc"}


def test_market_data_that_never_came_is_an_ailment_after_half_a_minute() -> None:
    watched = Watched()
    assert watched.run(30) == frozenset()
    assert watched.run(1) == {"market_data:acc"}


def test_an_account_that_follows_nothing_is_not_expected_to_hear_anything() -> None:
    assert Watched().run(60, account={"follows": False}) == frozenset()


def test_a_lost_connection_is_an_ailment_in_its_own_words() -> None:
    watched = Watched()
    watched.run(10, events_per_s=20)
    ailments = watched.run(1, events_per_s=20, account={"is_connected": False, "text": "timed out"})
    assert ailments == {"venue:acc"}
    assert watched.condition.reason == "venue:acc: timed out"


def test_requests_that_nobody_answers_are_an_ailment() -> None:
    watched = Watched()
    asked = {"in_flight": {"x": watched.now_ns}}
    assert watched.run(4.9, events_per_s=20, account=asked) == frozenset()
    assert watched.run(1, events_per_s=20, account=asked) == {"venue:acc"}


def test_one_answer_among_many_says_that_the_venue_is_there() -> None:
    watched = Watched()
    for turn in range(30):
        asked = {"in_flight": {"in doubt": 0, f"order {turn}": turn * SECOND}}
        assert watched.run(1, events_per_s=20, account=asked) == frozenset()


@pytest.mark.parametrize(
    ("facts", "ailment"),
    [
        ({"loop_blocked_ns": SECOND}, "loop"),
        ({"disk_free_bytes": (1 << 30) - 1}, "disk"),
        ({"faulty_plugins": {"mm": "raised"}}, "plugin:mm"),
    ],
)
def test_other_ailments_have_their_words(facts: dict[str, Any], ailment: str) -> None:
    watched = Watched()
    assert watched.run(1, events_per_s=20, **facts) == {ailment}
    assert watched.run(9.9, events_per_s=20) == {ailment}
    assert watched.run(0.3, events_per_s=20) == frozenset()


def test_an_account_that_is_gone_leaves_no_ailment_behind() -> None:
    watched = Watched()
    assert watched.run(40)
    condition = watched.condition
    for _ in range(200):
        watched.now_ns += STEP_NS
        condition = watched.progress.look(Facts(), watched.now_ns)
    assert condition == Condition()


conditions = st.lists(st.tuples(st.booleans(), st.integers(1, 300)), max_size=20)


@given(conditions)
def test_an_ailment_lasts_and_stays_away_for_as_long_as_promised(
    script: Sequence[tuple[bool, int]],
) -> None:
    progress, now_ns = Progress(SETTINGS), 0
    is_on, changed_ns, bad_since, good_since = False, 0, None, None
    for is_bad, steps in script:
        for _ in range(steps):
            now_ns += STEP_NS
            bad_since = (now_ns if bad_since is None else bad_since) if is_bad else None
            good_since = (now_ns if good_since is None else good_since) if not is_bad else None
            facts = Facts(loop_blocked_ns=SECOND if is_bad else 0)
            now_on = "loop" in progress.look(facts, now_ns).ailments
            if now_on != is_on:
                if is_on:  # never shorter than it takes to clear, and only after a good time of that length
                    assert now_ns - changed_ns >= SETTINGS.clear_ns
                    assert good_since is not None and now_ns - good_since >= SETTINGS.clear_ns
                else:
                    assert bad_since is not None and now_ns - bad_since >= SETTINGS.appear_ns
                is_on, changed_ns = now_on, now_ns
            if bad_since is not None and now_ns - bad_since >= SETTINGS.appear_ns:
                assert now_on
            if good_since is not None and now_ns - good_since >= SETTINGS.clear_ns:
                assert not now_on


@given(st.lists(st.integers(0, 30), min_size=1, max_size=40), st.floats(0.5, 200))
def test_a_market_that_keeps_its_pace_never_stalls(jitter: list[int], events_per_s: float) -> None:
    """Gaps of up to four times the mean are what markets do."""
    progress, now_ns, events = Progress(SETTINGS), 0, 0
    gap_ns = int(SECOND / events_per_s)
    for more in jitter * 3:
        due_ns = now_ns + gap_ns + gap_ns * more // 10
        while now_ns < due_ns:
            now_ns += STEP_NS
            events += now_ns >= due_ns
            facts = Facts(accounts={"acc": AccountFacts(events=events)})
            assert progress.look(facts, now_ns).ailments == frozenset()


# -- on a real engine --------------------------------------------------------------------------------


def on_desk(folder: Path, story: Callable[[Desk], None]) -> None:
    desk = Desk(folder, ScriptedVenue())
    try:
        story(desk)
    finally:
        desk.journal.close()


def test_an_engine_shows_its_events_and_its_lines(tmp_path: Path) -> None:
    def story(desk: Desk) -> None:
        desk.run("mm", Quoter())
        look = EngineFacts(desk.engine).now
        assert look().accounts[ACCOUNT].events == 0
        desk.top()  # the orders that follow are no market data
        assert look().accounts[ACCOUNT].events == 1
        assert look().accounts[ACCOUNT].events == 1
        desk.depth(1, 5, is_snapshot=True)
        before = look().accounts[ACCOUNT]
        assert before.events == 2
        desk.connection("orders", is_up=False)
        after = look().accounts[ACCOUNT]
        assert (before.is_connected, after.is_connected) == (True, False)
        assert after.events == before.events

    on_desk(tmp_path, story)


def test_an_engine_shows_what_waits_for_an_answer(tmp_path: Path) -> None:
    def story(desk: Desk) -> None:
        desk.run("mm", Quoter())
        desk.venue.is_deaf = True
        desk.top()
        asked = EngineFacts(desk.engine).now().accounts[ACCOUNT].in_flight
        assert asked.keys() == {order.client_id for order in desk.orders("mm")}
        assert set(asked.values()) == {desk.clock.now_ns()}

    on_desk(tmp_path, story)


def test_an_engine_shows_the_plugins_that_misbehave_and_the_room_that_is_left(tmp_path: Path) -> None:
    class Broken(Quoter):
        def on_book(self, book: object) -> None:
            raise RuntimeError("broken")

    def story(desk: Desk) -> None:
        desk.run("mm", Broken())
        desk.top()
        facts = EngineFacts(desk.engine).now(loop_blocked_ns=7)
        assert desk.state_of("mm") is InstanceState.QUARANTINED
        assert facts.faulty_plugins.keys() == {"mm"}
        assert "broken" in facts.faulty_plugins["mm"]
        assert facts.disk_free_bytes is not None and facts.disk_free_bytes > 0
        assert facts.loop_blocked_ns == 7

    on_desk(tmp_path, story)
