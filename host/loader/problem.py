"""What is wrong with a plugin, and the errors that say so."""

import difflib
from collections.abc import Iterable, Sequence
from pathlib import Path

from msgspec import Struct

from host.api import TandemError

__all__ = ["PluginProblem", "PluginRejected", "UnknownPlugin", "near_name"]


class PluginProblem(Struct, frozen=True):
    """One reason why a plugin cannot be used.

    `path` is the file on disk, `shown` the same file as an author names it (relative to the
    plugin), `line` 0 where no line is to blame.
    """

    plugin: str
    path: Path
    shown: str
    line: int
    cause: str
    next_step: str = ""

    def __str__(self) -> str:
        place = f"{self.shown}:{self.line}" if self.line else self.shown
        ending = f"; {self.next_step}" if self.next_step else ""
        return f"plugin {self.plugin}: {place}: {self.cause}{ending}"


class PluginRejected(TandemError):  # noqa: N818 - a rejection is an answer, not a malfunction
    """A plugin version cannot be used; `problems` says why, in the order found. Never empty."""

    def __init__(self, problems: Sequence[PluginProblem]) -> None:
        super().__init__("\n".join(map(str, problems)))
        self.problems = tuple(problems)


class UnknownPlugin(TandemError):  # noqa: N818 - named for what the caller asked for
    """No plugin offers this name; `problems` are those of the files that should have."""

    def __init__(
        self, kind: str, name: str, on_offer: Iterable[str], problems: Sequence[PluginProblem] = ()
    ) -> None:
        names = sorted(on_offer)
        near = near_name(name, names)
        if problems:
            ending = "its file was refused: " + "; ".join(map(str, problems))
        elif near is not None:
            ending = f'did you mean "{near}"?'
        else:
            ending = f"on offer: {', '.join(names) or 'none'}"
        super().__init__(f'no {kind} plugin is named "{name}"; {ending}')
        self.kind = kind
        self.name = name
        self.problems = tuple(problems)


def near_name(name: str, names: Iterable[str]) -> str | None:
    """Return the one of `names` that `name` was probably meant to be, or None."""
    matches = difflib.get_close_matches(name, list(names), n=1, cutoff=0.6)
    return matches[0] if matches else None
