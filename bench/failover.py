"""How long nobody trades when a leader goes: from its last order at the venue to the first of the next.

Two real nodes, each under its guardian, quote two symbols at a venue server of their own; the lease is in a
SQLite file, the journal is replicated over loopback. At a random moment the leader's process is killed
(crash), or its guardian with it (machine loss: the lease has to run out), or told to hand over (switchover).
Times are the venue's: an order or an amend that it accepted. Of all that happened the venue's log and the
nodes' journals are compared: `lost` orders that no journal knows, `doubled` ones, and `stale_accepted` of a
leader that was deposed. The machine's other work shows in the times and must not show in these.
"""

import argparse
import json
import os
import random
import statistics
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Final

from msgspec import Struct
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

REPO: Final = Path(__file__).parents[1]
if __name__ == "__main__":
    sys.path.insert(0, os.fspath(REPO))  # the machinery of the fault tests is not installed

from tests.faults.machine import Machine  # noqa: E402
from tests.faults.pair_judge import Verdict  # noqa: E402
from tests.faults.pair_tools import TTL_MS, Cell  # noqa: E402

ORDERS_BETWEEN: Final = 30
"""How many orders the venue accepts between two faults, on average."""


class Kind(Struct, frozen=True):
    """One way for a leader to go. `heal` brings the machine back."""

    title: str
    strike: Callable[[Cell, Machine], object]
    heal: Callable[[Machine], object]


def _start_again(machine: Machine) -> None:
    """Start a machine anew, its guardian too: that of a node that died often would wait ever longer."""
    machine.end()
    machine.start()


KINDS: Final = {
    "crash_ms": Kind("crash, with guardian", lambda _cell, leader: leader.kill_node(), _start_again),
    "machine_loss_ms": Kind("machine loss", lambda _cell, leader: leader.lose(), Machine.start),
    "switchover_ms": Kind("switchover", lambda cell, leader: cell.switch_over(leader), lambda _machine: None),
}


def measure(kind: Kind, runs: int, ttl_ms: int, seed: int, step: Callable[[], object]) -> Verdict:
    """Let the leadership change `runs` times; return the judge's verdict on all of it."""
    chance = random.Random(seed)
    # Without the breaker: so many switches are not normal, and are what is asked for here.
    with (
        tempfile.TemporaryDirectory(prefix="tandem-failover-") as folder,
        Cell(Path(folder), ttl_ms=ttl_ms, seed=seed, failover="switch_limit = 1000") as cell,
    ):
        cell.start()
        for _ in range(runs):
            cell.until_traded(1 + int(chance.expovariate(1 / ORDERS_BETWEEN)))
            leader, epoch = cell.leader(), cell.tail.epoch
            kind.strike(cell, leader)
            cell.until_epoch_after(epoch)
            kind.heal(leader)
            cell.until_ready()
            step()
        return cell.judge()


def summary(verdict: Verdict) -> dict[str, float]:
    """Return the median and the worst of all switches in ms, and how many there were."""
    gaps = [switch.gap_ms for switch in verdict.switches]
    return {"p50": round(statistics.median(gaps), 1), "max": round(max(gaps), 1), "runs": len(gaps)}


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=30, help="of each kind")
    parser.add_argument("--kind", choices=[key.removesuffix("_ms") for key in KINDS], help="only this one")
    parser.add_argument("--ttl-ms", type=int, default=TTL_MS)
    parser.add_argument("--seed", type=int, default=1, help="decides the market and the moments")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()
    kinds = {key: kind for key, kind in KINDS.items() if options.kind in (None, key.removesuffix("_ms"))}
    verdicts: dict[str, Verdict] = {}
    with Progress(console=Console(stderr=True), transient=True) as progress:
        for key, kind in kinds.items():
            task = progress.add_task(kind.title, total=options.runs)
            verdicts[key] = measure(
                kind, options.runs, options.ttl_ms, options.seed, partial(progress.advance, task)
            )
    found: dict[str, Any] = {key: summary(verdict) for key, verdict in verdicts.items()}
    found["lost"] = sum(len(verdict.lost) for verdict in verdicts.values())
    found["doubled"] = sum(len(verdict.doubled) for verdict in verdicts.values())
    found["stale_accepted"] = sum(len(verdict.stale) for verdict in verdicts.values())
    found["ttl_ms"] = options.ttl_ms
    if options.json:
        print(json.dumps(found))
    else:
        show(found, verdicts)


def show(found: dict[str, Any], verdicts: dict[str, Verdict]) -> None:
    """Print a table for people, and each wrong."""
    table = Table(title=f"without an order, ttl {found['ttl_ms']} ms")
    for column in ("", "p50 ms", "p90 ms", "max ms", "runs"):
        table.add_column(column, justify="right")
    for key, verdict in verdicts.items():
        gaps = sorted(switch.gap_ms for switch in verdict.switches)
        p90 = gaps[int(len(gaps) * 0.9)] if gaps else 0.0
        of = found[key]
        table.add_row(KINDS[key].title, f"{of['p50']:.0f}", f"{p90:.0f}", f"{of['max']:.0f}", str(of["runs"]))
    console = Console()
    console.print(table)
    console.print(
        f"lost {found['lost']}, doubled {found['doubled']}, stale accepted {found['stale_accepted']}"
    )
    for verdict in verdicts.values():
        for wrong in verdict.wrongs:
            console.print(f"  {wrong}", style="red")


if __name__ == "__main__":
    main()
