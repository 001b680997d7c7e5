"""Verbs about plugins and their versions."""

from collections.abc import AsyncGenerator, Sequence

import click
from google.protobuf.message import Message

from host.cli._output import EXIT_FAILED, Refused
from host.cli.ctl import _completion as complete
from host.cli.ctl._failover import promote_node
from host.cli.ctl._group import ctl
from host.cli.ctl._instances import LOADING_TIMEOUT_S
from host.cli.ctl._session import Session
from host.cli.ctl._tables import Change, Listing, print_rows, watch
from host.cli.ctl._verb import verb
from host.cli.ctl._words import full_name, moment, short, span, word
from tandem.v1 import plugin_pb2 as p

__all__: list[str] = []

PLUGINS = Listing(
    "plugins",
    ("plugin", "offers", "version", "on probation", "staged", "auto-reload", "instances"),
    lambda one: (
        short(one.name),
        ", ".join(f"{offer.name} ({word(p.PluginKind, offer.kind).lower()})" for offer in one.offers),
        one.digest[:12],
        one.probation_digest[:12],
        one.staged_digest[:12],
        "on" if one.auto_reload else "off",
        ", ".join(map(short, one.instances)),
    ),
)
VERSIONS = Listing(
    "versions",
    ("version", "since (UTC)", "state", "reason", "stages"),
    lambda one: (
        one.digest[:12],
        moment(one.time),
        word(p.VersionState, one.state),
        one.reason,
        ", ".join(f"{stage.stage} {word(p.StageOutcome, stage.outcome).lower()}" for stage in one.stages),
    ),
)
STAGES = Listing(
    "stages",
    ("stage", "outcome", ">took", "detail"),
    lambda one: (one.stage, word(p.StageOutcome, one.outcome), span(one.duration), one.detail),
)

_plugin = click.argument("plugin", shell_complete=complete.plugins)


@verb(ctl, "plugins", watches=True, example="plugins\nplugins --watch")
async def plugins(session: Session) -> None:
    """List the plugins: what they offer, which version runs, which waits."""
    if session.is_watch:
        await watch(PLUGINS, _plugin_changes(session), is_json=session.is_json)
        return
    session.show(
        PLUGINS, await session.all(session.control.plugins.list_plugins, p.ListPluginsRequest(), "plugins")
    )


async def _plugin_changes(session: Session) -> AsyncGenerator[Change]:
    async for answer in session.control.plugins.watch_plugins(p.WatchPluginsRequest()):
        yield Change(answer.plugins, answer.snapshot)


@verb(ctl, "versions", example="versions two_sided\nversions two_sided --json | jq '.[0].stages'")
@_plugin
async def versions(session: Session, plugin: str) -> None:
    """List the versions of a plugin, newest first, and how far each came."""
    request = p.ListVersionsRequest(parent=full_name(plugin, "plugins"))
    found = await session.all(session.control.plugins.list_versions, request, "versions")
    found.sort(key=lambda one: one.time.ToNanoseconds(), reverse=True)  # of its latest step, as it is shown
    session.show(VERSIONS, found)


@verb(ctl, "reload", changes=("etag",), example="reload two_sided")
@_plugin
async def reload(session: Session, plugin: str) -> None:
    """Take a plugin to the bytes that its files have now. Exits with 1 where they are refused.

    Bytes that were refused before are tried again.
    """
    request = p.ReloadPluginRequest(name=full_name(plugin, "plugins"))
    answer = await session.change(session.control.plugins.reload_plugin, request, timeout_s=LOADING_TIMEOUT_S)
    if session.is_dry_run:
        session.say(answer, f"{plugin} would be reloaded, if its files have changed")
        return
    _tell(session, answer, plugin, answer.digest, answer.state, answer.reason, answer.stages)


