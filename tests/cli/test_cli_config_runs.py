"""`tandem config check` of how and when instances run: workers, clients, schedules, and what has no effect."""

import json
from datetime import UTC, datetime
from pathlib import Path

from cli_tools import tandem

from host.cli._runs_check import Outlook, outlooks
from host.config import load_config

CONFIG = """
[watchdog]
on_block = "quarantine"
[control]
listen = []
[store]
url = ""
[[account]]
name = "paper"
exchange = "paper"
[[instance]]
name = "quoter"
plugin = "two_sided"
account = "paper"
symbols = ["BTC-USDT"]
isolation = "process"
worker = { group = "makers", memory_mb = 300, cpu_share = 0.5 }
models = [{ name = "inventory_skew", isolation = "process", worker = { deadline_ms = 70 } }]
[instance.schedule]
time_zone = "America/New_York"
windows = ["mon-fri 09:30-16:00", "sun 18:00-02:00"]
[[instance]]
name = "hedger"
plugin = "two_sided"
account = "paper"
symbols = ["BTC-USDT"]
after = ["quoter"]
on_dependency_lost = "stop"
worker = { memory_mb = 300 }
schedule = { market_events = false, triggers = { flat = "3 16 * * mon-fri" } }
[[instance]]
name = "mine"
plugin = "external"
account = "paper"
symbols = ["BTC-USDT"]
isolation = "client"
client = { listen = "tcp://127.0.0.1:7710", curve = true, token = "env:MINE", on_loss = "keep" }
[[instance]]
name = "plain"
plugin = "two_sided"
account = "paper"
symbols = ["BTC-USDT"]
"""
SUNDAY_NS = int(datetime(2026, 11, 22, 4, tzinfo=UTC).timestamp()) * 1_000_000_000


def test_the_tables_say_how_and_when_each_instance_runs(tmp_path: Path) -> None:
    path = tmp_path / "tandem.toml"
    path.write_text(CONFIG)

    result = tandem("config", "check", "-c", path)

    assert result.exit_code == 0, result.output
    shown = " ".join(result.stdout.split())
    for words in (
        "code that blocks quarantine after 500 ms, the process ends after 10000 ms",
        "quoter two_sided paper BTC-USDT worker, group makers inventory_skew (worker) running",
        "plain two_sided paper BTC-USDT inline - running",
        "quoter worker, group makers 1000 ms, 300 MB, 0.5 of a core, 5 losses in 300 s, orders pull",
        "quoter/inventory_skew worker 70 ms, 512 MB, 5 losses in 300 s",
        "mine client 1000 ms, at tcp://127.0.0.1:7710 with curve, token env, orders keep",
        "quoter America/New_York mon-fri 09:30-16:00",
        "sun 18:00-02:00",
        "outside: pause",
        "flat: 3 16 * * mon-fri, next ",
        "no market events",
        "quoter; when lost: stop",
    ):
        assert words in shown
    schedules = result.stdout.partition("schedules")[2]
    assert "plain" not in schedules
    assert "mine" not in schedules
    [warning] = result.stderr.splitlines()
    assert warning.startswith(f"warning: {path}: instance[hedger].worker: has no effect: ")


def test_json_has_the_warnings_and_what_schedules_come_to(tmp_path: Path) -> None:
    path = tmp_path / "tandem.toml"
    path.write_text(CONFIG)

    answer = json.loads(tandem("config", "check", "-c", path, "--json").stdout)

    assert [one["key"] for one in answer["warnings"]] == ["instance[hedger].worker"]
    quoter, hedger = answer["schedules"]
    assert (quoter["instance"], hedger["instance"]) == ("quoter", "hedger")
    assert datetime.fromisoformat(quoter["until"]) > datetime.now(UTC)
    assert (hedger["is_open"], hedger["until"]) == (True, None)
    assert datetime.fromisoformat(hedger["triggers"]["flat"]).hour == 16


def test_without_workers_and_schedules_there_are_no_tables_of_them(tmp_path: Path) -> None:
    path = tmp_path / "tandem.toml"
    path.write_text(CONFIG[: CONFIG.index("[[instance]]")] + CONFIG[CONFIG.rindex("[[instance]]") :])

    result = tandem("config", "check", "-c", path)

    assert "plain" in result.stdout
    assert "workers and clients" not in result.stdout
    assert "schedules" not in result.stdout


def test_an_outlook_is_by_the_clock_of_its_zone(tmp_path: Path) -> None:
    path = tmp_path / "tandem.toml"
    path.write_text(CONFIG)

    quoter, hedger = outlooks(load_config(path, None, {}).config, SUNDAY_NS)

    assert quoter == Outlook("quoter", False, datetime(2026, 11, 22, 23, tzinfo=UTC), {})
    assert hedger == Outlook("hedger", True, None, {"flat": datetime(2026, 11, 23, 16, 3, tzinfo=UTC)})
