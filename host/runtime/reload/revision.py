"""One instance's step from one version of its strategy to another, and back if need be."""

import asyncio
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final

from host.api import Params, Strategy, TandemError
from host.core import entries as e
from host.core.entries import InstanceState
from host.runtime.admission import check_candles
from host.runtime.instance import Checkpoint, Instance, StateNotCarried, carry_state, encode_state
from host.runtime.plugin_errors import describe_error
from host.runtime.reload.comparison import Comparison
from host.runtime.reload.fallback import RECEIVING, Fallback
from host.runtime.reload.probation import Baseline, Probation, ProbationLimits, too_slow
from host.runtime.reload.shadow import Shadow, time_of

if TYPE_CHECKING:
    from host.runtime.engine import Engine

__all__ = ["RevisionFailed", "StrategyRevision"]

WARM_UP_SLICE_NS: Final = 200_000
"""Events are replayed for so long before the loop gets its turn; one callback may make it longer."""
AT_A_TIME: Final = 256
"""Events at most that are replayed and compared before the loop gets its turn."""
MOST_AT_SWAP: Final = 32
"""Events that may be left to catch up with in the swap's own turn."""


class RevisionFailed(TandemError):  # noqa: N818 - the fact, in the words operators see
    """The new version's code raised, or cannot take over what the instance has."""


