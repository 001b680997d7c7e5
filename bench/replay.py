"""Recorded events per second through a quoting node: what `tandem run --replay --speed max` does.

Each run is measured in turn with reading the same recording and doing nothing with it, because
speeds drift with the machine: `of_reading` says how much of that pace is left. `--every-tick` moves
two quotes with each tick, at a venue that answers at once; `--events N` plays one recording over
and over and shows the memory in use at every million events.
"""

import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parents[1])  # not this folder: its failover.py is no package

import argparse
import json
import os
import resource
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.table import Table

from host import node
from host.api import MarketEvent
from host.config import RunOptions, replay_config
from host.runtime.report import RunReport
from venue.recording import Recording

REPO = Path(__file__).resolve().parents[1]
MARKETDATA = Path(os.environ.get("TANDEM_MARKETDATA", REPO.parent / "shared" / "marketdata"))
SERIES_STEP = 1_000_000

EVERY_TICK = {
    "TANDEM__NODE__PLUGIN_DIRS": json.dumps([str(REPO / "bench" / "plugins")]),
    "TANDEM__INSTANCE__TWO_SIDED__PLUGIN": "every_tick",
    "TANDEM__INSTANCE__TWO_SIDED__QUOTE_TOLERANCE_BPS": "0",
    # An order that waits for an answer is not amended again; these answers come before the next tick.
    "TANDEM__ACCOUNT__PAPER__PARAMS__LATENCY_MS": "0",
    "TANDEM__ACCOUNT__PAPER__PARAMS__JITTER_MS": "0",
}


def recordings(names: list[str]) -> list[Path]:
    """Return the recordings of these names, or all there are; exit with a reason when there are none."""
    known = sorted(path.parent for path in MARKETDATA.glob("*/quotes.csv.gz"))
    chosen = [path for path in known if not names or path.name in names]
    if not known:
        sys.exit(f"no recordings in {MARKETDATA}; set TANDEM_MARKETDATA to a folder that holds some")
    if len(chosen) < len(names):
        sys.exit(f"{MARKETDATA} holds {', '.join(path.name for path in known)}, was asked for {names}")
    return chosen


def read_alone(path: Path) -> tuple[int, float]:
    """Return how many events a recording has, and how many are read per second."""
    started = time.perf_counter()
    count = sum(1 for _ in Recording.open(path).events())
    return count, count / (time.perf_counter() - started)


def play(path: Path, variables: Mapping[str, str]) -> RunReport:
    """Run a node over a recording in a fresh folder and without a store, as the command does."""
    with tempfile.TemporaryDirectory(prefix="tandem-bench-") as folder:
        settings = {"TANDEM__NODE__DATA_DIR": folder, "TANDEM__STORE__URL": "", **variables}
        config = replay_config(path, Recording.open(path).symbol, settings)
        return node.run(config, RunOptions(replay=path, speed=None))


