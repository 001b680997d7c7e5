"""The `tandem` command: what it prints, and what it exits with."""

import json
import os
import subprocess
import sys
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from host.api import (
    Instrument,
    InstrumentKind,
    Liquidity,
    OrderAccepted,
    OrderFilled,
    OrderType,
    Side,
    TimeInForce,
)
from host.cli import main
from host.core import entries as e
from host.core.state import TradingState
from host.journal import Journal, journal_digest

START_NS = 1_754_650_000_000_000_000
INSTRUMENT = Instrument(
    symbol="BTC-USDT",
    kind=InstrumentKind.SPOT,
    base="BTC",
    quote="USDT",
    tick_size=Decimal("0.01"),
    lot_size=Decimal("0.00001"),
)

CONFIG = """
[[account]]
name = "paper"
exchange = "paper"

[[instance]]
name = "mm-btc"
plugin = "two_sided"
account = "paper"
symbols = ["BTC-USDT"]
models = ["inventory_skew"]
"""


def tandem(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def place(client_id: str, instance: str) -> e.PlaceSent:
    return e.PlaceSent(
        client_id,
        instance,
        "paper",
        "BTC-USDT",
        Side.BUY,
        OrderType.LIMIT,
        TimeInForce.GTC,
        Decimal(60000),
        Decimal("0.01"),
        True,
        False,
        0,
    )


def session() -> list[e.Entry]:
    """Two instances; one order of `mm-btc` is filled, one of `other` stays open."""
    filled = OrderFilled(
        "t1x1",
        "BTC-USDT",
        Side.BUY,
        "7",
        Decimal(60000),
        Decimal("0.01"),
        Decimal("0.6"),
        "USDT",
        Liquidity.MAKER,
        START_NS,
    )
    return [
        e.NodeStarted("a", "main", 1, "0.1.0"),
        e.InstrumentSet("paper", INSTRUMENT),
        e.InstanceAdded("mm-btc", 1, "two_sided", "ab" * 32, "paper", ("BTC-USDT",), b"{}"),
        e.InstanceAdded("other", 2, "two_sided", "ab" * 32, "paper", ("BTC-USDT",), b"{}"),
        place("t1x1", "mm-btc"),
        place("t1x2", "other"),
        e.Reported("paper", OrderAccepted("t1x1", "v1", START_NS)),
        e.Reported("paper", OrderAccepted("t1x2", "v2", START_NS)),
        e.Reported("paper", filled),
    ]


def write_journal(folder: Path, digest: str | None = None) -> Path:
    """Write the session and a state digest, right unless one is given; return the data folder."""
    state = TradingState()
    journal = Journal.open(folder / "journal", node="a")
    for entry in session():
        lsn = journal.append(entry, START_NS)
        state.apply(lsn, START_NS, entry)
    journal.append(e.StateDigest(digest or state.digest()), START_NS)
    journal.close()
    return folder


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    return write_journal(tmp_path / "data")


def test_help_needs_no_heavy_library() -> None:
    code = (
        "import sys\nfrom host.cli import main\ntry:\n    main(['--help'])\nexcept SystemExit: pass\n"
        "heavy = {'sqlalchemy', 'onnxruntime', 'numpy', 'aiohttp', 'uvloop', 'rich', 'watchfiles'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    root = Path(__file__).parents[1]
    ran = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True, cwd=root, timeout=60
    )

    assert "Exit codes:" in ran.stdout
    assert ran.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize(
    "command", ["run", "config check", "plugin new", "plugin check", "plugin history", "journal dump",
                "journal verify", "journal export", "journal replay", "store rebuild", "venue"],
)  # fmt: skip
def test_every_command_explains_itself(command: str) -> None:
    result = tandem(*command.split(), "--help")

    assert result.exit_code == 0
    assert len(result.output.splitlines()) > 5


# -- config --------------------------------------------------------------------------------------


def test_config_check_accepts_a_configuration_whose_plugins_exist(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TANDEM__CONTROL__LISTEN")  # what keeps the nodes of these tests off one port
    (tmp_path / "tandem.toml").write_text(CONFIG)

    result = tandem("config", "check", "--json")
    report = json.loads(result.stdout)

    assert result.exit_code == 0
    assert report["ok"]
    assert report["sources"] == ["tandem.toml"]
    assert report["config"]["instance"][0]["name"] == "mm-btc"


def test_config_check_shows_the_built_in_defaults_where_there_is_no_file(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("TANDEM__CONTROL__LISTEN")
    result = tandem("config", "check")

    assert result.exit_code == 0
    assert "built-in defaults: ok" in result.stdout
    assert "mm-eth" in result.stdout


def test_config_check_finds_missing_plugins_and_params_out_of_bounds(tmp_path: Path) -> None:
    path = tmp_path / "bad.toml"
    text = CONFIG.replace('"paper"\n\n[[instance]]', '"papr"\n\n[[instance]]').replace(
        "inventory_skew", "magic"
    )
    path.write_text(text + "params = { half_spread_bps = -1.0 }\n")

    result = tandem("config", "check", "-c", path, "--json")
    found = {problem["key"]: problem["text"] for problem in json.loads(result.stdout)["problems"]}

    assert result.exit_code == 2
    assert found["account[paper].exchange"] == 'no exchange plugin is named "papr"; did you mean "paper"?'
    assert found["instance[mm-btc].params.half_spread_bps"] == "must be > 0, was -1.0"
    assert 'no model plugin is named "magic"' in found["instance[mm-btc].models[magic].name"]


def test_config_error_is_one_message_without_a_traceback(tmp_path: Path) -> None:
    (tmp_path / "tandem.toml").write_text(CONFIG + "[nod]\n")

    result = tandem("config", "check")

    assert result.exit_code == 2
    assert 'tandem.toml: nod: unknown key; did you mean "node"?' in result.stderr
    assert "Traceback" not in result.stderr
    assert "Traceback" in tandem("--debug", "config", "check").stderr


# -- run -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--for", "soon"], 'expected a duration such as 500ms, 30s, 5m or 1h, was "soon"'),
        (["--for", "0s"], "expected a duration"),
        (["--speed", "fast"], 'expected a factor such as 1 or 10, or max, was "fast"'),
        (["--speed", "max"], "never ends; add --for"),
        (["--replay", "nowhere"], "does not exist"),
        (["--replay", ".", "--env", "prod"], "--env overlays a file"),
    ],
)
def test_run_refuses_options_that_make_no_sense(arguments: list[str], text: str) -> None:
    result = tandem("run", *arguments)

    assert result.exit_code == 2
    assert text in result.stderr


def test_replay_refuses_the_data_folder_of_a_node(tmp_path: Path, data_dir: Path) -> None:
    (tmp_path / "tandem.toml").write_text(CONFIG)
    before = journal_digest(data_dir / "journal")

    result = tandem("run", "-c", "tandem.toml", "--replay", tmp_path, "--data-dir", data_dir)

    assert result.exit_code == 3
    assert "a replay starts from nothing" in result.stderr
    assert journal_digest(data_dir / "journal") == before


def test_replay_prints_one_json_object_and_the_same_journal_each_time(tmp_path: Path) -> None:
    root = Path(__file__).parents[1]
    market = root / os.environ.get("TANDEM_MARKETDATA", "../shared/marketdata")
    recording = market / "binance_spot_BTCUSDT_20240808-09"
    if not recording.is_dir():
        pytest.skip(f"no recorded market data at {market}; set TANDEM_MARKETDATA")
    run = ("run", "--replay", recording, "--speed", "max", "--for", "20s", "--report", "json")

    results = [tandem(*run, "--data-dir", tmp_path / name) for name in ("first", "second")]

    assert [result.exit_code for result in results] == [0, 0], results[0].output
    first, second = (json.loads(result.stdout) for result in results)
    assert first["events"] > 1000
    assert first["orders"] > 0
    assert first["open_orders"] == 0
    assert first["journal"]["digest"] == second["journal"]["digest"]
    assert first["journal"]["digest"] == journal_digest(tmp_path / "first" / "journal")


@pytest.mark.parametrize("closed", ["2>&-", "<&- >&- 2>&-"])
def test_a_node_started_without_standard_streams_runs_and_ends_well(tmp_path: Path, closed: str) -> None:
    (tmp_path / "tandem.toml").write_text(CONFIG + "[control]\nlisten = []\n")
    code = "from host.cli import main; main()"
    command = (
        f"exec '{sys.executable}' -c '{code}' run -c tandem.toml --speed max --for 1s --report json {closed}"
    )

    ran = subprocess.run(
        ["sh", "-c", command],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])},
    )

    assert ran.returncode == 0, ran.stderr
    assert ">&-" in closed.split() or json.loads(ran.stdout)["stopped"] == "the time was up"


