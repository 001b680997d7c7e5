"""The instances of a node: their lives, their strategies' states, and what they hear of."""

import asyncio
import functools
import logging
from collections.abc import Callable, Coroutine, Sequence
from typing import TYPE_CHECKING, Any, Final

import msgspec

from host.api import Fill, Order, Quote, QuoteModel, Strategy, TandemError
from host.core import entries as e
from host.core.client_id import ClientIdMaker
from host.core.entries import InstanceState
from host.core.hand import is_hand
from host.journal import JournalError
from host.runtime.admission import InstanceSpec, admit
from host.runtime.history import OwnEvent
from host.runtime.instance import Instance
from host.runtime.models import ModelStage
from host.runtime.plugin_errors import describe_error
from host.runtime.remote import RemoteStrategy
from host.runtime.routing import attach, feed_models, fit, route
from host.runtime.strategy_states import RECEIVING, StrategyStates

if TYPE_CHECKING:
    from host.runtime.engine import Engine
    from host.runtime.scheduler import Hold

__all__ = ["InstanceSpec", "Roster"]

_log = logging.getLogger("tandem.roster")

_TOLD: Final = (InstanceState.RUNNING, InstanceState.PAUSED, InstanceState.STOPPED)
"""What is logged of its own; of a quarantine an alert tells, with more."""


