"""A whole node through its command: what it runs, what it leaves out and says, and what it comes back to."""

import gzip
import json
import os
import shutil
import textwrap
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from host.cli import main
from host.config import load_config
from host.core import entries as e
from host.core.state import TradingState
from host.journal import Journal, read
from host.runtime.recovery import recover

MARKET = Path(__file__).parents[1] / os.environ.get("TANDEM_MARKETDATA", "../shared/marketdata")
RECORDING = MARKET / "binance_spot_BTCUSDT_20240808-09"

HEAD = """
[node]
plugin_dirs = ["mine"]
data_dir = "data"
[store]
url = ""
[[account]]
name = "paper"
exchange = "paper"
"""


def tandem(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def report_of(result: Result) -> dict[str, Any]:
    assert result.exit_code == 0, result.output
    report: dict[str, Any] = json.loads(result.stdout)
    return report


def run(seconds: str = "1s") -> Result:
    return tandem("run", "-c", "tandem.toml", "--for", seconds, "--report", "json")


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine").mkdir()


def instance(name: str, plugin: str = "two_sided", symbol: str = "BTC-USDT", more: str = "") -> str:
    return (
        f'[[instance]]\nname = "{name}"\nplugin = "{plugin}"\naccount = "paper"\n'
        f'symbols = ["{symbol}"]\n{more}\n'
    )


def configure(*instances: str, head: str = HEAD) -> None:
    Path("tandem.toml").write_text(head + "".join(instances))


def plugin(name: str, text: str) -> Path:
    path = Path("mine") / f"{name}.py"
    path.write_text(textwrap.dedent(text).lstrip("\n"))
    return path


# -- bad input -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[node]\nname = 'a'\nnmae = 'b'\n", ["tandem.toml", "node.nmae", 'did you mean "name"']),
        (
            "[node]\nequity_every_ms = 'often'\n",
            ["tandem.toml", "node.equity_every_ms", "a whole number > 0", '"often"'],
        ),
        (HEAD + instance("a") + instance("a"), ["tandem.toml", "instance[a].name", 'was "a" again']),
        ("[node\n", ["tandem.toml", "is not valid TOML"]),
    ],
)
def test_bad_configuration_is_refused_with_file_field_and_what_was_found(text: str, said: list[str]) -> None:
    Path("tandem.toml").write_text(text)
    result = run()

    assert result.exit_code == 2
    assert all(part in result.stderr for part in said), result.stderr
    assert "Traceback" not in result.output
    assert not Path("data").exists()


BAD_PLUGINS = {
    "syntax": ("class Bad(:\n    pass\n", ["syntax.py:1", "syntax error"]),
    "imports": ("import no_such_package\n", ["imports.py:1", 'no module named "no_such_package"']),
    "signature": (
        "from host.api import NoParams, Strategy\n\n\nclass S(Strategy[NoParams]):\n"
        "    def on_book(self) -> None: ...\n",
        ["signature.py:5", "on_book takes (self, book), was (self)"],
    ),
    "raises": ("raise RuntimeError('at import')\n", ["raises.py:1", "at import"]),
}


