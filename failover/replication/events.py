"""What the two sides of a stream tell their node, as data."""

from msgspec import Struct

from failover.replication.durability import ModeChange
from failover.replication.errors import Reason
from failover.replication.lag import StandbyHealth
from failover.replication.replica import Difference
from host.journal import KeptAside

__all__ = [
    "Attached",
    "ClaimAsked",
    "ClaimPromised",
    "Detached",
    "DifferenceFound",
    "Following",
    "HeirNamed",
    "MarketSeen",
    "PrimaryEvent",
    "PrimaryHealth",
    "Rejoined",
    "Reported",
    "SeenTop",
    "StandbyEvent",
    "TurnedAway",
    "Unfollowed",
    "VersionCame",
    "VersionTaken",
]


class Attached(Struct, frozen=True):
    """A standby's greeting was taken. `is_replacing`: it gets a snapshot, or everything."""

    node: str
    address: str
    resume_lsn: int
    is_replacing: bool


class Detached(Struct, frozen=True):
    """A standby's stream ended. `reason` is None where the standby ended it without saying why."""

    node: str
    reason: Reason | None
    text: str


class TurnedAway(Struct, frozen=True):
    """A greeting was refused; order flow is untouched. Standbys dial again: alert when it changes."""

    node: str
    address: str
    reason: Reason
    text: str


class Reported(Struct, frozen=True):
    """A standby said how it is. `difference`: the digest of its state is not the primary's."""

    node: str
    health: StandbyHealth
    difference: Difference | None


class ClaimPromised(Struct, frozen=True):
    """A standby promised not to claim the lease: the elector's `on_promised`."""

    node: str
    epoch: int
    asked_ns: int


class VersionTaken(Struct, frozen=True):
    """A standby holds a version of a plugin that it was sent, or says why it cannot run it (`problem`)."""

    node: str
    plugin: str
    digest: str
    problem: str


PrimaryEvent = VersionTaken | Attached | Detached | TurnedAway | Reported | ClaimPromised | ModeChange


class Following(Struct, frozen=True):
    """A primary took this standby's greeting."""

    node: str
    address: str
    epoch: int
    resume_lsn: int
    control_address: str = ""
    """Where clients reach the primary; empty where it said nothing."""


class Unfollowed(Struct, frozen=True):
    """There is no stream: it was refused (`is_refused`) or ended. It is dialled again."""

    address: str
    reason: Reason | None
    text: str
    is_refused: bool


class Rejoined(Struct, frozen=True):
    """Entries that the primary's history does not have were set aside: reconcile them with the venue."""

    kept: KeptAside
    epoch: int


class DifferenceFound(Struct, frozen=True):
    """This standby's state is not the primary's: it is unfit."""

    difference: Difference


class PrimaryHealth(Struct, frozen=True):
    """How the primary is, with every heartbeat that says something new."""

    node: str
    health: StandbyHealth
    lag: int
    """How many entries this standby is behind."""


class ClaimAsked(Struct, frozen=True):
    """The primary cannot reach the lease store: the elector's `on_failsafe_asked`."""

    node: str
    epoch: int
    asked_ns: int
    ttl_ms: int


class HeirNamed(Struct, frozen=True):
    """The lease waits for this node: the elector's `on_hint`."""

    node: str


class VersionCame(Struct, frozen=True):
    """The primary runs this version of a plugin: keep it, and answer with `ReplicationClient.hold_version`."""

    plugin: str
    digest: str
    content: bytes


class SeenTop(Struct, frozen=True):
    """The best prices of one symbol, as a node sees them."""

    account: str
    symbol: str
    bid: float
    ask: float


class MarketSeen(Struct, frozen=True):
    """What the primary sees of its markets."""

    tops: tuple[SeenTop, ...]


StandbyEvent = (
    MarketSeen
    | VersionCame
    | Following
    | Unfollowed
    | Rejoined
    | DifferenceFound
    | PrimaryHealth
    | ClaimAsked
    | HeirNamed
)
