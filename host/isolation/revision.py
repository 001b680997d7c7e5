"""One instance's step from a version of its strategy in one worker to another version in another, and back.

The new worker stands ready beside the old one, and goes on from what is saved, as any that follows one that was
lost: `docs/decisions/023-a-worker-is-reloaded-as-if-it-had-been-lost.md`.
"""

import asyncio
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, Final

from msgspec import Struct

from host.api import Params, TandemError
from host.core import entries as e
from host.core.entries import InstanceState
from host.isolation.probation import WorkerProbation
from host.isolation.rehearsal import RehearsalFailed
from host.loader import Offer
from host.runtime.admission import check_candles
from host.runtime.instance import Instance
from host.runtime.reload.comparison import Comparison
from host.runtime.reload.fallback import RECEIVING
from host.runtime.reload.probation import Baseline, too_slow
from host.runtime.reload.revision import RevisionFailed
from host.runtime.reload.version_change import VersionChange

if TYPE_CHECKING:
    from host.isolation.proxy import Proxy
    from host.isolation.supervised import Worker
    from host.runtime.engine import Engine

__all__ = ["WorkerRevision"]

LEAST_EVENTS: Final = 1000
"""So many are replayed, if there were so many, before the first checkpoint."""
AT_A_TIME: Final = 256
"""Events that both versions are fed before what they wanted is compared."""
STANDS_BY_LOOK_S: Final = 0.002


class _Before(Struct, frozen=True):
    """What a rollback goes back to: the version that has earned its place."""

    offer: Offer
    params: Params
    digest: str
    since_ns: int
    """When another version took its place."""


