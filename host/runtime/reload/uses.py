"""Which offers are in use: from which catalog, by which instances and accounts."""

import functools
from collections import deque
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Protocol

from msgspec import Struct, structs

from host.api import ExchangeAdapter, Params, QuoteModel, Strategy
from host.loader import Catalog, Offer, ParamsInvalid, Version, decode_params, located, make
from host.runtime.instance import Instance
from host.runtime.reload.adapters import AdapterRevision, AdapterUse
from host.runtime.reload.models import ModelRevision, ModelUse
from host.runtime.reload.probation import ProbationLimits
from host.runtime.reload.revision import StrategyRevision
from host.runtime.reload.version_change import VersionChange
from host.runtime.remote import RemoteModel, RemoteStrategy

if TYPE_CHECKING:
    from host.runtime.engine import Engine

__all__ = ["Revision", "StrategyUse", "Uses"]


class StrategyUse(Struct, frozen=True):
    """Which offer an instance runs, and the parameters that its configuration gives."""

    offer: Offer
    params: Mapping[str, object]


class _Watched(Protocol):
    """The guards of one version on probation."""

    def fault(self) -> str: ...

    def is_over(self, now_ns: int) -> bool: ...


class Revision(Protocol):
    """One use of a plugin on its way from one version to the next: what a transaction consists of.

    Up to and with `prepare` nothing that runs is touched; what cannot be done raises `TandemError`.
    `prepare` and `swap` come in one turn, `swap` cannot fail.
    """

    @property
    def instance(self) -> Instance | None:
        """Whose it is, where it is not an account's."""

    @property
    def name(self) -> str:
        """The name of that instance or account."""

    @property
    def place(self) -> str:
        """What of it: an instance may run several things of one plugin."""

    @property
    def probation(self) -> _Watched | None:
        """What watches the new version, once it is live."""

    def build(self) -> str:
        """Construct the new object and prove that it takes over; say what moved."""

    async def warm_up(self) -> str:
        """Try the new object on what the old one saw lately; say how they differ."""

    def prepare(self, now_ns: int) -> None:
        """Bring the new object up to this very moment."""

    def succeed(self, previous: Any) -> None:
        """Take the place of an earlier revision that is still on probation, before `swap`."""

    def swap(self, now_ns: int) -> None:
        """Let the new object take part from the next event on."""

    def abandon(self) -> None:
        """Undo what was built, where it does not come to `swap`."""

    def settle(self, now_ns: int) -> None:
        """Let the old object go: the new one has earned its place."""

    def roll_back(self, reason: str, policy: str, now_ns: int) -> None:
        """Bring the old object back."""


