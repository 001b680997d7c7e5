"""The instances of a node: their lives, their strategies' states, and what they hear of."""

import asyncio
import functools
import logging
from collections.abc import Callable, Coroutine, Sequence
from typing import TYPE_CHECKING, Any, Final

import msgspec
from msgspec import Struct

from host.api import Fill, Order, Quote, QuoteModel, Strategy, TandemError
from host.core import entries as e
from host.core.client_id import ClientIdMaker
from host.core.entries import InstanceState
from host.core.features import FeatureMaker
from host.core.hand import is_hand
from host.journal import JournalError
from host.runtime.candles import CandleMaker
from host.runtime.feed import AccountFeed
from host.runtime.history import OwnEvent
from host.runtime.instance import SECOND_NS, Instance
from host.runtime.models import ModelStage
from host.runtime.plugin_errors import describe_error
from host.runtime.remote import RemoteStrategy

if TYPE_CHECKING:
    from host.runtime.engine import Engine
    from host.runtime.scheduler import Hold

__all__ = ["InstanceSpec", "Roster", "check_candles", "start_model"]

_log = logging.getLogger("tandem.roster")
_RECEIVING = (InstanceState.RUNNING, InstanceState.PAUSED)
MAX_STATE_BYTES: Final = 1 << 20
"""A strategy's state is written with each of its fills; one that grows for ever ends here."""


class InstanceSpec(Struct, frozen=True, kw_only=True):
    """An instance as configured, with its plugin's version."""

    name: str
    account: str
    symbols: tuple[str, ...]
    plugin: str
    digest: str
    params_json: bytes
    tolerance_bps: float = 0.5
    start_paused: bool = False


