"""Every script of ops/, run against a live node; what it did is asserted on the node."""

import json
import stat
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from ops_tools import BTC, ETH, OPS, PATIENCE_S, SCRIPTS, WIDE, OpsNode
from servers import wait_for

from host.control.principal import Role
from host.control.tokens import TOKENS_FILE, TokenStore
from tandem.v1 import common_pb2, node_pb2, plugin_pb2, trading_pb2

pytestmark = pytest.mark.timeout(300)
CHANGES = {
    "pause-all": (), "resume": (BTC,), "set-param": (BTC, "away_bps=300"), "reload": ("wide",),
    "rollback": ("wide",), "panic-stop": ("node",), "release-panic-stop": ("node",),
}  # fmt: skip
"""The scripts that change something, with what each could be given."""


@pytest.fixture(scope="module")
def one_node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OpsNode]:
    with OpsNode(tmp_path_factory.mktemp("ops")) as node:
        node.plugins.SetAutoReload(plugin_pb2.SetAutoReloadRequest(name="plugins/wide", enabled=False))
        yield node


@pytest.fixture
def node(one_node: OpsNode) -> OpsNode:
    one_node.as_it_began()
    return one_node


# -- looking ---------------------------------------------------------------------------------------


def test_status_shows_what_the_node_does_and_checks_it(node: OpsNode) -> None:
    status = node.status()
    shown = dict(line.split(maxsplit=1) for line in node.done("status", "--check").splitlines())
    assert shown["node"] == f"a, primary of cell main, host {status.host_version}"
    assert shown["phase"] == "running"
    assert shown["account"] == "paper at paper, ready"
    assert shown["instances"] == "2 running"
    assert shown["orders"].startswith("4 open")
    whole = json.loads(node.done("status", "--json"))
    assert (whole["role"], whole["epoch"]) == ("NODE_ROLE_PRIMARY", str(status.epoch))


def test_status_shows_what_is_stopped_and_why(node: OpsNode) -> None:
    node.trading.PanicStop(trading_pb2.PanicStopRequest(scope="symbols/ETH-USDT", reason="odd prices"))
    stopped = [line for line in node.done("status").splitlines() if line.startswith("stopped")]
    assert len(stopped) == 1
    assert "symbols/ETH-USDT" in stopped[0]
    assert stopped[0].endswith("odd prices")


def test_tail_orders_prints_the_open_orders_and_then_those_that_change(node: OpsNode) -> None:
    ours = {order.client_id: order for order in node.open_orders(BTC)}
    rows = [
        line.split("\t")
        for line in node.done(
            "tail-orders", "--instance", BTC, "--symbol", "BTC-USDT", "--account", "paper", "--count", "2"
        ).splitlines()
    ]
    assert {row[7] for row in rows} == ours.keys()
    for _time, status, instance, symbol, side, filled, price, client_id, reason in rows:
        assert (status, instance, symbol, filled, reason) == ("open", BTC, "BTC-USDT", "0/0.01", "")
        assert price == ours[client_id].price
        assert side == ("buy" if ours[client_id].side == common_pb2.SIDE_BUY else "sell")

    arguments = ["--instance", BTC, "--json"]
    with watching(node, "tail-orders", *arguments) as tail:
        assert tail.stdout is not None
        assert {json.loads(tail.stdout.readline())["client_id"] for _ in range(2)} == ours.keys()
        node.plugins.PauseInstance(plugin_pb2.PauseInstanceRequest(name=f"instances/{BTC}"))
        gone: set[str] = set()
        while gone != ours.keys():
            order = json.loads(tail.stdout.readline())
            if order["status"] == "ORDER_STATUS_CANCELLED":
                gone.add(order["client_id"])


