"""Every benchmark runs, in its smallest setting, and prints the keys that are documented for it."""

import gzip
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

REPO = Path(__file__).parents[2]
QUOTES = 1_000
"""In the recording that these tests make; it has a depth snapshot and ten trades besides."""
EVENTS = QUOTES + 11


@pytest.fixture(scope="module")
def marketdata(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with one small recording: quotes every 10 ms around a wandering price."""
    folder = tmp_path_factory.mktemp("marketdata")
    terms = {"type": "spot", "base": "XYZ", "quote": "USDT", "price_tick": "0.1", "qty_step": "0.01"}
    (folder / "instruments.json").write_text(json.dumps({"binance_spot:XYZUSDT": terms}))
    recording = folder / "binance_spot_XYZUSDT_20240101"
    recording.mkdir()
    quotes, trades = [], []
    for index in range(QUOTES):
        seq, ns, bid = 2 * index + 2, 1_000_000_000 + index * 10_000_000, 1000.0 + abs(index % 40 - 20) / 10
        quotes.append(f"{seq},,{ns},XYZUSDT,{bid:.1f},3,{bid + 0.1:.1f},4,{seq}")
        if index % 100 == 50:
            trades.append(f"{seq + 1},{ns},{ns},XYZUSDT,{bid + 0.1:.1f},0.5,buy,{index},MARKET")
    level = "1,,1000000000,XYZUSDT,1,1,1,"
    depth = [f"{level},bid,1000.0,3", f"{level},ask,1000.1,4"]
    clock = "seq,ts_exchange_ns,ts_recv_ns,symbol,"
    _write(recording / "quotes.csv.gz", clock + "bid_px,bid_qty,ask_px,ask_qty,update_id", quotes)
    _write(recording / "trades.csv.gz", clock + "price,qty,side,trade_id,kind", trades)
    ids = "is_snapshot,first_update_id,last_update_id,prev_update_id"
    _write(recording / "depth.csv.gz", f"{clock}{ids},side,price,qty", depth)
    return folder


def _write(path: Path, header: str, lines: list[str]) -> None:
    path.write_bytes(gzip.compress("\n".join([header, *lines, ""]).encode()))


def run(
    *arguments: str, marketdata: Path | None = None, patience_s: float = 60.0
) -> "subprocess.CompletedProcess[str]":
    environ = {**os.environ, "TANDEM_MARKETDATA": str(marketdata)}
    command = [sys.executable, *arguments]
    return subprocess.run(
        command, cwd=REPO, env=environ, capture_output=True, text=True, timeout=patience_s, check=False
    )


def result(*arguments: str, marketdata: Path | None = None, patience_s: float = 60.0) -> Mapping[str, Any]:
    done = run(*arguments, "--json", marketdata=marketdata, patience_s=patience_s)
    assert done.returncode == 0, done.stderr
    found: Mapping[str, Any] = json.loads(done.stdout)
    return found


def test_tick_to_order_compares_with_its_floor() -> None:
    found = result("bench/tick_to_order.py", "--runs", "1", "--ticks", "50")
    assert found.keys() >= {"p50_us", "p99_us", "floor_p50_us", "ratio_p50", "stages"}
    assert found["ratio_p50"] > 1.0
    assert found["stages"]["journal"] > 0.0


def test_reload_times_a_saved_file_until_its_first_event() -> None:
    found = result("bench/reload.py", "--runs", "3")
    assert 0 < found["save_to_live_ms"]["p50"] <= found["save_to_live_ms"]["p99"]
    assert found["loop_held_ms"]["p99"] > 0
    assert list(found["stages"]) == ["capture", "validate", "restore", "warm_up", "swap"]


def test_replay_compares_with_reading_the_recording_alone(marketdata: Path) -> None:
    found = result("bench/replay.py", "--runs", "1", marketdata=marketdata)
    assert found.keys() >= {"events_per_s", "rss_mb"}
    assert found["events_per_s"] > 0.0 and found["rss_mb"] > 0.0
    (row,) = found["recordings"].values()
    assert row["events"] == EVENTS
    assert row["orders"] > 2
    assert 0.0 < row["of_reading"] < 1.0


def test_replay_of_every_tick_amends_two_quotes_with_each(marketdata: Path) -> None:
    found = result("bench/replay.py", "--seconds", "0.1", "--every-tick", marketdata=marketdata)
    (row,) = found["recordings"].values()
    # The first quote starts the node and the second leads to orders, not amends.
    assert row["ticks_amended_per_s"] * row["wall_s"] == pytest.approx(QUOTES, rel=0.02)


def test_replay_plays_a_recording_again_until_enough_events_have_passed(marketdata: Path) -> None:
    found = result("bench/replay.py", "--events", str(EVENTS + 1), marketdata=marketdata)
    assert found["events"] == 2 * EVENTS
    assert found["rss_mb_by_events"] == []  # nothing reached a million


def test_replay_shows_people_a_table(marketdata: Path) -> None:
    done = run("bench/replay.py", "--runs", "1", marketdata=marketdata)
    assert done.returncode == 0, done.stderr
    assert "binance_spot_XYZUSDT_20240101" in done.stdout
    assert "events/s over all" in done.stdout


def test_replay_without_recordings_says_where_it_looked(tmp_path: Path) -> None:
    done = run("bench/replay.py", marketdata=tmp_path)
    assert done.returncode == 1
    assert str(tmp_path) in done.stderr and "TANDEM_MARKETDATA" in done.stderr


def test_control_compares_calls_with_an_echo_and_trading_with_and_without_watchers() -> None:
    smallest = ("--runs", "1", "--rounds", "20", "--seconds", "0.3", "--entries", "1000")
    found = result("-m", "bench.control", *smallest)
    assert found.keys() >= {"unary_us", "echo_us", "ratio_p50", "watch_msgs_per_s", "tick_to_order_ratio_p99"}
    assert 0 < found["unary_us"]["p50"] <= found["unary_us"]["p99"]
    assert found["watch_msgs_per_s"] > 0


def test_replication_compares_acknowledgements_with_a_bare_stream_and_catches_up() -> None:
    found = result("-m", "bench.replication", "--runs", "1", "--seconds", "0.05", "--entries", "3000")
    assert found.keys() >= {"ack_us", "pingpong_us", "ratio_p50", "ratio_p99", "catchup_entries_per_s"}
    assert 0 < found["ack_us"]["p50"] <= found["ack_us"]["p99"]
    assert 0 < found["pingpong_us"]["p50"] <= found["pingpong_us"]["p99"]
    assert found["catchup_entries_per_s"] > 0


def test_failover_is_timed_and_judged_by_the_venue() -> None:
    found = result("bench/failover.py", "--runs", "1", "--kind", "crash")
    assert found["crash_ms"]["runs"] == 1
    assert 0 < found["crash_ms"]["p50"] <= found["crash_ms"]["max"]
    assert (found["lost"], found["doubled"], found["stale_accepted"]) == (0, 0, 0)


def test_waiting_for_a_standby_is_compared_with_not_waiting() -> None:
    found = result("-m", "bench.durability", "--runs", "1", "--ticks", "50")
    assert found.keys() >= {"process_us", "replica_us", "ratio_p50", "ratio_p99", "ticks"}
    assert 0 < found["process_us"]["p50"] < found["replica_us"]["p50"], "it takes the way to another process"


@pytest.mark.timeout(280)
def test_wire_to_wire_compares_with_a_bare_answer_of_the_same_process() -> None:
    found = result("bench/wire_to_wire.py", "--runs", "1", "--orders", "100", patience_s=240.0)
    assert found.keys() >= {"first_order_us", "pingpong_us", "ratio_p50", "ratio_p99"}
    assert 0 < found["pingpong_us"]["p50"] < found["first_order_us"]["p50"], "it does more than answer"
    assert found["in_node_us"]["p50"] > 0
    assert found["open_orders"] == 0


def test_strategies_outside_are_compared_with_a_bare_ping_pong_and_lose_nothing() -> None:
    found = result("bench/isolation.py", "--seconds", "1")
    assert found.keys() >= {"inline_us", "process_us", "client_us", "pingpong_us", "ratio_p50", "msgs_per_s"}
    for kind in ("inline", "process", "client", "process_out", "client_out", "pingpong"):
        assert 0 < found[f"{kind}_us"]["p50"] <= found[f"{kind}_us"]["p99"]
    assert found["process_us"]["p50"] < found["process_out_us"]["p50"], "risk and journal come after"
    assert found["lost"] == 0
    assert found["msgs_per_s"] > 0


def test_neighbours_of_what_misbehaves_are_compared_with_themselves() -> None:
    found = result("bench/isolation.py", "--seconds", "0.4", "--faulty", "killed", "flood of turns")["faulty"]
    assert list(found) == ["killed", "flood of turns"]
    for row in found.values():
        assert 0 < row["p50_us"] <= row["p99_us"]
        assert row["ratio_p99"] == pytest.approx(row["p99_us"] / row["quiet_p99_us"], rel=0.1, abs=0.01)
    assert found["killed"]["found_ms"] > 0
