"""What a primary answers to the greeting of a standby: where the stream starts, or why there is none."""

from typing import Final

from msgspec import Struct

from failover.replication.errors import Reason, StreamRefused
from failover.replication.history import History, common_lsn

__all__ = ["PROTOCOL_VERSION", "Greeting", "PrimarySide", "Start", "answer"]

PROTOCOL_VERSION: Final = 1


class Greeting(Struct, frozen=True):
    """Who dials and what it holds. `wants_snapshot`: nothing of what it holds can be built on."""

    version: int
    cell: str
    node: str
    session: str
    history: History
    wants_snapshot: bool = False
    control_address: str = ""


class PrimarySide(Struct, frozen=True):
    """What the primary knows at the time: its journal starts with `first_lsn`, has a snapshot of `snapshot_lsn`.

    `snapshot_lsn` is 0 where there is none. `max_catch_up` is how many entries a standby may be behind a
    snapshot before that is sent instead of them.
    """

    cell: str
    node: str
    epoch: int
    history: History
    first_lsn: int
    snapshot_lsn: int
    max_catch_up: int
    peers: frozenset[str] | None = None
    """Who may stand by; None: anybody."""


class Start(Struct, frozen=True):
    """The standby keeps what it holds up to `resume_lsn`, and gets the entries after it.

    If it `is_replacing`, it keeps nothing, and starts with the snapshot of `resume_lsn` (0: with entry 1).
    """

    resume_lsn: int
    is_replacing: bool


def answer(greeting: Greeting, primary: PrimarySide, certified: str | None = None) -> Start:
    """Return where the stream starts; raise `StreamRefused`.

    `certified` is the name in the standby's certificate, None where there is no TLS.
    """
    _check_who(greeting, primary, certified)
    theirs, ours = greeting.history, primary.history
    fault = theirs.fault()
    if fault:
        raise StreamRefused(Reason.BAD_GREETING, f"the greeting of {greeting.node} makes no sense: {fault}")
    if theirs.epoch > primary.epoch:
        raise StreamRefused(
            Reason.FROM_THE_FUTURE,
            f"the journal of {greeting.node} is of epoch {theirs.epoch}, {primary.node} leads in epoch "
            f"{primary.epoch}: it must have been deposed; look at who holds the lease",
        )
    if theirs.epoch == primary.epoch and theirs.last_lsn > ours.last_lsn:
        raise StreamRefused(
            Reason.FROM_THE_FUTURE,
            f"the journal of {greeting.node} has entry {theirs.last_lsn} of epoch {theirs.epoch}, that of "
            f"{primary.node} ends with {ours.last_lsn}: it lost entries, or is a copy; restart "
            f"{primary.node} so that a new epoch begins",
        )
    common = 0 if greeting.wants_snapshot else common_lsn(ours, theirs)
    if greeting.wants_snapshot or (theirs.last_lsn and not common) or _is_out_of_reach(common, primary):
        return Start(primary.snapshot_lsn, is_replacing=True)
    return Start(common, is_replacing=False)


def _check_who(greeting: Greeting, primary: PrimarySide, certified: str | None) -> None:
    if greeting.version != PROTOCOL_VERSION:
        raise StreamRefused(
            Reason.PROTOCOL_VERSION,
            f"{greeting.node} speaks version {greeting.version} of the replication protocol, {primary.node} "
            f"version {PROTOCOL_VERSION}: run versions of tandem that speak the same",
        )
    if greeting.cell != primary.cell:
        raise StreamRefused(
            Reason.OTHER_CELL,
            f"{greeting.node} is of cell {greeting.cell!r}, {primary.node} of cell {primary.cell!r}: correct "
            "failover.peers or failover.cell of one of them",
        )
    if not greeting.node or not greeting.session:
        raise StreamRefused(Reason.BAD_GREETING, "a greeting should name the standby and its session")
    if greeting.node == primary.node:
        raise StreamRefused(
            Reason.SAME_NAME,
            f"both nodes are named {primary.node!r}: give each its own node.name, and look whether it dials itself",
        )
    if primary.peers is not None and greeting.node not in primary.peers:
        raise StreamRefused(
            Reason.UNKNOWN_PEER,
            f"{primary.node} has no peer named {greeting.node!r}, it has {', '.join(sorted(primary.peers)) or 'none'}: "
            "name every node of the cell in failover.peers of every other one; who leads on without the lease "
            "store needs the promise of all of them",
        )
    if certified is not None and certified != greeting.node:
        shown = repr(certified) if certified else "no node"
        raise StreamRefused(
            Reason.WRONG_CERTIFICATE,
            f"{greeting.node} came with a certificate that names {shown}: it needs one of its own",
        )


def _is_out_of_reach(common: int, primary: PrimarySide) -> bool:
    return common + 1 < primary.first_lsn or primary.snapshot_lsn - common > primary.max_catch_up
