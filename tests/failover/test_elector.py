"""The elector's decisions, one story each. What must hold in any story at all is in `tests/sim`."""

from typing import Any, TypeVar

import pytest

from failover.elector import FOREVER_NS, Elector, ElectorSettings
from failover.lease import Record, Status
from failover.signals import (
    Action,
    Alert,
    AskPeers,
    CloseGate,
    Drain,
    Follow,
    Health,
    Lead,
    NotifyHeir,
    OpenGate,
    PeerStatus,
    Promise,
    Read,
    Refused,
    Resume,
    Retire,
    Succession,
    Swap,
)
from failover.states import TRANSITIONS, Move, State, next_state

A = TypeVar("A")

TTL_MS = 1000
MS = 1_000_000
START = 50_000 * MS


class Story:
    """An elector, its store, and a clock that only the story moves."""

    def __init__(self, record: Record | None = None, name: str = "a", **settings: Any) -> None:
        peers = settings.pop("peers", ("b",))
        self.now = START
        self.record = record
        self.store_answers = True
        self.hanging: tuple[int, int] | None = None
        self.said: list[Action] = []
        self.elector = Elector(
            ElectorSettings("main", name, f"{name}.1", TTL_MS, peers, **settings),
            self.now,
        )

    def take(self, actions: list[Action]) -> None:
        """Carry out what it says; the store answers at once or never."""
        self.said += actions
        for action in actions:
            if not isinstance(action, Read | Swap):
                continue
            if not self.store_answers:
                self.hanging = (self.now + TTL_MS // 4 * MS, action.request)
            elif isinstance(action, Read):
                self.take(self.elector.on_read(action.request, self.record, self.now))
            else:
                was_swapped = self.record == action.expected
                if was_swapped:
                    self.record = action.new
                self.take(self.elector.on_swapped(action.request, was_swapped, self.now))

    def wait(self, ms: float) -> None:
        """Let time pass without a tick: the process is busy elsewhere."""
        self.now += int(ms * MS)

    def live(self, ms: float) -> None:
        """Let time pass with every tick on time."""
        end = self.now + int(ms * MS)
        while True:
            lost_at, request = self.hanging or (FOREVER_NS, 0)
            due = min(self.elector.next_tick_ns, lost_at)
            if due > end:
                break
            self.now = max(self.now, due)
            if due == lost_at:
                self.hanging = None
                self.take(self.elector.on_unanswered(request, self.now))
            else:
                self.take(self.elector.tick(self.now))
        self.now = max(self.now, end)

    @property
    def state(self) -> State:
        return self.elector.state

    def all(self, kind: type[A]) -> list[A]:
        """Everything of a kind that it has said."""
        return [action for action in self.said if isinstance(action, kind)]

    def last(self, kind: type[A]) -> A:
        return self.all(kind)[-1]

    def forget(self) -> None:
        self.said.clear()


def held_by(holder: str, epoch: int = 4, renewal: int = 1) -> Record:
    return Record("main", epoch, holder, f"{holder}.1", TTL_MS, renewal)


def leading(**settings: Any) -> Story:
    """A node that has just begun to lead, in epoch 5."""
    story = Story(held_by("z").released(2), **settings)
    story.live(1)
    assert story.state is State.LEADING
    story.forget()
    return story


def test_a_released_record_is_claimed_at_once() -> None:
    story = Story(held_by("z").released(2))
    story.live(1)
    assert story.last(Lead) == Lead(5, Succession.RELEASED, held_by("z").released(2))
    assert story.last(OpenGate) == OpenGate(5, START + 900 * MS)


def test_an_abandoned_record_is_claimed_at_once_and_known_for_it() -> None:
    story = Story(held_by("z").released(2, status=Status.ABANDONED))
    story.live(1)
    assert story.last(Lead).succession is Succession.ABANDONED


def test_a_record_released_for_another_is_left_to_it_for_as_long_as_a_candidate_waits() -> None:
    story = Story(held_by("z").released(2, heir="b"))
    story.live(1019)
    assert not story.all(Lead)
    story.live(2)
    assert story.all(Lead)


def test_a_held_record_is_claimed_after_102_hundredths_of_its_holder_s_ttl_without_change() -> None:
    story = Story(Record("main", 4, "z", "z.1", 3000, 1))
    story.live(3059)
    assert not story.all(Lead)
    story.live(2)
    assert story.last(Lead).succession is Succession.EXPIRED


def test_every_renewal_that_is_seen_starts_the_wait_anew() -> None:
    story = Story(held_by("z"))
    for renewal in range(2, 6):
        story.live(900)
        story.record = held_by("z", renewal=renewal)
    story.live(1000)
    assert not story.all(Lead)


def test_without_a_record_the_lease_is_taken_first_and_a_ttl_waited_out_before_the_gate_opens() -> None:
    story = Story(None)
    story.live(1019)
    assert story.record is not None
    assert (story.record.holder, story.record.status) == ("a", Status.FENCING)
    assert not story.all(OpenGate)
    story.live(10)
    assert story.last(Lead) == Lead(1, Succession.FIRST, None)
    assert story.all(OpenGate)
    assert story.record.status is Status.HELD


def test_an_epoch_is_later_than_any_in_the_journal() -> None:
    story = Story(held_by("z", epoch=4).released(2), known_epoch=9)
    story.live(1019)  # a record older than what the journal knows is not trusted to be free
    assert not story.all(Lead)
    story.live(10)
    assert story.last(Lead).epoch == 10


def test_a_right_counts_from_before_the_request() -> None:
    story = leading()
    sent = story.now = story.elector.next_tick_ns
    [swap] = [a for a in story.elector.tick(story.now) if isinstance(a, Swap)]
    story.wait(200)
    story.take(story.elector.on_swapped(swap.request, True, story.now))
    assert story.last(OpenGate).until_ns == sent + 900 * MS


def test_a_lapsed_leader_closes_its_gate_and_opens_it_again_once_it_has_renewed() -> None:
    story = leading()
    story.wait(5000)
    story.live(1)
    closed, opened = story.said.index(story.last(CloseGate)), story.said.index(story.last(OpenGate))
    assert closed < opened
    assert story.state is State.LEADING
    assert not story.all(Follow)


def test_a_leader_that_was_replaced_while_it_slept_follows() -> None:
    story = leading()
    story.wait(5000)
    story.record = held_by("b", epoch=6)
    story.live(1)
    assert story.all(CloseGate)
    assert "held by b" in story.last(Follow).reason
    assert not story.all(OpenGate)


def test_a_renewal_whose_answer_was_lost_is_found_by_reading() -> None:
    story = leading()
    sent = story.now = story.elector.next_tick_ns
    [swap] = [a for a in story.elector.tick(story.now) if isinstance(a, Swap)]
    story.record = swap.new
    story.wait(250)
    story.take(story.elector.on_unanswered(swap.request, story.now))
    assert OpenGate(5, sent + 900 * MS) in story.said


def test_a_leader_without_its_store_leads_on_while_every_peer_promises() -> None:
    story = leading(peers=("b", "c"))
    story.store_answers = False
    for _ in range(40):
        story.live(60)
        for ask in story.all(AskPeers):
            for peer in ("b", "c"):
                story.take(story.elector.on_promised(peer, ask.epoch, ask.asked_ns, story.now))
        story.said = [a for a in story.said if not isinstance(a, AskPeers)]
    assert story.state is State.LEADING
    assert not story.all(CloseGate)


def test_one_peer_that_does_not_promise_ends_it_at_the_deadline() -> None:
    story = leading(peers=("b", "c"))
    story.store_answers = False
    for _ in range(20):
        story.live(60)
        for ask in story.all(AskPeers):
            story.take(story.elector.on_promised("b", ask.epoch, ask.asked_ns, story.now))
    assert story.all(CloseGate)
    assert not story.all(OpenGate)


@pytest.mark.parametrize("is_awake", [True, False], ids=["after it noticed", "before it noticed"])
def test_promises_do_not_revive_a_right_that_has_run_out(is_awake: bool) -> None:
    story = leading(peers=("b",))
    story.store_answers = False
    story.live(700)
    ask = story.last(AskPeers)
    if is_awake:
        story.live(400)
    else:
        story.wait(400)
    story.forget()
    story.take(story.elector.on_promised("b", ask.epoch, ask.asked_ns, story.now))
    assert not story.all(OpenGate)
    assert story.state is State.LAPSED


def test_promises_of_strangers_and_of_other_epochs_do_not_count() -> None:
    story = leading(peers=("b",))
    story.take(story.elector.on_promised("x", 5, story.now, story.now))
    story.take(story.elector.on_promised("b", 4, story.now, story.now))
    assert not story.all(OpenGate)


def test_a_standby_promises_only_while_it_does_not_reach_the_store_itself() -> None:
    story = Story(held_by("b"))
    story.live(100)
    story.take(story.elector.on_failsafe_asked(4, 123, TTL_MS, story.now))
    assert not story.all(Promise)
    story.store_answers = False
    story.live(300)
    story.take(story.elector.on_failsafe_asked(4, 456, TTL_MS, story.now))
    assert story.last(Promise) == Promise(4, 456)


def test_a_standby_that_knows_a_later_epoch_does_not_promise() -> None:
    story = Story(held_by("b", epoch=7))
    story.live(100)
    story.store_answers = False
    story.live(300)
    story.take(story.elector.on_failsafe_asked(6, 456, TTL_MS, story.now))
    assert not story.all(Promise)


def test_a_promise_is_kept_though_the_record_has_not_changed_for_long() -> None:
    story = Story(held_by("b"))
    story.live(100)
    story.store_answers = False
    for _ in range(5):
        story.live(500)
        story.take(story.elector.on_failsafe_asked(4, 1, TTL_MS, story.now))
    promised = story.now
    story.store_answers = True
    story.live(1019 - (story.now - promised) / MS)
    assert not story.all(Lead)
    story.live(10)
    assert story.all(Lead)


def test_a_promise_does_not_bind_once_the_leader_has_given_the_record_up() -> None:
    story = Story(held_by("b"))
    story.live(100)
    story.store_answers = False
    story.live(300)
    story.take(story.elector.on_failsafe_asked(4, 1, TTL_MS, story.now))
    story.store_answers = True
    story.record = held_by("b").released(2, status=Status.ABANDONED)
    story.live(300)
    assert story.all(Lead)


def test_a_replica_that_lags_does_not_claim_and_says_so_unless_it_led_last() -> None:
    story = Story(held_by("z").released(2))
    story.take(story.elector.on_health(Health(is_current=False, reason="lags by 900 entries"), story.now))
    story.live(3000)
    assert not story.all(Lead)
    assert story.elector.why_not == "lags by 900 entries"
    own = Story(held_by("a", epoch=4).released(2))
    own.take(own.elector.on_health(Health(is_current=False), own.now))
    own.live(50)
    assert own.all(Lead)


def test_an_unfit_node_never_claims() -> None:
    story = Story(held_by("a").released(2))
    story.take(story.elector.on_health(Health(is_fit=False, reason="plugin x does not load"), story.now))
    story.live(3000)
    assert not story.all(Lead)
    story.take(story.elector.promote(story.now, force=True))
    assert "plugin x does not load" in story.last(Refused).reason


def test_promotion_makes_a_lagging_node_claim_what_is_free() -> None:
    story = Story(held_by("z").released(2))
    story.take(story.elector.on_health(Health(is_current=False), story.now))
    story.live(100)
    story.take(story.elector.promote(story.now))
    assert story.all(Lead)


def test_promotion_refuses_to_depose_a_leader_that_renews() -> None:
    story = Story(held_by("z"))
    story.live(100)
    story.take(story.elector.promote(story.now))
    assert "z leads and renews its lease" in story.last(Refused).reason


def test_forced_promotion_waits_out_the_deposed_leader_before_its_gate_opens() -> None:
    story = Story(held_by("z"))
    story.live(100)
    story.take(story.elector.promote(story.now, force=True))
    assert story.record is not None
    assert (story.record.holder, story.record.status) == ("a", Status.FENCING)
    story.live(1019)
    assert not story.all(OpenGate)
    story.live(10)
    assert story.last(Lead).succession is Succession.FORCED
    assert story.all(OpenGate)


def test_a_switchover_drains_closes_the_gate_and_only_then_lets_go() -> None:
    story = leading()
    story.take(story.elector.on_peer(PeerStatus("b", Health(), 0), story.now))
    story.take(story.elector.switch_over("b", story.now))
    assert story.all(Drain)
    assert not story.all(CloseGate)
    story.forget()
    story.take(story.elector.on_drained(story.now))
    kinds = [type(action) for action in story.said]
    assert kinds.index(CloseGate) < kinds.index(Swap) < kinds.index(NotifyHeir)
    assert story.record is not None
    assert (story.record.status, story.record.heir) == (Status.RELEASED, "b")
    assert story.state is State.WATCHING


@pytest.mark.parametrize(
    ("status", "says"),
    [
        (None, "not connected"),
        (PeerStatus("b", Health(is_current=False, reason="lags"), 9), "not ready: lags"),
        (PeerStatus("b", Health(is_fit=False), 0), "not ready"),
    ],
)
def test_a_switchover_to_a_node_that_cannot_lead_is_refused(status: PeerStatus | None, says: str) -> None:
    story = leading()
    if status is not None:
        story.take(story.elector.on_peer(status, story.now))
    story.take(story.elector.switch_over("b", story.now))
    assert says in story.last(Refused).reason
    assert story.state is State.LEADING


def test_a_switchover_that_does_not_drain_in_time_is_given_up() -> None:
    story = leading(drain_ms=300)
    story.take(story.elector.on_peer(PeerStatus("b", Health(), 0), story.now))
    story.take(story.elector.switch_over("b", story.now))
    story.live(310)
    assert story.all(Resume)
    assert story.last(Alert).code == "switchover_given_up"
    assert story.state is State.LEADING


def test_a_release_without_an_answer_never_reopens_the_gate_by_itself() -> None:
    story = leading()
    story.take(story.elector.on_peer(PeerStatus("b", Health(), 0), story.now))
    story.take(story.elector.switch_over("b", story.now))
    story.store_answers = False
    story.take(story.elector.on_drained(story.now))
    story.forget()
    story.live(3000)
    assert story.state is State.LAPSED
    assert not story.all(OpenGate)
    story.store_answers = True
    story.live(300)
    assert story.all(OpenGate)


SICK = frozenset({"market_data:paper"})


def test_a_sick_leader_yields_to_a_better_peer_after_a_while() -> None:
    story = leading(sick_ms=500)
    story.take(story.elector.on_health(Health(ailments=SICK), story.now))
    story.take(story.elector.on_peer(PeerStatus("b", Health(), 0), story.now))
    story.live(490)
    assert not story.all(Drain)
    story.live(20)
    assert "market_data:paper: b does better" in story.last(Drain).reason


@pytest.mark.parametrize("ailments", [SICK, frozenset({"disk"}), SICK | {"disk"}])
def test_a_sick_leader_keeps_leading_when_no_peer_is_better(ailments: frozenset[str]) -> None:
    story = leading(sick_ms=100)
    story.take(story.elector.on_health(Health(ailments=SICK), story.now))
    for _ in range(20):
        story.take(story.elector.on_peer(PeerStatus("b", Health(ailments=ailments), 0), story.now))
        story.live(100)
    assert not story.all(Drain)


def test_a_sick_leader_that_cannot_drain_lets_go_all_the_same_and_says_so_in_the_record() -> None:
    story = leading(sick_ms=100, drain_ms=200)
    story.take(story.elector.on_health(Health(ailments=SICK), story.now))
    story.take(story.elector.on_peer(PeerStatus("b", Health(), 0), story.now))
    story.live(350)
    assert story.record is not None
    assert (story.record.status, story.record.heir) == (Status.ABANDONED, "b")


def test_too_many_switches_stop_automatic_takeover_until_an_operator_promotes() -> None:
    story = Story(held_by("y"), switch_limit=3, switch_window_ms=60_000)
    for epoch, holder in enumerate(("z", "y", "z"), 5):
        story.live(100)
        story.record = held_by(holder, epoch)
    story.live(20_000)
    assert not story.all(Lead)
    assert "too many switches" in story.elector.why_not
    story.take(story.elector.promote(story.now))
    story.live(100)
    assert story.all(Lead)


def test_maintenance_holds_back_automatic_takeover_but_not_a_named_heir() -> None:
    story = Story(held_by("z"))
    story.take(story.elector.maintain(True, story.now))
    story.live(5000)
    assert not story.all(Lead)
    story.record = held_by("z").released(2, heir="a")
    story.live(50)
    assert story.all(Lead)


def test_a_second_node_with_this_name_is_noticed_by_its_renewals_and_this_one_leaves() -> None:
    story = Story(Record("main", 4, "a", "another process", TTL_MS, 1))
    story.live(100)
    story.record = Record("main", 4, "a", "another process", TTL_MS, 2)
    story.live(100)
    assert story.last(Alert).code == "duplicate_node_name"
    assert "named 'a'" in story.last(Retire).reason
    assert story.state is State.RETIRED


def test_the_record_of_its_own_dead_process_is_waited_out_like_any_other() -> None:
    story = Story(Record("main", 4, "a", "the one before", TTL_MS, 1))
    story.live(1000)
    assert not story.all(Lead)
    story.live(100)
    assert story.all(Lead)


def test_a_stopping_leader_drains_releases_and_retires() -> None:
    story = leading()
    story.take(story.elector.stop(story.now))
    story.take(story.elector.on_drained(story.now))
    assert story.record is not None
    assert story.record.status is Status.RELEASED
    assert story.all(Retire)


@pytest.mark.parametrize("state", list(State))
def test_a_move_that_the_table_does_not_have_is_refused(state: State) -> None:
    for move in Move:
        if move not in TRANSITIONS[state]:
            with pytest.raises(AssertionError, match="no move"):
                next_state(state, move)
