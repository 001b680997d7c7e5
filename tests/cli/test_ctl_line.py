"""The command line of `tandem ctl`: where it finds a node, how it asks, ends and completes."""

import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_type_hints

import click
import pytest
from click.shell_completion import ShellComplete
from click.testing import CliRunner
from control_tools import ControlDesk
from ctl_tools import PATIENCE_S, LiveDesk

from host.cli import main
from host.cli.ctl import ctl
from host.cli.ctl._group import SECTIONS
from host.client.services import NodeCalls, PluginCalls, TradingCalls
from host.control.principal import Role
from tandem.v1.trading_pb2 import RiskLimits

REPO = Path(__file__).parents[2]
CODE = "import sys; from host.cli import main; main(sys.argv[1:], prog_name='tandem')"


@pytest.fixture
def desk(tmp_path: Path) -> ControlDesk:
    folder = tmp_path / "node"
    folder.mkdir(mode=0o700)
    desk = ControlDesk(folder)
    desk.tick()
    return desk


@pytest.fixture
def live(desk: ControlDesk) -> Iterator[LiveDesk]:
    with LiveDesk(desk).serving() as live:
        yield live


class Terminal:
    """`tandem` in a process that has a terminal of its own."""

    def __init__(self, *words: str) -> None:
        self._fd, theirs = pty.openpty()
        self.process = subprocess.Popen(
            [sys.executable, "-c", CODE, *words], stdin=theirs, stdout=theirs, stderr=theirs,
            start_new_session=True, env={**os.environ, "TERM": "xterm", "COLUMNS": "150", "LINES": "40"},
        )  # fmt: skip
        os.close(theirs)
        self.screen = ""

    def shows(self, text: str) -> None:
        """Wait until something was printed."""
        deadline_s = time.monotonic() + PATIENCE_S
        while text not in self.screen:
            assert time.monotonic() < deadline_s, self.screen
            self._read()

    def types(self, text: str) -> None:
        os.write(self._fd, text.encode())

    def ends(self) -> int:
        """Wait for the process to end; return its exit code."""
        while self._read():
            pass
        code = self.process.wait(PATIENCE_S)
        os.close(self._fd)
        return code

    def interrupted(self) -> int:
        """Press Ctrl-C, and return the exit code."""
        code = interrupted(self.process)
        os.close(self._fd)
        return code

    def _read(self) -> bool:
        if not select.select([self._fd], [], [], PATIENCE_S)[0]:
            raise AssertionError(f"it says nothing more: {self.screen}")
        try:
            data = os.read(self._fd, 65_536)
        except OSError:  # how the end of a terminal looks to its other side
            return False
        self.screen += re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", data.decode("utf-8", "replace"))
        return bool(data)


def interrupted(process: "subprocess.Popen[Any]") -> int:
    """Send SIGINT until a process ends: one that comes right before it waits is noticed with the next."""
    for _ in range(int(PATIENCE_S)):
        process.send_signal(signal.SIGINT)
        try:
            return process.wait(5.0)
        except subprocess.TimeoutExpired:
            continue
    raise AssertionError("it goes on")


# -- finding a node, and being let in ------------------------------------------------------------


def tandem(*words: str, **variables: str) -> "click.testing.Result":
    return CliRunner().invoke(main, ["ctl", *words], env=variables)


def test_every_verb_is_in_one_section_and_teaches_by_examples() -> None:
    shown = [name for names in SECTIONS.values() for name in names]
    context = click.Context(ctl)
    assert ctl.get_command(context, "list") is not None
    assert sorted(shown) == sorted(ctl.commands)
    assert len(shown) == len(set(shown))
    verbs = [*ctl.commands.values(), *ctl.commands["limits"].commands.values()]  # type: ignore[attr-defined]
    for verb in verbs:
        if isinstance(verb, click.Group):
            continue
        assert verb.epilog is not None
        assert f"tandem ctl {verb.name}" in verb.epilog or f"tandem ctl limits {verb.name}" in verb.epilog


def test_every_rpc_can_be_called_from_the_command_line() -> None:
    source = "".join(path.read_text() for path in (REPO / "host/cli/ctl").glob("*.py"))
    for calls in (NodeCalls, PluginCalls, TradingCalls):
        for name in get_type_hints(calls):
            assert f".{name}" in source, name


def test_the_help_of_limits_names_every_limit() -> None:
    limits = ctl.get_command(click.Context(ctl), "limits")
    assert isinstance(limits, click.Group)
    told = re.findall(r"\b[a-z]+_[a-z_]+\b|on_breach", limits.commands["set"].help or "")
    assert set(told) == set(RiskLimits.DESCRIPTOR.fields_by_name) - {"name", "etag"}


