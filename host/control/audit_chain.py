"""The audit log's format: one JSON object a line, each holding the hash of the one before.

A line's `hash` is SHA-256 over the bytes of the line without that last field. Nobody has to agree on
how JSON is written: what is hashed is what is in the file. A line that was changed has another hash,
and one that was left out, put in or moved breaks the `prev` of the next.
"""

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import msgspec
from msgspec import Struct

from host.api import TandemError

__all__ = [
    "AUDIT_FOLDER",
    "GENESIS",
    "Anchor",
    "AuditError",
    "AuditLine",
    "ChainReport",
    "decode_line",
    "encode_line",
    "read_lines",
    "segments",
    "verify",
]

AUDIT_FOLDER: Final = Path("control") / "audit"
"""Within `data_dir`."""
GENESIS: Final = "0" * 64
"""What stands for the hash before the first record."""
_HASH_FIELD: Final = b',"hash":"'
_HASH_END: Final = b'"}'
_HASH_BYTES: Final = len(_HASH_FIELD) + 64 + len(_HASH_END)


class AuditError(TandemError):
    """The audit log cannot be written or read; the text says where and what to do."""


class AuditLine(Struct, frozen=True, kw_only=True, rename={"from_": "from"}):
    """One record. Times are UTC, to the microsecond; `count` is how many equal ones it stands for."""

    seq: int
    time: str
    who: str
    role: str
    via: str
    from_: str
    method: str
    request: Any
    before: Any
    after: Any
    outcome: str
    detail: str
    count: int
    prev: str
    hash: str = ""


class Anchor(Struct, frozen=True):
    """What the log's newest record was at some moment, kept where the log's file is not."""

    seq: int
    hash: str


class ChainReport(Struct, frozen=True):
    """What `verify` found. `problem` is empty for a log that is whole, and else names the first break."""

    records: int
    first_seq: int
    last_seq: int
    head: str
    anchors: int
    """How many anchors were compared."""
    problem: str
    note: str = ""

    @property
    def is_sound(self) -> bool:
        """Return whether nothing was changed, left out, moved or cut off."""
        return not self.problem


def encode_line(fields: Mapping[str, Any], seq: int, now_ns: int, prev: str) -> tuple[bytes, str]:
    """Return a record as its line, newline included, and its hash."""
    time = datetime.fromtimestamp(now_ns // 1000 / 1e6, UTC).isoformat(timespec="microseconds")
    body = msgspec.json.encode({"seq": seq, "time": time.replace("+00:00", "Z"), **fields, "prev": prev})
    digest = hashlib.sha256(body).hexdigest()
    return body[:-1] + _HASH_FIELD + digest.encode() + _HASH_END + b"\n", digest


def decode_line(line: bytes) -> AuditLine:
    """Return the record of a whole line; raise `ValueError` where it is none or its hash is wrong."""
    body, tail = line[:-_HASH_BYTES] + b"}", line[-_HASH_BYTES:]
    if not (tail.startswith(_HASH_FIELD) and tail.endswith(_HASH_END)):
        raise ValueError("it does not end with its hash")
    if hashlib.sha256(body).hexdigest().encode() != tail[len(_HASH_FIELD) : -len(_HASH_END)]:
        raise ValueError("its hash is not that of its content: it was changed")
    return msgspec.json.decode(line, type=AuditLine)


def segments(folder: Path) -> list[Path]:
    """Return the files of the log, oldest first."""
    return sorted(folder.glob("audit-*.jsonl"))


def read_lines(folder: Path) -> Iterator[tuple[Path, int, bytes]]:
    """Yield file, line number and line of each whole line; a torn last line is left out."""
    for path in segments(folder):
        with path.open("rb") as file:
            for number, line in enumerate(file, 1):
                if line.endswith(b"\n"):
                    yield path, number, line[:-1]


def verify(folder: Path, anchors: Iterable[Anchor] = ()) -> ChainReport:
    """Check every line, and that each record an anchor names is the one it was.

    Without anchors nobody can tell that the newest records were cut off, or that the whole log was
    written anew. Files of old records may have been moved away: then the chain starts later, and
    the anchors before it are not compared.
    """
    wanted = {anchor.seq: anchor.hash for anchor in anchors}
    newest_anchor = max(wanted, default=0)
    if not folder.is_dir():
        problem = f"there is no audit log in {folder}" if wanted else ""
        return ChainReport(0, 0, 0, GENESIS, 0, problem, "" if wanted else f"no audit log in {folder}")
    records = first = last = compared = 0
    head, problem = GENESIS, ""
    for path, number, line in read_lines(folder):
        problem = _fault(line, last, head, is_first=not records, wanted=wanted)
        if problem:
            problem = f"{path} line {number}: {problem}"
            break
        record = decode_line(line)
        records, last, head = records + 1, record.seq, record.hash
        first = first or record.seq
        compared += record.seq in wanted
    if not problem and newest_anchor > last:
        problem = (
            f"{folder}: record {newest_anchor} was written, and the log ends with record {last}: "
            "its end was cut off"
        )
    note = f"starts with record {first}: older files were moved away" if first > 1 else ""
    return ChainReport(records, first, last, head, compared, problem, note)


def _fault(line: bytes, last: int, head: str, *, is_first: bool, wanted: Mapping[int, str]) -> str:
    try:
        record = decode_line(line)
    except ValueError as error:
        return str(error)
    if not is_first and record.seq != last + 1:
        return f"record {last + 1} should be here, is {record.seq}: records were left out, put in or moved"
    if (not is_first or record.seq == 1) and record.prev != head:
        return f"record {record.seq} does not follow the record before it: one of them was replaced"
    if wanted.get(record.seq, record.hash) != record.hash:
        return f"record {record.seq} is another than the one that was written: the log was written anew"
    return ""
