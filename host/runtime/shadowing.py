"""A standby's strategies: run muted on its own market data, so that they are warm when it takes over.

They hear what the primary's hear: books and trades from this node's own connections, orders and fills
from the entries that replication brings. Whenever the primary saves a strategy's state, that state takes
the place of the one here; in between it goes on by itself.
"""

import logging
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Final

import msgspec

from host.api import TandemError
from host.config import InstanceSection
from host.core import entries as e
from host.core.entries import InstanceState
from host.core.state import Outcome
from host.loader import Version
from host.runtime.history import Due, OwnEvent
from host.runtime.instance import Instance
from host.runtime.instance_maker import InstanceMaker, PreparedInstance, is_isolated
from host.runtime.plugin_errors import describe_error
from host.runtime.reload.shadow import Shadow

if TYPE_CHECKING:
    from host.runtime.engine import Engine

__all__ = ["Shadowing", "as_the_primary_runs_it"]

_log = logging.getLogger("tandem.standby")

_OURS: Final = (e.PlaceSent, e.AmendSent, e.CancelSent)
"""Intents change an order too, and no strategy is told of its own."""
_CHANGING: Final = (
    e.InstanceAdded,
    e.InstanceChanged,
    e.ParamsChanged,
    e.InstanceConfigured,
    e.InstanceRevised,
)
_SHADOWED: Final = (InstanceState.STARTING, InstanceState.RUNNING, InstanceState.PAUSED)


def as_the_primary_runs_it(section: InstanceSection, engine: "Engine") -> InstanceSection:
    """Return a section with the parameters that the journal says the instance has, if it knows it."""
    record = engine.state.instances.get(section.name)
    if record is None or record.plugin != section.plugin or not record.params:
        return section
    if section.isolation == "inline" and is_isolated(section.name, record.digest, engine.state):
        section = msgspec.structs.replace(section, isolation="process")
    return msgspec.structs.replace(section, params=msgspec.json.decode(record.params))


class _Copy(Shadow):
    """A muted strategy whose errors are its own: whoever feeds it, a candle's maker too, hears of none."""

    def __init__(
        self, instance: Instance, engine: "Engine", on_error: Callable[[Instance, BaseException], None]
    ) -> None:
        clock = engine.clock
        super().__init__(instance, instance.strategy, clock.now_ns(), clock.stopwatch_ns, keeps_intents=False)
        self._on_error: Final = on_error

    def run(self, events: Iterable[Any], slice_ns: int = 0) -> int:
        """Hand events over as `Shadow.run` does; return 0 where the strategy raised."""
        try:
            return super().run(events, slice_ns)
        except (Exception, SystemExit) as error:  # noqa: BLE001 - plugin boundary: the copy is given up
            self._on_error(self._instance, error)
            return 0


