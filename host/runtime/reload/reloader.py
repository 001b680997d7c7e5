"""The reload transaction: one changed plugin, all its instances, all or nothing.

The old version trades on until the swap, and stays warm until the new one has earned its place.
Deciding is in the stages and guards; this is the shell that runs them in order.
"""

import asyncio
import functools
import gc
import logging
import weakref
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol

from msgspec import Struct

from host.api import QuoteModel, Strategy, TandemError
from host.core import entries as e
from host.core.entries import VersionState
from host.loader import Catalog, Offer, Version, make
from host.runtime.instance import Instance
from host.runtime.reload.models import ModelRevision, ModelUse
from host.runtime.reload.probation import ProbationLimits
from host.runtime.reload.revision import StrategyRevision
from host.runtime.reload.stages import ReloadRefused, Stage, StageLog, StageOutcome, StageResult

if TYPE_CHECKING:
    from host.runtime.engine import Engine

__all__ = ["ReloadReport", "ReloadSettings", "Reloader", "StrategyUse"]

_log = logging.getLogger("tandem.reload")
ROLLBACKS_BEFORE_STOP: Final = 3
ROLLBACK_WINDOW_NS: Final = 300 * 1_000_000_000
"""So many rollbacks within this time end automatic reload of the plugin until an operator says otherwise."""

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

    Up to `swap`, which must not await, nothing that runs is touched; whatever fails before raises
    `TandemError`.
    """

    @property
    def name(self) -> str:
        """Whose it is: an instance or an account."""

    @property
    def old(self) -> Any:
        """The plugin's object that ran before the swap."""

    @property
    def new(self) -> Any:
        """The plugin's object that runs after the swap, None before it was built."""

    @property
    def probation(self) -> _Watched | None:
        """What watches the new version, once it is live."""

    def build(self) -> str: ...

    async def warm_up(self) -> str: ...

    def swap(self, now_ns: int) -> None: ...

    def settle(self) -> None: ...

    def roll_back(self, reason: str, policy: str, now_ns: int) -> None: ...


class _Live(Struct):
    """A version that went live and is on probation."""

    plugin: str
    version: Version
    revisions: list[Revision]
    old_catalog: Catalog
    uses: dict[str, StrategyUse]
    model_uses: dict[str, tuple[ModelUse, ...]]
    started_ns: int


