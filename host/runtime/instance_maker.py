"""From an instance's section of the configuration to an instance in the roster."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

import msgspec
from msgspec import Struct

from host.api import QuoteModel, Strategy, TandemError
from host.config import InstanceSection
from host.config.schema import WorkerLimits
from host.core.entries import InstanceState
from host.core.state import TradingState
from host.loader import Catalog, Offer, Version, decode_params, make
from host.runtime.admission import InstanceSpec, admit, start_model
from host.runtime.instance import Instance
from host.runtime.models import ModelStage
from host.runtime.reload import ModelUse, StrategyUse
from host.runtime.remote import RemoteStrategy

if TYPE_CHECKING:
    from host.runtime.engine import Engine

__all__ = ["InstanceMaker", "PreparedInstance", "is_isolated"]


class PreparedInstance(Struct, frozen=True):
    """An instance that nobody knows yet, and all it takes to install it."""

    section: InstanceSection
    instance: Instance
    spec: InstanceSpec
    use: StrategyUse
    model_uses: tuple[ModelUse, ...]


def is_isolated(instance: str, digest: str, state: TradingState) -> bool:
    """Return whether an instance was moved to a worker process for what this version of its plugin did."""
    return state.isolated.get(instance) == digest


class InstanceMaker:
    """Makes instances from the offers of the catalog in use, which a reload changes."""

    def __init__(
        self,
        engine: "Engine",
        catalog: Callable[[], Catalog],
        stand_in: Callable[[InstanceSection, Offer], Strategy[Any]] | None = None,
        model_stand_in: Callable[[str, Offer, Mapping[str, object], WorkerLimits], QuoteModel[Any]]
        | None = None,
        silence: Callable[[str], None] = lambda _name: None,
    ) -> None:
        self._engine: Final = engine
        self._catalog: Final = catalog
        self._stand_in: Final = stand_in
        """Makes what stands in for a strategy in another process; None: there are none, all run here."""
        self._model_stand_in: Final = model_stand_in
        """The same for a model of an instance."""
        self._silence: Final = silence
        """Told who runs here from now on: nobody else speaks for an instance of that name."""

    @property
    def has_workers(self) -> bool:
        """Return whether strategies can run in worker processes."""
        return self._stand_in is not None

    def prepare(self, section: InstanceSection, *, as_configured: bool = False) -> PreparedInstance:
        """Construct an instance with its models and restore its state; nothing else has changed then.

        `as_configured` has one that was moved into a worker process run where its section says.
        Raises `TandemError`: an offer that is not there, parameters that do not fit, a symbol that is
        not listed, a state that is not carried, code that raises.
        """
        engine = self._engine
        feed = engine.feeds.get(section.account)
        if feed is None:
            raise TandemError(f"account {section.account} is not connected")
        offer = self._catalog().strategy(section.plugin)
        is_moved = not as_configured and is_isolated(section.name, offer.version.digest, engine.state)
        if is_moved and section.isolation == "inline":
            section = msgspec.structs.replace(section, isolation="process")
        strategy = self._make_strategy(section, offer)
        uses = tuple(ModelUse.of(self._catalog().model(ref.name), ref) for ref in section.models)
        models = [(use.offer.name, self._make_model(section.name, use)) for use in uses]
        spec = InstanceSpec(
            name=section.name,
            account=section.account,
            symbols=section.symbols,
            plugin=section.plugin,
            digest=offer.version.digest,
            params_json=msgspec.json.encode(strategy.params),
            tolerance_bps=section.quote_tolerance_bps,
        )
        instance = admit(engine, spec, strategy, models, feed.spawn)
        instance.hears_market = section.schedule.market_events
        return PreparedInstance(section, instance, spec, StrategyUse(offer, section.params), uses)

    def check(self, section: InstanceSection) -> Version:
        """Return the version that an instance in another process would run here; nothing of it is started.

        Raises `TandemError` where it could not be made: an offer that is not there, parameters that do not fit, a
        token or key of its client that cannot be read.
        """
        if section.account not in self._engine.feeds:
            raise TandemError(f"account {section.account} is not connected")
        offer = self._catalog().strategy(section.plugin)
        self._make_strategy(section, offer)
        for ref in section.models:
            decode_params(
                self._catalog().model(ref.name), ref.params, instance=f"{section.name}, model {ref.name}"
            )
        return offer.version

    def prepare_model(self, instance: str, account: str, use: ModelUse) -> ModelStage:
        """Construct and start one model of a chain; raises `TandemError`."""
        stage = ModelStage(
            use.offer.name,
            self._make_model(instance, use),
            self._engine.clock,
            self._engine.feeds[account].spawn,
        )
        return start_model(instance, stage)

    def install(self, prepared: PreparedInstance) -> Instance:
        """Let an instance hear of the market; it is not started and cannot trade yet. Cannot fail."""
        roster = self._engine.roster
        if not isinstance(prepared.instance.strategy, RemoteStrategy):
            self._silence(prepared.instance.instance)
        for use in prepared.model_uses:
            self.note_loaded(use.offer.version, use.offer.name)
        self.note_loaded(prepared.use.offer.version, prepared.use.offer.name)
        self._engine.scheduler.take_on(prepared.section)
        roster.install(prepared.instance, prepared.spec)
        return prepared.instance

    def note_loaded(self, version: Version, offer: str) -> None:
        """Say in the journal which bytes an offer comes from."""
        self._engine.roster.plugin_loaded(version.name, version.root.name, version.digest, (offer,))

    def start(
        self,
        instance: Instance,
        section: InstanceSection,
        *,
        paused: bool | None = None,
        takes_over: bool = False,
    ) -> None:
        """Start an instance, paused or not; or, for None, as it was left, or else as its section says.

        One that its schedule holds does not trade either way.
        """
        engine = self._engine
        record = engine.state.instances[instance.instance]
        if instance.instance in engine.state.held:
            engine.roster.keep_stopped(instance)
            return
        is_same = not engine.roster.is_new_version(instance.instance)
        if record.state is InstanceState.QUARANTINED and is_same:
            was_paused = record.is_paused or section.start == "paused"
            engine.roster.keep_quarantined(instance, record.reason, was_paused=was_paused)
            return
        if paused is None:
            paused = record.is_paused or section.start == "paused"
        reason = ""
        if record.is_paused:
            reason = (
                record.reason if record.state is InstanceState.PAUSED else "paused before it was quarantined"
            )
        hold = None if paused else engine.scheduler.hold_of(instance.instance)
        if hold is None:
            engine.roster.start(instance, paused=paused, reason=reason, takes_over=takes_over)
        elif hold.state is InstanceState.STOPPED:
            engine.roster.keep_stopped(instance, hold)
        else:
            engine.roster.start(instance, paused=True, reason=hold.reason, by=hold.by, takes_over=takes_over)

    def _make_strategy(self, section: InstanceSection, offer: Offer) -> Strategy[Any]:
        if section.isolation != "inline" and self._stand_in is not None:
            return self._stand_in(section, offer)
        strategy: Strategy[Any] = make(offer, section.params, instance=section.name)
        return strategy

    def _make_model(self, instance: str, use: ModelUse) -> Any:
        if use.isolation != "inline" and self._model_stand_in is not None:
            return self._model_stand_in(instance, use.offer, use.params, use.worker)
        return make(use.offer, use.params, instance=f"{instance}, model {use.offer.name}")
