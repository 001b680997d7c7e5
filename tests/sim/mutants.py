"""The algorithm, broken on purpose: every one of these has to be caught by the invariants.

A mutant changes the elector or one of its parts by subclassing it, or the world around it by a quirk, in one
place each.
"""

from dataclasses import dataclass
from typing import Any, Final

from failover.candidacy import Candidacy
from failover.elector import Elector, ElectorSettings
from failover.holder import Holder
from failover.lease.record import Record, Status
from failover.requests import Request, StoreRequests
from failover.signals import Action, OpenGate
from failover.states import HOLDING, State
from failover.tenure import Tenure


class RightFromTheAnswer(Holder):
    """Counts the right from the answer to a renewal instead of from before its request."""

    def confirmed(self, sent: Request, now_ns: int) -> None:
        super().confirmed(Request(sent.number, now_ns, sent.expected, sent.new), now_ns)


class NoGuard(Candidacy):
    """Waits as long as the right lasts, counted from its own expectation, and not a bit longer."""

    def decide(self) -> tuple[int, str]:
        claim_ns, why = super().decide()
        if claim_ns == self._watch.expires_ns():
            claim_ns -= self._watch.ttl_ns * 20 // 100
        return claim_ns, why


class RightOfAWholeTtl(Tenure):
    """Takes the whole ttl for its right, and a little more."""

    def right_ns(self, since_ns: int) -> int:
        return since_ns + self.held.ttl_ns * 105 // 100


class _NumberedByTheClock(StoreRequests):
    def attempt(self) -> int:
        self._attempts = max(self._attempts + 1, self.next_ns)
        return self._attempts


class _CountsFromTheNumber(Candidacy):
    def decide(self) -> tuple[int, str]:
        claim_ns, why = super().decide()
        seen = self._watch.seen
        if seen is not None and claim_ns == self._watch.expires_ns():
            claim_ns = seen.renewal + seen.ttl_ns
        return claim_ns, why


class ComparesClocksOfMachines(Elector):
    """Writes its own time into the record, and candidates count from it."""

    def __init__(self, settings: ElectorSettings, now_ns: int) -> None:
        super().__init__(settings, now_ns)
        self._store.__class__ = _NumberedByTheClock
        self._candidacy.__class__ = _CountsFromTheNumber


class CountsFromTheHolder(Candidacy):
    """Counts a candidate's wait from the first sight of the holder, not of the version."""

    def decide(self) -> tuple[int, str]:
        claim_ns, why = super().decide()
        seen = self._watch.seen
        if seen is None or claim_ns != self._watch.expires_ns():
            return claim_ns, why
        key = (seen.holder, seen.epoch)
        if key != getattr(self, "_key", None):
            self._key, self._since_ns = key, self._watch.first_seen_ns
        return self._since_ns + claim_ns - self._watch.first_seen_ns, why


class AssumesLostRenewals(Elector):
    """Takes a renewal without an answer for a success."""

    def on_unanswered(self, request: int, now_ns: int) -> list[Action]:
        sent = self._store.pending
        if sent is not None and sent.new is not None and self.state in HOLDING:
            return self.on_swapped(request, True, now_ns)
        return super().on_unanswered(request, now_ns)


class _NumberedByWhatItFollows(StoreRequests):
    tenure: Tenure

    def attempt(self) -> int:
        return 1 if self.tenure.record is None else self.tenure.record.renewal + 1


class _BelievesInItsNumbers(Holder):
    def looked_up(self, record: Record | None, now_ns: int) -> None:
        super().looked_up(record, now_ns)
        if record is not None and self._machine.state in (State.LEADING, State.DRAINING):
            # What a system does that believes in its own numbers: the record is ours, so we have a right.
            self.lengthen(now_ns, now_ns)


class SameNumberForEveryAttempt(Elector):
    """Numbers attempts by what they follow, so that two attempts cannot be told apart."""

    def __init__(self, settings: ElectorSettings, now_ns: int) -> None:
        super().__init__(settings, now_ns)
        self._store.__class__ = _NumberedByWhatItFollows
        setattr(self._store, "tenure", self._tenure)  # noqa: B010 - of its new class
        self._holder.__class__ = _BelievesInItsNumbers


class PromiseOfTheMajority(Elector):
    """Failsafe with the promise of some peers instead of all."""

    def on_promised(self, peer: str, epoch: int, asked_ns: int, now_ns: int) -> list[Action]:
        for other in self.settings.peers:
            self._tenure.promises.add(other, asked_ns)
        return super().on_promised(peer, epoch, asked_ns, now_ns)


