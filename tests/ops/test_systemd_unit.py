"""The systemd unit: it starts what there is, and stops it in order."""

import configparser
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from host.cli import main
from host.config import FailoverSection, NodeSection

REPO = Path(__file__).parents[2]
UNIT = REPO / "ops" / "systemd" / "tandem.service"


def service() -> configparser.SectionProxy:
    parser = configparser.ConfigParser(interpolation=None)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read(UNIT)
    return parser["Service"]


def test_the_command_is_one_that_the_program_takes(tmp_path: Path) -> None:
    program, *arguments = shlex.split(service()["ExecStart"])
    assert Path(program).name == "tandem"
    missing = [str(tmp_path / "none.toml") if word.endswith(".toml") else word for word in arguments]

    result = CliRunner().invoke(main, missing)

    assert result.exit_code == 2
    assert "no such file" in result.stderr  # and not: no such option


def test_a_stop_leaves_the_node_the_time_that_it_takes() -> None:
    takes_s = (NodeSection().stop_timeout_ms + FailoverSection(lease="").drain_ms) / 1e3
    assert takes_s < int(service()["TimeoutStopSec"])


def test_the_guardian_gets_the_signal_and_outlives_a_node_that_the_kernel_kills() -> None:
    unit = service()
    assert unit["KillMode"] == "mixed"
    assert unit["OOMPolicy"] == "continue"
    assert unit["RestartPreventExitStatus"] == "2"


def test_systemd_takes_the_unit_as_it_is(tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("no systemd-analyze found")
    unit = tmp_path / UNIT.name
    program = shlex.split(service()["ExecStart"])[0]
    unit.write_text(UNIT.read_text().replace(program, sys.executable))  # a program that is there

    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(unit)], capture_output=True, text=True, check=False
    )

    said = [line for line in done.stderr.splitlines() if line.startswith((UNIT.name, str(unit)))]
    assert (done.returncode, said) == (0, [])