def test_the_documentation_names_every_verb_and_exit_code() -> None:
    page = (REPO / "docs" / "ctl.md").read_text(encoding="utf-8")
    table = page.partition("## Verbs")[2].partition("```")[0]
    assert re.findall(r"`([a-z-]+)`", table) == ctl.list_commands(click.Context(ctl))
    codes = page.partition("<!-- exit codes -->")[2].partition("<!-- end of exit codes -->")[0]
    shown = re.findall(r"^\| (\d) \| (.{12})", codes, re.MULTILINE)
    assert shown == re.findall(r"^  (\d)  (.{12})", ctl.epilog or "", re.MULTILINE)


def test_the_node_is_found_by_variable_socket_configuration_or_folder(live: LiveDesk) -> None:
    home = live.desk.home
    assert tandem("list", TANDEM_CONTROL=live.address).exit_code == 0
    assert tandem("list", "-a", str(home / "c.sock")).exit_code == 0
    Path("tandem.toml").write_text(f'[node]\nname = "x"\n[control]\nlisten = ["unix:{home}/c.sock"]\n')
    environ = {"TANDEM__CONTROL__LISTEN": json.dumps([live.address])}
    assert tandem("list", **environ).exit_code == 0
    assert tandem("-c", "tandem.toml", "list", **environ).exit_code == 0
    assert tandem("list", "-c", "tandem.toml", **environ).exit_code == 0


