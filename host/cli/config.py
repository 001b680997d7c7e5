"""`tandem config`: is this configuration one that a node can run?"""

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from host.cli._control_check import control_problems
from host.cli._lease_check import LeaseCheck
from host.cli._options import config_options, load_or_default
from host.cli._output import plugins_print_to_stderr, print_json, print_table
from host.cli._runs_check import blocking_words, models_words, outlooks, print_runs, runs_words
from host.config import ConfigError, FailoverSection, LoadedConfig, NodeConfig, Problem

if TYPE_CHECKING:
    from host.loader import Catalog

__all__ = ["config"]


@click.group()
def config() -> None:
    """Inspect configurations."""


@config.command(
    epilog="""\b
Examples:
  tandem config check                      tandem.toml here, or the built-in defaults
  tandem config check -c prod/tandem.toml --env eu --json
  tandem config check --offline            where the lease store cannot be reached"""
)
@config_options
@click.option("--json", "as_json", is_flag=True, help="One JSON object: ok, problems, warnings, config, …")
@click.option("--offline", is_flag=True, help="Do not ask the lease store of [failover].")
def check(path: Path | None, env: str | None, as_json: bool, offline: bool) -> None:
    """Report everything that is wrong: keys, types, names, addresses, plugins and their parameters.

    With [failover] the lease store is asked too: whether it can be reached, whether the cell is in it, and
    whether it is fast enough for the ttl. Exits with 0 when a node can run this, with 2 when not. Settings that
    have no effect, such as limits of a worker for an inline instance, are warned of and change nothing about that.
    """
    lease = LeaseCheck()
    try:
        loaded = load_or_default(path, env)
        with plugins_print_to_stderr():
            in_plugins = list(_plugin_problems(loaded))
        problems = [
            *in_plugins,
            *control_problems(loaded),
            *_tls_problems(loaded),
            *lease.problems(loaded, offline=offline),
        ]
        if problems:
            raise ConfigError(problems)
    except ConfigError as error:
        if as_json:
            print_json({"ok": False, "problems": error.problems})
            raise click.exceptions.Exit(2) from error
        raise
    now_ns = time.time_ns()
    warnings = loaded.warnings(now_ns)
    if as_json:
        answer = {
            "ok": True,
            "sources": loaded.sources,
            "problems": [],
            "warnings": warnings,
            "config": loaded.config,
            "schedules": outlooks(loaded.config, now_ns),
        }
        print_json(
            answer | ({} if lease.round_trip_ms is None else {"lease_round_trip_ms": lease.round_trip_ms})
        )
    else:
        _print_summary(loaded, lease)
        print_runs(loaded.config, now_ns)
        for warning in warnings:
            click.echo(f"warning: {warning}", err=True)


def _plugin_problems(loaded: LoadedConfig) -> Iterator[Problem]:
    """Look up every plugin named, and construct it once with its parameters."""
    from host.loader import load_proved
    from host.loading import known_of

    known = known_of(loaded.config).read()
    catalog = asyncio.run(load_proved(loaded.config.plugin_dirs, known))
    try:
        for problem in catalog.problems:
            yield Problem("", "", str(problem))
        yield from _unusable(loaded, catalog)
    finally:
        catalog.close()


def _unusable(loaded: LoadedConfig, catalog: "Catalog") -> Iterator[Problem]:
    from host.config.private_files import PrivateFileError
    from host.config.secret_files import SecretProblem
    from host.loader import InstanceFailed, ParamsInvalid, UnknownPlugin, make
    from host.secrets import SecretSources, resolve_secrets

    secrets = SecretSources(loaded.config)
    wanted = [
        *(
            (("account", index), "exchange", entry.name, entry.exchange, entry.params)
            for index, entry in enumerate(loaded.config.account)
        ),
        *(
            (("instance", index), "plugin", entry.name, entry.plugin, entry.params)
            for index, entry in enumerate(loaded.config.instance)
        ),
        *(
            (("instance", index, "models", place), "name", entry.name, model.name, model.params)
            for index, entry in enumerate(loaded.config.instance)
            for place, model in enumerate(entry.models)
        ),
    ]
    find = {"exchange": catalog.exchange, "plugin": catalog.strategy, "name": catalog.model}
    for at, key, instance, name, params in wanted:
        try:
            known = resolve_secrets(params, secrets) if key == "exchange" else params
            make(find[key](name), known, instance=instance)
        except (SecretProblem, PrivateFileError) as error:
            yield loaded.problem((*at, "params"), str(error))
        except ParamsInvalid as error:
            yield loaded.problem((*at, *error.field.split(".")), error.detail)
        except (UnknownPlugin, InstanceFailed) as error:
            yield loaded.problem((*at, key), str(error))


def _tls_problems(loaded: LoadedConfig) -> Iterator[Problem]:
    """Load the files with which the node proves itself to its peers."""
    section = loaded.config.failover
    if section is None or section.tls is None:
        return
    from failover.replication import PeerTlsFiles, ReplicationConfigError

    try:
        PeerTlsFiles(loaded.config.node.name, section.tls.certificate, section.tls.key, section.tls.ca)
    except ReplicationConfigError as error:
        yield loaded.problem(("failover", "tls"), str(error))


def _print_summary(loaded: LoadedConfig, lease: LeaseCheck) -> None:
    config = loaded.config
    click.echo(f"{', '.join(loaded.sources)}: ok")
    print_table(
        f"node {config.node.name}",
        ("setting", "value"),
        (
            ("data_dir", config.node.data_dir),
            ("durability", config.node.durability),
            ("plugin folders", ", ".join(map(str, config.plugin_dirs))),
            ("store", config.store_url or "off"),
            ("code that blocks", blocking_words(config.watchdog)),
        ),
    )
    if config.failover is not None:
        _print_failover(config, config.failover, lease)
    print_table("accounts", ("name", "exchange"), ((a.name, a.exchange) for a in config.account))
    print_table(
        "instances",
        ("name", "plugin", "account", "symbols", "runs", "models", "start", "limits"),
        (
            (
                i.name,
                i.plugin,
                i.account,
                " ".join(i.symbols),
                runs_words(i),
                models_words(i),
                i.start,
                _limits(config, i.name, i.account, i.symbols),
            )
            for i in config.instance
        ),
    )


def _print_failover(config: NodeConfig, section: FailoverSection, lease: LeaseCheck) -> None:
    measured = "not asked" if lease.round_trip_ms is None else f"{lease.round_trip_ms:.1f} ms"
    print_table(
        f"failover, cell {section.cell}",
        ("setting", "value"),
        (
            ("ttl", f"{section.ttl_ms} ms"),
            ("lease store's round trip", measured),
            ("may lead", "yes" if section.may_lead else "no"),
            ("replicates at", section.replicate or "-"),
            ("peers", ", ".join(f"{name} at {address}" for name, address in section.peers.items()) or "none"),
            ("between nodes", "in the clear, on this machine" if section.tls is None else "TLS"),
            ("clients dial", config.control_address or "nothing"),
        ),
    )


def _limits(config: NodeConfig, instance: str, account: str, symbols: tuple[str, ...]) -> str:
    """Return the scopes that limit an instance, so that a forgotten one is seen."""
    scopes = [f"account {account}"] if account in config.risk.account else []
    scopes += [f"instance {instance}"] if instance in config.risk.instance else []
    scopes += [f"symbol {symbol}" for symbol in symbols if symbol in config.risk.symbol]
    return ", ".join(["node", *scopes])
