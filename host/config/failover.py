"""`[failover]`: the node as one of a pair. `host/config/check_failover.py` holds what its keys may not say together."""

import re
from pathlib import Path
from typing import Annotated, Final, Literal

from msgspec import Meta, Struct

from host.config.numbers import MOST, Positive

__all__ = ["FailoverSection", "FailoverTlsSection", "duration_ms"]

_DURATION: Final = re.compile(r"([0-9]+)(?:\.([0-9]+))?(ms|s)")

Cell = Annotated[str, Meta(pattern=r"^[a-z0-9][a-z0-9_.-]{0,62}$")]


def duration_ms(text: str) -> int:
    """Return a duration such as `600ms` or `1.5s` in milliseconds, rounded down; raise `ValueError`."""
    match = _DURATION.fullmatch(text)
    if match is None:
        raise ValueError(f'expected a duration such as "600ms" or "1s", was "{text}"')
    # As text: 0.29 s is 290 ms, and 0.29 * 1000 is not.
    digits = 0 if match[3] == "ms" else 3
    return int(match[1] + (match[2] or "").ljust(digits, "0")[:digits])


class FailoverTlsSection(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[failover.tls]`: how the nodes of a cell know each other. PEM files, as `tandem certs init` makes them."""

    certificate: Path
    """This node's, followed by those that signed it; good for server and client, and it names the node."""
    key: Path
    """The key of that certificate, readable by the node's user alone."""
    ca: Path
    """Who signs the certificates of the peers."""


class FailoverSection(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[failover]`: the cell that this node may lead, and the nodes it shares it with."""

    lease: str
    """The URL of the store that says who leads: `sqlite:///PATH`, `postgresql+psycopg://…`, `etcd://…`."""
    cell: Cell = "main"
    """What one node leads at a time: its accounts and instances. The same on all of its nodes."""
    ttl: str = "600ms"
    """How long a lost machine keeps the others waiting, such as `"600ms"` or `"1s"`; see `ttl_ms`."""
    replicate: str | None = None
    """Where peers dial this node for its journal: `HOST:PORT` or `unix:PATH`. Needed where there are peers."""
    peers: dict[str, str] = {}
    """The other nodes of the cell: where each is dialled, by the name it gives itself in `node.name`."""
    may_lead: bool = True
    """False makes it a copy that never takes over by itself."""
    on_standby_lost: Literal["process", "halt"] = "process"
    """With durability `replica`, when no standby keeps up: go on without one, or stop quoting."""
    standby_patience_ms: Positive = 300
    """With durability `replica`: how long an order may wait for the standbys to hold it."""
    max_lag_entries: Positive = 10_000
    """A standby that is further behind does not take over."""
    max_lag_ms: Positive = 1_000
    """A standby that has been behind for longer does not take over."""
    poll_ms: Positive = 25
    """How often a standby looks at the lease."""
    sick_ms: Positive = 3_000
    """How long a peer must have been better off before an ailing leader yields to it."""
    switch_limit: Positive = 6
    """After so many switches within `switch_window_s` no node takes over by itself until that is past."""
    switch_window_s: Positive = 600
    drain_ms: Positive = 2_000
    """How long a leader may take to finish what is under way before it hands over."""
    takeover_orphans: Literal["cancel"] = "cancel"
    """What a new leader does with live orders of ours that its journal does not know."""
    dead_man_ms: Annotated[int, Meta(ge=0, le=MOST)] = 10_000
    """How long a venue with a dead man's switch waits for this node before it cancels its orders; 0 is off."""
    control_address: str | None = None
    """What clients are told to dial while this node leads; None is the first TCP address of `control.listen`."""
    tls: FailoverTlsSection | None = None

    @property
    def ttl_ms(self) -> int:
        """Return the ttl in milliseconds."""
        return duration_ms(self.ttl)
