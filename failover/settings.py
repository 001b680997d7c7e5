"""Who a node is in the election of its cell's leader, and how patient it is."""

from typing import Final

from msgspec import Struct

__all__ = ["FOREVER_NS", "ElectorSettings"]

FOREVER_NS: Final = 2**63 - 1
"""A time that never comes."""


class ElectorSettings(Struct, frozen=True):
    """Who this node is and how patient it is. `known_epoch` is the last epoch in its journal."""

    cell: str
    node: str
    session: str
    ttl_ms: int
    peers: tuple[str, ...] = ()
    known_epoch: int = 0
    first_epoch: int = 1
    """The epoch that a cell without a record begins with, unless a later one is known."""
    poll_ms: int = 25
    """How often a standby reads: what a release by the guardian waits for on average is half of it."""
    drain_ms: int = 2_000
    """How long a leader may drain before a handover is given up, or for a sick leader cut short."""
    sick_ms: int = 3_000
    """How long a better peer must be better before a leader yields to it."""
    switch_limit: int = 6
    switch_window_ms: int = 600_000

    @property
    def ttl_ns(self) -> int:
        """The ttl in nanoseconds."""
        return self.ttl_ms * 1_000_000
