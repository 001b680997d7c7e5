"""`tandem node`: what an operator may change in the journal of a node that is stopped."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from host.cli._options import config_options, data_dir_option, load_or_default, with_data_dir
from host.cli._output import Refused, print_json, print_table
from host.config import NodeConfig

if TYPE_CHECKING:
    from host.core.entries import Entry
    from host.core.state import TradingState
    from host.journal import Journal

__all__ = ["node"]


@click.group()
def node() -> None:
    """Look at a stopped node, and allow again what was stopped for safety.

    The node must not run: these commands take up its journal, write one entry and give it back.
    """


@node.command(epilog="Example:\n  tandem node status --json")
@config_options
@data_dir_option
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def status(path: Path | None, env: str | None, data_dir: Path | None, as_json: bool) -> None:
    """Show kill switches, instances and how many orders were live when the node stopped."""
    with _journal(path, env, data_dir) as (_, state):
        instances = {name: [str(r.state), r.reason] for name, r in state.instances.items()}
        if as_json:
            print_json(
                {
                    "node": state.node,
                    "epoch": state.epoch,
                    "kill_switches": state.kill_switches,
                    "instances": {name: {"state": s, "reason": r} for name, (s, r) in instances.items()},
                    "live_orders": len(state.orders),
                }
            )
            return
        print_table("kill switches", ("scope", "reason"), state.kill_switches.items())
        print_table("instances", ("instance", "state", "reason"), ((n, *row) for n, row in instances.items()))
        click.echo(f"{len(state.orders)} orders were live when the node stopped")


@node.command(
    epilog="""\b
Examples:
  tandem node release node
  tandem node release instance:mm-btc --yes"""
)
@click.argument("scope")
@config_options
@data_dir_option
@click.option("--yes", is_flag=True, help="Do not ask.")
def release(scope: str, path: Path | None, env: str | None, data_dir: Path | None, yes: bool) -> None:
    """Release a kill switch: orders of SCOPE are allowed again from the next start.

    SCOPE is node, account:NAME, instance:NAME or symbol:NAME, as `tandem node status` shows it.
    """
    from host.core.entries import FlattenSet, KillSwitchSet

    with _journal(path, env, data_dir) as (journal, state):
        reason = state.kill_switches.get(scope)
        if reason is None:
            known = ", ".join(state.kill_switches) or "none"
            raise Refused(f"no kill switch is on for {scope}; on are: {known}")
        if not yes:
            click.confirm(f"{scope} was stopped because of {reason}. Allow its orders again?", abort=True)
        if scope in state.flattening:  # or the next start would go on to close what is opened anew
            _write(journal, state, FlattenSet(scope, False, "released by the operator"))
        _write(journal, state, KillSwitchSet(scope, False, "released by the operator"))
        click.echo(f"{scope} may send orders again from the next start")


@node.command(epilog="Example:\n  tandem node resume mm-btc")
@click.argument("instance")
@config_options
@data_dir_option
def resume(instance: str, path: Path | None, env: str | None, data_dir: Path | None) -> None:
    """Let an instance that was paused or quarantined start as its configuration says."""
    from host.core.entries import InstanceChanged, InstanceState

    with _journal(path, env, data_dir) as (journal, state):
        record = state.instances.get(instance)
        if record is None:
            known = ", ".join(state.instances) or "none"
            raise Refused(f"the journal knows no instance {instance}; it knows: {known}")
        if record.state not in (InstanceState.PAUSED, InstanceState.QUARANTINED):
            raise Refused(f"instance {instance} is {record.state}: there is nothing to resume")
        _write(journal, state, InstanceChanged(instance, InstanceState.STOPPED, "resumed by the operator"))
        click.echo(f"instance {instance} starts as configured at the next start")


@contextmanager
def _journal(
    path: Path | None, env: str | None, data_dir: Path | None
) -> Iterator[tuple["Journal", "TradingState"]]:
    from host.journal import Journal
    from host.runtime.recovery import recover

    config: NodeConfig = with_data_dir(load_or_default(path, env).config, data_dir)
    if not config.journal_dir.is_dir():
        raise Refused(f"there is no journal at {config.journal_dir}: no node ran with this configuration")
    with Journal.open(
        config.journal_dir, node=config.node.name, segment_bytes=config.node.journal_segment_kb << 10
    ) as journal:
        yield journal, recover(journal).state


def _write(journal: "Journal", state: "TradingState", entry: "Entry") -> None:
    import time

    journal.append(entry, max(time.time_ns(), state.ts_ns))
    journal.flush()
    journal.sync()
