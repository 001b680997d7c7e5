"""How reloads get into the journal: as turns of their own, or within one that is under way."""

import contextlib
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final

from host.core import entries as e
from host.core.entries import VersionState
from host.journal import JournalError
from host.loader import Version
from host.runtime.reload.stages import Stage, StageOutcome, StageResult

if TYPE_CHECKING:
    from host.runtime.engine import Engine

__all__ = ["ReloadJournal", "unread"]

_log = logging.getLogger("tandem.reload")
_NOWHERE: Final = Path()
_REFUSING: Final = (Stage.CAPTURE, Stage.VALIDATE, Stage.RESTORE, Stage.WARM_UP, Stage.SWAP)
"""What fails in one of these was not live yet: it is refused."""


def unread(plugin: str) -> Version:
    """Return what stands for a version of a plugin whose files could not be read."""
    return Version(plugin, _NOWHERE, "", {})


class ReloadJournal:
    """Writes down what becomes of versions. What has no turn of its own is called within one."""

    def __init__(self, engine: "Engine") -> None:
        self._engine = engine

    @contextlib.contextmanager
    def turn(self) -> Iterator[int]:
        """Make a turn of what is done within; a journal that cannot be written ends trading."""
        engine = self._engine
        now_ns = engine.clock.now_ns()
        engine.begin_turn(now_ns)
        try:
            yield now_ns
        except JournalError as error:
            engine.abort_turn(error)
            return
        except BaseException:
            engine.end_turn(now_ns, 0)
            raise
        engine.end_turn(now_ns, 0)

    def tell(self, version: Version, result: StageResult) -> None:
        """Write down, in a turn of its own, how a stage ended."""
        with self.turn():
            self.stage(version, result)

    def refuse(self, version: Version, reason: str) -> None:
        """Write down, in a turn of its own, that a version did not go live, and say so."""
        with self.turn():
            self.move(version.name, version.digest, VersionState.REFUSED, reason)
            text = f"plugin {version.name} {version.short_digest}: {reason}"
            self._engine.record_alert("reload_refused", text)

    def stage(self, version: Version, result: StageResult) -> None:
        """Write down how a stage ended; within a turn."""
        engine = self._engine
        entry = e.StageReported(
            version.name, version.digest, result.stage, result.outcome, result.duration_us, result.detail
        )
        engine.record(entry, engine.now_ns)
        if result.outcome is StageOutcome.FAILED and result.stage in _REFUSING and version.digest:
            return  # `refuse` says it, as a warning
        _log.log(
            logging.INFO if version.digest else logging.WARNING,  # files that cannot be read have no `refuse`
            "plugin %s %s: %s %s in %.1f ms %s",
            version.name, version.short_digest, result.stage, result.outcome, result.duration_us / 1e3,
            result.detail,
        )  # fmt: skip

    def stage_since(
        self, version: Version, started_ns: int, stage: Stage, outcome: StageOutcome, text: str
    ) -> None:
        """Write down how a stage ended that began at `started_ns` of the host's time; within a turn."""
        took_us = (self._engine.now_ns - started_ns) // 1000
        self.stage(version, StageResult(stage, outcome, took_us, text))

    def move(self, plugin: str, digest: str, state: VersionState, reason: str) -> None:
        """Write down what a version is from now on; within a turn."""
        self._engine.record(e.VersionMoved(plugin, digest, state, reason), self._engine.now_ns)
