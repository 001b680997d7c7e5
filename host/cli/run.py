"""`tandem run`: one node, live on a simulated market or over a recording."""

import faulthandler
import os
import re
import sys
import tempfile
from contextlib import ExitStack
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import msgspec

from host.cli._guarded import become_guardian, is_guarded
from host.cli._options import (
    config_options,
    data_dir_option,
    given_or_here,
    load_or_default,
    seconds,
    with_data_dir,
)
from host.cli._output import EXIT_FAILED, Refused, plugins_print_to_stderr, print_json, print_table
from host.config import ConfigSource, NodeConfig, RunOptions, replay_config

if TYPE_CHECKING:
    from host.runtime.report import RunReport

__all__ = ["run"]


def _factor(_ctx: click.Context, _param: click.Parameter, value: str) -> float | None:
    if value == "max":
        return None
    if not re.fullmatch(r"\d+(\.\d+)?", value) or float(value) == 0:
        raise click.BadParameter(f'expected a factor such as 1 or 10, or max, was "{value}"')
    return float(value)


@click.command(
    short_help="Run one node: live, simulated, or over a recording.",
    epilog="""\b
Examples:
  tandem run                               two market makers on a simulated market
  tandem run -c tandem.toml --env prod     tandem.toml, overlaid by tandem.prod.toml
  tandem run --for 10s --report json       ten seconds, then one JSON object
  tandem run --replay RECORDING --speed max --report json
  tandem run --speed max --for 2h          two hours of a simulated market, in seconds

\b
Without -c, tandem.toml in the working directory is used if there is one, else built-in defaults.
A replay without -c quotes the recording's own symbol. With any --speed but 1 a synthetic market
runs in simulated time, from 2024-01-01 on; equal seeds give equal journals. Replays and simulations
start from nothing and keep their journal only if --data-dir says where. They take no part in
[failover].

\b
With --report json standard output holds that object alone: the log, and what plugins print, goes to
standard error.""",
)
@config_options
@click.option(
    "--replay",
    type=click.Path(path_type=Path, exists=True),
    help="A recording that stands in for the market.",
)
@click.option(
    "--speed", callback=_factor, default="1", show_default=True, help="1, 10 (times real time) or max."
)
@click.option(
    "--for", "duration_s", callback=seconds, help="Stop after this much of the node's time: 30s, 5m."
)
@click.option("--seed", type=int, default=1, show_default=True, help="Decides everything random.")
@click.option("--report", type=click.Choice(["table", "json"]), default="table", show_default=True)
@click.option("--no-ui", is_flag=True, help="No live view; log lines only.")
@click.option("--no-guardian", is_flag=True, help="Run the node of a pair in this process, to debug it.")
@data_dir_option
def run(
    path: Path | None,
    env: str | None,
    replay: Path | None,
    speed: float | None,
    duration_s: float | None,
    seed: int,
    report: str,
    no_ui: bool,
    no_guardian: bool,
    data_dir: Path | None,
) -> None:
    """Run one node until Ctrl-C, the end of the recording, or --for; then print what it did.

    It stops cleanly: quotes are pulled and no order is left open. With [failover] this process becomes the
    node's guardian: it starts the node as a child, gives up its lease when it dies, and starts it again
    unless it ended with exit code 0 or 2.
    """
    # A page of the mapped journal that the disk cannot supply is a SIGBUS: say where.
    if sys.__stderr__ is not None:
        faulthandler.enable(file=sys.__stderr__)
    options = RunOptions(
        replay=replay,
        speed=speed,
        duration_s=duration_s,
        seed=seed,
        ui=not no_ui and report == "table",
    )
    if replay is None and speed is None and duration_s is None:
        raise click.UsageError("--speed max without --replay never ends; add --for, such as --for 10m")
    if replay is not None and path is None and env is not None:
        raise click.UsageError("--env overlays a file: name it with -c")
    with ExitStack() as stack:
        if replay is not None and path is None:
            config = replay_config(replay, _recorded_symbol(replay), os.environ)
        else:
            config = load_or_default(path, env).config
        config = (
            _isolated(config, data_dir, stack) if options.is_simulated else with_data_dir(config, data_dir)
        )
        if config.failover is not None and not no_guardian and not is_guarded():
            become_guardian(config.failover)
        if report == "json":
            stack.enter_context(plugins_print_to_stderr())
        source = None
        if not options.is_simulated:
            source = ConfigSource(given_or_here(path), env, os.environ, lambda c: with_data_dir(c, data_dir))
        from host import node

        result = node.run(config, options, source)
    if report == "json":
        print_json(result)
    else:
        _print_report(result)
    if result.halted:
        click.echo(f"error: trading stopped: {result.halted}", err=True)
    if result.open_orders:
        click.echo(f"error: {result.open_orders} orders could not be closed; look at the venue", err=True)
    if result.halted or result.open_orders:
        raise click.exceptions.Exit(EXIT_FAILED)


def _recorded_symbol(path: Path) -> str:
    from venue.recording import Recording

    return Recording.open(path).instrument.symbol


def _isolated(config: NodeConfig, data_dir: Path | None, stack: ExitStack) -> NodeConfig:
    """Keep simulated trades out of the node's journal, of its database and of its cell."""
    if config.node.durability == "replica":
        config = msgspec.structs.replace(
            config, node=msgspec.structs.replace(config.node, durability="process")
        )
    config = msgspec.structs.replace(config, failover=None)
    if data_dir is None:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="tandem-run-"))
        store = msgspec.structs.replace(config.store, url="")
        return with_data_dir(msgspec.structs.replace(config, store=store), Path(folder))
    if data_dir.exists() and any(data_dir.iterdir()):
        raise Refused(
            f"--data-dir {data_dir} is not empty, and a replay starts from nothing; name a new folder"
        )
    return with_data_dir(
        msgspec.structs.replace(config, store=msgspec.structs.replace(config.store, url=None)), data_dir
    )


def _print_report(report: "RunReport") -> None:
    figures = msgspec.to_builtins(report)
    positions = figures.pop("positions")
    print_table("run", ("figure", "value"), ((name, _shown(value)) for name, value in figures.items()))
    print_table(
        "positions",
        ("instance", "symbol", ">quantity", ">average price", ">mark", ">realised", ">fees", ">pnl", ""),
        (
            (
                row["instance"],
                row["symbol"],
                row["qty"],
                f"{Decimal(row['average_price']):.8g}",
                row["mark"] or "-",
                f"{Decimal(row['realised']):.4f}",
                _shown(row["fees"]),
                "-" if row["pnl"] is None else f"{Decimal(row['pnl']):+.4f}",
                row["currency"],
            )
            for row in positions
        ),
    )


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        return "  ".join(f"{key} {_shown(item)}" for key, item in value.items()) or "none"
    if isinstance(value, list):
        return ", ".join(map(_shown, value)) or "none"
    return f"{value:,.1f}" if isinstance(value, float) else str(value)
