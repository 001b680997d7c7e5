"""The lease record: one per cell, the only thing that nodes agree on, and the moves it may make.

Every move makes a record that no other attempt makes: `renewal` is the attempt's own number, never used
twice by one session. So a record that is read back tells *which* attempt took effect, even when answers
were lost and requests arrived late, and a swap that compares whole records cannot mistake one version
for another.
"""

from enum import StrEnum

import msgspec
from msgspec import Struct

from failover.lease.errors import LeaseDamagedError

__all__ = [
    "CANDIDATE_WAIT",
    "HOLDER_RIGHT",
    "Record",
    "Status",
    "abandoned",
    "check_record",
    "decode_record",
    "encode_record",
]

HOLDER_RIGHT = (90, 100)
"""The part of a ttl for which a renewal gives its holder the right to trade, as a fraction."""

CANDIDATE_WAIT = (102, 100)
"""How long a candidate watches an unchanged record before it claims it, as a fraction of the ttl.

The 12 hundredths between the two cover the drift of both clocks and a venue that queues an order after
it has checked its validity window.
"""


class Status(StrEnum):
    """What the last writer said about its hold."""

    HELD = "held"
    """The holder renews it; it is claimed only once it has stopped changing."""
    FENCING = "fencing"
    """Taken while an earlier leader may still have a right: its holder waits until that must be over."""
    RELEASED = "released"
    """Given up cleanly: the holder's gate is closed and none of its requests is on the wire."""
    ABANDONED = "abandoned"
    """Given up for a holder that can no longer send; what it sent may still reach a venue."""


class Record(Struct, frozen=True, forbid_unknown_fields=True):
    """Who leads a cell. `holder` stays after a release: it says who led last.

    `session` names one process of the holder, so that two nodes with one name are told apart. `heir`
    is the one node that may claim a released record at once; empty means any node.
    """

    cell: str
    epoch: int
    holder: str
    session: str
    ttl_ms: int
    renewal: int
    status: Status = Status.HELD
    heir: str = ""

    @property
    def ttl_ns(self) -> int:
        """The ttl in nanoseconds."""
        return self.ttl_ms * 1_000_000

    @property
    def is_free(self) -> bool:
        """Whether its last holder has given it up."""
        return self.status is Status.RELEASED or self.status is Status.ABANDONED

    def belongs_to(self, session: str, epoch: int) -> bool:
        """Return whether `session` holds it in `epoch` and has not given it up."""
        return self.session == session and self.epoch == epoch and not self.is_free

    def renewed(self, renewal: int, status: Status = Status.HELD) -> "Record":
        """Return it with its holder's next mark of life."""
        return Record(self.cell, self.epoch, self.holder, self.session, self.ttl_ms, renewal, status)

    def released(self, renewal: int, heir: str = "", status: Status = Status.RELEASED) -> "Record":
        """Return it given up: for `heir` by name, or for whoever is first."""
        return Record(self.cell, self.epoch, self.holder, self.session, self.ttl_ms, renewal, status, heir)


def abandoned(record: Record | None, session: str) -> Record | None:
    """Return what the guardian of the dead process `session` writes in the place of `record`.

    None: nothing. It is not that process's any more, or a leader before it may still send: then it has
    to run out by itself.
    """
    if record is None or record.session != session or record.status is not Status.HELD:
        return None
    return record.released(record.renewal + 1, status=Status.ABANDONED)


def encode_record(record: Record) -> bytes:
    """Return the record as JSON, the form in which stores of bytes keep it; equal records give equal bytes."""
    return msgspec.json.encode(record)


def decode_record(data: bytes, cell: str) -> Record:
    """Return the record of `cell`; raise `LeaseDamagedError` for anything else."""
    try:
        record = msgspec.json.decode(data, type=Record)
    except (msgspec.DecodeError, msgspec.ValidationError) as error:
        raise LeaseDamagedError(cell, str(error)) from error
    return check_record(record, cell)


def check_record(record: Record, cell: str) -> Record:
    """Return `record` if it can be that of `cell`; raise `LeaseDamagedError` otherwise."""
    if record.cell != cell:
        raise LeaseDamagedError(cell, f"it names the cell {record.cell!r}")
    if record.epoch < 1 or record.ttl_ms < 1 or not record.holder or not record.session:
        raise LeaseDamagedError(cell, f"it lacks a holder, an epoch or a ttl: {record}")
    return record
