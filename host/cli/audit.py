"""`tandem audit`: who did what to a node, and proof that nobody changed the record of it."""

import json
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from host.cli._options import config_options, data_dir_option, load_or_default, with_data_dir
from host.cli._output import EXIT_FAILED, Refused, print_json, print_table

if TYPE_CHECKING:
    from host.control.audit_chain import Anchor, AuditLine

__all__ = ["audit"]

FOLLOW_EVERY_S: Final = 0.2
_AGES: Final = {"m": "minutes", "h": "hours", "d": "days"}


class _Since(click.ParamType[str]):
    """A moment as UTC text that compares like the log's: from `2026-01-31`, a full time, or `2h` ago."""

    name = "time"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> str:
        text = str(value)
        try:
            if text[-1:] in _AGES and text[:-1].isdigit():
                moment = datetime.now(UTC) - timedelta(**{_AGES[text[-1]]: int(text[:-1])})
            else:
                moment = datetime.fromisoformat(text)
                moment = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
            return moment.replace(tzinfo=None).isoformat(timespec="microseconds") + "Z"
        except (ValueError, OverflowError):
            self.fail(f'expected a time such as 2h, 3d or 2026-01-31T14:00 (UTC), was "{text}"', param, ctx)


@click.group()
def audit() -> None:
    """Read the log of who did what over the control API, and prove that it is whole.

    A running node is never disturbed; nothing here writes to the log.
    """


@audit.command(
    epilog="""\b
Examples:
  tandem audit show --since 1d
  tandem audit show --follow
  tandem audit show --json | jq 'select(.outcome != "OK")'"""
)
@config_options
@data_dir_option
@click.option("--since", type=_Since(), help="Only records from then on: 2h, 3d, or a time in UTC.")
@click.option("--json", "as_json", is_flag=True, help="The log's own lines: one JSON object each.")
@click.option("--follow", is_flag=True, help="Go on with new records until Ctrl-C.")
def show(
    path: Path | None, env: str | None, data_dir: Path | None, since: str | None, as_json: bool, follow: bool
) -> None:
    """Print the records, one a line. Whether they are genuine is for `tandem audit verify` to say."""
    from host.control.audit_chain import decode_line

    folder = _folder(path, env, data_dir)
    if not folder.is_dir() and not follow:
        raise Refused(f"there is no audit log in {folder}: no control call was made to this node")
    for file, number, line in _lines(folder, follow=follow):
        try:
            record = decode_line(line)
        except ValueError as error:
            click.echo(f"{file} line {number}: {error}", err=True)
            continue
        if since is None or record.time >= since:
            click.echo(line if as_json else _rendered(record))


@audit.command()
@config_options
@data_dir_option
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def verify(path: Path | None, env: str | None, data_dir: Path | None, as_json: bool) -> None:
    """Check that no record was changed, left out, added, moved or cut off.

    Each record holds the hash of the one before, and the journal holds the hashes of records as they
    were written. Exits with 1 and names the first broken line where the two do not agree.
    """
    from host.control.audit_chain import verify as verify_chain

    config = with_data_dir(load_or_default(path, env).config, data_dir)
    report = verify_chain(_folder(path, env, data_dir), _anchors(config.journal_dir))
    if as_json:
        print_json(
            {
                "ok": report.is_sound,
                "records": report.records,
                "last": report.last_seq,
                "head": report.head,
                "anchors": report.anchors,
                "problem": report.problem,
                "note": report.note,
            }
        )
    else:
        print_table(
            "audit log",
            ("", "found"),
            (
                ("records", f"{report.records} ({report.first_seq} to {report.last_seq})"),
                ("compared with the journal", report.anchors),
                ("head", report.head),
            ),
        )
        for text in filter(None, (report.note, report.problem and f"broken: {report.problem}")):
            click.echo(text, err=True)
        click.echo("sound" if report.is_sound else "not sound")
    if not report.is_sound:
        raise click.exceptions.Exit(EXIT_FAILED)


def _folder(path: Path | None, env: str | None, data_dir: Path | None) -> Path:
    from host.control.audit_chain import AUDIT_FOLDER

    return with_data_dir(load_or_default(path, env).config, data_dir).node.data_dir / AUDIT_FOLDER


def _anchors(journal: Path) -> Iterator["Anchor"]:
    """Yield what the journal says the log was; nothing where there is no journal."""
    from host.control.audit_chain import Anchor
    from host.core.entries import AuditAnchored
    from host.journal import JournalPruned, read

    if not journal.is_dir():
        return
    try:
        records = read(journal)
        first = next(records, None)
    except JournalPruned as pruned:
        records = read(journal, pruned.first_lsn)
        first = next(records, None)
    for record in (*((first,) if first is not None else ()), *records):
        if isinstance(record.entry, AuditAnchored):
            yield Anchor(record.entry.seq, record.entry.hash)


def _lines(folder: Path, *, follow: bool) -> Iterator[tuple[Path, int, bytes]]:
    """Yield file, line number and line; with `follow` go on with what is written later."""
    from host.control.audit_chain import segments

    read_to: dict[Path, tuple[int, int]] = {}
    while True:
        for path in segments(folder):
            offset, number = read_to.get(path, (0, 0))
            with path.open("rb") as file:
                file.seek(offset)
                for line in file:
                    if not line.endswith(b"\n"):
                        break  # it is being written
                    offset, number = offset + len(line), number + 1
                    read_to[path] = offset, number
                    yield path, number, line[:-1]
        if not follow:
            return
        time.sleep(FOLLOW_EVERY_S)


def _rendered(record: "AuditLine") -> str:
    """Return one line for people: what a stranger sent is shown, not obeyed by the terminal."""
    who = f"{record.who or '?'}{f' ({record.role})' if record.role else ''}"
    words = [
        f"{record.seq:>6}",
        record.time,
        f"{record.outcome:<20}",
        who,
        f"from {record.from_}",
        record.method,
    ]
    words += [f"×{record.count}"] if record.count > 1 else []
    for name, value in (("request", record.request), ("before", record.before), ("after", record.after)):
        words += [f"{name}={json.dumps(value, separators=(',', ':'))}"] if value not in (None, {}, "") else []
    words += [f"- {record.detail}"] if record.detail else []
    text = " ".join(words)
    return text if text.isprintable() else json.dumps(text)
