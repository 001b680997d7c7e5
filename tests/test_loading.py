"""What a node starts with where its plugin files are not what they were, or never were any good."""

import asyncio
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from host.cli import main
from host.config import ConfigSource
from host.core import entries as e
from host.core.state import TradingState
from host.journal import Journal, read
from host.loader import Catalog, ForkServer, Version, capture
from host.loading import archive_of, known_of, load_catalog
from host.runtime.clock import LiveClock
from host.runtime.engine import Engine, EngineSettings

CONFIG = """
[node]
data_dir = "data"
plugin_dirs = ["mine"]
journal_segment_kb = 64
[store]
url = ""
[[account]]
name = "paper"
exchange = "paper"
"""
INSTANCE = """
[[instance]]
name = "{name}"
plugin = "{plugin}"
account = "paper"
symbols = ["BTC-USDT"]
"""
QUIET = "from host.api import Strategy\n\n\nclass Quiet(Strategy):\n    edition = 1\n"
ENDS_IT = "import os\nos.kill(os.getpid(), 11)\n"
LOOPS = "while True:\n    pass\n"
DEADLINE_S = 60.0


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine").mkdir()


def save(name: str, text: str) -> Path:
    path = Path("mine") / f"{name}.py"
    path.write_text(text)
    return path


def configure(**plugins: str) -> None:
    """Name the instances, and the plugin of each."""
    text = "".join(INSTANCE.format(name=name, plugin=plugin) for name, plugin in plugins.items())
    Path("tandem.toml").write_text(CONFIG + text)


def run_node() -> subprocess.CompletedProcess[str]:
    """Run a node for a moment, in a process of its own: what is tested for would end this one."""
    program = "from host.cli import main; main()"
    arguments = ["run", "-c", "tandem.toml", "--for", "0.2s", "--report", "json"]
    return subprocess.run(
        [sys.executable, "-c", program, *arguments], capture_output=True, text=True, check=False
    )


