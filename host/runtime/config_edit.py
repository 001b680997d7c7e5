"""One edit of the configuration, on its way into a running node.

Everything in here is synchronous: an edit is judged, everything it needs is made, and then it is
applied in one turn, between two events. Only the last step touches what runs, and it cannot fail.
"""

import contextlib
import logging
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Final

import msgspec
from msgspec import Struct

from host.api import Params, TandemError
from host.config import InstanceSection, LoadedConfig, NodeConfig, NodeSection, Problem
from host.config.plan import RESTART_REQUIRED, diff
from host.core import entries as e
from host.core.entries import InstanceState
from host.core.risk_limits import RiskConfig
from host.journal import JournalError
from host.loader import Kind, Offer, ParamsInvalid, UnknownPlugin, decode_params
from host.runtime.instance import Instance, StateNotCarried, carry_state, encode_state
from host.runtime.instance_maker import InstanceMaker, PreparedInstance
from host.runtime.models import ModelStage
from host.runtime.plugin_errors import describe_error
from host.runtime.reload import ModelUse, Reloader, StrategyUse
from host.runtime.remote import RemoteStrategy

if TYPE_CHECKING:
    from host.runtime.engine import Engine

__all__ = ["ConfigEdit", "EditTools"]

_log = logging.getLogger("tandem.config")

_RECEIVING: Final = (InstanceState.RUNNING, InstanceState.PAUSED)
_REMOVED: Final = "removed from the configuration"
_REPLACED: Final = "replaced by an edit of the configuration"


class EditTools(Struct, frozen=True):
    """What every edit works with.

    `skipped` are the instances that could not be made, and why. `leaving` are those removed whose
    orders are not done yet. `on_reload_settings` is told when the reload settings changed.
    """

    engine: "Engine"
    reloader: Reloader
    maker: InstanceMaker
    skipped: dict[str, str]
    leaving: dict[str, Instance]
    on_reload_settings: Callable[[NodeSection], None]

    def let_go(self) -> None:
        """Have removed instances leave the roster whose orders are done; within a turn."""
        busy = {order.instance for order in self.engine.state.orders.values()}
        for name, instance in list(self.leaving.items()):
            # Another one may have its name by now, which the control API made.
            is_there = self.engine.roster.instances.get(name) is instance
            if is_there and name not in busy:
                self.engine.roster.remove(instance)
            if not is_there or name not in busy:
                del self.leaving[name]


class _Chain(Struct, frozen=True):
    """The models of one instance as an edit wants them; those that stay are the ones that run."""

    instance: Instance
    stages: tuple[ModelStage, ...]
    uses: tuple[ModelUse, ...]


