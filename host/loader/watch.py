"""Notices that plugin files changed. An event only means "look": `settle` decides when they are ready.

Folders are watched, never files: editors and deploys replace a file by renaming another one over it. What
the kernel's events do not tell is polled: where links lead, and the few files outside plugin folders.
"""

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from msgspec import Struct

from host.api import TandemError
from host.loader.discover import Discovery, discover
from host.loader.git_lock import git_lock
from host.loader.links import Identity, identity, links_below
from host.loader.problem import PluginProblem
from host.loader.shared import shared_code_of
from host.loader.tree import full_path, is_ignored

__all__ = ["Notice", "PluginWatcher", "WatchFailed"]

_DEBOUNCE_MS = 50  # a burst is reported after this long even where it goes on
_STEP_MS = 10  # a burst ends when this long nothing came; a file renamed into place is noticed after ~13 ms
_POLL_MS = 100
_GONE_AFTER_S = 0.25  # editors and deploys delete and re-create
_GIT_PATIENCE_S = 10.0  # longer than any checkout; a lock that stays is left over from a killed git


class WatchFailed(TandemError):  # noqa: N818 - parallel to the loader's other outcomes
    """The operating system does not watch these folders; changes would go unnoticed."""


class Notice(Struct, frozen=True):
    """What to look at again, after one burst of changes.

    `changed` maps the names of plugins that are new or may have changed to where they lie, those that
    share a changed file together; `removed` names those whose files are gone; `files` are the extra
    files that changed or went; `problems` are why some plugins can no longer be told apart or named.
    """

    changed: Mapping[str, Path] = {}
    removed: tuple[str, ...] = ()
    files: tuple[Path, ...] = ()
    problems: tuple[PluginProblem, ...] = ()


class PluginWatcher:
    """Iterate it with `async for`: yields a `Notice` whenever there is something to look at.

    The first notice names every plugin and extra file, once watching is in place, so that what changed
    before is not missed. Changes while a notice is worked on are collected for the next one.
    `poll=True` compares files instead of asking the kernel, for network folders.
    """

    def __init__(
        self, plugin_dirs: Iterable[str | Path], extra_files: Iterable[str | Path] = (), *, poll: bool = False
    ) -> None:
        self._watch = _Watch(
            [full_path(path) for path in plugin_dirs],
            [full_path(path) for path in extra_files],
            poll,
        )

    def dependants(self, shared: Path) -> list[str]:
        """Return the names of the plugins that a change at this path would make dirty, in order."""
        return sorted(self._watch.touched_by({str(shared.absolute())}))

    def __aiter__(self) -> AsyncIterator[Notice]:
        return self._notices()

    async def _notices(self) -> AsyncIterator[Notice]:
        loop = asyncio.get_running_loop()
        stop = threading.Event()
        executor = ThreadPoolExecutor(1, thread_name_prefix="plugin-watch")
        try:
            while (notice := await loop.run_in_executor(executor, self._watch.next_notice, stop)) is not None:
                yield notice
        finally:
            stop.set()  # the thread sees it within a step; waiting for it would hold the loop
            executor.submit(self._watch.end)
            executor.shutdown(wait=False)


