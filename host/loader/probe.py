"""The first import of unproven bytes, in a child process that may hang or die.

In this process an endless loop at import would stop every strategy, `os._exit` or a segfault would
end them, and neither can be caught. A child costs about a tenth of a second; `ForkServer` does the same
from a warm process.
"""

import os
import re
import select
import signal
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Any, Final

import msgspec
from msgspec import Struct

from host.loader.capture import Version
from host.loader.problem import PluginProblem
from host.loader.source import CompiledVersion
from host.loader.stages import Outcome, Stage, StageReport

__all__ = ["PROBE_DEADLINE_S", "PROBE_STAGES", "ProbeResult", "conclude", "probe"]

PROBE_STAGES = (Stage.IMPORT, Stage.CLASSES, Stage.SIGNATURES, Stage.PARAMS, Stage.STATE, Stage.CONSTRUCT)

PROBE_DEADLINE_S: Final = 10.0
"""For importing a plugin in a throwaway child: slow imports of large packages pass, endless loops do not."""

_START_S = 20.0  # for the interpreter to start on a loaded machine; the plugin's own clock starts later
_FRAME = re.compile(r'^\s*File "(?P<file>.*)", line (?P<line>\d+) in ', re.MULTILINE)


class ProbeResult(Struct, frozen=True):
    """What the child found: one report per stage of `PROBE_STAGES`, and what the version compiles to."""

    stages: tuple[StageReport, ...]
    compiled: CompiledVersion | None = None
    """None where it does not compile, or the child ended before it could say."""

    @property
    def is_ok(self) -> bool:
        """Return whether every stage passed."""
        return all(report.outcome is Outcome.PASSED for report in self.stages)

    @property
    def problems(self) -> tuple[PluginProblem, ...]:
        """Return the problems of all stages."""
        return tuple(problem for report in self.stages for problem in report.problems)


def probe(version: Version, deadline_s: float) -> ProbeResult:
    """Import and check a version in a throwaway process that gets `deadline_s` seconds for it.

    Blocks that long at most (plus the start of the process): call it from a worker thread where an
    event loop runs. Whatever the plugin does, this returns, and nothing it started is left behind.
    """
    # Files and not pipes: a process that the plugin started may hold a pipe open for ever.
    with TemporaryFile() as request, TemporaryFile() as answers, TemporaryFile() as errors:
        request.write(msgspec.msgpack.encode(version, enc_hook=str))
        request.seek(0)
        exit_code = _run(deadline_s, request, answers, errors)
        answers.seek(0)
        errors.seek(0)
        return conclude(version, deadline_s, exit_code, answers.read(), errors.read())


def conclude(
    version: Version, deadline_s: float, exit_code: int, answers: bytes, errors: bytes
) -> ProbeResult:
    """Make a result of what a child left: its exit code (negative: a signal), stdout and stderr."""
    reports: list[StageReport] = []
    lines = answers.splitlines()
    compiled = _compiled(lines[0]) if lines else None
    for line in lines[compiled is not None :][: len(PROBE_STAGES)]:
        try:
            reports.append(_REPORT.decode(line))
        except msgspec.DecodeError:  # the plugin wrote where it should not, or died while writing
            break
    last_words = errors.decode(errors="replace")
    if len(reports) < len(PROBE_STAGES) and all(r.outcome is Outcome.PASSED for r in reports):
        problem = _death(version, exit_code, deadline_s, last_words)
        reports.append(StageReport(PROBE_STAGES[len(reports)], Outcome.FAILED, problems=(problem,)))
    skipped = [StageReport(stage, Outcome.SKIPPED) for stage in PROBE_STAGES[len(reports) :]]
    return ProbeResult((*reports, *skipped), compiled)


def _compiled(line: bytes) -> CompiledVersion | None:
    try:
        return _COMPILED.decode(line)
    except msgspec.DecodeError:  # a report: it does not compile
        return None


def _run(deadline_s: float, request: IO[bytes], answers: IO[bytes], errors: IO[bytes]) -> int:
    child = subprocess.Popen(
        [sys.executable, "-m", "host.loader._probe_child", str(deadline_s)],
        stdin=request,
        stdout=answers,
        stderr=errors,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        start_new_session=True,  # so that what the plugin starts can be ended with it
    )
    exited = os.pidfd_open(child.pid)
    try:
        waiting = select.poll()  # and not select(), which knows no descriptor above 1023
        waiting.register(exited, select.POLLIN)
        waiting.poll((deadline_s + _START_S) * 1e3)
    finally:
        # Before `wait`: until then the process id, and so its group's, cannot be another's.
        os.killpg(child.pid, signal.SIGKILL)
        os.close(exited)
        exit_code = child.wait()
    return exit_code


def _death(version: Version, exit_code: int, deadline_s: float, last_words: str) -> PluginProblem:
    """Explain a child that ended before its last stage; `faulthandler` told where it was."""
    place: dict[str, Any] = {}
    for frame in _FRAME.finditer(last_words):
        if (file := version.locate(frame["file"])) is not None:
            place = {"file": file, "line": int(frame["line"])}
            break
    if exit_code == -signal.SIGKILL and "Timeout (" not in last_words:
        cause = f"was killed: it did not finish within {deadline_s:g} s, or the machine ran out of memory"
        next_step = "a plugin's modules and constructors must not wait, loop or load what is big"
    elif "Timeout (" in last_words:
        cause = f"did not finish within {deadline_s:g} s"
        next_step = "a plugin's modules and constructors must not wait or loop"
    elif exit_code < 0:
        cause, next_step = f"killed its process with {signal.Signals(-exit_code).name}", "look at native code"
    else:
        cause = f"ended its process with exit code {exit_code}"
        next_step = "plugin code must not end the process that runs it"
    return version.problem(cause, **place, next_step=next_step)


_COMPILED = msgspec.json.Decoder(CompiledVersion)
_REPORT = msgspec.json.Decoder(StageReport, dec_hook=lambda _type, value: Path(value))
