"""`tandem pair`: a pair of nodes to break, in one terminal."""

import asyncio
import shutil
import signal
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from host.api import TandemError
from host.cli._options import seconds
from host.cli._output import EXIT_FAILED, print_json, print_table

if TYPE_CHECKING:
    from host.pair.faults import Planned
    from host.pair.pair import Pair

__all__ = ["pair"]


@click.command(
    short_help="A pair of nodes on this machine, to break and to watch.",
    epilog="""\b
Examples:
  tandem pair                                      two nodes and a venue; press ? for the keys
  tandem pair --nodes 3 --durability replica       an order leaves once a standby holds it
  tandem pair --script "kill a@3s, freeze leader@ready+1s"
  tandem pair --script "cut a store@3s, heal a@+2s, switchover@ready" --json
  tandem pair --dir demo                           keep configurations, journals and logs

\b
A step of a script is ACT NODE@TIME. TIME is 3s after the pair was ready, +3s after it is known what came
of the step before, or ready (ready+3s), when every node is well again:
  kill, lose, freeze, thaw, heal, restart NODE     NODE: a, b, c, leader or standby
  cut, refuse NODE store|peers|venue               silent, or with connections reset
  switchover [NODE]                                to NODE, or to the best standby

\b
With --script, or without a terminal, it prints lines and ends with a table; the exit code is 0 if each
fault ended as promised, with no order lost, doubled or stale by the venue's log and the journals.""",
)
@click.option("--nodes", type=click.IntRange(2, 3), default=2, show_default=True, help="One leads.")
@click.option("--ttl", default="600ms", show_default=True, help="How long a lost machine keeps the lease.")
@click.option(
    "--lease",
    default="",
    metavar="URL",
    help="PostgreSQL or etcd instead of a SQLite file; see docs/failover.md.",
)
@click.option(
    "--durability",
    type=click.Choice(["process", "replica"]),
    default="process",
    show_default=True,
    help="What holds an order's entry before it leaves.",
)
@click.option("--seed", type=int, default=1, show_default=True, help="Decides the market.")
@click.option(
    "--dir",
    "folder",
    type=click.Path(path_type=Path, file_okay=False),
    help="A new folder for everything, which is kept.",
)
@click.option("--for", "duration_s", callback=seconds, help="Stop so long after the pair was ready: 30s, 5m.")
@click.option("--script", default="", metavar="STEPS", help="Faults and their times, separated by commas.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object at the end, and no lines.")
def pair(
    nodes: int,
    ttl: str,
    lease: str,
    durability: Literal["process", "replica"],
    seed: int,
    folder: Path | None,
    duration_s: float | None,
    script: str,
    as_json: bool,
) -> None:
    """Run a venue, a lease store and two nodes, of which one leads, and break them while they quote.

    A live view shows both nodes, the venue and what comes of each fault; everything ends with the command.
    """
    import uvloop

    from host.pair.faults import parse_script
    from host.pair.pair import Pair
    from host.pair.plan import NAMES, PairPlan

    steps = parse_script(script, NAMES[:nodes]) if script else []
    ttl_ms = _ttl_ms(ttl)
    if lease:
        from failover.lease import open_store

        open_store(lease)  # a URL that cannot work is refused before anything is started
    kept = folder is not None
    place = folder if folder is not None else Path(tempfile.mkdtemp(prefix="tandem-pair-"))
    plan = PairPlan(folder=place, nodes=nodes, ttl_ms=ttl_ms, lease=lease, durability=durability, seed=seed)
    run = Pair(plan)
    try:
        uvloop.run(_run(run, steps, duration_s, with_lines=bool(script) or as_json, is_quiet=as_json))
    except TandemError:
        if not kept:
            click.echo(f"everything it wrote is in {place}", err=True)
        raise
    if as_json:
        from host.pair.summary import as_json as described

        print_json(described(run))
    else:
        _print_summary(run)
    if kept or not run.is_good:
        click.echo(f"everything it wrote is in {place}", err=as_json)
    else:
        # SQLite removes two files beside the lease when its thread has closed it, perhaps at this moment.
        shutil.rmtree(place, ignore_errors=True)
    if not run.is_good:
        sys.exit(EXIT_FAILED)


def _ttl_ms(text: str) -> int:
    from host.config.failover import duration_ms

    try:
        ttl_ms = duration_ms(text)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--ttl") from error
    if not 100 <= ttl_ms <= 3_000:
        raise click.BadParameter(f'expected 100ms to 3s, was "{text}"', param_hint="--ttl")
    return ttl_ms


async def _run(
    run: "Pair", steps: "list[Planned]", duration_s: float | None, *, with_lines: bool, is_quiet: bool
) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, stop.set)
    try:
        if with_lines or not (sys.stdin.isatty() and sys.stdout.isatty()):
            from host.pair.lines import run_lines

            say = (lambda _line: None) if is_quiet else click.echo
            say(f"{run.plan.nodes} nodes in {run.plan.folder}; Ctrl-C ends it")
            await run_lines(run, steps, duration_s, stop, say)
        else:
            from rich.console import Console

            from host.pair.desk import run_desk

            await run_desk(run, Console(), sys.stdin.fileno(), duration_s, stop)
    finally:
        await run.stop()


def _print_summary(run: "Pair") -> None:
    from host.pair.summary import outcome_rows, switch_rows

    judge = run.judge
    verdict = judge.verdict
    if run.stories:
        columns = (">at s", "what", "to", ">took ms", ">longest gap ms", "what came of it")
        print_table("what was done", columns, outcome_rows(run))
    if judge.switches:
        print_table(
            "changes of leader, by the venue's log",
            ("from", "to", ">epoch", ">ms without an order", ">orders adopted"),
            switch_rows(run),
        )
    click.echo(
        f"the venue accepted {judge.accepted:,} orders and amends: {len(verdict.lost)} lost, "
        f"{len(verdict.doubled)} doubled, {len(verdict.stale)} stale; {len(judge.resting)} left resting"
    )
    for text in verdict.wrongs:
        click.echo(f"WRONG: {text}")
