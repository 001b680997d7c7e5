"""`tandem journal`: look at, prove and export what a node did."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click
import msgspec

from host.cli._options import config_options, data_dir_option, journal_folder
from host.cli._output import EXIT_FAILED, Refused, print_json, print_table

if TYPE_CHECKING:
    from host.core.entries import Record
    from host.core.state import TradingState

__all__ = ["journal"]

FOLLOW_EVERY_S: Final = 0.2

F = TypeVar("F", bound=Callable[..., object])


def _where(command: F) -> F:
    return config_options(data_dir_option(command))


@click.group(short_help="Look at, prove and export the journal.")
def journal() -> None:
    """Look at, prove and export the journal: every change of trading state, in order.

    A running node is never disturbed; nothing here writes to the journal.
    """


@journal.command(
    epilog="""\b
Examples:
  tandem journal dump --follow
  tandem journal dump --type place_sent --type reported --instance mm-btc
  tandem journal dump --from 1000 --to 1100 --json"""
)
@_where
@click.option("--from", "first", type=click.IntRange(1), help="First LSN. [default: the oldest there is]")
@click.option("--to", "last", type=click.IntRange(1), help="Last LSN. [default: the newest]")
@click.option("--type", "kinds", multiple=True, help="Only entries of this type; may be repeated.")
@click.option("--instance", help="Only what concerns this instance, its orders' reports included.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line, fields by name.")
@click.option("--follow", is_flag=True, help="Go on with new entries until Ctrl-C or --to.")
def dump(
    path: Path | None,
    env: str | None,
    data_dir: Path | None,
    first: int | None,
    last: int | None,
    kinds: tuple[str, ...],
    instance: str | None,
    as_json: bool,
    follow: bool,
) -> None:
    """Print entries, one a line."""
    from host.journal import describe, render

    select = _Selection(first, last, kinds, instance)
    for record in _records(journal_folder(path, env, data_dir), first if instance is None else None, follow):
        if last is not None and record.lsn > last:
            break
        if select.takes(record):
            click.echo(msgspec.json.encode(describe(record)) if as_json else render(record))


@journal.command()
@_where
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def verify(path: Path | None, env: str | None, data_dir: Path | None, as_json: bool) -> None:
    """Check every checksum, sequence number and snapshot; print the digest of all entries.

    Two runs that did the same have the same digest. Exits with 1 where something is damaged. An
    incomplete last entry is what a killed process leaves, and no damage.
    """
    from host.journal import verify as verify_journal

    folder = journal_folder(path, env, data_dir)
    report = verify_journal(folder)
    if as_json:
        print_json({"ok": report.is_sound, **msgspec.to_builtins(report)})
    else:
        rows = msgspec.to_builtins(report).items()
        print_table(
            f"journal {folder}",
            ("", "found"),
            ((name.replace("_", " "), _plain(value)) for name, value in rows if name != "problems"),
        )
        for problem in report.problems:
            click.echo(f"damaged: {problem}", err=True)
        click.echo("sound" if report.is_sound else f"{len(report.problems)} problems")
    if not report.is_sound:
        raise click.exceptions.Exit(EXIT_FAILED)


@journal.command(
    epilog="""\b