class _Watch:
    """The blocking side: runs in one thread and keeps what was known at the last look."""

    def __init__(self, dirs: list[Path], files: list[Path], poll: bool) -> None:
        self._dirs = dirs
        self._poll = poll
        self._notify: Any = None
        self._links: dict[Path, Identity] = {}
        self._files: dict[Path, Identity] = dict.fromkeys(files, ())  # unlike any: so reported at first
        self._pending = set(map(str, dirs))  # what changed and was not looked at
        self._plugins: dict[str, Path] = {}
        self._places: dict[str, frozenset[str]] = {}
        self._gone_since: dict[str, float] = {}
        self._problems: tuple[PluginProblem, ...] = ()

    def next_notice(self, stop: threading.Event) -> Notice | None:
        """Wait until there is something to look at; return None when told to stop.

        Raises `WatchFailed`.
        """
        try:
            while not stop.is_set():
                if self._notify is None:
                    self._begin()
                self._collect(stop, _POLL_MS)
                if self._pending and self._was_git_at_work(stop):
                    self._collect(stop, _STEP_MS)
                try:
                    notice = self._look()
                except (FileNotFoundError, NotADirectoryError):
                    continue  # it went while it was looked at; nothing is forgotten, and events follow
                if notice != Notice():
                    return notice
        except OSError as error:
            raise WatchFailed(
                f"plugin folders are not watched: {error}; make them readable, or where the limit"
                " on watches is reached raise fs.inotify.max_user_watches"
            ) from error
        return None

    def end(self) -> None:
        """Stop watching; the next notice, if one is asked for, then names everything again."""
        self._stop_notify()
        self._pending.update(map(str, self._dirs))
        self._files = dict.fromkeys(self._files, ())

    def touched_by(self, changes: set[str]) -> set[str]:
        """Return the plugins with one of their places at, above or below one of these paths."""
        around = {place for change in changes for place in _upwards(change)}
        return {
            name
            for name, places in self._places.items()
            if not places.isdisjoint(around)
            or any(not changes.isdisjoint(_upwards(place)) for place in places)
        }

    def _stop_notify(self) -> None:
        if self._notify is not None:
            self._notify.close()
            self._notify = None

    def _begin(self) -> None:
        """Watch the folders as they are now, links followed."""
        # Its iterators would poll from a thread of their own; this interface is documented too.
        from watchfiles._rust_notify import RustNotify, WatchfilesRustInternalError

        self._stop_notify()
        # Noted first: a link that is switched from here on differs from its note.
        self._links = {path: identity(path) for path in [*self._dirs, *links_below(self._dirs)]}
        present = [str(path) for path in self._dirs if path.is_dir()]
        try:
            self._notify = RustNotify(present, False, self._poll, _POLL_MS, True, False)
        except FileNotFoundError:
            self._pending.update(present)  # one of them went just now: begin again
        except WatchfilesRustInternalError as error:
            raise OSError(str(error)) from error

    def _collect(self, stop: threading.Event, within_ms: int) -> None:
        """Add to what is pending: one burst of events, if one begins in time, and links that lead elsewhere."""
        if self._notify is None:
            stop.wait(within_ms / 1e3)
            return
        burst = self._notify.watch(_DEBOUNCE_MS, _STEP_MS, within_ms, stop)
        if isinstance(burst, set):  # else a word that says why there is none
            self._pending.update(path for _, path in burst if not self._is_litter(path))
        switched = {path for path, was in self._links.items() if identity(path) != was}
        if switched or (self._pending and links_below(self._dirs) != self._links.keys() - set(self._dirs)):
            self._begin()
            self._pending.update(map(str, switched))

    def _is_litter(self, path: str) -> bool:
        for folder in self._dirs:
            if path.startswith(f"{folder}/"):
                return any(map(is_ignored, path[len(str(folder)) + 1 :].split("/")))
        return False

    def _was_git_at_work(self, stop: threading.Event) -> bool:
        give_up_at = time.monotonic() + _GIT_PATIENCE_S
        waited = False
        while git_lock(self._dirs) is not None and time.monotonic() < give_up_at:
            waited = True
            if stop.wait(_STEP_MS / 1e3):
                break
        return waited

    def _look(self) -> Notice:
        """Find out what the pending changes mean for plugins, and forget them."""
        files = tuple(path for path, was in self._files.items() if identity(path) != was)
        self._files.update((path, identity(path)) for path in files)
        if not self._pending and not self._gone_since:
            return Notice(files=files)
        found = discover(self._dirs)
        touched = self.touched_by(self._pending)
        changed = {
            name: path
            for name, path in sorted(found.plugins.items())
            if name in touched or name in self._gone_since or self._plugins.get(name) != path
        }
        removed = self._removed(found)
        problems = tuple(problem for problem in found.problems if problem not in self._problems)
        missing = {name: self._plugins[name] for name in self._gone_since}
        self._places = {
            name: self._places_of(name, path) if name in changed else self._places.get(name, frozenset())
            for name, path in (found.plugins | missing).items()
        }
        self._plugins = found.plugins | missing
        self._problems = found.problems
        self._pending.clear()
        return Notice(changed, removed, files, problems)

    def _removed(self, found: Discovery) -> tuple[str, ...]:
        now = time.monotonic()
        refused = {problem.plugin for problem in found.problems}
        gone = self._plugins.keys() - found.plugins.keys() - refused
        self._gone_since = {name: self._gone_since.get(name, now) for name in gone}
        removed = sorted(name for name, since in self._gone_since.items() if now - since >= _GONE_AFTER_S)
        for name in removed:
            del self._gone_since[name]
        return tuple(removed)

    def _places_of(self, name: str, path: Path) -> frozenset[str]:
        try:
            shared = map(str, shared_code_of(path).looked_at)
        except OSError:  # a file went just now; its event follows, and the next look reads again
            return self._places.get(name, frozenset()) | {str(path)}
        return frozenset({str(path), *shared})


def _upwards(path: str) -> Iterator[str]:
    """Yield the path and the folders that it lies in."""
    while path not in ("", "/"):
        yield path
        path = path.rpartition("/")[0]