CHATTY = """
import ctypes, os, subprocess, sys
from host.api import BookTop, NoParams, Strategy

def chat(when: str) -> None:
    print("printed", when)
    sys.__stdout__.write(f"written {when}\\n")
    os.write(1, f"sent {when}\\n".encode())
    ctypes.CDLL(None).printf(f"said in C {when}\\n".encode())
    subprocess.run(["echo", "said by a child", when], check=True)

chat("at import")

class Chatty(Strategy[NoParams]):
    def on_start(self) -> None:
        chat("at the start")
"""


@pytest.mark.parametrize(
    "command",
    [
        "run -c tandem.toml --speed max --for 1s --report json",
        "config check -c tandem.toml --json",
        "plugin check plugins/chatty.py --replay RECORDING --minutes 0.01 --json",
    ],
)
def test_what_plugins_print_is_kept_out_of_what_scripts_read(tmp_path: Path, command: str) -> None:
    (tmp_path / "plugins").mkdir()
    (tmp_path / "plugins" / "chatty.py").write_text(CHATTY)
    text = (
        CONFIG.replace('"two_sided"', '"chatty"')
        + '[node]\nplugin_dirs = ["plugins"]\n[control]\nlisten = []\n'
    )
    (tmp_path / "tandem.toml").write_text(text)
    arguments = [str(recording()) if word == "RECORDING" else word for word in command.split()]

    ran = subprocess.run(
        [sys.executable, "-c", "from host.cli import main; main()", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])},
    )

    assert isinstance(json.loads(ran.stdout), dict)
    for said in ("printed", "written", "sent", "said in C", "said by a child"):
        assert f"{said} at import" in ran.stderr
        assert command.startswith("config") or f"{said} at the start" in ran.stderr