def test_watch_events_prints_the_journal(node: OpsNode) -> None:
    begun = node.done("watch-events", "--from", "1", "--count", "5").splitlines()
    events = node.nodes.ListEvents(node_pb2.ListEventsRequest(from_lsn=1, page_size=5)).events
    assert [line.split("\t")[0] for line in begun] == ["1", "2", "3", "4", "5"]
    assert [line.split("\t")[2:] for line in begun] == [[one.kind, one.json] for one in events]

    marker = "seen by the watch"
    with watching(node, "watch-events", "--json", "--kind", "kill_switch_set", "--count", "1") as watch:
        # The watch begins with what comes next: stop and release until it has seen one.
        while watch.poll() is None:
            node.trading.PanicStop(trading_pb2.PanicStopRequest(scope="symbols/ETH-USDT", reason=marker))
            node.trading.ReleasePanicStop(
                trading_pb2.ReleasePanicStopRequest(scope="symbols/ETH-USDT", reason=marker)
            )
        assert watch.stdout is not None
        (line,) = watch.stdout.read().splitlines()
        assert watch.returncode == 0
    event = json.loads(line)
    assert event["kind"] == "kill_switch_set"
    assert event["entry"]["reason"].endswith(marker)
    assert event["entry"] in [
        {key: value for key, value in one.items() if key not in ("lsn", "of")}
        for one in node.entries("kill_switch_set")
        if one["lsn"] == event["lsn"]
    ]


def test_watch_events_of_an_instance_leaves_the_others_out(node: OpsNode) -> None:
    lines = node.done(
        "watch-events", "--from", "1", "--instance", ETH, "--kind", "place_sent", "--count", "2", "--json"
    ).splitlines()
    assert {json.loads(line)["entry"]["instance"] for line in lines} == {ETH}


def test_watch_events_goes_on_with_the_next_process_of_the_node_and_misses_nothing(tmp_path: Path) -> None:
    with OpsNode(tmp_path) as node, watching(node, "watch-events", "--from", "1", "--json") as watch:
        assert watch.stdout is not None
        seen = [json.loads(watch.stdout.readline())]
        node.kill()
        node.start()
        while sum(event["kind"] == "node_started" for event in seen) < 2:
            seen.append(json.loads(watch.stdout.readline()))
        assert [event["lsn"] for event in seen] == list(range(1, len(seen) + 1))


# -- pausing and parameters ------------------------------------------------------------------------


def test_pause_all_pauses_everything_that_runs_and_resume_lets_it_trade_again(node: OpsNode) -> None:
    assert node.done("pause-all", "--reason", "the market is odd").split() == [BTC, ETH]
    assert node.states() == ["PAUSED", "PAUSED"]
    assert node.instance(BTC).state_reason.endswith("the market is odd")
    wait_for(lambda: not node.open_orders(), "pulled quotes", PATIENCE_S)
    assert node.done("pause-all") == "", "nothing runs that could be paused"

    assert node.done("resume", ETH, "--reason", "it is not").split() == [ETH]
    assert node.states() == ["PAUSED", "RUNNING"]
    assert node.done("resume", "--all").split() == [BTC]
    assert node.states() == ["RUNNING", "RUNNING"]
    wait_for(lambda: len(node.open_orders()) == 4, "quotes", PATIENCE_S)
    assert node.done("resume", "--all") == ""


def test_pause_all_pauses_what_runs_a_plugin_or_trades_on_an_account(node: OpsNode) -> None:
    assert node.done("pause-all", "--plugin", "wide").split() == [BTC]
    assert node.states() == ["PAUSED", "RUNNING"]
    assert node.done("pause-all", "--account", "accounts/paper").split() == [ETH]
    assert node.ops("pause-all", "--account", "not a name").returncode == 2


def test_resume_goes_on_after_one_that_cannot_be_and_says_so(node: OpsNode) -> None:
    node.done("pause-all")
    result = node.ops("resume", "nobody", BTC)
    assert (result.returncode, result.stdout.split()) == (4, [BTC])
    assert "no instance is named nobody" in result.stderr
    assert node.states() == ["RUNNING", "PAUSED"]


