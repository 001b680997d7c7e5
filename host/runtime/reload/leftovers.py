"""Seeing that retired code is gone, and finding out what holds it where it is not."""

import gc
import sys
import threading
import weakref
from collections.abc import Callable, Iterable
from types import FrameType, ModuleType
from typing import Any, Final

from msgspec import Struct

from host.loader import Version
from host.runtime.reload.stages import StageOutcome

__all__ = ["Retirement"]

PATIENCE_NS: Final = 30 * 1_000_000_000
"""How long the collector has to come by itself before it is called."""
MOST_WAITING: Final = 16
"""So many versions wait at most: calling the collector is cheaper than keeping more."""
COLLECTIONS: Final = 3
MOST_STEPS: Final = 6
"""How far from a class its holder is looked for: module → list → object → method → function → class."""


class _Retired(Struct):
    """A version that should be gone: its classes die with the last thing that refers to them."""

    version: Version
    classes: list[weakref.ref[type[Any]]]
    since_ns: int

    @property
    def is_gone(self) -> bool:
        """Return whether nothing is left of it."""
        return all(ref() is None for ref in self.classes)


class Retirement:
    """Remembers retired versions until they are gone, or something turns out to hold them.

    `on_end(version, took_ns, outcome, text)` tells which it was, and for a failure what holds it.
    """

    def __init__(self, on_end: Callable[[Version, int, StageOutcome, str], None]) -> None:
        self._waiting: list[_Retired] = []
        self._on_end = on_end

    def add(self, version: Version, classes: Iterable[type[Any]], now_ns: int) -> None:
        """Expect a version's classes to go away."""
        self._waiting.append(_Retired(version, [weakref.ref(cls) for cls in classes], now_ns))

    def check(self, now_ns: int) -> None:
        """Forget what is gone; call the collector and look for holders where that took too long.

        Runs between two events. Calling the collector costs some ms where a node holds much, so it
        is given the time to come by itself.
        """
        waiting = self._waiting
        if not waiting:
            return
        is_time_up = now_ns - waiting[0].since_ns >= PATIENCE_NS
        if is_time_up or len(waiting) >= MOST_WAITING:
            # An object that the collector does not look into may hold a class: it goes with one collection,
            # and the class with the next.
            for _ in range(COLLECTIONS):
                if all(one.is_gone for one in waiting):
                    break
                gc.collect()
        self._waiting = []
        for retired in waiting:
            took_ns = now_ns - retired.since_ns
            if retired.is_gone:
                self._on_end(retired.version, took_ns, StageOutcome.PASSED, "")
            elif took_ns < PATIENCE_NS:
                self._waiting.append(retired)
            elif thread := _thread_of(retired.version):
                self._on_end(retired.version, took_ns, StageOutcome.FAILED, f"held by {thread}")
            elif _is_frozen(retired):
                text = "made before the node traded, it stays in memory until the node ends"
                self._on_end(retired.version, took_ns, StageOutcome.SKIPPED, text)
            else:
                self._on_end(retired.version, took_ns, StageOutcome.FAILED, f"held by {_holder(retired)}")


def _thread_of(version: Version) -> str:
    """Name a thread that runs a version's code, or return an empty text."""
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    for ident, frame in sys._current_frames().items():
        line = _own_line(version, frame)
        if line:
            return f"the thread {names.get(ident, ident)!r}, which runs {line}"
    return ""


def _is_frozen(retired: _Retired) -> bool:
    """Return whether the collector was told to look at these classes no more (`gc.freeze`)."""
    if not gc.get_freeze_count():
        return False
    looked_at = {id(one) for one in gc.get_objects()}
    return not any(id(ref()) in looked_at for ref in retired.classes)


def _holder(retired: _Retired) -> str:
    """Say what holds a version's code, as far as that can be found."""
    frozen = gc.get_freeze_count()
    if frozen:
        gc.unfreeze()  # what was made before the node traded may be the holder
    try:
        for ref in retired.classes:
            held = ref()
            if held is not None:
                return _trace(retired.version, held)
    finally:
        if frozen:
            gc.freeze()
    return "nothing: it went while this was looked for"


def _own_line(version: Version, frame: FrameType | None) -> str:
    while frame is not None:
        file = version.locate(frame.f_code.co_filename)
        if file is not None:
            return f"{file}:{frame.f_lineno}"
        frame = frame.f_back
    return ""


def _trace(version: Version, held: type[Any]) -> str:
    """Walk back from a class through what refers to it until something with a name of its own."""
    modules = {id(vars(module)): module for module in list(sys.modules.values()) if module is not None}
    own = f"{version.namespace}."
    seen = {id(held), id(modules)}
    level: list[Any] = [held]
    last = type(held)
    for _ in range(MOST_STEPS):
        seen.update(map(id, level))
        found = [one for one in gc.get_referrers(*level) if id(one) not in seen]
        asked, level = level, []
        for one in found:
            module = modules.get(id(one))
            if module is not None and not module.__name__.startswith(own):
                return _named(module, seen)
            if isinstance(one, FrameType) or one is asked:
                continue
            level.append(one)
            if not isinstance(one, dict | list | tuple | set):
                last = type(one)
        if not level:
            break
    return f"a {last.__module__}.{last.__qualname__} that no module holds directly"


def _named(module: ModuleType, held: set[int]) -> str:
    for name, value in vars(module).items():
        if id(value) in held:
            return f"{module.__name__}.{name}"
    return f"the module {module.__name__}"
