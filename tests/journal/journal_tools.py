"""What the journal's tests share: entries of every kind, and a look at the bytes of a segment."""

import struct
import types
import typing
from decimal import Decimal
from enum import Enum
from pathlib import Path
from typing import Any

import msgspec
from hypothesis import strategies as st

from host.core.entries import Alert, Entry, Record
from host.journal import Journal

SMALL = 1 << 16
"""A segment size that keeps tests quick."""

TS = 1_723_107_600_000_000_000


def alert(number: int, size: int = 0) -> Alert:
    """Return an entry that tells itself apart from others, at least `size` bytes long."""
    return Alert(kind="test", text=f"entry {number}".ljust(size, "."))


def fill(journal: Journal, count: int, size: int = 0) -> list[Record]:
    """Append and flush `count` entries one by one; return them as readers should see them."""
    records = []
    for _ in range(count):
        lsn = journal.last_lsn + 1
        entry = alert(lsn, size)
        assert journal.append(entry, TS + lsn) == lsn
        journal.flush()
        records.append(Record(lsn, TS + lsn, entry))
    return records


def segments(folder: Path) -> list[Path]:
    """Return the segment files, oldest first."""
    return sorted(folder.glob("*.seg"))


def frame_spans(path: Path) -> list[tuple[int, int]]:
    """Return (start, end) of each frame of a sound segment, straight from its documented layout."""
    data = path.read_bytes()
    (header_length,) = struct.unpack_from("<I", data, 12)
    at = 20 + header_length
    spans = []
    while at + 8 <= len(data) and (length := struct.unpack_from("<I", data, at)[0]):
        spans.append((at, at + 8 + length))
        at += 8 + length
    return spans


def flip(path: Path, offset: int, mask: int = 0xFF) -> None:
    """Change one byte of a file."""
    with path.open("r+b") as file:
        file.seek(offset)
        byte = file.read(1)[0]
        file.seek(offset)
        file.write(bytes([byte ^ mask]))


def anything(hint: Any) -> st.SearchStrategy[Any]:
    """Return a strategy for any value of a type that occurs in entries."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return st.one_of([anything(arg) for arg in args])
    if origin is tuple:
        return st.lists(anything(args[0]), max_size=3).map(tuple)
    if origin is list:
        return st.lists(anything(args[0]), max_size=3)
    if isinstance(hint, type) and issubclass(hint, Enum):
        return st.sampled_from(list(hint))
    if isinstance(hint, type) and issubclass(hint, msgspec.Struct):
        return st.builds(
            hint,
            **{
                name: anything(t)
                for name, t in typing.get_type_hints(hint).items()
                if name in hint.__struct_fields__
            },
        )
    return _PLAIN[hint]


_PLAIN: dict[Any, st.SearchStrategy[Any]] = {
    str: st.text(max_size=20),
    bytes: st.binary(max_size=40),
    bool: st.booleans(),
    int: st.integers(-(2**63), 2**63 - 1),
    float: st.floats(allow_nan=False),
    Decimal: st.decimals(allow_nan=False, allow_infinity=False),
    type(None): st.none(),
}

ENTRIES: st.SearchStrategy[Entry] = st.one_of([anything(kind) for kind in typing.get_args(Entry)])
