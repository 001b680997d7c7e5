"""The algorithm, broken on purpose: every one of these has to be caught by the invariants.

A mutant changes the elector by subclassing it, or the world around it by a quirk, in one place each.
"""

from dataclasses import dataclass
from typing import Any, Final

from failover.elector import Elector
from failover.lease.record import Record, Status
from failover.signals import Action, OpenGate
from failover.states import HOLDING, State


class RightFromTheAnswer(Elector):
    """Counts the right from the answer to a renewal instead of from before its request."""

    def _confirmed(self, sent: Any, now_ns: int) -> None:
        super()._confirmed(type(sent)(sent.number, now_ns, sent.expected, sent.new), now_ns)


class NoGuard(Elector):
    """Waits as long as the right lasts, counted from its own expectation, and not a bit longer."""

    def _candidacy(self) -> tuple[int, str]:
        claim_ns, why = super()._candidacy()
        if claim_ns == self.watch.expires_ns():
            claim_ns -= self.watch.ttl_ns * 20 // 100
        return claim_ns, why


class RightOfAWholeTtl(Elector):
    """Takes the whole ttl for its right, and a little more."""

    def _right_ns(self, since_ns: int) -> int:
        return since_ns + self._held().ttl_ns * 105 // 100


class ComparesClocksOfMachines(Elector):
    """Writes its own time into the record, and candidates count from it."""

    def _attempt(self) -> int:
        self._attempts = max(self._attempts + 1, self._next_store_ns)
        return self._attempts

    def _candidacy(self) -> tuple[int, str]:
        claim_ns, why = super()._candidacy()
        seen = self.watch.seen
        if seen is not None and claim_ns == self.watch.expires_ns():
            claim_ns = seen.renewal + seen.ttl_ns
        return claim_ns, why


class CountsFromTheHolder(Elector):
    """Counts a candidate's wait from the first sight of the holder, not of the version."""

    def _candidacy(self) -> tuple[int, str]:
        claim_ns, why = super()._candidacy()
        seen = self.watch.seen
        if seen is None or claim_ns != self.watch.expires_ns():
            return claim_ns, why
        key = (seen.holder, seen.epoch)
        if key != getattr(self, "_key", None):
            self._key, self._since_ns = key, self.watch.first_seen_ns
        return self._since_ns + claim_ns - self.watch.first_seen_ns, why


class AssumesLostRenewals(Elector):
    """Takes a renewal without an answer for a success."""

    def on_unanswered(self, request: int, now_ns: int) -> list[Action]:
        sent = self._request
        if sent is not None and sent.new is not None and self.state in HOLDING:
            return self.on_swapped(request, True, now_ns)
        return super().on_unanswered(request, now_ns)


class SameNumberForEveryAttempt(Elector):
    """Numbers attempts by what they follow, so that two attempts cannot be told apart."""

    def _attempt(self) -> int:
        return 1 if self._base is None else self._base.renewal + 1

    def _looked_up(self, record: Record | None, now_ns: int) -> None:
        super()._looked_up(record, now_ns)
        if record is not None and self.state in (State.LEADING, State.DRAINING):
            # What a system does that believes in its own numbers: the record is ours, so we have a right.
            self._lengthen(now_ns, now_ns)


class PromiseOfTheMajority(Elector):
    """Failsafe with the promise of some peers instead of all."""

    def on_promised(self, peer: str, epoch: int, asked_ns: int, now_ns: int) -> list[Action]:
        for other in self.settings.peers:
            self._promises.add(other, asked_ns)
        return super().on_promised(peer, epoch, asked_ns, now_ns)


class ForgetsItsPromise(Elector):
    """Promises, and claims all the same."""

    def on_failsafe_asked(self, epoch: int, asked_ns: int, ttl_ms: int, now_ns: int) -> list[Action]:
        actions = super().on_failsafe_asked(epoch, asked_ns, ttl_ms, now_ns)
        self._promise.until_ns = 0
        self._plan_claim()
        return actions


class NoFence(Elector):
    """Takes the lease by force and sends at once."""

    def _won(self, sent: Any, now_ns: int) -> None:
        super()._won(sent, now_ns)
        if self.state is State.FENCING:
            self._fence_ns = now_ns


class MissingMeansFree(Elector):
    """Takes a missing record for a cell that nobody leads."""

    def _won(self, sent: Any, now_ns: int) -> None:
        super()._won(sent, now_ns)
        if self.state is State.FENCING and sent.expected is None:
            self._fence_ns = now_ns


class KeepsItsGateWhileYielding(Elector):
    """Hands the lease on with its gate still open."""

    def _yield(self, parting: Status, now_ns: int) -> None:
        until_ns = self.right_until_ns
        super()._yield(parting, now_ns)
        self._out = [action for action in self._out if type(action).__name__ != "CloseGate"]
        self.right_until_ns = until_ns


class ReopensAfterALostRelease(Elector):
    """Opens its gate again when a release was not answered, on the right that it had."""

    def _yield(self, parting: Status, now_ns: int) -> None:
        self._kept_ns = now_ns + self.settings.ttl_ns // 2
        super()._yield(parting, now_ns)

    def on_unanswered(self, request: int, now_ns: int) -> list[Action]:
        actions = super().on_unanswered(request, now_ns)
        if self.state is State.YIELDING and self._kept_ns > now_ns:
            actions.append(OpenGate(self.epoch, self._kept_ns))
        return actions


class GivesUpForGood(Elector):
    """A holder whose right ran out waits for somebody to take the lease instead of renewing."""

    def _use_store(self, now_ns: int) -> None:
        if self.state is State.LAPSED:
            self._next_store_ns = now_ns + self._renew_ns
            if self._base is not None:
                self._send(self._base, self._base.renewed(self._attempt()), now_ns)
            return
        super()._use_store(now_ns)

    def _renewed(self, new: Record, sent_ns: int, now_ns: int) -> None:
        if self.state is not State.LAPSED:
            super()._renewed(new, sent_ns, now_ns)


@dataclass(frozen=True)
class Mutant:
    """One way to break it. `caught` is what the invariants say."""

    name: str
    elector: type[Elector] = Elector
    quirks: frozenset[str] = frozenset()
    caught: str = "P4|P5|epochs"


def _elector(cls: type[Elector], caught: str = "P4|P5|epochs") -> Mutant:
    return Mutant(cls.__name__, cls, caught=caught)


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
