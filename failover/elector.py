"""Who leads: the rules of the lease as a state machine without I/O, clock, tasks or randomness.

Inputs are the `on_...` methods; each takes the node's CLOCK_BOOTTIME in nanoseconds and returns actions.
The owner carries them out in order, answers every `Read` and `Swap` exactly once (`on_unanswered` when
it does not know), and calls `tick` at `next_tick_ns` at the latest. The proofs are in `docs/failover.md`,
and `tests/sim` tries them.

Safety rests on these rules, each marked below where it is kept:

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

from msgspec import Struct

from failover.failsafe import PeerPromises, PromiseKept
from failover.lease.record import HOLDER_RIGHT, Record, Status
from failover.peers import PeerBook
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
from failover.states import HOLDING, Move, State, next_state
from failover.watch import RecordWatch, SwitchBreaker, wait_ns

__all__ = ["FOREVER_NS", "Elector", "ElectorSettings"]

FOREVER_NS: Final = 2**63 - 1


class ElectorSettings(Struct, frozen=True):
    """Who this node is and how patient it is. `known_epoch` is the last epoch in its journal."""

    cell: str
    node: str
    session: str
    ttl_ms: int
    peers: tuple[str, ...] = ()
    known_epoch: int = 0
    first_epoch: int = 1
    """The epoch that a cell without a record begins with, unless a later one is known."""
    poll_ms: int = 25
    """How often a standby reads: what a release by the guardian waits for on average is half of it."""
    drain_ms: int = 2_000
    """How long a leader may drain before a handover is given up, or for a sick leader cut short."""
    sick_ms: int = 3_000
    """How long a better peer must be better before a leader yields to it."""
    switch_limit: int = 6
    switch_window_ms: int = 600_000

    @property
    def ttl_ns(self) -> int:
        """The ttl in nanoseconds."""
        return self.ttl_ms * 1_000_000


class _Request(Struct, frozen=True):
    number: int
    sent_ns: int
    expected: Record | None
    new: Record | None  # None: a read


class _Handover(Struct, frozen=True):
    """Why a leader drains. A switchover on request may be given up; a stop or a sick leader's may not."""

    heir: str
    reason: str
    until_ns: int
    may_be_given_up: bool


