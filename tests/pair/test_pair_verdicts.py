"""The judge of a running pair: it reads as the logs grow, and finds each broken promise once."""

from decimal import Decimal
from pathlib import Path

import pytest

from host.api import Side
from host.journal import cut_tail, replace_journal
from tests.pair.venue_story import QTY, VenueStory

OLD_BUY, OLD_SELL, NEW_BUY = "tdt5i1n1", "tdt5i1n2", "tdt6i1n1"


@pytest.fixture
def story(tmp_path: Path) -> VenueStory:
    """A leads in epoch 5, b follows, and two orders of a rest at the venue."""
    story = VenueStory(tmp_path)
    story.lead(5, "a", "b")
    story.mean_place(OLD_BUY, "a", "b")
    story.place(OLD_BUY)
    story.mean_place(OLD_SELL, "a", "b", side=Side.SELL)
    story.place(OLD_SELL, side=Side.SELL)
    return story


def test_a_takeover_is_timed_from_order_to_order_and_its_adopted_orders_are_counted(
    story: VenueStory,
) -> None:
    judge = story.judge()
    judge.catch_up()
    last_ns = story.now_ns
    story.lead(6, "b")
    story.mean_amend(OLD_BUY, 101, "b")
    story.amend(OLD_BUY, 101)
    judge.catch_up()
    [switch] = judge.switches
    assert (switch.old_leader, switch.new_leader, switch.adopted) == ("a", "b", 2)
    assert (switch.last_ns, switch.first_ns) == (last_ns, story.now_ns)
    assert judge.leader == "b"
    assert judge.verdict.wrongs == []


def test_an_order_that_no_journal_has_is_lost(story: VenueStory) -> None:
    judge = story.judge()
    story.place("tdt5i1n9")
    judge.catch_up()
    assert judge.verdict.lost == ["order tdt5i1n9 was accepted and is in no journal"]


def test_an_order_beside_another_of_the_same_quote_is_doubled(story: VenueStory) -> None:
    judge = story.judge()
    story.lead(6, "b")
    story.mean_place(NEW_BUY, "b")
    story.place(NEW_BUY)
    judge.catch_up()
    assert len(judge.verdict.doubled) == 1
    assert "placed beside tdt5i1n1" in judge.verdict.doubled[0]


@pytest.mark.parametrize("how", ["ended", "filled"])
def test_an_order_in_the_place_of_one_that_is_gone_is_not_doubled(story: VenueStory, how: str) -> None:
    judge = story.judge()
    if how == "ended":
        story.end(OLD_BUY)
    else:
        story.fill(OLD_BUY)
    story.lead(6, "b")
    story.mean_place(NEW_BUY, "b")
    story.place(NEW_BUY)
    judge.catch_up()
    assert judge.verdict.wrongs == []
    assert judge.resting_by_epoch == {5: 1, 6: 1}


def test_a_part_of_a_fill_leaves_the_order_resting(story: VenueStory) -> None:
    judge = story.judge()
    story.fill(OLD_BUY, QTY / 2)
    judge.catch_up()
    assert judge.resting_by_epoch == {5: 2}
    assert judge.positions == {"BTC-USDT": QTY / 2}


def test_an_amend_that_arrives_more_often_than_it_was_meant_is_doubled(story: VenueStory) -> None:
    judge = story.judge()
    story.mean_amend(OLD_BUY, 101, "a", "b")
    story.amend(OLD_BUY, 101)
    judge.catch_up()
    assert judge.verdict.wrongs == []
    story.amend(OLD_BUY, 101)
    judge.catch_up()
    assert len(judge.verdict.doubled) == 1


def test_an_order_that_the_venue_knows_already_is_doubled(story: VenueStory) -> None:
    judge = story.judge()
    story.place(OLD_BUY, verdict="duplicate_id")
    judge.catch_up()
    assert judge.verdict.doubled == [f"order {OLD_BUY} was sent twice"]


