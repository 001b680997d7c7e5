"""`tandem plugin`: start a plugin of your own, and check one without running it."""

from pathlib import Path

import click
import msgspec

from host.cli._output import EXIT_FAILED, print_json, print_table

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
  tandem plugin check my_plugins/my_maker.py --json"""
)
@click.argument("path", metavar="FILE", type=click.Path(path_type=Path, exists=True))
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def check(path: Path, as_json: bool) -> None:
    """Load FILE (or a plugin folder) as the host would, and say what it offers or what is wrong.

    Exits with 0 when the host would take it, with 1 when not.
    """
    from host.loader import check_plugin

    report = check_plugin(path)
    if as_json:
        print_json({"ok": report.is_ok, **msgspec.to_builtins(report, enc_hook=str)})
    else:
        print_table(
            f"plugin {report.plugin} {report.digest[:12]}",
            ("check", "outcome", ">ms", "found"),
            ((stage.stage, stage.outcome, f"{stage.duration_ms:.1f}", stage.text) for stage in report.stages),
        )
        for problem in report.problems:
            click.echo(str(problem), err=True)
    if not report.is_ok:
        raise click.exceptions.Exit(EXIT_FAILED)