class StrategyRevision:
    """Takes one instance from the strategy that runs to one of a new version.

    `build`, `warm_up` and `prepare` touch nothing that runs and raise `TandemError` where the new
    version cannot take over. `swap` then cannot fail. Orders and positions are the instance's and
    stay; `state` moves over.
    """

    def __init__(
        self,
        engine: "Engine",
        instance: Instance,
        make: Callable[[], Strategy[Any]],
        params: Callable[[], Params],
        digest: str,
        limits: ProbationLimits,
        on_fault: Callable[[Instance, str], object],
    ) -> None:
        self.instance: Final = instance
        self.name: Final = instance.instance
        self.place: Final = "strategy"
        self.old: Strategy[Any] | None = instance.strategy
        self.new: Strategy[Any] | None = None
        self.probation: Probation | None = None
        self._engine = engine
        self._make = make
        self._params = params
        self._digest = digest
        self._limits = limits
        self._on_fault = on_fault
        self._history = engine.feeds[instance.account].history
        self._shadow: Shadow | None = None
        self._seen = 0
        self._before = Baseline()
        self._old_timers: set[str] = set()
        self._abandoned: list[str] = []

    # -- before the swap -------------------------------------------------------------------------

    def build(self) -> str:
        """Construct the new strategy and prove that it takes over the state; say what moved."""
        new = self.new = self._make()
        check_candles(self.instance.instance, new)
        present = self._present()
        new.state = self._carried(new, present)
        try:
            encode_state(new)
        except Exception as error:
            raise self._failed("its state cannot be saved", error) from error
        moved = f"instance {self.name}: state of {len(present.state)} bytes"
        version = type(new).state_type.state_version
        if version != present.state_version:
            moved += f", upgraded from version {present.state_version} to {version}"
        return moved

    def _present(self) -> Checkpoint:
        """Return the state that the new version takes over."""
        instance = self.instance
        if instance.state not in RECEIVING:
            # What broke is not trusted: it goes on from the last state saved, and hears the rest again.
            record = self._engine.state.instances[instance.instance]
            return Checkpoint(self._history.sequence, record.state_version, record.strategy_state)
        try:
            return instance.checkpoint()
        except Exception as error:
            raise self._failed("the state of the version that runs cannot be saved", error) from error

    def _carried(self, strategy: Strategy[Any], checkpoint: Checkpoint) -> Any:
        state_type = type(strategy).state_type
        if not checkpoint.state:
            return state_type()
        return carry_state(state_type, checkpoint.state_version, checkpoint.state, self.instance.instance)

    async def warm_up(self) -> str:
        """Replay what the instance saw lately into the new version and, for comparison, an old one."""
        new, old = self.new, self.old
        assert new is not None
        assert old is not None
        start = self._starting_point(new)
        events = self._history.since(start.sequence)
        old_shadow = self._yardstick(old, start, events)
        try:
            shadow = self._shadow = self._started(new, start, events)
            comparison = await self._rehearse(old_shadow, shadow, events)
            self._seen = start.sequence + len(events)
            await self._catch_up(shadow)
        except TandemError:
            raise
        except (Exception, SystemExit) as error:
            raise self._failed("replaying recent events", error) from error
        if old_shadow is None or comparison is None:
            return f"instance {self.name}: {len(events)} events replayed; the version that runs fails on them"
        self._old_timers = set(old_shadow.timers)
        self._before = self._measured(old_shadow, start)
        slow = too_slow(self._limits, shadow.counted, self._before)
        if slow and shadow.counted.events >= self._limits.events:
            raise RevisionFailed(f"instance {self.name}: {slow}")
        self._abandoned = [s for s, quotes in old_shadow.quotes.items() if quotes and s not in shadow.quotes]
        return f"instance {self.name}: {len(events)} events replayed, {comparison.words()}"

    def _starting_point(self, new: Strategy[Any]) -> Checkpoint:
        """Return the oldest moment remembered whose state the new version understands."""
        for checkpoint in self.instance.checkpoints:
            try:
                self._carried(new, checkpoint)
            except StateNotCarried:  # remembered by a version before the one that runs
                continue
            return checkpoint
        return self._present()

    def _measured(self, old_shadow: Shadow, start: Checkpoint) -> Baseline:
        """Return what the old version did since `start`: as it traded, or would have if it might."""
        measured, baseline = old_shadow.counted, self.instance.baseline
        if baseline is not None and baseline.events > measured.events:
            return baseline
        commands, refusals = self.instance.counts()
        return Baseline(
            measured.events,
            max(measured.commands, commands - start.commands),
            refusals - start.refusals,
            measured.handler_ns,
            measured.slowest_ns,
        )

    def _yardstick(self, old: Strategy[Any], start: Checkpoint, events: Sequence[Any]) -> Shadow | None:
        """Return a fresh object of the version that runs, started; None where it does not start."""
        try:
            return self._started(type(old)(old.params), start, events)
        except (Exception, SystemExit):  # noqa: BLE001 - the version that goes; the new one may be the cure
            return None

    def _started(self, strategy: Strategy[Any], start: Checkpoint, events: Sequence[Any]) -> Shadow:
        now_ns = time_of(events[0]) if events else self._engine.clock.now_ns()
        shadow = Shadow(self.instance, strategy, now_ns, self._engine.clock.stopwatch_ns)
        strategy.state = self._carried(strategy, start)
        shadow.start()
        return shadow

    async def _rehearse(self, old: Shadow | None, new: Shadow, events: Sequence[Any]) -> Comparison | None:
        """Replay the same events into both, a few at a time; None where the old version fails on them."""
        comparison = Comparison(old, new) if old is not None else None
        done = 0
        while True:
            if comparison is None:
                new.take_intents()
            else:
                comparison.step()
            if done == len(events):
                return comparison
            await asyncio.sleep(0)
            some = events[done : done + AT_A_TIME]
            if comparison is not None and old is not None:
                try:
                    some = some[: old.run(some, WARM_UP_SLICE_NS)]
                except (Exception, SystemExit):  # noqa: BLE001 - as above
                    comparison = None
                await asyncio.sleep(0)
            await self._replay(new, some)
            done += len(some)

    async def _replay(self, shadow: Shadow, events: Sequence[Any]) -> None:
        done = 0
        while done < len(events):
            done += shadow.run(events[done : done + AT_A_TIME], WARM_UP_SLICE_NS)
            self._check_hang(shadow)
            await asyncio.sleep(0)

    async def _catch_up(self, shadow: Shadow) -> None:
        while self._history.sequence - self._seen > MOST_AT_SWAP:
            events = self._history.since(self._seen)
            self._seen += len(events)
            await self._replay(shadow, events)
            shadow.take_intents()

    def _check_hang(self, shadow: Shadow) -> None:
        held_ms = shadow.counted.slowest_ns / 1e6
        if held_ms > self._limits.hang_ms and shadow.strategy is self.new:
            raise RevisionFailed(
                f"instance {self.name}: a callback took {held_ms:.1f} ms in the replay of recent events, "
                f"the limit is {self._limits.hang_ms:g} ms"
            )

    def _failed(self, what: str, error: BaseException) -> RevisionFailed:
        return RevisionFailed(f"instance {self.name}: {what} raised {describe_error(error)}")

    # -- the swap --------------------------------------------------------------------------------

    def prepare(self, now_ns: int) -> None:
        """Bring the new version up to this very moment: nothing else happens before `swap`."""
        new, shadow = self.new, self._shadow
        assert new is not None
        assert shadow is not None
        try:
            shadow.run(self._history.since(self._seen))
            shadow.advance(now_ns)
            shadow.end()
            params, before = self._params(), new.params
            if params != before:  # changed while this version was proved
                new.params = params
                new.on_params(before)
        except TandemError:
            raise
        except (Exception, SystemExit) as error:
            raise self._failed("replaying recent events", error) from error
        # Taken anew: the old version went on while this one was proved.
        new.state = self._carried(new, self._present())

    def swap(self, now_ns: int) -> None:
        """Let the new version receive and trade; within one turn, so between two events."""
        instance, new, shadow, engine = self.instance, self.new, self._shadow, self._engine
        on_fault = self._on_fault
        assert new is not None
        assert shadow is not None
        if instance.fallback is None:
            fallback = Fallback(engine, instance, now_ns)
            if instance.state in RECEIVING:
                engine.roster.states.save(instance, now_ns, force=True)
            instance.fallback = fallback
        # Else the version on probation is replaced: what earned its place is still the one before it.
        instance.timers = self._timers(shadow)
        instance.strategy, new.ctx = new, instance
        engine.roster.fit(instance)
        self.probation = instance.probation = Probation(
            self._limits,
            self._before,
            now_ns,
            counts=instance.counts,
            stopwatch_ns=engine.clock.stopwatch_ns,
            on_fault=lambda why: on_fault(instance, why),
        )
        engine.record(e.InstanceRevised(instance.instance, self._digest, "reload"), now_ns)
        for symbol in self._abandoned:
            engine.oms.quoter.set_quotes(instance.channels[symbol], (), None, now_ns)
        if instance.state is InstanceState.QUARANTINED:
            engine.roster.release(instance, "reload")
        self._shadow = None

    def _timers(self, shadow: Shadow) -> dict[str, tuple[int, int]]:
        """Return the new version's timers, and those that came from what happened before the replay.

        One that goes on as it was stays due when it was: reloads must not put it off for ever.
        """
        live = self.instance.timers
        timers = {name: due for name, due in live.items() if name not in self._old_timers}
        for name, (due_ns, every_ns) in shadow.timers.items():
            known = live.get(name)
            timers[name] = known if known is not None and known[1] == every_ns else (due_ns, every_ns)
        return timers

    # -- and after -------------------------------------------------------------------------------

    def succeed(self, previous: object) -> None:
        """Take the place of a revision on probation: the instance keeps what that would go back to."""

    def settle(self, now_ns: int) -> None:
        """End probation: the version has earned its place, and is what the next is measured by."""
        instance = self.instance
        if self.probation is not None and instance.probation is self.probation:
            instance.baseline = self.probation.counted
            instance.probation = instance.fallback = None
            self._engine.roster.states.save(instance, now_ns, force=True)
        self.probation = None

    def abandon(self) -> None:
        """Have nothing to undo: what the new strategy wanted was written down, not done."""

    def roll_back(self, reason: str, policy: str, now_ns: int) -> None:
        """Bring the version before this one back; see `Fallback.restore`."""
        self.probation = None
        if self.instance.fallback is not None:
            self.instance.fallback.restore(reason, policy, now_ns)
