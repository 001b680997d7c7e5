"""The append-only log that every change of trading state goes through.

One writer (`Journal`), any number of readers (`read`, `Follower`), snapshots to start from, and
proofs: `verify` and `journal_digest`. `docs/journal.md` has the file format and the promises.
"""

from host.journal._aside import KeptAside, cut_tail, replace_journal
from host.journal._copying import FrameReader, Frames, crc_of, frame_crc, split_frames
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
from host.journal._reading import Follower, Source, decode, payloads, read
from host.journal._recovery import TornTail
from host.journal._snapshots import Snapshot
from host.journal._verify import VerifyReport, journal_digest, verify

__all__ = [
    "DEFAULT_SEGMENT_BYTES",
    "CallSoon",
    "Durability",
    "Follower",
    "FrameReader",
    "Frames",
    "Journal",
    "JournalCorrupt",
    "JournalError",
    "JournalFull",
    "JournalLocked",
    "JournalPruned",
    "JournalTrouble",
    "KeptAside",
    "Snapshot",
    "Source",
    "TornTail",
    "TroubleKind",
    "VerifyReport",
    "crc_of",
    "cut_tail",
    "decode",
    "describe",
    "frame_crc",
    "journal_digest",
    "payloads",
    "read",
    "render",
    "replace_journal",
    "split_frames",
    "verify",
]
