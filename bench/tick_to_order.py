"""Tick to order: frame bytes in, two signed order frames out, through everything a node does.

Reported as a ratio to the floor measured in turn with it: decode that frame, encode and sign two
orders, nothing else. Absolute times drift with the machine; the ratio holds.
"""

import argparse
import gc
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from bench.binance_wire import BenchAdapter, decode, encode, moving_frames, some_orders
from host.api import (
    AccountSnapshot,
    AmendOrder,
    Balance,
    FillsSnapshot,
    OpenOrdersSnapshot,
    OrderAccepted,
    OrderAmended,
    PlaceOrder,
)
from host.config import bundled_plugins
from host.core.risk_limits import Limits, RiskConfig, SelfTrade
from host.core.state import TradingState
from host.journal import Durability, Journal
from host.loader import Catalog, make
from host.runtime.clock import LiveClock
from host.runtime.engine import Engine, EngineSettings
from host.runtime.roster import InstanceSpec

SYMBOL = "BTC-USDT-PERP"
LIMITS = RiskConfig(
    node=Limits(
        max_daily_loss="5000 USDT",
        max_orders_per_second=100_000,
        max_open_orders=1000,
        max_data_age_ms=5000,
        price_collar_bps=200.0,
        self_trade=SelfTrade.REFUSE,
    ),
    instances={
        "quoter": Limits(
            max_order_qty=Decimal(1),
            max_order_notional=Decimal(100_000),
            max_position=Decimal(10),
            max_inventory_notional=Decimal(1_000_000),
        )
    },
)
"""Ten checks before each order, as a careful user would set them."""


class Rig:
    """A whole node but for the socket: `tick` takes a frame, `acknowledge` answers as the venue would."""

    def __init__(self, folder: Path, instances: int = 1, durability: Durability = "process") -> None:
        symbols = [SYMBOL, *(f"X{n}-USDT-PERP" for n in range(1, instances))]
        catalog = Catalog.load([bundled_plugins()], entry_points=False)
        self.clock = LiveClock()
        self.journal = Journal.open(folder, node="bench", durability=durability)
        self.engine = Engine(
            clock=self.clock,
            journal=self.journal,
            state=TradingState(),
            risk_config=LIMITS,
            settings=EngineSettings(snapshot_every=1 << 60, digest_every=1 << 60),
        )
        self.engine.start_epoch("bench", "main", 1, "bench")
        self.adapter = BenchAdapter(symbols)
        feed = self.engine.add_account("usdm", self.adapter, str(folder))
        self.engine.set_instruments("usdm", self.adapter.instruments, set(symbols))
        feed.follow(symbols)
        self.engine.start_reconciling("usdm")
        now_ns = self.clock.now_ns()
        feed.report(OpenOrdersSnapshot((), now_ns))
        feed.report(FillsSnapshot((), now_ns))
        balance = Balance("USDT", Decimal(100_000))
        feed.report(AccountSnapshot((balance,), (), now_ns))
        assert self.engine.reconciler.is_ready("usdm")
        self.feed = feed
        for index, symbol in enumerate(symbols):
            name = "quoter" if index == 0 else f"quoter-{index}"
            offer, model = catalog.strategy("two_sided"), catalog.model("inventory_skew")
            strategy = make(offer, {"half_spread_bps": 5.0, "size": "0.010"}, instance=name)
            spec = InstanceSpec(
                name=name,
                account="usdm",
                symbols=(symbol,),
                plugin="two_sided",
                digest=offer.version.digest,
                params_json=b"{}",
                tolerance_bps=0.0,
            )
            models = [("inventory_skew", make(model, {}, instance=name))]
            roster = self.engine.roster
            roster.start(roster.add(spec, strategy, models, feed.spawn))
        self.engine.upkeep.on_time(self.clock.now_ns())
        self.adapter.sent.clear()

    def tick(self, frame: bytes) -> None:
        """Take one frame; the orders it leads to are in `adapter.sent` when this returns."""
        self.adapter.on_frame(frame, SYMBOL)

    def acknowledge(self) -> int:
        """Answer every command as the venue would, and return how many there were."""
        sent, self.adapter.sent = self.adapter.sent, []
        for command, _ in sent:
            now_ns = self.clock.now_ns()
            if isinstance(command, PlaceOrder):
                self.feed.report(OrderAccepted(command.client_id, "8886774", now_ns))
            elif isinstance(command, AmendOrder):
                self.feed.report(OrderAmended(command.client_id, command.price, command.qty, now_ns))
        return len(sent)


