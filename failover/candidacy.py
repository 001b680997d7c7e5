"""The candidate's decision: from when on a standby may claim the lease, and why not before.

Rules S2, S5 and S7 of the elector are kept here, as far as they are a candidate's.
"""

from typing import Final

from failover.failsafe import PromiseKept
from failover.lease.record import Record, Status
from failover.settings import FOREVER_NS, ElectorSettings
from failover.signals import Health
from failover.watch import RecordWatch, SwitchBreaker

__all__ = ["Candidacy"]

_FORCED_TTLS: Final = 4
"""For how many ttl an operator's word to lead stands."""


class Candidacy:
    """What speaks for and against a claim, and when it is due: `claim_ns`, or `why_not`.

    `is_deposing` says that an operator has the lease taken from a leader that renews it. `promise` is
    what this node has promised a leader that cannot reach the store.
    """

    def __init__(self, settings: ElectorSettings, watch: RecordWatch, breaker: SwitchBreaker) -> None:
        self.health = Health()
        self.is_maintenance = False
        self.promise: Final = PromiseKept()
        self.claim_ns = FOREVER_NS
        self.why_not = "the lease was not read yet"
        self.is_deposing = False
        self._forced_until_ns = 0
        self._settings: Final = settings
        self._watch: Final = watch
        self._breaker: Final = breaker

    def plan(self) -> None:
        """Work out from when on this standby may claim, or why it may not."""
        self.claim_ns, self.why_not = self.decide()

    def plan_by(self, now_ns: int) -> None:
        """Plan anew by a record that was read just now; an operator's word may be too old by then."""
        if now_ns >= self._forced_until_ns:
            self.is_deposing = False
        self.plan()
        if self.is_deposing:
            self.claim_ns = now_ns

    def force(self, now_ns: int, *, deposes: bool) -> None:
        """Plan anew on an operator's word: neither lag nor too many switches count, nor a leader if it `deposes`."""
        self._forced_until_ns = now_ns + _FORCED_TTLS * self._settings.ttl_ns
        self.is_deposing = deposes
        self._breaker.reset()
        self.plan()
        if deposes:
            self.claim_ns = now_ns

    def forget_force(self) -> None:
        """Take the operator's word as spent: another epoch has begun."""
        self._forced_until_ns = 0
        self.is_deposing = False

    def may_promise(self, epoch: int, *, is_store_failing: bool) -> bool:
        """Return whether to promise the leader of `epoch`: not where this node can do better than it. S7."""
        return (
            not self.is_deposing
            and self._watch.known_epoch <= epoch
            and (is_store_failing or self.claim_ns == FOREVER_NS)
        )

    def claim(self, attempt: int) -> Record:
        """Return the record with which to claim the lease as it was last seen."""
        seen, own = self._watch.seen, self._settings
        ttl_ms, status = own.ttl_ms, Status.HELD
        if seen is None or (self.is_deposing and not seen.is_free):
            # S5. The longer ttl of the two: others must not think the earlier holder's right over too soon.
            ttl_ms, status = max(ttl_ms, self._watch.ttl_ns // 1_000_000), Status.FENCING
        epoch = self._watch.known_epoch + 1
        if seen is None:
            epoch = max(epoch, own.first_epoch)
        return Record(own.cell, epoch, own.node, own.session, ttl_ms, attempt, status)

    def decide(self) -> tuple[int, str]:
        """Return from when on this standby may claim, and why not before; never where it may not at all."""
        watch, health, name = self._watch, self.health, self._settings.node
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
        is_given_up = seen.is_free and watch.is_trustworthy() and seen.epoch >= self.promise.epoch
        if is_given_up and seen.heir == name:
            return watch.first_seen_ns, ""
        if self.is_maintenance and not forced:
            return FOREVER_NS, "maintenance: no automatic takeover"
        if is_given_up and not seen.heir:
            claim_ns, why = watch.first_seen_ns, ""
        else:
            claim_ns, why = watch.expires_ns(), f"{seen.holder} may still lead"  # S2
            if self.promise.until_ns > claim_ns:
                claim_ns, why = self.promise.until_ns, f"it promised {seen.holder} not to"  # S7
            if health.ailments:
                claim_ns += self._settings.ttl_ns // 2  # healthier candidates first
        if seen.holder != name and not forced and self._breaker.closes_ns() > claim_ns:
            return self._breaker.closes_ns(), "too many switches: promote a node by hand, or wait"
        return claim_ns, why
