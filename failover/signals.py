"""What goes into the elector and what comes out of it, as data.

All times are nanoseconds of the node's own CLOCK_BOOTTIME, which never jumps and counts on while the
machine sleeps. No time of one node is ever compared with one of another.
"""

from enum import Enum

from msgspec import Struct

from failover.lease.record import Record

__all__ = [
    "Action",
    "Alert",
    "AskPeers",
    "CloseGate",
    "Drain",
    "Follow",
    "Health",
    "Lead",
    "NotifyHeir",
    "OpenGate",
    "PeerStatus",
    "Promise",
    "Read",
    "Refused",
    "Resume",
    "Retire",
    "Succession",
    "Swap",
]


class Health(Struct, frozen=True):
    """What a node says about itself.

    `is_fit`: it could lead at all (its plugins load, its journal can be written). `is_current`: its
    replica's lag is below the limit. `ailments`: what keeps it from leading well, each a stable word
    such as `market_data:binance`; a leader yields to a peer that has some of them less and none more.
    """

    is_fit: bool = True
    is_current: bool = True
    ailments: frozenset[str] = frozenset()
    reason: str = ""


class PeerStatus(Struct, frozen=True):
    """What a peer last said about itself, and whether it holds every entry of this node (`lag == 0`)."""

    name: str
    health: Health
    lag: int


class Succession(Enum):
    """How the leadership came free, which says what may still be on the wire from before."""

    FIRST = "first"
    """Nobody led this cell before, as far as the store knows."""
    RELEASED = "released"
    """The last leader drained: nothing of it is on the wire."""
    ABANDONED = "abandoned"
    """The last leader died: its unanswered requests may arrive until their validity windows end."""
    EXPIRED = "expired"
    """Its right ran out, and with it the window of every request that it sent."""
    FORCED = "forced"
    """Taken from a leader that still renewed, and then waited out like an expired one."""


class Read(Struct, frozen=True):
    """Read the record, then call `on_read` or `on_unanswered` with this id."""

    request: int


class Swap(Struct, frozen=True):
    """Swap the record, then call `on_swapped` or `on_unanswered` with this id."""

    request: int
    expected: Record | None
    new: Record


class Lead(Struct, frozen=True):
    """This node leads from now on: take over. `previous` is the record that it replaced."""

    epoch: int
    succession: Succession
    previous: Record | None


class OpenGate(Struct, frozen=True):
    """The right to send lasts until `until_ns`; the gate may be open until then and not longer."""

    epoch: int
    until_ns: int


class CloseGate(Struct, frozen=True):
    """Nothing may be sent from here on."""

    reason: str


class Drain(Struct, frozen=True):
    """Start nothing new; call `on_drained` once nothing can reach a venue any more.

    That is: this node's own takeover is complete, and each of its requests is answered or past its
    validity window by more than a venue needs to work off its queue.
    """

    reason: str


class Resume(Struct, frozen=True):
    """The handover was given up and this node goes on leading."""

    reason: str


class Follow(Struct, frozen=True):
    """This node leads no more; it watches as a standby."""

    reason: str


class NotifyHeir(Struct, frozen=True):
    """Tell `heir` that the lease waits for it: its `on_hint` saves it the wait for its next read."""

    heir: str


class AskPeers(Struct, frozen=True):
    """Ask every peer to promise not to claim: call `on_failsafe_asked` on each."""

    epoch: int
    asked_ns: int
    ttl_ms: int


class Promise(Struct, frozen=True):
    """Answer the leader of `epoch` that this node will not claim: call `on_promised` there."""

    epoch: int
    asked_ns: int


class Refused(Struct, frozen=True):
    """An operator's command was not carried out."""

    command: str
    reason: str


class Alert(Struct, frozen=True):
    """Tell people. `code` is stable."""

    code: str
    text: str


class Retire(Struct, frozen=True):
    """This elector has ended: after `stop`, or because it must not take part."""

    reason: str


Action = (
    Read
    | Swap
    | Lead
    | OpenGate
    | CloseGate
    | Drain
    | Resume
    | Follow
    | NotifyHeir
    | AskPeers
    | Promise
    | Refused
    | Alert
    | Retire
)
