"""What the nodes of a cell meant to send: every order and amend that any of their journals holds.

A journal that lost its tail to a new epoch counts with what was set aside of it: the order left, whatever
became of the entry. One epoch has one writer, so an epoch and an LSN name one entry, in however many
journals it is; two that differ are a fault of replication.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from decimal import Decimal
from pathlib import Path

from msgspec import Struct

from host.core import entries as e
from host.core.client_id import parse_client_id
from host.journal import Follower, JournalError

__all__ = ["PREFIX", "Intent", "IntentBook", "Slot"]

PREFIX = "td"
"""How the client order ids of a node begin."""

Slot = tuple[str, str, str, int]
"""A quote's place: instance, symbol, side and level. One order at a time may be there."""


class Intent(Struct, frozen=True):
    """One order that was about to leave, or one amend of an order. `epoch` is who sent it."""

    epoch: int
    lsn: int
    ts_ns: int
    client_id: str
    price: Decimal | None
    qty: Decimal
    slot: Slot | None = None
    """Of an order that a quote asked for."""


class IntentBook:
    """All intents of the journals in `folders`, each once."""

    def __init__(self, folders: Iterable[Path]) -> None:
        self.places: dict[str, Intent] = {}
        self.amends: defaultdict[tuple[str, Decimal, Decimal], list[Intent]] = defaultdict(list)
        """By client id, price and quantity; the latest epoch last."""
        self.leaders: dict[int, str] = {}
        """Which node began each epoch."""
        self.faults: list[str] = []
        self._seen: dict[tuple[int, int], e.Entry] = {}
        for folder in folders:
            for journal in (folder, *sorted(folder.with_name(f"{folder.name}.aside").glob("*"))):
                self._read(journal, folder)
        for same in self.amends.values():
            same.sort(key=lambda intent: (intent.epoch, intent.lsn))

    def _read(self, journal: Path, main: Path) -> None:
        epoch = 0 if journal == main else _epoch_before(journal, main)
        for record in _records(journal):
            entry = record.entry
            if isinstance(entry, e.NodeStarted):
                epoch = entry.epoch
            elif isinstance(entry, e.PlaceSent) and not epoch:
                # The entry that began the epoch was pruned, or came as a snapshot.
                epoch = _epoch_of(entry.client_id)
            if not isinstance(entry, e.NodeStarted | e.PlaceSent | e.AmendSent):
                continue
            known = self._seen.setdefault((epoch, record.lsn), entry)
            if known is not entry:
                if known == entry:
                    continue
                self.faults.append(f"entry {record.lsn} of epoch {epoch} differs in {journal}")
            self._take(epoch, record, entry)

    def _take(self, epoch: int, record: e.Record, entry: e.NodeStarted | e.PlaceSent | e.AmendSent) -> None:
        if isinstance(entry, e.NodeStarted):
            if self.leaders.setdefault(epoch, entry.node) != entry.node:
                self.faults.append(f"epoch {epoch} was begun by {self.leaders[epoch]} and by {entry.node}")
        elif isinstance(entry, e.PlaceSent):
            slot = (entry.instance, entry.symbol, entry.side.value, entry.slot) if entry.slot >= 0 else None
            intent = Intent(epoch, record.lsn, record.ts_ns, entry.client_id, entry.price, entry.qty, slot)
            if entry.client_id in self.places:
                self.faults.append(f"entry {record.lsn} of epoch {epoch}: {entry.client_id} was used before")
            self.places[entry.client_id] = intent
        else:
            for change in entry.changes:
                key = (change.client_id, change.price, change.qty)
                self.amends[key].append(Intent(epoch, record.lsn, record.ts_ns, *key))


def _records(journal: Path) -> Iterator[e.Record]:
    first_lsn = _first_lsn(journal)
    if not first_lsn:
        return
    with Follower(journal, first_lsn) as follower:
        while records := follower.poll():
            yield from records


def _first_lsn(journal: Path) -> int:
    """Return the first entry that a journal's files hold, which the first file is named for; 0: none."""
    return min((int(path.stem) for path in journal.glob("*.seg")), default=0)


def _epoch_before(aside: Path, main: Path) -> int:
    """Return the epoch in which entries that were set aside begin, by what precedes them in the journal."""
    first_lsn, epoch = _first_lsn(aside), 0
    try:
        for record in _records(main):
            if record.lsn >= first_lsn:
                break
            if isinstance(record.entry, e.NodeStarted):
                epoch = record.entry.epoch
    except JournalError:
        return 0  # it was replaced by a snapshot of something later
    return epoch


def _epoch_of(client_id: str) -> int:
    parsed = parse_client_id(client_id, PREFIX)
    return 0 if parsed is None else parsed.epoch