def floor_once(frame: bytes, orders: tuple[AmendOrder, AmendOrder]) -> None:
    """Do what no client can leave out."""
    decode(frame, SYMBOL, time.time_ns())
    for order in orders:
        encode(order, "BTCUSDT", 2000, time.time_ns() // 1_000_000)


def measure(rig: Rig, ticks: int, gap_s: float) -> tuple[list[int], list[int]]:
    """Return the durations of `ticks` ticks and of as many floors, measured in turn, in ns."""
    frames = moving_frames(ticks + 50)
    orders = some_orders()
    taken: list[int] = []
    floors: list[int] = []
    now = time.perf_counter_ns
    for index, frame in enumerate(frames):
        if gap_s:
            time.sleep(gap_s)
        started = now()
        rig.tick(frame)
        ended = rig.adapter.sent_at_ns
        sent = rig.acknowledge()
        if gap_s:
            time.sleep(gap_s)
        floor_started = now()
        floor_once(frame, orders)
        floor_ended = now()
        # Now and then the model widens the quotes just as far as the market moved, and one of them stays.
        if index >= 50 and sent == 2:
            taken.append(ended - started)
            floors.append(floor_ended - floor_started)
    if len(taken) < ticks * 0.9:
        raise AssertionError(f"ticks must lead to two orders, {len(taken)} of {ticks} did")
    return taken, floors


def quantile(values: list[int], fraction: float) -> float:
    """Return a quantile in µs."""
    ordered = sorted(values)
    return ordered[min(int(len(ordered) * fraction), len(ordered) - 1)] / 1e3


@contextmanager
def heap_of(objects: int) -> Iterator[None]:
    """Hold so many live, collectable objects, such as order history would be."""
    history = [[index, {}] for index in range(objects // 2)]
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()
    del history


def run_case(ticks: int, gap_s: float, instances: int = 1, objects: int = 0) -> dict[str, float]:
    """Measure one setting in a fresh node and return its figures in µs."""
    with tempfile.TemporaryDirectory() as folder, heap_of(objects):
        rig = Rig(Path(folder), instances)
        gc.collect()
        gc.freeze()
        taken, floors = measure(rig, ticks, gap_s)
        gc.unfreeze()
        rig.journal.close()
    p50, floor = quantile(taken, 0.5), quantile(floors, 0.5)
    return {
        "p50_us": round(p50, 2),
        "p99_us": round(quantile(taken, 0.99), 2),
        "floor_p50_us": round(floor, 2),
        "ratio_p50": round(p50 / floor, 3),
        "p99_over_p50": round(quantile(taken, 0.99) / p50, 2),
        "floor_p99_over_p50": round(quantile(floors, 0.99) / floor, 2),
    }


def stages(ticks: int) -> dict[str, float]:
    """Return what each stage takes, in µs per tick: time inside it less time inside stages it calls."""
    from bench.stages import StageClock

    with tempfile.TemporaryDirectory() as folder:
        rig = Rig(Path(folder))
        with StageClock(rig) as clock:
            for frame in moving_frames(ticks):
                clock.tick(frame)
                rig.acknowledge()
        rig.journal.close()
        return clock.result()


CASES: dict[str, Callable[[int], dict[str, Any]]] = {
    "hot loop": lambda ticks: run_case(ticks, 0.0),
    "0.7 ms gaps": lambda ticks: run_case(min(ticks, 2000), 0.0007),
    "hot, 200 instances": lambda ticks: run_case(ticks, 0.0, instances=200),
    "hot, 1 M objects": lambda ticks: run_case(ticks, 0.0, objects=1_000_000),
}


def main() -> None:
    """Run all cases `--runs` times in turn and report the medians."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--ticks", type=int, default=5000)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    results: dict[str, list[dict[str, Any]]] = {name: [] for name in CASES}
    for _ in range(args.runs):
        for name, case in CASES.items():
            results[name].append(case(args.ticks))
            print(f"{name}: {results[name][-1]}", file=sys.stderr)
    medians = {
        name: {key: statistics.median(run[key] for run in runs) for key in runs[0]}
        for name, runs in results.items()
    }
    per_stage = stages(args.ticks)
    if args.json:
        print(json.dumps({**medians["hot loop"], "stages": per_stage, "cases": medians}))
        return
    console = Console()
    table = Table(title=f"tick to two orders, median of {args.runs} runs of {args.ticks} ticks")
    table.add_column("case")
    for column in next(iter(medians.values())):
        table.add_column(column, justify="right")
    for name, row in medians.items():
        table.add_row(name, *(f"{value:g}" for value in row.values()))
    console.print(table)
    table = Table(title="stages, µs per tick (with the cost of measuring them)")
    table.add_column("stage")
    table.add_column("µs", justify="right")
    for name, value in per_stage.items():
        table.add_row(name, f"{value:.2f}")
    console.print(table)


if __name__ == "__main__":
    main()
