"""Whose code the event loop is in: found in the stack of its thread, while it runs or from a dump of it."""

import re
import traceback
from collections.abc import Iterable, Iterator
from pathlib import PurePath
from types import FrameType
from typing import Final

from msgspec import Struct

from host.api import ExchangeAdapter, Strategy
from host.runtime.instance import Instance
from host.runtime.plugin_errors import OF_A_PLUGIN

__all__ = ["Call", "Culprit", "callback_frame", "culprit_in", "culprit_of"]

_DUMPED: Final = re.compile(r'^  File "(?P<file>.*)", line (?P<line>\d+) in (?P<function>.*)$')
"""A frame as `faulthandler` writes it, the innermost first."""
FRAMES: Final = 12
"""How many frames of a stack are shown: those nearest to what blocks."""


class Call(Struct, frozen=True):
    """That the host called a plugin: what of it, and the first 12 digits of the plugin's version."""

    callback: str
    digest: str


class Culprit(Struct, frozen=True):
    """Code that blocks. A part is empty where it is not known, or there is none of it."""

    instance: str = ""
    account: str = ""
    """The account whose adapter it is."""
    callback: str = ""
    """What of the plugin was called."""
    file: str = ""
    """The plugin's file that it is in, without its folder, and its line; else the host's."""
    line: int = 0
    calls: tuple[Call, ...] = ()
    """Through which plugins it came there, the latest first: a model, a strategy, an adapter."""
    stack: str = ""

    def __str__(self) -> str:
        owner = (
            f"instance {self.instance}"
            if self.instance
            else f"account {self.account}"
            if self.account
            else ""
        )
        words = [word for word in (owner, self.callback) if word]
        where = f" ({self.file}, line {self.line})" if self.file else ""
        return (", ".join(words) or "code of the host") + where


def culprit_of(frame: FrameType) -> Culprit:
    """Return whose code a thread is in, from its innermost frame.

    May be asked by another thread while that code runs: it holds the interpreter's lock meanwhile.
    """
    stack = "".join(traceback.format_stack(frame, FRAMES))
    called = callback_frame(frame)
    if called is None:
        return Culprit(file=frame.f_code.co_filename, line=frame.f_lineno, stack=stack)
    inner = next(one for one in _outward(frame) if _is_plugin(one))
    instance, account = _owner(called)
    names = [(one.f_code.co_filename, one.f_code.co_name) for one in _outward(frame)]
    file, _ = _plugin_file(inner.f_code.co_filename)
    return Culprit(instance, account, called.f_code.co_name, file, inner.f_lineno, _calls(names), stack)


def callback_frame(frame: FrameType) -> FrameType | None:
    """Return the frame in which the host called the plugin whose code runs; None where no plugin's does."""
    called = None
    for one in _outward(frame):
        if _is_plugin(one):
            called = one
        elif called is not None:
            break
    return called


def culprit_in(dump: str, thread: int = 0) -> Culprit | None:
    """Return whose code a thread was in by what `faulthandler` wrote; None where it wrote nothing of it.

    Without `thread` it is the process's first one, which it writes last. It knows no objects: which instance it
    was, the digests may tell.
    """
    lines: list[str] = []
    is_his = False
    for line in dump.splitlines():
        if line.startswith(("Thread 0x", "Current thread 0x")):
            is_his = not thread or int(line.partition("0x")[2].split()[0], 16) == thread
            lines = [] if is_his else lines
        elif is_his and _DUMPED.match(line):
            lines.append(line)
    frames = [match for line in lines if (match := _DUMPED.match(line))]
    if not frames:
        return None
    stack = "".join(f"{line}\n" for line in reversed(lines[:FRAMES]))
    calls = _calls([(frame["file"], frame["function"]) for frame in frames])
    inner = next((frame for frame in frames if OF_A_PLUGIN.search(frame["file"])), frames[0])
    file = _plugin_file(inner["file"])[0] if calls else inner["file"]
    callback = calls[0].callback if calls else ""
    return Culprit("", "", callback, file, int(inner["line"]), calls, stack)


def _calls(frames: Iterable[tuple[str, str]]) -> tuple[Call, ...]:
    """Return the calls of plugins among frames (file and function), the innermost first."""
    calls: list[Call] = []
    is_inside = False
    for file, function in frames:
        was_inside, is_inside = is_inside, OF_A_PLUGIN.search(file) is not None
        if is_inside:
            call = Call(function, _plugin_file(file)[1])
            if was_inside:
                calls[-1] = call  # further out in the same one
            else:
                calls.append(call)
    return tuple(calls)


def _plugin_file(name: str) -> tuple[str, str]:
    file, _, digest = PurePath(name).name.rpartition("@")
    return file, digest


def _outward(frame: FrameType | None) -> Iterator[FrameType]:
    while frame is not None:
        yield frame
        frame = frame.f_back


def _is_plugin(frame: FrameType) -> bool:
    return OF_A_PLUGIN.search(frame.f_code.co_filename) is not None


def _owner(called: FrameType) -> tuple[str, str]:
    """Return the instance, or else the account, on whose behalf a plugin was called."""
    owner = called.f_locals.get("self")
    if isinstance(owner, Strategy) and hasattr(owner, "ctx"):
        return str(owner.ctx.instance), ""
    if isinstance(owner, ExchangeAdapter) and hasattr(owner, "ctx"):
        return "", str(owner.ctx.account)
    for frame in _outward(called.f_back):  # a model, or a plain function: the host knows for whom
        for name in ("instance", "self"):
            known = frame.f_locals.get(name)
            if isinstance(known, Instance):
                return known.instance, ""
    return "", ""
