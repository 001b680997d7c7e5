"""What is told of a fault: by the venue's log for orders, by the leader for how well a standby is."""

from pathlib import Path

import pytest
from msgspec import structs

from host.pair.faults import Act, Deed, LinkKind
from host.pair.judge import Judge
from host.pair.story import Ending, Story, begin, ready
from host.pair.watching import NodeSeen, StandbySeen
from tests.pair.venue_story import MS, VenueStory

BUY, SELL = "tdt5i1n1", "tdt5i1n2"
WELL = StandbySeen(0, 1.0, "")

LEADER = NodeSeen(
    at_s=100.0,
    leads=True,
    phase="running",
    state="leading",
    epoch=5,
    holder="a",
    right_left_ms=400.0,
    ttl_ms=600.0,
    why_not="",
    standbys={"b": WELL},
    ailments=(),
    orders=2,
    fills=0,
    open_orders=1,
    last_lsn=2,
    instances={"RUNNING": 1},
)
FOLLOWER = structs.replace(LEADER, leads=False, state="watching", right_left_ms=None, standbys={})


class Told:
    """One deed, from its beginning to what is told of it."""

    def __init__(self, folder: Path) -> None:
        self.venue = VenueStory(folder)
        self.venue.lead(5, "a", "b")
        self.venue.mean_place(BUY, "a", "b")
        self.venue.place(BUY)
        self.judge: Judge = self.venue.judge()
        self.judge.catch_up()
        self.seen = {"a": LEADER, "b": FOLLOWER}
        self._began_ns = self.venue.now_ns
        self.story: Story | None = None

    def do(self, deed: Deed, node: str) -> None:
        self.story = begin(
            deed, node, self.judge, self.seen, at_s=1.0, began_ns=self._began_ns, now_s=100.5, ttl_ms=600.0
        )

    def after(self, ms: int, *, flowing: bool = False) -> Ending | None:
        """Let time pass, with a leading or without an order, and return what is told then."""
        self.venue.now_ns = max(self.venue.now_ns, self._began_ns + ms * MS)
        if flowing:
            self.venue.mean_amend(BUY, 200 + ms, "a", "b")
            self.venue.amend(BUY, 200 + ms)
        self.judge.catch_up()
        now_s = 100.5 + ms / 1000
        seen = {name: structs.replace(one, at_s=now_s) for name, one in self.seen.items()}
        assert self.story is not None
        return self.story.look(self.judge, seen, self.venue.now_ns, now_s)

    def b_takes_over(self, ms: int) -> None:
        self.venue.now_ns = self._began_ns + (ms - 3) * MS
        self.venue.lead(6, "b")
        self.venue.mean_amend(BUY, 300, "b")
        self.venue.amend(BUY, 300)


@pytest.fixture
def told(tmp_path: Path) -> Told:
    return Told(tmp_path)


def test_a_takeover_is_told_with_its_time_its_gap_and_the_orders_adopted(told: Told) -> None:
    told.do(Deed(Act.KILL, "a"), "a")
    assert told.after(50) is None
    told.b_takes_over(58)
    assert told.after(100) is None  # stragglers may still come
    end = told.after(400)
    assert end is not None
    assert end.text == (
        "b took over after 58 ms (58 ms without an order at the venue); 1 order adopted; 0 lost, 0 doubled, 0 stale"
    )
    assert end.is_good


def test_a_takeover_with_a_lost_order_is_not_good(told: Told) -> None:
    told.do(Deed(Act.KILL, "a"), "a")
    told.venue.place(SELL)
    told.b_takes_over(58)
    end = told.after(400)
    assert end is not None
    assert end.text.endswith("1 lost, 0 doubled, 0 stale")
    assert not end.is_good


def test_a_leader_that_nobody_replaces_is_told_as_a_failure(told: Told) -> None:
    told.do(Deed(Act.FREEZE, "a"), "a")
    assert told.after(29_000) is None
    end = told.after(31_000)
    assert end is not None
    assert "nobody took over" in end.text
    assert not end.is_good


