"""Follows edits of the configuration file while the node trades: all of an edit, or nothing.

An edit is read once its files are at rest, compared with what is in force, and checked whole: every
object it needs is made before anything is touched. It is then applied in one turn, between two
events. What only a restart can change is refused, and so is the rest of such an edit.
"""

import asyncio
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from msgspec import Struct

from host.api import TandemError
from host.config import ConfigError, ConfigSource, NodeConfig, NodeSection, Problem
from host.loader import settle_files
from host.runtime.config_edit import ConfigEdit, EditTools
from host.runtime.instance_maker import InstanceMaker
from host.runtime.listening import listen_to
from host.runtime.plugin_errors import describe_error
from host.runtime.reload import Reloader

if TYPE_CHECKING:
    from host.runtime.engine import Engine

__all__ = ["ConfigReport", "Reconfigurer"]


class ConfigReport(Struct, frozen=True):
    """What one look at the configuration came to; all empty where nothing differs."""

    changes: tuple[str, ...] = ()
    """What is in force now: key, before → after."""
    problems: tuple[Problem, ...] = ()
    """Why nothing was changed."""
    waits_for: frozenset[str] = frozenset()
    """Plugins on probation, which this edit gives more to do: it is applied once that is over."""


class Reconfigurer:
    """Keeps a running node in line with its configuration; `config` is what is in force.

    `skipped` are the instances that could not be made, and why: an edit may be what they need.
    `on_reload_settings` is told when the settings of the reload transaction changed.
    """

    def __init__(
        self,
        engine: "Engine",
        reloader: Reloader,
        maker: InstanceMaker,
        source: ConfigSource,
        config: NodeConfig,
        skipped: dict[str, str],
        on_reload_settings: Callable[[NodeSection], None] = lambda _node: None,
    ) -> None:
        self.config = config
        self._engine = engine
        self._reloader = reloader
        self._source = source
        self._tools = EditTools(engine, reloader, maker, skipped, {}, on_reload_settings)
        self._blocked: frozenset[str] = frozenset()
        self._told: tuple[object, ...] = ()
        self._is_dirty = False
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        engine.upkeep.duties.append(self._on_time)

    # -- noticing --------------------------------------------------------------------------------

    def on_config_changed(self) -> None:
        """Look at the configuration soon: one of its files may have changed. Needs a running loop."""
        self._is_dirty = True
        self._wake.set()
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._follow(), name="configuration")
            self._task.add_done_callback(self._ended)

    async def close(self) -> None:
        """Follow no other edit."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _follow(self) -> None:
        while self._is_dirty or self._blocked:
            self._is_dirty = False
            self._wake.clear()
            report = await self.look()
            self._blocked = report.waits_for
            if self._blocked and not self._is_dirty:
                await self._wake.wait()

    def _ended(self, task: "asyncio.Task[None]") -> None:
        error = None if task.cancelled() else task.exception()
        if error is not None:
            text = f"the configuration is no longer followed: {describe_error(error)}"
            self._engine.alert("watch_failed", text)

    def _on_time(self, _now_ns: int) -> None:
        """Do, with the engine's housekeeping, what had to wait."""
        if self._tools.leaving:
            self._tools.let_go()
        if self._blocked and not self._blocked & self._reloader.on_probation:
            self._wake.set()

    # -- one look --------------------------------------------------------------------------------

    async def look(self) -> ConfigReport:
        """Read the configuration and follow it, or say why not; what is refused changes nothing."""
        if self._engine.halted or self._engine.stopping:
            return ConfigReport()
        try:
            await settle_files(self._source.files)
            loaded = self._source.load()
        except ConfigError as error:
            return self._refuse(error.problems)
        except TandemError as error:
            return self._refuse((Problem("", "", str(error)),))
        edit = ConfigEdit(self.config, loaded, self._tools)
        if not edit.plan.changes and not edit.plan.needs_restart:
            self._told = ()
            return ConfigReport()
        problems = list(edit.faults())
        if problems:
            return self._refuse(problems)
        plugins = edit.plugins()
        async with self._reloader.holding((*plugins, *self._adapters(edit.new_symbols()))):
            if waits_for := self._reloader.on_probation & plugins:
                return self._wait(waits_for)
            try:
                await self._reloader.keep(edit.offers())
                await listen_to(self._engine, edit.new_symbols())  # another change may follow them by now
                await self._engine.roster.states.fetch(edit.replaced())
            except (TandemError, OSError) as error:
                return self._refuse([Problem("", "instance", str(error))])
            # Once more: time has passed. From here to the end there is no await.
            if self._engine.stopping:
                return ConfigReport()  # the next start reads it
            problems = list(edit.faults()) or edit.prepare()
            if problems:
                edit.abandon()
                return self._refuse(problems)
            edit.apply(functools.partial(self._put_in_force, loaded.config))
        self._told = ()
        return ConfigReport(edit.plan.changes)

    def _put_in_force(self, config: NodeConfig) -> None:
        self.config = config

    def _refuse(self, problems: Sequence[Problem]) -> ConfigReport:
        """Say what is wrong with an edit; the same is not said again while it stays as it is."""
        report = ConfigReport(problems=tuple(problems))
        if self._told != report.problems:
            self._told = report.problems
            text = "; ".join(map(str, problems))
            self._engine.alert("config_refused", f"the configuration stays as it was: {text}")
        return report

    def _wait(self, plugins: frozenset[str]) -> ConfigReport:
        if self._told != (plugins,):
            self._told = (plugins,)
            names = ", ".join(sorted(plugins))
            text = f"the edit of the configuration waits until the probation of {names} is over"
            self._engine.alert("config_waits", text)
        return ConfigReport(waits_for=plugins)

    def _adapters(self, accounts: Mapping[str, set[str]]) -> set[str]:
        uses = self._reloader.adapter_uses
        return {uses[account].offer.version.name for account in accounts if account in uses}
