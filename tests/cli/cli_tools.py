"""Runs the `tandem` command in this process."""

from pathlib import Path

from click.testing import CliRunner, Result

from host.cli import main


def tandem(*arguments: str | Path, stdin: str | None = None) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments], input=stdin)