def test_losing_the_leader_without_a_standby_is_told_and_is_no_failure(told: Told) -> None:
    told.seen["a"] = structs.replace(LEADER, standbys={"b": StandbySeen(9, None, "it lags")})
    told.do(Deed(Act.LOSE, "a"), "a")
    end = told.after(5_000)
    assert end is not None
    assert "no standby that could take over" in end.text
    assert end.is_good


@pytest.mark.parametrize("link", [LinkKind.PEERS, LinkKind.STORE])
def test_a_leader_that_trades_on_though_it_is_cut_off_is_told_with_its_longest_pause(
    told: Told, link: LinkKind
) -> None:
    told.do(Deed(Act.CUT, "a", link), "a")
    for ms in (1_000, 2_000, 3_000):
        assert told.after(ms, flowing=True) is None
    end = told.after(4_000, flowing=True)
    assert end is not None
    assert end.text.startswith("a leads on; its longest pause between two orders was 1,00")
    assert end.is_good


def test_a_leader_that_was_thawed_in_time_leads_on(told: Told) -> None:
    told.do(Deed(Act.FREEZE, "a"), "a")
    end = told.after(4_000, flowing=True)
    assert end is not None
    assert end.text.startswith("a leads on; its longest pause between two orders was 4,00")
    assert end.is_good


def test_a_leader_cut_off_from_the_venue_has_to_be_replaced(told: Told) -> None:
    told.do(Deed(Act.CUT, "a", LinkKind.VENUE), "a")
    assert told.after(5_000) is None
    told.b_takes_over(5_500)
    end = told.after(6_000)
    assert end is not None
    assert end.text.startswith("b took over after 5,500 ms")


def test_a_killed_standby_is_told_when_it_stands_by_again(told: Told) -> None:
    told.do(Deed(Act.KILL, "b"), "b")
    told.seen["a"] = structs.replace(LEADER, standbys={})
    assert told.after(3_000, flowing=True) is None
    told.seen["a"] = LEADER
    end = told.after(4_000, flowing=True)
    assert end is not None
    assert "b stands by again after 4.0 s" in end.text


def test_a_node_that_comes_back_is_told_with_its_requests_that_were_too_old(told: Told) -> None:
    told.seen = {"a": FOLLOWER, "b": structs.replace(LEADER, standbys={})}
    told.do(Deed(Act.THAW, "a"), "a")
    told.venue.place(SELL, verdict="expired_request")
    assert told.after(1_000) is None
    told.seen["b"] = structs.replace(LEADER, standbys={"a": WELL})
    end = told.after(1_200)
    assert end is not None
    assert "the venue refused 1 of its requests for their age" in end.text


def test_a_node_that_does_not_come_back_is_told_with_the_reason(told: Told) -> None:
    told.seen = {"a": structs.replace(LEADER, standbys={"b": StandbySeen(5, None, "its state differs")})}
    told.do(Deed(Act.HEAL, "b"), "b")
    end = told.after(31_000, flowing=True)
    assert end is not None
    assert end.text.startswith("b does not stand by after 31 s: its state differs")
    assert not end.is_good


def test_a_switchover_that_was_refused_is_told_at_once(told: Told) -> None:
    told.do(Deed(Act.SWITCHOVER), "a")
    assert told.story is not None
    told.story.failed = "maintenance"
    end = told.after(1)
    assert end is not None
    assert end.text.startswith("not done: maintenance")
    assert not end.is_good


def test_a_change_of_leader_is_explained_by_the_deed_that_led_to_it_alone(told: Told) -> None:
    told.do(Deed(Act.KILL, "a"), "a")
    told.b_takes_over(58)
    told.judge.catch_up()
    assert told.story is not None
    assert told.story.explains(told.judge.switches[0])
    assert not structs.replace(told.story, node="b").explains(told.judge.switches[0])
    assert not structs.replace(told.story, epoch=4).explains(told.judge.switches[0])


def test_a_standby_is_ready_by_the_word_of_a_leader_who_is_heard_of() -> None:
    assert ready("b", {"a": LEADER}, 100.5)
    assert not ready("b", {"a": LEADER}, 200.0)
    assert not ready("b", {"b": FOLLOWER}, 100.5)
    assert ready("a", {"a": LEADER}, 100.5)
