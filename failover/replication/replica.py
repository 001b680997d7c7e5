"""What a standby holds: its journal, which nobody but the stream writes to, and the state folded from it."""

import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Final, Self

from msgspec import Struct

from failover.replication.errors import Reason, StreamBroken
from failover.replication.history import History, eras_from, history_of
from host.core import entries as e
from host.core.state import Outcome, TradingState
from host.journal import (
    DEFAULT_SEGMENT_BYTES,
    Durability,
    Journal,
    JournalCorrupt,
    JournalError,
    JournalPruned,
    KeptAside,
    cut_tail,
    decode,
    frame_crc,
    read,
    replace_journal,
)

__all__ = ["Difference", "Replica"]

_FRAME_HEAD: Final = 8  # length and checksum, before the payload


class Difference(Struct, frozen=True):
    """A state digest in the journal that is not that of the state folded here."""

    lsn: int
    expected: str
    found: str


class Replica:
    """A standby's journal and state, open until `close`, or until a takeover goes on with both.

    `on_record(record, outcome)` is called for each entry that `fold` takes in. `kept_aside` are the entries that
    were taken out because the primary's history does not have them, oldest first.
    """

    def __init__(
        self,
        folder: Path,
        journal: Journal,
        segment_bytes: int,
        on_record: Callable[[e.Record, Outcome | None], object] | None,
        unix_ns: Callable[[], int],
    ) -> None:
        self.folder: Final = folder
        self.node: Final = journal.node
        self.cell: Final = journal.cell
        self.journal = journal
        self.state = TradingState()
        self.difference: Difference | None = None
        """Where this state was first found not to be the primary's."""
        self.compared_lsn = 0
        """The latest digest of the primary's state that this one was compared with; 0: none yet."""
        self.kept_aside: list[KeptAside] = []
        self._durability: Durability = journal.durability
        self._segment_bytes = segment_bytes
        self._on_record = on_record
        self._unix_ns = unix_ns
        self._unapplied: deque[bytes] = deque()
        self.unapplied_bytes = 0
        """How much was taken and not folded yet."""
        self._history = History((), 0)
        self._known_lsn = 0
        """Up to where it is known in `_history` who wrote what."""
        self._recover()

    @classmethod
    def open(
        cls,
        folder: str | Path,
        *,
        node: str,
        cell: str,
        durability: Durability = "process",
        segment_bytes: int = DEFAULT_SEGMENT_BYTES,
        on_record: Callable[[e.Record, Outcome | None], object] | None = None,
        unix_ns: Callable[[], int] = time.time_ns,
    ) -> Self:
        """Take up the journal in `folder`, or create it, and fold it; raises what `Journal.open` raises."""
        journal = Journal.open(
            folder, node=node, cell=cell, durability=durability, segment_bytes=segment_bytes
        )
        try:
            return cls(Path(folder), journal, segment_bytes, on_record, unix_ns)
        except BaseException:
            journal.close()
            raise

    # -- what it holds ---------------------------------------------------------------------------

    @property
    def held_lsn(self) -> int:
        """Return the last entry that is written here."""
        return self.journal.flushed_lsn

    @property
    def applied_lsn(self) -> int:
        """Return the last entry that the state has taken in."""
        return self.state.lsn

    def history(self) -> History:
        """Return who wrote what is held; folds what is not folded yet.

        A node that leads writes to the journal itself: what came after the stream's entries is looked at here.
        """
        self.fold()
        for era in eras_from(self.journal, self._known_lsn + 1):
            self._history = self._history.begun(era.epoch, era.first_lsn)
        self._known_lsn = self.held_lsn
        return self._history.grown(self.held_lsn)

    def holds(self, lsn: int, crc: int) -> bool:
        """Return whether entry `lsn` here has this checksum; True where the snapshot is all that is left of it."""
        if lsn == 0 or lsn < self.journal.first_lsn:
            return lsn <= self.held_lsn
        return frame_crc(self.journal, lsn) == crc

    # -- what the stream brings ------------------------------------------------------------------

    def take(self, frames: list[bytes]) -> None:
        """Write checked frames that follow what is held: when this returns they survive this process.

        Raises `JournalError` where the journal cannot be written.
        """
        self.journal.append_frames(frames)
        self.journal.flush()
        self._unapplied.extend(frames)
        self.unapplied_bytes += sum(map(len, frames))

    def fold(self, max_entries: int | None = None) -> int:
        """Take written entries into the state, at most so many; return how many are left.

        Raises `StreamBroken` for an entry that this version cannot read, or that the state cannot take in: it
        stays in the journal, and nothing after it is folded.
        """
        waiting = self._unapplied
        todo = len(waiting) if max_entries is None else min(max_entries, len(waiting))
        for _ in range(todo):
            frame = waiting[0]
            try:
                record = decode(frame[_FRAME_HEAD:])
            except JournalCorrupt as error:
                raise StreamBroken(
                    Reason.UNREADABLE,
                    f"entry {self.state.lsn + 1} was received and written, but cannot be read here: {error}",
                ) from error
            try:
                self._apply(record)
            except Exception as error:
                raise StreamBroken(
                    Reason.UNREADABLE,
                    f"entry {record.lsn} ({type(record.entry).__name__}) does not fit this state: "
                    f"{type(error).__name__}: {error}; start this standby anew, its journal is whole",
                ) from error
            waiting.popleft()
            self.unapplied_bytes -= len(frame)
        return len(waiting)

    def cut(self, after_lsn: int) -> KeptAside | None:
        """Set aside every entry after `after_lsn`, which the primary's history does not have.

        Raises `StreamBroken` where nothing could be read without them: then a snapshot is needed.
        """
        if after_lsn >= self.held_lsn:
            return None
        self.journal.close()
        try:
            kept = cut_tail(self.folder, after_lsn, self._unix_ns())
        except JournalPruned as error:
            raise StreamBroken(Reason.OTHER_HISTORY, f"the tail cannot be set aside: {error}") from error
        finally:
            self._reopen()
        return self._note(kept)

    def replace(self, lsn: int, snapshot: bytes) -> KeptAside | None:
        """Start anew with the snapshot of entry `lsn`; 0: with nothing. What was held is set aside."""
        if lsn:
            _check_snapshot(lsn, snapshot)
        self.journal.close()
        try:
            kept = replace_journal(
                self.folder,
                node=self.node,
                cell=self.cell,
                lsn=lsn,
                snapshot=snapshot,
                segment_bytes=self._segment_bytes,
                now_ns=self._unix_ns(),
            )
        finally:
            self._reopen()
        return self._note(kept)

    def close(self) -> None:
        """Let go of the journal."""
        self.journal.close()

    # -- inside ----------------------------------------------------------------------------------

    def _note(self, kept: KeptAside | None) -> KeptAside | None:
        if kept is not None:
            self.kept_aside.append(kept)
        return kept

    def _reopen(self) -> None:
        self.journal = Journal.open(
            self.folder,
            node=self.node,
            cell=self.cell,
            durability=self._durability,
            segment_bytes=self._segment_bytes,
        )
        self._recover()

    def _recover(self) -> None:
        snapshot = self.journal.latest_snapshot()
        self.state = TradingState() if snapshot is None else TradingState.decode(snapshot.data)
        self.difference, self.compared_lsn = None, 0
        self._unapplied.clear()
        self.unapplied_bytes = 0
        self._history = history_of(self.journal)
        self._known_lsn = self.journal.flushed_lsn
        if self.state.lsn > self.journal.flushed_lsn:
            raise JournalError(
                f"the snapshot is of entry {self.state.lsn}, the journal ends with {self.journal.flushed_lsn}",
                path=self.folder,
            )
        for record in read(self.journal, self.state.lsn + 1):
            self._compare(record)
            self.state.apply(record.lsn, record.ts_ns, record.entry)

    def _apply(self, record: e.Record) -> None:
        entry = record.entry
        self._compare(record)
        outcome = self.state.apply(record.lsn, record.ts_ns, entry)
        if isinstance(entry, e.NodeStarted):
            self._history = self._history.begun(entry.epoch, record.lsn)
        self._known_lsn = record.lsn
        if self._on_record is not None:
            self._on_record(record, outcome)

    def _compare(self, record: e.Record) -> None:
        if isinstance(record.entry, e.StateDigest) and self.difference is None:
            self.compared_lsn = record.lsn
            found = self.state.digest()
            if found != record.entry.digest:
                self.difference = Difference(record.lsn, record.entry.digest, found)


def _check_snapshot(lsn: int, snapshot: bytes) -> None:
    try:
        state = TradingState.decode(snapshot)
    except ValueError as error:  # msgspec's errors are
        raise StreamBroken(
            Reason.UNREADABLE, f"the snapshot of entry {lsn} cannot be read here ({error})"
        ) from error
    if state.lsn != lsn:
        raise StreamBroken(Reason.DAMAGED, f"a snapshot of entry {lsn} was announced, {state.lsn} came")
