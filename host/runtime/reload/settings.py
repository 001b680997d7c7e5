"""How reloads are done on a node."""

from typing import Literal

from msgspec import Struct

from host.runtime.reload.probation import ProbationLimits

__all__ = ["ReloadSettings"]


class ReloadSettings(Struct, frozen=True, kw_only=True):
    """How reloads are done on this node."""

    mode: Literal["auto", "stage"] = "auto"
    """`auto` goes live by itself; `stage` stops after warm-up until an operator activates the digest."""
    rollback_policy: Literal["cancel", "keep", "flatten"] = "cancel"
    limits: ProbationLimits = ProbationLimits()
