"""Who leads: the rules of the lease as a state machine without I/O, clock, tasks or randomness.

Inputs are the `on_...` methods; each takes the node's CLOCK_BOOTTIME in nanoseconds and returns actions.
The owner carries them out in order, answers every `Read` and `Swap` exactly once (`on_unanswered` when
it does not know), and calls `tick` at `next_tick_ns` at the latest. The proofs are in `docs/failover.md`,
and `tests/sim` tries them.

This module takes the inputs, and holds the node's part as a standby: it reads the record, and claims. Whether
it may is `candidacy`'s to say, what is asked of the store and not answered yet `requests`'. What follows once
a claim took effect is `holder`'s: `tenure` is what it holds and `handover` how it passes that on. Safety
rests on these rules, each marked where it is kept:

S1  A right counts from the moment before the request that earned it was sent.
S2  A candidate waits 1.02 ttl by its own clock on a version that does not change; a right lasts 0.9 ttl.
S3  Whatever was not answered is read again. Each attempt's record differs, so reading tells which counted.
S4  A gate that has closed to release opens again only after a renewal, which makes the release impossible.
S5  What is taken from a leader that may have a right, by force or because the store has no record, is
    taken first and waited out then; the record says so until it is over.
S6  Failsafe lengthens a right that still runs, on the promise of every peer; it never revives one.
S7  A peer that has promised does not claim by expiry for 1.02 ttl, and one that claims does not promise.
"""

from typing import Final

from failover.candidacy import Candidacy
from failover.holder import Holder
from failover.lease.record import Record, Status
from failover.machine import Machine
from failover.peers import PeerBook
from failover.requests import Request, StoreRequests
from failover.settings import FOREVER_NS, ElectorSettings
from failover.signals import (
    Action,
    Alert,
    Health,
    PeerStatus,
    Promise,
    Refused,
)
from failover.states import HOLDING, Move, State
from failover.watch import RecordWatch, SwitchBreaker

__all__ = ["FOREVER_NS", "Elector", "ElectorSettings"]


