"""Verbs about instances: look at them, start and stop them, make and remove them, set their parameters."""

from collections.abc import AsyncGenerator

import click

from host.cli.ctl import _completion as complete
from host.cli.ctl._group import ctl
from host.cli.ctl._schema import params_of, properties
from host.cli.ctl._session import Session
from host.cli.ctl._tables import Change, Listing, watch
from host.cli.ctl._verb import verb
from host.cli.ctl._words import as_json, full_name, moment, plain_struct, short, span, word
from tandem.v1 import plugin_pb2 as p

__all__ = ["LOADING_TIMEOUT_S", "described"]

LOADING_TIMEOUT_S = 60.0
"""Where code of a plugin is run first, a call may take longer."""

INSTANCES = Listing(
    "instances",
    ("instance", "state", "plugin", "version", "account", "symbols", "params", "reason"),
    lambda one: (
        short(one.name),
        word(p.InstanceState, one.state),
        one.plugin,
        one.digest[:12],
        short(one.account),
        ", ".join(one.symbols),
        plain_struct(one.params),
        one.state_reason,
    ),
)

_instance = click.argument("instance", shell_complete=complete.instances)
_settings = click.argument(
    "settings", nargs=-1, metavar="KEY=VALUE...", shell_complete=complete.params_of_instance
)


@verb(
    ctl,
    "list",
    watches=True,
    example="list\nlist --state running --state paused\nlist --watch\nlist --json | jq -r '.[].name'",
)
@click.option(
    "--state",
    "states",
    multiple=True,
    type=click.Choice([word(p.InstanceState, one).lower() for one in list(p.InstanceState.values())[1:]]),
    help="Only those in this state; may be repeated.",
)
@click.option("--account", shell_complete=complete.accounts, help="Only those on this account.")
@click.option("--plugin", shell_complete=complete.plugins, help="Only those that run this plugin.")
async def list_(session: Session, states: tuple[str, ...], account: str | None, plugin: str | None) -> None:
    """List the instances: what each is doing, and with which parameters."""
    wanted = p.ListInstancesRequest(
        states=[p.InstanceState.Value(f"INSTANCE_STATE_{state.upper()}") for state in states],
        account=full_name(account, "accounts") if account else "",
        plugin=full_name(plugin, "plugins") if plugin else "",
    )
    if session.is_watch:
        if states or account or plugin:
            raise click.UsageError("--watch shows all instances; leave out --state, --account and --plugin")
        await watch(INSTANCES, _instance_changes(session), is_json=session.is_json)
        return
    session.show(INSTANCES, await session.all(session.control.plugins.list_instances, wanted, "instances"))


async def _instance_changes(session: Session) -> AsyncGenerator[Change]:
    async for answer in session.control.plugins.watch_instances(p.WatchInstancesRequest()):
        yield Change(answer.instances, answer.snapshot, answer.removed)


@verb(ctl, "get", example="get mm-btc\nget mm-btc --json | jq .params")
@_instance
async def get(session: Session, instance: str) -> None:
    """Show one instance, and what its parameters may be."""
    request = p.GetInstanceRequest(name=full_name(instance, "instances"))
    found = (await session.control.plugins.get_instance(request)).instance
    session.say(found, described(found))


@verb(
    ctl,
    "start",
    changes=("etag",),
    example="start mm-btc\n"
    "start mm-btc --paused      # look at it first; then: tandem ctl resume mm-btc\n"
    "start mm-btc --inline      # not in the worker any more that it was moved to for holding the event loop",
)
@_instance
@click.option("--paused", is_flag=True, help="Receive data, and have no quotes.")
@click.option(
    "--inline", is_flag=True, help="Run it inline again, where it was moved to a worker for holding the loop."
)
async def start(session: Session, instance: str, paused: bool, inline: bool) -> None:
    """Start an instance that is stopped or quarantined."""
    request = p.StartInstanceRequest(name=full_name(instance, "instances"), paused=paused, inline=inline)
    answer = await session.change(
        session.control.plugins.start_instance, request, timeout_s=LOADING_TIMEOUT_S
    )
    session.say(answer.instance, _state_line(answer.instance))