class Uses:
    """The catalog in use, and who runs what of it."""

    def __init__(self, engine: "Engine", catalog: Catalog) -> None:
        self.catalog = catalog
        self.strategies: dict[str, StrategyUse] = {}
        """The strategy of each instance."""
        self.models: dict[str, tuple[ModelUse, ...]] = {}
        """The models of each instance, in the order of its chain."""
        self.adapters: dict[str, AdapterUse] = {}
        """The adapter of each account."""
        self._engine = engine
        self._closing: deque[Catalog] = deque()
        """Catalogs that are not in use any more: their modules are still to be given back."""

    # -- the catalog -----------------------------------------------------------------------------

    def switch(self, catalog: Catalog) -> None:
        """Use another catalog from here on."""
        self.discard(self.catalog)
        self.catalog = catalog

    def discard(self, catalog: Catalog) -> None:
        """Give a catalog's modules back at the next `close_discarded`."""
        self._closing.append(catalog)

    def close_discarded(self) -> None:
        """Give back the modules of catalogs not in use; from any thread, for it takes a while."""
        while True:
            try:
                catalog = self._closing.popleft()
            except IndexError:
                return
            catalog.close()

    def rebind(self, plugin: str) -> None:
        """Have the uses of a plugin name what the catalog in use offers."""
        for name, use in self.strategies.items():
            if use.offer.version.name == plugin:
                self.strategies[name] = StrategyUse(self.catalog.strategy(use.offer.name), use.params)
        for name, uses in self.models.items():
            self.models[name] = tuple(
                structs.replace(use, offer=self.catalog.model(use.offer.name))
                if use.offer.version.name == plugin
                else use
                for use in uses
            )
        for account, adapter_use in self.adapters.items():
            if adapter_use.offer.version.name == plugin:
                offer = self.catalog.exchange(adapter_use.offer.name)
                self.adapters[account] = AdapterUse(offer, adapter_use.params)

    # -- who runs what ---------------------------------------------------------------------------

    def instances(self, plugin: str) -> list[Instance]:
        """Return the instances that run a strategy of this plugin."""
        instances = self._engine.roster.instances
        return [
            instances[name]
            for name, use in self.strategies.items()
            if use.offer.version.name == plugin and name in instances
        ]

    def without_gone(self, revisions: list[Revision]) -> list[Revision]:
        """Return those whose instance is still there, and undo what was built for one that was removed meanwhile."""
        instances, kept = self._engine.roster.instances, []
        for revision in revisions:
            instance = revision.instance
            if instance is None or instances.get(revision.name) is instance:
                kept.append(revision)
            else:
                revision.abandon()
        return kept

    def users(self, plugin: str) -> tuple[str, ...]:
        """Return who runs something of this plugin, in words."""
        names = {instance.instance for instance in self.instances(plugin)}
        names |= {instance.instance for instance, _, _ in self._model_places(plugin)}
        names |= {f"account {account}" for account, _ in self._accounts(plugin)}
        return tuple(sorted(names))

    def params(self, instance: str, catalog: Catalog | None = None) -> Params:
        """Return an instance's parameters as they are configured now, for the class in a catalog."""
        use = self.strategies[instance]
        offer = (catalog or self.catalog).strategy(use.offer.name)
        return decode_params(offer, use.params, instance=instance)

    def revisions(
        self,
        version: Version,
        catalog: Catalog,
        limits: ProbationLimits,
        on_fault: Callable[[Instance, str], object],
        on_adapter_fault: Callable[[AdapterRevision, str], None],
    ) -> list[Revision]:
        """Return what has to happen so that all that runs this plugin runs the version in `catalog`."""
        plugin = version.name
        revisions = [
            self._strategy_revision(instance, version, catalog, limits, on_fault)
            for instance in self.instances(plugin)
        ]
        for instance, place, model_use in self._model_places(plugin):
            make_model = functools.partial(self._make_model, catalog, version, model_use, instance, place)
            revisions.append(ModelRevision(self._engine.clock, instance, place, make_model, limits))
        # Last, because they take longest and are to be fresh at the swap.
        for account, adapter_use in self._accounts(plugin):
            make_adapter = functools.partial(self._make_adapter, catalog, version, adapter_use, account)
            revisions.append(AdapterRevision(self._engine, account, make_adapter, limits, on_adapter_fault))
        return revisions

    # -- inside ----------------------------------------------------------------------------------

    def _model_places(self, plugin: str) -> list[tuple[Instance, int, ModelUse]]:
        """Return the places in chains of models that run one of this plugin."""
        instances = self._engine.roster.instances
        return [
            (instances[name], place, use)
            for name, uses in self.models.items()
            if name in instances
            for place, use in enumerate(uses)
            if use.offer.version.name == plugin
        ]

    def _accounts(self, plugin: str) -> list[tuple[str, AdapterUse]]:
        """Return the accounts whose adapter is one of this plugin."""
        return [
            (account, use)
            for account, use in self.adapters.items()
            if use.offer.version.name == plugin and account in self._engine.feeds
        ]

    def _strategy_revision(
        self,
        instance: Instance,
        version: Version,
        catalog: Catalog,
        limits: ProbationLimits,
        on_fault: Callable[[Instance, str], object],
    ) -> Revision:
        name = instance.instance
        params = functools.partial(self.params, name, catalog)
        if isinstance(instance.strategy, RemoteStrategy):
            find = functools.partial(self._find, catalog, version, self.strategies[name])
            return instance.strategy.revision(VersionChange(find, params, version.digest, limits, on_fault))
        make_strategy = functools.partial(self._make, catalog, version, name)
        return StrategyRevision(
            self._engine, instance, make_strategy, params, version.digest, limits, on_fault
        )

    def _make(self, catalog: Catalog, version: Version, instance: str) -> Strategy[Any]:
        construct = functools.partial(make, instance=instance)
        strategy: Strategy[Any] = self._made(catalog, version, self.strategies[instance], construct)
        return strategy

    def _make_model(
        self, catalog: Catalog, version: Version, use: ModelUse, instance: Instance, place: int
    ) -> QuoteModel[Any]:
        running = instance.models[place].model
        construct: Callable[[Offer, Mapping[str, object]], Any]
        if isinstance(running, RemoteModel):
            construct = running.renewed
        else:
            construct = functools.partial(make, instance=f"{instance.instance}, model {use.offer.name}")
        model: QuoteModel[Any] = self._made(catalog, version, use, construct)
        return model

    def _make_adapter(
        self, catalog: Catalog, version: Version, use: AdapterUse, account: str
    ) -> ExchangeAdapter[Any]:
        construct = functools.partial(make, instance=f"account {account}")
        adapter: ExchangeAdapter[Any] = self._made(catalog, version, use, construct)
        return adapter

    def _made(
        self,
        catalog: Catalog,
        version: Version,
        use: StrategyUse | ModelUse | AdapterUse,
        construct: Callable[[Offer, Mapping[str, object]], Any],
    ) -> Any:
        """Construct for a use what a version offers in its place; a refusal names file and line."""
        offer = self._find(catalog, version, use)
        try:
            return construct(offer, use.params)
        except ParamsInvalid as error:
            raise located(offer, error) from None

    def _find(self, catalog: Catalog, version: Version, use: StrategyUse | ModelUse | AdapterUse) -> Offer:
        return catalog.find_after(self.catalog, use.offer.kind, use.offer.name, version)
