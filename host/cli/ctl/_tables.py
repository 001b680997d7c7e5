"""Tables of what a node has: once, or kept up to date while somebody looks."""

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Sequence
from contextlib import aclosing
from typing import Any, Final

import click
from msgspec import Struct
from rich import box
from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from host.cli._output import print_json
from host.cli.ctl._words import as_json

__all__ = ["Change", "Listing", "print_rows", "table_of", "text_of", "watch", "watch_text"]

WIDTH_WITHOUT_TERMINAL: Final = 200
"""Wide enough that a redirected table is not cut."""
_STYLES: Final = {
    "RUNNING": "green", "PAUSED": "yellow", "STOPPED": "dim", "QUARANTINED": "bold red", "HALTED": "bold red",
    "BUY": "green", "SELL": "red", "REJECTED": "red", "UNKNOWN": "yellow", "REFUSED": "red",
    "ROLLED_BACK": "red", "STAGED": "yellow", "ACTIVE": "yellow", "PERMANENT": "green", "FAILED": "red",
}  # fmt: skip


class Listing(Struct, frozen=True):
    """How messages of one kind are shown. A column whose name starts with `>` is aligned to the right."""

    title: str
    """What they are called, in the plural."""
    columns: Sequence[str]
    row: Callable[[Any], Sequence[object]]
    is_over: Callable[[Any], bool] = lambda _message: False
    """Whether one is of no interest any more, once it has been seen: it leaves the table."""


class Change(Struct, frozen=True):
    """What a watch tells: `items` are all there are (`is_all`), or those that changed; `gone` are names."""

    items: Sequence[Any]
    is_all: bool = False
    gone: Sequence[str] = ()


def print_rows(listing: Listing, messages: Iterable[Any]) -> None:
    """Print a table."""
    console = Console()
    if not console.is_terminal:
        console = Console(width=WIDTH_WITHOUT_TERMINAL)
    console.print(table_of(listing, messages))


def text_of(listing: Listing, messages: Iterable[Any]) -> str:
    """Return a table as lines of text."""
    console = Console(width=WIDTH_WITHOUT_TERMINAL, no_color=True, highlight=False)
    with console.capture() as capture:
        console.print(table_of(listing, messages))
    return "\n".join(line.rstrip() for line in capture.get().splitlines())


def table_of(listing: Listing, messages: Iterable[Any]) -> Table:
    """Return a table of messages."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for column in listing.columns:
        right = column.startswith(">")
        table.add_column(column.removeprefix(">"), justify="right" if right else "left", overflow="fold")
    for message in messages:
        table.add_row(*map(_cell, listing.row(message)))
    return table


async def watch(
    listing: Listing, changes: AsyncGenerator[Change], *, is_json: bool, in_place: bool = True
) -> None:
    """Show what a watch tells until it ends: a table on a terminal, else a line for each that changed.

    With `is_json` each line is a JSON object, and what is gone is one with `removed` alone. Without
    `in_place` there are lines on a terminal too, for what happens and does not change.
    """
    async with aclosing(changes):
        if not is_json and in_place and Console().is_terminal:
            await _watch_on_terminal(listing, changes)
            return
        if not is_json:
            click.echo("  ".join(column.removeprefix(">") for column in listing.columns))
        async for change in changes:
            for item in change.items:
                if is_json:
                    print_json(as_json(item))
                else:
                    click.echo("  ".join(str(_cell(cell)) or "-" for cell in listing.row(item)))
            for name in change.gone:
                if is_json:
                    print_json({"removed": name})
                else:
                    click.echo(f"{name} is gone")


async def _watch_on_terminal(listing: Listing, changes: AsyncIterator[Change]) -> None:
    rows: dict[str, Any] = {}
    with Live(table_of(listing, ()), auto_refresh=False, screen=True) as live:
        async for change in changes:
            if change.is_all:
                rows.clear()
            for item in change.items:
                if listing.is_over(item):
                    rows.pop(item.name, None)
                else:
                    rows[item.name] = item
            for name in change.gone:
                rows.pop(name, None)
            live.update(table_of(listing, (rows[name] for name in sorted(rows))), refresh=True)


async def watch_text(texts: AsyncGenerator[str]) -> None:
    """Show each text in the place of the one before; one after another where there is no terminal."""
    async with aclosing(texts):
        if not Console().is_terminal:
            async for text in texts:
                click.echo(text)
            return
        with Live(auto_refresh=False, screen=True) as live:
            async for text in texts:
                live.update(_cell_of_lines(text), refresh=True)


def _cell_of_lines(text: str) -> Text:
    return Text("\n").join(_cell(line) for line in text.splitlines())


def _cell(value: object) -> Text:
    """Return a cell: what plugins and venues wrote is shown, not obeyed by the terminal."""
    text = str(value)
    if not text.isprintable():
        text = "".join(char if char.isprintable() else "�" for char in text)
    return Text(text, style=_STYLES.get(text, ""))