class Roster:
    """Every instance of a node, by name.

    A strategy hears of each change of its orders and of each fill exactly once, over restarts too:
    its state is saved in the same write as what it heard, and what a saved state has not taken in
    (`TradingState.unheard`) is handed over to whoever goes on from that state.
    """

    def __init__(self, engine: "Engine") -> None:
        self.instances: dict[str, Instance] = {}
        self.touched: set[str] = set()
        """The instances that heard of their orders in this turn: their states are saved with it."""
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
        instance = self.prepare(spec, strategy, models, spawn)
        self.install(instance, spec)
        return instance

    def prepare(
        self,
        spec: InstanceSpec,
        strategy: Strategy[Any],
        models: Sequence[tuple[str, QuoteModel[Any]]],
        spawn: Callable[[Coroutine[Any, Any, None], str], "asyncio.Task[None]"],
    ) -> Instance:
        """Do all of `add` that may fail, and raises what it raises; nobody knows the instance yet."""
        engine = self._engine
        known = engine.state.instances.get(spec.name)
        self._check_account(spec)
        self._check_symbols(spec)
        check_candles(spec.name, strategy)
        stages = [start_model(spec.name, ModelStage(name, m, engine.clock, spawn)) for name, m in models]
        instance = Instance(engine, spec.name, spec.account, spec.symbols, strategy, stages)
        if known is not None:
            instance.restore_state(known.state_version, known.strategy_state)
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
        self.touched.discard(name)
        del self.instances[name]
        self._engine.scheduler.forget(name)
        self.rewire()

    def set_models(self, instance: Instance, stages: Sequence[ModelStage]) -> None:
        """Have an instance's quotes pass other models, which were started, from the next one on."""
        for stage in instance.models:
            if stage not in stages:
                stage.close()
        instance.models = tuple(stages)
        self._feed_models(instance)

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

    def keep_quarantined(self, instance: Instance, reason: str) -> None:
        """Leave an instance in quarantine: the same bytes would misbehave again."""
        instance.state = InstanceState.QUARANTINED
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
        if hold is None or instance.state not in _RECEIVING:
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
        self.save_state(instance, now_ns)
        if node_stops and instance.state is InstanceState.PAUSED:
            self._set_state(instance, InstanceState.PAUSED, reason, self._held_by(instance))
            instance.state = InstanceState.STOPPED
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
        if instance is not None and instance.state in _RECEIVING:
            self._tell(instance, order, fill)

    def _tell(self, instance: Instance, order: Order | None, fill: Fill | None) -> None:
        self.touched.add(instance.instance)
        history = instance.account_history
        if fill is not None and instance.state in _RECEIVING:
            history.add(OwnEvent(instance.instance, fill, self._engine.now_ns))
            self.call(instance, instance.strategy.on_fill, fill)
        if order is not None and instance.state in _RECEIVING:
            if instance.overrides("on_order") or instance.fallback is not None:
                copy = msgspec.structs.replace(order)
                history.add(OwnEvent(instance.instance, copy, self._engine.now_ns))
            self.call(instance, instance.strategy.on_order, order)

    def _is_looked_after(self, order: Order) -> bool:
        if is_hand(order.instance):
            return True
        instance = self.instances.get(order.instance)
        return instance is not None and order.account == instance.account and order.symbol in instance.symbols

    def _check_account(self, spec: InstanceSpec) -> None:
        """Raise `TandemError` where an instance would leave a position or orders behind on its old account.

        They would count as the new account's, though the venue has them on the old one.
        """
        state = self._engine.state
        known = state.instances.get(spec.name)
        if known is None or known.account == spec.account:
            return
        held = [f"{h.qty} {symbol}" for symbol, h in state.holdings.get(spec.name, {}).items() if h.qty]
        orders = sum(o.instance == spec.name and o.account == known.account for o in state.orders.values())
        if orders:
            held.append(f"{orders} open order{'s' if orders > 1 else ''}")
        if held:
            raise TandemError(
                f"instance {spec.name} cannot move from account {known.account} to {spec.account} while it has "
                f"{', '.join(held)} there; close that first, or give the new instance another name"
            )

    def _check_symbols(self, spec: InstanceSpec) -> None:
        feed = self._engine.feeds[spec.account]
        for symbol in spec.symbols:
            if symbol not in feed.symbols:
                raise TandemError(
                    f"instance {spec.name}: account {spec.account} has no symbol {symbol}; "
                    f"it has {', '.join(feed.listed) or 'none'}"
                )

    def _connect(self, instance: Instance, ids: ClientIdMaker, spec: InstanceSpec) -> None:
        for symbol in instance.symbols:
            instance.channels[symbol] = self._engine.oms.open_channel(
                instance.instance, instance.account, symbol, ids, spec.tolerance_bps
            )
        self.attach(instance)

    def attach(self, instance: Instance) -> None:
        """Give an instance its account's books, and have the features and candles made that it asks for."""
        feed = self._engine.feeds[instance.account]
        for symbol in instance.symbols:
            instance.feeds[symbol] = feed.symbols[symbol]
        self._feed_models(instance)
        self.fit(instance)

    def _feed_models(self, instance: Instance) -> None:
        for symbol_feed in instance.feeds.values():
            if instance.models and symbol_feed.features is None:
                symbol_feed.features = FeatureMaker()

    def fit(self, instance: Instance) -> None:
        """Have the candles made that the instance's strategy asks for; one that goes on is kept."""
        sink = _candle_sink(self._engine.feeds[instance.account], instance)
        before, instance.candle_makers = instance.candle_makers, {}
        if not instance.overrides("on_candle"):
            return
        seconds = instance.strategy.candle_seconds
        for symbol in instance.symbols:
            maker = before.get(symbol)
            if maker is None or maker.interval_ns != seconds * SECOND_NS:
                maker = CandleMaker(symbol, seconds, sink)
            instance.candle_makers[symbol] = maker

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
        receiving = [
            i
            for i in self.in_order()
            if i.state in (InstanceState.STARTING, InstanceState.RUNNING, InstanceState.PAUSED)
            and i.hears_market
        ]
        for feed in self._engine.feeds.values():
            for symbol, symbol_feed in feed.symbols.items():
                here = [i for i in receiving if i.account == feed.account and symbol in i.symbols]
                symbol_feed.on_book = _handlers(here, "on_book")
                symbol_feed.on_depth = _handlers(here, "on_depth")
                symbol_feed.on_trade = _handlers(here, "on_trade")
                symbol_feed.on_ticker = _handlers(here, "on_ticker")
                # Kept, not made anew: a neighbour that goes must not cost anybody half a candle.
                symbol_feed.candle_makers = tuple(maker for i in here for maker in _candle_makers(i, symbol))

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
        if state not in _RECEIVING and state is not InstanceState.STARTING:
            instance.timers.clear()
        self._engine.record(e.InstanceChanged(instance.instance, state, reason, by), self._engine.now_ns)
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

    def take_checkpoints(self) -> None:
        """Remember the state of every strategy that receives."""
        for instance in list(self.instances.values()):
            if instance.state in _RECEIVING:
                try:
                    checkpoint = instance.checkpoint()
                except Exception as error:  # noqa: BLE001 - plugin boundary: quarantined
                    self.quarantine(instance, error, "encoding its state")
                    continue
                instance.checkpoints.append(checkpoint)

    def save_touched(self, now_ns: int) -> None:
        """Save the states of the strategies that heard of their orders in this turn.

        One in another process is told now, and saved by `heard` once it says that it has heard.
        """
        for name in sorted(self.touched):
            instance = self.instances[name]
            if isinstance(instance.strategy, RemoteStrategy):
                instance.strategy.tell()
            else:
                self.save_state(instance, now_ns, force=True)
        self.touched.clear()

    def heard(self, instance: Instance, version: int, data: bytes, news: int, now_ns: int) -> None:
        """Journal the state of a strategy in another process, which has taken in so many more of its news."""
        instance.saved_state = data
        self._engine.record(e.StrategyStateSaved(instance.instance, version, data, news), now_ns)

    def save_state(self, instance: Instance, now_ns: int, *, force: bool = False) -> None:
        """Journal a strategy's state if it changed.

        `force` writes it even if not, because the entry also says up to where the strategy has heard of
        its orders and fills. One that is out of service keeps what was saved before the event that
        broke it: its next version hears that event, and all that came after, again. While a version
        is on probation, what is written is the state of the one before it, which a restart comes
        back to.
        """
        if instance.state not in _RECEIVING or isinstance(instance.strategy, RemoteStrategy):
            return
        if instance.fallback is not None:
            instance.fallback.save_state(now_ns, force=force)
            return
        try:
            data = instance.encode_state()
            if len(data) > MAX_STATE_BYTES:
                raise ValueError(f"at most {MAX_STATE_BYTES} bytes are kept, was {len(data)}")
        except Exception as error:  # noqa: BLE001 - plugin boundary: quarantined
            self.quarantine(instance, error, "encoding its state")
            return
        if force or data != instance.saved_state:
            self.write_state(instance, instance.strategy.state_type.state_version, data, now_ns)

    def write_state(self, instance: Instance, version: int, data: bytes, now_ns: int) -> None:
        """Journal a state as what a restart gives back to the instance."""
        instance.saved_state = data
        self._engine.record(e.StrategyStateSaved(instance.instance, version, data), now_ns)