def report_of(run: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    assert run.returncode == 0, run.stderr
    report: dict[str, Any] = json.loads(run.stdout)
    return report


class Start:
    """A node's start as far as its plugins, over a state that a test makes."""

    def __init__(self, journal: Journal) -> None:
        self.config = ConfigSource(Path("tandem.toml"), None, {}).load().config
        self.state = TradingState()
        self.journal = journal
        self.engine = Engine(
            clock=LiveClock(),
            journal=journal,
            state=self.state,
            risk_config=self.config.risk.limits,
            settings=EngineSettings(snapshot_every=1_000_000),
        )
        self.engine.start_epoch("test", "main", 1, "test")
        self._catalogs: list[Catalog] = []

    def ran(self, version: Version) -> None:
        """Have it be the version that a node ran before."""
        archive_of(self.config).put(version)
        self.state.plugin(version.name).permanent = version.digest

    def load(self, deadline_s: float = DEADLINE_S) -> Catalog:
        async def in_loop() -> Catalog:
            async with ForkServer() as fork_server:
                return await load_catalog(self.config, self.engine, fork_server, deadline_s)

        self._catalogs.append(asyncio.run(in_loop()))
        return self._catalogs[-1]

    def alerts(self) -> dict[str, str]:
        self.journal.flush()
        return {r.entry.kind: r.entry.text for r in read(self.journal.folder) if isinstance(r.entry, e.Alert)}

    def close(self) -> None:
        for catalog in self._catalogs:
            catalog.close()


@pytest.fixture
def start() -> Iterator[Start]:
    configure(a="quiet")
    journal = Journal.open(Path("data/journal"), node="test", segment_bytes=1 << 16)
    made = Start(journal)
    yield made
    made.close()
    journal.close()


def test_node_leaves_out_a_file_that_would_end_it_and_trades_on_with_the_others() -> None:
    save("crash", ENDS_IT)
    configure(good="two_sided", bad="crash")
    report = report_of(run_node())

    assert "plugin crash: crash.py:2: killed its process with SIGSEGV" in report["skipped_instances"]["bad"]
    assert report["orders"] > 0


def test_node_that_needs_such_a_file_is_refused_with_its_line() -> None:
    save("crash", ENDS_IT)
    configure(bad="crash")
    run = run_node()

    assert run.returncode == 1
    assert "no instance could be started: bad: " in run.stderr
    assert "plugin crash: crash.py:2: killed its process with SIGSEGV" in run.stderr


def test_file_that_ends_a_start_after_all_is_found_out_by_the_next_one() -> None:
    save("moody", f"import os\nif os.path.exists('bad-day'):\n    os._exit(9)\n{QUIET}")
    configure(good="two_sided", bad="moody")
    assert report_of(run_node())["skipped_instances"] == {}

    Path("bad-day").touch()
    assert run_node().returncode == 9, "it was known to be good"
    report = report_of(run_node())

    assert "moody.py: ended its process with exit code 9" in report["skipped_instances"]["bad"]
    assert report["orders"] > 0


def test_check_of_a_configuration_names_the_file_that_would_end_the_node() -> None:
    save("crash", ENDS_IT)
    configure(good="two_sided")
    result = CliRunner().invoke(main, ["config", "check", "-c", "tandem.toml"])

    assert result.exit_code == 2
    assert "plugin crash: crash.py:2: killed its process with SIGSEGV" in result.stderr


def test_file_that_changed_while_the_node_was_down_is_not_even_looked_at(start: Start) -> None:
    path = save("quiet", QUIET)
    start.ran(capture(path))
    save("quiet", LOOPS)

    catalog = start.load()  # the deadline of a look would be longer than a test may take

    assert catalog.strategy("quiet").cls.edition == 1  # type: ignore[attr-defined]
    assert "is new: it goes live as a reload" in start.alerts()["permanent_version"]
    assert not [problem for problem in catalog.problems if problem.plugin == "quiet"]


def test_file_is_what_runs_where_the_version_that_earned_its_place_fails_here(start: Start) -> None:
    start.ran(capture(save("quiet", ENDS_IT)))
    save("quiet", QUIET)

    catalog = start.load()

    assert catalog.strategy("quiet").cls.edition == 1  # type: ignore[attr-defined]
    assert "quiet.py:2: killed its process with SIGSEGV" in start.alerts()["permanent_version_lost"]


def test_bad_file_is_left_out_where_the_version_that_earned_its_place_is_lost(start: Start) -> None:
    path = save("quiet", QUIET)
    start.state.plugin("quiet").permanent = capture(path).digest
    save("quiet", LOOPS)

    catalog = start.load(deadline_s=2.0)

    (problem,) = [problem for problem in catalog.problems if problem.plugin == "quiet"]
    assert str(problem).startswith("plugin quiet: quiet.py:")
    assert "did not finish within 2 s" in problem.cause
    assert "no archived version" in start.alerts()["permanent_version_lost"]


def test_version_is_known_to_the_next_start_and_forgotten_with_its_file(start: Start) -> None:
    digest = capture(save("quiet", QUIET)).digest
    bad = capture(save("crash", ENDS_IT)).digest
    start.load()

    known = known_of(start.config).read()
    assert digest in known and bad not in known

    Path("mine/quiet.py").unlink()
    start.load()
    assert known_of(start.config).read() == known - {digest}


def test_load_that_is_cancelled_leaves_no_process(start: Start) -> None:
    save("quiet", LOOPS)

    async def story() -> None:
        fork_server = ForkServer()
        await fork_server.start()
        pid = fork_server.pid
        children = Path(f"/proc/{pid}/task/{pid}/children")
        loading = asyncio.ensure_future(load_catalog(start.config, start.engine, fork_server, DEADLINE_S))
        while not children.read_text():
            await asyncio.sleep(0.005)
        loading.cancel()
        await asyncio.wait([loading])
        while children.read_text():
            await asyncio.sleep(0.005)
        assert loading.cancelled() and fork_server.pid == pid
        await fork_server.close()

    asyncio.run(story())
