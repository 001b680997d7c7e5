"""From a saved file to its first live event, in a whole node that quotes a synthetic market.

Each round renames a new version of a strategy over the old one and waits until the new code has
handled a live event. The stages are those of the journal; `loop held` is how late a task that wakes
every millisecond was while a reload was under way, beside how late it is without one.
"""

import argparse
import asyncio
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import uvloop
from rich.console import Console
from rich.table import Table

from host.assembly import Assembly
from host.config import AccountSection, InstanceSection, NodeConfig, NodeSection, RunOptions, StoreSection
from host.core.entries import StageReported
from host.core.state import TradingState
from host.journal import Journal, read
from host.reloading import Reloading, load_catalog
from host.runtime.clock import LiveClock
from host.runtime.driver import LiveDriver
from host.runtime.engine import Engine, EngineSettings

STRATEGY = '''
"""A market maker that says when it handled its first live event."""

import time
from decimal import Decimal

from host.api import BookTop, NoParams, Quote, State, Strategy


class MakerState(State):
    events: int = 0


class Maker(Strategy[NoParams]):
    state: MakerState
    version = VERSION
    handled_ns = 0

    def on_book(self, book: BookTop) -> None:
        self.state.events += 1
        self.handled_ns = time.perf_counter_ns()
        self.quote(book.symbol, Quote.around(book.mid, 5.0, Decimal("0.01")))
'''
WAIT_S = 10.0
TICK_S = 0.001
SHOWN = ("capture", "validate", "restore", "warm_up", "swap")


class Heartbeat:
    """Wakes every millisecond and notes how late it was."""

    def __init__(self) -> None:
        self.late_ms: list[float] = []

    async def run(self) -> None:
        """Beat until cancelled."""
        while True:
            due = time.perf_counter() + TICK_S
            await asyncio.sleep(TICK_S)
            self.late_ms.append((time.perf_counter() - due) * 1e3)

    def take(self) -> list[float]:
        """Return what was noted since the last call."""
        taken, self.late_ms = self.late_ms, []
        return taken


def save(path: Path, version: int) -> None:
    """Replace the plugin's file as editors and deploys do: write beside it, rename over it."""
    beside = path.with_suffix(".new")
    beside.write_text(STRATEGY.replace("VERSION", str(version)))
    beside.rename(path)


async def measure(
    folder: Path, rounds: int
) -> tuple[list[float], list[float], list[float], dict[str, list[float]]]:
    """Return ms per round, lateness during reloads, lateness between them, and ms per stage."""
    plugins = folder / "plugins"
    plugins.mkdir()
    path = plugins / "maker.py"
    save(path, 0)
    config = NodeConfig(
        node=NodeSection(
            name="bench", data_dir=folder, plugin_dirs=(plugins,), probation_s=0.05, probation_events=20
        ),
        account=(AccountSection(name="paper", exchange="paper"),),
        instance=(InstanceSection(name="mm", plugin="maker", account="paper", symbols=("BTC-USDT",)),),
        store=StoreSection(url=""),
    )
    clock = LiveClock()
    journal = Journal.open(config.journal_dir, node="bench")
    engine = Engine(
        clock=clock,
        journal=journal,
        state=TradingState(),
        risk_config=config.risk.limits,
        settings=EngineSettings(),
    )
    engine.start_epoch("bench", "main", 1, "bench")
    reloading = Reloading(config, engine, load_catalog(config, engine), None)
    assembly = Assembly(config, RunOptions(), engine, lambda: reloading.catalog)
    await assembly.connect()
    driver = LiveDriver(engine, clock, engine.stepped)
    await driver.run(lambda: engine.reconciler.is_ready("paper"))
    assembly.start_instances()
    reloading.start(assembly)
    driving = asyncio.ensure_future(driver.run(lambda: False))
    heartbeat = Heartbeat()
    beating = asyncio.ensure_future(heartbeat.run())
    instance = engine.roster.instances["mm"]
    taken, held, quiet = [], [], []
    try:
        for version in range(1, rounds + 1):
            await asyncio.sleep(0.3)  # the last one's probation, and a stretch without a reload
            quiet += heartbeat.take()
            started_ns = time.perf_counter_ns()
            save(path, version)
            give_up = time.monotonic() + WAIT_S
            while getattr(instance.strategy, "version", 0) != version or not instance.strategy.handled_ns:
                if time.monotonic() > give_up:
                    raise TimeoutError(f"version {version} was not live within {WAIT_S:g} s")
                await asyncio.sleep(TICK_S)
            taken.append((instance.strategy.handled_ns - started_ns) / 1e6)
            held += heartbeat.take()
    finally:
        for task in (beating, driving):
            task.cancel()
        await asyncio.gather(beating, driving, return_exceptions=True)
        await reloading.close()
        for feed in engine.feeds.values():
            await feed.close()
        journal.close()
    stages: dict[str, list[float]] = {}
    for record in read(config.journal_dir):
        if isinstance(record.entry, StageReported):
            stages.setdefault(record.entry.stage, []).append(record.entry.duration_us / 1e3)
    return taken, held, quiet, {name: stages[name] for name in SHOWN if name in stages}


def quantiles(values: Sequence[float]) -> dict[str, float]:
    """Return p50 and p99."""
    ordered = sorted(values)
    return {
        "p50": round(statistics.median(ordered), 2),
        "p99": round(ordered[min(int(len(ordered) * 0.99), len(ordered) - 1)], 2),
    }


def main() -> None:
    """Reload `--runs` times and print one table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=100)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    with (
        tempfile.TemporaryDirectory(prefix="tandem-bench-") as folder,
        asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
    ):
        taken, held, quiet, stages = runner.run(measure(Path(folder), args.runs))
    result = {
        "save_to_live_ms": quantiles(taken),
        "loop_held_ms": quantiles(held),
        "loop_held_without_reload_ms": quantiles(quiet),
        "stages": {name: quantiles(values) for name, values in stages.items()},
    }
    if args.json:
        print(json.dumps(result))
        return
    table = Table(title=f"{args.runs} reloads of a quoting strategy, ms")
    for column in ("", "p50", "p99"):
        table.add_column(column, justify="left" if not column else "right")
    rows = {
        "rename → first live event": result["save_to_live_ms"],
        **{f"  {name}": row for name, row in result["stages"].items()},
        "loop held during a reload": result["loop_held_ms"],
        "loop held without one": result["loop_held_without_reload_ms"],
    }
    for name, row in rows.items():
        table.add_row(name, f"{row['p50']:g}", f"{row['p99']:g}")
    Console(file=sys.stdout).print(table)


if __name__ == "__main__":
    main()
