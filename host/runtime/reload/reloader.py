"""The reload transaction: one changed plugin, all that runs it, all or nothing.

The old version trades on until the swap, and stays warm until the new one has earned its place.
Deciding is in the stages and guards; this is the shell that runs them in order.
"""

import asyncio
import contextlib
import functools
import logging
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol

from msgspec import Struct

from host.api import ExchangeAdapter, Params, QuoteModel, Strategy, TandemError
from host.core import entries as e
from host.core.entries import VersionState
from host.journal import JournalError
from host.loader import Catalog, Offer, Version, decode_params, import_version, make, unload
from host.runtime.instance import Instance
from host.runtime.reload.adapters import AdapterRevision, AdapterUse
from host.runtime.reload.fallback import RECEIVING, SLICE_NS
from host.runtime.reload.leftovers import Retirement
from host.runtime.reload.models import ModelRevision, ModelUse
from host.runtime.reload.probation import ProbationLimits
from host.runtime.reload.revision import StrategyRevision
from host.runtime.reload.stages import ReloadRefused, Stage, StageLog, StageOutcome, StageResult

if TYPE_CHECKING:
    from host.runtime.engine import Engine

__all__ = ["ReloadReport", "ReloadSettings", "Reloader", "Revision", "StrategyUse"]

_log = logging.getLogger("tandem.reload")
ROLLBACKS_BEFORE_STOP: Final = 3
ROLLBACK_WINDOW_NS: Final = 300 * 1_000_000_000
"""So many rollbacks within this time end automatic reload of the plugin until an operator says otherwise."""

_NOWHERE: Final = Path()

Policy = Literal["cancel", "keep", "flatten"]


class ReloadSettings(Struct, frozen=True, kw_only=True):
    """How reloads are done on this node."""

    mode: Literal["auto", "stage"] = "auto"
    """`auto` goes live by itself; `stage` stops after warm-up until an operator activates the digest."""
    rollback_policy: Policy = "cancel"
    limits: ProbationLimits = ProbationLimits()


class StrategyUse(Struct, frozen=True):
    """Which offer an instance runs, and the parameters that its configuration gives."""

    offer: Offer
    params: Mapping[str, object]


class ReloadReport(Struct, frozen=True):
    """What one reload came to. `state` is None where there was nothing to do."""

    plugin: str
    digest: str
    state: VersionState | None
    reason: str
    stages: tuple[StageResult, ...]
    instances: tuple[str, ...]


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
    def name(self) -> str:
        """Whose it is: an instance or an account."""

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


class _Live(Struct):
    """A version that went live and is on probation, and the version that it would go back to."""

    version: Version
    revisions: list[Revision]
    before: Version
    classes_before: list[type[Any]]
    started_ns: int

    @property
    def plugin(self) -> str:
        return self.version.name