# -- plugin --------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["strategy", "exchange", "model"])
def test_new_plugin_passes_its_own_check(kind: str, tmp_path: Path) -> None:
    created = tandem("plugin", "new", kind, "mine", "--dir", tmp_path / "plugins")
    path = Path(created.stdout.strip())

    checked = tandem("plugin", "check", path, "--json")

    assert created.exit_code == 0
    assert checked.exit_code == 0, checked.output
    assert json.loads(checked.stdout)["ok"]


def test_existing_plugin_is_never_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text("precious = True\n")

    result = tandem("plugin", "new", "strategy", "mine", "--dir", tmp_path)

    assert result.exit_code == 3
    assert path.read_text() == "precious = True\n"


def test_broken_plugin_fails_its_check_with_file_and_line(tmp_path: Path) -> None:
    path = tmp_path / "broken.py"
    path.write_text("from host.api import Strategy\n\nclass Broken(Strategy):\n    def on_book(self\n")

    result = tandem("plugin", "check", path)

    assert result.exit_code == 1
    assert "broken.py:4" in result.stderr


RECORDED_STRATEGY = """
from host.api import BookTop, NoParams, State, Strategy, Trade

class Counts(State):
    books: int = 0

class Fragile(Strategy[NoParams]):
    state: Counts

    def on_book(self, book: BookTop) -> None:
        self.state.books += 1
        if self.state.books == 3:
            raise ValueError("the third book")
"""


def recording() -> Path:
    market = Path(__file__).parents[1] / os.environ.get("TANDEM_MARKETDATA", "../shared/marketdata")
    folder = market / "binance_spot_BTCUSDT_20240808-09"
    if not folder.is_dir():
        pytest.skip(f"no recorded market data at {market}; set TANDEM_MARKETDATA")
    return folder


