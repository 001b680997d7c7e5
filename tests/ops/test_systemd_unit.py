"""The systemd unit: it starts what there is, and stops it in order."""

import configparser
import shlex
from pathlib import Path

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
