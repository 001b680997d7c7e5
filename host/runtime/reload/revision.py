"""One instance's step from one version of its strategy to another, and back if need be."""

import asyncio
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final

from host.api import Strategy, TandemError
from host.core import entries as e
from host.core.entries import InstanceState
from host.runtime.instance import Instance, carry_state
from host.runtime.plugin_errors import describe_error
from host.runtime.reload.probation import Baseline, Probation, ProbationLimits
from host.runtime.reload.shadow import Intent, Shadow, compare

if TYPE_CHECKING:
    from host.runtime.engine import Engine

__all__ = ["RevisionFailed", "StrategyRevision"]

WARM_UP_SLICE: Final = 8
"""Events replayed before the loop gets its turn: a few tens of µs, against a tick that waits."""


class RevisionFailed(TandemError):  # noqa: N818 - the fact, in the words operators see
    """The new version's code raised, or cannot take over what the instance has."""


class StrategyRevision:
    """Takes one instance from the strategy that runs to one of a new version.

    `build` and `warm_up` touch nothing that runs. `swap` is one assignment between two events.
    Orders and positions are the instance's and stay; `state` moves over.
    """

    def __init__(
        self,
        engine: "Engine",
        instance: Instance,
        make: Callable[[], Strategy[Any]],
        digest: str,
        limits: ProbationLimits,
    ) -> None:
        self.instance: Final = instance
        self.name: Final = instance.instance
        self.old: Final = instance.strategy
        self.old_digest: Final = engine.state.instances[instance.instance].digest
        self.digest: Final = digest
        self.new: Strategy[Any] | None = None
        self.probation: Probation | None = None
        self._engine = engine
        self._make = make
        self._limits = limits
        self._shadow: Shadow | None = None
        self._swap_seq = 0
        self._swap_ns = 0
        self._old_timers: dict[str, tuple[int, int]] = {}

    # -- before the swap -------------------------------------------------------------------------

    def build(self) -> str:
        """Construct the new strategy and prove that it takes over the state; say what moved."""
        instance = self.instance
        self.new = self._make()
        data = instance.encode_state()
        version = type(self.old).state_type.state_version
        self.new.state = carry_state(type(self.new).state_type, version, data, instance.instance)
        now_version = type(self.new).state_type.state_version
        moved = f"state of {len(data)} bytes"
        if now_version != version:
            moved += f", upgraded from version {version} to {now_version}"
        return f"{instance.instance}: {moved}"

    async def warm_up(self) -> str:
        """Replay what the instance saw lately into the new version and, for comparison, an old one."""
        instance = self.instance
        checkpoint = instance.checkpoint
        if checkpoint is None or self.new is None:
            return f"{instance.instance}: nothing to replay yet"
        sequence, version, data = checkpoint
        events = self._engine.feeds[instance.account].history.since(sequence)
        old_intents = await self._rehearse(type(self.old)(self.old.params), version, data, events)
        new_intents = await self._rehearse(self.new, version, data, events)
        return f"{instance.instance}: {len(events)} events replayed, {compare(old_intents, new_intents)}"

    async def _rehearse(
        self, strategy: Strategy[Any], version: int, data: bytes, events: Sequence[Any]
    ) -> list[Intent]:
        instance = self.instance
        shadow = Shadow(instance)
        strategy.ctx = shadow
        try:
            strategy.state = carry_state(type(strategy).state_type, version, data, instance.instance)
            strategy.on_start()
            for start in range(0, len(events), WARM_UP_SLICE):
                shadow.run(strategy, events[start : start + WARM_UP_SLICE])
                await asyncio.sleep(0)
        except TandemError:
            raise
        except (Exception, SystemExit) as error:
            raise RevisionFailed(
                f"instance {instance.instance}: replaying recent events raised {describe_error(error)}"
            ) from error
        self._shadow = shadow
        return shadow.intents

    # -- the swap --------------------------------------------------------------------------------

    def swap(self, now_ns: int) -> None:
        """Let the new version receive and trade; within one turn, so between two events."""
        instance, new = self.instance, self.new
        assert new is not None
        # Encoded anew: the old version went on while this one was proved.
        version = type(self.old).state_type.state_version
        new.state = carry_state(type(new).state_type, version, instance.encode_state(), instance.instance)
        feed = self._engine.feeds[instance.account]
        self._swap_seq, self._swap_ns = feed.history.sequence, now_ns
        self._old_timers = dict(instance.timers)
        if self._shadow is None:
            self._start_muted(new)
        if self._shadow is not None and self._shadow.timers:
            instance.timers.update(self._shadow.timers)
        self._take(new)
        before = instance.baseline or Baseline()
        self.probation = Probation(self._engine.oms, self._limits, before, now_ns)
        instance.probation = self.probation
        self._engine.record(e.InstanceRevised(instance.instance, self.digest, "reload"), now_ns)
        if instance.state is InstanceState.QUARANTINED:
            self._engine.roster.release(instance, "reload")
        self._engine.roster.save_state(instance, now_ns, force=True)

    def _start_muted(self, strategy: Strategy[Any]) -> None:
        shadow = Shadow(self.instance)
        strategy.ctx = shadow
        try:
            strategy.on_start()
        except (Exception, SystemExit) as error:
            raise RevisionFailed(
                f"instance {self.instance.instance}: on_start raised {describe_error(error)}"
            ) from error
        self._shadow = shadow

    def _take(self, strategy: Strategy[Any]) -> None:
        instance = self.instance
        strategy.ctx = instance
        instance.strategy = strategy
        self._engine.roster.fit(instance)

    # -- and after -------------------------------------------------------------------------------

    def settle(self) -> None:
        """End probation: the version has earned its place, and is what the next is measured by."""
        if self.probation is not None:
            self.instance.baseline = self.probation.counted
        self.probation = self.instance.probation = None

    def roll_back(self, reason: str, policy: str, now_ns: int) -> None:
        """Bring the old version back as if it had never been away, but for what was traded.

        Its state is as it was at the swap; the events since are replayed muted; its latest quotes
        are then asserted once. Resting orders of the bad version are cancelled (`policy` is
        `cancel` or `flatten`) or kept; positions are kept, or closed with `flatten`.
        """
        engine, instance, old = self._engine, self.instance, self.old
        self.probation = instance.probation = None
        engine.roster.set_trading(instance)  # held back since its callback raised
        shadow = Shadow(instance)
        old.ctx = shadow
        events = engine.feeds[instance.account].history.since(self._swap_seq)
        try:
            shadow.run(old, events)
        except (Exception, SystemExit) as error:  # noqa: BLE001 - plugin boundary: no version is left to run
            self._take(old)
            engine.roster.quarantine(instance, error, "replaying after a rollback")
            return
        self._take(old)
        instance.timers.clear()
        instance.timers.update(self._old_timers | shadow.timers)
        engine.record(e.InstanceRevised(instance.instance, self.old_digest, f"rolled back: {reason}"), now_ns)
        engine.roster.save_state(instance, now_ns, force=True)
        if policy != "keep":
            placed = [
                order
                for order in engine.state.orders.values()
                if order.instance == instance.instance
                and order.slot < 0
                and order.created_ns >= self._swap_ns
            ]
            engine.oms.cancel_all(placed, "rolled back", now_ns)
        wanted = shadow.latest_quotes()
        for symbol in instance.symbols:
            instance.quote(symbol, wanted.get(symbol, ()))
        if policy == "flatten":
            engine.safety.flatten(f"instance:{instance.instance}")
