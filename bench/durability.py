"""What it costs that a standby holds each order before it is sent: tick to order with durability `replica`.

The same node twice, in one process and in turn, A B A B: one whose orders leave once they are written here, and
one whose orders wait until a standby, in a process of its own over loopback, has written them too. Ticks come at a
pace; the time is from the frame to the second of its two orders at the adapter.
"""

import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parents[1])  # not this folder: its failover.py is no package

import argparse
import asyncio
import json
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from time import perf_counter_ns
from typing import Any, Final

import uvloop
from rich.console import Console
from rich.table import Table

from bench.binance_wire import moving_frames
from bench.tick_to_order import Rig, quantile
from failover.clock import boottime_ns
from failover.replication import (
    DurabilitySettings,
    Mode,
    Replica,
    ReplicaDurability,
    ReplicationClient,
    ReplicationServer,
    history_of,
)

REPO: Final = Path(__file__).parents[1]
GAP_S: Final = 0.001
WARM_UP: Final = 50


async def stand_by(folder: Path, address: str) -> None:
    """Follow `address` until standard input ends."""
    replica = Replica.open(folder, node="b", cell="main")
    client = ReplicationClient(replica, [address], "bench", lambda _event: None)
    client.start()
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    await client.stop()
    replica.close()


@contextmanager
def standby_process(folder: Path, address: str) -> Iterator[None]:
    """Run a standby in a process of its own."""
    command = [sys.executable, "-m", "bench.durability", "--standby", str(folder), address]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, cwd=REPO)
    try:
        yield
    finally:
        assert process.stdin is not None
        process.stdin.close()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


async def ticks(rig: Rig, frames: Sequence[bytes]) -> list[int]:
    """Return the nanoseconds from each of these frames to its second order."""
    taken: list[int] = []
    for index, frame in enumerate(frames):
        await asyncio.sleep(GAP_S)
        started_ns = perf_counter_ns()
        rig.tick(frame)
        while rig.engine.oms.outbox.waiting:
            await asyncio.sleep(0)
        ended_ns = rig.adapter.sent_at_ns
        # Now and then the model widens the quotes just as far as the market moved, and one of them stays.
        if rig.acknowledge() == 2 and index >= WARM_UP:
            taken.append(ended_ns - started_ns)
    if len(taken) < (len(frames) - WARM_UP) * 0.9:
        raise AssertionError(f"ticks must lead to two orders, {len(taken)} of {len(frames) - WARM_UP} did")
    return taken


async def measure(folder: Path, runs: int, per_run: int) -> dict[str, Any]:
    """Measure both in turn."""
    plain = Rig(folder / "plain")
    held = Rig(folder / "held", durability="replica")
    journal = held.journal
    journal.on_durable(lambda _lsn: held.engine.release_durable())
    durability = ReplicaDurability(DurabilitySettings(), journal.flushed_lsn, boottime_ns())
    server = ReplicationServer("bench", "main", lambda _event: None)
    server.lead(journal, history_of(journal), 1, durability)
    address = f"127.0.0.1:{await server.start('127.0.0.1:0')}"
    found: dict[str, list[int]] = {"process": [], "replica": []}
    try:
        with standby_process(folder / "b", address):
            async with asyncio.timeout(60):
                while durability.mode is not Mode.REPLICA or not durability.counting:
                    await asyncio.sleep(0.01)
            frames, turn = moving_frames(runs * (per_run + WARM_UP)), per_run + WARM_UP
            for start in range(0, runs * turn, turn):
                found["process"] += await ticks(plain, frames[start : start + turn])
                found["replica"] += await ticks(held, frames[start : start + turn])
                if durability.mode is not Mode.REPLICA:
                    raise AssertionError(f"the standby did not keep up: durability is {durability.mode}")
    finally:
        await server.close()
        plain.journal.close()
        journal.close()
    us = {name: {"p50": quantile(times, 0.5), "p99": quantile(times, 0.99)} for name, times in found.items()}
    return {
        "process_us": us["process"],
        "replica_us": us["replica"],
        "ratio_p50": round(us["replica"]["p50"] / us["process"]["p50"], 2),
        "ratio_p99": round(us["replica"]["p99"] / us["process"]["p99"], 2),
        "ticks": len(found["replica"]),
    }


def main() -> None:
    """Run the benchmark, or the standby's part of it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=10, help="turns of each kind")
    parser.add_argument("--ticks", type=int, default=1000, help="ticks in a turn")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--standby", nargs=2, metavar=("FOLDER", "ADDRESS"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    uvloop.install()
    if options.standby:
        asyncio.run(stand_by(Path(options.standby[0]), options.standby[1]))
        return
    with tempfile.TemporaryDirectory(prefix="tandem-bench-") as folder:
        found = asyncio.run(measure(Path(folder), options.runs, options.ticks))
    if options.json:
        print(json.dumps(found))
        return
    table = Table(title=f"tick to order, {found['ticks']} ticks of each kind, one each millisecond")
    for column in ("durability", "p50 µs", "p99 µs"):
        table.add_column(column, justify="left" if column == "durability" else "right")
    for name in ("process", "replica"):
        times = found[f"{name}_us"]
        table.add_row(name, f"{times['p50']:.1f}", f"{times['p99']:.1f}")
    table.add_row("ratio", f"{found['ratio_p50']:.2f}", f"{found['ratio_p99']:.2f}")
    Console().print(table)


if __name__ == "__main__":
    main()
