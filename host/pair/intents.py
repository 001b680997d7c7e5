"""What the nodes meant to send, read from their journals as these grow.

An order is in its leader's journal before it leaves, and in the standbys' soon after. One epoch has one
writer, so an epoch and an LSN name one entry, in however many journals it is; two that differ are a
fault of replication. What a deposed leader's journal lost to a new epoch was set aside, and counts: the
order left, whatever became of the entry.
"""

from bisect import bisect_right
from collections.abc import Iterable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Final

from msgspec import Struct

from host.core import entries as e
from host.core.client_id import parse_client_id
from host.journal import Follower, JournalError

__all__ = ["PREFIX", "AmendKey", "Intent", "IntentBook", "Slot", "epoch_of"]

PREFIX: Final = "td"
"""How the client order ids of a node begin."""
AT_A_TIME: Final = 2_000
YIELDING: Final = "yielding"
"""The alert of a leader that hands over because a standby does better."""
REMEMBERED: Final = 200_000
"""So many of the latest intents are kept; a standby that was away for longer is not held to the older ones."""

Slot = tuple[str, str, str, int]
"""A quote's place: instance, symbol, side and level. One order at a time may be there."""
AmendKey = tuple[str, Decimal | None, Decimal]
"""Client id, price and quantity."""


class Intent(Struct, frozen=True):
    """One order that was about to leave, or one amend of an order. `epoch` is who sent it."""

    epoch: int
    lsn: int
    ts_ns: int
    client_id: str
    slot: Slot | None = None
    """Of an order that a quote asked for."""


class IntentBook:
    """All intents of the journals in `folders`, each once; `catch_up` reads on."""

    def __init__(self, folders: Iterable[Path]) -> None:
        self.places: dict[str, Intent] = {}
        self.amends: dict[AmendKey, list[Intent]] = {}
        self.leaders: dict[int, str] = {}
        """Which node began each epoch."""
        self.yielded: dict[int, str] = {}
        """Why the leader of an epoch handed over by itself."""
        self.faults: list[str] = []
        """Journals that contradict each other, each in a sentence."""
        self._seen: dict[tuple[int, int], e.Entry] = {}
        self._journals: Final = [_Journal(folder) for folder in folders]

    def catch_up(self) -> bool:
        """Read all that was written since the last time; return whether every journal could be read to its end."""
        for journal in self._journals:
            for epoch, record in journal.read_on():
                self._take(epoch, record, journal.folder)
        if len(self._seen) > 2 * REMEMBERED:
            self._forget()
        return all(journal.is_read for journal in self._journals)

    def close(self) -> None:
        """Let go of the files."""
        for journal in self._journals:
            journal.close()

    def _take(self, epoch: int, record: e.Record, folder: Path) -> None:
        entry = record.entry
        known = self._seen.setdefault((epoch, record.lsn), entry)
        if known is not entry:
            if known != entry:
                self.faults.append(f"entry {record.lsn} of epoch {epoch} differs in {folder}")
            return
        if isinstance(entry, e.NodeStarted):
            if self.leaders.setdefault(epoch, entry.node) != entry.node:
                self.faults.append(f"epoch {epoch} was begun by {self.leaders[epoch]} and by {entry.node}")
        elif isinstance(entry, e.Alert):
            self.yielded[epoch] = entry.text
        elif isinstance(entry, e.PlaceSent):
            slot = (entry.instance, entry.symbol, entry.side.value, entry.slot) if entry.slot >= 0 else None
            intent = Intent(epoch, record.lsn, record.ts_ns, entry.client_id, slot)
            if entry.client_id in self.places:
                self.faults.append(f"entry {record.lsn} of epoch {epoch}: {entry.client_id} was used before")
            self.places[entry.client_id] = intent
        elif isinstance(entry, e.AmendSent):
            for change in entry.changes:
                key = (change.client_id, change.price, change.qty)
                intent = Intent(epoch, record.lsn, record.ts_ns, change.client_id)
                self.amends.setdefault(key, []).append(intent)

    def _forget(self) -> None:
        for key in list(self._seen)[:REMEMBERED]:
            del self._seen[key]
        oldest_ns = min((record.ts_ns for record in list(self.places.values())[-1000:]), default=0)
        for amend in [key for key, same in self.amends.items() if not same or same[-1].ts_ns < oldest_ns]:
            del self.amends[amend]