class ForgetsItsPromise(Elector):
    """Promises, and claims all the same."""

    def on_failsafe_asked(self, epoch: int, asked_ns: int, ttl_ms: int, now_ns: int) -> list[Action]:
        actions = super().on_failsafe_asked(epoch, asked_ns, ttl_ms, now_ns)
        self._candidacy.promise.until_ns = 0
        self._candidacy.plan()
        return actions


class NoFence(Holder):
    """Takes the lease by force and sends at once."""

    def won(self, sent: Request, now_ns: int) -> None:
        super().won(sent, now_ns)
        if self._machine.state is State.FENCING:
            self.tenure.fence_ns = now_ns


class MissingMeansFree(Holder):
    """Takes a missing record for a cell that nobody leads."""

    def won(self, sent: Request, now_ns: int) -> None:
        super().won(sent, now_ns)
        if self._machine.state is State.FENCING and sent.expected is None:
            self.tenure.fence_ns = now_ns


class KeepsItsGateWhileYielding(Holder):
    """Hands the lease on with its gate still open."""

    def let_go(self, parting: Status, now_ns: int) -> None:
        until_ns = self.tenure.right_until_ns
        super().let_go(parting, now_ns)
        self._machine.say(*(a for a in self._machine.take() if type(a).__name__ != "CloseGate"))
        self.tenure.right_until_ns = until_ns


class ReopensAfterALostRelease(Elector):
    """Opens its gate again when a release was not answered, on the right that it had."""

    def on_unanswered(self, request: int, now_ns: int) -> list[Action]:
        actions = super().on_unanswered(request, now_ns)
        kept_ns = self._holder.handing.yield_until_ns - self.settings.ttl_ns // 2
        if self.state is State.YIELDING and kept_ns > now_ns:
            actions.append(OpenGate(self.epoch, kept_ns))
        return actions


class GivesUpForGood(Holder):
    """A holder whose right ran out waits for somebody to take the lease instead of renewing."""

    def use_store(self, now_ns: int) -> None:
        if self._machine.state is State.LAPSED:
            store, held = self._store, self.tenure.record
            store.next_ns = now_ns + self._renew_ns
            if held is not None:
                self._machine.say(store.swap(held, held.renewed(store.attempt()), now_ns))
            return
        super().use_store(now_ns)

    def _renewed(self, new: Record, sent_ns: int, now_ns: int) -> None:
        if self._machine.state is not State.LAPSED:
            super()._renewed(new, sent_ns, now_ns)


def _with(part: type[Any]) -> type[Elector]:
    """Return an elector that has `part` in the place of what that derives from."""

    class Mutated(Elector):
        def __init__(self, settings: ElectorSettings, now_ns: int) -> None:
            super().__init__(settings, now_ns)
            parts = (self._holder, self._tenure, self._candidacy)
            [replaced] = [one for one in parts if issubclass(part, type(one))]
            replaced.__class__ = part

    return Mutated


@dataclass(frozen=True)
class Mutant:
    """One way to break it. `caught` is what the invariants say."""

    name: str
    elector: type[Elector] = Elector
    quirks: frozenset[str] = frozenset()
    caught: str = "P4|P5|epochs"


def _elector(cls: type[Any], caught: str = "P4|P5|epochs") -> Mutant:
    return Mutant(cls.__name__, cls if issubclass(cls, Elector) else _with(cls), caught=caught)


def _quirk(name: str, caught: str = "P4|P5|epochs") -> Mutant:
    return Mutant(name, quirks=frozenset({name}), caught=caught)


MUTANTS: Final[tuple[Mutant, ...]] = (
    _elector(RightFromTheAnswer),
    _elector(NoGuard),
    _elector(RightOfAWholeTtl),
    _elector(ComparesClocksOfMachines, "P4|P5|epochs|liveness"),
    _elector(CountsFromTheHolder),
    _elector(AssumesLostRenewals),
    _elector(SameNumberForEveryAttempt),
    _elector(PromiseOfTheMajority),
    _elector(ForgetsItsPromise),
    _elector(NoFence),
    _elector(MissingMeansFree),
    _elector(KeepsItsGateWhileYielding),
    _elector(ReopensAfterALostRelease),
    _elector(GivesUpForGood, "liveness"),
    _quirk("role flag"),
    _quirk("no expiry"),
    _quirk("no settling"),
    _quirk("no draining"),
    _quirk("stale release"),
    _quirk("guardian ends fences"),
    _quirk("swap by epoch"),
    _quirk("wall clock", "P4|P5|epochs|liveness"),
    _quirk("monotonic clock"),
)
