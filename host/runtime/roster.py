"""The instances of a node: their lives, their strategies' states, and what they hear of."""

import asyncio
import logging
import traceback
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import Struct

from host.api import Fill, Order, QuoteModel, Strategy, TandemError
from host.core import entries as e
from host.core.client_id import ClientIdMaker
from host.core.entries import InstanceState
from host.core.features import FeatureMaker
from host.core.state import Outcome
from host.journal import JournalError
from host.runtime.candles import CandleMaker
from host.runtime.feed import AccountFeed
from host.runtime.instance import Instance
from host.runtime.models import ModelStage

if TYPE_CHECKING:
    from host.runtime.engine import Engine

__all__ = ["InstanceSpec", "Roster"]

_log = logging.getLogger("tandem.roster")
_RECEIVING = (InstanceState.RUNNING, InstanceState.PAUSED)


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
    what it has not seen when its state was last saved is handed over before it may trade.
    """

    def __init__(self, engine: "Engine") -> None:
        self.instances: dict[str, Instance] = {}
        self.touched: set[str] = set()
        """Instances whose orders changed in this turn: their states are saved with it."""
        self._engine = engine
        self._missed: dict[str, list[Outcome]] = {}
        self._new_versions: set[str] = set()

    def take_over_missed(self, missed: Mapping[str, list[Outcome]]) -> None:
        """Keep what happened to each instance's orders after its state was last saved."""
        self._missed = dict(missed)

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

        Raises `StateNotCarried` where its saved state does not fit, and whatever a model's
        `on_start` raises; nothing has changed then but the journal's note of the instance.
        """
        now_ns = self._engine.clock.now_ns()
        self._engine.begin_turn(now_ns)
        try:
            known = self._engine.state.instances.get(spec.name)
            if known is None or known.digest != spec.digest:
                self._new_versions.add(spec.name)
            number = known.number if known is not None else self._engine.state.next_instance_number
            self._engine.record(
                e.InstanceAdded(
                    spec.name, number, spec.plugin, spec.digest, spec.account, spec.symbols, spec.params_json
                ),
                now_ns,
            )
            record = self._engine.state.instances[spec.name]
            stages = [ModelStage(name, model, self._engine.clock, spawn) for name, model in models]
            for _, model in models:
                model.on_start()
            instance = Instance(self._engine, spec.name, spec.account, spec.symbols, strategy, stages)
            instance.restore_state(record.state_version, record.strategy_state)
            self._connect(
                instance,
                ClientIdMaker(self._engine.settings.order_id_prefix, self._engine.state.epoch, number),
                spec,
            )
            self.instances[spec.name] = instance
        finally:
            self._engine.end_turn(now_ns, 0)
        return instance

    def start(self, instance: Instance, *, paused: bool = False) -> None:
        """Run `on_start`, hand over what the saved state has not seen, then let it trade."""
        now_ns = self._engine.clock.now_ns()
        self._engine.begin_turn(now_ns)
        self._set_state(instance, InstanceState.STARTING, "")
        self.call(instance, lambda _: instance.strategy.on_start(), None)
        for outcome in self._missed.pop(instance.instance, []):
            if outcome.order is not None:
                self.call(instance, instance.strategy.on_order, outcome.order)
            if outcome.fill is not None:
                self.call(instance, instance.strategy.on_fill, outcome.fill)
        if instance.state is InstanceState.STARTING:
            self._set_state(instance, InstanceState.PAUSED if paused else InstanceState.RUNNING, "")
            self.touched.add(instance.instance)
        self.rewire()
        self._engine.end_turn(now_ns, 0)

    def is_new_version(self, instance: str) -> bool:
        """Return whether the instance runs other plugin bytes than when the node last ran."""
        return instance in self._new_versions

    def keep_quarantined(self, instance: Instance, reason: str) -> None:
        """Leave an instance in quarantine: the same bytes would misbehave again."""
        instance.state = InstanceState.QUARANTINED
        self._engine.alert(
            "quarantined", f"instance {instance.instance} stays quarantined: {reason}", instance.instance
        )

    def cancel_strays(self, reason: str) -> None:
        """Cancel the orders of instances that are not there any more."""
        now_ns = self._engine.clock.now_ns()
        self._engine.begin_turn(now_ns)
        strays = [
            order for order in self._engine.state.orders.values() if order.instance not in self.instances
        ]
        self._engine.oms.cancel_all(strays, reason, now_ns)
        self._engine.end_turn(now_ns, 0)

    def pause(self, instance: Instance, reason: str) -> None:
        """Pull its quotes; it goes on receiving."""
        self._move(instance, InstanceState.PAUSED, reason)

    def resume(self, instance: Instance, reason: str) -> None:
        """Let it trade again."""
        self._move(instance, InstanceState.RUNNING, reason)

    def stop(self, instance: Instance, reason: str) -> None:
        """Run `on_stop`, pull all its orders; it no longer receives."""
        now_ns = self._engine.clock.now_ns()
        self._engine.begin_turn(now_ns)
        if instance.state in (InstanceState.RUNNING, InstanceState.PAUSED):
            self.call(instance, lambda _: instance.strategy.on_stop(), None)
        self.save_state(instance, now_ns)
        if instance.state is not InstanceState.QUARANTINED:
            self._set_state(instance, InstanceState.STOPPED, reason)
        self._pull_all(instance, reason, now_ns)
        self.rewire()
        self._engine.end_turn(now_ns, 0)

    def quarantine(self, instance: Instance, error: BaseException, where: str) -> None:
        """Take an instance whose code raised out of service; the others do not notice."""
        text = f"{where} raised {type(error).__name__}: {error}{_origin(error)}"
        _log.error("instance %s quarantined: %s", instance.instance, text)
        self._set_state(instance, InstanceState.QUARANTINED, text)
        self._engine.record_alert("quarantined", f"instance {instance.instance}: {text}", instance.instance)
        self._pull_all(instance, "quarantined", self._engine.now_ns)
        self.rewire()

    def call(self, instance: Instance, handle: Callable[[Any], None], event: Any) -> None:
        """Call a strategy's code; whatever it raises stays with that instance."""
        try:
            handle(event)
        except JournalError:
            raise
        except (Exception, SystemExit) as error:  # noqa: BLE001 - plugin boundary: quarantined
            self.misbehaved(instance, error, handle)

    def misbehaved(self, instance: Instance, error: BaseException, handle: Callable[[Any], None]) -> None:
        """Quarantine an instance for what its callback raised."""
        self.quarantine(instance, error, getattr(handle, "__name__", "callback"))

    def order_changed(self, order: Order | None, fill: Fill | None) -> None:
        """Tell the strategy concerned, now or when it starts, what the venue did to its order."""
        if fill is not None:
            self._engine.fills += 1
        name = order.instance if order is not None else fill.instance if fill is not None else ""
        instance = self.instances.get(name)
        if instance is None:
            if name:  # the instance is not there yet: it hears of this when it starts
                self._missed.setdefault(name, []).append(Outcome(order, fill))
            return
        if instance.state is InstanceState.LOADED:
            self._missed.setdefault(name, []).append(Outcome(order, fill))
            return
        self.touched.add(name)
        if instance.state not in (InstanceState.RUNNING, InstanceState.PAUSED):
            return
        if fill is not None:
            self.call(instance, instance.strategy.on_fill, fill)
        if order is not None and instance.state in (InstanceState.RUNNING, InstanceState.PAUSED):
            self.call(instance, instance.strategy.on_order, order)

    def _connect(self, instance: Instance, ids: ClientIdMaker, spec: InstanceSpec) -> None:
        feed = self._engine.feeds[instance.account]
        for symbol in instance.symbols:
            if symbol not in self._engine.state.instruments.get(instance.account, {}):
                known = ", ".join(sorted(self._engine.state.instruments.get(instance.account, {}))) or "none"
                raise TandemError(
                    f"instance {instance.instance}: account {instance.account} has no symbol {symbol}; "
                    f"it offers {known}"
                )
        for symbol in instance.symbols:
            symbol_feed = feed.symbols[symbol]
            if instance.models and symbol_feed.features is None:
                symbol_feed.features = FeatureMaker()
            instance.feeds[symbol] = symbol_feed
            instance.channels[symbol] = self._engine.oms.open_channel(
                instance.instance, instance.account, symbol, ids, spec.tolerance_bps
            )

    def rewire(self) -> None:
        """Rebuild who hears of what, from the instances that receive."""
        receiving = [
            i
            for i in self.instances.values()
            if i.state in (InstanceState.STARTING, InstanceState.RUNNING, InstanceState.PAUSED)
        ]
        for feed in self._engine.feeds.values():
            for symbol, symbol_feed in feed.symbols.items():
                here = [i for i in receiving if i.account == feed.account and symbol in i.symbols]
                symbol_feed.on_book = tuple((i, i.strategy.on_book) for i in here if i.overrides("on_book"))
                symbol_feed.on_depth = tuple(
                    (i, i.strategy.on_depth) for i in here if i.overrides("on_depth")
                )
                symbol_feed.on_trade = tuple(
                    (i, i.strategy.on_trade) for i in here if i.overrides("on_trade")
                )
                symbol_feed.on_ticker = tuple(
                    (i, i.strategy.on_ticker) for i in here if i.overrides("on_ticker")
                )
                symbol_feed.candle_makers = tuple(
                    CandleMaker(symbol, i.strategy.candle_seconds, _candle_sink(feed, i))
                    for i in here
                    if i.overrides("on_candle")
                )

    def _move(self, instance: Instance, state: InstanceState, reason: str) -> None:
        if instance.state not in (InstanceState.RUNNING, InstanceState.PAUSED):
            raise TandemError(
                f"instance {instance.instance} is {instance.state}; only a running or paused one can become {state}"
            )
        now_ns = self._engine.clock.now_ns()
        self._engine.begin_turn(now_ns)
        if instance.state is not state:
            self._set_state(instance, state, reason)
            if state is InstanceState.PAUSED:
                self._engine.oms.pull_quotes(instance.instance, reason, now_ns)
        self._engine.end_turn(now_ns, 0)

    def _set_state(self, instance: Instance, state: InstanceState, reason: str) -> None:
        instance.state = state
        instance.is_trading = state is InstanceState.RUNNING
        self._engine.record(e.InstanceChanged(instance.instance, state, reason), self._engine.now_ns)

    def _pull_all(self, instance: Instance, reason: str, now_ns: int) -> None:
        self._engine.oms.pull_quotes(instance.instance, reason, now_ns)
        own = [order for order in self._engine.state.orders.values() if order.instance == instance.instance]
        self._engine.oms.cancel_all(own, reason, now_ns)

    def save_touched(self, now_ns: int) -> None:
        """Save the states of the strategies that heard of their orders in this turn."""
        for name in sorted(self.touched):
            instance = self.instances.get(name)
            if instance is not None:
                self.save_state(instance, now_ns, force=True)
        self.touched.clear()

    def save_state(self, instance: Instance, now_ns: int, *, force: bool = False) -> None:
        """Journal a strategy's state if it changed.

        `force` writes it even if not, because the entry also says up to where the strategy has seen
        its orders and fills; it is skipped where neither has anything new to say.
        """
        if instance.state is InstanceState.LOADED:
            return
        try:
            data = instance.encode_state()
        except (TypeError, ValueError, msgspec.MsgspecError) as error:
            if instance.state is not InstanceState.QUARANTINED:
                self.quarantine(instance, error, "encoding its state")
            return
        if data != instance.saved_state or (force and type(instance.strategy).state_type.__struct_fields__):
            instance.saved_state = data
            version = instance.strategy.state_type.state_version
            self._engine.record(e.StrategyStateSaved(instance.instance, version, data), now_ns)


def _candle_sink(feed: AccountFeed, instance: Instance) -> Callable[[Any], None]:
    return lambda candle: feed.emit_candle(instance, candle)


def _origin(error: BaseException) -> str:
    """Return ` (file, line N)` of the deepest frame of the error."""
    frames = traceback.extract_tb(error.__traceback__)
    return f" ({frames[-1].filename}, line {frames[-1].lineno})" if frames else ""