def test_bad_instances_are_left_out_each_with_its_reason_and_the_good_one_runs() -> None:
    for name, (text, _) in BAD_PLUGINS.items():
        plugin(name, text)
    plugin(
        "exploding",
        """
        from host.api import NoParams, Strategy


        class Exploding(Strategy[NoParams]):
            def __init__(self, params: NoParams) -> None:
                raise RuntimeError("no")
        """,
    )
    configure(
        *(instance(name, name) for name in BAD_PLUGINS),
        instance("exploding", "exploding"),
        instance("missing", "two_sidde"),
        instance("bounds", more="params = { half_spread_bps = -1 }"),
        instance("typed", more='params = { half_spread_bps = "wide" }'),
        instance("unknown", more="params = { half_spred_bps = 1 }"),
        instance("symbol", symbol="DOGE-USDT"),
        instance("model", more='models = ["no_such_model"]'),
        instance("good"),
    )
    report = report_of(run())

    skipped = report["skipped_instances"]
    said = {name: parts for name, (_, parts) in BAD_PLUGINS.items()} | {
        "exploding": ["exploding.py:6", "RuntimeError", "no"],
        "missing": ['"two_sidde"', 'did you mean "two_sided"'],
        "bounds": ["params.half_spread_bps must be > 0, was -1"],
        "typed": ["params.half_spread_bps must be of type float, was 'wide'"],
        "unknown": ["params.half_spred_bps is not a parameter", 'did you mean "half_spread_bps"'],
        "symbol": ["account paper has no symbol DOGE-USDT", "BTC-USDT"],
        "model": ['"no_such_model"'],
    }
    assert skipped.keys() == said.keys()
    for name, parts in said.items():
        assert all(part in skipped[name] for part in parts), skipped[name]
    assert [row["instance"] for row in report["positions"]] == ["good"]
    assert report["orders"] > 0
    assert report["open_orders"] == 0
    alerts = [r.entry for r in read(Path("data/journal")) if isinstance(r.entry, e.Alert)]
    assert {a.instance for a in alerts if a.kind == "instance_skipped"} == set(said)
    assert len([a for a in alerts if a.kind == "plugin_refused"]) == len([*BAD_PLUGINS, "exploding"])


def test_node_without_one_good_instance_says_why_of_each() -> None:
    configure(instance("a", "nowhere"), instance("b", more="params = { size = 0 }"))
    result = run()

    assert result.exit_code == 1
    assert "no instance could be started" in result.stderr
    assert "nowhere" in result.stderr
    assert "size must be above 0, was 0" in result.stderr
    assert "Traceback" not in result.output


def test_account_that_cannot_be_had_costs_its_own_instances_alone() -> None:
    more = '[[account]]\nname = "far"\nexchange = "paper_remote"\n'
    more += 'params = { url = "unix:/nowhere/s", connect_timeout_s = 0.2 }\n'
    there = instance("there").replace('"paper"', '"far"')
    configure(instance("here"), there, head=HEAD + more)
    report = report_of(run())

    assert report["skipped_instances"].keys() == {"there"}
    assert "no venue answered at unix:/nowhere/s" in report["skipped_instances"]["there"]
    assert report["orders"] > 0


ODD = """
    from decimal import Decimal
    from host.api import ExchangeAdapter, Instrument, InstrumentKind, NoParams


    class Odd(ExchangeAdapter[NoParams]):
        async def connect(self):
            spot, lot = InstrumentKind.SPOT, Decimal("0.001")
            return [
                Instrument(
                    symbol="BTC-USDT", kind=spot, base="BTC", quote="USDT", tick_size=0.01, lot_size=lot
                )
            ]

        async def subscribe(self, symbols): ...

        def send(self, command, deadline_ns): ...

        def resync(self, symbol): ...

        async def close(self): ...
"""


def test_account_whose_terms_no_journal_could_hold_costs_its_own_instances_alone() -> None:
    plugin("odd", ODD)
    there = instance("there").replace('"paper"', '"strange"')
    configure(instance("here"), there, head=HEAD + '[[account]]\nname = "strange"\nexchange = "odd"\n')
    report = report_of(run())

    assert report["skipped_instances"].keys() == {"there"}
    assert "Instrument.tick_size should be Decimal, was float 0.01" in report["skipped_instances"]["there"]
    assert report["orders"] > 0


@pytest.mark.skipif(not RECORDING.is_dir(), reason=f"no recorded market data at {MARKET}")
@pytest.mark.parametrize("line", ["not,a,quote", "\xff\xfe", "1,,2,BTCUSDT,x,1,2,1,1"])
def test_replay_ends_at_a_corrupt_line_and_names_it(tmp_path: Path, line: str) -> None:
    folder = tmp_path / RECORDING.name
    shutil.copytree(RECORDING, folder)
    for near in ("instruments.json",):  # what the recorder wrote beside its folders
        if (MARKET / near).exists():
            shutil.copy(MARKET / near, tmp_path / near)
    quotes = folder / "quotes.csv.gz"
    lines = gzip.decompress(quotes.read_bytes()).split(b"\n")[:400]
    lines[300] = line.encode("latin-1")
    quotes.write_bytes(gzip.compress(b"\n".join(lines) + b"\n", 1))
    result = tandem("run", "--replay", folder, "--speed", "max", "--report", "json")

    assert result.exit_code == 1
    assert "quotes.csv.gz" in result.stderr
    assert "301" in result.stderr
    assert "Traceback" not in result.output


