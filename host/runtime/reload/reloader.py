"""The reload transaction: one changed plugin, all that runs it, all or nothing.

The old version trades on until the swap, and stays warm until the new one has earned its place.
Deciding is in the stages and guards; this is the shell that runs them in order.
"""

import asyncio
import contextlib
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable
from typing import TYPE_CHECKING, Any

from host.api import TandemError
from host.core import entries as e
from host.core.entries import VersionState
from host.loader import Catalog, CompiledVersion, Offer, Version
from host.runtime.instance import Instance
from host.runtime.reload.adapters import AdapterUse
from host.runtime.reload.journaling import ReloadJournal, unread
from host.runtime.reload.live import LiveVersions
from host.runtime.reload.models import ModelUse
from host.runtime.reload.settings import ReloadSettings
from host.runtime.reload.stages import ReloadRefused, ReloadReport, Stage, StageLog, StageOutcome
from host.runtime.reload.uses import Revision, StrategyUse, Uses

if TYPE_CHECKING:
    from host.runtime.engine import Engine

__all__ = ["Reloader"]


class Reloader:
    """Takes plugins from one version to the next.

    `probe(version)` imports unproven bytes where they can do no harm, raises `TandemError` with the
    reason when they do not pass, and may return what they compile to. `keep(version)` stores a
    version's bytes for restarts; it runs in a thread.
    """

    def __init__(
        self,
        engine: "Engine",
        catalog: Catalog,
        settings: ReloadSettings,
        probe: Callable[[Version], Awaitable[CompiledVersion | None]],
        keep: Callable[[Version], None],
    ) -> None:
        self.in_use = Uses(engine, catalog)
        self.reloads = 0
        self.on_report: Callable[[ReloadReport], None] = lambda report: None
        self.settings = settings
        """Read anew by each reload, probation and rollback."""
        self._engine = engine
        self._probe = probe
        self._keep = keep
        self.share: Callable[[Version], Awaitable[None]] = _with_nobody
        """Has the standbys hold a version that may go live; raises `TandemError` where one cannot run it."""
        self._turns: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._staged: dict[str, Version] = {}
        self._journal = ReloadJournal(engine)
        self._live = LiveVersions(engine, self.in_use, self._journal, lambda: self.settings, self._tell)

    @property
    def catalog(self) -> Catalog:
        """Return the catalog in use."""
        return self.in_use.catalog

    @property
    def uses(self) -> dict[str, StrategyUse]:
        """Return the strategy of each instance."""
        return self.in_use.strategies

    @property
    def model_uses(self) -> dict[str, tuple[ModelUse, ...]]:
        """Return the models of each instance, in the order of its chain."""
        return self.in_use.models

    @property
    def adapter_uses(self) -> dict[str, AdapterUse]:
        """Return the adapter of each account."""
        return self.in_use.adapters

    def note_running(self, version: Version) -> None:
        """Say that this version runs from the node's start.

        It is permanent if none was before. One that was on probation when the process ended is taken
        back: whether it ended the process, nobody can tell. What it placed is treated as in any rollback,
        and so is what the process ended too soon to cancel.
        """
        plugin, journal = version.name, self._journal
        record = self._engine.state.plugin(plugin)
        with journal.turn():
            if self.catalog.is_installed(plugin):
                if record.permanent != version.digest:
                    journal.move(plugin, version.digest, VersionState.PERMANENT, "the package installed")
                return
            if record.active not in ("", record.permanent):
                reason = "the node ended while it was on probation"
                digest = record.active
                journal.move(plugin, digest, VersionState.ROLLED_BACK, reason)
                self._engine.record_alert("rolled_back", f"plugin {plugin} {digest[:12]}: {reason}")
                self._live.close_positions(plugin, reason)
            self._live.clear_away(plugin)
            if not record.permanent:
                journal.move(plugin, version.digest, VersionState.PERMANENT, "the first version")
                self._keep(version)

    def stop(self, reason: str) -> None:
        """Note, before the node stops on purpose, that versions on probation did nothing wrong.

        The next start runs the permanent versions and tries these again.
        """
        with self._journal.turn():
            self._live.stop(reason)

    def close(self) -> None:
        """Give back every module, once nothing runs any more."""
        self._live.close()
        self.in_use.discard(self.catalog)
        self.in_use.close_discarded()

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
            log = StageLog(lambda result: self._journal.tell(version or unread(plugin), result))
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
                    self.catalog.check_reloadable(plugin)
                    compiled = await self._probe(version)
                    await asyncio.to_thread(self._keep, version)
                    await self.share(version)
                    base = self.catalog
                    catalog = await asyncio.to_thread(base.with_version, version, compiled)
                try:
                    return await self._go_live(version, base, catalog, log, is_ordered)
                finally:
                    if self.catalog is not catalog:
                        self.in_use.discard(catalog)
                    # Dropping modules takes longer than the swap: not on the loop.
                    closing = asyncio.to_thread(self.in_use.close_discarded)
                    await (_to_the_end(closing) if is_ordered else closing)
            except ReloadRefused as refused:
                if version is None:
                    version = unread(plugin)
                else:
                    self._journal.refuse(version, f"{refused.stage}: {refused.reason}")
                return self._report(version, VersionState.REFUSED, refused.reason, log)

    async def activate(self, plugin: str, digest: str) -> ReloadReport:
        """Let the staged version with this digest (or its first digits) go live; raises `TandemError`."""
        staged = self._staged.get(plugin)
        if staged is None or not digest or not staged.digest.startswith(digest):
            waiting = staged.short_digest if staged is not None else "none"
            raise TandemError(f"plugin {plugin}: version {digest} is not staged; staged is {waiting}")

        async def capture() -> Version:
            newer = self._staged.get(plugin)
            if newer is not staged:  # another edit was under way when the operator spoke
                waiting = newer.short_digest if newer is not None else "none"
                raise TandemError(f"version {staged.short_digest} is no longer staged; staged is {waiting}")
            return staged

        return await self.reload(plugin, capture, is_ordered=True)

    def _why_not(self, plugin: str, version: Version, is_ordered: bool) -> str:
        record = self._engine.state.plugin(plugin)
        running = self.catalog.versions.get(plugin)
        if self._engine.halted:
            return f"trading is halted: {self._engine.halted}"
        if self._engine.stopping:
            return f"this node stops: {self._engine.stopping}"
        if running is not None and version.digest == running.digest:
            return "unchanged"
        if is_ordered:
            return ""
        if not record.is_auto:
            return "automatic reload of this plugin is off"
        if version.digest in record.refused:
            return f"these bytes were tried before: {record.refused[version.digest]}"
        return ""

    async def _go_live(
        self, version: Version, base: Catalog, catalog: Catalog, log: StageLog, is_ordered: bool
    ) -> ReloadReport:
        plugin, live = version.name, self._live
        revisions = self.in_use.revisions(
            version, catalog, self.settings.limits, live.on_fault, live.on_adapter_fault
        )
        try:
            return await self._prove_and_swap(version, base, catalog, revisions, log, is_ordered)
        finally:
            now_live = live.get(plugin)
            if now_live is None or now_live.version is not version:
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
        plugin, journal = version.name, self._journal
        with log.stage(Stage.RESTORE):
            log.detail = "; ".join([revision.build() for revision in revisions])
        with log.stage(Stage.WARM_UP):
            log.detail = "; ".join([await revision.warm_up() for revision in revisions])
        if self.settings.mode == "stage" and not is_ordered:
            self._staged[plugin] = version
            with journal.turn():
                journal.move(plugin, version.digest, VersionState.STAGED, "waits to be activated")
            return self._report(version, VersionState.STAGED, "waits to be activated", log)
        await self._engine.roster.states.fetch(
            revision.instance
            for revision in revisions
            if revision.instance is not None and revision.place == "strategy"
        )
        if self._engine.stopping:  # no fault of the version: the next start tries it
            return self._report(version, None, f"this node stops: {self._engine.stopping}", log)
        with log.stage(Stage.SWAP), journal.turn() as now_ns:
            revisions = self.in_use.without_gone(revisions)
            for revision in revisions:
                revision.prepare(now_ns)
            if self.catalog is not base:  # another plugin went live or back meanwhile
                catalog = self.catalog.with_offers(version, catalog.offers_of(plugin))
            self._live.check_names(plugin, catalog.offers_of(plugin))
            if revisions:
                self._live.begin(version, catalog, revisions, now_ns)
            else:
                self.in_use.switch(catalog)
                journal.move(plugin, version.digest, VersionState.PERMANENT, "nothing runs it")
            self._staged.pop(plugin, None)
        self.reloads += 1
        if not revisions:
            return self._report(version, VersionState.PERMANENT, "nothing runs it", log)
        return self._report(version, VersionState.ACTIVE, "live, on probation", log)

    def _report(
        self, version: Version, state: VersionState | None, reason: str, log: StageLog
    ) -> ReloadReport:
        users = self.in_use.users(version.name)
        report = ReloadReport(version.name, version.digest, state, reason, tuple(log.results), users)
        self._tell(report)
        return report

    def _tell(self, report: ReloadReport) -> None:
        self.on_report(report)

    # -- the operator's word ---------------------------------------------------------------------

    def promote(self, plugin: str) -> bool:
        """End a version's probation now, on an operator's word; return whether there was one."""
        live = self._live.get(plugin)
        if live is not None:
            with self._journal.turn() as now_ns:
                self._live.promote(live, "by an operator", now_ns)
        return live is not None

    def roll_back(self, plugin: str, reason: str) -> bool:
        """Take a version on probation back now; return whether there was one."""
        live = self._live.get(plugin)
        if live is not None:
            with self._journal.turn() as now_ns:
                self._live.roll_back(live, reason, now_ns)
        return live is not None

    def set_auto(self, plugin: str, is_on: bool, reason: str) -> None:
        """Say whether changed files of a plugin go live by themselves."""
        with self._journal.turn() as now_ns:
            self._engine.record(e.AutoReloadSet(plugin, is_on, reason), now_ns)

    # -- edits of the configuration --------------------------------------------------------------

    @property
    def on_probation(self) -> frozenset[str]:
        """Return the plugins with a version that may yet be taken back."""
        return self._live.plugins

    def is_changing(self, plugins: Iterable[str]) -> bool:
        """Return whether any of these plugins is being reloaded, held, or on probation."""
        return any(self._turns[plugin].locked() or plugin in self.on_probation for plugin in set(plugins))

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
        self._live.forget(instance.instance, now_ns)


async def _to_the_end(work: Coroutine[Any, Any, None]) -> None:
    """Wait for what no caller who leaves may cut short: their order was carried out, and is to be told."""
    task = asyncio.ensure_future(work)
    while not task.done():
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.shield(task)
    task.result()


async def _with_nobody(_version: Version) -> None:
    pass