def check_over_recording(path: Path, *options: str) -> tuple[int, dict[str, Any]]:
    result = tandem("plugin", "check", path, "--replay", recording(), "--minutes", "0.1", "--json", *options)
    [rehearsal] = json.loads(result.stdout)["rehearsals"]
    return result.exit_code, rehearsal


@pytest.mark.parametrize(
    "name", ["strategies/two_sided.py", "models/inventory_skew.py", "models/onnx_adjust"]
)
def test_bundled_plugins_pass_a_muted_run_over_a_recording(name: str) -> None:
    exit_code, rehearsal = check_over_recording(Path(__file__).parents[1] / "plugins" / name)

    assert exit_code == 0
    assert rehearsal["refusal"] == ""
    assert rehearsal["events"] > rehearsal["intents"] > 100
    assert 0 < rehearsal["mean_us"] <= rehearsal["slowest_us"] >= rehearsal["p99_us"] > 0


def test_strategy_that_raises_during_a_recording_is_refused_with_event_and_line(tmp_path: Path) -> None:
    path = tmp_path / "fragile.py"
    path.write_text(RECORDED_STRATEGY)

    exit_code, rehearsal = check_over_recording(path)

    assert exit_code == 1
    assert rehearsal["refusal"].startswith(f"event {rehearsal['events']}: raised ValueError: the third book")
    assert "fragile.py@" in rehearsal["refusal"]
    assert rehearsal["refusal"].endswith(", line 13)")
    assert rehearsal["callbacks"] == 2


def test_strategy_that_holds_the_loop_or_cannot_save_its_state_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "fragile.py"
    path.write_text(
        "import time\n" + RECORDED_STRATEGY.replace('raise ValueError("the third book")', "time.sleep(0.15)")
    )
    _, slow = check_over_recording(path)
    path.write_text(RECORDED_STRATEGY.replace("self.state.books += 1", "self.state.books = object()"))
    _, unsaved = check_over_recording(path)

    assert "a callback took" in slow["refusal"]
    assert "the limit is 100 ms" in slow["refusal"]
    assert "its state at the end cannot be taken over" in unsaved["refusal"]


def test_parameters_of_a_check_are_those_given(tmp_path: Path) -> None:
    two_sided = Path(__file__).parents[1] / "plugins" / "strategies" / "two_sided.py"

    _, bad = check_over_recording(two_sided, "--param", "half_spread_bps=-1")
    result = tandem("plugin", "check", two_sided, "--param", "half_spread_bps")

    assert "params.half_spread_bps must be > 0, was -1" in bad["refusal"]
    assert result.exit_code == 2
    assert "expected KEY=VALUE" in result.stderr


def reload_story() -> list[e.Entry]:
    """One version runs, one is refused, one goes live and is rolled back."""
    first, refused, bad = "aa" * 32, "bb" * 32, "cc" * 32
    return [
        e.PluginLoaded("two_sided", "two_sided.py", first, ("two_sided",)),
        e.PluginLoaded("other", "other.py", first, ("other",)),
        e.InstanceAdded("mm-btc", 1, "two_sided", first, "paper", ("BTC-USDT",), b"{}"),
        e.VersionMoved("two_sided", first, e.VersionState.PERMANENT, "the first version"),
        e.StageReported("two_sided", refused, "validate", "failed", 81_500, "two_sided.py:4: no such name"),
        e.VersionMoved("two_sided", refused, e.VersionState.REFUSED, "validate: no such name"),
        e.StageReported("two_sided", bad, "swap", "passed", 250, ""),
        e.InstanceRevised("mm-btc", bad, "reload"),
        e.VersionMoved("two_sided", bad, e.VersionState.ACTIVE, "swapped in"),
        e.VersionMoved("two_sided", bad, e.VersionState.ROLLED_BACK, "on_book raised"),
        e.InstanceRevised("mm-btc", first, "rolled back: on_book raised"),
        e.AutoReloadSet("two_sided", False, "3 rollbacks within 300 s"),
        e.StageReported("other", first, "swap", "passed", 1, "not ours"),
    ]


