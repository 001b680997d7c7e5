"""The bytes of a segment: a header, then frames, then zeros. `docs/journal.md` has the pictures.

All integers are little-endian, which is what the machines that run this use natively.
"""

import os
import re
from collections.abc import Iterator
from pathlib import Path
from struct import Struct as Layout

import msgspec
from google_crc32c import value as crc32c
from msgspec import Struct

from host.journal._errors import JournalCorrupt

__all__ = [
    "FORMAT_VERSION",
    "FRAME",
    "MAX_HEADER_BYTES",
    "SegmentHeader",
    "Tail",
    "examine_tail",
    "frames",
    "lsn_of",
    "pack_header",
    "unpack_header",
]

FORMAT_VERSION = 1
FRAME = Layout("<II")
"""In front of each payload: its length in bytes, and its CRC32C."""

MAX_HEADER_BYTES = 4096
_MAGIC = b"TNDMJRNL"
_PREFIX = Layout("<8sIII")  # magic, format version, length and CRC32C of the rest

# A reader that follows the tail reads a little at a time; one that catches up reads more and more.
_FIRST_READ = 1 << 16
_LARGEST_READ = 1 << 20
_ZEROS = bytes(_LARGEST_READ)


class SegmentHeader(Struct, frozen=True, array_like=True):
    """Whose journal a segment belongs to, and the LSN of its first frame."""

    node: str
    cell: str
    first_lsn: int


class _Lsn(Struct, frozen=True, array_like=True):
    # The first field of a Record; msgspec skips the others, which is three times as fast as decoding.
    lsn: int


_encode = msgspec.msgpack.Encoder().encode
_decode_header = msgspec.msgpack.Decoder(SegmentHeader).decode
_decode_lsn = msgspec.msgpack.Decoder(_Lsn).decode


def pack_header(header: SegmentHeader) -> bytes:
    """Return the first bytes of a segment."""
    body = _encode(header)
    return _PREFIX.pack(_MAGIC, FORMAT_VERSION, len(body), crc32c(body)) + body


def unpack_header(path: Path, data: bytes) -> tuple[SegmentHeader, int]:
    """Return the header at the start of `data` and the offset of the first frame.

    Raises `JournalCorrupt` for damage and for a format newer than this program.
    """
    if len(data) < _PREFIX.size or not data.startswith(_MAGIC):
        raise JournalCorrupt(
            f"this is not a journal segment: it should start with {_MAGIC!r}, was {data[:8]!r}; "
            "restore the file from a copy, or move it away if it does not belong here",
            path=path,
            offset=0,
        )
    _, version, length, crc = _PREFIX.unpack_from(data)
    if version > FORMAT_VERSION:
        raise JournalCorrupt(
            f"format version {version} is newer than this program reads ({FORMAT_VERSION}); "
            "run the version of tandem that wrote it, or a later one",
            path=path,
            offset=8,
        )
    body = data[_PREFIX.size : _PREFIX.size + length]
    if version == 0 or len(body) != length or crc32c(body) != crc:
        raise JournalCorrupt(
            "the segment's header is damaged (its checksum does not match); restore the file from a copy",
            path=path,
            offset=0,
        )
    return _decode_header(body), _PREFIX.size + length


def lsn_of(payload: bytes) -> int:
    """Return the LSN of an encoded record; raises `msgspec.MsgspecError` if it is not one."""
    return _decode_lsn(payload).lsn


def frames(fd: int, offset: int) -> Iterator[tuple[int, bytes]]:
    """Yield (offset, payload) of each whole frame from `offset` on, up to the first that is not.

    What stopped it is for `examine_tail` to say. Bytes are read as late as possible, so frames
    that a writer adds meanwhile are seen.
    """
    want = _FIRST_READ
    while True:
        data = os.pread(fd, want, offset)
        size = len(data)
        at = 0
        length = 0
        while size - at >= FRAME.size:
            length, crc = FRAME.unpack_from(data, at)
            stop = at + FRAME.size + length
            if length == 0:
                return
            if stop > size:
                break
            payload = data[at + FRAME.size : stop]
            if crc32c(payload) != crc:
                return
            yield offset + at, payload
            at = stop
        if at:
            offset += at
            want = min(2 * want, _LARGEST_READ)
            continue
        # Not one whole frame in what was read: a long frame, or the end. The length may be garbage,
        # so the file's size is asked before that much memory is.
        need = FRAME.size + length
        if size < want or need <= want or offset + need > os.fstat(fd).st_size:
            return
        want = need


class Tail(Struct, frozen=True):
    """What follows the last whole frame of a segment."""

    dirty_bytes: int
    """Up to and with the last byte that is not zero; 0 is a clean end."""
    later_offset: int | None = None
    """Where a whole frame with a later LSN was found: then this is damage, not a torn tail."""
    later_lsn: int | None = None


def examine_tail(fd: int, offset: int, next_lsn: int) -> Tail:
    """Look at everything from `offset` on, where the frame of `next_lsn` should be but is not."""
    at, end = offset, offset
    while chunk := os.pread(fd, _LARGEST_READ, at):
        if chunk != _ZEROS[: len(chunk)]:
            end = at + len(chunk.rstrip(b"\0"))
        at += len(chunk)
    if end == offset:
        return Tail(0)
    # A frame may end in zeros of its own, so the search goes on to the end of the file.
    data = os.pread(fd, at - offset, offset)
    for found in _RECORD_START.finditer(data, FRAME.size):
        start = found.start() - FRAME.size
        length, crc = FRAME.unpack_from(data, start)
        payload = data[start + FRAME.size : start + FRAME.size + length]
        if length == 0 or len(payload) != length or crc32c(payload) != crc:
            continue
        try:
            lsn = lsn_of(payload)
        except msgspec.MsgspecError:
            continue
        if lsn > next_lsn:
            return Tail(end - offset, offset + start, lsn)
    return Tail(end - offset)


_RECORD_START = re.compile(rb"[\x93-\x9f]")  # msgpack: an array of 3 to 15 elements
