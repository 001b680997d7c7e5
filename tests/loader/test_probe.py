"""First imports in a process that may hang or die."""

import os
import select
from pathlib import Path

import pytest

from host.loader import CheckReport, Outcome, Stage, capture, check_plugin, probe, scaffold
from tests.loader.conftest import STRATEGY, WritePlugin

DEADLINE_S = 30.0


def failure(report: CheckReport) -> tuple[Stage, str]:
    (failed,) = [stage for stage in report.stages if stage.outcome is Outcome.FAILED]
    return failed.stage, str(failed.problems[0])


def has_ended(pid: int, within_s: float) -> bool:
    try:
        process = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([process], [], [], within_s)[0])
    finally:
        os.close(process)


def test_good_plugin_passes_every_stage_in_order(write: WritePlugin) -> None:
    report = check_plugin(write("alpha.py"))

    assert [stage.stage for stage in report.stages] == list(Stage)
    assert report.is_ok, report.problems
    assert report.stages[3].text == 'strategy "alpha"'


@pytest.mark.parametrize(
    ("source", "stage", "expected"),
    [
        ("def f(:\n", Stage.COMPILE, "plugin alpha: alpha.py:1: syntax error"),
        ("import os\nos._exit(3)\n", Stage.IMPORT, "ended its process with exit code 3"),
        ("import ctypes\nctypes.string_at(0)\n", Stage.IMPORT, "alpha.py:2: killed its process with SIGSEGV"),
        (
            "import sys\nprint('noise')\nsys.exit()\n",
            Stage.IMPORT,
            "alpha.py:3: called sys.exit(None) at import",
        ),
        ("import threading as t\nt.Thread(target=t.Event().wait).start()\n", Stage.IMPORT, "starts thread"),
        ("x = 1\n", Stage.CLASSES, "offers nothing"),
        (
            STRATEGY.replace("book: BookTop", ""),
            Stage.SIGNATURES,
            "Alpha.on_book takes (self, book), was (self)",
        ),
        (STRATEGY.replace("= 5.0", "= -5.0"), Stage.PARAMS, "must be > 0, was -5.0"),
        (STRATEGY + "        def __init__(self, params): 1 / 0\n", Stage.CONSTRUCT, "ZeroDivisionError when"),
    ],
)
def test_each_stage_stops_what_it_is_there_for(
    write: WritePlugin, source: str, stage: Stage, expected: str
) -> None:
    report = check_plugin(write("alpha.py", source), DEADLINE_S)

    failed, text = failure(report)
    assert failed is stage
    assert expected in text
    after = report.stages[list(Stage).index(stage) + 1 :]
    assert all(later.outcome is Outcome.SKIPPED for later in after)


def test_endless_loop_is_ended_at_the_deadline_and_its_line_named(write: WritePlugin) -> None:
    result = probe(capture(write("alpha.py", "x = 0\nwhile True:\n    pass\n")), 0.3)

    assert str(result.problems[0]).startswith("plugin alpha: alpha.py:")
    assert "did not finish within 0.3 s" in str(result.problems[0])


def test_processes_that_the_plugin_started_end_with_the_probe(write: WritePlugin, tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    source = f"""
        import pathlib, subprocess
        child = subprocess.Popen(["sleep", "600"])
        pathlib.Path({str(pid_file)!r}).write_text(str(child.pid))
    """
    probe(capture(write("alpha.py", source)), DEADLINE_S)

    assert has_ended(int(pid_file.read_text()), within_s=10.0)


def test_captured_bytes_are_probed_and_not_the_disk(write: WritePlugin) -> None:
    path = write("alpha.py")
    version = capture(path)
    path.write_text("syntax error(\n")

    assert probe(version, DEADLINE_S).is_ok


def test_unreadable_path_is_a_report_and_no_error(tmp_path: Path) -> None:
    assert failure(check_plugin(tmp_path / "gone.py"))[0] is Stage.CAPTURE


@pytest.mark.parametrize("kind", ["strategy", "exchange", "model"])
def test_scaffolded_plugins_pass_the_check(tmp_path: Path, kind: str) -> None:
    (path,) = scaffold(kind, "my_first", tmp_path)
    report = check_plugin(path)

    assert report.is_ok, report.problems
    assert report.stages[3].text == f'{kind} "my_first"'
    assert "example" not in path.read_text().lower().replace("for example", "")