@verb(ctl, "pause", changes=("reason", "etag"), example='pause mm-btc --reason "wide market"')
@_instance
async def pause(session: Session, instance: str) -> None:
    """Pull an instance's quotes; it goes on receiving data."""
    request = p.PauseInstanceRequest(name=full_name(instance, "instances"))
    answer = await session.change(session.control.plugins.pause_instance, request)
    session.say(answer.instance, _state_line(answer.instance))


@verb(ctl, "resume", changes=("reason", "etag"), example="resume mm-btc")
@_instance
async def resume(session: Session, instance: str) -> None:
    """Let a paused instance trade again."""
    request = p.ResumeInstanceRequest(name=full_name(instance, "instances"))
    answer = await session.change(session.control.plugins.resume_instance, request)
    session.say(answer.instance, _state_line(answer.instance))


@verb(ctl, "stop", changes=("reason", "etag"), example="stop mm-btc")
@_instance
async def stop(session: Session, instance: str) -> None:
    """Stop an instance: its orders are pulled and it receives nothing, until `start`."""
    request = p.StopInstanceRequest(name=full_name(instance, "instances"))
    answer = await session.change(session.control.plugins.stop_instance, request)
    session.say(answer.instance, _state_line(answer.instance))


@verb(ctl, "remove", changes=("reason", "etag", "yes"), example="remove probe")
@_instance
async def remove(session: Session, instance: str) -> None:
    """Stop an instance that `create` made, and forget it. Those of the configuration file stay."""
    name = full_name(instance, "instances")
    answer = await session.change(
        session.control.plugins.remove_instance,
        p.RemoveInstanceRequest(name=name),
        lambda _trial: f"Remove {name} from {session.control.address} for good?",
    )
    session.say(answer, f"{short(name)} {'would be' if session.is_dry_run else 'is'} removed")


@verb(
    ctl,
    "set",
    changes=("etag",),
    example="set mm-btc half_spread_bps=4 size=0.02\n"
    "set mm-btc size=5 --dry-run\n"
    "set mm-btc --default skew_bps",
)
@_instance
@_settings
@click.option("--default", "defaults", multiple=True, metavar="KEY", help="Put KEY back to its default.")
async def set_(session: Session, instance: str, settings: tuple[str, ...], defaults: tuple[str, ...]) -> None:
    """Change parameters of an instance, between two events: all that are given, or none."""
    if not settings and not defaults:
        raise click.UsageError("say what to change: KEY=VALUE, or --default KEY; `get` shows what there is")
    name = full_name(instance, "instances")
    calls = session.control.plugins
    before = (await calls.get_instance(p.GetInstanceRequest(name=name))).instance
    params = params_of(settings, before.params_schema)
    request = p.SetParamsRequest(name=name, params=params)
    request.update_mask.paths.extend([*params.fields, *defaults])
    answer = await session.change(calls.set_params, request)
    session.say(
        answer.instance,
        f"{short(name)}: {plain_struct(answer.instance.params)}   (was: {plain_struct(before.params)})",
    )


def _state_line(instance: p.Instance) -> str:
    reason = f": {instance.state_reason}" if instance.state_reason else ""
    return f"{short(instance.name)} is {word(p.InstanceState, instance.state)}{reason}"


def described(instance: p.Instance) -> str:
    """Return an instance on a few lines, for people."""
    isolation = word(p.Isolation, instance.isolation).lower()
    moved = ", where it was moved to for holding the event loop" if instance.moved_to_worker else ""
    models = [_model_words(one) for one in instance.models]
    lines = [
        _state_line(instance),
        f"  plugin     {instance.plugin} {instance.digest[:12]}",
        f"  account    {short(instance.account)}",
        f"  symbols    {', '.join(instance.symbols)}",
        f"  models     {', '.join(models) or 'none'}",
        f"  tolerance  {instance.quote_tolerance_bps:g} bps",
        f"  from       {word(p.InstanceOrigin, instance.origin)}",
        f"  runs       {'inline' if isolation == '-' else isolation}{moved}",
        f"  etag       {instance.etag}",
        f"  params     {plain_struct(instance.params)}",
    ]
    lines += _schedule_lines(instance)
    if instance.blocks:
        lines.append(
            f"  blocks     {instance.blocks} of the event loop, {span(instance.longest_block)} at most"
        )
    if instance.HasField("worker"):
        lines.append(_worker_line(instance))
    lines += [_model_line(one) for one in instance.models if one.HasField("worker")]
    if instance.HasField("worker_settings"):
        lines.append(f"  worker has {_limits_line(instance.worker_settings)}")
    if instance.HasField("client_settings"):
        lines.append(f"  client has {_limits_line(instance.client_settings)}")
    lines += [
        f"    {name}: {_bounds(known)}" for name, known in sorted(properties(instance.params_schema).items())
    ]
    return "\n".join(lines)