def test_set_param_changes_what_is_named_and_keeps_every_digit(node: OpsNode) -> None:
    size = "0.0100000000000000000001"
    params = json.loads(node.done("set-param", BTC, "away_bps=350", f"size={size}"))
    assert params == {"away_bps": 350, "size": size}
    assert dict(node.instance(BTC).params.items()) == params
    assert node.entries("params_changed")[-1]["params"] == params
    node.done("set-param", f"instances/{BTC}", "size=0.01")
    assert dict(node.instance(BTC).params.items()) == {"away_bps": 350, "size": "0.01"}


@pytest.mark.parametrize("change", ["away_bps=-1", "away_bps=wide", "size=much", "colour=red", "away_bps"])
def test_set_param_that_is_refused_changes_nothing(node: OpsNode, change: str) -> None:
    before = node.instance(BTC)
    result = node.ops("set-param", BTC, "size=0.02", change)
    assert (result.returncode, result.stdout) == (2, "")
    assert change.partition("=")[0] in result.stderr
    assert node.instance(BTC) == before


# -- versions --------------------------------------------------------------------------------------


def test_reload_takes_new_bytes_live_and_rollback_takes_them_back(node: OpsNode) -> None:
    before = node.plugin()
    assert "nothing to do" in node.done("reload", "wide")
    node.wide_file.write_text(WIDE + "\n# a new version\n")
    lines = [line.split("\t") for line in node.done("reload", "wide").splitlines()]
    live = node.plugin()
    assert live.digest == live.probation_digest != before.digest
    assert [lines[0][0], lines[-2][0]] == ["capture", "swap"]
    assert lines[-1][:2] == [f"wide {live.digest[:12]}", "active"]
    assert node.instance(BTC).digest == live.digest

    assert node.done("rollback", "plugins/wide", "--reason", "odd").strip() == before.digest
    assert node.plugin().digest == node.instance(BTC).digest == before.digest
    rolled_back = node.entries("version_moved")[-1]
    assert (rolled_back["digest"], rolled_back["state"]) == (live.digest, "rolled_back")
    assert rolled_back["reason"].endswith("odd")
    result = node.ops("rollback", "wide")
    assert (result.returncode, result.stdout) == (3, "")
    assert "no version of plugin wide is on probation" in result.stderr


def test_reload_of_bytes_that_are_no_good_exits_with_1_and_the_version_runs_on(node: OpsNode) -> None:
    before = node.plugin().digest
    node.wide_file.write_text("def broken(:\n")
    result = node.ops("reload", "wide", "--json")
    assert result.returncode == 1
    answer = json.loads(result.stdout)
    assert answer["state"] == "VERSION_STATE_REFUSED"
    assert "syntax error" in answer["reason"]
    assert node.plugin().digest == node.instance(BTC).digest == before


# -- stopping --------------------------------------------------------------------------------------


def test_panic_stop_ends_trading_in_a_scope_until_it_is_released(node: OpsNode) -> None:
    printed = node.done("panic-stop", "symbols/BTC-USDT", "--reason", "odd prices").splitlines()
    assert printed[0] == "cancelled\t2"
    assert printed[1].startswith("stopped\tsymbols/BTC-USDT\t")
    assert node.status().stopped_scopes.keys() == {"symbols/BTC-USDT"}
    wait_for(lambda: not node.open_orders(BTC), "cancelled orders", PATIENCE_S)
    assert len(node.open_orders(ETH)) == 2

    assert node.done("release-panic-stop", "symbols/BTC-USDT", "--reason", "they were right") == ""
    assert not node.status().stopped_scopes
    wait_for(lambda: len(node.open_orders(BTC)) == 2, "quotes", PATIENCE_S)
    result = node.ops("release-panic-stop", "symbols/BTC-USDT")
    assert result.returncode == 3
    assert "no kill switch is on" in result.stderr


def test_a_change_repeated_with_its_request_id_is_done_once(node: OpsNode) -> None:
    count = len(node.entries("kill_switch_set"))
    arguments = ("panic-stop", f"instances/{BTC}", "--reason", "once", "--request-id", f"stop-{count}")
    first = node.done(*arguments)
    assert "cancelled\t2" in first
    node.done("release-panic-stop", f"instances/{BTC}")
    assert node.done(*arguments) == first
    assert not node.status().stopped_scopes
    assert len(node.entries("kill_switch_set")) == count + 2