def test_a_configured_node_that_does_not_run_is_not_mistaken_for_another(
    live: LiveDesk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TANDEM__CONTROL__LISTEN")
    other = Path(live.desk.home)
    Path("tandem.toml").write_text(f'[node]\nname = "x"\ndata_dir = "{other}/none"\n')
    result = tandem("status")
    assert result.exit_code == 6
    assert f"no node answers at unix:{other}/none/control.sock" in result.stderr
    assert "tandem run" in result.stderr


def test_a_node_without_the_api_is_said_to_be_one() -> None:
    result = tandem("status", TANDEM__CONTROL__LISTEN="[]")
    assert result.exit_code == 2
    assert "control.listen" in result.stderr


def test_wrong_addresses_and_files_are_usage_errors(tmp_path: Path) -> None:
    assert tandem("-a", "nonsense", "status").exit_code == 2
    assert tandem("-a", "127.0.0.1:1", "--cert", "a.crt", "status").exit_code == 2
    assert tandem("-a", "127.0.0.1:1", "--ca", "none.crt", "status").exit_code == 2
    token = tmp_path / "token"
    token.write_text("x")
    token.chmod(0o644)
    assert tandem("-a", "127.0.0.1:1", "--token-file", str(token), "status").exit_code == 3


def test_a_role_that_is_too_low_exits_with_5(live: LiveDesk, tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text(live.do(lambda: live.desk.token(Role.VIEWER)))
    token.chmod(0o600)
    assert live.ctl("status", "--token-file", str(token)).exit_code == 0
    result = live.ctl("--token-file", str(token), "pause", "mm")
    assert result.exit_code == 5
    assert "needs the role operator" in result.stderr
    assert tandem("-a", live.address, "status", TANDEM_TOKEN="wrong").exit_code == 5


def test_no_node_exits_with_6_and_a_deadline_with_7(live: LiveDesk) -> None:
    assert tandem("-a", "/nowhere/c.sock", "list").exit_code == 6
    live.do(lambda: setattr(live.desk.venue, "is_deaf", True))
    result = live.ctl("drain", "--yes", "--timeout", "0.3")
    assert result.exit_code == 7
    assert re.search(r"repeat it with --request-id [0-9a-f]{32}", result.stderr)


def test_a_failure_is_json_for_scripts(live: LiveDesk) -> None:
    result = live.ctl("get", "none", "--json")
    assert result.exit_code == 4
    error = json.loads(result.stderr)["error"]
    assert (error["code"], error["reason"]) == ("NOT_FOUND", "INSTANCE_NOT_FOUND")
    assert error["metadata"] == {"name": "none"}
    assert result.stdout == ""


# -- asking --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("answer", "code", "is_stopped"), [("y", 0, True), ("n", 1, False)])
def test_what_is_dangerous_is_asked_about_on_a_terminal(
    answer: str, code: int, is_stopped: bool, live: LiveDesk
) -> None:
    terminal = Terminal("ctl", "-a", live.address, "panic", "node")
    terminal.shows(f"Stop all trading of node, at {live.address}, and cancel 2 open orders? [y/N]:")
    terminal.types(f"{answer}\n")
    assert terminal.ends() == code
    assert live.do(lambda: bool(live.desk.engine.state.kill_switches)) is is_stopped


def test_ctrl_c_ends_a_question_at_once(live: LiveDesk, monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = pty.openpty()
    answers: list[str] = []

    def press_ctrl_c(_prompt: str) -> str:
        signal.raise_signal(signal.SIGINT)
        answers.append("y")  # nobody gets to type this
        return "y"

    monkeypatch.setattr(click.termui, "visible_prompt_func", press_ctrl_c)
    with os.fdopen(theirs) as keyboard, pytest.raises(click.Abort):
        monkeypatch.setattr(sys, "stdin", keyboard)
        main(["ctl", "-a", live.address, "panic", "node"], standalone_mode=False)
    os.close(ours)
    assert not answers
    assert not live.do(lambda: live.desk.engine.state.kill_switches)


def test_nobody_is_asked_about_what_would_be_refused_anyway(live: LiveDesk) -> None:
    terminal = Terminal("ctl", "-a", live.address, "panic", "instances/none")
    assert terminal.ends() == 4
    assert "[y/N]" not in terminal.screen


def test_a_change_of_limits_is_shown_before_it_is_made(live: LiveDesk) -> None:
    terminal = Terminal("ctl", "-a", live.address, "limits", "set", "node", "max_open_orders=9")
    terminal.shows("then: max_open_orders=9")
    terminal.types("y\n")
    assert terminal.ends() == 0
    assert live.do(lambda: live.desk.engine.risk_settings.limits("node").max_open_orders) == 9


# -- watching ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "first", "later"),
    [
        (("list",), "RUNNING", "PAUSED"),
        (("plugins",), "maker (strategy)", ""),
        (("orders",), "OPEN", ""),
        (("status",), "1 RUNNING", "1 PAUSED"),
        (("positions",), "realised", ""),
        (("balances",), "USDT", ""),
        (("book",), "BTC-USDT", ""),
    ],
)
def test_a_watch_on_a_terminal_shows_what_changes_until_ctrl_c(
    words: tuple[str, ...], first: str, later: str, live: LiveDesk
) -> None:
    terminal = Terminal("ctl", "-a", live.address, *words, "--watch")
    terminal.shows(first)
    if later:
        live.ok("pause", "mm")
        terminal.shows(later)
    assert terminal.interrupted() == 0


def test_a_watch_for_scripts_is_a_json_object_a_line(live: LiveDesk) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", CODE, "ctl", "-a", live.address, "events", "--watch", "--json",
         "--kind", "instance_changed", "--instance", "mm", "--from", "1"],
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    assert json.loads(process.stdout.readline())["fields"]["state"] == "starting"
    assert json.loads(process.stdout.readline())["fields"]["state"] == "running"
    live.ok("pause", "mm")
    line = json.loads(process.stdout.readline())
    assert (line["kind"], line["fields"]["state"]) == ("instance_changed", "paused")
    assert interrupted(process) == 0
    process.stdout.close()


def test_a_watch_of_fills_prints_each_as_it_comes(live: LiveDesk) -> None:
    terminal = Terminal("ctl", "-a", live.address, "fills", "--watch")
    terminal.shows("liquidity")
    live.until(lambda: bool(live.desk.venue.open()))

    def trade() -> None:
        live.desk.venue.trade(live.desk.venue.open()[0], "0.001")

    # Fills are told from the moment on at which the node took the watch up.
    deadline_s = time.monotonic() + PATIENCE_S
    while "MAKER" not in terminal.screen:
        assert time.monotonic() < deadline_s
        live.do(trade)
        if select.select([terminal._fd], [], [], 0.05)[0]:
            terminal._read()
    assert terminal.interrupted() == 0


# -- completion ----------------------------------------------------------------------------------


def completed(words: list[str], incomplete: str) -> list[str]:
    items = ShellComplete(main, {}, "tandem", "_TANDEM_COMPLETE").get_completions(words, incomplete)
    return [item.value for item in items]


@pytest.mark.parametrize(
    ("words", "incomplete", "offered"),
    [
        (["pause"], "", ["mm"]),
        (["list", "--plugin"], "ma", ["maker"]),
        (["create", "x"], "", ["maker"]),
        (["reload"], "", ["maker", "shift"]),
        (["set", "mm"], "aw", ["away="]),
        (["panic"], "", ["node", "accounts/acc", "instances/mm", "symbols/BTC-USDT", "symbols/ETH-USDT"]),
        (["orders", "--account"], "", ["acc"]),
        (["book"], "E", ["ETH-USDT"]),
        (["limits", "set", "node"], "max_open", ["max_open_orders="]),
    ],
)
def test_names_are_completed_from_the_node(
    words: list[str], incomplete: str, offered: list[str], live: LiveDesk
) -> None:
    assert completed(["ctl", "-a", live.address, *words], incomplete) == offered


def test_verbs_and_orders_are_completed(live: LiveDesk) -> None:
    assert completed(["ctl"], "pa") == ["pause", "panic"]
    orders = live.do(lambda: list(live.desk.engine.state.orders))
    assert sorted(completed(["ctl", "-a", live.address, "cancel"], "")) == sorted(orders)


def test_without_a_node_nothing_is_completed_and_nothing_is_said(capfd: pytest.CaptureFixture[str]) -> None:
    assert completed(["ctl", "-a", "/nowhere/c.sock", "pause"], "") == []
    assert completed(["ctl", "-a", "nonsense", "pause"], "") == []
    assert capfd.readouterr() == ("", "")