class Shadowing:
    """Keeps a muted copy of every instance that the primary runs, as far as this node can.

    `sections()` are the instances as configured. `faults` says, by instance, why there is no copy:
    such a standby is unfit. `stumbles` says whose copy raised: its code would, as the primary, too.
    """

    def __init__(
        self, engine: "Engine", maker: InstanceMaker, sections: Callable[[], Iterable[InstanceSection]]
    ) -> None:
        self.faults: dict[str, str] = {}
        self.stumbles: dict[str, str] = {}
        self._engine: Final = engine
        self._maker: Final = maker
        self._sections: Final = sections
        self._running: dict[str, PreparedInstance] = {}
        self._dirty: set[str] = set()
        self._is_due = True

    # -- what happens ----------------------------------------------------------------------------

    def on_record(self, record: e.Record, outcome: Outcome | None) -> None:
        """Follow an entry of the primary that the state has just taken in."""
        engine, entry = self._engine, record.entry
        if outcome is not None:
            self._tell(entry, outcome, record.ts_ns)
        elif isinstance(entry, e.StrategyStateSaved):
            prepared = self._running.get(entry.instance)
            if prepared is not None:
                self._guard(
                    prepared, lambda: prepared.instance.restore_state(entry.state_version, entry.data)
                )
        elif isinstance(entry, e.TriggerFired):
            self._hear(entry.instance, [OwnEvent(entry.instance, Due(entry.trigger), record.ts_ns)])
        elif isinstance(entry, _CHANGING):
            self._is_due = True
            self._dirty.add(entry.instance)
        elif isinstance(entry, e.InstanceRemoved | e.InstanceHeld | e.InstrumentSet | e.VersionMoved):
            self._is_due = True
        elif isinstance(entry, e.KillSwitchSet):
            engine.risk.set_kill(entry.scope, entry.is_on, entry.reason)

    def on_time(self, now_ns: int) -> None:
        """Let timers fire, finish candles, and bring the copies in line with what the primary runs."""
        if self._is_due:
            self._is_due = False
            self.refresh()
        for feed in self._engine.feeds.values():
            for symbol in feed.symbols.values():
                for maker in symbol.candle_makers:
                    maker.on_time(now_ns)
        for prepared in list(self._running.values()):
            shadow = prepared.instance.shadow
            if shadow is not None and shadow.timers:
                self._guard(prepared, lambda shadow=shadow: shadow.advance(now_ns))  # type: ignore[misc]

    def refresh(self) -> None:
        """Make the copies that are missing or outdated, and end those of what does not run any more."""
        engine = self._engine
        dirty, self._dirty = self._dirty, set()
        wanted = {}
        for section in self._sections():
            record = engine.state.instances.get(section.name)
            if record is not None and record.state in _SHADOWED and section.name not in engine.state.held:
                wanted[section.name] = as_the_primary_runs_it(section, engine)
        for name in [name for name in self._running if name not in wanted or name in dirty]:
            if name in wanted and self._is_current(self._running[name], wanted[name]):
                continue
            self._end(name)
        self.faults = {name: why for name, why in self.faults.items() if name in wanted}
        # What was changed may be what made it raise.
        self.stumbles = {
            name: why for name, why in self.stumbles.items() if name in wanted and name not in dirty
        }
        for name, section in wanted.items():
            if name not in self._running:
                self._begin(section)
        self._rewire()

    def take(self, name: str) -> PreparedInstance | None:
        """Hand the copy of an instance over, warm, to become the instance; None where there is none.

        From here on it is the new owner's.
        """
        prepared = self._running.pop(name, None)
        if prepared is None:
            return None
        instance, shadow = prepared.instance, prepared.instance.shadow
        assert shadow is not None
        if not self._guard(prepared, shadow.end):
            _close_models(prepared)
            return None
        engine = self._engine
        if engine.state.unheard.get(name):
            # Its own state may have taken in what its successor is to hear first of all.
            known = engine.state.instances[name]
            if not self._guard(
                prepared, lambda: instance.restore_state(known.state_version, known.strategy_state)
            ):
                _close_models(prepared)
                return None
        instance.strategy.ctx = instance
        return prepared

    def end(self) -> None:
        """End every copy that was not taken."""
        for name in list(self._running):
            self._end(name)

    # -- inside ----------------------------------------------------------------------------------

    def _is_current(self, prepared: PreparedInstance, section: InstanceSection) -> bool:
        offer = prepared.use.offer
        record = self._engine.state.instances[section.name]
        return prepared.section == section and offer.version.digest == record.digest

    def _begin(self, section: InstanceSection) -> None:
        engine, name = self._engine, section.name
        if name in self.stumbles:
            return
        if section.isolation != "inline":
            self._check(section)  # it is started with the takeover, from the state that was saved
            return
        if engine.blocks.ended_in(name, engine):
            # It would end this process as well, before that leads and can quarantine it.
            self._stumble(name, "there is no copy of it: the process before this one ended in its code")
            return
        try:
            prepared = self._maker.prepare(section)
        except (TandemError, KeyError) as error:
            self._fault(name, f"instance {name}: {error}")
            return
        if other := self._other_version(section, prepared.use.offer.version):
            _close_models(prepared)
            self._fault(name, other)
            return
        self.faults.pop(name, None)
        instance = prepared.instance
        engine.roster.attach(instance)
        instance.shadow = _Copy(instance, engine, self._stumbled)
        self._running[name] = prepared
        self._guard(prepared, instance.shadow.start)

    def _check(self, section: InstanceSection) -> None:
        """See whether this node could start what runs in another process."""
        name = section.name
        try:
            version = self._maker.check(section)
        except (TandemError, KeyError, OSError) as error:
            self._fault(name, f"instance {name}: {error}")
            return
        if other := self._other_version(section, version):
            self._fault(name, other)
        else:
            self.faults.pop(name, None)

    def _other_version(self, section: InstanceSection, version: Version) -> str:
        """Return what is wrong with the version that this node has; empty where the primary runs it, or would."""
        state = self._engine.state
        record, known = state.instances[section.name], state.plugins.get(version.name)
        if version.digest in (record.digest, "" if known is None else known.permanent):
            return ""
        return (
            f"instance {section.name}: the primary runs version {record.digest[:12]} of plugin {section.plugin}, "
            f"this node has {version.digest[:12]}; put the same files into its plugin folder"
        )

    def _fault(self, name: str, text: str) -> None:
        if self.faults.get(name) != text:
            self.faults[name] = text
            _log.warning("not ready to take over: %s", text)

    def _end(self, name: str) -> None:
        _close_models(self._running.pop(name))

    def _tell(self, entry: e.Entry, outcome: Outcome, ts_ns: int) -> None:
        order, fill = outcome.order, outcome.fill
        risk = self._engine.risk
        if fill is not None:
            risk.filled(fill)
            self._engine.fill_history.add(self._engine.state.last_fill_lsn, fill)
        if order is not None:
            risk.order_changed(order)
        if isinstance(entry, _OURS) or (outcome.anomaly is not None and fill is None):
            return
        name = order.instance if order is not None else fill.instance if fill is not None else ""
        events = [OwnEvent(name, fill, ts_ns)] if fill is not None else []
        if order is not None:
            events.append(OwnEvent(name, msgspec.structs.replace(order), ts_ns))
        self._hear(name, events)

    def _hear(self, instance: str, events: list[OwnEvent]) -> None:
        """Have an instance's copy, if there is one, hear what is its own."""
        prepared = self._running.get(instance)
        if prepared is None or prepared.instance.shadow is None:
            return
        history = prepared.instance.account_history
        for event in events:
            history.add(event)
        prepared.instance.shadow.run(events)

    def _rewire(self) -> None:
        """Rebuild who hears of what."""
        running = list(self._running.values())
        for feed in self._engine.feeds.values():
            for symbol, symbol_feed in feed.symbols.items():
                here = [
                    p
                    for p in running
                    if p.instance.account == feed.account
                    and symbol in p.instance.symbols
                    and p.instance.hears_market
                ]
                handlers = tuple((p.instance, self._handler(p)) for p in here)
                symbol_feed.on_book = handlers
                symbol_feed.on_trade = handlers
                symbol_feed.on_depth = handlers
                symbol_feed.on_ticker = handlers
                symbol_feed.candle_makers = tuple(
                    p.instance.candle_makers[symbol] for p in here if symbol in p.instance.candle_makers
                )

    def _handler(self, prepared: PreparedInstance) -> Callable[[Any], None]:
        shadow = prepared.instance.shadow
        assert shadow is not None
        run = shadow.run

        def handle(event: Any) -> None:
            run((event,))

        return handle

    def _guard(self, prepared: PreparedInstance, work: Callable[[], object]) -> bool:
        try:
            work()
        except (Exception, SystemExit) as error:  # noqa: BLE001 - plugin boundary: the copy is given up
            self._stumbled(prepared.instance, error)
            return False
        return True

    def _stumbled(self, instance: Instance, error: BaseException) -> None:
        name = instance.instance
        self._stumble(name, f"its code raised as a standby: {describe_error(error)}")
        if name in self._running:
            self._end(name)
        self._is_due = True

    def _stumble(self, name: str, why: str) -> None:
        text = self.stumbles[name] = f"instance {name}: {why}"
        _log.warning("%s", text)


def _close_models(prepared: PreparedInstance) -> None:
    for stage in prepared.instance.models:
        stage.close()
