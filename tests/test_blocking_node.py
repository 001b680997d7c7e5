"""Real nodes with a plugin that blocks their event loop: what each policy comes to."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

from host.core import entries as e
from host.core.entries import InstanceState
from host.journal import read
from tests.runtime.blocking_tools import BLOCKER, NAP_LINE, SLEEP_LINE
from tests.servers import wait_for

LONG_S = 90.0
REPO = Path(__file__).parents[1]
TANDEM = [sys.executable, "-c", "from host.cli import main; main()"]
CONFIG = """
[node]
name = "a"
data_dir = "data"
plugin_dirs = ["mine"]
journal_segment_kb = 256
[store]
url = ""
[control]
listen = []
[watchdog]
limit_ms = 200
on_block = "{on_block}"
give_up_ms = {give_up_ms}
{account}
[[instance]]
name = "quick"
plugin = "two_sided"
account = "paper"
symbols = ["BTC-USDT"]
[[instance]]
name = "slow"
plugin = "blocker"
account = "paper"
symbols = ["BTC-USDT"]
params = {{ at_book = 5, seconds = {seconds}, holds_lock = {holds_lock} }}
"""
PAPER = """
[[account]]
name = "paper"
exchange = "paper"
"""
OF_A_CELL = """
[failover]
lease = "sqlite:///lease.db"
[[account]]
name = "paper"
exchange = "paper_remote"
params = {{ url = "unix:{folder}/venue" }}
"""


def configure(
    folder: Path,
    on_block: str,
    *,
    seconds: float,
    holds_lock: bool = False,
    give_up_ms: int = 60_000,
    account: str = PAPER,
) -> None:
    (folder / "mine").mkdir()
    (folder / "mine" / "blocker.py").write_text(BLOCKER)
    settings = {"seconds": seconds, "holds_lock": str(holds_lock).lower(), "give_up_ms": give_up_ms}
    (folder / "tandem.toml").write_text(CONFIG.format(on_block=on_block, account=account, **settings))


def running(folder: Path) -> AbstractContextManager["subprocess.Popen[str]"]:
    return started(folder, "run", "--no-ui", "--report", "json")


@contextmanager
def started(folder: Path, *arguments: str) -> Iterator["subprocess.Popen[str]"]:
    settled = {name: value for name, value in os.environ.items() if not name.startswith("TANDEM__")}
    with subprocess.Popen(
        [*TANDEM, *arguments],
        cwd=folder,
        env=settled | {"PYTHONPATH": os.pathsep.join([str(REPO), str(REPO / "proto")])},
        stdout=subprocess.PIPE,
        stderr=(folder / "log").open("a"),
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()  # the kernel kills its node, if it is a guardian


def entries(folder: Path, kind: type[Any]) -> list[Any]:
    if not list((folder / "data" / "journal").glob("*.seg")) and not (folder / "data" / "journal").exists():
        return []
    return [record.entry for record in read(folder / "data" / "journal") if isinstance(record.entry, kind)]


def is_journaled(folder: Path, entry: type[Any], /, **fields: Any) -> bool:
    return any(
        all(getattr(one, name) == value for name, value in fields.items()) for one in entries(folder, entry)
    )


def ended(process: "subprocess.Popen[str]") -> dict[str, Any]:
    process.send_signal(signal.SIGTERM)
    out, _ = process.communicate(timeout=LONG_S)
    report: dict[str, Any] = json.loads(out)
    return report


def test_instance_that_blocks_is_quarantined_and_counted_and_the_node_goes_on(tmp_path: Path) -> None:
    configure(tmp_path, "quarantine", seconds=1.2)
    with running(tmp_path) as process:
        wait_for(
            lambda: (
                is_journaled(tmp_path, e.InstanceChanged, instance="slow", state=InstanceState.QUARANTINED)
                and is_journaled(tmp_path, e.Alert, kind="loop_blocked")
            ),
            "quarantine",
            LONG_S,
        )
        report = ended(process)
    assert report["quarantined"] == ["slow"]
    assert report["blocks"]["slow"]["count"] >= 1
    assert report["blocks"]["slow"]["longest_ms"] > 200
    said = [
        one.text for one in entries(tmp_path, e.Alert) if one.kind == "loop_blocked" and "slow" in one.text
    ]
    assert any(text.endswith(f"by instance slow, on_book (blocker.py, line {SLEEP_LINE})") for text in said)
    assert "blocker.py@" in (tmp_path / "log").read_text()  # its stack


def test_instance_that_blocks_goes_on_in_a_worker_and_does_so_after_a_restart(short_path: Path) -> None:
    configure(short_path, "worker", seconds=1.2)
    with running(short_path) as process:
        wait_for(lambda: is_journaled(short_path, e.InstanceIsolated, instance="slow"), "move", LONG_S)
        lsn = max(record.lsn for record in read(short_path / "data" / "journal"))

        def quotes_again() -> bool:
            later = [record.entry for record in read(short_path / "data" / "journal", lsn)]
            return any(isinstance(one, e.PlaceSent) and one.instance == "slow" for one in later)

        wait_for(quotes_again, "quotes of the worker", LONG_S)
        report = ended(process)
    later = [record.entry for record in read(short_path / "data" / "journal", lsn)]
    started = next(
        i for i, one in enumerate(later) if isinstance(one, e.Alert) and one.kind == "worker_started"
    )
    placed = next(i for i, one in enumerate(later) if isinstance(one, e.PlaceSent) and one.instance == "slow")
    assert started < placed, "nothing is quoted for it while it is on its way"
    assert report["quarantined"] == []
    assert report["blocks"]["slow"]["count"] >= 1

    with running(short_path) as process:
        starts = len(entries(short_path, e.NodeStarted))
        wait_for(lambda: len(entries(short_path, e.NodeStarted)) > starts or starts > 1, "restart", LONG_S)
        wait_for(lambda: bool(list((short_path / "data" / "workers").glob("*.sock"))), "its worker", LONG_S)
        assert ended(process)["quarantined"] == []


def test_guardian_starts_a_node_again_whose_loop_never_comes_back_and_the_culprit_is_not_called_again(
    tmp_path: Path,
) -> None:
    """The call never returns and never lets another thread run: nothing within the process can help."""
    configure(
        tmp_path,
        "give_up",
        seconds=3600.0,
        holds_lock=True,
        give_up_ms=5_000,
        account=OF_A_CELL.format(folder=tmp_path),
    )
    with started(tmp_path, "venue", "--listen", f"unix:{tmp_path}/venue"), running(tmp_path) as process:
        wait_for(
            lambda: is_journaled(
                tmp_path, e.InstanceChanged, instance="slow", state=InstanceState.QUARANTINED
            ),
            "another process",
            LONG_S,
        )
        report = ended(process)
    assert report["quarantined"] == ["slow"]
    assert [one.epoch for one in entries(tmp_path, e.NodeStarted)][1:]  # it leads again
    moves = [one for one in entries(tmp_path, e.InstanceChanged) if one.instance == "slow"]
    reason = next(one.reason for one in moves if one.state is InstanceState.QUARANTINED)
    assert reason == f"on_book blocked the event loop until the process ended (blocker.py, line {NAP_LINE})"
    [said] = [one.text for one in entries(tmp_path, e.Alert) if one.kind == "gave_up"]
    assert said.endswith(f"on_book (blocker.py, line {NAP_LINE})")
    assert "the node ended with code 142" in (tmp_path / "log").read_text()  # SIGALRM
