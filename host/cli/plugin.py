"""`tandem plugin`: start a plugin of your own, check one without running it, see what became of one."""

from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import msgspec

from host.cli._options import config_options, data_dir_option, journal_folder
from host.cli._output import EXIT_FAILED, plugins_print_to_stderr, print_json, print_table

if TYPE_CHECKING:
    from host.core.entries import Record
    from host.loader import CheckReport
    from host.runtime.rehearsal import Rehearsal

__all__ = ["plugin"]


@click.group()
def plugin() -> None:
    """Write and check plugins."""


@plugin.command(
    epilog="""\b
Examples:
  tandem plugin new strategy my_maker
  tandem plugin new model my_skew --dir my_plugins/models"""
)
@click.argument("kind", type=click.Choice(["strategy", "exchange", "model"]))
@click.argument("name")
@click.option(
    "--dir",
    "folder",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("my_plugins"),
    show_default=True,
    help="Folder for the file; name it in node.plugin_dirs.",
)
def new(kind: str, name: str, folder: Path) -> None:
    """Write a working plugin of KIND named NAME for you to change."""
    from host.loader import scaffold

    created = scaffold(kind, name, folder)
    for path in created:
        click.echo(path)


@plugin.command(
    epilog="""\b
Examples:
  tandem plugin check my_plugins/my_maker.py
  tandem plugin check my_plugins/my_maker.py --json
  tandem plugin check my_plugins/my_maker.py --replay data/btc --minutes 2 --param size=0.02"""
)
@click.argument("path", metavar="FILE", type=click.Path(path_type=Path, exists=True))
@click.option(
    "--replay",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="Also run it, muted, over a recording: all that a reload does before a version goes live.",
)
@click.option(
    "--minutes",
    type=click.FloatRange(min=0, min_open=True),
    default=5.0,
    show_default=True,
    help="How much of the recording.",
)
@click.option("--param", "params", multiple=True, metavar="KEY=VALUE", help="A parameter; may be repeated.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def check(path: Path, replay: Path | None, minutes: float, params: tuple[str, ...], as_json: bool) -> None:
    """Load FILE (or a plugin folder) as the host would, and say what it offers or what is wrong.

    With --replay it hears a recorded market and is timed; nothing it wants is traded. Exits with 0
    when the host would take it, with 1 when not.
    """
    from host.loader import check_plugin

    table = _params(params)
    with plugins_print_to_stderr():
        report = check_plugin(path)
        rehearsals = _rehearse(path, replay, minutes, table) if replay is not None and report.is_ok else []
    is_ok = report.is_ok and all(rehearsal.is_ok for rehearsal in rehearsals)
    if as_json:
        found = {"ok": is_ok, **msgspec.to_builtins(report, enc_hook=str)}
        print_json(found if replay is None else {**found, "rehearsals": rehearsals})
    else:
        _print_check(report, rehearsals)
    if not is_ok:
        raise click.exceptions.Exit(EXIT_FAILED)


def _params(params: tuple[str, ...]) -> dict[str, Any]:
    from host.config.sources import typed_value

    for param in params:
        if "=" not in param:
            raise click.BadParameter(f'expected KEY=VALUE, was "{param}"', param_hint="--param")
    return {name: typed_value(value) for name, _, value in (param.partition("=") for param in params)}


def _rehearse(path: Path, replay: Path, minutes: float, params: dict[str, Any]) -> "list[Rehearsal]":
    """Run everything that a plugin offers over the beginning of a recording."""
    from host.api import TandemError
    from host.loader import Catalog, capture
    from host.runtime.rehearsal import Rehearsal, rehearse
    from venue.recording import Recording

    recording = Recording.open(replay)
    until_ns = recording.first_ns + int(minutes * 60e9)
    catalog = Catalog()
    rehearsals = []
    try:
        for offer in catalog.add(capture(path)):
            events = takewhile(lambda event: event.ts_recv <= until_ns, recording.events())
            try:
                rehearsal = rehearse(offer, params, recording.instrument, events)
            except TandemError as error:
                rehearsal = Rehearsal(kind=offer.kind, offer=offer.name, refusal=str(error))
            if rehearsal is not None:
                rehearsals.append(rehearsal)
    finally:
        catalog.close()
    return rehearsals


def _print_check(report: "CheckReport", rehearsals: "list[Rehearsal]") -> None:
    print_table(
        f"plugin {report.plugin} {report.digest[:12]}",
        ("check", "outcome", ">ms", "found"),
        ((stage.stage, stage.outcome, f"{stage.duration_ms:.1f}", stage.text) for stage in report.stages),
    )
    for problem in report.problems:
        click.echo(str(problem), err=True)
    if rehearsals:
        print_table(
            "muted run",
            ("offer", "outcome", ">events", ">callbacks", ">intents", ">mean µs", ">p99 µs", ">slowest µs"),
            (
                (
                    f"{one.kind} {one.offer}",
                    "passed" if one.is_ok else "failed",
                    f"{one.events:,}",
                    f"{one.callbacks:,}",
                    f"{one.intents:,}",
                    f"{one.mean_us:.1f}",
                    f"{one.p99_us:.1f}",
                    f"{one.slowest_us:.1f}",
                )
                for one in rehearsals
            ),
        )
    for one in rehearsals:
        if one.refusal:
            click.echo(f"{one.kind} {one.offer}: {one.refusal}", err=True)


@plugin.command(
    epilog="""\b
Examples:
  tandem plugin history two_sided
  tandem plugin history my_maker --data-dir var/a --json"""
)
@click.argument("name")
@config_options
@data_dir_option
@click.option("--json", "as_json", is_flag=True, help="One JSON object: plugin, versions, events.")
def history(name: str, path: Path | None, env: str | None, data_dir: Path | None, as_json: bool) -> None:
    """Print which versions of plugin NAME there were, each stage they passed, and what became of them.

    Reads the journal, as far back as it was not pruned; a running node is not disturbed.
    """
    from host.cli._plugin_history import read_history

    found, known = read_history(name, _records(journal_folder(path, env, data_dir)))
    if not found.events:
        names = ", ".join(sorted(known)) or "none"
        raise click.UsageError(f'the journal speaks of no plugin "{name}"; it speaks of {names}')
    if as_json:
        print_json(found)
        return
    print_table(
        f"plugin {name}{'' if found.is_auto else ', automatic reload is off'}",
        ("version", "since (UTC)", "state", "instances", "reason"),
        (
            (v.digest[:12], _time(v.since_ns), v.state, ", ".join(v.instances) or "-", v.reason)
            for v in found.versions
        ),
    )
    print_table(
        "what happened",
        ("time (UTC)", "version", "what", ">ms", "detail"),
        (
            (
                _time(event.ts_ns),
                event.digest[:12],
                event.what,
                "" if event.duration_us is None else f"{event.duration_us / 1e3:.1f}",
                event.detail,
            )
            for event in found.events
        ),
    )


def _records(folder: Path) -> "Iterator[Record]":
    from host.journal import JournalPruned, read

    try:
        yield from read(folder)
    except JournalPruned as pruned:
        yield from read(folder, pruned.first_lsn)


def _time(ts_ns: int) -> str:
    return datetime.fromtimestamp(ts_ns / 1e9, UTC).strftime("%Y-%m-%d %H:%M:%S.%f")[:-3]
