"""The stages of a reload, in order, and how each is timed, journaled and told."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum

from msgspec import Struct

from host.api import TandemError
from host.core.entries import VersionState

__all__ = ["ReloadRefused", "ReloadReport", "Stage", "StageLog", "StageOutcome", "StageResult"]


class Stage(StrEnum):
    """What a new version goes through (DESIGN.md, section 4). Up to SWAP the old one is untouched."""

    CAPTURE = "capture"
    """Read every file until two readings are equal: that is a version."""
    VALIDATE = "validate"
    """Import it in a throwaway child process, check its classes, then import it here."""
    RESTORE = "restore"
    """Construct it with the instance's parameters and give it the old version's state."""
    WARM_UP = "warm_up"
    """Replay the instance's recent events muted and compare with what the old version wants."""
    SWAP = "swap"
    """Between two events: from here on the new version receives and trades."""
    PROBATION = "probation"
    """Watched: an exception, a hang, too many vetoes or orders, and it is rolled back."""
    PROMOTE = "promote"
    """Permanent: a restart comes back to it."""
    RETIRE = "retire"
    """The old version's tasks are ended and its code must become collectable."""
    ROLL_BACK = "roll_back"
    """The old version, with its saved state and all that happened since, is back."""


class StageOutcome(StrEnum):
    """How a stage ended."""

    PASSED = "passed"
    FAILED = "failed"
    SKIPPED = "skipped"
    """It was not waited for: a newer version took its place."""


class StageResult(Struct, frozen=True):
    """One stage that is over."""

    stage: Stage
    outcome: StageOutcome
    duration_us: int
    detail: str


class ReloadReport(Struct, frozen=True):
    """What one reload came to. `state` is None where there was nothing to do."""

    plugin: str
    digest: str
    state: VersionState | None
    reason: str
    stages: tuple[StageResult, ...]
    instances: tuple[str, ...]


class ReloadRefused(TandemError):  # noqa: N818 - a refusal is an answer, not a malfunction
    """A version failed a stage before it went live; the version that ran runs on."""

    def __init__(self, stage: Stage, reason: str) -> None:
        super().__init__(reason)
        self.stage = stage
        self.reason = reason


class StageLog:
    """Times the stages of one reload; `tell(result)` journals and shows each as it ends."""

    def __init__(self, tell: Callable[[StageResult], None]) -> None:
        self.results: list[StageResult] = []
        self.detail = ""
        """What the present stage found."""
        self._tell = tell

    @contextmanager
    def stage(self, stage: Stage) -> Iterator[None]:
        """Run one stage; any `TandemError` or `OSError` becomes a `ReloadRefused` that names the stage."""
        self.detail = ""
        started_ns = time.perf_counter_ns()
        try:
            yield
        except (TandemError, OSError) as error:
            self.end(stage, StageOutcome.FAILED, started_ns, str(error))
            raise ReloadRefused(stage, str(error)) from error
        self.end(stage, StageOutcome.PASSED, started_ns, self.detail)

    def end(self, stage: Stage, outcome: StageOutcome, started_ns: int, detail: str = "") -> None:
        """Note how a stage ended that began at `started_ns` of the performance counter."""
        duration_us = (time.perf_counter_ns() - started_ns) // 1000
        result = StageResult(stage, outcome, duration_us, detail)
        self.results.append(result)
        self._tell(result)