class Reloader:
    """Owns the catalog in use and takes plugins from one version to the next.

    `probe(version)` imports unproven bytes where they can do no harm and raises `TandemError` with
    the reason when they do not pass. `keep(version)` stores a version's bytes for restarts.
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
        self.reloads = 0
        self.on_report: Callable[[ReloadReport], None] = lambda report: None
        self._engine = engine
        self._settings = settings
        self._probe = probe
        self._keep = keep
        self._lock = asyncio.Lock()
        self._live: dict[str, _Live] = {}
        self._retiring: list[tuple[str, str, weakref.ref[type[Any]]]] = []
        engine.upkeep.duties.append(self._watch)
        engine.roster.on_probation_fault = self._on_fault

    # -- the permanent version -------------------------------------------------------------------

    def note_running(self, version: Version) -> None:
        """Say that this version runs from the node's start: it is permanent if none was before."""
        record = self._engine.state.plugin(version.name)
        if not record.permanent:
            self._move(version.name, version.digest, VersionState.PERMANENT, "the first version")
            self._keep(version)

    # -- the transaction -------------------------------------------------------------------------

    async def reload(
        self, plugin: str, capture: Callable[[], Awaitable[Version]], *, is_ordered: bool = False
    ) -> ReloadReport:
        """Take every instance of `plugin` to the bytes that `capture` finds.

        `is_ordered` (an operator's word) tries a version that was refused before, goes live in
        `stage` mode, and is obeyed where automatic reload is off.
        """
        async with self._lock:
            log = StageLog(functools.partial(self._tell, plugin))
            version: Version | None = None
            try:
                with log.stage(Stage.CAPTURE):
                    version = await capture()
                    self._telling = version.digest
                skip = self._why_not(plugin, version, is_ordered)
                if skip:
                    return self._report(plugin, version.digest, None, skip, log)
                return await self._run(plugin, version, log, is_ordered)
            except ReloadRefused as refused:
                digest = version.digest if version is not None else ""
                if version is not None:
                    self._move(plugin, digest, VersionState.REFUSED, f"{refused.stage}: {refused.reason}")
                return self._report(plugin, digest, VersionState.REFUSED, refused.reason, log)

    _telling = ""

    def _why_not(self, plugin: str, version: Version, is_ordered: bool) -> str:
        record = self._engine.state.plugin(plugin)
        if version.digest in (record.active or record.permanent, self._running(plugin)):
            return "unchanged"
        if is_ordered:
            return ""
        if not record.is_auto:
            return "automatic reload of this plugin is off"
        if version.digest in record.refused:
            return f"these bytes were tried before: {record.refused[version.digest]}"
        return ""

    def _running(self, plugin: str) -> str:
        version = self.catalog.versions.get(plugin)
        return version.digest if version is not None else ""

    async def _run(self, plugin: str, version: Version, log: StageLog, is_ordered: bool) -> ReloadReport:
        with log.stage(Stage.VALIDATE):
            await self._probe(version)
            catalog = self.catalog.with_version(version)
        users = self._users(plugin)
        try:
            revisions = self._revisions(plugin, version, catalog, users)
            with log.stage(Stage.RESTORE):
                log.detail = "; ".join([revision.build() for revision in revisions])
            with log.stage(Stage.WARM_UP):
                log.detail = "; ".join([await revision.warm_up() for revision in revisions])
            if self._settings.mode == "stage" and not is_ordered:
                self._move(plugin, version.digest, VersionState.STAGED, "waits to be activated")
                catalog.close()
                return self._report(plugin, version.digest, VersionState.STAGED, "staged", log)
            with log.stage(Stage.SWAP):
                self._keep(version)
                self._swap(plugin, version, catalog, revisions)
        except ReloadRefused:
            catalog.close()
            raise
        self.reloads += 1
        return self._report(plugin, version.digest, VersionState.ACTIVE, "live, on probation", log)

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

    def _revisions(
        self, plugin: str, version: Version, catalog: Catalog, users: list[Instance]
    ) -> list[Revision]:
        revisions: list[Revision] = []
        for instance in users:
            use = self.uses[instance.instance]
            revisions.append(
                StrategyRevision(
                    self._engine,
                    instance,
                    functools.partial(self._make, catalog, use, instance.instance),
                    version.digest,
                    self._settings.limits,
                )
            )
        for instance, place, model_use in self._model_users(plugin):
            revisions.append(
                ModelRevision(
                    self._engine.clock,
                    instance,
                    instance.models[place],
                    functools.partial(self._make_model, catalog, model_use, instance.instance),
                    self._settings.limits,
                )
            )
        return revisions

    def _make_model(self, catalog: Catalog, use: ModelUse, instance: str) -> QuoteModel[Any]:
        name = use.offer.name
        model: QuoteModel[Any] = make(catalog.model(name), use.params, instance=f"{instance}, model {name}")
        return model

    def _make(self, catalog: Catalog, use: StrategyUse, instance: str) -> Strategy[Any]:
        strategy: Strategy[Any] = make(catalog.strategy(use.offer.name), use.params, instance=instance)
        return strategy

    def _swap(self, plugin: str, version: Version, catalog: Catalog, revisions: list[Revision]) -> None:
        """Swap all instances within one turn: no event comes between, and no await."""
        engine = self._engine
        self._end_probation(plugin)
        now_ns = engine.clock.now_ns()
        engine.begin_turn(now_ns)
        done: list[Revision] = []
        try:
            for revision in revisions:
                revision.swap(now_ns)
                done.append(revision)
        except TandemError:
            for revision in reversed(done):
                revision.roll_back("another instance of the plugin could not follow", "keep", now_ns)
            engine.end_turn(now_ns, 0)
            raise
        self._record_move(plugin, version.digest, VersionState.ACTIVE, "swapped in")
        old_catalog, self.catalog = self.catalog, catalog
        old_uses = dict(self.uses)
        for name, use in old_uses.items():
            if use.offer.version.name == plugin:
                self.uses[name] = StrategyUse(catalog.strategy(use.offer.name), use.params)
        old_model_uses = dict(self.model_uses)
        for name, model_uses in old_model_uses.items():
            self.model_uses[name] = tuple(
                ModelUse(catalog.model(use.offer.name), use.params)
                if use.offer.version.name == plugin
                else use
                for use in model_uses
            )
        self._live[plugin] = _Live(plugin, version, revisions, old_catalog, old_uses, old_model_uses, now_ns)
        engine.roster.rewire()
        engine.end_turn(now_ns, 0)

    # -- probation -------------------------------------------------------------------------------

    def _watch(self, now_ns: int) -> None:
        """Look after versions on probation; runs with the engine's housekeeping."""
        for live in list(self._live.values()):
            faults = [
                f"{revision.name}: {fault}"
                for revision in live.revisions
                if revision.probation is not None and (fault := revision.probation.fault())
            ]
            if faults:
                self._roll_back(live, "; ".join(faults), now_ns)
            elif self._is_over(live, now_ns):
                self._promote(live)
        if self._retiring:
            self._check_retired()

    def _is_over(self, live: _Live, now_ns: int) -> bool:
        if not live.revisions:
            return now_ns - live.started_ns >= self._settings.limits.seconds * 1e9
        return all(r.probation is None or r.probation.is_over(now_ns) for r in live.revisions)

    def _on_fault(self, instance: Instance, why: str) -> bool:
        for live in self._live.values():
            if any(revision.probation is instance.probation for revision in live.revisions):
                # The other handlers of this very event are still to run: after them, not before.
                instance.is_trading = False
                text = f"instance {instance.instance}: {why}"
                self._engine.after_turn.append(functools.partial(self._roll_back, live, text))
                return True
        return False

    def _roll_back(self, live: _Live, reason: str, now_ns: int) -> None:
        if self._live.pop(live.plugin, None) is None:
            return  # two callbacks of one event raised
        engine = self._engine
        for revision in live.revisions:
            revision.roll_back(reason, self._settings.rollback_policy, now_ns)
        bad, self.catalog = self.catalog, live.old_catalog
        self.uses = live.uses
        self.model_uses = live.model_uses
        digest = live.version.digest
        self._record_stage(live.plugin, digest, StageResult(Stage.ROLL_BACK, StageOutcome.PASSED, 0, reason))
        self._record_move(live.plugin, digest, VersionState.ROLLED_BACK, reason)
        engine.record_alert("rolled_back", f"plugin {live.plugin} {digest[:12]}: {reason}")
        record = engine.state.plugin(live.plugin)
        recent = [ts for ts in record.rollbacks_ns if now_ns - ts < ROLLBACK_WINDOW_NS]
        if len(recent) >= ROLLBACKS_BEFORE_STOP and record.is_auto:
            text = f"{len(recent)} rollbacks within {ROLLBACK_WINDOW_NS // 1_000_000_000} s"
            engine.record(e.AutoReloadSet(live.plugin, False, text), now_ns)
            engine.record_alert("reload_stopped", f"plugin {live.plugin}: {text}; reload it by hand to go on")
        engine.roster.rewire()
        self._retire(live.plugin, digest, bad, [r.new for r in live.revisions if r.new is not None])
        self.on_report(
            ReloadReport(
                live.plugin, digest, VersionState.ROLLED_BACK, reason, (),
                tuple(sorted({r.name for r in live.revisions})),
            )
        )  # fmt: skip

    def promote(self, plugin: str) -> bool:
        """End a version's probation now, on an operator's word; return whether there was one."""
        live = self._live.get(plugin)
        if live is not None:
            self._promote(live)
        return live is not None

    def roll_back(self, plugin: str, reason: str) -> bool:
        """Take a version on probation back now; return whether there was one."""
        live = self._live.get(plugin)
        if live is None:
            return False
        engine = self._engine
        now_ns = engine.clock.now_ns()
        engine.begin_turn(now_ns)
        self._roll_back(live, reason, now_ns)
        engine.end_turn(now_ns, 0)
        return True

    def _end_probation(self, plugin: str) -> None:
        """Make a version permanent that is about to be replaced: it did no harm so far."""
        live = self._live.get(plugin)
        if live is not None:
            self._promote(live)

    def _promote(self, live: _Live) -> None:
        del self._live[live.plugin]
        engine = self._engine
        engine.begin_turn(engine.clock.now_ns())
        for revision in live.revisions:
            revision.settle()
        engine.roster.rewire()
        digest = live.version.digest
        self._record_stage(live.plugin, digest, StageResult(Stage.PROMOTE, StageOutcome.PASSED, 0, ""))
        self._record_move(live.plugin, digest, VersionState.PERMANENT, "probation passed")
        engine.end_turn(engine.now_ns, 0)
        old = [revision.old for revision in live.revisions]
        old_digest = (
            live.old_catalog.versions[live.plugin].digest if live.plugin in live.old_catalog.versions else ""
        )
        live.revisions.clear()
        self._retire(live.plugin, old_digest, live.old_catalog, old)

    # -- retirement ------------------------------------------------------------------------------

    def _retire(self, plugin: str, digest: str, catalog: Catalog, objects: list[Any]) -> None:
        """Let a version's code go, and remember to see that it went."""
        for one in objects:
            self._retiring.append((plugin, digest, weakref.ref(type(one))))
        objects.clear()
        catalog.close()

    def _check_retired(self) -> None:
        """Alert about retired code that something still holds; looked at one housekeeping later."""
        waiting, self._retiring = self._retiring, []
        if all(ref() is None for _, _, ref in waiting):
            return
        gc.collect()
        for plugin, digest, ref in waiting:
            held = ref()
            if held is not None:
                holders = ", ".join(sorted({type(holder).__name__ for holder in gc.get_referrers(held)}))
                self._record_move(plugin, digest, VersionState.STUCK, f"held by {holders}")
                self._engine.record_alert("plugin_stuck", f"plugin {plugin} {digest[:12]}: held by {holders}")

    # -- telling ---------------------------------------------------------------------------------

    def _tell(self, plugin: str, result: StageResult) -> None:
        engine = self._engine
        engine.begin_turn(engine.clock.now_ns())
        self._record_stage(plugin, self._telling, result)
        engine.end_turn(engine.now_ns, 0)

    def _record_stage(self, plugin: str, digest: str, result: StageResult) -> None:
        engine = self._engine
        engine.record(
            e.StageReported(plugin, digest, result.stage, result.outcome, result.duration_us, result.detail),
            engine.now_ns,
        )
        _log.info(
            "plugin %s %s: %s %s in %.1f ms %s",
            plugin, digest[:12], result.stage, result.outcome, result.duration_us / 1e3, result.detail,
        )  # fmt: skip

    def _move(self, plugin: str, digest: str, state: VersionState, reason: str) -> None:
        engine = self._engine
        engine.begin_turn(engine.clock.now_ns())
        self._record_move(plugin, digest, state, reason)
        if state is VersionState.REFUSED:
            engine.record_alert("reload_refused", f"plugin {plugin} {digest[:12]}: {reason}")
        engine.end_turn(engine.now_ns, 0)

    def _record_move(self, plugin: str, digest: str, state: VersionState, reason: str) -> None:
        self._engine.record(e.VersionMoved(plugin, digest, state, reason), self._engine.now_ns)

    def _report(
        self, plugin: str, digest: str, state: VersionState | None, reason: str, log: StageLog
    ) -> ReloadReport:
        users = {instance.instance for instance in self._users(plugin)}
        users |= {instance.instance for instance, _, _ in self._model_users(plugin)}
        report = ReloadReport(plugin, digest, state, reason, tuple(log.results), tuple(sorted(users)))
        self.on_report(report)
        return report