class Reloader:
    """Owns the catalog in use and takes plugins from one version to the next.

    `probe(version)` imports unproven bytes where they can do no harm and raises `TandemError` with
    the reason when they do not pass. `keep(version)` stores a version's bytes for restarts; it runs
    in a thread.
    """

    def __init__(
        self,
        engine: "Engine",
        catalog: Catalog,
        settings: ReloadSettings,
        probe: Callable[[Version], Awaitable[None]],
        keep: Callable[[Version], None],
    ) -> None:
        self.catalog = catalog
        self.uses: dict[str, StrategyUse] = {}
        self.model_uses: dict[str, tuple[ModelUse, ...]] = {}
        """The models of each instance, in the order of its chain."""
        self.adapter_uses: dict[str, AdapterUse] = {}
        """The adapter of each account."""
        self.reloads = 0
        self.on_report: Callable[[ReloadReport], None] = lambda report: None
        self._engine = engine
        self.settings = settings
        """Read anew by each reload, probation and rollback."""
        self._probe = probe
        self._keep = keep
        self._turns: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._live: dict[str, _Live] = {}
        self._staged: dict[str, Version] = {}
        self._closing: list[Catalog] = []
        """Catalogs that are not in use any more: their modules are still to be given back."""
        self._retirement = Retirement(self._retired)
        engine.upkeep.duties.append(self._watch)
        engine.roster.on_probation_fault = self._on_fault

    def note_running(self, version: Version) -> None:
        """Say that this version runs from the node's start.

        It is permanent if none was before. One that was on probation when the process ended is taken
        back: whether it ended the process, nobody can tell.
        """
        record = self._engine.state.plugin(version.name)
        with self._turn():
            if record.active not in ("", record.permanent):
                reason = "the node ended while it was on probation"
                self._record_move(version.name, record.active, VersionState.ROLLED_BACK, reason)
                self._engine.record_alert(
                    "rolled_back", f"plugin {version.name} {record.active[:12]}: {reason}"
                )
            if not record.permanent:
                self._record_move(version.name, version.digest, VersionState.PERMANENT, "the first version")
                self._keep(version)

    def stop(self, reason: str) -> None:
        """Note, before the node stops on purpose, that versions on probation did nothing wrong.

        The next start runs the permanent versions and tries these again.
        """
        with self._turn():
            for live in self._live.values():
                self._record_since(live, Stage.PROBATION, StageOutcome.SKIPPED, reason)
                self._record_move(live.plugin, live.version.digest, VersionState.STAGED, reason)

    def close(self) -> None:
        """Give back every module, once nothing runs any more."""
        for live in self._live.values():
            unload(live.before)
        self._live.clear()
        self._closing.append(self.catalog)
        self._close_catalogs()

    # -- the transaction -------------------------------------------------------------------------

    async def reload(
        self, plugin: str, capture: Callable[[], Awaitable[Version]], *, is_ordered: bool = False
    ) -> ReloadReport:
        """Take everything that runs `plugin` to the bytes that `capture` finds.

        `is_ordered` (an operator's word) tries a version that was refused before, goes live in
        `stage` mode, and is obeyed where automatic reload is off. One reload of a plugin at a time.
        """
        async with self._turns[plugin]:
            version: Version | None = None
            log = StageLog(lambda result: self._tell(plugin, version, result))
            started_ns = time.perf_counter_ns()
            try:
                try:
                    version = await capture()
                except (TandemError, OSError) as error:
                    log.end(Stage.CAPTURE, StageOutcome.FAILED, started_ns, str(error))
                    raise ReloadRefused(Stage.CAPTURE, str(error)) from error
                skip = self._why_not(plugin, version, is_ordered)
                if skip:
                    return self._report(version, None, skip, log)
                log.end(Stage.CAPTURE, StageOutcome.PASSED, started_ns, f"{len(version.files)} files")
                with log.stage(Stage.VALIDATE):
                    await self._probe(version)
                    await asyncio.to_thread(self._keep, version)
                    base = self.catalog
                    catalog = await asyncio.to_thread(base.with_version, version)
                try:
                    return await self._go_live(version, base, catalog, log, is_ordered)
                finally:
                    if self.catalog is not catalog:
                        self._closing.append(catalog)
                    # Dropping modules takes longer than the swap: not on the loop.
                    await asyncio.to_thread(self._close_catalogs)
            except ReloadRefused as refused:
                if version is None:
                    version = Version(plugin, _NOWHERE, "", {})
                else:
                    self._refuse(version, f"{refused.stage}: {refused.reason}")
                return self._report(version, VersionState.REFUSED, refused.reason, log)

    async def activate(self, plugin: str, digest: str) -> ReloadReport:
        """Let the staged version with this digest (or its first digits) go live; raises `TandemError`."""
        staged = self._staged.get(plugin)
        if staged is None or not digest or not staged.digest.startswith(digest):
            waiting = staged.short_digest if staged is not None else "none"
            raise TandemError(f"plugin {plugin}: version {digest} is not staged; staged is {waiting}")

        async def capture() -> Version:
            return staged

        return await self.reload(plugin, capture, is_ordered=True)

    def _why_not(self, plugin: str, version: Version, is_ordered: bool) -> str:
        record = self._engine.state.plugin(plugin)
        if self._engine.halted:
            return f"trading is halted: {self._engine.halted}"
        if version.digest == self._running(plugin):
            return "unchanged"
        if is_ordered:
            return ""
        if not record.is_auto:
            return "automatic reload of this plugin is off"
        if version.digest in record.refused:
            return f"these bytes were tried before: {record.refused[version.digest]}"
        return ""

    def _close_catalogs(self) -> None:
        while self._closing:
            self._closing.pop().close()

    def _running(self, plugin: str) -> str:
        version = self.catalog.versions.get(plugin)
        return version.digest if version is not None else ""

    async def _go_live(
        self, version: Version, base: Catalog, catalog: Catalog, log: StageLog, is_ordered: bool
    ) -> ReloadReport:
        plugin = version.name
        revisions = self._revisions(plugin, version, catalog)
        try:
            return await self._prove_and_swap(version, base, catalog, revisions, log, is_ordered)
        finally:
            live = self._live.get(plugin)
            if live is None or live.version is not version:
                for revision in revisions:
                    revision.abandon()

    async def _prove_and_swap(
        self,
        version: Version,
        base: Catalog,
        catalog: Catalog,
        revisions: list[Revision],
        log: StageLog,
        is_ordered: bool,
    ) -> ReloadReport:
        plugin = version.name
        with log.stage(Stage.RESTORE):
            log.detail = "; ".join([revision.build() for revision in revisions])
        with log.stage(Stage.WARM_UP):
            log.detail = "; ".join([await revision.warm_up() for revision in revisions])
        if self.settings.mode == "stage" and not is_ordered:
            self._staged[plugin] = version
            with self._turn():
                self._record_move(plugin, version.digest, VersionState.STAGED, "waits to be activated")
            return self._report(version, VersionState.STAGED, "waits to be activated", log)
        with log.stage(Stage.SWAP), self._turn() as now_ns:
            for revision in revisions:
                revision.prepare(now_ns)
            if self.catalog is not base:  # another plugin went live or back meanwhile
                catalog = self.catalog.with_version(version)
            self._swap(version, catalog, revisions, now_ns)
        self.reloads += 1
        if not revisions:
            return self._report(version, VersionState.PERMANENT, "nothing runs it", log)
        return self._report(version, VersionState.ACTIVE, "live, on probation", log)

    def _swap(self, version: Version, catalog: Catalog, revisions: list[Revision], now_ns: int) -> None:
        """Swap everything within one turn: no event comes between, and no await."""
        plugin = version.name
        previous = self._live.pop(plugin, None)
        old, old_classes = self.catalog.versions.get(plugin), _classes(self.catalog, plugin)
        if old is not None and revisions and previous is None:
            import_version(old)  # held until the new version has earned its place
        self._closing.append(self.catalog)
        self.catalog = catalog
        self._staged.pop(plugin, None)
        if not revisions:
            self._record_move(plugin, version.digest, VersionState.PERMANENT, "nothing runs it")
            return
        assert old is not None
        places = {
            (revision.name, revision.place): revision for revision in (previous.revisions if previous else ())
        }
        for revision in revisions:
            if (revision.name, revision.place) in places:
                revision.succeed(places[revision.name, revision.place])
            revision.swap(now_ns)
        self._record_move(plugin, version.digest, VersionState.ACTIVE, "swapped in")
        self._rebind(plugin)
        live = _Live(version, revisions, old, old_classes, now_ns)
        if previous is not None:
            # What earned its place is still the version before: the one between goes.
            live.before, live.classes_before = previous.before, previous.classes_before
            text = f"replaced by {version.short_digest}"
            self._record_since(previous, Stage.PROBATION, StageOutcome.SKIPPED, text)
            self._retire(old, old_classes)
        self._live[plugin] = live
        if self._follow not in self._engine.upkeep.errands:
            self._engine.upkeep.errands.append(self._follow)
        self._engine.roster.rewire()

    # -- who runs what ---------------------------------------------------------------------------

    def _users(self, plugin: str) -> list[Instance]:
        """Return the instances that run a strategy of this plugin."""
        instances = self._engine.roster.instances
        return [
            instances[name]
            for name, use in self.uses.items()
            if use.offer.version.name == plugin and name in instances
        ]

    def _model_users(self, plugin: str) -> list[tuple[Instance, int, ModelUse]]:
        """Return the places in chains of models that run one of this plugin."""
        instances = self._engine.roster.instances
        return [
            (instances[name], place, use)
            for name, uses in self.model_uses.items()
            if name in instances
            for place, use in enumerate(uses)
            if use.offer.version.name == plugin
        ]

    def _revisions(self, plugin: str, version: Version, catalog: Catalog) -> list[Revision]:
        revisions: list[Revision] = [
            StrategyRevision(
                self._engine,
                instance,
                functools.partial(self._make, catalog, instance.instance),
                functools.partial(self._params, catalog, instance.instance),
                version.digest,
                self.settings.limits,
                self._on_fault,
            )
            for instance in self._users(plugin)
        ]
        for instance, place, model_use in self._model_users(plugin):
            revisions.append(
                ModelRevision(
                    self._engine.clock,
                    instance,
                    place,
                    functools.partial(self._make_model, catalog, model_use, instance.instance),
                    self.settings.limits,
                )
            )
        # Last, because they take longest and are to be fresh at the swap.
        for account, adapter_use in self._adapter_users(plugin):
            revisions.append(
                AdapterRevision(
                    self._engine,
                    account,
                    functools.partial(self._make_adapter, catalog, adapter_use, account),
                    self.settings.limits,
                    self._on_adapter_fault,
                )
            )
        return revisions

    def _adapter_users(self, plugin: str) -> list[tuple[str, AdapterUse]]:
        """Return the accounts whose adapter is one of this plugin."""
        return [
            (account, use)
            for account, use in self.adapter_uses.items()
            if use.offer.version.name == plugin and account in self._engine.feeds
        ]

    def _make_adapter(self, catalog: Catalog, use: AdapterUse, account: str) -> ExchangeAdapter[Any]:
        offer = catalog.exchange(use.offer.name)
        adapter: ExchangeAdapter[Any] = make(offer, use.params, instance=f"account {account}")
        return adapter

    def _make_model(self, catalog: Catalog, use: ModelUse, instance: str) -> QuoteModel[Any]:
        name = use.offer.name
        model: QuoteModel[Any] = make(catalog.model(name), use.params, instance=f"{instance}, model {name}")
        return model

    def _make(self, catalog: Catalog, instance: str) -> Strategy[Any]:
        use = self.uses[instance]
        strategy: Strategy[Any] = make(catalog.strategy(use.offer.name), use.params, instance=instance)
        return strategy

    def _params(self, catalog: Catalog, instance: str) -> Params:
        """Return an instance's parameters as they are configured now."""
        use = self.uses[instance]
        return decode_params(catalog.strategy(use.offer.name), use.params, instance=instance)

    def _rebind(self, plugin: str) -> None:
        """Have the uses of a plugin name what the catalog in use offers."""
        for name, use in self.uses.items():
            if use.offer.version.name == plugin:
                self.uses[name] = StrategyUse(self.catalog.strategy(use.offer.name), use.params)
        for name, uses in self.model_uses.items():
            self.model_uses[name] = tuple(
                ModelUse(self.catalog.model(use.offer.name), use.params)
                if use.offer.version.name == plugin
                else use
                for use in uses
            )
        for account, adapter_use in self.adapter_uses.items():
            if adapter_use.offer.version.name == plugin:
                offer = self.catalog.exchange(adapter_use.offer.name)
                self.adapter_uses[account] = AdapterUse(offer, adapter_use.params)

    # -- edits of the configuration --------------------------------------------------------------

    @property
    def on_probation(self) -> frozenset[str]:
        """Return the plugins with a version that may yet be taken back."""
        return frozenset(self._live)

    @contextlib.asynccontextmanager
    async def holding(self, plugins: Iterable[str]) -> AsyncIterator[None]:
        """Wait for the reloads of these plugins that are under way, and let no other begin."""
        async with contextlib.AsyncExitStack() as stack:
            for plugin in sorted(set(plugins)):
                await stack.enter_async_context(self._turns[plugin])
            yield

    async def keep(self, offers: Iterable[Offer]) -> None:
        """Store the bytes of what is about to be taken on, where restarts find them; raise `OSError`."""
        for version in {offer.version.digest: offer.version for offer in offers}.values():
            if version.digest:
                await asyncio.to_thread(self._keep, version)

    def take_on(self, instance: str, use: StrategyUse, model_uses: tuple[ModelUse, ...]) -> None:
        """Reload what an instance runs, too, from here on; within a turn."""
        self.uses[instance], self.model_uses[instance] = use, model_uses
        for offer in (use.offer, *(model_use.offer for model_use in model_uses)):
            if offer.version.digest and not self._engine.state.plugin(offer.version.name).permanent:
                self.note_running(offer.version)

    def forget(self, instance: Instance, now_ns: int) -> None:
        """Let go of an instance that is removed, within a turn; neither reload nor rollback concern it."""
        self.uses.pop(instance.instance, None)
        self.model_uses.pop(instance.instance, None)
        instance.probation = instance.fallback = None
        for live in list(self._live.values()):
            kept = [revision for revision in live.revisions if revision.name != instance.instance]
            if len(kept) < len(live.revisions):
                live.revisions[:] = kept
                if not kept:
                    self._promote(live, "nothing runs it", now_ns)

    # -- probation -------------------------------------------------------------------------------

    def promote(self, plugin: str) -> bool:
        """End a version's probation now, on an operator's word; return whether there was one."""
        live = self._live.get(plugin)
        if live is not None:
            with self._turn() as now_ns:
                self._promote(live, "by an operator", now_ns)
        return live is not None

    def roll_back(self, plugin: str, reason: str) -> bool:
        """Take a version on probation back now; return whether there was one."""
        live = self._live.get(plugin)
        if live is not None:
            with self._turn() as now_ns:
                self._roll_back(live, reason, now_ns)
        return live is not None

    def set_auto(self, plugin: str, is_on: bool, reason: str) -> None:
        """Say whether changed files of a plugin go live by themselves."""
        with self._turn() as now_ns:
            self._engine.record(e.AutoReloadSet(plugin, is_on, reason), now_ns)

    def _watch(self, now_ns: int) -> None:
        """Look after versions on probation and retired ones; runs with the engine's housekeeping."""
        for live in list(self._live.values()):
            watched = [(r.name, r.probation) for r in live.revisions if r.probation is not None]
            faults = [f"{name}: {fault}" for name, probation in watched if (fault := probation.fault())]
            if faults:
                self._roll_back(live, "; ".join(faults), now_ns)
            elif self._is_over(live, now_ns):
                self._promote(live, "probation passed", now_ns)
        self._close_catalogs()
        self._retirement.check(now_ns)

    def _is_over(self, live: _Live, now_ns: int) -> bool:
        if now_ns - live.started_ns < self.settings.limits.seconds * 1e9:
            return False
        instances = self._engine.roster.instances
        return all(
            revision.probation is None
            or revision.probation.is_over(now_ns)
            # One that is stopped meanwhile will never have seen enough.
            or (revision.name in instances and instances[revision.name].state not in RECEIVING)
            for revision in live.revisions
        )

    def _follow(self, now_ns: int) -> None:
        """Let the versions that may come back hear what happened; an errand of the engine's upkeep."""
        kept = [i.fallback for i in self._engine.roster.instances.values() if i.fallback is not None]
        for fallback in kept:
            fallback.follow(now_ns, SLICE_NS // len(kept))
        if not self._live:
            self._engine.upkeep.errands.remove(self._follow)

    def _on_fault(self, instance: Instance, why: str) -> bool:
        """Have a version taken back at the end of this turn; return whether it is on probation."""
        for live in self._live.values():
            if any(revision.probation is instance.probation for revision in live.revisions):
                # The other handlers of this very event are still to run: after them, not before.
                instance.is_trading = False
                text = f"instance {instance.instance}: {why}"
                self._engine.after_turn.append(functools.partial(self._roll_back, live, text))
                return True
        return False

    def _on_adapter_fault(self, revision: AdapterRevision, why: str) -> None:
        """Have the version that an account runs taken back at the end of this turn."""
        for live in self._live.values():
            if any(one is revision for one in live.revisions):
                text = f"{revision.name}: {why}"
                self._engine.after_turn.append(functools.partial(self._roll_back, live, text))

    def _roll_back(self, live: _Live, reason: str, now_ns: int) -> None:
        """Go back, within a turn; no effect on a version that went already."""
        plugin, version = live.plugin, live.version
        if self._live.get(plugin) is not live:
            return  # two callbacks of one event raised
        del self._live[plugin]
        started_ns = time.perf_counter_ns()
        engine = self._engine
        classes = _classes(self.catalog, plugin)
        for revision in live.revisions:
            revision.roll_back(reason, self.settings.rollback_policy, now_ns)
        self._closing.append(self.catalog)
        self.catalog = self.catalog.with_version(live.before)
        unload(live.before)
        self._rebind(plugin)
        self._follow_up(plugin, reason)
        took_us = (time.perf_counter_ns() - started_ns) // 1000
        self._record_since(live, Stage.PROBATION, StageOutcome.FAILED, reason)
        self._record_stage(version, StageResult(Stage.ROLL_BACK, StageOutcome.PASSED, took_us, reason))
        self._record_move(plugin, version.digest, VersionState.ROLLED_BACK, reason)
        engine.record_alert("rolled_back", f"plugin {plugin} {version.short_digest}: {reason}")
        self._stop_after_many(plugin, now_ns)
        engine.roster.rewire()
        names = tuple(sorted({revision.name for revision in live.revisions}))
        live.revisions.clear()
        self._retire(version, classes)
        self.on_report(ReloadReport(plugin, version.digest, VersionState.ROLLED_BACK, reason, (), names))

    def _follow_up(self, plugin: str, reason: str) -> None:
        """See to what changed around the instances while the version was on probation."""
        for instance in self._users(plugin):
            use = self.uses[instance.instance]
            if type(instance.strategy) is not use.offer.cls:
                # Added meanwhile: nothing is there that it could go back to.
                self._engine.roster.put_in_quarantine(instance, f"its version was rolled back: {reason}")
                continue
            try:
                params = self._params(self.catalog, instance.instance)
                if params != instance.strategy.params:
                    instance.set_params(params)
            except (Exception, SystemExit) as error:  # noqa: BLE001 - plugin boundary: quarantined
                self._engine.roster.quarantine(instance, error, "on_params")

    def _stop_after_many(self, plugin: str, now_ns: int) -> None:
        record = self._engine.state.plugin(plugin)
        recent = [ts for ts in record.rollbacks_ns if now_ns - ts < ROLLBACK_WINDOW_NS]
        if len(recent) >= ROLLBACKS_BEFORE_STOP and record.is_auto:
            text = f"{len(recent)} rollbacks within {ROLLBACK_WINDOW_NS // 1_000_000_000} s"
            self._engine.record(e.AutoReloadSet(plugin, False, text), now_ns)
            self._engine.record_alert(
                "reload_stopped", f"plugin {plugin}: {text}; reload it by hand to go on"
            )

    def _promote(self, live: _Live, reason: str, now_ns: int) -> None:
        """Make a version the one that restarts come back to, within a turn."""
        del self._live[live.plugin]
        for revision in live.revisions:
            revision.settle(now_ns)
        self._engine.roster.rewire()
        self._record_since(live, Stage.PROBATION, StageOutcome.PASSED, reason)
        self._record_stage(live.version, StageResult(Stage.PROMOTE, StageOutcome.PASSED, 0, ""))
        self._record_move(live.plugin, live.version.digest, VersionState.PERMANENT, reason)
        live.revisions.clear()
        unload(live.before)
        self._retire(live.before, live.classes_before)

    # -- retirement ------------------------------------------------------------------------------

    def _retire(self, version: Version, classes: list[type[Any]]) -> None:
        """Remember to see that an unloaded version's code goes."""
        self._retirement.add(version, classes, self._engine.now_ns)
        classes.clear()

    def _retired(self, version: Version, took_ns: int, outcome: StageOutcome, text: str) -> None:
        self._record_stage(version, StageResult(Stage.RETIRE, outcome, took_ns // 1000, text))
        if outcome is StageOutcome.FAILED:
            self._record_move(version.name, version.digest, VersionState.STUCK, text)
            self._engine.record_alert("plugin_stuck", f"plugin {version.name} {version.short_digest}: {text}")

    # -- telling ---------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _turn(self) -> Iterator[int]:
        """Make a turn of what is done within; a journal that cannot be written ends trading."""
        engine = self._engine
        now_ns = engine.clock.now_ns()
        engine.begin_turn(now_ns)
        try:
            yield now_ns
        except JournalError as error:
            engine.abort_turn(error)
            return
        except BaseException:
            engine.end_turn(now_ns, 0)
            raise
        engine.end_turn(now_ns, 0)

    def _tell(self, plugin: str, version: Version | None, result: StageResult) -> None:
        with self._turn():
            self._record_stage(version or Version(plugin, _NOWHERE, "", {}), result)

    def _record_since(self, live: _Live, stage: Stage, outcome: StageOutcome, text: str) -> None:
        took_us = (self._engine.now_ns - live.started_ns) // 1000
        self._record_stage(live.version, StageResult(stage, outcome, took_us, text))

    def _record_stage(self, version: Version, result: StageResult) -> None:
        engine = self._engine
        entry = e.StageReported(
            version.name, version.digest, result.stage, result.outcome, result.duration_us, result.detail
        )
        engine.record(entry, engine.now_ns)
        _log.info(
            "plugin %s %s: %s %s in %.1f ms %s",
            version.name, version.short_digest, result.stage, result.outcome, result.duration_us / 1e3,
            result.detail,
        )  # fmt: skip

    def _refuse(self, version: Version, reason: str) -> None:
        with self._turn():
            self._record_move(version.name, version.digest, VersionState.REFUSED, reason)
            self._engine.record_alert(
                "reload_refused", f"plugin {version.name} {version.short_digest}: {reason}"
            )

    def _record_move(self, plugin: str, digest: str, state: VersionState, reason: str) -> None:
        self._engine.record(e.VersionMoved(plugin, digest, state, reason), self._engine.now_ns)

    def _report(
        self, version: Version, state: VersionState | None, reason: str, log: StageLog
    ) -> ReloadReport:
        users = {instance.instance for instance in self._users(version.name)}
        users |= {instance.instance for instance, _, _ in self._model_users(version.name)}
        users |= {f"account {account}" for account, _ in self._adapter_users(version.name)}
        report = ReloadReport(
            version.name, version.digest, state, reason, tuple(log.results), tuple(sorted(users))
        )
        self.on_report(report)
        return report


def _classes(catalog: Catalog, plugin: str) -> list[type[Any]]:
    """Return the classes that a plugin offers."""
    return [offer.cls for offer in catalog.offers.values() if offer.version.name == plugin]
