"""The reload service of a node: sees that plugin files changed and hands them to the reloader."""

import asyncio
import functools
import logging
import sys
from collections.abc import Coroutine, Mapping
from pathlib import Path
from typing import Any, Final, Self

from host.assembly import Assembly
from host.config import ConfigSource, NodeConfig, NodeSection
from host.core.entries import VersionState
from host.loader import (
    PROBE_DEADLINE_S,
    Catalog,
    CompiledVersion,
    ForkServer,
    Notice,
    PluginRejected,
    PluginWatcher,
    Version,
    capture,
    discover,
    settle,
)
from host.loading import archive_of, known_of, load_catalog
from host.runtime.engine import Engine
from host.runtime.instance_control import NotNow
from host.runtime.reconfigure import Reconfigurer
from host.runtime.reload import ProbationLimits, Reloader, ReloadReport, ReloadSettings

__all__ = ["Reloading"]

_log = logging.getLogger("tandem.reload")
THREAD_SWITCH_S: Final = 0.0002
"""How long a thread that works in Python may keep the event loop waiting: an import runs in one. Python's
own 5 ms is twenty times what a tick takes."""


def _settings(node: NodeSection) -> ReloadSettings:
    return ReloadSettings(
        mode="auto" if node.reload == "auto" else "stage",
        rollback_policy=node.rollback_policy,
        limits=ProbationLimits(seconds=node.probation_s, events=node.probation_events),
    )


class _SoonSwitching:
    """While a node of this process watches its files, threads let the event loop go on soon."""

    _nodes = 0
    _before_s = 0.0

    @classmethod
    def begin(cls) -> None:
        """Count one more node."""
        if not cls._nodes:
            cls._before_s = sys.getswitchinterval()
            sys.setswitchinterval(THREAD_SWITCH_S)
        cls._nodes += 1

    @classmethod
    def end(cls) -> None:
        """Count one less; the last one leaves everything as it was."""
        cls._nodes -= 1
        if not cls._nodes:
            sys.setswitchinterval(cls._before_s)