def resident_mb() -> float:
    """Return the memory that this process has in use now (Linux)."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return round(pages * resource.getpagesize() / 1e6, 1)


def peak_mb() -> float:
    """Return the most memory that this process has had in use."""
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6, 1)


@contextmanager
def every_million(note: Callable[[int], None]) -> Iterator[None]:
    """While entered, call `note` with the count of events read, at every million of them."""
    original = Recording.events

    def counted(self: Recording) -> Iterator[MarketEvent]:
        for count, event in enumerate(original(self), 1):
            yield event
            if count % SERIES_STEP == 0:
                note(count)

    Recording.events = counted  # type: ignore[method-assign]
    try:
        yield
    finally:
        Recording.events = original  # type: ignore[method-assign]


def measure(path: Path, variables: Mapping[str, str]) -> dict[str, float]:
    """Read a recording, then run a node over it."""
    _, reading_per_s = read_alone(path)
    report = play(path, variables)
    wall_s = report.events / report.events_per_s
    return {
        "events": report.events,
        "orders": report.orders + report.amends + report.cancels,
        "wall_s": wall_s,
        "events_per_s": report.events_per_s,
        "ticks_amended_per_s": round(report.amends / 2 / wall_s, 1),
        "reading_per_s": round(reading_per_s, 1),
        "of_reading": round(report.events_per_s / reading_per_s, 3),
    }


def speed(paths: list[Path], args: argparse.Namespace) -> dict[str, Any]:
    """Measure all recordings in turn, `--runs` times or for `--seconds`."""
    variables = EVERY_TICK if args.every_tick else {}
    runs: dict[str, list[dict[str, float]]] = {path.name: [] for path in paths}
    started, turn = time.monotonic(), 0
    while turn < args.runs if args.seconds is None else time.monotonic() - started < args.seconds:
        turn += 1
        for path in paths:
            runs[path.name].append(measure(path, variables))
            print(f"{path.name}: {runs[path.name][-1]}", file=sys.stderr)
    rows = {
        name: {key: statistics.median(run[key] for run in results) for key in results[0]}
        for name, results in runs.items()
    }
    wall_s = sum(row["wall_s"] for row in rows.values())
    return {
        "events_per_s": round(sum(row["events"] for row in rows.values()) / wall_s, 1),
        "rss_mb": peak_mb(),
        "recordings": rows,
    }


def memory(path: Path, args: argparse.Namespace) -> dict[str, Any]:
    """Play one recording until so many events have passed, and note the memory on the way."""
    count, _ = read_alone(path)
    variables = dict(EVERY_TICK if args.every_tick else {})
    variables["TANDEM__ACCOUNT__PAPER__PARAMS__REPEAT"] = str(-(-args.events // count))
    series: list[tuple[int, float]] = []

    def note(events: int) -> None:
        series.append((events, resident_mb()))
        print(f"{events:,} events: {series[-1][1]} MB", file=sys.stderr)

    with every_million(note):
        report = play(path, variables)
    return {
        "events_per_s": report.events_per_s,
        "rss_mb": peak_mb(),
        "events": report.events,
        "journal_entries": report.journal.entries,
        "rss_mb_by_events": series,
    }


def print_speed(result: Mapping[str, Any], runs: str) -> None:
    """Print what `speed` found, for people."""
    table = Table(title=f"events per second through a quoting node, medians of {runs}")
    table.add_column("recording", no_wrap=True)
    rows: Mapping[str, Mapping[str, float]] = result["recordings"]
    for column in next(iter(rows.values())):
        table.add_column(column, justify="right")
    for name, row in rows.items():
        table.add_row(name, *(f"{value:,.3g}" if value < 100 else f"{value:,.0f}" for value in row.values()))
    Console(width=150).print(table)
    print(f"{result['events_per_s']:,.0f} events/s over all of them, at most {result['rss_mb']} MB of memory")


def print_memory(result: Mapping[str, Any]) -> None:
    """Print what `memory` found, for people."""
    table = Table(title=f"memory in use over {result['events']:,} events")
    table.add_column("events", justify="right")
    table.add_column("MB", justify="right")
    for events, megabytes in result["rss_mb_by_events"]:
        table.add_row(f"{events:,}", f"{megabytes:.1f}")
    Console().print(table)
    print(f"{result['events_per_s']:,.0f} events/s, {result['journal_entries']:,} journal entries")


def main() -> None:
    """Measure speed, or with `--events` memory."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=3, help="how often each recording is played")
    parser.add_argument("--seconds", type=float, help="play them again until this is over, instead of --runs")
    parser.add_argument("--recording", action="append", default=[], metavar="NAME", help="default: all")
    parser.add_argument("--every-tick", action="store_true", help="each tick amends two quotes")
    parser.add_argument("--events", type=int, help="play one recording until so many events have passed")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    paths = recordings(args.recording)
    result = speed(paths, args) if args.events is None else memory(paths[0], args)
    if args.json:
        print(json.dumps(result))
    elif args.events is not None:
        print_memory(result)
    else:
        print_speed(result, f"{args.runs} runs" if args.seconds is None else f"{args.seconds:g} s")


if __name__ == "__main__":
    main()
