"""What the control API acts on: the running node, as its services see it."""

from collections.abc import Awaitable, Callable
from enum import StrEnum
from pathlib import Path

import msgspec
from msgspec import Struct

from host.config import InstanceSection, NodeConfig
from host.control.reasons import Refused, Violation
from host.control.rules import Rule
from host.control.tail import JournalTail
from host.runtime.engine import Engine
from host.runtime.instance_control import InstanceControl
from host.runtime.reload import Reloader, ReloadReport

__all__ = ["Phase", "Subject"]


class Phase(StrEnum):
    """How far a node's process is."""

    STARTING = "starting"
    RUNNING = "running"
    STOPPING = "stopping"


class Subject(Struct, kw_only=True):
    """One node. What changes while it runs is asked for each time, or, as `phase`, set by its owner."""

    engine: Engine
    config: Callable[[], NodeConfig]
    """Returns the configuration in force."""
    config_files: tuple[Path, ...] = ()
    host_version: str
    started_ns: int
    """When the process took up its work, in the node's time."""
    phase: Phase = Phase.STARTING
    stop: Callable[[str], None]
    """Has the node stop cleanly; takes the reason."""
    tail: JournalTail
    reloader: Reloader
    instances: InstanceControl
    reload: Callable[[str], Awaitable[ReloadReport]]
    """Takes a plugin to the bytes of its files, on an operator's word."""
    store_lag: Callable[[], int | None] = lambda: None
    standby_of: Callable[[], str | None] = lambda: None
    """Returns the control address of the primary that this node follows, empty where it is not known;
    None while this node is the one that trades."""

    def section(self, name: str) -> InstanceSection | None:
        """Return how an instance is configured; None where nothing says so any more."""
        known = self.engine.state.api_instances.get(name)
        if known is not None:
            return msgspec.json.decode(known, type=InstanceSection)
        return next((one for one in self.config().instance if one.name == name), None)

    def check(self, rule: Rule) -> None:
        """Raise `Refused` where the node cannot do now what such a call asks for."""
        if not rule.mutates or rule.on_standby:
            return
        engine = self.engine
        primary = self.standby_of()
        if primary is not None:
            text = f"the node is a standby; ask its primary{primary and f' at {primary}'}"
            raise Refused("NOT_PRIMARY", text, Violation("node", text), primary_address=primary)
        if engine.halted:
            raise Refused("HALTED", f"the node sends nothing any more: {engine.halted}")
        if self.phase is not Phase.RUNNING:
            text = f"the node is {self.phase}; it takes this call while it is running"
            raise Refused(self.phase.upper(), text, Violation("node", text))
