"""What all commands share: exit codes, tables for people and JSON for scripts."""

from collections.abc import Iterable, Sequence
from typing import Any, Final

import click
import msgspec

from host.api import OrderRefused, TandemError

__all__ = ["EXIT_FAILED", "EXIT_REFUSED", "EXIT_USAGE", "Refused", "exit_code", "print_json", "print_table"]

EXIT_FAILED: Final = 1
EXIT_USAGE: Final = 2
EXIT_REFUSED: Final = 3

_WIDTH_WITHOUT_TERMINAL: Final = 160
"""Wide enough that a redirected table is not cut."""


class Refused(TandemError):  # noqa: N818 - a refusal is an answer, not a malfunction
    """The command could do harm as it was given; its message says how to make it safe."""


def exit_code(error: TandemError) -> int:
    """Return what the process should exit with after `error`."""
    # Imported here: only a failing command needs to know these.
    from failover.lease import LeaseConfigError
    from failover.replication import ReplicationConfigError
    from host.client import AddressInvalid, CredentialsUnusable
    from host.config import ConfigError
    from host.config.private_files import NotPrivate
    from host.control.listen import ListenRefused
    from host.control.tls import TlsError
    from host.journal import JournalLocked
    from host.loader import ParamsInvalid, ScaffoldRefused, UnknownPlugin
    from host.pair.faults import ScriptInvalid
    from host.pair.plan import FolderRefused

    usage = (
        AddressInvalid,
        ConfigError,
        CredentialsUnusable,
        ListenRefused,
        ParamsInvalid,
        ScriptInvalid,
        TlsError,
    )
    if isinstance(error, (*usage, UnknownPlugin, LeaseConfigError, ReplicationConfigError)):
        return EXIT_USAGE
    if isinstance(error, (Refused, FolderRefused, NotPrivate, OrderRefused, JournalLocked, ScaffoldRefused)):
        return EXIT_REFUSED
    return EXIT_FAILED


def print_json(value: Any, *, err: bool = False) -> None:
    """Print `value` as JSON on one line; what JSON does not know becomes text."""
    click.echo(msgspec.json.encode(value, enc_hook=str), err=err)


def print_table(title: str, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print a table; a column whose name starts with `>` is aligned to the right."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title or None, box=box.SIMPLE_HEAD, title_justify="left", title_style="bold")
    for column in columns:
        table.add_column(column.removeprefix(">"), justify="right" if column.startswith(">") else "left")
    for row in rows:
        table.add_row(*(str(cell) for cell in row))
    console = Console()
    if not console.is_terminal:
        console = Console(width=_WIDTH_WITHOUT_TERMINAL)
    console.print(table)
