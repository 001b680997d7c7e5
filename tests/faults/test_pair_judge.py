"""The judge finds what it is there to find: each promise is broken once, and once kept."""

from decimal import Decimal
from pathlib import Path

import msgspec
import pytest

from host.api import (
    AmendOrder,
    Liquidity,
    OrderFilled,
    OrderStatus,
    OrderType,
    PlaceOrder,
    Side,
    TimeInForce,
)
from host.core import entries as e
from host.journal import Journal, cut_tail
from tests.faults.intents import IntentBook
from tests.faults.pair_judge import Verdict, judge
from venue.ledger import AccountOpened, LedgerLine, OrderEnded, RequestSeen, Traded

MS = 1_000_000
QTY = Decimal("0.01")
OLD_BUY, OLD_SELL, NEW_BUY = "tdt5i1n1", "tdt5i1n2", "tdt6i1n1"


class Story:
    """What happened between two nodes and a venue, told by one statement after the other."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.now_ns = 0
        self._lines: list[LedgerLine] = [AccountOpened("acc", {"USDT": Decimal(1000)})]
        self._journals = {
            name: Journal.open(folder / name, node=name, cell="main", segment_bytes=1 << 16)
            for name in ("a", "b")
        }

    def write(self, *nodes: str, entry: e.Entry) -> None:
        """Journal an entry on these nodes: on the first because it leads, on the others as copies."""
        self.now_ns += MS
        for node in nodes:
            self._journals[node].append(entry, self.now_ns)
            self._journals[node].flush()

    def lead(self, node: str, epoch: int, *copies: str) -> None:
        self.write(node, *copies, entry=e.NodeStarted(node, "main", epoch, "test"))

    def place(self, client_id: str, *nodes: str, side: Side = Side.BUY) -> None:
        sent = e.PlaceSent(
            *(client_id, "mm", "acc", "BTC-USDT", side, OrderType.LIMIT, TimeInForce.GTC),
            *(Decimal(100), QTY, False, False, 0),
        )
        self.write(*nodes, entry=sent)

    def amend(self, client_id: str, price: int, *nodes: str) -> None:
        self.write(*nodes, entry=e.AmendSent((e.Change(client_id, Decimal(price), QTY),)))

    def arrive(self, command: PlaceOrder | AmendOrder, verdict: str = "accepted") -> None:
        """The venue sees a request."""
        self.now_ns += MS
        self._lines.append(
            RequestSeen(self.now_ns, "acc", command.client_id, command, 0, self.now_ns, verdict)
        )

    def arrive_place(self, client_id: str, verdict: str = "accepted", side: Side = Side.BUY) -> None:
        terms = (side, OrderType.LIMIT, TimeInForce.GTC, Decimal(100), QTY, False, False)
        self.arrive(PlaceOrder(client_id, "BTC-USDT", *terms), verdict)

    def arrive_amend(self, client_id: str, price: int) -> None:
        self.arrive(AmendOrder(client_id, "BTC-USDT", Side.BUY, Decimal(price), QTY))

    def end(self, client_id: str) -> None:
        self._lines.append(OrderEnded(self.now_ns, "acc", client_id, OrderStatus.CANCELLED, "", Decimal(0)))

    def fill(self, client_id: str, qty: Decimal) -> None:
        terms = ("BTC-USDT", Side.BUY, "1", Decimal(100), qty, Decimal(0), "USDT", Liquidity.MAKER)
        self._lines.append(Traded("acc", OrderFilled(client_id, *terms, self.now_ns)))

    def verdict(self) -> Verdict:
        log = self.folder / "venue.jsonl"
        log.write_bytes(b"".join(msgspec.json.encode(line) + b"\n" for line in self._lines))
        for journal in self._journals.values():
            journal.close()
        return judge(log, "acc", [self.folder / "a", self.folder / "b"])


@pytest.fixture
def story(tmp_path: Path) -> Story:
    """A leads in epoch 5 and has two orders at the venue, one of which b does not know of."""
    story = Story(tmp_path)
    story.lead("a", 5, "b")
    story.place(OLD_BUY, "a", "b")
    story.arrive_place(OLD_BUY)
    story.place(OLD_SELL, "a", side=Side.SELL)
    story.arrive_place(OLD_SELL, side=Side.SELL)
    return story


def test_a_takeover_that_keeps_every_promise_is_found_right_and_timed(story: Story) -> None:
    story.lead("b", 6)
    story.end(OLD_SELL)
    story.amend(OLD_BUY, 101, "b")
    story.arrive_amend(OLD_BUY, 101)
    story.fill(OLD_BUY, QTY)
    story.place(NEW_BUY, "b")
    story.arrive_place(NEW_BUY)
    verdict = story.verdict()
    assert verdict.wrongs == []
    [switch] = verdict.switches
    assert (switch.old_leader, switch.new_leader, switch.new_epoch, switch.gap_ms) == ("a", "b", 6, 3.0)
    assert verdict.accepted == 4


def test_an_order_of_a_deposed_leader_is_stale(story: Story) -> None:
    story.place("tdt5i1n3", "a", side=Side.SELL)
    story.lead("b", 6)
    story.end(OLD_SELL)
    story.end(OLD_BUY)
    story.place(NEW_BUY, "b")
    story.arrive_place(NEW_BUY)
    story.arrive_place("tdt5i1n3", side=Side.SELL)
    verdict = story.verdict()
    assert len(verdict.stale) == 1 and verdict.wrongs == verdict.stale
    assert "of epoch 5 (tdt5i1n3)" in verdict.stale[0]


def test_an_amend_of_a_deposed_leader_is_stale_though_the_order_is_as_old_as_it(story: Story) -> None:
    story.amend(OLD_BUY, 102, "a")
    story.lead("b", 6)
    story.amend(OLD_BUY, 101, "b")
    story.arrive_amend(OLD_BUY, 101)
    story.arrive_amend(OLD_BUY, 102)
    assert len(story.verdict().stale) == 1


def test_an_amend_that_both_leaders_wanted_counts_for_the_one_that_could_have_sent_it(story: Story) -> None:
    story.amend(OLD_BUY, 101, "a")  # never left
    story.lead("b", 6)
    story.amend(OLD_BUY, 102, "b")
    story.arrive_amend(OLD_BUY, 102)
    story.amend(OLD_BUY, 101, "b")
    story.arrive_amend(OLD_BUY, 101)
    assert story.verdict().wrongs == []


def test_a_late_order_that_the_venue_refused_is_no_wrong(story: Story) -> None:
    story.place("tdt5i1n3", "a")
    story.lead("b", 6)
    story.amend(OLD_BUY, 101, "b")
    story.arrive_amend(OLD_BUY, 101)
    story.arrive_place("tdt5i1n3", "expired_request")
    verdict = story.verdict()
    assert (verdict.wrongs, verdict.late) == ([], [("tdt5i1n3", 6)])


def test_an_order_without_an_intent_is_lost(story: Story) -> None:
    story.arrive_place("tdt5i1n9")
    verdict = story.verdict()
    assert verdict.lost == ["order tdt5i1n9 was accepted and is in no journal"]


def test_an_amend_without_an_intent_is_lost(story: Story) -> None:
    story.arrive_amend(OLD_BUY, 103)
    assert len(story.verdict().lost) == 1


def test_an_intent_that_only_a_dead_leader_s_journal_held_is_lost_with_it(story: Story) -> None:
    log_of_both = story.verdict()
    assert log_of_both.wrongs == []
    alone = judge(story.folder / "venue.jsonl", "acc", [story.folder / "b"])
    assert [text.split()[1] for text in alone.lost] == [OLD_SELL]


def test_an_intent_that_was_set_aside_is_not_lost(story: Story) -> None:
    story.amend(OLD_BUY, 104, "a")
    story.arrive_amend(OLD_BUY, 104)
    assert story.verdict().wrongs == []
    assert cut_tail(story.folder / "a", 2, 0) is not None
    verdict = judge(story.folder / "venue.jsonl", "acc", [story.folder / "a", story.folder / "b"])
    assert verdict.wrongs == []
    assert {intent.epoch for intent in IntentBook([story.folder / "a"]).places.values()} == {5}


@pytest.mark.parametrize("verdict", ["accepted", "duplicate_id"])
def test_an_order_that_arrives_twice_is_doubled(story: Story, verdict: str) -> None:
    story.end(OLD_BUY)
    story.arrive_place(OLD_BUY, verdict)
    assert len(story.verdict().doubled) == 1


def test_an_amend_that_is_accepted_more_often_than_it_was_meant_is_doubled(story: Story) -> None:
    story.amend(OLD_BUY, 101, "a")
    story.arrive_amend(OLD_BUY, 101)
    story.arrive_amend(OLD_BUY, 101)
    assert len(story.verdict().doubled) == 1


def test_a_quote_placed_beside_its_own_order_that_still_rests_is_doubled(story: Story) -> None:
    story.fill(OLD_BUY, QTY / 2)
    story.lead("b", 6)
    story.place(NEW_BUY, "b")
    story.arrive_place(NEW_BUY)
    [doubled] = story.verdict().doubled
    assert NEW_BUY in doubled and OLD_BUY in doubled


def test_one_epoch_of_two_leaders_is_a_fault(story: Story) -> None:
    story.lead("b", 5)
    assert "epoch 5 was begun by a and by b" in story.verdict().faults


def test_journals_that_tell_one_entry_differently_are_a_fault(story: Story) -> None:
    story.place("tdt5i1n3", "b")  # where a has the order that it sold with
    assert len(story.verdict().faults) == 1
