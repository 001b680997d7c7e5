"""The strategy in Node.js in examples/node/ trades through the protocol, as its README says."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from servers import require_program, stop, wait_for

from host.core import entries as e
from host.core.state import TradingState
from host.journal import read

EXAMPLE = Path(__file__).parents[2] / "examples" / "node"
SMALL = {"TANDEM__NODE__JOURNAL_SEGMENT_KB": "256", "TANDEM__STORE__URL": ""}


@pytest.fixture
def program(tmp_path: Path) -> Iterator[list[str]]:
    """The command that runs the strategy, with what it needs installed, beside a node that runs."""
    node, npm = require_program("node", "nodejs"), require_program("npm", "npm")
    for path in EXAMPLE.iterdir():
        if path.is_file():
            shutil.copy(path, tmp_path)
    tandem = Path(sys.executable).with_name("tandem")
    host = subprocess.Popen(
        [tandem, "run", "-c", "tandem.toml"],
        cwd=tmp_path,
        env={**os.environ, **SMALL},
        stdout=subprocess.DEVNULL,
    )
    try:
        done = subprocess.run(
            [npm, "ci", "--no-audit", "--no-fund"],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        wait_for((tmp_path / "var/a/clients/quoter.turns.sock").exists, "door", 60)
        yield [node, "quoter.mjs", "var/a", "quoter"]
        host.send_signal(signal.SIGTERM)
        assert host.wait(30) == 0
    finally:
        stop(host)


def trade(program: list[str], folder: Path, fills: int) -> str:
    done = subprocess.run(
        [*program, str(fills)], cwd=folder, capture_output=True, text=True, timeout=100, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def alerts(folder: Path, kind: str) -> int:
    records = (record.entry for record in read(folder / "var" / "a" / "journal"))
    return sum(isinstance(entry, e.Alert) and entry.kind == kind for entry in records)


def folded(folder: Path) -> TradingState:
    state = TradingState()
    for record in read(folder / "var" / "a" / "journal"):
        state.apply(record.lsn, record.ts_ns, record.entry)
    return state


def test_it_trades(tmp_path: Path, program: list[str]) -> None:
    first = trade(program, tmp_path, 3)
    assert "trading BTC-USDT as quoter, 0 fills so far" in first
    assert "fill 3" in first
    wait_for(lambda: alerts(tmp_path, "client_gone") == 1, "end of the first run")
    second = trade(program, tmp_path, 5)
    *_, begun = (line for line in second.splitlines() if line.startswith("trading"))
    assert int(begun.split()[4]) >= 3, second
    wait_for(lambda: alerts(tmp_path, "client_gone") == 2, "end of the second run")
    with subprocess.Popen([*program], cwd=tmp_path, stdout=subprocess.DEVNULL) as killed:
        wait_for(lambda: alerts(tmp_path, "client_attached") == 3, "third run")
        killed.kill()
    wait_for(lambda: alerts(tmp_path, "client_gone") == 3, "end of the third run")
    assert alerts(tmp_path, "quarantined") == alerts(tmp_path, "client_cut_off") == 0
    wait_for(lambda: not folded(tmp_path).orders, "end of its orders")
    assert b"fills" in folded(tmp_path).instances["quoter"].strategy_state
