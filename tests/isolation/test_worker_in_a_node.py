"""A strategy with `isolation = "process"` in a whole node."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from isolation_tools import PATIENCE_S, is_alive

from host.core import entries as e
from host.core.state import TradingState
from host.journal import JournalError, read

PLUGIN = """
import subprocess
from pathlib import Path

from host.api import BookTop, NoParams, Strategy


class Starter(Strategy[NoParams]):
    '''Has a process of its own beside it.'''

    def on_start(self) -> None:
        self.helper = subprocess.Popen(["sleep", "1000"])
        Path("helper.new").write_text(str(self.helper.pid))
        Path("helper.new").rename("helper")

    def on_book(self, book: BookTop) -> None:
        pass
"""
CONFIG = """
[node]
plugin_dirs = ["plugins"]
name = "a"
data_dir = "var"
journal_segment_kb = 256
[store]
url = ""
[control]
listen = ["unix:control.sock"]
[[account]]
name = "paper"
exchange = "paper"
[[instance]]
name = "mm-btc"
plugin = "two_sided"
account = "paper"
symbols = ["BTC-USDT"]
models = ["inventory_skew"]
isolation = "process"
quote_tolerance_bps = 0.05
params = { half_spread_bps = 0.2, size = "0.01" }
[[instance]]
name = "starter"
plugin = "starter"
account = "paper"
symbols = ["BTC-USDT"]
isolation = "process"
"""


def entries(folder: Path) -> list[e.Entry]:
    try:
        return [record.entry for record in read(folder / "var" / "journal")]
    except (JournalError, OSError):
        return []  # not there yet


def wait_for(folder: Path, is_it: Callable[[e.Entry], Any]) -> e.Entry:
    ends_s = time.monotonic() + PATIENCE_S
    while time.monotonic() < ends_s:
        for entry in entries(folder):
            if is_it(entry):
                return entry
        time.sleep(0.05)
    raise AssertionError(f"never came; there is {entries(folder)[-5:]}")


@pytest.fixture
def node(short_path: Path) -> Iterator["subprocess.Popen[str]"]:
    (short_path / "tandem.toml").write_text(CONFIG)
    (short_path / "plugins").mkdir()
    (short_path / "plugins" / "starter.py").write_text(PLUGIN)
    with subprocess.Popen(
        [Path(sys.executable).with_name("tandem"), "run", "-c", "tandem.toml"],
        cwd=short_path,
        env={name: text for name, text in os.environ.items() if name != "TANDEM__CONTROL__LISTEN"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        yield process
        process.kill()


def until(is_so: Callable[[], object], what: str) -> None:
    ends_s = time.monotonic() + PATIENCE_S
    while not is_so():
        assert time.monotonic() < ends_s, what
        time.sleep(0.01)


def helper_of(folder: Path) -> int:
    """Return the process that the strategy `starter` started."""
    file = folder / "helper"
    until(file.exists, "the strategy starts a process")
    return int(file.read_text())


def children_of(pid: int) -> list[int]:
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return [int(child) for task in tasks for child in (task / "children").read_text().split()]


def command_of(pid: int) -> bytes:
    return Path(f"/proc/{pid}/cmdline").read_bytes()


def ctl(folder: Path, *arguments: str) -> str:
    command = [Path(sys.executable).with_name("tandem"), "ctl", *arguments]
    environment = {name: text for name, text in os.environ.items() if name != "TANDEM__CONTROL__LISTEN"}
    return subprocess.run(
        command, cwd=folder, env=environment, check=True, capture_output=True, text=True, timeout=PATIENCE_S
    ).stdout


def worker_of(folder: Path) -> int:
    def is_it(entry: e.Entry) -> bool:
        return isinstance(entry, e.Alert) and (entry.kind, entry.instance) == ("worker_started", "mm-btc")

    alert = wait_for(folder, is_it)
    assert isinstance(alert, e.Alert)
    return int(alert.text.split("process ")[1].split(",")[0])


def test_it_trades_and_stops_with_the_node(short_path: Path, node: "subprocess.Popen[str]") -> None:
    worker = worker_of(short_path)
    wait_for(short_path, lambda entry: isinstance(entry, e.AmendSent))
    assert is_alive(worker)
    shown = json.loads(ctl(short_path, "get", "mm-btc", "--json"))["worker"]
    assert (shown["state"], int(shown["pid"])) == ("running", worker)
    assert f"worker     running, process {worker}, " in ctl(short_path, "get", "mm-btc")
    node.send_signal(signal.SIGTERM)
    output, _ = node.communicate(timeout=PATIENCE_S)
    assert node.returncode == 0, output
    assert not is_alive(worker)
    state = TradingState()
    for record in read(short_path / "var" / "journal"):
        state.apply(record.lsn, record.ts_ns, record.entry)
    assert state.orders == {}
    assert list((short_path / "var" / "workers").iterdir()) == []


def test_neither_a_worker_nor_what_it_started_survives_the_host(
    short_path: Path, node: "subprocess.Popen[str]"
) -> None:
    worker, helper = worker_of(short_path), helper_of(short_path)
    assert is_alive(worker)
    assert is_alive(helper)
    node.kill()
    until(lambda: not is_alive(worker) and not is_alive(helper), "both end")


def test_what_a_worker_started_ends_with_the_node_and_the_reaper_too(
    short_path: Path, node: "subprocess.Popen[str]"
) -> None:
    helper = helper_of(short_path)
    (reaper,) = (pid for pid in children_of(node.pid) if b"_reaper_process" in command_of(pid))
    node.send_signal(signal.SIGTERM)
    node.communicate(timeout=PATIENCE_S)
    assert not is_alive(helper)
    assert not is_alive(reaper)