def _model_words(model: p.ModelUse) -> str:
    where = ", in a process" if model.isolation == p.ISOLATION_PROCESS else ""
    why = f", last because {model.last_error}" if model.skipped and model.last_error else ""
    return f"{model.model} (used {model.used}, skipped {model.skipped}{why}{where})"


def _limits_line(settings: p.WorkerSettings | p.ClientSettings) -> str:
    said = as_json(settings)
    words = {
        field.name: said[field.json_name] for field in settings.DESCRIPTOR.fields if field.json_name in said
    }
    words["on_loss"] = word(p.OnLoss, settings.on_loss).lower()
    return " ".join(f"{key}={value}" for key, value in words.items() if value != "")


def _worker_line(instance: p.Instance) -> str:
    """Return how the process is doing in which a strategy runs: its worker, or a client, which no host restarts."""
    worker = instance.worker
    is_client = instance.isolation == p.ISOLATION_CLIENT
    who, restarts = ("client", "") if is_client else ("worker", f", {worker.restarts} restarts")
    return (
        f"  {who}     {worker.state}{_process(worker)}{restarts}, {worker.behind} events behind, "
        f"{worker.conflated} left out, handles one within {span(worker.handled_p99)}"
        + (f", {worker.refused} messages refused" if worker.refused else "")
        + (f", {worker.strangers} without its token" if worker.strangers else "")
    )


def _model_line(model: p.ModelUse) -> str:
    """Return how the worker of a model is doing."""
    worker = model.worker
    return (
        f"  {model.model} runs in a worker: {worker.state}{_process(worker)}, {worker.restarts} restarts, "
        f"answers within {span(worker.handled_p99)}"
    )


def _process(worker: p.WorkerStatus) -> str:
    return f", process {worker.pid}, {worker.memory_bytes >> 20} MiB" if worker.pid else ""


def _schedule_lines(instance: p.Instance) -> list[str]:
    """Return what there is to say of an instance's schedule, in UTC as all times are."""
    if not instance.HasField("schedule"):
        return []
    schedule, lines = instance.schedule, []
    zone = schedule.time_zone
    if schedule.windows:
        outside = word(p.Hold, schedule.outside).lower()
        lines.append(f"  windows    {', '.join(schedule.windows)} ({zone}); outside: {outside}")
    if schedule.HasField("open_time"):
        lines.append(f"  opens      {moment(schedule.open_time)}")
    if schedule.HasField("close_time"):
        lines.append(f"  closes     {moment(schedule.close_time)}")
    for name, when in sorted(schedule.triggers.items()):
        lines.append(f"  trigger    {name}: {when} ({zone})")
    if schedule.next_trigger:
        lines.append(f"  next       {schedule.next_trigger} at {moment(schedule.next_trigger_time)}")
    if schedule.HasField("market_events") and not schedule.market_events:
        lines.append("  runs on    triggers and its own orders, not on market data")
    if schedule.after:
        lost = word(p.Hold, schedule.on_dependency_lost).lower()
        lines.append(f"  after      {', '.join(short(name) for name in schedule.after)}; when lost: {lost}")
    return lines


def _bounds(known: dict[str, object]) -> str:
    """Return what a schema says of a parameter: type, unit, bounds, default, what it is."""
    names = {
        "exclusiveMinimum": "above",
        "minimum": "at least",
        "exclusiveMaximum": "below",
        "maximum": "at most",
    }
    words = [str(known.get("format", known.get("type", "any")))]
    words += [str(known["unit"])] if "unit" in known else []
    words += [f"{text} {known[key]}" for key, text in names.items() if key in known]
    words += [f"default {known['default']}"] if "default" in known else []
    said = str(known.get("description", "")).strip()
    return ", ".join(words) + (f". {said}" if said else "")
