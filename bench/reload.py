"""From a saved file to its first live event, in a whole node that quotes a synthetic market.

Each round renames a new version of a strategy over the old one and waits until the new code has
handled a live event. The stages are those of the journal. `loop held` is how long messages that come
in every millisecond wait for the event loop while a reload is under way, beside how long they do without
one; what the loop's thread spent waiting for a processor that others had is taken off, because it says
nothing of the host. `longest in a reload` is the worst of each reload.
"""

import argparse
import array
import asyncio
import gc
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, NamedTuple, Self

import uvloop
from rich.console import Console
from rich.table import Table

from host.assembly import Assembly
from host.config import AccountSection, InstanceSection, NodeConfig, NodeSection, RunOptions, StoreSection
from host.core.entries import StageReported
from host.core.state import TradingState
from host.journal import Journal, read
from host.reloading import Reloading
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
SENDER = """
import os, time
while True:
    os.write(1, time.perf_counter_ns().to_bytes(8, "little"))
    time.sleep(0.001)
"""
SHOWN = ("capture", "validate", "restore", "warm_up", "swap")


class Heartbeat:
    """Notes how long each of many messages waited in its pipe for the event loop; a context manager.

    Another process sends them, because nothing in this one tells the time while the loop is held.
    """

    def __init__(self) -> None:
        self.late_ms: list[float] = []
        self._sender = subprocess.Popen([sys.executable, "-c", SENDER], stdout=subprocess.PIPE)
        self._waited_ns = _waited_ns()

    def __enter__(self) -> Self:
        asyncio.get_running_loop().add_reader(self._messages, self._receive)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        asyncio.get_running_loop().remove_reader(self._messages)
        self._sender.kill()
        self._sender.wait()

    def take(self) -> list[float]:
        """Return what was noted since the last call."""
        taken, self.late_ms = self.late_ms, []
        return taken

    @property
    def _messages(self) -> IO[bytes]:
        assert self._sender.stdout is not None
        return self._sender.stdout

    def _receive(self) -> None:
        now_ns, waited_ns = time.perf_counter_ns(), _waited_ns()
        elsewhere_ns, self._waited_ns = waited_ns - self._waited_ns, waited_ns
        sent = array.array("q", os.read(self._messages.fileno(), 1 << 12))
        self.late_ms += [max(now_ns - sent_ns - elsewhere_ns, 0) / 1e6 for sent_ns in sent]


def _waited_ns() -> int:
    """Return how long this thread was ready to run and had no processor, ever; 0 where nobody counts."""
    try:
        return int(Path("/proc/thread-self/schedstat").read_bytes().split()[1])
    except FileNotFoundError:
        return 0


def save(path: Path, version: int) -> None:
    """Replace the plugin's file as editors and deploys do: write beside it, rename over it."""
    beside = path.with_suffix(".new")
    beside.write_text(STRATEGY.replace("VERSION", str(version)))
    beside.rename(path)


class Measured(NamedTuple):
    """All in ms: from the rename to the first event, lateness in reloads and between them, stages."""

    taken: list[float]
    held: list[float]
    longest: list[float]
    quiet: list[float]
    stages: dict[str, list[float]]


async def measure(folder: Path, rounds: int) -> Measured:
    """Reload so many times."""
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
    gc.collect()
    gc.freeze()  # as a node does before it loads its plugins
    reloading = await Reloading.load(config, engine, None)
    assembly = Assembly(config, RunOptions(), engine, lambda: reloading.catalog)
    await assembly.connect()
    await assembly.take_up()
    driver = LiveDriver(engine, clock, engine.stepped)
    await driver.run(lambda: engine.reconciler.is_ready("paper"))
    assembly.start_instances()
    reloading.start(assembly)
    driving = asyncio.ensure_future(driver.run(lambda: False))
    instance = engine.roster.instances["mm"]
    taken, held, longest, quiet = list[float](), list[float](), list[float](), list[float]()
    try:
        with Heartbeat() as heartbeat:
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
                late = heartbeat.take()
                held += late
                longest.append(max(late, default=0.0))
    finally:
        gc.unfreeze()
        driving.cancel()
        await asyncio.gather(driving, return_exceptions=True)
        await reloading.close()
        for feed in engine.feeds.values():
            await feed.close()
        journal.close()
    stages: dict[str, list[float]] = {}
    for record in read(config.journal_dir):
        if isinstance(record.entry, StageReported):
            stages.setdefault(record.entry.stage, []).append(record.entry.duration_us / 1e3)
    return Measured(taken, held, longest, quiet, {name: stages[name] for name in SHOWN if name in stages})


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
        measured = runner.run(measure(Path(folder), args.runs))
    result = {
        "save_to_live_ms": quantiles(measured.taken),
        "loop_held_ms": quantiles(measured.held),
        "loop_held_longest_ms": quantiles(measured.longest),
        "loop_held_without_reload_ms": quantiles(measured.quiet),
        "stages": {name: quantiles(values) for name, values in measured.stages.items()},
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
        "  longest in a reload": result["loop_held_longest_ms"],
        "loop held without one": result["loop_held_without_reload_ms"],
    }
    for name, row in rows.items():
        table.add_row(name, f"{row['p50']:g}", f"{row['p99']:g}")
    Console(file=sys.stdout).print(table)


if __name__ == "__main__":
    main()
