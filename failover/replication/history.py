"""Who wrote which entries: how two journals find out up to where they are the same.

Within an epoch one node alone writes, so two journals that have an entry of the same epoch and LSN have
the same entry, and the same before it (the log matching property of Raft, section 5.3 of the extended
paper). It rests on epochs that are never given twice, which the lease promises; a checksum of the last
common entry is compared as well, because nodes that ran without a lease may have broken that.
"""

from msgspec import Struct

from host.core.entries import NodeStarted
from host.core.state import TradingState
from host.journal import Journal, decode, payloads

__all__ = ["Era", "History", "common_lsn", "eras_from", "history_of"]

_MARK = b"node_started"


class Era(Struct, frozen=True):
    """Entries from `first_lsn` on are of `epoch`, up to the next era or the end."""

    epoch: int
    first_lsn: int


class History(Struct, frozen=True):
    """The eras of a journal, oldest first, and its last entry (0: none)."""

    eras: tuple[Era, ...]
    last_lsn: int

    @property
    def epoch(self) -> int:
        """Return the last epoch, 0 where there is none."""
        return self.eras[-1].epoch if self.eras else 0

    def fault(self) -> str:
        """Return what makes this no history, empty if it is one: for what came from elsewhere."""
        if self.last_lsn < 0:
            return f"the last entry should be 0 or more, was {self.last_lsn}"
        lsn, epoch = 0, 0
        for era in self.eras:
            if era.epoch <= epoch or not lsn < era.first_lsn <= self.last_lsn:
                return (
                    f"epoch {era.epoch} is said to start with entry {era.first_lsn}, after epoch {epoch} "
                    f"with entry {lsn}, in a journal that ends with {self.last_lsn}"
                )
            lsn, epoch = era.first_lsn, era.epoch
        return ""

    def grown(self, last_lsn: int) -> "History":
        """Return it with more entries of its last epoch."""
        return History(self.eras, last_lsn)

    def begun(self, epoch: int, lsn: int) -> "History":
        """Return it with the entry `lsn` that begins `epoch`."""
        return History((*self.eras, Era(epoch, lsn)), lsn)


def common_lsn(ours: History, theirs: History) -> int:
    """Return the last entry up to which both journals are the same; 0 where they share nothing."""
    spans = {era.epoch: (era.first_lsn, last) for era, last in _spans(theirs)}
    common = 0
    for era, last in _spans(ours):
        span = spans.get(era.epoch)
        if span is not None:
            until = min(last, span[1])
            if until >= max(era.first_lsn, span[0]):
                common = max(common, until)
    return common


def _spans(history: History) -> list[tuple[Era, int]]:
    ends = [era.first_lsn - 1 for era in history.eras[1:]] + [history.last_lsn]
    return list(zip(history.eras, ends, strict=False))


def eras_from(journal: Journal, from_lsn: int) -> list[Era]:
    """Return the eras that begin with entry `from_lsn` or later."""
    eras = []
    for payload in payloads(journal, from_lsn):
        if _MARK in payload:
            record = decode(payload)
            if isinstance(record.entry, NodeStarted):
                eras.append(Era(record.entry.epoch, record.lsn))
    return eras


def history_of(journal: Journal) -> History:
    """Read the history of an open journal: about a third of a second for a million entries.

    Raises what reading the journal and its snapshot raises.
    """
    eras = eras_from(journal, journal.first_lsn)
    snapshot = journal.latest_snapshot() if journal.first_lsn > 1 else None
    if snapshot is not None and (not eras or snapshot.lsn < eras[0].first_lsn):
        # The entry that began this epoch is pruned; what is kept before the next one is all of it.
        epoch = TradingState.decode(snapshot.data).epoch
        if epoch:
            eras.insert(0, Era(epoch, min(snapshot.lsn, journal.first_lsn)))
    return History(tuple(eras), journal.flushed_lsn)
