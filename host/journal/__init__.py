"""The append-only log that every change of trading state goes through.

One writer (`Journal`), any number of readers (`read`, `Follower`), snapshots to start from, and
proofs: `verify` and `journal_digest`. `docs/journal.md` has the file format and the promises.
"""

from host.journal._describe import describe, render
from host.journal._errors import (
    JournalCorrupt,
    JournalError,
    JournalFull,
    JournalLocked,
    JournalPruned,
    JournalTrouble,
    TroubleKind,
)
from host.journal._journal import DEFAULT_SEGMENT_BYTES, Durability, Journal
from host.journal._listeners import CallSoon
from host.journal._reading import Follower, Source, read
from host.journal._recovery import TornTail
from host.journal._snapshots import Snapshot
from host.journal._verify import VerifyReport, journal_digest, verify

__all__ = [
    "DEFAULT_SEGMENT_BYTES",
    "CallSoon",
    "Durability",
    "Follower",
    "Journal",
    "JournalCorrupt",
    "JournalError",
    "JournalFull",
    "JournalLocked",
    "JournalPruned",
    "JournalTrouble",
    "Snapshot",
    "Source",
    "TornTail",
    "TroubleKind",
    "VerifyReport",
    "describe",
    "journal_digest",
    "read",
    "render",
    "verify",
]
