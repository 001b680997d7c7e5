"""What is done about code that blocks the event loop: it is counted, told, and its instance taken off the loop.

Belongs to a process, as the watchdog does, and goes with it from engine to engine (`look_at`).
"""

import functools
import logging
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

import msgspec
from msgspec import Struct

from host.api import QuoteModel
from host.config import WatchdogSection
from host.core import entries as e
from host.core.entries import InstanceState
from host.core.state import InstanceRecord
from host.runtime.culprit import Culprit
from host.runtime.watchdog import Block, LoopWatchdog, take_last_words

if TYPE_CHECKING:
    from host.runtime.engine import Engine
    from host.runtime.instance import Instance

__all__ = ["LAST_WORDS", "BlockCount", "Blocks"]

_log = logging.getLogger("tandem.watchdog")

LAST_WORDS: Final = "blocked"
"""The file within `data_dir` that says what blocks the loop, while something does."""
_RECEIVING: Final = (InstanceState.STARTING, InstanceState.RUNNING, InstanceState.PAUSED)


class BlockCount(Struct):
    """How often an instance held the loop for longer than allowed since the process began, and for how long at most."""

    count: int = 0
    longest_ns: int = 0


class Blocks:
    """Acts on what the watchdog finds, as `[watchdog]` says."""

    def __init__(self, section: WatchdogSection | None = None, data_dir: Path | None = None) -> None:
        self.by_instance: dict[str, BlockCount] = {}
        self._section: Final = section or WatchdogSection()
        self._path: Final = None if data_dir is None else data_dir / LAST_WORDS
        self._engine: Engine | None = None
        self._before: Culprit | None = None
        self._is_taken_up = False
        self.watchdog: Final = LoopWatchdog(
            self._section.limit_ms / 1e3,
            on_culprit=self._on_culprit,
            last_words=self._path,
            give_up_s=None if self._policy == "warn" else self._section.give_up_ms / 1e3,
        )

    @property
    def _policy(self) -> Literal["warn", "quarantine", "worker", "give_up"]:
        return self._section.on_block

    def start(self) -> None:
        """Begin to watch the running loop, as `LoopWatchdog.start`."""
        if self._path is not None:
            self._before = take_last_words(self._path)
            if self._before is not None:
                _log.error("%s", self._epitaph)
        self.watchdog.start()

    def stop(self) -> None:
        """Watch no more."""
        self.watchdog.stop()

    def look_at(self, engine: "Engine") -> None:
        """Act on another engine from here on."""
        self._engine = engine
        engine.blocks = self

    @property
    def _epitaph(self) -> str:
        return f"the process before this one ended while its event loop was blocked by {self._before}"

    # -- as control returns ----------------------------------------------------------------------

    def tell(self, on_alert: Callable[[str, str], None]) -> None:
        """Count and tell what has blocked the loop since this was last asked, and act on what was named late."""
        for block in self.watchdog.take():
            self._take_in(block, on_alert)

    def _take_in(self, block: Block, on_alert: Callable[[str, str], None]) -> None:
        culprit = None if block.culprit is None else self._with_instance(block.culprit)
        said = "code that nothing could look at" if culprit is None else str(culprit)
        on_alert("loop_blocked", f"the event loop was blocked for {block.lasted_ns / 1e9:.2f} s by {said}")
        if culprit is None or not culprit.instance:
            return
        counted = self.by_instance.setdefault(culprit.instance, BlockCount())
        counted.count += 1
        counted.longest_ns = max(counted.longest_ns, block.lasted_ns)

    def _on_culprit(self, culprit: Culprit) -> None:
        """Have the instance taken off the loop at the end of the turn that it blocks, or else of the next one.

        May be called by the watchdog's thread.
        """
        engine = self._engine
        if engine is not None and self._policy in ("quarantine", "worker"):
            engine.after_turn.append(functools.partial(self._act, engine, culprit))

    def _act(self, engine: "Engine", culprit: Culprit, _now_ns: int) -> None:
        culprit = self._with_instance(culprit)
        instance = engine.roster.instances.get(culprit.instance)
        if instance is None or instance.state not in _RECEIVING or engine.is_following:
            return
        is_of_a_model = _is_of_a_model(culprit, engine.state.instances[instance.instance])
        if not _runs_here(instance, culprit, is_of_a_model):
            return
        where = f"{culprit.file}, line {culprit.line}"
        why = f"{culprit.callback} held the event loop for more than {self._section.limit_ms} ms ({where})"
        is_to_move = self._policy == "worker" and instance.probation is None and not is_of_a_model
        if not (is_to_move and engine.move_to_worker(instance.instance, why)):
            engine.roster.quarantine_for(instance, why)

    def _with_instance(self, culprit: Culprit) -> Culprit:
        """Return a culprit with its instance, where a dump of the stack told the versions of its code alone."""
        engine = self._engine
        if culprit.instance or culprit.account or engine is None:
            return culprit
        user = _only_user(culprit, [engine.state.instances[name] for name in engine.roster.instances])
        return culprit if user is None else msgspec.structs.replace(culprit, instance=user.instance)

    # -- after a process that ended so -----------------------------------------------------------

    def ended_in(self, instance: str, engine: "Engine") -> bool:
        """Return whether the process before this one ended in the very code that an instance runs."""
        record = self._blocker_before(engine)
        return record is not None and record.instance == instance

    def _blocker_before(self, engine: "Engine") -> InstanceRecord | None:
        culprit, records = self._before, engine.state.instances
        if culprit is None:
            return None
        known = [records[culprit.instance]] if culprit.instance in records else list(records.values())
        return _only_user(culprit, known)

    def take_up(self, engine: "Engine") -> None:
        """Tell what blocked the process before this one until it ended, and keep it off the loop.

        Called when this node leads, before its instances start. It runs again once its bytes change, or an operator
        starts it. Where another node has led since, it is told alone.
        """
        culprit, is_late = self._before, self._is_taken_up
        self._is_taken_up = True
        if culprit is None or is_late:
            return
        engine.alert("gave_up", self._epitaph, culprit.instance)
        if self._policy == "warn" or not engine.was_led_here:
            return
        record = self._blocker_before(engine)
        if record is None:
            return
        why = f"{culprit.callback} blocked the event loop until the process ended ({culprit.file}, line {culprit.line})"
        now_ns = engine.clock.now_ns()
        engine.begin_turn(now_ns)
        if self._policy == "worker" and not _is_of_a_model(culprit, record):
            engine.record(e.InstanceIsolated(record.instance, record.digest, why), now_ns)
        else:
            engine.record(e.InstanceChanged(record.instance, InstanceState.QUARANTINED, why), now_ns)
        engine.end_turn(now_ns, 0)


def _is_of_a_model(culprit: Culprit, record: InstanceRecord) -> bool:
    """Return whether it is a quote model that blocks: those of a strategy in a worker run on the loop all the same."""
    is_other_code = bool(culprit.calls) and not record.digest.startswith(culprit.calls[0].digest)
    return is_other_code or culprit.callback == QuoteModel.adjust.__name__


def _runs_here(instance: "Instance", culprit: Culprit, is_of_a_model: bool) -> bool:
    """Return whether the code that blocked is what an instance runs on this loop by now.

    It may be that of a version that it has left since or never took, as each new one rehearses first. And what has
    moved into a worker since may be told of a second time.
    """
    own = [stage.model for stage in instance.models] if is_of_a_model else [instance.strategy]
    return any(call.digest in type(one).__module__ for one in own for call in culprit.calls)


def _only_user(culprit: Culprit, records: list[InstanceRecord]) -> InstanceRecord | None:
    """Return the one instance that runs a version which blocks; None where there is none, or several."""
    for call in culprit.calls:
        users = [record for record in records if record.digest.startswith(call.digest)]
        if users:
            return users[0] if len(users) == 1 else None
    return None
