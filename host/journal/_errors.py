"""What can go wrong with a journal, by what the caller should do about it."""

import errno as errno_names
import os
from enum import StrEnum
from pathlib import Path

from msgspec import Struct

from host.api import TandemError

__all__ = [
    "JournalCorrupt",
    "JournalError",
    "JournalFull",
    "JournalLocked",
    "JournalPruned",
    "JournalTrouble",
    "TroubleKind",
    "is_no_room",
]

_NO_ROOM = frozenset({errno_names.ENOSPC, errno_names.EDQUOT, errno_names.EFBIG})


class JournalError(TandemError):
    """The journal cannot do what was asked. Stop trading: what is not journaled must not be sent.

    `path`, `offset` and `errno` say where and with which operating system error, where known.
    """

    def __init__(
        self, text: str, *, path: Path | None = None, offset: int | None = None, errno: int | None = None
    ) -> None:
        where = "" if path is None else f"{path}{'' if offset is None else f' at byte {offset}'}: "
        why = "" if errno is None else f" ({errno_names.errorcode.get(errno, errno)}: {os.strerror(errno)})"
        super().__init__(f"{where}{text}{why}")
        self.path = path
        self.offset = offset
        self.errno = errno


class JournalFull(JournalError):  # noqa: N818 - named for the journal's state
    """There is no room for the entries. Free disk space, then flush again: they are still pending."""


class JournalCorrupt(JournalError):  # noqa: N818 - named for the journal's state
    """The folder does not hold one whole journal of this node. Never repaired by guessing."""


class JournalLocked(JournalError):  # noqa: N818 - named for the journal's state
    """Another process writes this journal. `pid` is its process id, None where not known."""

    def __init__(self, path: Path, pid: int | None) -> None:
        holder = "another process" if pid is None else f"process {pid}"
        super().__init__(
            f"the journal is being written by {holder}; a journal has one writer: "
            "stop that one first, or give this node its own data_dir",
            path=path,
        )
        self.pid = pid


class JournalPruned(JournalError):  # noqa: N818 - named for the journal's state
    """Entries asked for were pruned. `first_lsn` is the first one left: start from a snapshot."""

    def __init__(self, folder: Path, wanted_lsn: int, first_lsn: int) -> None:
        super().__init__(
            f"entry {wanted_lsn} was pruned, the first one left is {first_lsn}; "
            f"start from a snapshot at or after {first_lsn - 1}",
            path=folder,
        )
        self.wanted_lsn = wanted_lsn
        self.first_lsn = first_lsn


class TroubleKind(StrEnum):
    """What a journal is in trouble with."""

    LOW_SPACE = "low_space"
    """The next segment cannot be created: stop quoting while there is room for the last entries."""
    SYNC_FAILED = "sync_failed"
    """The disk did not confirm a sync: entries may not survive; the journal takes no more."""


class JournalTrouble(Struct, frozen=True):
    """Something the node must react to although no call has failed yet."""

    kind: TroubleKind
    text: str
    errno: int
    room_bytes: int
    """What can still be written to the current segment."""


def is_no_room(error: OSError) -> bool:
    """Return whether the operating system refused for lack of space: disk, quota or file size."""
    return error.errno in _NO_ROOM
