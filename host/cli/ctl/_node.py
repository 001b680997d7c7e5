"""Verbs about the node itself: what it does, what happened, how much it logs, and its end."""

import json
import sys
from collections.abc import AsyncGenerator
from typing import Any, Final

import click
from google.protobuf.duration_pb2 import Duration
from google.protobuf.json_format import MessageToDict

from host.cli._output import EXIT_FAILED, print_json
from host.cli.ctl import _completion as complete
from host.cli.ctl._events import latest_events
from host.cli.ctl._failover import summary
from host.cli.ctl._group import ctl
from host.cli.ctl._session import Session
from host.cli.ctl._tables import watch_text
from host.cli.ctl._verb import verb
from host.cli.ctl._words import as_json, clock, full_name, moment, short, span, word
from tandem.v1 import node_pb2 as n

__all__: list[str] = []

DRAIN_MARGIN_S: Final = 5.0
"""A drain that is waited for answers a little later than it waits."""


@verb(ctl, "status", watches=True, example="status\nstatus --watch\nstatus --json | jq -r .role")
async def status(session: Session) -> None:
    """Show what the node is doing: role, instances, accounts, speed, what is stopped."""
    if not session.is_watch:
        found = (await session.control.node.get_status(n.GetStatusRequest())).status
        session.say(found, _described(found))
        return

    async def texts() -> AsyncGenerator[str]:
        async for answer in session.control.node.watch_status(n.WatchStatusRequest()):
            if session.is_json:
                print_json(as_json(answer.status))
            else:
                yield _described(answer.status)

    await watch_text(texts())


@verb(
    ctl,
    "events",
    watches=True,
    example="events\nevents --kind alert --kind quarantined --limit 50\nevents --instance mm-btc --watch\n"
    "events --from 1200 --limit 10 --json\nevents --watch --json | jq 'select(.kind == \"reported\")'",
)
@click.option("--kind", "kinds", multiple=True, help="Only these, such as alert; may be repeated.")
@click.option("--instance", shell_complete=complete.instances, help="Only what concerns this instance.")
@click.option("--from", "first", type=click.IntRange(1), help="From this LSN on. [default: the latest]")
@click.option(
    "-n", "--limit", type=click.IntRange(1, 100_000), default=20, show_default=True, help="So many."
)
async def events(
    session: Session, kinds: tuple[str, ...], instance: str | None, first: int | None, limit: int
) -> None:
    """Print journal entries, one a line: whatever changed trading state, and alerts.

    With --watch it goes on with new ones, after a lost connection too, without a gap.
    """
    wanted = n.EventFilter(kinds=kinds, instance=full_name(instance, "instances") if instance else "")
    if session.is_watch:
        request = n.WatchEventsRequest(from_lsn=first or 0, filter=wanted)
        async for answer in session.control.node.watch_events(request):
            for event in answer.events:
                _print_event(event, is_json=session.is_json)
            sys.stdout.flush()
        return
    if first is None:
        found = await latest_events(session.control, wanted, limit)
    else:
        found = []
        page = n.ListEventsRequest(from_lsn=first, filter=wanted)
        while True:
            page.page_size = min(1000, limit - len(found))
            listed = await session.control.node.list_events(page)
            found.extend(listed.events)
            if len(found) >= limit or not listed.has_more:
                break
            page.from_lsn = listed.next_lsn
    for event in found:
        _print_event(event, is_json=session.is_json)


def _print_event(event: n.Event, *, is_json: bool) -> None:
    fields: dict[str, Any] = json.loads(event.json)
    if is_json:
        time = event.time.ToJsonString()
        print_json({"lsn": event.lsn, "time": time, "kind": event.kind, "fields": fields})
        return
    words = " ".join(f"{name}={_plain(value)}" for name, value in fields.items() if value not in (None, ""))
    text = f"{event.lsn:>8} {clock(event.time)} {event.kind:<16} {words}"
    click.echo(text if text.isprintable() else json.dumps(text))


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))


@verb(ctl, "config", example="config\nconfig --json | jq .config.risk")
async def config(session: Session) -> None:
    """Show the configuration in force, without secrets."""
    answer = await session.control.node.get_config(n.GetConfigRequest())
    if session.is_json:
        print_json(as_json(answer))
        return
    click.echo("# read from " + (", ".join(answer.files) or "the built-in defaults"))
    click.echo(json.dumps(MessageToDict(answer.config), indent=2))


