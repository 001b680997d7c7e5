"""`tandem run` of a node with `[failover]`: it runs as the child of a guardian."""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.servers import wait_for

LONG_S = 90.0
REPO = Path(__file__).parents[2]
TANDEM = [sys.executable, "-c", "from host.cli import main; main()"]
CONFIG = """
[node]
name = "a"
data_dir = "data"
journal_segment_kb = 256

[store]
url = ""

[control]
listen = ["unix:data/control.sock"]

[[account]]
name = "paper"
exchange = "paper"

[[instance]]
name = "mm"
plugin = "two_sided"
account = "paper"
symbols = ["BTC-USDT"]

[failover]
lease = "{lease}"
"""


def write(folder: Path, lease: str = "sqlite:///lease.db") -> None:
    (folder / "tandem.toml").write_text(CONFIG.format(lease=lease))


def start(folder: Path, *options: str) -> "subprocess.Popen[str]":
    # What the tests' own environment says of the control API is not for this node, which has its own folder.
    settled = {name: value for name, value in os.environ.items() if not name.startswith("TANDEM__")}
    return subprocess.Popen(
        [*TANDEM, "run", "--no-ui", *options],
        cwd=folder,
        env=settled | {"PYTHONPATH": os.pathsep.join([str(REPO), str(REPO / "proto")])},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@contextmanager
def running(folder: Path, *options: str) -> Iterator["subprocess.Popen[str]"]:
    with start(folder, *options) as process:
        try:
            yield process
        finally:
            process.kill()  # the kernel kills its node


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def command(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/cmdline").read_text().split("\0")


def listens(folder: Path) -> bool:
    """Return whether the node of a folder serves its control API: from then on signals end it in order."""
    with socket.socket(socket.AF_UNIX) as probe:
        return probe.connect_ex(str(folder / "data" / "control.sock")) == 0


def test_a_run_under_a_guardian_prints_its_report_and_ends_with_its_code(tmp_path: Path) -> None:
    write(tmp_path)

    with running(tmp_path, "--report", "json") as process:
        wait_for(lambda: listens(tmp_path), "control API", LONG_S)
        process.terminate()
        out, err = process.communicate(timeout=LONG_S)

    assert process.returncode == 0, err
    assert "stopped" in json.loads(out)
    assert "guardian: the node ended with code 0" in err


def test_a_node_that_is_killed_starts_again_under_the_same_process(tmp_path: Path) -> None:
    write(tmp_path)
    with running(tmp_path) as process:
        wait_for(lambda: "failover.guardian" in command(process.pid), "guardian", LONG_S)
        wait_for(lambda: bool(children(process.pid)), "node", LONG_S)
        [first] = children(process.pid)
        wait_for(lambda: "run" in command(first), "start of the node's command", LONG_S)
        os.kill(first, signal.SIGKILL)
        wait_for(lambda: children(process.pid) not in ([], [first]), "another node", LONG_S)

        assert not any("lease.db" in word for word in command(process.pid))


def test_without_a_guardian_the_node_is_the_process_itself(tmp_path: Path) -> None:
    write(tmp_path)

    with running(tmp_path, "--no-guardian") as process:
        wait_for(lambda: listens(tmp_path), "control API", LONG_S)
        process.terminate()
        _, err = process.communicate(timeout=LONG_S)

    assert process.returncode == 0, err
    assert "guardian" not in err


@pytest.mark.parametrize("lease", ["redis://localhost", "etcd://one:2379,two"])
def test_a_configuration_that_cannot_work_is_refused_before_a_guardian_is_there(
    tmp_path: Path, lease: str
) -> None:
    write(tmp_path, lease)

    with running(tmp_path) as process:
        _, err = process.communicate(timeout=LONG_S)

    assert process.returncode == 2
    assert err.startswith("error: ")
    assert "guardian" not in err


def test_a_simulated_run_takes_no_part_in_the_cell(tmp_path: Path) -> None:
    write(tmp_path)

    with running(tmp_path, "--speed", "max", "--for", "1s", "--report", "json") as process:
        _, err = process.communicate(timeout=LONG_S)

    assert process.returncode == 0, err
    assert not (tmp_path / "lease.db").exists()
