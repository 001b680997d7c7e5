"""A batch of entries on its way: what its checksum covers, and what a standby makes sure of."""

from struct import Struct as Layout

from google_crc32c import extend, value
from msgspec import Struct

from failover.replication.errors import Reason, StreamBroken
from host.journal import JournalCorrupt, split_frames

__all__ = ["Batch", "batch_crc", "frames_of"]

_PLACE = Layout("<qq")


class Batch(Struct, frozen=True):
    """`count` entries from `first_lsn` on, as the bytes of a journal segment."""

    first_lsn: int
    count: int
    frames: bytes
    crc: int


def batch_crc(first_lsn: int, count: int, frames: bytes) -> int:
    """Return the CRC32C of a batch: its frames, and where they belong."""
    crc: int = extend(value(_PLACE.pack(first_lsn, count)), frames)
    return crc


def frames_of(batch: Batch, held_lsn: int) -> list[bytes]:
    """Return the frames of a batch that follows entry `held_lsn`; raise `StreamBroken`.

    The stream is ordered, so whatever does not follow exactly is a fault of one side, and never skipped.
    """
    if batch_crc(batch.first_lsn, batch.count, batch.frames) != batch.crc:
        raise StreamBroken(
            Reason.DAMAGED,
            f"{batch.count} entries from {batch.first_lsn} on came damaged: their checksum does not match",
        )
    if batch.first_lsn != held_lsn + 1:
        raise StreamBroken(
            Reason.GAP,
            f"entry {held_lsn + 1} should have come next, {batch.first_lsn} did: nothing was taken",
        )
    try:
        frames = split_frames(batch.frames, batch.first_lsn)
    except JournalCorrupt as error:
        raise StreamBroken(Reason.DAMAGED, f"{error}; the primary should verify its journal") from error
    if len(frames) != batch.count:
        raise StreamBroken(
            Reason.DAMAGED,
            f"{batch.count} entries from {batch.first_lsn} on were announced, {len(frames)} came",
        )
    return frames