_LEVELS: Final = ("debug", "info", "warning", "error")


@verb(ctl, "log-level", changes=(), example="log-level\nlog-level debug")
@click.argument("level", required=False, type=click.Choice(_LEVELS))
async def log_level(session: Session, level: str | None) -> None:
    """Show how much the node logs, or change it until the node restarts."""
    calls = session.control.node
    found: n.GetLogLevelResponse | n.SetLogLevelResponse
    if level is None:
        found = await calls.get_log_level(n.GetLogLevelRequest())
    else:
        request = n.SetLogLevelRequest(level=n.LogLevel.Value(f"LOG_LEVEL_{level.upper()}"))
        found = await session.change(calls.set_log_level, request)
    session.say(found, word(n.LogLevel, found.level).lower())


@verb(
    ctl,
    "drain",
    changes=("reason", "yes"),
    example='drain --reason "upgrade"\ndrain --wait 30 --yes',
)
@click.option(
    "--wait",
    "wait_s",
    type=click.FloatRange(0, 60),
    default=5.0,
    show_default=True,
    help="Seconds to wait for the venue to confirm that no order is left.",
)
async def drain(session: Session, wait_s: float) -> None:
    """Pause every instance and cancel every order. Positions are kept; `resume` lets instances go on.

    Exits with 1 where orders are still open when the wait is over.
    """
    wait = Duration()
    wait.FromNanoseconds(int(wait_s * 1e9))
    answer = await session.change(
        session.control.node.drain,
        n.DrainRequest(wait=wait),
        lambda trial: (
            f"Pause every instance of {session.control.address} and cancel {trial.open_orders} orders?"
        ),
        timeout_s=wait_s + DRAIN_MARGIN_S,
    )
    paused = ", ".join(map(short, answer.paused_instances)) or "nothing"
    session.say(
        answer,
        f"paused {paused}; {answer.cancelled_orders} orders cancelled, {answer.open_orders} still open",
    )
    if answer.open_orders and not session.is_dry_run:
        raise click.exceptions.Exit(EXIT_FAILED)


@verb(ctl, "shutdown", changes=("reason", "yes"), example='shutdown --reason "upgrade"\nshutdown --yes')
async def shutdown(session: Session) -> None:
    """Stop the node cleanly: its instances are stopped, no order is left open. Positions are kept."""
    answer = await session.change(
        session.control.node.shutdown,
        n.ShutdownRequest(),
        lambda _trial: f"Stop the node at {session.control.address}?",
    )
    session.say(answer, f"the node {'would stop' if session.is_dry_run else 'is stopping'}")


def _described(found: n.NodeStatus) -> str:
    """Return a node's status on a few lines, for people."""
    states = ", ".join(f"{count} {state}" for state, count in sorted(found.instances.items())) or "none"
    counters = ", ".join(
        f"{getattr(found.counters, field.name)} {field.name}" for field in n.Counters.DESCRIPTOR.fields
    )
    tick = found.tick_to_order
    latency = (
        f"p50 {span(tick.p50)}, p99 {span(tick.p99)}, max {span(tick.max)}" if tick.count else "not measured"
    )
    store = f", store {found.store_lag} entries behind" if found.HasField("store_lag") else ""
    rows = [
        ("up", f"{span(found.uptime)}, since {moment(found.start_time)} UTC, version {found.host_version}"),
        ("journal", f"epoch {found.epoch}, LSN {found.last_lsn}{store}"),
        ("instances", states),
        ("open orders", str(found.open_orders)),
        ("since start", counters),
        ("events", f"{found.events_per_second:.0f} a second"),
        ("tick to order", latency),
    ]
    rows += [
        ("account", f"{short(one.name)} ({one.exchange}): {'ready' if one.ready else one.detail}")
        for one in found.accounts
    ]
    rows += [("STOPPED", f"{scope}: {why}") for scope, why in sorted(found.stopped_scopes.items())]
    rows += summary(found.failover) if found.HasField("failover") else []
    rows += [("primary", found.primary_address)] if found.primary_address else []
    halted = f": {found.halted}" if found.halted else ""
    role, phase = word(n.NodeRole, found.role), word(n.NodePhase, found.phase)
    lines = [f"{found.node} is {role} of cell {found.cell}, {phase}{halted}"]
    lines += [f"  {title:<14} {text}" for title, text in rows]
    return "\n".join(lines)
