"""Makes what the configuration names: accounts with their adapters, instances with their models."""

from collections.abc import Callable
from typing import Any

from host.api import ExchangeError, SteppedAdapter, TandemError
from host.config import AccountSection, InstanceSection, NodeConfig, RunOptions
from host.config.secret_files import SECRETS_FOLDER, SecretFiles, resolve_secrets
from host.core.state import TradingState
from host.loader import Catalog, make
from host.runtime.engine import Engine
from host.runtime.instance import Instance
from host.runtime.instance_maker import InstanceMaker
from host.runtime.reload import AdapterUse, ModelUse, StrategyUse

__all__ = ["Assembly", "NodeNotStarted"]


class NodeNotStarted(TandemError):  # noqa: N818 - the fact, in the words operators see
    """The node has nothing to run, and says why."""


class Assembly:
    """Puts accounts and instances into an engine, from the offers of the catalog in use.

    `catalog()` is asked each time: a reload changes it. `skipped` says which instances could not be
    made, and why; `uses`, `model_uses` and
    `adapter_uses` which offers the others run.
    """

    def __init__(
        self, config: NodeConfig, options: RunOptions, engine: Engine, catalog: Callable[[], Catalog]
    ) -> None:
        self.skipped: dict[str, str] = {}
        self.uses: dict[str, StrategyUse] = {}
        self.model_uses: dict[str, tuple[ModelUse, ...]] = {}
        self.adapter_uses: dict[str, AdapterUse] = {}
        self._config = config
        self._options = options
        self.maker = InstanceMaker(engine, catalog)
        self._engine = engine
        self._catalog = catalog

    # -- accounts --------------------------------------------------------------------------------

    async def connect(self) -> None:
        """Connect every account that an instance uses; instances of one that fails are skipped."""
        engine = self._engine
        for section in self._config.account:
            wanted = {s for i in self._config.instance if i.account == section.name for s in i.symbols}
            # What we still hold or have resting there counts too, used by an instance or not.
            wanted |= {o.symbol for o in engine.state.orders.values() if o.account == section.name}
            wanted |= _held(engine.state, section.name)
            if not wanted:
                continue
            try:
                await self._connect_account(section, wanted)
            except TandemError as error:
                engine.alert("account_failed", f"account {section.name}: {error}")
                for instance in self._config.instance:
                    if instance.account == section.name:
                        self.skipped[instance.name] = f"account {section.name}: {error}"
        if not engine.feeds:
            reasons = "; ".join(sorted(set(self.skipped.values()))) or "no account is used by an instance"
            raise NodeNotStarted(f"node {self._config.node.name} has no account to trade on: {reasons}")

    async def _connect_account(self, section: AccountSection, wanted: set[str]) -> None:
        engine = self._engine
        offer = self._catalog().exchange(section.exchange)
        params = self._adapter_params(section, offer.cls)
        adapter = make(offer, params, instance=f"account {section.name}")
        feed = engine.add_account(section.name, adapter, str(self._config.node.data_dir))
        try:
            instruments = await adapter.connect()
            listed = {instrument.symbol for instrument in instruments}
            engine.set_instruments(section.name, instruments, wanted)
            feed.follow(sorted(wanted & listed))
            await adapter.subscribe(sorted(wanted & listed))
        except ExchangeError:
            engine.remove_account(section.name)
            raise
        version_ = offer.version
        engine.roster.plugin_loaded(version_.name, version_.root.name, version_.digest, (offer.name,))
        self.adapter_uses[section.name] = AdapterUse(offer, params)
        engine.start_reconciling(section.name)

    def _adapter_params(self, section: AccountSection, cls: type[Any]) -> dict[str, object]:
        secrets = SecretFiles(self._config.node.data_dir / SECRETS_FOLDER)
        params: dict[str, object] = resolve_secrets(section.params, secrets)
        options = self._options
        fields = cls.params_type.__struct_fields__
        if "seed" in fields:
            params.setdefault("seed", options.seed)
        if options.is_simulated:
            if not issubclass(cls, SteppedAdapter) or "market" not in fields:
                raise ExchangeError(
                    f"exchange {section.exchange} lives in real time and plays no recording; "
                    'use exchange = "paper" with --replay and with --speed other than 1'
                )
            if options.replay is not None:
                params["market"] = str(options.replay)
            if "persistent" in fields:
                params["persistent"] = False  # it starts from nothing, and nobody comes back to it
        return params

    # -- instances -------------------------------------------------------------------------------

    def start_instances(self) -> None:
        """Start every instance that can be; a bad one is skipped, said so, and the others run."""
        engine = self._engine
        added: list[tuple[Instance, InstanceSection]] = []
        for section in self._config.instance:
            if section.name in self.skipped:
                continue
            try:
                added.append((self.add_instance(section), section))
            except TandemError as error:
                self.skipped[section.name] = str(error)
                engine.alert("instance_skipped", f"instance {section.name}: {error}", section.name)
        engine.by_hand.take_up()
        engine.roster.cancel_strays("its instance does not run")
        engine.safety.enforce_kill_switches()
        if self._config.instance and not added:
            reasons = "; ".join(f"{name}: {why}" for name, why in self.skipped.items())
            raise NodeNotStarted(f"node {self._config.node.name}: no instance could be started: {reasons}")
        for instance, section in added:
            self.start_instance(instance, section)

    def start_skipped(self, plugin: str) -> None:
        """Start the instances that were skipped and name an offer of `plugin`, which is good now."""
        for section in self._config.instance:
            names = {section.plugin, *(model.name for model in section.models)}
            if section.name not in self.skipped or all(n.partition(".")[0] != plugin for n in names):
                continue
            try:
                instance = self.add_instance(section)
            except TandemError as error:
                self.skipped[section.name] = str(error)
                self._engine.alert("instance_skipped", f"instance {section.name}: {error}", section.name)
                continue
            del self.skipped[section.name]
            self.start_instance(instance, section)

    def start_instance(self, instance: Instance, section: InstanceSection) -> None:
        """Start an instance in the state that it was left in, or else that its section asks for."""
        self.maker.start(instance, section)

    def add_instance(self, section: InstanceSection) -> Instance:
        """Make an instance with its models; it is not started. Raises `TandemError`."""
        prepared = self.maker.prepare(section)
        self.uses[section.name] = prepared.use
        self.model_uses[section.name] = prepared.model_uses
        return self.maker.install(prepared)


def _held(state: TradingState, account: str) -> set[str]:
    """Return the symbols in which somebody holds a position on `account`."""
    return {
        symbol
        for name, by_symbol in state.holdings.items()
        if (record := state.instances.get(name)) is not None and record.account == account
        for symbol, holding in by_symbol.items()
        if holding.qty
    }