# -- the life of a node --------------------------------------------------------------------------


BREAKS = """
    from host.api import BookTop, NoParams, Strategy


    class Breaks(Strategy[NoParams]):
        def on_book(self, book: BookTop) -> None:
            raise RuntimeError("{text}")
"""


def states(name: str) -> list[tuple[str, str]]:
    return [
        (str(record.entry.state), record.entry.reason)
        for record in read(Path("data/journal"))
        if isinstance(record.entry, e.InstanceChanged) and record.entry.instance == name
    ]


def test_quarantine_lasts_until_the_plugin_has_other_bytes() -> None:
    path = plugin("breaks", BREAKS.format(text="first"))
    configure(instance("bad", "breaks"), instance("good", symbol="ETH-USDT"))
    assert report_of(run())["quarantined"] == ["bad"]
    assert "(breaks.py@" in states("bad")[-1][1]
    assert ", line 6)" in states("bad")[-1][1]
    before = states("bad")
    assert report_of(run())["quarantined"] == ["bad"]
    assert states("bad") == before  # it was not tried again
    path.write_text(path.read_text().replace('raise RuntimeError("first")', "pass"))
    report = report_of(run())

    assert report["quarantined"] == []
    assert [state for state, _ in states("bad")[len(before) :]] == ["starting", "running", "stopped"]


def test_paused_instance_stays_paused_over_a_restart() -> None:
    configure(instance("mm", more='start = "paused"'))
    assert report_of(run())["orders"] == 0
    configure(instance("mm"))
    assert report_of(run())["orders"] == 0
    assert "stopped" not in [state for state, _ in states("mm")]
    assert states("mm")[-1][0] == "paused"


def test_user_s_plugin_stands_in_for_the_bundled_one_and_the_node_says_so() -> None:
    plugin("two_sided", BREAKS.format(text="mine"))
    configure(instance("mm"))
    report = report_of(run())

    assert report["quarantined"] == ["mm"]
    alerts = [r.entry for r in read(Path("data/journal")) if isinstance(r.entry, e.Alert)]
    (text,) = (a.text for a in alerts if a.kind == "plugin_shadowed")
    assert text.startswith("plugin two_sided: ")


def test_simulated_time_runs_fast_and_repeats_exactly() -> None:
    configure(instance("mm"))
    once = tandem("run", "-c", "tandem.toml", "--speed", "max", "--for", "20s", "--report", "json")
    first = report_of(once)
    again = report_of(
        tandem("run", "-c", "tandem.toml", "--speed", "max", "--for", "20s", "--report", "json")
    )
    other = report_of(
        tandem(
            "run", "-c", "tandem.toml", "--speed", "max", "--for", "20s", "--seed", "2", "--report", "json"
        )
    )

    assert first["ran_s"] >= 20
    assert first["events"] > 1_000
    assert first["open_orders"] == 0
    assert first["journal"]["digest"] == again["journal"]["digest"] != other["journal"]["digest"]
    assert not Path("data").exists()  # a simulation leaves the node's own folder alone


def test_venue_in_real_time_cannot_be_simulated() -> None:
    configure(instance("mm"), head=HEAD.replace('exchange = "paper"', 'exchange = "paper_remote"'))
    result = tandem("run", "-c", "tandem.toml", "--speed", "max", "--for", "1s")

    assert result.exit_code == 1
    assert "paper_remote lives in real time" in result.stderr


# -- the journal cut -----------------------------------------------------------------------------


def frames(path: Path) -> list[int]:
    """Return where each entry of a segment ends."""
    data = path.read_bytes()
    at = 20 + int.from_bytes(data[12:16], "little")
    ends = [at]
    while length := int.from_bytes(data[at : at + 4], "little"):
        at += 8 + length
        ends.append(at)
    return ends


