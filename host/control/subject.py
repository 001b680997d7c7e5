"""What the control API acts on: the running node, as its services see it."""

from collections.abc import Awaitable, Callable
from enum import StrEnum
from pathlib import Path
from typing import Protocol

import msgspec
from msgspec import Struct, field

from host.config import InstanceSection, NodeConfig
from host.control.leadership import Leadership
from host.control.reasons import Refused, Violation
from host.control.rules import Rule
from host.control.tail import JournalTail
from host.control.under_way import UnderWay
from host.runtime.engine import Engine
from host.runtime.instance_control import InstanceControl
from host.runtime.reload import Reloader, ReloadReport

__all__ = ["HasEngine", "Phase", "Subject"]


class Phase(StrEnum):
    """How far a node's process is."""

    STARTING = "starting"
    RUNNING = "running"
    STOPPING = "stopping"


class HasEngine(Protocol):
    """Whoever says which engine is to be asked now."""

    @property
    def engine(self) -> Engine:
        """The engine of the node's present role."""


class Subject(Struct, kw_only=True):
    """One node. What changes while it runs is asked for each time, or, as `phase`, set by its owner.

    A node of a pair takes another role within one process: whoever serves it asks for `engine` and the
    other fields at each call, and keeps none of them over an await.
    """

    engine: Engine
    """On a standby nothing drives it and its journal is another node's: its state is to be read, and
    nothing recorded."""
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
    reloader: Reloader | None = None
    """None, as the next two, on a standby, where no plugin runs."""
    instances: InstanceControl | None = None
    reload: Callable[[str], Awaitable[ReloadReport]] | None = None
    """Takes a plugin to the bytes of its files, on an operator's word."""
    store_lag: Callable[[], int | None] = lambda: None
    standby_of: Callable[[], str | None] = lambda: None
    """Returns the control address of the primary that this node follows, empty where it is not known;
    None while this node is the one that trades."""
    leadership: Leadership | None = None
    """The node's part in its cell; None for a node that runs alone."""
    under_way: UnderWay = field(default_factory=UnderWay)

    def take_role(
        self,
        *,
        engine: Engine,
        tail: JournalTail,
        reloader: Reloader | None = None,
        instances: InstanceControl | None = None,
        reload: Callable[[str], Awaitable[ReloadReport]] | None = None,
    ) -> None:
        """Serve another engine from here on, as a standby without what only a trading node has.

        Watches and longer calls under way end with `ROLE_CHANGED`; their callers come back by
        themselves. What `standby_of` returns changes in the same turn of the loop.
        """
        if tail is not self.tail:
            self.tail.close()
        self.engine, self.tail = engine, tail
        self.reloader, self.instances, self.reload = reloader, instances, reload
        self.under_way.end()

    @property
    def is_standby(self) -> bool:
        """Return whether this node only follows another one."""
        return self.instances is None or self.standby_of() is not None

    @property
    def may_record(self) -> bool:
        """Return whether the engine's journal is this node's to write."""
        return not self.is_standby and not self.engine.halted

    def trading(self) -> tuple[Reloader, InstanceControl]:
        """Return what runs plugins and instances; raise `Refused` on a standby, which has neither."""
        if self.reloader is None or self.instances is None:
            raise self._not_primary()
        return self.reloader, self.instances

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
        if self.is_standby:
            raise self._not_primary()
        if engine.halted:
            raise Refused("HALTED", f"the node sends nothing any more: {engine.halted}")
        if self.phase is not Phase.RUNNING:
            text = f"the node is {self.phase}; it takes this call while it is running"
            raise Refused(self.phase.upper(), text, Violation("node", text))

    def _not_primary(self) -> Refused:
        primary = self.standby_of() or ""
        text = f"the node is a standby; ask its primary{primary and f' at {primary}'}"
        return Refused("NOT_PRIMARY", text, Violation("node", text), primary_address=primary)