# -- what holds for all ----------------------------------------------------------------------------


@pytest.mark.parametrize("script", CHANGES)
def test_a_dry_run_changes_nothing(node: OpsNode, script: str) -> None:
    if script == "release-panic-stop":
        node.done("panic-stop", "node")
    if script == "resume":
        node.done("pause-all")
    node.wide_file.write_text(WIDE + f"\n# for {script}\n")
    if script == "rollback":
        node.done("reload", "wide")
    wait_for(lambda: node.status().open_orders in (0, 4), "orders that are settled", PATIENCE_S)
    kinds = ("kill_switch_set", "instance_changed", "instance_held", "params_changed", "version_moved")
    before = node.entries(*kinds)
    result = node.ops(script, *CHANGES[script], "--dry-run")
    assert result.returncode == 0, result.stderr
    assert "nothing is changed" in result.stderr
    assert node.entries(*kinds) == before
    if script == "rollback":
        node.done("rollback", "wide")


@pytest.mark.parametrize("script", CHANGES)
def test_a_viewer_cannot_change_anything_and_a_stranger_cannot_look(node: OpsNode, script: str) -> None:
    node.done("pause-all", "--plugin", "two_sided")  # something to resume, and something to pause
    tokens = TokenStore.open(node.folder / "data" / TOKENS_FILE)
    token = tokens.create(f"viewer-of-{script}", Role.VIEWER, time.time_ns(), None)
    before = node.states()
    result = node.ops(script, *CHANGES[script], TANDEM_TOKEN=token)
    assert result.returncode == 5
    assert "needs the role" in result.stderr
    assert node.states() == before
    assert not node.status().stopped_scopes
    assert node.done("status", TANDEM_TOKEN=token)
    result = node.ops("status", TANDEM_TOKEN=token + "x")
    assert (result.returncode, result.stdout) == (5, "")
    assert token not in result.stderr


def test_of_several_addresses_the_node_that_trades_is_found(node: OpsNode) -> None:
    nowhere, here = "unix:data/none.sock", "./data/c.sock"
    assert node.done("status", "--address", f"{nowhere},{here}") != ""
    result = node.ops("status", "-a", f"{nowhere},unix:data/nor.sock")
    assert result.returncode == 6
    assert "none of" in result.stderr


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_a_script_explains_itself_and_refuses_what_it_does_not_know(tmp_path: Path, script: Path) -> None:
    def run(*arguments: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [script, *arguments],
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            check=False,
            cwd=tmp_path,
        )

    assert script.stat().st_mode & stat.S_IXUSR
    shown = run("--help")
    assert (shown.returncode, shown.stderr) == (0, "")
    assert f"  ops/{script.name} " in shown.stdout
    assert shown.stdout.endswith(".\n"), "the help is whole sentences and no line of code"
    wrong = run("--wrong")
    assert (wrong.returncode, wrong.stdout) == (2, "")
    assert "there is no option --wrong" in wrong.stderr
    assert run("--address").returncode == 2
    assert run("--address", "here", *CHANGES.get(script.name, ())).returncode == 2
    nobody = run("--address", f"unix:{tmp_path}/none.sock", *CHANGES.get(script.name, ()))
    assert (nobody.returncode, nobody.stdout) == (6, "")
    assert "none.sock" in nobody.stderr
    assert f"`{script.name}`" in (OPS / "README.md").read_text(encoding="utf-8")


class watching:  # noqa: N801 - reads as what it does
    """A script that goes on until it is ended."""

    def __init__(self, node: OpsNode, script: str, *arguments: str) -> None:
        self._process = subprocess.Popen(
            node.command(script, *arguments), env=node.environment(), cwd=node.folder,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        )  # fmt: skip

    def __enter__(self) -> "subprocess.Popen[str]":
        return self._process

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.communicate(timeout=PATIENCE_S)