class Roster:
    """Every instance of a node, by name.

    A strategy hears of each change of its orders and of each fill exactly once, over restarts too:
    its state is saved in the same write as what it heard, and what a saved state has not taken in
    (`TradingState.unheard`) is handed over to whoever goes on from that state.
    """

    def __init__(self, engine: "Engine") -> None:
        self.instances: dict[str, Instance] = {}
        self.states: Final = StrategyStates(engine, self)
        self._engine = engine
        self._ids: dict[str, ClientIdMaker] = {}
        self._new_versions: set[str] = set()
        self._paused_before: set[str] = set()
        self.on_probation_fault: Callable[[Instance, str], bool] = lambda _instance, _why: False
        """Takes back a version that raised on probation; returns whether it did."""

    def plugin_loaded(self, name: str, path: str, digest: str, offers: tuple[str, ...]) -> None:
        """Say in the journal which bytes run under a plugin's name."""
        self._engine.begin_turn(self._engine.clock.now_ns())
        self._engine.record(e.PluginLoaded(name, path, digest, offers), self._engine.now_ns)
        self._engine.end_turn(self._engine.now_ns, 0)

    def add(
        self,
        spec: InstanceSpec,
        strategy: Strategy[Any],
        models: Sequence[tuple[str, QuoteModel[Any]]],
        spawn: Callable[[Coroutine[Any, Any, None], str], "asyncio.Task[None]"],
    ) -> Instance:
        """Create an instance, restore its state and let it hear of the market; it cannot trade yet.

        Raises `StateNotCarried` where its saved state does not fit, and another `TandemError` for a
        symbol that is not there, a model that does not start, or another account than the one where
        it holds something; nothing has changed then.
        """
        instance = admit(self._engine, spec, strategy, models, spawn)
        self.install(instance, spec)
        return instance

    def install(self, instance: Instance, spec: InstanceSpec) -> None:
        """Do the rest of `add`, which cannot fail."""
        engine = self._engine
        known = engine.state.instances.get(spec.name)
        if known is None or known.digest != spec.digest:
            self._new_versions.add(spec.name)
        else:
            self._new_versions.discard(spec.name)
        number = known.number if known is not None else engine.state.next_instance_number
        now_ns = engine.clock.now_ns()
        engine.begin_turn(now_ns)
        engine.record(
            e.InstanceAdded(
                spec.name, number, spec.plugin, spec.digest, spec.account, spec.symbols, spec.params_json
            ),
            now_ns,
        )
        self._connect(instance, self.ids_of(spec.name, number), spec)
        self.instances[spec.name] = instance
        engine.end_turn(now_ns, 0)

    def ids_of(self, name: str, number: int) -> ClientIdMaker:
        """Return what makes an instance's order ids.

        One that comes back under its name goes on counting: an order id is never used twice.
        """
        ids = self._ids.get(name)
        if ids is None:
            engine = self._engine
            ids = self._ids[name] = ClientIdMaker(engine.settings.order_id_prefix, engine.state.epoch, number)
        return ids

    def remove(self, instance: Instance) -> None:
        """Forget a stopped instance; one that takes its name hears what its orders still do."""
        name = instance.instance
        for stage in instance.models:
            stage.close()
        self._engine.oms.close_channels(name)
        self.states.touched.discard(name)
        del self.instances[name]
        self.rewire()

    def set_models(self, instance: Instance, stages: Sequence[ModelStage]) -> None:
        """Have an instance's quotes pass other models, which were started, from the next one on."""
        for stage in instance.models:
            if stage not in stages:
                stage.close()
        instance.models = tuple(stages)
        feed_models(instance)

    def start(
        self,
        instance: Instance,
        *,
        paused: bool = False,
        reason: str = "",
        by: str = "",
        takes_over: bool = False,
    ) -> None:
        """Run `on_start`, let it trade, and hand over first of all what its saved state has not seen.

        `reason` is why one is paused, where that is known, and `by` what of the scheduler did it.

        One that `takes_over` from another node runs `on_takeover` too; `on_start` it ran as a standby, if
        it has been one.
        """
        now_ns = self._engine.clock.now_ns()
        self._paused_before.discard(instance.instance)
        self._engine.begin_turn(now_ns)
        self._set_state(instance, InstanceState.STARTING, "")
        shadow, instance.shadow = instance.shadow, None
        if shadow is None:
            self.call(instance, lambda _: instance.strategy.on_start(), None, "on_start")
        else:
            instance.timers = dict(shadow.timers)
        if takes_over and instance.state is InstanceState.STARTING:
            self.call(instance, lambda _: instance.strategy.on_takeover(), None, "on_takeover")
        if instance.state is InstanceState.STARTING:
            state = InstanceState.PAUSED if paused else InstanceState.RUNNING
            self._set_state(instance, state, reason if paused else "", by if paused else "")
            if paused:
                # A process that died while it paused may have left quotes behind.
                self._engine.oms.pull_quotes(instance.instance, "paused", now_ns)
            self._tell_unheard(instance)
        self.rewire()
        if shadow is not None:
            # What it wants by now: the first quotes need not wait for the next event.
            for symbol, quotes in shadow.quotes.items():
                self.call(instance, functools.partial(_quote, instance, symbol), quotes, "a quote model")
        self._engine.end_turn(now_ns, 0)

    def _tell_unheard(self, instance: Instance) -> None:
        if isinstance(instance.strategy, RemoteStrategy):
            return  # the other side is told when it is there
        state = self._engine.state
        # A copy: an adapter that answers at once adds to it, and tells that by itself.
        for news in list(state.unheard.get(instance.instance, ())):
            order = state.orders.get(news.client_id) or state.retired.get(news.client_id)
            self._tell(instance, order, news.fill)

    def is_new_version(self, instance: str) -> bool:
        """Return whether the instance runs other plugin bytes than when the node last ran."""
        return instance in self._new_versions

    def keep_quarantined(self, instance: Instance, reason: str, *, was_paused: bool = False) -> None:
        """Leave an instance in quarantine: the same bytes would misbehave again.

        One that `was_paused` is paused again when it leaves it.
        """
        instance.state = InstanceState.QUARANTINED
        if was_paused:
            self._paused_before.add(instance.instance)
        self._engine.begin_turn(self._engine.clock.now_ns())
        text = f"instance {instance.instance} stays quarantined: {reason}"
        self._engine.record_alert("quarantined", text, instance.instance)
        self._pull_all(instance, "quarantined", self._engine.now_ns)
        self._engine.end_turn(self._engine.now_ns, 0)

    def keep_stopped(self, instance: Instance, hold: "Hold | None" = None) -> None:
        """Leave an instance stopped, as an operator left it, or, with `hold`, as its schedule says."""
        instance.state, instance.shadow = InstanceState.STOPPED, None
        self._engine.begin_turn(self._engine.clock.now_ns())
        if hold is not None:
            self._set_state(instance, InstanceState.STOPPED, hold.reason, hold.by)
        self._pull_all(instance, "stopped" if hold else "stopped by an operator", self._engine.now_ns)
        self._engine.end_turn(self._engine.now_ns, 0)

    def cancel_strays(self, reason: str) -> None:
        """Cancel the orders of instances that are gone, or that do not trade that symbol any more.

        Orders by hand are no strays: whoever placed them looks after them.
        """
        now_ns = self._engine.clock.now_ns()
        self._engine.begin_turn(now_ns)
        strays = [order for order in self._engine.state.orders.values() if not self._is_looked_after(order)]
        self._engine.oms.cancel_all(strays, reason, now_ns)
        self._engine.end_turn(now_ns, 0)

    def pause(self, instance: Instance, reason: str) -> None:
        """Pull its quotes; it goes on receiving."""
        self._move(instance, InstanceState.PAUSED, reason)

    def resume(self, instance: Instance, reason: str) -> None:
        """Let it trade again, as far as its schedule lets it: where that holds it, nothing else does from now on."""
        hold = self._engine.scheduler.hold_of(instance.instance)
        if hold is None or instance.state not in RECEIVING:
            self._move(instance, InstanceState.RUNNING, reason)
        else:
            self.hold(instance, hold)

    def hold(self, instance: Instance, hold: "Hold") -> None:
        """Pause or stop an instance until its schedule lets it go on."""
        if hold.state is InstanceState.PAUSED:
            self._move(instance, InstanceState.PAUSED, hold.reason, hold.by)
        else:
            self.stop(instance, hold.reason, by=hold.by)

    def stop(self, instance: Instance, reason: str, *, node_stops: bool = False, by: str = "") -> None:
        """Run `on_stop`, pull all its orders; it no longer receives.

        With `node_stops` a paused one stays paused in the journal, and so after the restart. `by` is what of the
        scheduler stops it.
        """
        now_ns = self._engine.clock.now_ns()
        self._engine.begin_turn(now_ns)
        if instance.state in (InstanceState.RUNNING, InstanceState.PAUSED):
            self.call(instance, lambda _: instance.strategy.on_stop(), None, "on_stop")
        self.states.save(instance, now_ns)
        if node_stops and instance.state is InstanceState.PAUSED:
            # In the journal alone: here it has stopped, and so has whoever runs it in another process.
            instance.state = InstanceState.STOPPED
            instance.timers.clear()
            paused = e.InstanceChanged(
                instance.instance, InstanceState.PAUSED, reason, self._held_by(instance)
            )
            self._engine.record(paused, now_ns)
        elif instance.state is not InstanceState.QUARANTINED:
            self._set_state(instance, InstanceState.STOPPED, reason, by)
        self._pull_all(instance, reason, now_ns)
        self.rewire()
        self._engine.end_turn(now_ns, 0)

    def quarantine(self, instance: Instance, error: BaseException, where: str) -> None:
        """Take an instance whose code raised out of service; the others do not notice.

        A version on probation is rolled back instead, where that can be done.
        """
        self.quarantine_for(instance, f"{where} raised {describe_error(error)}")

    def quarantine_for(self, instance: Instance, why: str) -> None:
        """Do what `quarantine` does, for another fault."""
        if instance.probation is None or not self.on_probation_fault(instance, why):
            self.put_in_quarantine(instance, why)

    def put_in_quarantine(self, instance: Instance, why: str) -> None:
        """Take an instance out of service: it hears of nothing and its orders are pulled."""
        _log.error("instance %s quarantined: %s", instance.instance, why)
        if instance.state is InstanceState.PAUSED and not self._held_by(instance):
            self._paused_before.add(instance.instance)
        self._set_state(instance, InstanceState.QUARANTINED, why)
        self._engine.record_alert("quarantined", f"instance {instance.instance}: {why}", instance.instance)
        self._pull_all(instance, "quarantined", self._engine.now_ns)
        self.rewire()

    def call(self, instance: Instance, handle: Callable[[Any], None], event: Any, name: str = "") -> None:
        """Call a strategy's code; whatever it raises stays with that instance.

        `name` stands for the callback in the reason, where it is not the name of `handle`.
        """
        if instance.probation is not None:
            handle = instance.probation.watch(handle)
        try:
            handle(event)
        except JournalError:
            raise
        except (Exception, SystemExit) as error:  # noqa: BLE001 - plugin boundary: quarantined
            self.quarantine(instance, error, name or _name_of(handle))

    def misbehaved(self, instance: Instance, error: BaseException, handle: Callable[[Any], None]) -> None:
        """Quarantine an instance for what its callback raised."""
        self.quarantine(instance, error, _name_of(handle))

    def order_changed(self, order: Order | None, fill: Fill | None) -> None:
        """Tell the strategy concerned what the venue did to its order.

        One that does not receive hears of it when it starts, in this process or the next.
        """
        if fill is not None:
            self._engine.fills += 1
        name = order.instance if order is not None else fill.instance if fill is not None else ""
        instance = self.instances.get(name)
        if instance is not None and instance.state in RECEIVING:
            self._tell(instance, order, fill)

    def _tell(self, instance: Instance, order: Order | None, fill: Fill | None) -> None:
        self.states.touched.add(instance.instance)
        history = instance.account_history
        if fill is not None and instance.state in RECEIVING:
            history.add(OwnEvent(instance.instance, fill, self._engine.now_ns))
            self.call(instance, instance.strategy.on_fill, fill)
        if order is not None and instance.state in RECEIVING:
            if instance.overrides("on_order") or instance.fallback is not None:
                copy = msgspec.structs.replace(order)
                history.add(OwnEvent(instance.instance, copy, self._engine.now_ns))
            self.call(instance, instance.strategy.on_order, order)

    def _is_looked_after(self, order: Order) -> bool:
        if is_hand(order.instance):
            return True
        instance = self.instances.get(order.instance)
        return instance is not None and order.account == instance.account and order.symbol in instance.symbols

    def _connect(self, instance: Instance, ids: ClientIdMaker, spec: InstanceSpec) -> None:
        for symbol in instance.symbols:
            instance.channels[symbol] = self._engine.oms.open_channel(
                instance.instance, instance.account, symbol, ids, spec.tolerance_bps
            )
        self.attach(instance)

    def attach(self, instance: Instance) -> None:
        """Give an instance its account's books, and have the features and candles made that it asks for."""
        attach(self._engine.feeds[instance.account], instance)

    def fit(self, instance: Instance) -> None:
        """Have the candles made that the instance's strategy asks for; one that goes on is kept."""
        fit(self._engine.feeds[instance.account], instance)

    def release(self, instance: Instance, reason: str) -> None:
        """Let a quarantined instance go on as before, within a turn: it runs other code now.

        It hears what its saved state has not seen, first of all the event that broke the old code.
        """
        was_paused = instance.instance in self._paused_before
        self._paused_before.discard(instance.instance)
        hold = None if was_paused else self._engine.scheduler.hold_of(instance.instance)
        if hold is not None:  # one that is to be stopped is so at the end of this turn
            self._set_state(instance, InstanceState.PAUSED, hold.reason, hold.by)
        else:
            self._set_state(instance, InstanceState.PAUSED if was_paused else InstanceState.RUNNING, reason)
        self.rewire()
        self._tell_unheard(instance)

    def rewire(self) -> None:
        """Rebuild who hears of what, from the instances that receive."""
        hearing = (InstanceState.STARTING, *RECEIVING)
        receiving = [i for i in self.in_order() if i.state in hearing and i.hears_market]
        route(self._engine.feeds.values(), receiving)

    def in_order(self) -> list[Instance]:
        """Return all instances, each behind those that it comes after: so they hear of one event."""
        return self._engine.scheduler.in_order(self.instances.values())

    def _held_by(self, instance: Instance) -> str:
        """Return what of the scheduler paused or stopped an instance; empty where something else did."""
        return self._engine.state.instances[instance.instance].by

    def _move(self, instance: Instance, state: InstanceState, reason: str, by: str = "") -> None:
        if instance.state not in (InstanceState.RUNNING, InstanceState.PAUSED):
            raise TandemError(
                f"instance {instance.instance} is {instance.state}; only a running or paused one can become {state}"
            )
        now_ns = self._engine.clock.now_ns()
        self._engine.begin_turn(now_ns)
        record = self._engine.state.instances[instance.instance]
        if instance.state is not state or record.by != by or (by and record.reason != reason):
            self._set_state(instance, state, reason, by)
            if state is InstanceState.PAUSED:
                self._engine.oms.pull_quotes(instance.instance, reason, now_ns)
        self._engine.end_turn(now_ns, 0)

    def _set_state(self, instance: Instance, state: InstanceState, reason: str, by: str = "") -> None:
        instance.state = state
        self.set_trading(instance)
        if isinstance(instance.strategy, RemoteStrategy):
            instance.strategy.moved(state)
        if state not in RECEIVING and state is not InstanceState.STARTING:
            instance.timers.clear()
        self._engine.record(e.InstanceChanged(instance.instance, state, reason, by), self._engine.now_ns)
        if state in _TOLD:
            _log.info("instance %s is %s%s", instance.instance, state, f": {reason}" if reason else "")
        self._engine.scheduler.on_changed(is_lost=state in (InstanceState.STOPPED, InstanceState.QUARANTINED))

    def set_trading(self, instance: Instance) -> None:
        """Let an instance's wishes through while it runs, its account is all there, and the node goes on."""
        engine = self._engine
        goes_on = not (engine.must_stop or engine.stopping or engine.standing_back)
        is_settled = engine.feeds[instance.account].is_settled
        instance.is_trading = instance.state is InstanceState.RUNNING and is_settled and goes_on

    def pull_orders(self, instance: Instance, reason: str, now_ns: int) -> None:
        """Pull an instance's quotes and cancel its orders, within a turn; it goes on as it is."""
        self._pull_all(instance, reason, now_ns)

    def _pull_all(self, instance: Instance, reason: str, now_ns: int) -> None:
        self._engine.oms.pull_quotes(instance.instance, reason, now_ns)
        own = [order for order in self._engine.state.orders.values() if order.instance == instance.instance]
        self._engine.oms.cancel_all(own, reason, now_ns)


def _quote(instance: Instance, symbol: str, quotes: Sequence[Quote]) -> None:
    instance.quote(symbol, quotes)


def _name_of(handle: Callable[[Any], None]) -> str:
    return getattr(handle, "__name__", "callback")
