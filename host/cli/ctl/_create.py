"""The verb that makes an instance: what it runs, where, and when."""

from collections.abc import Collection, Sequence
from typing import Any, TypeVar

import click
from google.protobuf.struct_pb2 import Struct

from host.cli.ctl import _completion as complete
from host.cli.ctl._group import ctl
from host.cli.ctl._instances import LOADING_TIMEOUT_S, described
from host.cli.ctl._schema import params_of
from host.cli.ctl._session import Session
from host.cli.ctl._verb import verb
from host.cli.ctl._words import enum_named, full_name
from host.config.sources import typed_value
from tandem.v1 import plugin_pb2 as p

__all__ = ["create"]

S = TypeVar("S", p.WorkerSettings, p.ClientSettings)


@verb(
    ctl,
    "create",
    changes=(),
    example="create mm-eth-2 two_sided --account paper --symbol ETH-USDT size=0.5\n"
    "create probe two_sided --account paper --symbol BTC-USDT --model inventory_skew "
    "--model-set inventory_skew.skew_bps=3 --model-process inventory_skew --paused\n"
    "create day two_sided --account paper --symbol BTC-USDT "
    '--window "mon-fri 09:30-16:00" --time-zone America/New_York\n'
    "create hedger my_hedger --account paper --symbol BTC-USDT --after mm-btc "
    '--trigger hedge="every 5s" --trigger flat="3 16 * * mon-fri" --no-market-events\n'
    "create apart two_sided --account paper --symbol BTC-USDT --isolation process --worker memory_mb=256",
)
@click.argument("instance")
@click.argument("strategy", shell_complete=complete.strategies)
@click.argument("settings", nargs=-1, metavar="[KEY=VALUE]...")
@click.option("--account", required=True, shell_complete=complete.accounts, help="The account it trades on.")
@click.option(
    "--symbol",
    "symbols",
    multiple=True,
    required=True,
    shell_complete=complete.symbols,
    help="What it trades, such as BTC-USDT; may be repeated.",
)
@click.option("--model", "models", multiple=True, help="A quote model its quotes pass; may be repeated.")
@click.option(
    "--model-set",
    multiple=True,
    metavar="MODEL.KEY=VALUE",
    help="A parameter of one of its models; may be repeated.",
)
@click.option(
    "--model-process",
    multiple=True,
    metavar="MODEL",
    help="Run this one of its models in a worker process; may be repeated.",
)
@click.option("--tolerance-bps", type=float, help="How far a wanted quote may move before its order follows.")
@click.option("--paused", is_flag=True, help="Start it paused.")
@click.option(
    "--window",
    "windows",
    multiple=True,
    metavar="WHEN",
    help='It trades only then, such as "mon-fri 09:30-16:00"; may be repeated.',
)
@click.option("--outside", type=click.Choice(["pause", "stop"]), help="What it is outside of its windows.")
@click.option("--time-zone", metavar="ZONE", help="By whose clock, such as Europe/Zurich; UTC if not given.")
@click.option(
    "--trigger",
    "triggers",
    multiple=True,
    metavar="NAME=WHEN",
    help='Call on_timer(NAME): "every 30s", or cron as in flat="0 16 * * mon-fri"; may be repeated.',
)
@click.option("--catch-up", type=float, metavar="SECONDS", help="How late a cron trigger may be made up for.")
@click.option("--no-market-events", is_flag=True, help="Run on triggers and own orders, not on market data.")
@click.option(
    "--after",
    multiple=True,
    metavar="INSTANCE",
    shell_complete=complete.instances,
    help="It depends on that one, which starts first and hears first; may be repeated.",
)
@click.option(
    "--on-dependency-lost",
    type=click.Choice(["pause", "stop", "keep"]),
    help="What becomes of it while such a one does not run.",
)
@click.option(
    "--isolation",
    type=click.Choice(["inline", "process", "client"]),
    help="Run on the node's loop, in a worker process, or in a program that attaches.",
)
@click.option(
    "--worker",
    multiple=True,
    metavar="KEY=VALUE",
    help="What the worker is held to: memory_mb, deadline_ms, on_loss=keep ...; may be repeated.",
)
@click.option(
    "--client", multiple=True, metavar="KEY=VALUE", help="The same for a program: deadline_ms, on_loss."
)
async def create(
    session: Session,
    instance: str,
    strategy: str,
    settings: tuple[str, ...],
    account: str,
    symbols: tuple[str, ...],
    models: tuple[str, ...],
    model_set: tuple[str, ...],
    model_process: tuple[str, ...],
    tolerance_bps: float | None,
    paused: bool,
    isolation: str | None,
    worker: tuple[str, ...],
    client: tuple[str, ...],
    windows: tuple[str, ...],
    outside: str | None,
    time_zone: str | None,
    triggers: tuple[str, ...],
    catch_up: float | None,
    no_market_events: bool,
    after: tuple[str, ...],
    on_dependency_lost: str | None,
) -> None:
    """Make an instance of STRATEGY and start it. It comes back after restarts, until `remove`."""
    schema = await _find_schema(session, p.PLUGIN_KIND_STRATEGY, strategy) if settings else None
    wanted = p.Instance(
        plugin=strategy,
        account=full_name(account, "accounts"),
        symbols=symbols,
        models=await _models(session, models, model_set, model_process),
        params=params_of(settings, schema),
        quote_tolerance_bps=tolerance_bps,
        start_paused=paused,
        isolation=_number(p.Isolation, isolation),
        worker_settings=_settings(p.WorkerSettings(), worker, "--worker"),
        client_settings=_settings(p.ClientSettings(), client, "--client"),
        schedule=p.InstanceSchedule(
            windows=windows,
            outside=_number(p.Hold, outside),
            time_zone=time_zone,
            triggers=dict(_pair(one, "--trigger") for one in triggers),
            catch_up_s=catch_up,
            market_events=False if no_market_events else None,
            after=[full_name(one, "instances") for one in after],
            on_dependency_lost=_number(p.Hold, on_dependency_lost),
        ),
    )
    request = p.CreateInstanceRequest(instance_id=instance, instance=wanted)
    answer = await session.change(
        session.control.plugins.create_instance, request, timeout_s=LOADING_TIMEOUT_S
    )
    session.say(answer.instance, described(answer.instance))


