"""Every check that a plugin file passes before it may run, without running it in this process."""

import time
from pathlib import Path

from msgspec import Struct

from host.loader.capture import Version, capture
from host.loader.probe import PROBE_DEADLINE_S, probe
from host.loader.problem import PluginProblem, PluginRejected
from host.loader.source import compile_files
from host.loader.stages import Outcome, Stage, StageReport

__all__ = ["CheckReport", "check_plugin"]


class CheckReport(Struct, frozen=True):
    """What became of each stage, in order. `digest` is empty when the files could not be read."""

    plugin: str
    path: Path
    digest: str
    stages: tuple[StageReport, ...]

    @property
    def is_ok(self) -> bool:
        """Return whether every stage passed."""
        return all(report.outcome is Outcome.PASSED for report in self.stages)

    @property
    def problems(self) -> tuple[PluginProblem, ...]:
        """Return the problems of all stages."""
        return tuple(problem for report in self.stages for problem in report.problems)


def check_plugin(path: Path, deadline_s: float = PROBE_DEADLINE_S) -> CheckReport:
    """Check a plugin file or folder; never raises for what is wrong with it.

    Its code runs in a child process that gets `deadline_s` seconds.
    """
    reports: list[StageReport] = []
    version: Version | None = None
    started = time.perf_counter()
    stage = Stage.CAPTURE
    try:
        version = capture(path)
        size = sum(map(len, version.files.values()))
        reports.append(
            _passed(stage, started, f"{len(version.files)} files, {size} bytes, {version.short_digest}")
        )
        started, stage = time.perf_counter(), Stage.COMPILE
        codes = compile_files(version)
        reports.append(_passed(stage, started, ", ".join(codes)))
    except PluginRejected as rejected:
        failed = StageReport(stage, Outcome.FAILED, _elapsed_ms(started), problems=rejected.problems)
        rest = [stage for stage in Stage if stage not in {failed.stage, *(r.stage for r in reports)}]
        reports += [failed, *(StageReport(stage, Outcome.SKIPPED) for stage in rest)]
    else:
        reports.extend(probe(version, deadline_s).stages)
    return CheckReport(path.stem, path, version.digest if version else "", tuple(reports))


def _passed(stage: Stage, started: float, text: str) -> StageReport:
    return StageReport(stage, Outcome.PASSED, _elapsed_ms(started), text)


def _elapsed_ms(started: float) -> float:
    return (time.perf_counter() - started) * 1e3