Examples:
  tandem journal export var/tandem.jsonl
  tandem journal export - | jq 'select(.entry == "alert")'"""
)
@_where
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False, allow_dash=True))
@click.option("--force", is_flag=True, help="Replace FILE if it exists.")
def export(path: Path | None, env: str | None, data_dir: Path | None, file: Path, force: bool) -> None:
    """Write all entries to FILE as JSON lines (- is standard output)."""
    from host.journal import describe

    records = _records(journal_folder(path, env, data_dir), None, follow=False)
    to_stdout = str(file) == "-"
    if not to_stdout and file.exists() and not force:
        raise Refused(f"{file} exists; name another file, or replace it with --force")
    count = 0
    with click.open_file(str(file), "wb") as out:
        for count, record in enumerate(records, 1):  # noqa: B007 - the last one is the count
            out.write(msgspec.json.encode(describe(record)) + b"\n")
    if not to_stdout:
        click.echo(f"{count} entries written to {file}")


@journal.command()
@_where
@click.option("--to", "last", type=click.IntRange(1), help="Stop after this LSN: the state at that moment.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def replay(
    path: Path | None, env: str | None, data_dir: Path | None, last: int | None, as_json: bool
) -> None:
    """Work out the trading state that the journal leads to, and print it.

    Each state digest on the way is compared; exits with 1 where one differs.
    """
    state, checked, differing = _fold(journal_folder(path, env, data_dir), last)
    if as_json:
        print_json(
            {
                "ok": not differing,
                "digests_checked": checked,
                "digests_differing": differing,
                **_summary(state),
            }
        )
    else:
        _print_state(state)
        click.echo(f"state digest {state.digest()}; {checked} digests on the way checked")
        for lsn in differing:
            click.echo(f"entry {lsn}: the digest written here is not that of this state", err=True)
    if differing:
        raise click.exceptions.Exit(EXIT_FAILED)


class _Selection:
    """Which records a dump shows. Has to see all of them: reports name an order, not its instance."""

    def __init__(
        self, first: int | None, last: int | None, kinds: tuple[str, ...], instance: str | None
    ) -> None:
        self._first = first or 1
        self._kinds = _known(kinds)
        self._instance = instance
        self._orders: set[str] = set()

    def takes(self, record: "Record") -> bool:
        entry = record.entry
        if self._instance is not None and not self._concerns(entry):
            return False
        kind = type(entry).__struct_config__.tag
        return record.lsn >= self._first and (not self._kinds or kind in self._kinds)

    def _concerns(self, entry: Any) -> bool:
        inner = (
            getattr(entry, "report", None) or getattr(entry, "order", None) or getattr(entry, "fill", None)
        )
        client_id = getattr(entry, "client_id", "") or getattr(inner, "client_id", "")
        named = getattr(entry, "instance", None) or getattr(inner, "instance", None)
        if named == self._instance:
            self._orders |= {client_id} - {""}
            return True
        return client_id in self._orders


def _known(kinds: tuple[str, ...]) -> frozenset[str]:
    from typing import get_args

    from host.core.entries import Entry

    known = {str(entry.__struct_config__.tag) for entry in get_args(Entry)}
    for kind in kinds:
        if kind not in known:
            raise click.BadParameter(
                f'"{kind}" is no entry type; there are {", ".join(sorted(known))}', param_hint="--type"
            )
    return frozenset(kinds)


def _records(folder: Path, first: int | None, follow: bool) -> Iterator["Record"]:
    """Yield records from `first`, or from the oldest that was not pruned."""
    from host.journal import Follower, JournalPruned

    try:
        follower = Follower(folder, first or 1)
        records = follower.poll()
    except JournalPruned as pruned:
        if first is not None:
            raise
        follower = Follower(folder, pruned.first_lsn)
        records = follower.poll()
    with follower:
        while records or follow:
            yield from records
            if not records:
                time.sleep(FOLLOW_EVERY_S)
            records = follower.poll()


def _fold(folder: Path, last: int | None) -> tuple["TradingState", int, list[int]]:
    """Return the state after `last`, how many digests were compared, and the LSNs of wrong ones."""
    from host.core.entries import StateDigest
    from host.core.state import TradingState
    from host.journal import JournalPruned, read
    from host.journal._snapshots import latest_snapshot

    state = TradingState()
    checked, differing = 0, []
    records = read(folder)
    try:
        record = next(records, None)
    except JournalPruned:
        snapshot = latest_snapshot(folder)
        if snapshot is None:
            raise
        if last is not None and last < snapshot.lsn:
            raise Refused(
                f"the entries before {snapshot.lsn} are pruned; --to can be {snapshot.lsn} or later"
            ) from None
        state = TradingState.decode(snapshot.data)
        records = read(folder, snapshot.lsn + 1)
        record = next(records, None)
    while record is not None and (last is None or record.lsn <= last):
        if isinstance(record.entry, StateDigest):
            checked += 1
            if record.entry.digest != state.digest():
                differing.append(record.lsn)
        state.apply(record.lsn, record.ts_ns, record.entry)
        record = next(records, None)
    return state, checked, differing


def _summary(state: "TradingState") -> dict[str, Any]:
    return {
        "node": state.node,
        "epoch": state.epoch,
        "lsn": state.lsn,
        "ts_ns": state.ts_ns,
        "digest": state.digest(),
        "instances": {name: record.state for name, record in state.instances.items()},
        "orders": list(state.orders.values()),
        "positions": {
            instance: {symbol: state.position(instance, symbol) for symbol in holdings}
            for instance, holdings in state.holdings.items()
        },
        "fees": {
            instance: {symbol: holding.fees for symbol, holding in holdings.items()}
            for instance, holdings in state.holdings.items()
        },
        "balances": state.balances,
        "kill_switches": state.kill_switches,
        "anomalies": state.anomalies,
    }


def _print_state(state: "TradingState") -> None:
    click.echo(f"node {state.node}, epoch {state.epoch}, after entry {state.lsn}")
    print_table(
        "instances",
        ("instance", "plugin", "version", "account", "state", "reason"),
        (
            (r.instance, r.plugin, r.digest[:8], r.account, r.state, r.reason)
            for r in state.instances.values()
        ),
    )
    print_table(
        f"live orders ({len(state.orders)})",
        ("client id", "instance", "symbol", "side", ">price", ">qty", ">filled", "status"),
        (
            (o.client_id, o.instance, o.symbol, o.side, o.price, o.qty, o.filled, o.status)
            for o in state.orders.values()
        ),
    )
    positions = [
        (instance, state.position(instance, symbol), holding)
        for instance, holdings in state.holdings.items()
        for symbol, holding in holdings.items()
    ]
    print_table(
        "positions",
        ("instance", "symbol", ">quantity", ">average price", ">realised", ">fees", ">fills"),
        (
            (name, p.symbol, p.qty, f"{p.average_price:.8g}", f"{p.realised:.8f}", _plain(h.fees), h.fills)
            for name, p, h in positions
        ),
    )
    print_table(
        "balances",
        ("account", "currency", ">total"),
        (
            (account, currency, total)
            for account, held in state.balances.items()
            for currency, total in held.items()
        ),
    )


def _plain(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{amount} {name}" for name, amount in value.items()) or "none"
    if isinstance(value, (list, tuple)):
        return ", ".join(map(str, value)) or "none"
    return "none" if value is None else str(value)
