"""From files to a catalog, with no import in this process of bytes that could end it.

A node's start is where this matters most: a file that hangs, crashes or eats memory at import would take
down each start in turn. So what is not known to be good is looked at in a throwaway child first.
"""

import asyncio
from collections.abc import Collection, Coroutine, Iterable
from pathlib import Path
from typing import Any, Final, TypeVar

from msgspec import Struct

from host.loader.capture import Version
from host.loader.catalog import Catalog
from host.loader.discover import find_versions
from host.loader.fork_server import ForkServer
from host.loader.importer import was_imported
from host.loader.probe import PROBE_DEADLINE_S
from host.loader.problem import PluginProblem, PluginRejected
from host.loader.source import CompiledVersion

__all__ = ["Proved", "Prover", "catalog_of", "load_proved", "together"]


_T = TypeVar("_T")


class Proved(Struct, frozen=True):
    """A version that may be imported here; `compiled` is None where it was known and not looked at."""

    version: Version
    compiled: CompiledVersion | None = None


class Prover:
    """Proves versions in children of a fork server, all but those whose digest is `known`.

    What this process has imported before is known too: a standby loads its plugins again now and then.
    """

    def __init__(
        self, fork_server: ForkServer, known: Collection[str], deadline_s: float = PROBE_DEADLINE_S
    ) -> None:
        self._fork_server: Final = fork_server
        self._known: Final = known
        self._deadline_s: Final = deadline_s

    async def prove(self, version: Version) -> Proved:
        """Return the version once it is proved; raise `PluginRejected`, or `ForkServerFailed`."""
        if version.digest in self._known or was_imported(version):
            return Proved(version)
        result = await self._fork_server.probe(version, self._deadline_s)
        if not result.is_ok:
            raise PluginRejected(result.problems)
        return Proved(version, result.compiled)


def catalog_of(
    proofs: Iterable[Proved], problems: Iterable[PluginProblem] = (), notes: Iterable[str] = ()
) -> Catalog:
    """Import what is proved, in this order, and what installed packages announce, which is trusted.

    Blocks as long as that takes. Never raises for a bad plugin: it is told of among the `problems`.
    """
    catalog = Catalog()
    catalog.problems.extend(problems)
    catalog.notes.extend(notes)
    for proved in proofs:
        catalog.admit(proved.version, proved.compiled)
    catalog.admit_installed()
    return catalog


async def load_proved(
    plugin_dirs: Iterable[str | Path],
    known: Collection[str] = frozenset(),
    deadline_s: float = PROBE_DEADLINE_S,
) -> Catalog:
    """Do what `Catalog.load` does, for files that may be anything. Raises `ForkServerFailed`."""
    found = await asyncio.to_thread(find_versions, plugin_dirs)
    fork_server = ForkServer()
    prover = Prover(fork_server, known, deadline_s)
    proofs, problems = list[Proved](), [*found.problems]

    async def prove(version: Version) -> Proved | PluginRejected:
        try:
            return await prover.prove(version)
        except PluginRejected as rejected:
            return rejected

    try:
        for result in await together(map(prove, found.versions.values())):
            if isinstance(result, Proved):
                proofs.append(result)
            else:
                problems.extend(result.problems)
    finally:
        await fork_server.close()
    return catalog_of(proofs, problems, found.notes)


async def together(works: Iterable[Coroutine[Any, Any, _T]]) -> list[_T]:
    """Return what each comes to, in order; where one raises, the others are ended before that goes on."""
    tasks = [asyncio.ensure_future(work) for work in works]
    try:
        return await asyncio.gather(*tasks)
    except BaseException:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        raise