def test_journal_cut_at_every_byte_of_its_last_entries_recovers_to_a_whole_entry(tmp_path: Path) -> None:
    configure(
        instance("mm", more="quote_tolerance_bps = 0.0\nparams = { half_spread_bps = 0.01 }"),
        head=HEAD.replace("[store]", "journal_segment_kb = 64\n[store]"),
    )
    report_of(run("1s"))
    folder = tmp_path / "data/journal"
    (segment,) = folder.glob("*.seg")
    whole = segment.read_bytes()
    ends = frames(segment)
    digests = {}
    state = TradingState()
    records = list(read(folder))
    for record in records:
        state.apply(record.lsn, record.ts_ns, record.entry)
        if record.lsn > len(records) - 8:
            digests[record.lsn] = state.digest()
    assert len(ends) == len(records) + 1
    name = load_config(tmp_path / "tandem.toml", None, {}).config.node.name

    def recovered_from(cut: int) -> TradingState:
        with segment.open("r+b") as file:
            file.write(whole)
            file.truncate(cut)
        with Journal.open(folder, node=name) as journal:
            return recover(journal).state

    for cut in range(ends[-7], ends[-1] + 1):
        lsn = sum(end <= cut for end in ends[1:])
        recovered = recovered_from(cut)
        assert (recovered.lsn, recovered.digest()) == (lsn, digests[lsn]), cut
    for cut in (ends[-1] - 1, ends[-4] + 3, ends[len(ends) // 2] + 5):
        recovered_from(cut)
        assert report_of(run())["open_orders"] == 0


# -- schedules -----------------------------------------------------------------------------------


def test_schedule_is_kept_to_the_nanosecond_in_simulated_time_and_every_run_is_the_same() -> None:
    """The simulation begins on a Monday at 00:00 UTC."""
    schedule = (
        '[instance.schedule]\nwindows = ["mon 00:00:05-00:00:10", "00:00:15-01:00"]\n'
        'triggers = { look = "every 2s", sweep = "*/8 0 0 * * *" }\n'
    )
    configure(
        instance("a", more=schedule),
        instance("b", more='after = ["c"]'),
        instance("c", more=schedule.replace("triggers", 'outside = "stop"\ntriggers')),
    )
    journals = []
    for folder in ("one", "two"):
        result = tandem(
            "run",
            "-c",
            "tandem.toml",
            "--speed",
            "max",
            "--for",
            "19s",
            "--data-dir",
            folder,
            "--report",
            "json",
        )
        journals.append(report_of(result)["journal"])
    records = list(read(Path("one") / "journal"))
    begins_ns = 1_704_067_200 * 1_000_000_000

    def moves(name: str) -> list[tuple[str, str, float]]:
        return [
            (str(record.entry.state), record.entry.by, (record.ts_ns - begins_ns) / 1e9)
            for record in records
            if isinstance(record.entry, e.InstanceChanged)
            and record.entry.instance == name
            and record.ts_ns % 1_000_000_000 == 0
            and record.ts_ns > begins_ns
        ]

    assert moves("a") == [("running", "", 5.0), ("paused", "schedule", 10.0), ("running", "", 15.0)]
    assert moves("b") == [("running", "", 5.0), ("paused", "dependency", 10.0), ("running", "", 15.0)]
    assert [move for move in moves("c") if move[0] != "starting"] == [
        ("running", "", 5.0),
        ("stopped", "schedule", 10.0),
        ("running", "", 15.0),
    ]
    fired = [
        (record.entry.trigger, record.entry.due_ns - begins_ns)
        for record in records
        if isinstance(record.entry, e.TriggerFired) and record.entry.instance == "a"
    ]
    assert [due // 1_000_000_000 for name, due in fired if name == "sweep"] == [8, 16]
    assert [due // 1_000_000_000 for name, due in fired if name == "look"] == [6, 8, 16, 18]
    assert journals[0]["digest"] == journals[1]["digest"]