def write_reload_story(folder: Path) -> None:
    with Journal.open(folder / "journal", node="a") as journal:
        for number, entry in enumerate(reload_story()):
            journal.append(entry, START_NS + number)


def test_history_tells_of_each_version_and_what_became_of_it(tmp_path: Path) -> None:
    write_reload_story(tmp_path)

    story = json.loads(tandem("plugin", "history", "two_sided", "--data-dir", tmp_path, "--json").stdout)

    assert [(v["digest"][:2], v["state"], v["instances"]) for v in story["versions"]] == [
        ("aa", "permanent", ["mm-btc"]),
        ("bb", "refused", []),
        ("cc", "rolled_back", ["mm-btc"]),
    ]
    assert not story["is_auto"]
    assert story["versions"][2]["reason"] == "on_book raised"
    assert [event["what"] for event in story["events"]] == [
        "loaded", "runs in mm-btc", "permanent", "validate failed", "refused", "swap passed",
        "runs in mm-btc", "active", "rolled_back", "runs in mm-btc", "automatic reload off",
    ]  # fmt: skip
    assert story["events"][3]["duration_us"] == 81_500
    table = tandem("plugin", "history", "two_sided", "--data-dir", tmp_path).stdout
    assert all(word in table for word in ("81.5", "two_sided.py:4: no such name", "2025-08-08", "is off"))


def test_history_of_an_unknown_plugin_names_those_there_are(tmp_path: Path) -> None:
    write_reload_story(tmp_path)

    result = tandem("plugin", "history", "two_side", "--data-dir", tmp_path)

    assert result.exit_code == 2
    assert "it speaks of other, two_sided" in result.stderr


# -- journal -------------------------------------------------------------------------------------


def lsns(result: Result) -> list[int]:
    assert result.exit_code == 0, result.output
    return [json.loads(line)["lsn"] for line in result.stdout.splitlines()]


def test_dump_prints_a_line_for_every_entry(data_dir: Path) -> None:
    result = tandem("journal", "dump", "--data-dir", data_dir)

    assert result.exit_code == 0
    assert len(result.stdout.splitlines()) == len(session()) + 1
    assert "place_sent" in result.stdout


def test_dump_selects_by_range_type_and_instance(data_dir: Path) -> None:
    dump = ("journal", "dump", "--json", "--data-dir", data_dir)

    assert lsns(tandem(*dump, "--from", "3", "--to", "5")) == [3, 4, 5]
    assert lsns(tandem(*dump, "--type", "place_sent", "--type", "node_started")) == [1, 5, 6]
    assert lsns(tandem(*dump, "--instance", "mm-btc")) == [3, 5, 7, 9]
    assert lsns(tandem(*dump, "--instance", "mm-btc", "--from", "6")) == [7, 9]


def test_dump_names_the_types_there_are(data_dir: Path) -> None:
    result = tandem("journal", "dump", "--type", "placed", "--data-dir", data_dir)

    assert result.exit_code == 2
    assert "place_sent" in result.stderr


def test_following_dump_ends_at_its_last_entry(data_dir: Path) -> None:
    assert lsns(tandem("journal", "dump", "--follow", "--to", "9", "--json", "--data-dir", data_dir))[-1] == 9


def test_verify_prints_the_digest_of_a_sound_journal(data_dir: Path) -> None:
    result = tandem("journal", "verify", "--json", "--data-dir", data_dir)
    report = json.loads(result.stdout)

    assert result.exit_code == 0
    assert report["ok"]
    assert report["digest"] == journal_digest(data_dir / "journal")


def test_verify_fails_on_damage_and_says_where(data_dir: Path) -> None:
    segment = next((data_dir / "journal").glob("*.seg"))
    content = bytearray(segment.read_bytes())
    content[content.find(b"t1x1")] ^= 1
    segment.write_bytes(content)

    result = tandem("journal", "verify", "--data-dir", data_dir)

    assert result.exit_code == 1
    assert str(segment) in result.stderr