class WorkerRevision:
    """Takes an instance whose strategy runs in a worker to a new version; keeps `Revision`'s promises."""

    def __init__(self, engine: "Engine", instance: Instance, worker: "Worker", change: VersionChange) -> None:
        self.instance: Final = instance
        self.name: Final = instance.instance
        self.place: Final = "strategy"
        self.probation: WorkerProbation | None = None
        self._engine: Final = engine
        self._worker: Final = worker
        self._change: Final = change
        self._new: Proxy | None = None
        self._failure = ""
        self._abandoned: list[str] = []
        self._pace_before = Baseline()
        """What the callbacks of the version that runs took in its rehearsal."""
        self._before: _Before | None = None

    # -- before the swap -------------------------------------------------------------------------

    def build(self) -> str:
        """Make what stands for the new version; its code runs in the rehearsal first, and nowhere before."""
        offer = self._change.find()
        new = self._new = self._worker.renewed(offer, self._change.params())
        new.ctx = self.instance
        check_candles(self.name, new)
        worker = self._worker_of(new)
        worker.is_on_trial = True
        worker.on_fault = self._failed_before
        return f"instance {self.name}: version {self._change.digest[:12]} runs in a worker of its own"

    async def warm_up(self) -> str:
        """Rehearse both versions on what the instance saw lately, then have the new one's worker ready."""
        instance, history = self.instance, self._engine.feeds[self.instance.account].history
        start = instance.checkpoints[0].sequence if instance.checkpoints else history.sequence - LEAST_EVENTS
        events = history.since(max(start, 0))
        new = self._worker.rehearsal(self._worker_of(self._proxy()).offer, self._proxy().params)
        try:
            old = self._worker.rehearsal(self._worker.offer, instance.strategy.params)
        except TandemError:
            new.close()
            raise
        comparison: Comparison | None = Comparison(old, new)
        try:
            with self._failing_as("starting it"):
                await new.begin()
            comparison = comparison if await _does(old.begin()) else None
            for first in range(0, len(events), AT_A_TIME):
                some = events[first : first + AT_A_TIME]
                with self._failing_as("replaying recent events"):
                    await new.run(some)
                if comparison is not None and await _does(old.run(some)):
                    comparison.step()
                else:
                    comparison = None
                    new.take_intents()
            if comparison is not None:
                self._pace_before = old.counted
                self._check_pace(new.counted, old.counted)
                self._abandoned = sorted(old.quoted - new.quoted)
        finally:
            new.close()
            old.close()
        if instance.state in RECEIVING:
            await self._stand_by()
        if comparison is None:
            return f"instance {self.name}: {len(events)} events replayed; the version that runs fails on them"
        return f"instance {self.name}: {len(events)} events replayed, {comparison.words()}"

    def _check_pace(self, new: Baseline, old: Baseline) -> None:
        """Raise `RevisionFailed` where the new version is far slower; both were measured in workers."""
        limits = self._change.limits
        slow = too_slow(limits, new, old)
        if slow and new.events >= limits.events:
            raise RevisionFailed(f"instance {self.name}: {slow}")

    @contextmanager
    def _failing_as(self, what: str) -> Iterator[None]:
        try:
            yield
        except RehearsalFailed as failed:
            raise RevisionFailed(f"instance {self.name}: {what}: {failed}") from failed

    async def _stand_by(self) -> None:
        worker = self._worker_of(self._proxy())
        worker.stand_by()
        while not worker.stands_by:
            if self._failure or not worker.is_wanted:
                raise RevisionFailed(f"instance {self.name}: {self._failure or 'its worker was ended'}")
            await asyncio.sleep(STANDS_BY_LOOK_S)

    def _failed_before(self, why: str) -> bool:
        self._failure = why
        return True

    def prepare(self, now_ns: int) -> None:
        """Take the parameters as they are by now, and see that the new worker is still there."""
        new = self._proxy()
        if self._failure:
            raise RevisionFailed(f"instance {self.name}: {self._failure}")
        new.params = self._change.params()

    # -- the swap --------------------------------------------------------------------------------

    def swap(self, now_ns: int) -> None:
        """Drop what the old worker has under way, and let the new one in; within one turn."""
        instance, engine, new = self.instance, self._engine, self._proxy()
        if self._before is None:
            old_digest = engine.state.instances[self.name].digest
            self._before = _Before(self._worker.offer, instance.strategy.params, old_digest, now_ns)
        self._worker.retire()
        worker = self._worker_of(new)
        worker.on_fault = self._failed_live
        instance.strategy = new
        engine.roster.fit(instance)
        self.probation = instance.probation = WorkerProbation(
            self._change.limits,
            instance.baseline or Baseline(),
            now_ns,
            counts=instance.counts,
            stopwatch_ns=engine.clock.stopwatch_ns,
            on_fault=lambda why: self._change.on_fault(instance, why),
            pace_before=self._pace_before,
            session=lambda: new.session,
        )
        engine.record(e.InstanceRevised(self.name, self._change.digest, "reload"), now_ns)
        for symbol in self._abandoned:
            engine.oms.quoter.set_quotes(instance.channels[symbol], (), None, now_ns)
        if instance.state is InstanceState.QUARANTINED:
            engine.roster.release(instance, "reload")
        elif instance.state in RECEIVING and worker.is_wanted:
            worker.admit()
        elif instance.state in RECEIVING:
            new.moved(instance.state)
        elif worker.is_wanted:  # stopped since it was proved
            worker.retire()

    def _failed_live(self, why: str) -> bool:
        is_watched = self.probation is not None and self.instance.probation is self.probation
        return is_watched and bool(self._change.on_fault(self.instance, why))

    # -- and after -------------------------------------------------------------------------------

    def succeed(self, previous: object) -> None:
        """Take the place of a version on probation: what a rollback goes back to is the one before that."""
        if isinstance(previous, WorkerRevision):
            self._before = previous._before

    def settle(self, now_ns: int) -> None:
        """Let the new version's states be saved from here on: it has earned its place."""
        instance = self.instance
        if self.probation is not None and instance.probation is self.probation:
            instance.baseline = self.probation.counted
            instance.probation = None
            self._worker_of(self._proxy()).prove_itself()
        self.probation = None

    def abandon(self) -> None:
        """End the new version's worker, where it does not come to a swap."""
        if self._new is not None and self.instance.strategy is not self._new:
            self._worker_of(self._new).retire()

    def roll_back(self, reason: str, policy: str, now_ns: int) -> None:
        """Bring the version before back, in a new worker, from the state that was saved when it went."""
        instance, engine, before = self.instance, self._engine, self._before
        self.probation = instance.probation = None
        assert before is not None
        bad = self._worker_of(self._proxy())
        old = bad.renewed(before.offer, before.params)
        bad.retire()
        instance.strategy, old.ctx = old, instance
        engine.roster.fit(instance)
        engine.record(e.InstanceRevised(self.name, before.digest, f"rolled back: {reason}"), now_ns)
        if instance.state not in RECEIVING:
            return
        engine.roster.set_trading(instance)
        if policy != "keep":
            placed = [
                order
                for order in engine.state.orders.values()
                if order.instance == self.name and order.slot < 0 and order.created_ns >= before.since_ns
            ]
            engine.oms.cancel_all(placed, "rolled back", now_ns)
            engine.oms.pull_quotes(self.name, "rolled back", now_ns)
        if policy == "flatten":
            engine.safety.flattening.begin(f"instance:{self.name}", reason)
        old.moved(instance.state)

    # -- inside ----------------------------------------------------------------------------------

    def _proxy(self) -> "Proxy":
        assert self._new is not None, "built before"
        return self._new

    def _worker_of(self, proxy: "Proxy") -> "Worker":
        assert proxy.worker is not None
        return proxy.worker


async def _does(work: Coroutine[Any, Any, None]) -> bool:
    """Return whether the version that runs gets through: where it does not, the new one may be the cure."""
    with suppress(RehearsalFailed):
        await work
        return True
    return False
