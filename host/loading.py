"""The plugins that a node starts with: which version of each, proved before it is imported here."""

import asyncio
import importlib.metadata
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from msgspec import Struct

from host.api import TandemError
from host.config import NodeConfig
from host.core.entries import InstanceState
from host.loader import (
    ENTRY_POINT_GROUP,
    PROBE_DEADLINE_S,
    Catalog,
    ForkServer,
    Found,
    KnownVersions,
    PluginProblem,
    PluginRejected,
    Proved,
    Prover,
    Version,
    VersionArchive,
    catalog_of,
    find_versions,
    together,
)
from host.runtime.engine import Engine
from host.runtime.reload.restart import choose_version

__all__ = ["archive_of", "known_of", "load_catalog"]


def archive_of(config: NodeConfig) -> VersionArchive:
    """Return where a node keeps the bytes of the versions that ran on it."""
    return VersionArchive(_versions_dir(config))


def known_of(config: NodeConfig) -> KnownVersions:
    """Return where a node notes which versions were imported well."""
    return KnownVersions(_versions_dir(config) / "known")


def _versions_dir(config: NodeConfig) -> Path:
    return config.node.data_dir / "versions"


async def load_catalog(
    config: NodeConfig, engine: Engine, fork_server: ForkServer, deadline_s: float = PROBE_DEADLINE_S
) -> Catalog:
    """Load every plugin: the version that earned its place, where the file on disk is another.

    The file on disk then goes through the reload transaction like any other change. What is not known to
    be good is proved first, in a child that gets `deadline_s` seconds, and left out where it is not.
    Files are read and plugins imported in a thread, for there may be a lease to look after.
    Raises `ForkServerFailed`.
    """
    found = await asyncio.to_thread(find_versions, config.plugin_dirs)
    known = known_of(config)
    prover = Prover(fork_server, await asyncio.to_thread(known.take), deadline_s)
    start = _Start(engine, archive_of(config), found, prover)
    choices = await together(map(start.choose, start.names()))
    for alert in [alert for choice in choices for alert in choice.alerts]:
        engine.alert(*alert)
    replaced = {choice.proved.version.name for choice in choices if choice.proved is not None}
    problems = [problem for problem in found.problems if problem.plugin not in replaced]
    problems += [problem for choice in choices for problem in choice.problems]
    proofs = [choice.proved for choice in choices if choice.proved is not None]
    catalog = await _import(proofs, problems, found.notes)
    await asyncio.to_thread(known.put, [version.digest for version in catalog.versions.values()])
    return catalog


class _Choice(Struct, frozen=True):
    """What a node starts with for one name: at most one version, and what there is to say."""

    proved: Proved | None
    problems: tuple[PluginProblem, ...] = ()
    alerts: tuple[tuple[str, str], ...] = ()


class _Start:
    """Chooses between the files on disk and the archive by what the journal says."""

    def __init__(self, engine: Engine, archive: VersionArchive, found: Found, prover: Prover) -> None:
        self._state: Final = engine.state
        self._archive: Final = archive
        self._found: Final = found
        self._prover: Final = prover

    def names(self) -> list[str]:
        """Return which plugins there are: in the folders, or in the journal with no file left.

        A plugin of an installed package, which the journal may name too, is not among them.
        """
        installed = {point.name for point in importlib.metadata.entry_points(group=ENTRY_POINT_GROUP)}
        missing = self._state.plugins.keys() - self._found.versions.keys() - installed
        return [*self._found.versions, *sorted(missing)]

    async def choose(self, name: str) -> _Choice:
        """Return the permanent version if it is another one and proves good, else what is on disk."""
        on_disk = self._found.versions.get(name)
        record = self._state.plugins.get(name)
        alerts: list[tuple[str, str]] = []
        if record is not None:
            found = "" if on_disk is None else on_disk.digest
            choice = choose_version(record, found)
            # What did not hold is no version to come back to.
            if choice.digest != found and not (found and self._is_quarantined(choice.digest)):
                try:
                    proved = await self._prover.prove(await self._archived(name, choice.digest))
                except TandemError as error:
                    alerts.append(("permanent_version_lost", f"plugin {name}: {error}"))
                else:
                    text = f"plugin {name} runs version {choice.digest[:12]}, which earned its place: {choice.reason}"
                    return _Choice(proved, alerts=(("permanent_version", text),))
        if on_disk is None:
            return _Choice(None, alerts=tuple(alerts))
        try:
            return _Choice(await self._prover.prove(on_disk), alerts=tuple(alerts))
        except PluginRejected as rejected:
            return _Choice(None, rejected.problems, tuple(alerts))

    async def _archived(self, name: str, digest: str) -> Version:
        return await asyncio.to_thread(self._archive.get, name, digest)

    def _is_quarantined(self, digest: str) -> bool:
        return any(
            record.digest == digest and record.state is InstanceState.QUARANTINED
            for record in self._state.instances.values()
        )


async def _import(
    proofs: Sequence[Proved], problems: Sequence[PluginProblem], notes: Sequence[str]
) -> Catalog:
    importing = asyncio.get_running_loop().run_in_executor(None, catalog_of, proofs, problems, notes)
    try:
        return await asyncio.shield(importing)
    except asyncio.CancelledError:
        # Not waited for, for an import may take its time; its modules are given back all the same.
        importing.add_done_callback(_give_back)
        raise


def _give_back(importing: "asyncio.Future[Catalog]") -> None:
    if not importing.cancelled() and importing.exception() is None:
        importing.result().close()
