"""Makes what the configuration names: accounts with their adapters, instances with their models."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from msgspec import Struct

from host.api import ExchangeError, Instrument, SteppedAdapter, TandemError
from host.config import AccountSection, InstanceSection, NodeConfig, RunOptions
from host.core.state import TradingState
from host.isolation.workers import Workers
from host.loader import Catalog, Kind, Offer, make
from host.runtime.declared import check_declared
from host.runtime.engine import Engine
from host.runtime.instance import Instance
from host.runtime.instance_maker import InstanceMaker, PreparedInstance
from host.runtime.reload import AdapterUse, ModelUse, StrategyUse
from host.runtime.shadowing import Shadowing, as_the_primary_runs_it
from host.secrets import SecretSources, resolve_secrets

__all__ = ["Assembly", "NodeNotStarted"]


class NodeNotStarted(TandemError):  # noqa: N818 - the fact, in the words operators see
    """The node has nothing to run, and says why."""


class _Connected(Struct, frozen=True):
    """An account that is connected and not traded on yet."""

    section: AccountSection
    offer: Offer
    params: dict[str, object]
    instruments: Sequence[Instrument]


class Assembly:
    """Puts accounts and instances into an engine, from the offers of the catalog in use.

    A node that leads does `connect`, `take_up` and, once every account agrees with its venue,
    `start_instances`. A standby does the first alone, and `shadow` beside it; the others follow when it
    takes over.

    `catalog()` is asked each time: a reload changes it. `skipped` says which instances could not be
    made, and why, `skipped_accounts` which accounts could not be connected; `uses`, `model_uses` and
    `adapter_uses` which offers the others run.
    """

    def __init__(
        self, config: NodeConfig, options: RunOptions, engine: Engine, catalog: Callable[[], Catalog]
    ) -> None:
        self.skipped: dict[str, str] = {}
        self.skipped_accounts: dict[str, str] = {}
        self.uses: dict[str, StrategyUse] = {}
        self.model_uses: dict[str, tuple[ModelUse, ...]] = {}
        self.adapter_uses: dict[str, AdapterUse] = {}
        self._config = config
        self._options = options
        self.workers = Workers(
            engine,
            config.node.data_dir / "workers",
            lambda reference: SecretSources(self._config).find(reference),
        )
        engine.is_winding_down = lambda: self.workers.are_busy
        # In simulated time everything runs here: a replay's result must not depend on when a process runs.
        self.maker = InstanceMaker(engine, catalog, *(() if options.is_simulated else self.workers.stand_ins))
        self._engine = engine
        self._catalog = catalog
        self._connected: dict[str, _Connected] = {}
        self.shadows: Shadowing | None = None
        """The muted copies of a standby."""

    # -- accounts --------------------------------------------------------------------------------

    def configure(self, config: NodeConfig) -> None:
        """Go on by a configuration of which more is known now: what the journal adds to it."""
        self._config = config

    async def connect(self) -> None:
        """Connect every account that an instance uses; instances of one that fails are skipped.

        Raises `NodeNotStarted` where none could be connected.
        """
        engine = self._engine
        for section in self._config.account:
            wanted = self._wanted(section.name)
            if not wanted or section.name in engine.feeds:
                continue
            try:
                await self._connect_account(section, wanted)
                self._is_there(section.name)
            except TandemError as error:
                engine.alert("account_failed", f"account {section.name}: {error}")
                self.skipped_accounts[section.name] = str(error)
                for instance in self._config.instance:
                    if instance.account == section.name:
                        self.skipped[instance.name] = f"account {section.name}: {error}"
        if not engine.feeds:
            reasons = "; ".join(sorted(set(self.skipped.values()))) or "no account is used by an instance"
            raise NodeNotStarted(f"node {self._config.node.name} has no account to trade on: {reasons}")

    def check_offers(self) -> None:
        """Raise `NodeNotStarted` where no plugin offers any of the strategies that are to run."""
        problems = []
        for section in self._config.instance:
            try:
                self._catalog().strategy(section.plugin)
            except TandemError as error:
                problems.append(f"{section.name}: {error}")
        if problems and len(problems) == len(self._config.instance):
            raise NodeNotStarted(f"no instance could be started: {'; '.join(problems)}")

    def shadow(self, sections: Callable[[], Iterable[InstanceSection]]) -> Shadowing:
        """Run what the primary runs, muted, on the accounts that are connected; `sections()` is that by now."""
        self.workers.spares.keep(self._workers_wanted())
        built = {section.name: section.symbols for section in self._config.instance}

        def wanted() -> list[InstanceSection]:
            # Whose symbols came in since is not followed here before this node leads: `take_up` does that.
            return [one for one in sections() if built.get(one.name) == one.symbols or self._is_followed(one)]

        self.shadows = Shadowing(self._engine, self.maker, wanted)
        return self.shadows

    def _is_followed(self, section: InstanceSection) -> bool:
        feed = self._engine.feeds.get(section.account)
        return feed is not None and feed.symbols.keys() >= set(section.symbols)

    async def take_up(self) -> None:
        """Begin to trade on what is connected: say in the journal what it is, and ask the venues for the truth."""
        engine = self._engine
        for name, connected in self._connected.items():
            feed = engine.feeds[name]
            wanted = self._wanted(name)
            listed = {instrument.symbol for instrument in connected.instruments}
            engine.set_instruments(name, list(feed.listed.values()), wanted)
            missing = sorted((wanted & listed) - feed.symbols.keys())
            if missing:  # the primary began to trade them while this node stood by
                feed.follow(missing)
                await feed.adapter.subscribe(missing)
            version = connected.offer.version
            engine.roster.plugin_loaded(
                version.name, version.root.name, version.digest, (connected.offer.name,)
            )
            self.adapter_uses[name] = AdapterUse(connected.offer, connected.params)
            engine.take_up(name)

    def _is_there(self, account: str) -> None:
        """Skip nothing any more for want of an account that could not be connected before."""
        if self.skipped_accounts.pop(account, None) is not None:
            for instance in self._config.instance:
                if instance.account == account:
                    self.skipped.pop(instance.name, None)

    async def _connect_account(self, section: AccountSection, wanted: set[str]) -> None:
        engine = self._engine
        offer = self._catalog().exchange(section.exchange)
        params = self._adapter_params(section, offer.cls)
        if self._config.failover is not None and issubclass(offer.cls, SteppedAdapter):
            raise ExchangeError(
                f"exchange {section.exchange} lives inside one process, and the nodes of a cell trade one "
                'account together; use exchange = "paper_remote" with the url of a `tandem venue`'
            )
        adapter = make(offer, params, instance=f"account {section.name}")
        if self._config.failover is not None and not adapter.is_fenced:
            raise ExchangeError(
                f"exchange {section.exchange} cannot have a venue refuse orders that arrive late, so one of a node "
                "that has lost its lead might be taken after the other node has begun to trade; trade there with a "
                "node that stands alone, or see docs/exchanges.md for how to accept that"
            )
        feed = engine.add_account(section.name, adapter, str(self._config.node.data_dir))
        try:
            instruments = await adapter.connect()
            for instrument in instruments:
                if instrument.symbol in wanted:
                    check_declared(instrument, (Instrument,))
            symbols = sorted(wanted & {instrument.symbol for instrument in instruments})
            feed.listed = {instrument.symbol: instrument for instrument in instruments}
            self._connected[section.name] = _Connected(section, offer, params, instruments)
            feed.follow(symbols)
            await adapter.subscribe(symbols)
        except TandemError:
            self._connected.pop(section.name, None)
            engine.remove_account(section.name)
            raise

    def _wanted(self, account: str) -> set[str]:
        """Return the symbols to follow on an account."""
        state = self._engine.state
        wanted = {s for i in self._config.instance if i.account == account for s in i.symbols}
        # What we still hold or have resting there counts too, used by an instance or not.
        wanted |= {o.symbol for o in state.orders.values() if o.account == account}
        return wanted | _held(state, account)

    def _adapter_params(self, section: AccountSection, cls: type[Any]) -> dict[str, object]:
        params: dict[str, object] = resolve_secrets(section.params, SecretSources(self._config))
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

    def start_instances(self, *, takes_over: bool = False) -> None:
        """Start every instance that can be; a bad one is skipped, said so, and the others run.

        A node that `takes_over` goes on with the parameters that its predecessor had, and with its own copies.
        """
        engine = self._engine
        engine.blocks.take_up(engine)
        added: list[tuple[Instance, InstanceSection]] = []
        for section in self._config.instance:
            if section.name in self.skipped:
                continue
            try:
                instance = self._take_over(section) if takes_over else self.add_instance(section)
                added.append((instance, section))
            except TandemError as error:
                self.skipped[section.name] = str(error)
                engine.alert("instance_skipped", f"instance {section.name}: {error}", section.name)
        if self.shadows is not None:
            self.shadows.end()  # of what runs nowhere any more; who hears of what is the roster's from here on
            self.shadows = None
        engine.by_hand.take_up()
        engine.roster.cancel_strays("its instance does not run")
        engine.safety.enforce_kill_switches()
        if self._config.instance and not added:
            reasons = "; ".join(f"{name}: {why}" for name, why in self.skipped.items())
            raise NodeNotStarted(f"node {self._config.node.name}: no instance could be started: {reasons}")
        sections = {section.name: section for _, section in added}
        for instance in engine.scheduler.in_order(instance for instance, _ in added):
            self.maker.start(instance, sections[instance.instance], takes_over=takes_over)
        engine.scheduler.started()
        self.workers.spares.keep(min(1, self._workers_wanted()))

    def _workers_wanted(self) -> int:
        return sum(section.isolation == "process" for section in self._config.instance)

    def start_skipped(self, plugin: str) -> None:
        """Start the instances that were skipped and name an offer of `plugin`, which is good now."""
        added: dict[str, tuple[InstanceSection, Instance]] = {}
        plugin_of = self._catalog().plugin_of
        for section in self._config.instance:
            plugins = {plugin_of(Kind.STRATEGY, section.plugin)}
            plugins |= {plugin_of(Kind.MODEL, model.name) for model in section.models}
            if section.name not in self.skipped or plugin not in plugins:
                continue
            try:
                added[section.name] = section, self.add_instance(section)
            except TandemError as error:
                self.skipped[section.name] = str(error)
                self._engine.alert("instance_skipped", f"instance {section.name}: {error}", section.name)
                continue
            del self.skipped[section.name]
        for instance in self._engine.scheduler.in_order(instance for _, instance in added.values()):
            self.start_instance(instance, added[instance.instance][0])

    def start_instance(self, instance: Instance, section: InstanceSection) -> None:
        """Start an instance in the state that it was left in, or else that its section asks for."""
        self.maker.start(instance, section)

    def add_instance(self, section: InstanceSection) -> Instance:
        """Make an instance with its models; it is not started. Raises `TandemError`."""
        return self._install(self.maker.prepare(section))

    def _take_over(self, section: InstanceSection) -> Instance:
        now = as_the_primary_runs_it(section, self._engine)
        warm = None if self.shadows is None else self.shadows.take(section.name)
        if warm is not None and warm.section != now:  # it changed a moment ago
            for stage in warm.instance.models:
                stage.close()
            warm = None
        return self._install(self.maker.prepare(now) if warm is None else warm)

    def _install(self, prepared: PreparedInstance) -> Instance:
        name = prepared.section.name
        self.uses[name], self.model_uses[name] = prepared.use, prepared.model_uses
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