class Reloading:
    """Watches plugin folders while a node trades; owns the child processes that prove new bytes."""

    def __init__(
        self,
        config: NodeConfig,
        engine: Engine,
        catalog: Catalog,
        source: ConfigSource | None,
        fork_server: ForkServer,
    ) -> None:
        self._config = config
        self._source = source
        self._reconfigurer: Reconfigurer | None = None
        self._engine = engine
        self._fork_server = fork_server
        self._archive = archive_of(config)
        self._known = known_of(config)
        self._tasks: set[asyncio.Task[None]] = set()
        self._is_off = config.node.reload == "off"
        self._unseen: dict[str, Path] = {}
        """Plugins whose files may have changed while reloading was off."""
        self._leaves_alone = False
        self._left_alone: dict[str, str] = {}
        """Digests of files that differ from what ran when this node took over."""
        self._is_watching = False
        self._assembly: Assembly | None = None
        self._reloader = Reloader(engine, catalog, _settings(config.node), self._probe, self._archive.put)

    @classmethod
    async def load(cls, config: NodeConfig, engine: Engine, source: ConfigSource | None) -> Self:
        """Load what the node starts with; keep the child process that proved it for what comes later.

        Never raises for a bad plugin, which is told of in the catalog; raises `ForkServerFailed`.
        """
        fork_server = ForkServer()
        try:
            catalog = await load_catalog(config, engine, fork_server)
        except BaseException:
            await asyncio.shield(fork_server.close())
            raise
        if config.node.reload == "off":
            await fork_server.close()  # it comes back when it is needed
        return cls(config, engine, catalog, source, fork_server)

    @property
    def catalog(self) -> Catalog:
        """Return the catalog in use."""
        return self._reloader.catalog

    @property
    def config(self) -> NodeConfig:
        """Return the configuration in force, edits included."""
        return self._config if self._reconfigurer is None else self._reconfigurer.config

    @property
    def reloads(self) -> int:
        """Return how many versions went live."""
        return self._reloader.reloads

    @property
    def reloader(self) -> Reloader:
        """Return what takes plugins from one version to the next."""
        return self._reloader

    def bind(self, assembly: Assembly) -> None:
        """Note who runs what."""
        self._assembly = assembly
        in_use = self._reloader.in_use
        in_use.strategies, in_use.models = assembly.uses, assembly.model_uses
        in_use.adapters = assembly.adapter_uses

    def start(self, assembly: Assembly, *, takes_over: bool = False) -> None:
        """Note what runs, and watch from here on.

        A node that `takes_over` runs what its predecessor ran: files of its own that differ are told of, and
        go live when they change, or when an operator has them reloaded.
        """
        self.bind(assembly)
        self._leaves_alone = takes_over
        used = [use.offer.version for use in assembly.uses.values()]
        used += [use.offer.version for uses in assembly.model_uses.values() for use in uses]
        used += [use.offer.version for use in assembly.adapter_uses.values()]
        for version in {version.name: version for version in used if version.digest}.values():
            self._reloader.note_running(version)
        if self._source is not None:
            self._reconfigurer = Reconfigurer(
                self._engine,
                self._reloader,
                assembly.maker,
                self._source,
                self._config,
                assembly.skipped,
                self._take_settings,
            )
        self._is_watching = True
        _SoonSwitching.begin()
        if self._source is not None or not self._is_off:
            self._spawn(self._watch())

    def stop(self, reason: str) -> None:
        """Say what becomes of versions on probation: a clean stop is no fault of theirs."""
        self._reloader.stop(reason)

    async def close(self) -> None:
        """Stop watching and end the child processes; the catalog's modules are given back."""
        if self._reconfigurer is not None:
            await self._reconfigurer.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._fork_server.close()
        self._reloader.close()
        if self._is_watching:
            self._is_watching = False
            _SoonSwitching.end()

    async def reload(self, plugin: str) -> ReloadReport:
        """Take a plugin to the bytes that its files have now, on an operator's word.

        Raises `NotNow` where its files are gone.
        """
        found = await asyncio.to_thread(discover, self._config.plugin_dirs)
        path = found.plugins.get(plugin)
        if path is None:
            raise NotNow("WRONG_STATE", f"plugin {plugin} has no files in a plugin folder; put them back")
        report = await self._reloader.reload(plugin, functools.partial(settle, path), is_ordered=True)
        self._tell(report)
        await self.prune(plugin)
        return report

    async def try_version(self, version: Version) -> None:
        """Prove a version, load it beside what is loaded, and let go of it; raises `PluginRejected`."""
        compiled = await self._probe(version)
        other = await asyncio.to_thread(self._reloader.catalog.with_version, version, compiled)
        await asyncio.to_thread(other.close)

    async def prune(self, plugin: str) -> None:
        """Let go of the bytes of a plugin's versions that no restart, standby or operator comes back to."""
        record = self._engine.state.plugins.get(plugin)
        needed = () if record is None else (record.permanent, record.active, record.staged)
        try:
            await asyncio.to_thread(self._archive.prune, plugin, needed)
        except OSError as error:
            _log.warning("plugin %s: its older versions stay in %s: %s", plugin, self._archive.folder, error)

    # -- inside ----------------------------------------------------------------------------------

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work, name="plugin watch")
        self._tasks.add(task)
        task.add_done_callback(self._watch_ended)

    def _watch_ended(self, task: "asyncio.Task[None]") -> None:
        self._tasks.discard(task)
        error = None if task.cancelled() else task.exception()
        if error is not None:
            text = f"plugin files are no longer watched: {type(error).__name__}: {error}"
            self._engine.alert("watch_failed", text)

    async def _watch(self) -> None:
        if not self._is_off:
            await self._fork_server.start()
        files = () if self._source is None else self._source.files
        async for notice in PluginWatcher(self._config.plugin_dirs, files):
            await self._look(notice)

    async def _look(self, notice: Notice) -> None:
        if notice.files and self._reconfigurer is not None:
            self._reconfigurer.on_config_changed()
        if self._is_off:
            # To be looked at once it is switched on: an edit of the configuration may do that.
            self._unseen.update(notice.changed)
            for name in notice.removed:
                self._unseen.pop(name, None)
            return
        for name in notice.removed:
            text = f"plugin {name}: its files are gone; what runs keeps the version it has"
            self._engine.alert("plugin_removed", text)
        for problem in notice.problems:
            self._engine.alert("plugin_refused", str(problem))
        await self._look_at(notice.changed)

    async def _look_at(self, plugins: Mapping[str, Path]) -> None:
        leaves_alone, self._leaves_alone = self._leaves_alone, False
        for name, path in plugins.items():
            if leaves_alone:
                await self._leave_alone(name, path)
            elif not await self._is_as_it_runs(name, path):
                report = await self._reloader.reload(name, functools.partial(settle, path))
                self._tell(report)
                await self.prune(name)

    async def _is_as_it_runs(self, name: str, path: Path) -> bool:
        running = self._reloader.catalog.versions.get(name)
        try:
            found = await asyncio.to_thread(capture, path)
        except (PluginRejected, OSError):
            return False  # to be told by the transaction, in its words
        return (
            running is not None and found.digest == running.digest
        ) or found.digest == self._left_alone.get(name)

    async def _leave_alone(self, name: str, path: Path) -> None:
        running = self._reloader.catalog.versions.get(name)
        if running is None or await self._is_as_it_runs(name, path):
            return
        try:
            found = await asyncio.to_thread(capture, path)
        except (PluginRejected, OSError):
            return  # it is told when it is saved
        self._left_alone[name] = found.digest
        text = (
            f"plugin {name}: its files here are version {found.digest[:12]}; {running.short_digest} goes on, which "
            "the cell runs, until they change or are reloaded by hand"
        )
        self._engine.alert("plugin_files_differ", text)

    def _tell(self, report: ReloadReport) -> None:
        if report.state is not VersionState.REFUSED:  # of that there is a line by now
            _log.info("plugin %s %s: %s", report.plugin, report.digest[:12], report.reason)
        if report.state is not None and self._assembly is not None and self._assembly.skipped:
            self._assembly.start_skipped(report.plugin)

    def _take_settings(self, node: NodeSection) -> None:
        self._reloader.settings = _settings(node)
        self._is_off = node.reload == "off"
        if not self._is_off and self._unseen:
            unseen, self._unseen = self._unseen, {}
            self._spawn(self._look_at(unseen))

    async def _probe(self, version: Version) -> CompiledVersion | None:
        result = await self._fork_server.probe(version, PROBE_DEADLINE_S)
        if not result.is_ok:
            raise PluginRejected(result.problems)
        await asyncio.to_thread(self._known.add, version.digest)
        return result.compiled
