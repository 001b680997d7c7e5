"""What can go wrong between two nodes, by what whoever reads it should do."""

from enum import StrEnum

from host.api import TandemError

__all__ = ["Reason", "ReplicationConfigError", "ReplicationError", "StreamBroken", "StreamRefused"]


class Reason(StrEnum):
    """Why a stream is refused or ended. Stable words: they travel, and operators look for them."""

    NOT_PRIMARY = "NOT_PRIMARY"
    """The node that was dialled does not lead now; another one may."""
    PROTOCOL_VERSION = "PROTOCOL_VERSION"
    OTHER_CELL = "OTHER_CELL"
    SAME_NAME = "SAME_NAME"
    """The standby has the primary's own name."""
    UNKNOWN_PEER = "UNKNOWN_PEER"
    """The primary's configuration does not name this node."""
    NAME_TAKEN = "NAME_TAKEN"
    """Another process of that name is attached."""
    WRONG_CERTIFICATE = "WRONG_CERTIFICATE"
    FROM_THE_FUTURE = "FROM_THE_FUTURE"
    """The standby's journal is of a later epoch than the primary leads in."""
    BAD_GREETING = "BAD_GREETING"
    GAP = "GAP"
    """Entries are missing between what is held and what came."""
    DAMAGED = "DAMAGED"
    """Bytes changed on the way: a checksum does not match."""
    OTHER_HISTORY = "OTHER_HISTORY"
    """The standby's entry is not the primary's of that LSN: the standby starts anew."""
    BAD_ACK = "BAD_ACK"
    """The standby acknowledged what it was never sent, or took an acknowledgement back."""
    SILENT = "SILENT"
    """Nothing was heard for too long."""
    PRUNED = "PRUNED"
    """The primary pruned what the standby needs next; its next greeting gets a snapshot."""
    REPLACED = "REPLACED"
    """The same process dialled again."""
    UNREADABLE = "UNREADABLE"
    """An entry is of a newer version of Tandem than the standby's."""
    JOURNAL_FAILED = "JOURNAL_FAILED"
    """The journal of one side cannot be read or written."""


class ReplicationError(TandemError):
    """Root of the errors of replication. None of them touches order flow."""


class ReplicationConfigError(ReplicationError):
    """Replication cannot work as configured; trying again will not help."""


class StreamRefused(ReplicationError):  # noqa: N818 - named for what happened
    """A greeting was not taken: what it says has to change, on one of the two nodes."""

    def __init__(self, reason: Reason, text: str) -> None:
        super().__init__(text)
        self.reason = reason


class StreamBroken(ReplicationError):  # noqa: N818 - named for what happened
    """A running stream cannot go on; dialling again starts from what is held."""

    def __init__(self, reason: Reason, text: str) -> None:
        super().__init__(text)
        self.reason = reason