class Elector:
    """One node's part in the election of one cell's leader."""

    def __init__(self, settings: ElectorSettings, now_ns: int) -> None:
        ttl_ns = settings.ttl_ns
        self.settings: Final = settings
        self.watch: Final = RecordWatch(ttl_ns, settings.known_epoch)
        self._poll_ns: Final = min(settings.poll_ms * 1_000_000, ttl_ns // 4)
        self._peers: Final = PeerBook(2 * ttl_ns)
        self._breaker: Final = SwitchBreaker(settings.switch_limit, settings.switch_window_ms * 1_000_000)
        self._machine: Final = Machine()
        self._store: Final = StoreRequests(ttl_ns, now_ns)
        self._candidacy: Final = Candidacy(settings, self.watch, self._breaker)
        self._holder: Final = Holder(
            settings, self._machine, self._store, self._candidacy, self._peers, self._breaker
        )
        self._tenure: Final = self._holder.tenure

    # What its owner asks.

    @property
    def state(self) -> State:
        """Where this node stands."""
        return self._machine.state

    @property
    def epoch(self) -> int:
        """The epoch in which this node holds the lease; 0 while it does not."""
        return self._tenure.epoch

    @property
    def right_until_ns(self) -> int:
        """Until when this node may send; 0 while it may not."""
        return self._tenure.right_until_ns

    @property
    def why_not(self) -> str:
        """Why this standby does not claim the lease, for people; empty if it is about to."""
        return self._candidacy.why_not

    @property
    def leader(self) -> str:
        """The holder of the last record read; empty if there is none or it gave the record up."""
        seen = self.watch.seen
        return "" if seen is None or seen.is_free else seen.holder

    @property
    def heir(self) -> str:
        """Who the lease is to go to while this node drains; empty if to whoever claims it, or it does not drain."""
        handover = self._holder.handing.current
        return "" if handover is None else handover.heir

    @property
    def breaker_closes_ns(self) -> int:
        """Until when there is no automatic switch, after too many; in the past where there may be."""
        return self._breaker.closes_ns()

    @property
    def next_tick_ns(self) -> int:
        """When `tick` is due; earlier does no harm."""
        state, store = self.state, self._store
        if state is State.RETIRED:
            return FOREVER_NS
        due_ns = min(store.due_ns, self._holder.due_ns)
        if state is State.WATCHING and store.pending is None and store.is_fresh:
            due_ns = min(due_ns, self._candidacy.claim_ns)
        return due_ns

    # What happens to it.

    def tick(self, now_ns: int) -> list[Action]:
        """Do what has become due."""
        self._advance(now_ns)
        return self._machine.take()

    def on_read(self, request: int, record: Record | None, now_ns: int) -> list[Action]:
        """A read was answered."""
        sent = self._answered(request)
        if sent is None:
            return self._machine.take()
        self._store.is_failing = False
        self._store.must_read = False
        if self._is_foreign(record):
            return self._machine.take()
        self._observe(record, now_ns)
        lost = self._store.take_lost()
        if lost is not None and record == lost.new:
            self._holder.confirmed(lost, now_ns)
        elif self.state in HOLDING:
            self._holder.looked_up(record, now_ns)
        elif self.state is State.ACQUIRING:
            # Not applied so far is not "never": see `_watched`.
            self._machine.move(Move.LOSE)
        if self.state is State.WATCHING:
            self._watched(sent, record, now_ns)
        self._advance(now_ns)
        return self._machine.take()

    def on_swapped(self, request: int, was_swapped: bool, now_ns: int) -> list[Action]:
        """A swap was answered."""
        sent = self._answered(request)
        if sent is None:
            return self._machine.take()
        self._store.is_failing = False
        if was_swapped:
            self._observe(sent.new, now_ns)
            self._holder.confirmed(sent, now_ns)
        else:
            self._store.must_read = True
            self._store.next_ns = now_ns
            if self.state is State.ACQUIRING:
                self._machine.move(Move.LOSE)
                self._candidacy.plan()
        self._advance(now_ns)
        return self._machine.take()

    def on_unanswered(self, request: int, now_ns: int) -> list[Action]:
        """A read or swap was not answered in time. S3: its effect is looked up, never assumed."""
        sent = self._answered(request)
        if sent is None:
            return self._machine.take()
        if not self._store.is_failing:
            self._holder.store_failed(now_ns)
        self._store.unanswered(sent, now_ns)
        self._advance(now_ns)
        return self._machine.take()

    def on_hint(self, now_ns: int) -> list[Action]:
        """Something suggests that the record has changed: a peer said so, or its connection broke."""
        if self.state is State.WATCHING:
            self._store.next_ns = min(self._store.next_ns, now_ns)
        self._advance(now_ns)
        return self._machine.take()

    def on_health(self, health: Health, now_ns: int) -> list[Action]:
        """This node says how it is."""
        self._candidacy.health = health
        self._candidacy.plan()
        self._advance(now_ns)
        return self._machine.take()

    def on_peer(self, status: PeerStatus, now_ns: int) -> list[Action]:
        """A peer says how it is; what it said counts for two ttl."""
        self._peers.hear(status, now_ns)
        self._advance(now_ns)
        return self._machine.take()

    def on_failsafe_asked(self, epoch: int, asked_ns: int, ttl_ms: int, now_ns: int) -> list[Action]:
        """The leader of `epoch` cannot reach the store and asks for a promise; no answer means no.

        A node that reaches the store and may claim refuses: it can do better than the one that cannot.
        """
        candidacy = self._candidacy
        if self.state is State.WATCHING and candidacy.may_promise(
            epoch, is_store_failing=self._store.is_failing
        ):
            candidacy.promise.make(epoch, ttl_ms * 1_000_000, now_ns)  # S7
            candidacy.plan()
            self._machine.say(Promise(epoch, asked_ns))
        self._advance(now_ns)
        return self._machine.take()

    def on_promised(self, peer: str, epoch: int, asked_ns: int, now_ns: int) -> list[Action]:
        """A peer promised not to claim, in answer to `AskPeers(epoch, asked_ns)`."""
        if epoch == self.epoch and asked_ns <= now_ns:
            self._tenure.promises.add(peer, asked_ns)
            since_ns = self._tenure.promises.since_ns()
            if since_ns is not None and now_ns < self.right_until_ns:  # S6
                self._holder.lengthen(since_ns, now_ns)
        self._advance(now_ns)
        return self._machine.take()

    def on_drained(self, now_ns: int) -> list[Action]:
        """Nothing of this node is on the wire any more."""
        if self.state is State.DRAINING and now_ns < self.right_until_ns:
            self._holder.let_go(Status.RELEASED, now_ns)
        self._advance(now_ns)
        return self._machine.take()

    # What an operator orders.

    def switch_over(self, heir: str, now_ns: int) -> list[Action]:
        """Hand the lease to `heir` by name, once this node has drained."""
        if self.state is State.LEADING:
            reason = self._peers.why_not_ready(heir, now_ns)
        else:
            reason = f"this node does not lead; it is {self.state.value}"
        if reason:
            self._machine.say(Refused("switchover", reason))
        else:
            self._holder.drain(heir, f"switchover to {heir}", True, now_ns)
        self._advance(now_ns)
        return self._machine.take()

    def promote(self, now_ns: int, *, force: bool = False) -> list[Action]:
        """Lead though this replica lags or the breaker is open; with `force`, depose a leader that renews.

        The fence is checked in any case: nothing is sent before the last holder's right has run out.
        """
        seen = self.watch.seen
        if self.state is not State.WATCHING:
            reason = f"this node is {self.state.value}"
        elif not self._candidacy.health.is_fit:
            reason = f"this node is unfit to lead: {self._candidacy.health.reason}"
        elif not self.watch.has_read or self._store.is_failing:
            reason = "the lease store does not answer"
        elif seen is not None and not seen.is_free and now_ns < self.watch.expires_ns() and not force:
            reason = f"{seen.holder} leads and renews its lease; order a switchover there, or force"
        else:
            reason = ""
            self._candidacy.force(now_ns, deposes=force and seen is not None and not seen.is_free)
        if reason:
            self._machine.say(Refused("promote", reason))
        self._advance(now_ns)
        return self._machine.take()

    def maintain(self, is_on: bool, now_ns: int) -> list[Action]:
        """In maintenance nothing switches by itself: no claim by expiry, no yielding for health."""
        self._candidacy.is_maintenance = is_on
        self._candidacy.plan()
        self._advance(now_ns)
        return self._machine.take()

    def stop(self, now_ns: int) -> list[Action]:
        """Leave in order: drain, release, retire."""
        self._machine.is_stopping = True
        self._holder.stop(now_ns)
        self._advance(now_ns)
        return self._machine.take()

    # What follows.

    def _advance(self, now_ns: int) -> None:
        machine, store = self._machine, self._store
        if machine.state is State.RETIRED:
            return
        if machine.state is State.WATCHING and machine.is_stopping:
            machine.retire("stopped")
            return
        self._holder.advance(now_ns)
        if store.pending is not None or self.state is State.RETIRED:
            return
        if self.state is not State.WATCHING:
            self._holder.use_store(now_ns)
        elif now_ns >= self._candidacy.claim_ns and store.is_fresh:
            self._claim(now_ns)
        elif now_ns >= store.next_ns:
            machine.say(store.read(now_ns))

    def _claim(self, now_ns: int) -> None:
        store = self._store
        new = self._candidacy.claim(store.attempt())
        self._machine.move(Move.CLAIM)
        self._machine.say(store.swap(self.watch.seen, new, now_ns))
        store.last_claim = store.pending

    def _answered(self, number: int) -> Request | None:
        return None if self.state is State.RETIRED else self._store.answered(number)

    # The record, as it turns out to be.

    def _is_foreign(self, record: Record | None) -> bool:
        """Leave the election if another node uses this one's name, which shows when its record changes."""
        seen = self.watch.seen
        if (
            record is None
            or seen is None
            or record.holder != self.settings.node
            or record.session == self.settings.session
            or record.session != seen.session
            or record.renewal == seen.renewal
            or record.is_free
        ):
            return False
        text = (
            f"two nodes of cell {self.settings.cell!r} are named {self.settings.node!r}: another process "
            "renews the lease under this name; give one of them another name"
        )
        self._machine.say(Alert("duplicate_node_name", text))
        self._holder.close("another node has this name")
        self._machine.retire(text)
        return True

    def _observe(self, record: Record | None, now_ns: int) -> None:
        watch = self.watch
        before = watch.seen
        trusted = watch.known_epoch
        if not watch.observe(record, now_ns):
            return
        if record is None or record.epoch < trusted:
            if before is not None:
                text = (
                    f"the lease of cell {self.settings.cell!r} went back from epoch {trusted} to "
                    f"{0 if record is None else record.epoch}: the store lost data, or another one answers"
                )
                self._machine.say(Alert("lease_went_back", text))
        elif before is not None and before.holder != record.holder:
            self._breaker.count(now_ns)
        if before is None or record is None or before.epoch != record.epoch:
            self._candidacy.forget_force()

    def _watched(self, sent: Request, record: Record | None, now_ns: int) -> None:
        """A standby has read the record."""
        self._store.next_ns = max(now_ns, sent.sent_ns + self._poll_ns)
        if record is not None and record.session == self.settings.session and not record.is_free:
            # A claim of ours that was given up for lost has been applied since.
            claim = self._store.last_claim
            assert claim is not None
            self._tenure.record = record
            self._machine.move(Move.CLAIM)
            self._holder.won(Request(0, now_ns - record.ttl_ns, claim.expected, record), now_ns)
            return
        self._candidacy.plan_by(now_ns)