def test_an_order_of_a_deposed_leader_is_stale_and_one_refused_for_its_age_is_not(story: VenueStory) -> None:
    judge = story.judge()
    story.end(OLD_BUY)
    story.lead(6, "b")
    story.mean_place(NEW_BUY, "b")
    story.place(NEW_BUY)
    story.mean_amend(OLD_SELL, 102, "a")
    story.place("tdt5i1n7", verdict="expired_request")
    judge.catch_up()
    assert judge.verdict.wrongs == []
    assert judge.refused["expired_request"] == 1
    story.amend(OLD_SELL, 102)
    judge.catch_up()
    assert len(judge.verdict.stale) == 1


def test_what_a_new_epoch_never_saw_counts_when_it_was_set_aside(story: VenueStory) -> None:
    judge = story.judge()
    judge.catch_up()
    held = story.journals["a"].last_lsn
    story.mean_amend(OLD_BUY, 103, "a")  # sent, and never replicated
    story.journals["a"].close()
    assert cut_tail(story.folder / "a", held, story.now_ns) is not None
    story.open("a")
    story.lead(6, "b", "a")
    story.amend(OLD_BUY, 103)
    story.mean_amend(OLD_BUY, 104, "b", "a")
    story.amend(OLD_BUY, 104)
    judge.catch_up()
    assert judge.verdict.wrongs == []
    assert [switch.new_epoch for switch in judge.switches] == [6]


@pytest.mark.parametrize("held", ["something", "nothing"])
def test_a_standby_that_began_anew_with_a_snapshot_is_read_on_when_it_leads(
    held: str, tmp_path: Path
) -> None:
    story = VenueStory(tmp_path)
    story.lead(5, *("a", "b") if held == "something" else ("a",))
    story.mean_place(OLD_BUY, "a")
    story.place(OLD_BUY)
    judge = story.judge()
    judge.catch_up()
    story.journals["b"].close()
    replace_journal(
        story.folder / "b",
        node="b",
        cell="pair",
        lsn=story.journals["a"].last_lsn,
        snapshot=b"state",
        segment_bytes=1 << 16,
        now_ns=story.now_ns,
    )
    story.open("b")
    story.lead(6, "b")
    story.mean_amend(OLD_BUY, 104, "b")
    story.amend(OLD_BUY, 104)
    judge.catch_up()
    assert judge.verdict.wrongs == []
    assert judge.leader == "b"


def test_journals_that_contradict_each_other_are_a_fault(story: VenueStory) -> None:
    judge = story.judge()
    story.mean_place("tdt5i1n8", "a")
    story.mean_place("tdt5i1n9", "b")
    judge.catch_up()
    assert len(judge.verdict.faults) == 1


def test_a_line_that_is_being_written_waits_for_its_end(story: VenueStory) -> None:
    judge = story.judge()
    story.tear()
    judge.catch_up()
    assert judge.accepted == 2


def test_why_a_leader_yielded_is_told_with_the_switch(story: VenueStory) -> None:
    judge = story.judge()
    story.yield_lead("venue:paper: b does better", "a", "b")
    story.lead(6, "b")
    story.mean_amend(OLD_BUY, 101, "b")
    story.amend(OLD_BUY, 101)
    judge.catch_up()
    assert judge.switches[0].reason == "venue:paper: b does better"


def test_the_longest_pause_is_that_since_the_moment_asked_for(story: VenueStory) -> None:
    judge = story.judge()
    story.now_ns += 500_000_000
    for price in (101, 102):
        story.mean_amend(OLD_BUY, price, "a", "b")
        story.amend(OLD_BUY, price)
        after_ns = story.now_ns
    judge.catch_up()
    assert judge.longest_pause_ms(0) == pytest.approx(502, abs=1)
    assert judge.longest_pause_ms(after_ns - 1) == pytest.approx(2, abs=1)
    assert Decimal(judge.accepted) == 4
