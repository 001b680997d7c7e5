"""Every node of a cell runs the bytes that its primary runs: versions of plugins travel with the journal.

The primary sends a version before it may go live, and waits until each standby that could take over holds it
and can load it. A standby keeps what comes in its own archive, where it finds it when it is built and when it
takes over.
"""

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any, Final

from failover.replication.events import VersionCame, VersionTaken
from host.api import TandemError
from host.core.state import TradingState
from host.loader import Version, VersionArchive
from host.membership import Membership
from host.reloading import Reloading

__all__ = ["VersionSharing"]

_log = logging.getLogger("tandem.sharing")
ANSWER_WITHIN_S: Final = 5.0
"""For a standby to keep a version and to load it: as long as its plugins may take to import."""
LOOK_S: Final = 0.1
"""How soon it is noticed that one who is waited for is gone."""


class VersionSharing:
    """Sends versions to the standbys while this node leads, and takes them in while it does not."""

    def __init__(self, membership: Membership, archive: VersionArchive) -> None:
        self._membership: Final = membership
        self._archive: Final = archive
        self._answers: dict[tuple[str, str, str], asyncio.Future[str]] = {}
        self._sent: dict[str, set[tuple[str, str]]] = {}
        """What each standby was sent since it came."""
        self.kept = 0
        """How many versions were taken in from a primary."""
        self._tasks: set[asyncio.Task[None]] = set()
        self.reloading: Callable[[], Reloading | None] = lambda: None
        """Returns what loads plugins on this node now; None while nothing does."""

    async def share(self, version: Version) -> None:
        """Have every standby that could take over hold a version; raise `TandemError` where one cannot."""
        views = self._membership.standbys()
        if not views:
            return
        names = [view.node for view in views if view.is_eligible]
        content = await asyncio.to_thread(self._archive.content, version.name, version.digest)
        loop = asyncio.get_running_loop()
        waiting = {name: loop.create_future() for name in names}
        for name, answer in waiting.items():
            self._answers[name, version.name, version.digest] = answer
        for view in views:  # who is not ready yet will be, and is to have it then
            self._offer(view.node, version.name, version.digest, content)
        try:
            until_s = loop.time() + ANSWER_WITHIN_S
            while (silent := self._silent(waiting)) and (left_s := until_s - loop.time()) > 0:
                await asyncio.wait([waiting[name] for name in silent], timeout=min(left_s, LOOK_S))
            for name, answer in waiting.items():
                if answer.done() and answer.result():
                    raise TandemError(f"standby {name} could not take over with it: {answer.result()}")
            if silent:
                raise TandemError(
                    f"standby {', '.join(silent)} did not say within {ANSWER_WITHIN_S:g} s that it holds it; look at "
                    "that node's log, and reload the plugin by hand"
                )
        finally:
            for name in names:
                self._answers.pop((name, version.name, version.digest), None)

    def _silent(self, waiting: dict[str, asyncio.Future[str]]) -> list[str]:
        """Return who has not answered, and could take over still."""
        able = {view.node for view in self._membership.standbys() if view.is_eligible}
        return [name for name, answer in waiting.items() if name in able and not answer.done()]

    def taken(self, event: VersionTaken) -> None:
        """Note a standby's answer."""
        answer = self._answers.get((event.node, event.plugin, event.digest))
        if answer is not None and not answer.done():
            answer.set_result(event.problem)
        elif event.problem:
            _log.warning("standby %s, plugin %s: %s", event.node, event.plugin, event.problem)

    def attached(self, node: str, state: TradingState) -> None:
        """Send a standby that has just come the versions that this node runs, and what it stands in for."""
        self._sent[node] = set()
        self.keep_up(state)

    def keep_up(self, state: TradingState) -> None:
        """Send each standby what this node runs and it was not sent; to be called now and then.

        A version that went live while a standby came was shared with those who were there before.
        """
        wanted = {
            (name, digest)
            for name, record in state.plugins.items()
            for digest in (record.permanent, record.active)
            if digest
        }
        for view in self._membership.standbys():
            missing = wanted - self._sent.setdefault(view.node, set())
            if missing:
                self._sent[view.node] |= missing
                self._spawn(self._send_all(view.node, sorted(missing)))

    def came(self, event: VersionCame) -> None:
        """Keep a version that the primary sent, prove that it loads, and answer."""
        self._spawn(self._keep(event))

    async def close(self) -> None:
        """End what is under way."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    # -- inside ----------------------------------------------------------------------------------

    async def _send_all(self, node: str, versions: list[tuple[str, str]]) -> None:
        for plugin, digest in versions:
            try:
                content = await asyncio.to_thread(self._archive.content, plugin, digest)
            except (TandemError, OSError) as error:
                _log.warning("standby %s is not sent a version: %s", node, error)
                continue
            self._offer(node, plugin, digest, content)

    def _offer(self, node: str, plugin: str, digest: str, content: bytes) -> None:
        self._sent.setdefault(node, set()).add((plugin, digest))
        self._membership.server.offer_version(plugin, digest, content, to=node)

    async def _keep(self, event: VersionCame) -> None:
        problem = ""
        try:
            version = await asyncio.to_thread(self._archive.take, event.plugin, event.digest, event.content)
            self.kept += 1
            reloading = self.reloading()
            if reloading is not None and not _runs(reloading, version):
                await reloading.try_version(version)
                await reloading.prune(version.name)
        except (TandemError, OSError) as error:
            problem = str(error)
        except Exception as error:  # noqa: BLE001 - the root of a task: the primary waits for its answer
            problem = f"{type(error).__name__}: {error}"
        if problem:
            _log.warning("plugin %s %s cannot be run here: %s", event.plugin, event.digest[:12], problem)
        self._membership.followed.hold_version(event.plugin, event.digest, problem)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _runs(reloading: Reloading, version: Version) -> bool:
    running = reloading.catalog.versions.get(version.name)
    return running is not None and running.digest == version.digest