class ConfigEdit:
    """The way from the configuration in force (`before`) to one just loaded.

    Call `faults`, then `prepare`, then `apply`; whatever the first two return is wrong with the edit,
    and nothing has changed then. No event may come between `prepare` and `apply`.
    """

    def __init__(self, before: NodeConfig, loaded: LoadedConfig, tools: EditTools) -> None:
        self.plan: Final = diff(before, loaded.config)
        self._before = before
        self._loaded = loaded
        self._tools = tools
        self._engine = tools.engine
        self._reloader = tools.reloader
        self._instances: list[PreparedInstance] = []
        self._params: list[tuple[Instance, InstanceSection, Params]] = []
        self._chains: list[_Chain] = []
        self._started: list[ModelStage] = []
        """Models of those chains that did not run before."""

    # -- what an edit means here -----------------------------------------------------------------

    def _to_make(self) -> dict[str, InstanceSection]:
        """Return the sections of which an instance is to be made, those skipped so far included."""
        running = self._engine.roster.instances
        plan = self.plan
        sections = (*plan.params, *plan.models, *plan.tolerances, *plan.starts, *plan.schedules)
        missing = [section for section in sections if section.name not in running]
        return {section.name: section for section in (*self.plan.added, *self.plan.replaced, *missing)}

    def _of_running(self, sections: Sequence[InstanceSection]) -> Iterator[tuple[Instance, InstanceSection]]:
        made = self._to_make()
        for section in sections:
            if section.name not in made:
                yield self._engine.roster.instances[section.name], section

    def offers(self) -> list[Offer]:
        """Return what instances and models are made of; call it when `faults` found none."""
        catalog = self._reloader.catalog
        made = list(self._to_make().values())
        found = [catalog.strategy(section.plugin) for section in made]
        found += [catalog.model(ref.name) for section in (*made, *self.plan.models) for ref in section.models]
        return found

    def plugins(self) -> frozenset[str]:
        """Return the plugins of which an edit wants instances or models made, or replaced."""
        names: set[str] = set()
        plugin_of = self._reloader.catalog.plugin_of
        for section in (*self._to_make().values(), *self.plan.models):
            names.add(plugin_of(Kind.STRATEGY, section.plugin))
            names |= {plugin_of(Kind.MODEL, ref.name) for ref in section.models}
            names |= {use.offer.version.name for use in self._reloader.model_uses.get(section.name, ())}
            if section.name in self._reloader.uses:
                names.add(self._reloader.uses[section.name].offer.version.name)
        return frozenset(names)

    def replaced(self) -> list[Instance]:
        """Return the running instances that make room for others of their names."""
        running = self._engine.roster.instances
        return [running[section.name] for section in self.plan.replaced if section.name in running]

    def new_symbols(self) -> dict[str, set[str]]:
        """Return, by account, the symbols that nobody follows yet."""
        wanted: dict[str, set[str]] = {}
        for section in self._to_make().values():
            new = set(section.symbols) - self._engine.feeds[section.account].symbols.keys()
            if new:
                wanted.setdefault(section.account, set()).update(new)
        return wanted

    # -- what is wrong with it -------------------------------------------------------------------

    def faults(self) -> Iterator[Problem]:
        """Find everything wrong that can be found without making anything."""
        for need in self.plan.needs_restart:
            yield self._loaded.problem(need.at, str(need))
        made = self._to_make()
        for index, section in enumerate(self._loaded.config.instance):
            at = ("instance", index)
            if section.name in made:
                yield from self._misplaced(section, at)
                yield from self._bad_params(section, at)
                yield from self._bad_models(section, at)
                continue
            if section in self.plan.params:
                yield from self._bad_params(section, at)
            if section in self.plan.models:
                yield from self._bad_models(section, at)

    def _misplaced(self, section: InstanceSection, at: tuple[str, int]) -> Iterator[Problem]:
        if section.name in self._engine.state.api_instances:
            text = "the control API made an instance of that name; remove that first, or take another name"
            yield self._loaded.problem((*at, "name"), text)
        feed = self._engine.feeds.get(section.account)
        if feed is None or feed.failure:
            why = f"it failed: {feed.failure}" if feed is not None else "it was not connected at the start"
            text = f"{RESTART_REQUIRED}: account {section.account} cannot be traded on: {why}"
            yield self._loaded.problem((*at, "account"), text)
            return
        for place, symbol in enumerate(section.symbols):
            if symbol not in feed.listed:
                text = f"account {section.account} has no symbol {symbol}; it has {', '.join(feed.listed)}"
                yield self._loaded.problem((*at, "symbols", place), text)
        state = self._engine.state
        known = state.instances.get(section.name)
        if known is not None and known.account != section.account:
            held = [s for s, holding in state.holdings.get(section.name, {}).items() if holding.qty]
            if held:
                text = (
                    f"instance {section.name} holds {', '.join(held)} on account {known.account}; "
                    "close that first, or give the new instance another name"
                )
                yield self._loaded.problem((*at, "account"), text)

    def _bad_params(self, section: InstanceSection, at: tuple[str, int]) -> Iterator[Problem]:
        try:
            offer = self._reloader.catalog.strategy(section.plugin)
            decode_params(offer, section.params, instance=section.name)
        except ParamsInvalid as error:
            yield self._loaded.problem((*at, *error.field.split(".")), error.detail)
        except UnknownPlugin as error:
            yield self._loaded.problem((*at, "plugin"), str(error))

    def _bad_models(self, section: InstanceSection, at: tuple[str, int]) -> Iterator[Problem]:
        for place, ref in enumerate(section.models):
            here = (*at, "models", place)
            try:
                offer = self._reloader.catalog.model(ref.name)
                decode_params(offer, ref.params, instance=section.name)
            except ParamsInvalid as error:
                yield self._loaded.problem((*here, *error.field.split(".")), error.detail)
            except UnknownPlugin as error:
                yield self._loaded.problem((*here, "name"), str(error))

    def prepare(self) -> list[Problem]:
        """Make everything that the edit needs; return what could not be made, and why."""
        problems: list[Problem] = []
        index_of = {section.name: index for index, section in enumerate(self._loaded.config.instance)}

        @contextlib.contextmanager
        def blamed_on(section: InstanceSection, key: str) -> Iterator[None]:
            try:
                yield
            except (TandemError, OSError) as error:
                at = ("instance", index_of[section.name], key)
                problems.append(self._loaded.problem(at, str(error)))

        for section in self._to_make().values():
            with blamed_on(section, "plugin"):
                one = self._tools.maker.prepare(section)
                self._instances.append(one)
                self._check_state(one)
        for instance, section in self._of_running(self.plan.params):
            with blamed_on(section, "params"):
                offer = self._reloader.uses[section.name].offer
                params = decode_params(offer, section.params, instance=section.name)
                self._params.append((instance, section, params))
        for instance, section in self._of_running(self.plan.models):
            with blamed_on(section, "models"):
                self._chains.append(self._chain(instance, section))
        return problems

    def abandon(self) -> None:
        """End what was made and is not to be: a model may have a process of its own by now."""
        for one in self._instances:
            for stage in one.instance.models:
                stage.close()
        for stage in self._started:
            stage.close()

    def _check_state(self, one: PreparedInstance) -> None:
        """Prove that the state of the instance which goes fits: what is journaled may be older."""
        old = self._engine.roster.instances.get(one.section.name)
        if old is None or old.state not in _RECEIVING:
            return
        if isinstance(old.strategy, RemoteStrategy):
            return  # its successor says whether the state that it is given fits
        try:
            data = encode_state(old.strategy)
        except Exception as error:
            raise TandemError(f"its present state cannot be saved: {describe_error(error)}") from error
        state_type = type(one.instance.strategy).state_type
        carry_state(state_type, type(old.strategy).state_type.state_version, data, one.section.name)

    def _chain(self, instance: Instance, section: InstanceSection) -> _Chain:
        running = list(zip(self._reloader.model_uses.get(section.name, ()), instance.models, strict=True))
        stages: list[ModelStage] = []
        uses: list[ModelUse] = []
        for ref in section.models:
            use = ModelUse.of(self._reloader.catalog.model(ref.name), ref)
            place = next(
                (i for i, (u, _) in enumerate(running) if u == use),
                None,
            )
            if place is None:
                stages.append(self._tools.maker.prepare_model(section.name, section.account, use))
                self._started.append(stages[-1])
            else:
                stages.append(running.pop(place)[1])
            uses.append(use)
        return _Chain(instance, tuple(stages), tuple(uses))

    # -- following it ----------------------------------------------------------------------------

    def apply(self, take_over: Callable[[], None]) -> None:
        """Do all of it within one turn: between two events, and in one write to the journal.

        `take_over` makes the configuration the one in force, before the turn's end: what that starts again, because
        nothing holds it any more, is made as it is configured by then.
        """
        engine = self._engine
        now_ns = engine.clock.now_ns()
        engine.begin_turn(now_ns)
        try:
            self._take_steps(now_ns)
            take_over()
        except JournalError as error:
            engine.abort_turn(error)
            return
        except BaseException:
            engine.end_turn(now_ns, 0)
            raise
        engine.end_turn(now_ns, 0)
        _log.info("configuration changed: %s", "; ".join(self.plan.changes))

    def _take_steps(self, now_ns: int) -> None:
        engine, plan = self._engine, self.plan
        engine.record(e.ConfigApplied(plan.changes), now_ns)
        if plan.limits is not None:
            self._set_limits(plan.limits, now_ns)
        if plan.reload is not None:
            self._tools.on_reload_settings(plan.reload)
        start_paused = {one.section.name: self._starts_paused(one.section) for one in self._instances}
        scheduled = list(self._of_running(plan.schedules))
        made = [one.section for one in self._instances]
        # Before anything stops: what comes after that no more is not to be held for it.
        engine.scheduler.take_on(*(section for _, section in scheduled), *made)
        for section in plan.removed:
            self._remove(section.name, now_ns)
        for instance, section, params in self._params:
            self._set_params(instance, section, params, now_ns)
        for instance, section in self._of_running(plan.tolerances):
            engine.oms.set_tolerance(instance.instance, section.quote_tolerance_bps)
        for chain in self._chains:
            self._set_models(chain)
        for instance, section in scheduled:
            self._set_schedule(instance, section)
        for instance, section in self._of_running(plan.starts):
            self._move(instance, section)
        # From here on the new ones are in the roster, and running ones.
        starting = {one.section.name: one for one in self._instances}
        for one in self._instances:
            self._install(one, now_ns)
        for instance in engine.scheduler.in_order(one.instance for one in self._instances):
            name = instance.instance
            if instance.state is InstanceState.LOADED:
                self._tools.maker.start(instance, starting[name].section, paused=start_paused[name])
        self._tools.let_go()

    def _set_limits(self, limits: RiskConfig, now_ns: int) -> None:
        self._engine.risk_settings.configure(limits, now_ns)

    def _remove(self, name: str, now_ns: int) -> None:
        """Stop an instance; it leaves the roster once its orders are done."""
        self._tools.skipped.pop(name, None)
        instance = self._engine.roster.instances.get(name)
        if instance is None:
            return
        roster = self._engine.roster
        roster.stop(instance, _REMOVED)
        if instance.state is InstanceState.QUARANTINED:
            # Removed and added again by a person: it starts afresh.
            instance.state = InstanceState.STOPPED
            self._engine.record(e.InstanceChanged(name, InstanceState.STOPPED, _REMOVED), now_ns)
        self._reloader.forget(instance, now_ns)
        self._engine.scheduler.forget(name)
        self._tools.leaving[name] = instance

    def _starts_paused(self, section: InstanceSection) -> bool | None:
        """Return whether an instance is to be paused as the one before it; None where its section says."""
        old = self._engine.roster.instances.get(section.name)
        before = next((s for s in self._before.instance if s.name == section.name), None)
        if old is None or before is None or before.start != section.start or old.state not in _RECEIVING:
            return None
        return old.state is InstanceState.PAUSED and not self._engine.state.instances[section.name].by

    def _install(self, one: PreparedInstance, now_ns: int) -> None:
        """Put a new instance in the place of one that may be there."""
        engine, name = self._engine, one.section.name
        old = engine.roster.instances.get(name)
        if old is not None:
            if self._tools.leaving.pop(name, None) is not old:
                engine.roster.stop(old, _REPLACED)
            self._reloader.forget(old, now_ns)
            engine.roster.remove(old)
        known = engine.state.instances.get(name)
        if one.section in self.plan.added and known is not None and known.state is InstanceState.QUARANTINED:
            # Its worker raised in its stop, after it was removed.
            engine.record(e.InstanceChanged(name, InstanceState.STOPPED, _REMOVED), now_ns)
        self._tools.maker.install(one)
        self._reloader.take_on(name, one.use, one.model_uses)
        self._tools.skipped.pop(name, None)
        record = engine.state.instances[name]
        try:
            one.instance.restore_state(record.state_version, record.strategy_state)
        except StateNotCarried as error:  # it fitted when it was tried; `on_stop` changed it since
            engine.roster.put_in_quarantine(one.instance, str(error))

    def _set_params(self, instance: Instance, section: InstanceSection, params: Params, now_ns: int) -> None:
        """Hand new parameters to a strategy; one that raises in `on_params` is quarantined."""
        engine, name = self._engine, section.name
        self._reloader.uses[name] = StrategyUse(self._reloader.uses[name].offer, section.params)
        if params == instance.strategy.params:
            return
        engine.record(e.ParamsChanged(name, msgspec.json.encode(params), "config"), now_ns)
        if instance.state in _RECEIVING:
            engine.roster.call(instance, lambda _: instance.set_params(params), None, "on_params")
        else:
            instance.strategy.params = params

    def _set_models(self, chain: _Chain) -> None:
        before = chain.instance.models
        self._engine.roster.set_models(chain.instance, chain.stages)
        for use, stage in zip(chain.uses, chain.stages, strict=True):
            if stage not in before:
                self._tools.maker.note_loaded(use.offer.version, use.offer.name)
        name = chain.instance.instance
        self._reloader.take_on(name, self._reloader.uses[name], chain.uses)

    def _set_schedule(self, instance: Instance, section: InstanceSection) -> None:
        """Hold an instance to another schedule; whoever has to be paused or let go on is so at the turn's end."""
        instance.hears_market = section.schedule.market_events
        self._engine.scheduler.on_changed(is_edited=True)
        self._engine.roster.rewire()

    def _move(self, instance: Instance, section: InstanceSection) -> None:
        """Pause or resume an instance whose section says so now; a pause of its schedule becomes a pause for good."""
        if section.start == "paused" and instance.state in _RECEIVING:
            self._engine.roster.pause(instance, "config")
        elif section.start == "running" and instance.state is InstanceState.PAUSED:
            self._engine.roster.resume(instance, "config")