def test_missing_journal_is_an_error_not_an_empty_one(tmp_path: Path) -> None:
    for command in ("dump", "verify", "replay"):
        result = tandem("journal", command, "--data-dir", tmp_path / "nothing")
        assert result.exit_code == 1
        assert "there is no journal here" in result.stderr


def test_export_writes_json_lines_and_replaces_nothing_unasked(data_dir: Path, tmp_path: Path) -> None:
    file = tmp_path / "all.jsonl"
    export = ("journal", "export", file, "--data-dir", data_dir)

    assert tandem(*export).exit_code == 0
    lines = file.read_text().splitlines()
    assert [json.loads(line)["lsn"] for line in lines] == list(range(1, len(session()) + 2))
    assert tandem(*export).exit_code == 3
    assert tandem(*export, "--force").exit_code == 0
    assert tandem("journal", "export", "-", "--data-dir", data_dir).stdout.splitlines() == lines


def test_replay_prints_the_state_that_the_journal_leads_to(data_dir: Path) -> None:
    result = tandem("journal", "replay", "--json", "--data-dir", data_dir)
    state = json.loads(result.stdout)

    assert result.exit_code == 0
    assert [order["client_id"] for order in state["orders"]] == ["t1x2"]
    assert state["positions"]["mm-btc"]["BTC-USDT"]["qty"] == "0.01"
    assert state["fees"]["mm-btc"]["BTC-USDT"] == {"USDT": "0.6"}
    assert state["digests_checked"] == 1


def test_replay_shows_an_earlier_moment(data_dir: Path) -> None:
    state = json.loads(tandem("journal", "replay", "--to", "6", "--json", "--data-dir", data_dir).stdout)

    assert state["lsn"] == 6
    assert [order["client_id"] for order in state["orders"]] == ["t1x1", "t1x2"]


def test_replay_fails_where_a_digest_differs(tmp_path: Path) -> None:
    data_dir = write_journal(tmp_path / "forged", digest="00" * 32)

    result = tandem("journal", "replay", "--data-dir", data_dir)

    assert result.exit_code == 1
    assert f"entry {len(session()) + 1}: the digest" in result.stderr
    assert "live orders (1)" in result.stdout


def test_replay_starts_from_the_snapshot_where_entries_were_pruned(tmp_path: Path) -> None:
    state = TradingState()
    with Journal.open(tmp_path / "data" / "journal", node="a", segment_bytes=1 << 16) as journal:
        for entry in [*session(), *(e.Alert("noise", "x" * 5_000) for _ in range(60))]:
            state.apply(journal.append(entry, START_NS), START_NS, entry)
            journal.flush()
        for _ in range(2):
            lsn = journal.append(e.Alert("noise", "x"), START_NS)
            state.apply(lsn, START_NS, e.Alert("noise", "x"))
            journal.flush()
            journal.write_snapshot(lsn, state.encode())
        journal.prune(journal.last_lsn)
        assert journal.first_lsn > 1

    result = tandem("journal", "replay", "--json", "--data-dir", tmp_path / "data")

    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["digest"] == state.digest()
    refused = tandem("journal", "replay", "--to", "3", "--data-dir", tmp_path / "data")
    assert refused.exit_code == 3
    assert "are pruned" in refused.stderr
    assert lsns(tandem("journal", "dump", "--json", "--data-dir", tmp_path / "data"))[-1] == state.lsn


# -- store ---------------------------------------------------------------------------------------


def test_store_is_rebuilt_from_the_journal(data_dir: Path) -> None:
    result = tandem("store", "rebuild", "--data-dir", data_dir)

    assert result.exit_code == 0, result.output
    assert f"entries 1 to {len(session()) + 1} projected" in result.stdout
    assert (data_dir / "store.db").stat().st_size > 0


def test_rebuild_of_a_store_that_is_off_asks_for_a_database(tmp_path: Path, data_dir: Path) -> None:
    (tmp_path / "tandem.toml").write_text(CONFIG + '[store]\nurl = ""\n')

    result = tandem("store", "rebuild", "--data-dir", data_dir)

    assert result.exit_code == 2
    assert "--url" in result.stderr
