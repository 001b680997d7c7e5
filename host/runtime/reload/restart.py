"""Which version of a plugin a node starts with, from what the journal says and what is on disk."""

from msgspec import Struct

from host.core.state import PluginRecord

__all__ = ["Choice", "choose_version"]


class Choice(Struct, frozen=True):
    """The version to start with and why, in words for the operator; the digest is empty for none."""

    digest: str
    reason: str


def choose_version(record: PluginRecord, on_disk: str) -> Choice:
    """Choose between the version that earned its place and the file on disk (empty: unreadable, gone).

    The permanent version wins: what is on disk by now may be half edited, or what ended the process.
    It goes through the reload transaction afterwards, if nothing speaks against it.
    """
    permanent, short = record.permanent, on_disk[:12]
    if not permanent:
        return Choice(on_disk, "the first version" if on_disk else "there is no version that can be read")
    if on_disk == permanent:
        return Choice(permanent, "the permanent version is on disk")
    if not on_disk:
        reason = "its file is gone or cannot be read"
    elif on_disk == record.active:
        reason = f"{short} on disk was on probation when the node ended"
    elif on_disk == record.staged:
        reason = f"{short} on disk is staged"
    elif on_disk in record.refused:
        reason = f"{short} on disk was taken back: {record.refused[on_disk]}"
    else:
        reason = f"{short} on disk is new: it goes live as a reload"
    return Choice(permanent, reason)