def _handlers(
    instances: Sequence[Instance], callback: str
) -> tuple[tuple[Instance, Callable[[Any], None]], ...]:
    """Return the bound callbacks of the instances that define one, watched where on probation."""
    handlers: list[tuple[Instance, Callable[[Any], None]]] = []
    for instance in instances:
        if instance.overrides(callback):
            handle = getattr(instance.strategy, callback)
            if instance.probation is not None:
                handle = instance.probation.watch(handle)
            handlers.append((instance, handle))
        elif instance.fallback is not None and instance.fallback.overrides(callback):
            handlers.append((instance, _ignore))  # so that the event is in the history for it
    return tuple(handlers)


def _ignore(_event: Any) -> None:
    pass


def _candle_makers(instance: Instance, symbol: str) -> list[CandleMaker]:
    """Return what makes an instance's candles, and those of the version it may be rolled back to."""
    makers = [instance.candle_makers[symbol]] if symbol in instance.candle_makers else []
    if instance.fallback is not None:
        kept = instance.fallback.candle_makers.get(symbol)
        if kept is not None and kept not in makers:
            makers.append(kept)
    return makers


def _candle_sink(feed: AccountFeed, instance: Instance) -> Callable[[Any], None]:
    return lambda candle: feed.emit_candle(instance, candle)


def _quote(instance: Instance, symbol: str, quotes: Sequence[Quote]) -> None:
    instance.quote(symbol, quotes)


def _name_of(handle: Callable[[Any], None]) -> str:
    return getattr(handle, "__name__", "callback")


def check_candles(instance: str, strategy: Strategy[Any]) -> None:
    """Raise `TandemError` where a strategy asks for candles of a length that there is not."""
    seconds = strategy.candle_seconds
    if type(strategy).on_candle is not Strategy.on_candle and not (isinstance(seconds, int) and seconds > 0):
        raise TandemError(
            f"instance {instance}: candle_seconds must be a whole number above 0, was {seconds!r}"
        )


def start_model(instance: str, stage: ModelStage) -> ModelStage:
    """Run a model's `on_start`; raise `TandemError` where that fails."""
    try:
        stage.model.on_start()
    except (Exception, SystemExit) as error:
        raise TandemError(
            f"instance {instance}: model {stage.name}: on_start raised {describe_error(error)}"
        ) from error
    return stage