class Elector:
    """One node's part in the election of one cell's leader."""

    def __init__(self, settings: ElectorSettings, now_ns: int) -> None:
        self.settings: Final = settings
        self.state = State.WATCHING
        self.epoch = 0
        self.right_until_ns = 0
        self.watch: Final = RecordWatch(settings.ttl_ns, settings.known_epoch)
        self._renew_ns = settings.ttl_ns // 4
        self._retry_ns = settings.ttl_ns // 16
        self._ask_ns = settings.ttl_ns // 8
        self._poll_ns = min(settings.poll_ms * 1_000_000, settings.ttl_ns // 4)
        self._out: list[Action] = []
        self._base: Record | None = None
        self._request: _Request | None = None
        self._lost: _Request | None = None
        self._last_claim: _Request | None = None
        self._must_read = True
        self._store_fails = False
        self._attempts = 0
        self._requests = 0
        self._next_store_ns = now_ns
        self._next_ask_ns = 0
        self._claim_ns = FOREVER_NS
        self._why_not = "the lease was not read yet"
        self._fence_ns = 0
        self._handover: _Handover | None = None
        self._yield_until_ns = 0
        self._parting = Status.RELEASED
        self._is_stopping = False
        self._maintenance = False
        self._forced_until_ns = 0
        self._depose = False
        self._health = Health()
        self._peers = PeerBook(2 * settings.ttl_ns)
        self._better_since_ns = 0
        self._announcement: Lead | None = None
        self._promises = PeerPromises(settings.peers)
        self._promise = PromiseKept()
        self._breaker = SwitchBreaker(settings.switch_limit, settings.switch_window_ms * 1_000_000)

    # What its owner asks.

    @property
    def why_not(self) -> str:
        """Why this standby does not claim the lease, for people; empty if it is about to."""
        return self._why_not

    @property
    def leader(self) -> str:
        """The holder of the last record read; empty if there is none or it gave the record up."""
        seen = self.watch.seen
        return "" if seen is None or seen.is_free else seen.holder

    @property
    def heir(self) -> str:
        """Who the lease is to go to while this node drains; empty if to whoever claims it, or it does not drain."""
        return "" if self._handover is None else self._handover.heir

    @property
    def breaker_closes_ns(self) -> int:
        """Until when there is no automatic switch, after too many; in the past where there may be."""
        return self._breaker.closes_ns()

    @property
    def next_tick_ns(self) -> int:
        """When `tick` is due; earlier does no harm."""
        state = self.state
        if state is State.RETIRED:
            return FOREVER_NS
        due_ns = FOREVER_NS if self._request is not None else self._next_store_ns
        if state is State.WATCHING:
            if self._request is None and self._claim_ns < due_ns and self._may_use_claim():
                due_ns = self._claim_ns
            return due_ns
        if state is State.LEADING or state is State.DRAINING:
            due_ns = min(due_ns, self.right_until_ns)
            if self._store_fails and self._promises.is_possible:
                due_ns = min(due_ns, self._next_ask_ns)
            if self._better_since_ns:
                due_ns = min(due_ns, self._yield_at_ns())
        if self._handover is not None and state is State.DRAINING:
            due_ns = min(due_ns, self._handover.until_ns)
        if state is State.YIELDING:
            due_ns = min(due_ns, self._yield_until_ns)
        return due_ns

    # What happens to it.

    def tick(self, now_ns: int) -> list[Action]:
        """Do what has become due."""
        self._advance(now_ns)
        return self._take()

    def on_read(self, request: int, record: Record | None, now_ns: int) -> list[Action]:
        """A read was answered."""
        sent = self._answered(request)
        if sent is None:
            return self._take()
        self._store_fails = False
        self._must_read = False
        if self._is_foreign(record):
            return self._take()
        self._observe(record, now_ns)
        lost, self._lost = self._lost, None
        if lost is not None and record == lost.new:
            self._confirmed(lost, now_ns)
        elif self.state in HOLDING:
            self._looked_up(record, now_ns)
        elif self.state is State.ACQUIRING:
            # Not applied so far is not "never": see `_watched`.
            self._move(Move.LOSE)
        if self.state is State.WATCHING:
            self._watched(sent, record, now_ns)
        self._advance(now_ns)
        return self._take()

    def on_swapped(self, request: int, was_swapped: bool, now_ns: int) -> list[Action]:
        """A swap was answered."""
        sent = self._answered(request)
        if sent is None:
            return self._take()
        self._store_fails = False
        if was_swapped:
            self._observe(sent.new, now_ns)
            self._confirmed(sent, now_ns)
        else:
            self._must_read = True
            self._next_store_ns = now_ns
            if self.state is State.ACQUIRING:
                self._move(Move.LOSE)
                self._plan_claim()
        self._advance(now_ns)
        return self._take()

    def on_unanswered(self, request: int, now_ns: int) -> list[Action]:
        """A read or swap was not answered in time. S3: its effect is looked up, never assumed."""
        sent = self._answered(request)
        if sent is None:
            return self._take()
        if not self._store_fails:
            self._store_fails = True
            self._next_ask_ns = now_ns
        if sent.new is not None:
            self._lost = sent
        self._must_read = True
        self._next_store_ns = max(now_ns, sent.sent_ns + self._retry_ns)
        self._advance(now_ns)
        return self._take()

    def on_hint(self, now_ns: int) -> list[Action]:
        """Something suggests that the record has changed: a peer said so, or its connection broke."""
        if self.state is State.WATCHING:
            self._next_store_ns = min(self._next_store_ns, now_ns)
        self._advance(now_ns)
        return self._take()

    def on_health(self, health: Health, now_ns: int) -> list[Action]:
        """This node says how it is."""
        self._health = health
        self._plan_claim()
        self._advance(now_ns)
        return self._take()

    def on_peer(self, status: PeerStatus, now_ns: int) -> list[Action]:
        """A peer says how it is; what it said counts for two ttl."""
        self._peers.hear(status, now_ns)
        self._advance(now_ns)
        return self._take()

    def on_failsafe_asked(self, epoch: int, asked_ns: int, ttl_ms: int, now_ns: int) -> list[Action]:
        """The leader of `epoch` cannot reach the store and asks for a promise; no answer means no.

        A node that reaches the store and may claim refuses: it can do better than the one that cannot.
        """
        if (
            self.state is State.WATCHING
            and not self._depose
            and self.watch.known_epoch <= epoch
            and (self._store_fails or self._claim_ns == FOREVER_NS)
        ):
            self._promise.make(epoch, ttl_ms * 1_000_000, now_ns)
            self._plan_claim()
            self._out.append(Promise(epoch, asked_ns))
        self._advance(now_ns)
        return self._take()

    def on_promised(self, peer: str, epoch: int, asked_ns: int, now_ns: int) -> list[Action]:
        """A peer promised not to claim, in answer to `AskPeers(epoch, asked_ns)`."""
        if epoch == self.epoch and asked_ns <= now_ns:
            self._promises.add(peer, asked_ns)
            since_ns = self._promises.since_ns()
            if since_ns is not None and now_ns < self.right_until_ns:  # S6
                self._lengthen(since_ns, now_ns)
        self._advance(now_ns)
        return self._take()

    def on_drained(self, now_ns: int) -> list[Action]:
        """Nothing of this node is on the wire any more."""
        if self.state is State.DRAINING and now_ns < self.right_until_ns:
            self._yield(Status.RELEASED, now_ns)
        self._advance(now_ns)
        return self._take()

    # What an operator orders.

    def switch_over(self, heir: str, now_ns: int) -> list[Action]:
        """Hand the lease to `heir` by name, once this node has drained."""
        if self.state is State.LEADING:
            reason = self._peers.why_not_ready(heir, now_ns)
        else:
            reason = f"this node does not lead; it is {self.state.value}"
        if reason:
            self._out.append(Refused("switchover", reason))
        else:
            self._drain(heir, f"switchover to {heir}", True, now_ns)
        self._advance(now_ns)
        return self._take()

    def promote(self, now_ns: int, *, force: bool = False) -> list[Action]:
        """Lead though this replica lags or the breaker is open; with `force`, depose a leader that renews.

        The fence is checked in any case: nothing is sent before the last holder's right has run out.
        """
        seen = self.watch.seen
        if self.state is not State.WATCHING:
            reason = f"this node is {self.state.value}"
        elif not self._health.is_fit:
            reason = f"this node is unfit to lead: {self._health.reason}"
        elif not self.watch.has_read or self._store_fails:
            reason = "the lease store does not answer"
        elif seen is not None and not seen.is_free and now_ns < self.watch.expires_ns() and not force:
            reason = f"{seen.holder} leads and renews its lease; order a switchover there, or force"
        else:
            reason = ""
            self._forced_until_ns = now_ns + 4 * self.settings.ttl_ns
            self._depose = force and seen is not None and not seen.is_free
            self._breaker.reset()
            self._plan_claim()
            if self._depose:
                self._claim_ns = now_ns
        if reason:
            self._out.append(Refused("promote", reason))
        self._advance(now_ns)
        return self._take()

    def maintain(self, is_on: bool, now_ns: int) -> list[Action]:
        """In maintenance nothing switches by itself: no claim by expiry, no yielding for health."""
        self._maintenance = is_on
        self._plan_claim()
        self._advance(now_ns)
        return self._take()

    def stop(self, now_ns: int) -> list[Action]:
        """Leave in order: drain, release, retire."""
        self._is_stopping = True
        if self.state is State.FENCING:
            self._retire("stopped while it waited for an earlier leader; the lease runs out by itself")
        elif self.state is State.LEADING:
            self._drain(self._peers.best(now_ns), "stop", False, now_ns)
        elif self.state is State.DRAINING and self._handover is not None:
            self._handover = _Handover(self._handover.heir, "stop", self._handover.until_ns, False)
        elif self.state is State.LAPSED:
            self._yield(Status.ABANDONED, now_ns)
        self._advance(now_ns)
        return self._take()

    # What follows.

    def _advance(self, now_ns: int) -> None:
        state = self.state
        if state is State.RETIRED:
            return
        if self._is_stopping and state is State.WATCHING:
            self._retire("stopped")
            return
        if state is State.LEADING or state is State.DRAINING:
            if now_ns >= self.right_until_ns:
                self._lapse("the lease could not be renewed in time", now_ns)
            else:
                self._lead_on(now_ns)
        elif state is State.YIELDING and now_ns >= self._yield_until_ns:
            self._yield_failed()
        if self._request is None:
            self._use_store(now_ns)

    def _lead_on(self, now_ns: int) -> None:
        """A leader's duties besides renewing."""
        handover = self._handover
        if handover is None:
            self._weigh_peers(now_ns)
        elif now_ns >= handover.until_ns:
            if handover.may_be_given_up:
                self._handover = None
                self._move(Move.KEEP)
                text = f"{handover.reason} given up: not drained within {self.settings.drain_ms} ms"
                self._out += (Resume(text), Alert("switchover_given_up", text))
            else:
                # What is still on the wire is not waited for, and the record says so to the successor.
                self._yield(Status.ABANDONED, now_ns)
                return
        if self._store_fails and self._promises.is_possible and now_ns >= self._next_ask_ns:
            self._next_ask_ns = now_ns + self._ask_ns
            self._out.append(AskPeers(self.epoch, now_ns, self._held().ttl_ms))

    def _use_store(self, now_ns: int) -> None:
        state = self.state
        if state is State.RETIRED:
            return
        if state is State.WATCHING:
            if now_ns >= self._claim_ns and self._may_use_claim():
                self._claim(now_ns)
            elif now_ns >= self._next_store_ns:
                self._send(None, None, now_ns)
        elif now_ns >= self._next_store_ns:
            if self._must_read or self._base is None:
                self._send(None, None, now_ns)
            elif state is State.YIELDING:
                self._release(now_ns)
            else:
                self._renew(now_ns)

    def _send(self, expected: Record | None, new: Record | None, now_ns: int) -> None:
        self._requests += 1
        self._request = _Request(self._requests, now_ns, expected, new)
        if new is None:
            self._out.append(Read(self._requests))
        else:
            self._out.append(Swap(self._requests, expected, new))

    def _attempt(self) -> int:
        self._attempts += 1
        return self._attempts

    def _claim(self, now_ns: int) -> None:
        seen, own = self.watch.seen, self.settings
        ttl_ms, status = own.ttl_ms, Status.HELD
        if seen is None or (self._depose and not seen.is_free):
            # The longer ttl of the two: others must not think the earlier holder's right over too soon.
            ttl_ms, status = max(ttl_ms, self.watch.ttl_ns // 1_000_000), Status.FENCING
        epoch = self.watch.known_epoch + 1
        if seen is None:
            epoch = max(epoch, own.first_epoch)
        new = Record(own.cell, epoch, own.node, own.session, ttl_ms, self._attempt(), status)
        self._move(Move.CLAIM)
        self._send(seen, new, now_ns)
        self._last_claim = self._request

    def _renew(self, now_ns: int) -> None:
        base = self._held()
        status = base.status
        if status is Status.FENCING and now_ns >= self._fence_ns:
            status = Status.HELD
        self._send(base, base.renewed(self._attempt(), status), now_ns)

    def _release(self, now_ns: int) -> None:
        handover = self._handover
        assert handover is not None
        self._send(self._base, self._held().released(self._attempt(), handover.heir, self._parting), now_ns)

    def _held(self) -> Record:
        assert self._base is not None
        return self._base

    def _answered(self, number: int) -> _Request | None:
        request = self._request
        if request is None or request.number != number or self.state is State.RETIRED:
            return None
        self._request = None
        return request

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
        self._out.append(Alert("duplicate_node_name", text))
        self._close("another node has this name")
        self._retire(text)
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
                self._out.append(Alert("lease_went_back", text))
        elif before is not None and before.holder != record.holder:
            self._breaker.count(now_ns)
        if before is None or record is None or before.epoch != record.epoch:
            self._forced_until_ns = 0
            self._depose = False

    def _confirmed(self, sent: _Request, now_ns: int) -> None:
        """A swap of this node took effect, and it is known when it was sent."""
        new = sent.new
        assert new is not None
        self._base = new
        state = self.state
        if state is State.ACQUIRING:
            self._won(sent, now_ns)
        elif new.is_free:
            if state is State.YIELDING:
                self._yielded()
            else:
                self._lost_lease(new)  # a release that had been given up for lost
        elif state is State.YIELDING:
            self._next_store_ns = now_ns
        elif state in HOLDING:
            self._renewed(new, sent.sent_ns, now_ns)

    def _looked_up(self, record: Record | None, now_ns: int) -> None:
        """The record was read because an answer was missing, and is not what was asked for last."""
        self._next_store_ns = now_ns
        if record is not None and record.belongs_to(self.settings.session, self.epoch):
            # Unchanged, or an earlier attempt came through: which one is not known, so it earns no right.
            self._base = record
        elif (
            self.state is State.YIELDING
            and record is not None
            and (record.session, record.epoch) == (self.settings.session, self.epoch)
        ):
            self._yielded()
        else:
            self._lost_lease(record)

    def _watched(self, sent: _Request, record: Record | None, now_ns: int) -> None:
        """A standby has read the record."""
        self._next_store_ns = max(now_ns, sent.sent_ns + self._poll_ns)
        if record is not None and record.session == self.settings.session and not record.is_free:
            # A claim of ours that was given up for lost has been applied since.
            claim = self._last_claim
            assert claim is not None
            self._base = record
            self._move(Move.CLAIM)
            self._won(_Request(0, now_ns - record.ttl_ns, claim.expected, record), now_ns)
            return
        if now_ns >= self._forced_until_ns:
            self._depose = False
        self._plan_claim()
        if self._depose:
            self._claim_ns = now_ns

    def _won(self, sent: _Request, now_ns: int) -> None:
        new, expected = sent.new, sent.expected
        assert new is not None
        self.epoch = new.epoch
        self._promises.clear()
        self._forced_until_ns, self._depose = 0, False
        self._better_since_ns, self._why_not = 0, ""
        self._next_store_ns = max(now_ns, sent.sent_ns + self._renew_ns)
        if new.status is Status.FENCING:
            # S5, counted from the answer: every renewal of an earlier holder came before it.
            self._fence_ns = now_ns + wait_ns(new.ttl_ns)
            self._move(Move.WIN_FENCED)
            self._announcement = Lead(
                new.epoch, Succession.FIRST if expected is None else Succession.FORCED, expected
            )
            return
        self._move(Move.WIN)
        self._announcement = Lead(new.epoch, _succession(expected), expected)
        self.right_until_ns = 0
        if not self._lengthen(sent.sent_ns, now_ns):
            self._lapse("the answer to its claim came too late", now_ns)
        if self._is_stopping and self.state is State.LEADING:
            self._drain("", "stop", False, now_ns)

    def _renewed(self, new: Record, sent_ns: int, now_ns: int) -> None:
        self._next_store_ns = max(now_ns, sent_ns + self._renew_ns)
        if self.state is State.FENCING:
            if new.status is Status.FENCING:
                if sent_ns < self._fence_ns:
                    self._next_store_ns = max(now_ns, min(self._next_store_ns, self._fence_ns))
                return
            self._move(Move.FENCE_OVER)
            self.right_until_ns = 0
            if not self._lengthen(sent_ns, now_ns):
                self._lapse("the answer to its renewal came too late", now_ns)
        elif self.state is State.LAPSED:
            if self._right_ns(sent_ns) > now_ns:
                self._move(Move.RENEW)
                self._lengthen(sent_ns, now_ns)
        else:
            self._lengthen(sent_ns, now_ns)

    def _right_ns(self, since_ns: int) -> int:
        """Return when the right ends that was earned at `since_ns`. S1, S2."""
        return since_ns + self._held().ttl_ns * HOLDER_RIGHT[0] // HOLDER_RIGHT[1]

    def _lengthen(self, since_ns: int, now_ns: int) -> bool:
        """Let a leader's right run on from `since_ns`; return whether it has any."""
        if self.state is not State.LEADING and self.state is not State.DRAINING:
            return False
        until_ns = self._right_ns(since_ns)
        if until_ns > now_ns and until_ns > self.right_until_ns:
            self.right_until_ns = until_ns
            if self._announcement is not None:
                # Only now: an answer that came too late to earn a right may be about a record long gone.
                self._out.append(self._announcement)
                self._announcement = None
            self._out.append(OpenGate(self.epoch, until_ns))
        return self.right_until_ns > now_ns

    def _lapse(self, reason: str, now_ns: int) -> None:
        self._handover = None
        self._close(reason)
        self._move(Move.LAPSE)
        self._out.append(Alert("lease_lapsed", f"node {self.settings.node} sends nothing: {reason}"))
        if self._is_stopping:
            self._yield(Status.ABANDONED, now_ns)

    def _close(self, reason: str) -> None:
        self.right_until_ns = 0
        self._out.append(CloseGate(reason))

    def _lost_lease(self, record: Record | None) -> None:
        found = "gone" if record is None else f"{record.status.value} by {record.holder}"
        reason = f"epoch {self.epoch} is over: the lease of cell {self.settings.cell!r} is {found}"
        self._close(reason)
        self._out.append(Alert("deposed", reason))
        self._stand_by(Move.LOSE, reason)

    def _stand_by(self, move: Move, reason: str) -> None:
        self._move(move)
        self.epoch = 0
        self._base, self._lost, self._handover, self._announcement = None, None, None, None
        self._out.append(Follow(reason))
        self._plan_claim()

    def _retire(self, reason: str) -> None:
        self.state = State.RETIRED
        self._request = None
        self._out.append(Retire(reason))

    # Handing over.

    def _drain(self, heir: str, reason: str, may_be_given_up: bool, now_ns: int) -> None:
        until_ns = now_ns + self.settings.drain_ms * 1_000_000
        self._handover = _Handover(heir, reason, until_ns, may_be_given_up)
        self._better_since_ns = 0
        self._move(Move.DRAIN)
        self._out.append(Drain(reason))

    def _yield(self, parting: Status, now_ns: int) -> None:
        """Close the gate, and only then let go."""
        self._parting = parting
        if self._handover is None:
            self._handover = _Handover("", "stop", 0, False)
        self._yield_until_ns = now_ns + self.settings.ttl_ns
        self._close(self._handover.reason)
        self._move(Move.YIELD)
        self._next_store_ns = now_ns

    def _yielded(self) -> None:
        handover = self._handover
        assert handover is not None
        if handover.heir:
            self._out.append(NotifyHeir(handover.heir))
        self._stand_by(Move.YIELDED, handover.reason)

    def _yield_failed(self) -> None:
        """Stop waiting for the store. A stopping node leaves; another holds on, but S4: with a closed gate."""
        if self._is_stopping:
            self._retire("stopped; the store did not answer, so the lease runs out by itself")
            return
        self._handover = None
        self._move(Move.LAPSE)
        self._out.append(Alert("lease_lapsed", "the lease store did not answer: the handover was given up"))

    def _weigh_peers(self, now_ns: int) -> None:
        """Yield to a peer that does better for long enough."""
        ailments = self._health.ailments
        heir = "" if self._maintenance else self._peers.better_than(ailments, now_ns)
        if not heir:
            self._better_since_ns = 0
            return
        if not self._better_since_ns:
            self._better_since_ns = now_ns
        if now_ns >= self._yield_at_ns():
            text = f"{', '.join(sorted(ailments))}: {heir} does better"
            self._out.append(Alert("yielding", text))
            self._drain(heir, text, False, now_ns)

    def _yield_at_ns(self) -> int:
        return max(self._better_since_ns + self.settings.sick_ms * 1_000_000, self._breaker.closes_ns())

    # Claiming.

    def _may_use_claim(self) -> bool:
        """Whether what is known of the record is fresh. A claim that gets no answer has to be looked up first."""
        return not self._must_read and not self._store_fails

    def _plan_claim(self) -> None:
        """Work out from when on this standby may claim, or why it may not."""
        self._claim_ns, self._why_not = self._candidacy()

    def _candidacy(self) -> tuple[int, str]:
        watch, health, name = self.watch, self._health, self.settings.node
        seen = watch.seen
        forced = self._forced_until_ns > 0
        if not watch.has_read:
            return FOREVER_NS, "the lease was not read yet"
        if not health.is_fit:
            return FOREVER_NS, health.reason or "it is unfit to lead"
        if seen is None:
            return watch.first_seen_ns, ""  # S5: somebody may lead by a record that the store has lost
        if not health.is_current and seen.holder != name and not forced:
            return FOREVER_NS, health.reason or "its replica lags"
        is_given_up = seen.is_free and watch.is_trustworthy() and seen.epoch >= self._promise.epoch
        if is_given_up and seen.heir == name:
            return watch.first_seen_ns, ""
        if self._maintenance and not forced:
            return FOREVER_NS, "maintenance: no automatic takeover"
        if is_given_up and not seen.heir:
            claim_ns, why = watch.first_seen_ns, ""
        else:
            claim_ns, why = watch.expires_ns(), f"{seen.holder} may still lead"
            if self._promise.until_ns > claim_ns:
                claim_ns, why = self._promise.until_ns, f"it promised {seen.holder} not to"
            if health.ailments:
                claim_ns += self.settings.ttl_ns // 2  # healthier candidates first
        if seen.holder != name and not forced and self._breaker.closes_ns() > claim_ns:
            return self._breaker.closes_ns(), "too many switches: promote a node by hand, or wait"
        return claim_ns, why

    def _move(self, move: Move) -> None:
        self.state = next_state(self.state, move)

    def _take(self) -> list[Action]:
        out, self._out = self._out, []
        return out


def _succession(expected: Record | None) -> Succession:
    if expected is None:
        return Succession.FIRST
    if expected.status is Status.RELEASED:
        return Succession.RELEASED
    if expected.status is Status.ABANDONED:
        return Succession.ABANDONED
    return Succession.EXPIRED