@verb(ctl, "activate", changes=("etag",), example="activate two_sided\nactivate two_sided --version 77a41920")
@_plugin
@click.option("--version", "digest", metavar="DIGEST", help="Which one is meant: 8 digits or more.")
async def activate(session: Session, plugin: str, digest: str | None) -> None:
    """Let the version that is staged go live. Exits with 1 where it is refused."""
    name = full_name(plugin, "plugins")
    if digest is None:
        found = (await session.control.plugins.get_plugin(p.GetPluginRequest(name=name))).plugin
        if not found.staged_digest:
            raise Refused(f"no version of plugin {plugin} waits to be activated; `versions` lists them")
        digest = found.staged_digest
    request = p.ActivateVersionRequest(name=f"{name}/versions/{digest}")
    answer = await session.change(
        session.control.plugins.activate_version, request, timeout_s=LOADING_TIMEOUT_S
    )
    if session.is_dry_run:
        session.say(answer, f"{plugin} would go to version {digest[:12]}")
        return
    _tell(session, answer, plugin, digest, answer.state, answer.reason, answer.stages)


@verb(
    ctl,
    "promote",
    changes=("etag", "reason", "yes"),
    example="promote two_sided\npromote --force -a 10.0.0.2:7600",
)
@click.argument("plugin", required=False, shell_complete=complete.plugins)
@click.option("--force", is_flag=True, help="Promote the node: this standby leads, whoever does now.")
async def promote(session: Session, plugin: str | None, force: bool) -> None:
    """Make the version on probation permanent; with --force instead of a plugin, have a standby lead.

    That is for the day on which its primary is gone or does not let go: the lead is taken whatever the
    standby lags, and what it had not received by then is lost. Ask the standby itself, with --address.
    """
    if force == (plugin is not None):
        raise click.UsageError("name a plugin, or say --force to have this standby lead; not both")
    if plugin is None:
        await promote_node(session)
        return
    session.without("reason")
    request = p.PromotePluginRequest(name=full_name(plugin, "plugins"))
    answer = await session.change(session.control.plugins.promote_plugin, request)
    session.say(answer.plugin, f"{plugin}: version {answer.plugin.permanent_digest[:12]} is permanent")


@verb(ctl, "rollback", changes=("reason", "etag"), example='rollback two_sided --reason "quotes too wide"')
@_plugin
async def rollback(session: Session, plugin: str) -> None:
    """Take the version on probation back: the one before it goes on."""
    request = p.RollBackPluginRequest(name=full_name(plugin, "plugins"))
    answer = await session.change(session.control.plugins.roll_back_plugin, request)
    session.say(answer.plugin, f"{plugin}: version {answer.plugin.digest[:12]} runs")


@verb(
    ctl,
    "auto-reload",
    changes=("reason", "etag"),
    example='auto-reload two_sided off --reason "release freeze"\nauto-reload two_sided on',
)
@_plugin
@click.argument("switch", type=click.Choice(["on", "off"]))
async def auto_reload(session: Session, plugin: str, switch: str) -> None:
    """Say whether changed files of a plugin go live by themselves."""
    request = p.SetAutoReloadRequest(name=full_name(plugin, "plugins"), enabled=switch == "on")
    answer = await session.change(session.control.plugins.set_auto_reload, request)
    session.say(
        answer.plugin, f"{plugin}: automatic reload is {'on' if answer.plugin.auto_reload else 'off'}"
    )


def _tell(
    session: Session,
    answer: Message,
    plugin: str,
    digest: str,
    state: "p.VersionState.ValueType",
    reason: str,
    stages: Sequence[p.StageReport],
) -> None:
    """Print what a reload came to; exit with 1 where the bytes were refused."""
    if not session.is_json and stages:
        print_rows(STAGES, stages)
    outcome = word(p.VersionState, state) if state else "nothing to do"
    why = f": {reason}" if reason else ""
    session.say(answer, f"{plugin} {digest[:12]}: {outcome}{why}")
    if state in (p.VERSION_STATE_REFUSED, p.VERSION_STATE_ROLLED_BACK):
        raise click.exceptions.Exit(EXIT_FAILED)