class _Journal:
    """One node's journal, and what was set aside of it."""

    def __init__(self, folder: Path) -> None:
        self.folder: Final = folder
        self._follower: Follower | None = None
        self._epochs: list[tuple[int, int]] = []
        """The first LSN of each epoch, and the epoch."""
        self._set_aside: set[Path] = set()
        self._inode = 0
        self.is_read = True
        """Whether the last look came to the end of it."""

    def read_on(self) -> Iterator[tuple[int, e.Record]]:
        """Yield each entry that is an intent or begins an epoch, with the epoch that it belongs to."""
        yield from self._read_set_aside()
        try:
            if self._follower is None or self._is_replaced():
                self._open(_first_lsn(self.folder))
            while self._follower is not None and (records := self._follower.poll(AT_A_TIME)):
                yield from self._intents(records)
        except (JournalError, FileNotFoundError):
            # It is being cut, replaced or pruned under us: begin anew with what is there next time.
            self.close()
            self.is_read = False
        else:
            self.is_read = True

    def close(self) -> None:
        follower, self._follower = self._follower, None
        if follower is not None:
            follower.close()

    def _open(self, lsn: int) -> None:
        """Read on from `lsn`; with 0 there is nothing yet."""
        self.close()
        if lsn:
            self._inode = self.folder.stat().st_ino
            self._follower = Follower(self.folder, lsn)

    def _is_replaced(self) -> bool:
        """Return whether another journal has come in the place of the one that is open, as after a snapshot."""
        return self.folder.stat().st_ino != self._inode

    def _read_set_aside(self) -> Iterator[tuple[int, e.Record]]:
        places = set(self.folder.with_name(f"{self.folder.name}.aside").glob("*")) - self._set_aside
        for place in sorted(places):
            first_lsn = _first_lsn(place)
            if not first_lsn:
                continue  # it is being written
            try:
                with Follower(place, first_lsn) as follower:
                    while records := follower.poll(AT_A_TIME):
                        yield from self._intents(records)
            except JournalError:
                continue
            self._set_aside.add(place)
            # What comes in the place of these entries has the same numbers.
            self._epochs = [known for known in self._epochs if known[0] < first_lsn]
            self._open(max(first_lsn, _first_lsn(self.folder)))

    def _intents(self, records: list[e.Record]) -> Iterator[tuple[int, e.Record]]:
        for record in records:
            entry = record.entry
            if isinstance(entry, e.NodeStarted):
                self._epochs = [known for known in self._epochs if known[0] < record.lsn]
                self._epochs.append((record.lsn, entry.epoch))
            elif isinstance(entry, e.Alert):
                if entry.kind != YIELDING:
                    continue
            elif not isinstance(entry, e.PlaceSent | e.AmendSent):
                continue
            yield self._epoch_at(record), record

    def _epoch_at(self, record: e.Record) -> int:
        at = bisect_right(self._epochs, record.lsn, key=lambda known: known[0]) - 1
        if at >= 0:
            return self._epochs[at][1]
        # The entry that began the epoch was pruned, or came as a snapshot.
        entry = record.entry
        return epoch_of(entry.client_id) if isinstance(entry, e.PlaceSent) else 0


def _first_lsn(journal: Path) -> int:
    """Return the first entry that a journal's files hold, which the first file is named for; 0: none."""
    return min((int(path.stem) for path in journal.glob("*.seg")), default=0)


def epoch_of(client_id: str) -> int:
    """Return the epoch that a client order id was made in; 0 for one that is not a node's."""
    parsed = parse_client_id(client_id, PREFIX)
    return 0 if parsed is None else parsed.epoch
