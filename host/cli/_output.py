"""What all commands share: exit codes, tables for people and JSON for scripts."""

import ctypes
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from typing import Any, Final, TextIO

import click
import msgspec

from host.api import OrderRefused, TandemError

__all__ = [
    "EXIT_FAILED",
    "EXIT_REFUSED",
    "EXIT_USAGE",
    "Refused",
    "exit_code",
    "plugins_print_to_stderr",
    "print_json",
    "print_table",
]

EXIT_FAILED: Final = 1
EXIT_USAGE: Final = 2
EXIT_REFUSED: Final = 3

_STDOUT: Final = 1
_STDERR: Final = 2
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


@contextmanager
def plugins_print_to_stderr() -> Iterator[None]:
    """Keep standard output for what is printed afterwards: meanwhile everything else goes to standard error.

    For commands that run a plugin's code here and then print what a script reads. The descriptor is turned
    round as well as `sys.stdout`, because a plugin's libraries and child processes write to that.
    """
    if sys.__stdout__ is None:  # closed by whoever started this; the descriptor may be anything by now
        yield
        return
    _flush(sys.stdout, sys.__stdout__)
    kept = os.dup(_STDOUT)
    instead = os.open(os.devnull, os.O_WRONLY) if sys.__stderr__ is None else os.dup(_STDERR)
    try:
        os.dup2(instead, _STDOUT)
        with redirect_stdout(sys.stderr):
            yield
    finally:
        _flush(sys.__stdout__)
        os.dup2(kept, _STDOUT)
        os.close(kept)
        os.close(instead)


def _flush(*streams: TextIO) -> None:
    for stream in streams:
        stream.flush()
    ctypes.CDLL(None).fflush(None)  # what a library in C has printed waits in a buffer of its own


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
