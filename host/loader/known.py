"""Which versions this machine has imported to the end before: those a start need not prove again.

What a version does when it is imported depends on its bytes, the interpreter, and the packages that are
installed. A file of a node's data directory notes the digests for one such environment; in any other,
nothing is known.
"""

import hashlib
import logging
import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Final

__all__ = ["KnownVersions"]

_log = logging.getLogger("tandem.loader")


class KnownVersions:
    """The note of one node: a line that stands for the environment, then a digest a line.

    A start takes the note away before it imports what is in it and puts a new one there afterwards. So where
    an import hangs or ends the process all the same, the next start knows nothing, proves everything,
    and finds out which it was. A note that cannot be read or written costs the next start that time and
    nothing else: it is said in the log. Methods touch the disk. One process writes at a time.
    """

    def __init__(self, path: Path) -> None:
        self._path: Final = path

    def read(self) -> frozenset[str]:
        """Return the digests noted for this environment."""
        try:
            lines = self._path.read_text(errors="replace").splitlines()
        except FileNotFoundError:
            return frozenset()
        except OSError as error:
            self._tell(error)
            return frozenset()
        return frozenset(lines[1:]) if lines[:1] == [_environment()] else frozenset()

    def take(self) -> frozenset[str]:
        """Return what `read` does, and forget it."""
        known = self.read()
        try:
            self._path.unlink(missing_ok=True)
        except OSError as error:
            self._tell(error)
            return frozenset()  # what cannot be taken back must not be trusted
        return known

    def put(self, digests: Iterable[str]) -> None:
        """Note these digests and no others."""
        beside = self._path.with_suffix(".tmp")
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            beside.write_text("\n".join([_environment(), *sorted(digests), ""]))
            beside.replace(self._path)
        except OSError as error:
            self._tell(error)

    def add(self, digest: str) -> None:
        """Note one more, beside those that `put` noted."""
        try:
            with self._path.open("a") as file:
                file.write(f"{digest}\n")
        except OSError as error:
            self._tell(error)

    def _tell(self, error: OSError) -> None:
        _log.warning("the next start proves every plugin again, because of %s: %s", self._path, error)


def _environment() -> str:
    """Return a digest of what an import depends on beside its bytes: the interpreter and what is installed."""
    installed = {
        entry.name
        for folder in sys.path
        if os.path.isdir(folder)  # noqa: PTH112 - a path may be empty or a zip file
        for entry in os.scandir(folder)
        if entry.name.endswith((".dist-info", ".egg-info"))
    }
    return hashlib.sha256("\n".join([sys.version, *sorted(installed)]).encode()).hexdigest()
