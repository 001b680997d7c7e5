"""What a node does that holds the lease: it wins, waits out, renews, lapses, hands over and loses it.

Rules S4 and S5 of the elector are kept here, as far as they are about what a holder does.
"""

from typing import Final

from failover.candidacy import Candidacy
from failover.handover import Handing
from failover.lease.record import Record, Status
from failover.machine import Machine
from failover.peers import PeerBook
from failover.requests import Request, StoreRequests
from failover.settings import FOREVER_NS, ElectorSettings
from failover.signals import Alert, AskPeers, CloseGate, Drain, Follow, NotifyHeir, Resume
from failover.states import HOLDING, Move, State
from failover.tenure import Tenure
from failover.watch import SwitchBreaker

__all__ = ["Holder"]


class Holder:
    """A node's part from the moment at which its claim took effect until the lease is another's, or nobody's.

    `tenure` is what it holds, `handing` how it hands that on. Its methods are called in a state that
    holds the lease, and at `won` from `ACQUIRING`.
    """

    def __init__(
        self,
        settings: ElectorSettings,
        machine: Machine,
        store: StoreRequests,
        candidacy: Candidacy,
        peers: PeerBook,
        breaker: SwitchBreaker,
    ) -> None:
        self.tenure: Final = Tenure(settings.peers)
        self.handing: Final = Handing(settings, peers, breaker)
        self._settings: Final = settings
        self._machine: Final = machine
        self._store: Final = store
        self._candidacy: Final = candidacy
        self._peers: Final = peers
        self._renew_ns: Final = settings.ttl_ns // 4
        self._ask_ns: Final = settings.ttl_ns // 8
        self._next_ask_ns = 0

    @property
    def due_ns(self) -> int:
        """When there is something to do besides using the store."""
        state, tenure, handing = self._machine.state, self.tenure, self.handing
        due_ns = FOREVER_NS
        if state is State.LEADING or state is State.DRAINING:
            due_ns = tenure.right_until_ns
            if self._store.is_failing and tenure.promises.is_possible:
                due_ns = min(due_ns, self._next_ask_ns)
            if handing.weigh_again_ns:
                due_ns = min(due_ns, handing.weigh_again_ns)
        if state is State.DRAINING:
            due_ns = min(due_ns, handing.wanted.until_ns)
        elif state is State.YIELDING:
            due_ns = handing.yield_until_ns
        return due_ns

    # What becomes of the record.

    def confirmed(self, sent: Request, now_ns: int) -> None:
        """A swap of this node took effect, and it is known when it was sent."""
        new = sent.new
        assert new is not None
        self.tenure.record = new
        state = self._machine.state
        if state is State.ACQUIRING:
            self.won(sent, now_ns)
        elif new.is_free:
            if state is State.YIELDING:
                self._yielded()
            else:
                self._lost(new)  # a release that had been given up for lost
        elif state is State.YIELDING:
            self._store.next_ns = now_ns
        elif state in HOLDING:
            self._renewed(new, sent.sent_ns, now_ns)

    def won(self, sent: Request, now_ns: int) -> None:
        """A claim of this node took effect."""
        new = sent.new
        assert new is not None
        self.tenure.begin(new, sent.expected, now_ns)
        self._candidacy.forget_force()
        self._candidacy.why_not = ""
        self.handing.forget_peers()
        self._store.next_ns = max(now_ns, sent.sent_ns + self._renew_ns)
        if new.status is Status.FENCING:
            self._machine.move(Move.WIN_FENCED)
            return
        self._machine.move(Move.WIN)
        if not self.lengthen(sent.sent_ns, now_ns):
            self._lapse("the answer to its claim came too late", now_ns)
        if self._machine.is_stopping and self._machine.state is State.LEADING:
            self.drain("", "stop", False, now_ns)

    def _renewed(self, new: Record, sent_ns: int, now_ns: int) -> None:
        store, tenure = self._store, self.tenure
        store.next_ns = max(now_ns, sent_ns + self._renew_ns)
        if self._machine.state is State.FENCING:
            if new.status is Status.FENCING:
                if sent_ns < tenure.fence_ns:
                    store.next_ns = max(now_ns, min(store.next_ns, tenure.fence_ns))
                return
            self._machine.move(Move.FENCE_OVER)
            if not self.lengthen(sent_ns, now_ns):
                self._lapse("the answer to its renewal came too late", now_ns)
        elif self._machine.state is State.LAPSED:
            if tenure.right_ns(sent_ns) > now_ns:
                self._machine.move(Move.RENEW)
                self.lengthen(sent_ns, now_ns)
        else:
            self.lengthen(sent_ns, now_ns)

    def looked_up(self, record: Record | None, now_ns: int) -> None:
        """The record was read because an answer was missing, and is not what was asked for last."""
        self._store.next_ns = now_ns
        if record is not None and record.belongs_to(self._settings.session, self.tenure.epoch):
            # Unchanged, or an earlier attempt came through: which one is not known, so it earns no right.
            self.tenure.record = record
        elif (
            self._machine.state is State.YIELDING
            and record is not None
            and (record.session, record.epoch) == (self._settings.session, self.tenure.epoch)
        ):
            self._yielded()
        else:
            self._lost(record)

    # What becomes of the right.

    def lengthen(self, since_ns: int, now_ns: int) -> bool:
        """Let a leader's right run on from `since_ns`; return whether it has any."""
        if self._machine.state is not State.LEADING and self._machine.state is not State.DRAINING:
            return False
        self._machine.say(*self.tenure.lengthen(since_ns, now_ns))
        return self.tenure.right_until_ns > now_ns

    def _lapse(self, reason: str, now_ns: int) -> None:
        self.handing.current = None
        self.close(reason)
        self._machine.move(Move.LAPSE)
        self._machine.say(Alert("lease_lapsed", f"node {self._settings.node} sends nothing: {reason}"))
        if self._machine.is_stopping:
            self.let_go(Status.ABANDONED, now_ns)

    def close(self, reason: str) -> None:
        """End the right, and have the gate closed."""
        self.tenure.right_until_ns = 0
        self._machine.say(CloseGate(reason))

    def _lost(self, record: Record | None) -> None:
        found = "gone" if record is None else f"{record.status.value} by {record.holder}"
        reason = f"epoch {self.tenure.epoch} is over: the lease of cell {self._settings.cell!r} is {found}"
        self.close(reason)
        self._machine.say(Alert("deposed", reason))
        self._stand_by(Move.LOSE, reason)

    def _stand_by(self, move: Move, reason: str) -> None:
        self._machine.move(move)
        self.tenure.end()
        self._store.lost = None
        self.handing.current = None
        self._machine.say(Follow(reason))
        self._candidacy.plan()

    def store_failed(self, now_ns: int) -> None:
        """The store does not answer any more: the peers are asked at once."""
        self._next_ask_ns = now_ns

    # What is due.

    def advance(self, now_ns: int) -> None:
        """Do what has become due, besides using the store."""
        state = self._machine.state
        if state is State.LEADING or state is State.DRAINING:
            if now_ns >= self.tenure.right_until_ns:
                self._lapse("the lease could not be renewed in time", now_ns)
            else:
                self._lead_on(now_ns)
        elif state is State.YIELDING and now_ns >= self.handing.yield_until_ns:
            self._yield_failed()

    def use_store(self, now_ns: int) -> None:
        """Ask the store, when that is due: to renew the record, to release it, or what became of a swap."""
        store, tenure, handing = self._store, self.tenure, self.handing
        if now_ns < store.next_ns:
            return
        if store.must_read or tenure.record is None:
            self._machine.say(store.read(now_ns))
            return
        if self._machine.state is State.YIELDING:
            new = tenure.held.released(store.attempt(), handing.wanted.heir, handing.parting)
        else:
            new = tenure.renewal(store.attempt(), now_ns)
        self._machine.say(store.swap(tenure.record, new, now_ns))

    def _lead_on(self, now_ns: int) -> None:
        """A leader's duties besides renewing."""
        handover = self.handing.current
        if handover is None:
            self._weigh_peers(now_ns)
        elif now_ns >= handover.until_ns:
            if handover.may_be_given_up:
                self.handing.current = None
                self._machine.move(Move.KEEP)
                text = f"{handover.reason} given up: not drained within {self._settings.drain_ms} ms"
                self._machine.say(Resume(text), Alert("switchover_given_up", text))
            else:
                # What is still on the wire is not waited for, and the record says so to the successor.
                self.let_go(Status.ABANDONED, now_ns)
                return
        if self._store.is_failing and self.tenure.promises.is_possible and now_ns >= self._next_ask_ns:
            self._next_ask_ns = now_ns + self._ask_ns
            self._machine.say(AskPeers(self.tenure.epoch, now_ns, self.tenure.held.ttl_ms))

    def _weigh_peers(self, now_ns: int) -> None:
        """Yield to a peer that does better for long enough."""
        candidacy, handing = self._candidacy, self.handing
        if candidacy.is_maintenance:
            handing.forget_peers()
            return
        ailments = candidacy.health.ailments
        heir = handing.better_peer(ailments, now_ns)
        if heir:
            text = f"{', '.join(sorted(ailments))}: {heir} does better"
            self._machine.say(Alert("yielding", text))
            self.drain(heir, text, False, now_ns)

    # Handing over.

    def stop(self, now_ns: int) -> None:
        """Give the lease up in order, as far as there is one."""
        state = self._machine.state
        if state is State.FENCING:
            self._machine.retire(
                "stopped while it waited for an earlier leader; the lease runs out by itself"
            )
        elif state is State.LEADING:
            self.drain(self._peers.best(now_ns), "stop", False, now_ns)
        elif state is State.DRAINING:
            self.handing.make_final("stop")
        elif state is State.LAPSED:
            self.let_go(Status.ABANDONED, now_ns)

    def drain(self, heir: str, reason: str, may_be_given_up: bool, now_ns: int) -> None:
        """Start nothing new, to hand the lease to `heir`; to whoever claims it where that is empty."""
        self.handing.begin(heir, reason, now_ns, may_be_given_up=may_be_given_up)
        self._machine.move(Move.DRAIN)
        self._machine.say(Drain(reason))

    def let_go(self, parting: Status, now_ns: int) -> None:
        """Close the gate, and only then give the record up. S4: it stays closed until a renewal."""
        handover = self.handing.let_go(parting, now_ns)
        self.close(handover.reason)
        self._machine.move(Move.YIELD)
        self._store.next_ns = now_ns

    def _yielded(self) -> None:
        handover = self.handing.wanted
        if handover.heir:
            self._machine.say(NotifyHeir(handover.heir))
        self._stand_by(Move.YIELDED, handover.reason)

    def _yield_failed(self) -> None:
        """Stop waiting for the store. A stopping node leaves; another holds on, but S4: with a closed gate."""
        if self._machine.is_stopping:
            self._machine.retire("stopped; the store did not answer, so the lease runs out by itself")
            return
        self.handing.current = None
        self._machine.move(Move.LAPSE)
        self._machine.say(Alert("lease_lapsed", "the lease store did not answer: the handover was given up"))