async def _models(
    session: Session, names: Sequence[str], settings: Sequence[str], processes: Sequence[str]
) -> list[p.ModelUse]:
    """Return the chain of models, each with the settings that name it; raise `click.BadParameter`."""
    by_model: dict[str, list[str]] = {name: [] for name in names}
    for text in settings:
        name, _, setting = text.partition(".")
        _check_is_used(name, by_model, "--model-set")
        by_model[name].append(setting)
    for name in processes:
        _check_is_used(name, by_model, "--model-process")
    params = {
        name: params_of(given, await _find_schema(session, p.PLUGIN_KIND_MODEL, name))
        for name, given in by_model.items()
        if given
    }
    return [
        p.ModelUse(
            model=name,
            params=params.get(name),
            isolation=p.ISOLATION_PROCESS if name in processes else p.ISOLATION_UNSPECIFIED,
        )
        for name in names
    ]


def _check_is_used(name: str, models: Collection[str], option: str) -> None:
    if name not in models:
        used = ", ".join(models) or "no --model"
        raise click.BadParameter(f'"{name}" is no model of this instance; there is {used}', param_hint=option)


async def _find_schema(session: Session, kind: "p.PluginKind.ValueType", name: str) -> Struct | None:
    """Return the schema of an offer's parameters; None where no plugin offers it."""
    request = p.ListPluginsRequest(kind=kind)
    for plugin in await session.all(session.control.plugins.list_plugins, request, "plugins"):
        if any(offer.name == name for offer in plugin.offers):
            found = await session.control.plugins.get_plugin(p.GetPluginRequest(name=plugin.name))
            return next(offer.params_schema for offer in found.plugin.offers if offer.name == name)
    return None


def _number(enum: Any, text: str | None) -> Any:
    return 0 if text is None else enum_named(enum, text)


def _pair(text: str, option: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise click.BadParameter(f'expected NAME=VALUE, was "{text}"', param_hint=option)
    return name, value


def _settings(message: S, pairs: Sequence[str], option: str) -> S:
    """Put `KEY=VALUE` into the fields of those names; raise `click.BadParameter`."""
    fields = message.DESCRIPTOR.fields_by_name
    for text in pairs:
        key, value = _pair(text, option)
        if key not in fields:
            known = ", ".join(fields)
            raise click.BadParameter(f'there is no "{key}"; there are {known}', param_hint=option)
        try:
            if key == "on_loss":
                message.on_loss = _number(p.OnLoss, value)
            else:
                setattr(message, key, value if key == "group" else typed_value(value))
        except (TypeError, ValueError) as error:
            raise click.BadParameter(f'{key} cannot be "{value}": {error}', param_hint=option) from error
    return message
