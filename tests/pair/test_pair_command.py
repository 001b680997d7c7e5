"""`tandem pair` as people and scripts use it: real nodes, a real venue, real faults."""

import os
import signal
import termios
from contextlib import ExitStack
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner

from host.cli import main
from tests.etcd import lease_url, running_cluster
from tests.pair.pair_processes import at_terminal, running_in, wait_until, without_terminal
from tests.postgres import running_server

pytestmark = pytest.mark.timeout(300)

TTL = ("--ttl", "2s")
"""Long enough for a machine that is busy with other things."""

WELL = "0 lost, 0 doubled, 0 stale"


def test_a_script_of_faults_ends_well_and_says_so_in_numbers(tmp_path: Path) -> None:
    folder = tmp_path / "demo"
    # By role, not by name: on a machine that stalls, a leader may have yielded to one that does better.
    script = "kill leader@200ms, cut a peers@ready, heal a@+1s, switchover@ready+500ms"
    with without_terminal("--dir", str(folder), *TTL, "--script", script, "--json") as run:
        code = run.end()
    outcome = msgspec.json.decode(next(line for line in run.said.splitlines() if line.startswith("{")))
    assert outcome["good"], outcome
    assert code == 0
    assert [deed["deed"] for deed in outcome["deeds"]] == [
        "kill leader",
        "cut a peers",
        "heal a",
        "switchover",
    ]
    assert len(outcome["switches"]) >= 2
    assert outcome["deeds"][-1]["adopted"] > 0
    assert outcome["lost"] == outcome["doubled"] == outcome["stale"] == outcome["faults"] == []
    assert outcome["accepted"] > 0
    assert outcome["resting"] == 0
    assert running_in(folder) == []
    for kept in ("a.toml", "b.toml", "plugins/market_maker.py", "venue.jsonl", "lease.db", "a/journal"):
        assert (folder / kept).exists(), kept


def test_keys_break_and_mend_the_pair_before_ones_eyes(tmp_path: Path) -> None:
    folder = tmp_path / "demo"
    with at_terminal("--dir", str(folder), *TTL) as run:
        before = termios.tcgetattr(run._fd)
        run.expect("ready: a leads, b stands by")
        assert termios.tcgetattr(run._fd)[3] & (termios.ICANON | termios.ECHO) == 0
        run.press("u")
        run.expect("a is not frozen")
        run.press("2f")
        run.expect("❄ frozen")
        run.expect(f"freeze b: .* {WELL}")
        run.press("u")
        run.expect(f"thaw b: .* {WELL}")
        run.press("?")
        run.expect("choose the node")
        run.press("x")
        run.press("1k")
        run.expect(f"kill a: .* after .* {WELL}")
        run.press("2c")
        run.expect("cut b off from")
        run.press("V")
        run.expect("b's connections to the venue are reset")
        run.expect("links venue refused")
        run.expect(f"refuse b venue: .* {WELL}")
        run.press("h")
        run.expect(f"heal b: b (stands by|leads) again .* {WELL}")
        run.press("q")
        assert run.end() == 0
        assert termios.tcgetattr(run._fd)[3] == before[3]
    assert "changes of leader, by the venue's log" in run.said
    assert f"{WELL}; 0 left resting" in run.said
    assert running_in(folder) == []


def test_nothing_outlives_a_pair_that_is_killed(tmp_path: Path) -> None:
    folder = tmp_path / "demo"
    with without_terminal("--dir", str(folder), *TTL, "--for", "10m") as run:
        run.expect("ready: a leads")
        assert len(running_in(folder)) >= 6  # itself, the venue, two guardians, two nodes
        os.kill(run.pid, signal.SIGKILL)
        run.wait()
        wait_until(lambda: not running_in(folder), "every process of the pair to be gone")


def test_a_signal_ends_it_in_order_even_while_it_starts(tmp_path: Path) -> None:
    folder = tmp_path / "demo"
    with without_terminal("--dir", str(folder), *TTL) as run:
        run.expect("2 nodes in")
        wait_until((folder / "a.out").exists, "the first node to be started")
        os.kill(run.pid, signal.SIGTERM)
        assert run.end() == 0
    assert running_in(folder) == []


@pytest.mark.parametrize("kind", ["etcd", "postgresql"])
def test_a_store_of_ones_own_can_be_cut_off_too(kind: str, tmp_path: Path) -> None:
    with ExitStack() as stack:
        if kind == "etcd":
            url = lease_url(stack.enter_context(running_cluster(1)))
        else:
            url = stack.enter_context(running_server()).url()
        script = "cut a store@200ms, heal a@+1s"
        arguments = ("--dir", str(tmp_path / "demo"), *TTL, "--lease", url, "--script", script, "--json")
        run = stack.enter_context(without_terminal(*arguments))
        code = run.end()
    outcome = msgspec.json.decode(next(line for line in run.said.splitlines() if line.startswith("{")))
    assert outcome["good"], outcome
    assert code == 0
    assert any("took over after" in deed["text"] for deed in outcome["deeds"])


def test_a_script_with_a_step_that_cannot_be_done_does_not_end_well(tmp_path: Path) -> None:
    with without_terminal("--dir", str(tmp_path / "demo"), *TTL, "--script", "thaw a@10ms") as run:
        run.expect("thaw a: not done: a is not frozen")
        assert run.end() == 1


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--script", "maim a@3s"], 2, "expected one of kill"),
        (["--script", "kill c@3s"], 2, "a, b, leader or standby"),
        (["--ttl", "soon"], 2, 'expected a duration such as "600ms"'),
        (["--ttl", "50ms"], 2, "expected 100ms to 3s"),
        (["--lease", "redis://here"], 2, "expected sqlite"),
        (["--nodes", "4"], 2, "4 is not in the range"),
        (["--dir", "full"], 3, "is not empty"),
    ],
)
def test_what_cannot_be_run_is_refused_before_anything_is_started(
    arguments: list[str], code: int, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").write_text("x")
    result = CliRunner().invoke(main, ["pair", *arguments])
    assert said in result.output
    assert result.exit_code == code
    assert running_in(tmp_path) == []
