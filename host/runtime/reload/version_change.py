"""What takes an instance to another version, wherever its strategy runs."""

from collections.abc import Callable

from msgspec import Struct

from host.api import Params
from host.loader import Offer
from host.runtime.instance import Instance
from host.runtime.reload.probation import ProbationLimits

__all__ = ["VersionChange"]


class VersionChange(Struct, frozen=True):
    """One instance's part in the reload of a plugin."""

    find: Callable[[], Offer]
    """Returns what the new version offers in the place of what runs; raises `TandemError`."""
    params: Callable[[], Params]
    """Returns the parameters as they are configured now, for the new version; raises `TandemError`."""
    digest: str
    limits: ProbationLimits
    on_fault: Callable[[Instance, str], object]
    """Told, within a turn, why the new version is to be taken back."""
