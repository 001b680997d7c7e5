"""The bytes of a plugin at one moment: what a version is.

Everything later (compiling, importing, data files, shipping to a standby) works from these bytes
and never looks at the disk again, so an edit halfway through cannot be seen halfway.
"""

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path

from msgspec import Struct

from host.loader.problem import PluginProblem, PluginRejected

__all__ = ["NAMESPACE", "Version", "capture", "is_ignored"]

NAMESPACE = "tandem_plugins"
"""The package under which every plugin version is imported."""

_SHORT_DIGEST = 12  # hex digits; 48 bits tell apart all versions that one machine will ever see
_IGNORED_SUFFIXES = (
    *("~", ".swp", ".swo", ".swx", ".bak", ".orig", "___jb_tmp___", "___jb_old___"),  # editors
    *(".pyc", ".pyo"),
)
_IGNORED_NAMES = frozenset({"__pycache__", "4913"})  # vim creates 4913 to learn whether it may write here


class Version(Struct, frozen=True):
    """One plugin as its files were when captured.

    `root` is the plugin's file or folder, `files` maps paths relative to the plugin's folder
    (with `/`) to contents, `digest` is the SHA-256 of those names and contents in hex.
    """

    name: str
    root: Path
    digest: str
    files: Mapping[str, bytes]

    def __repr__(self) -> str:
        return f"Version({self.name}@{self.short_digest}, root={str(self.root)!r}, {len(self.files)} files)"

    @property
    def short_digest(self) -> str:
        """Return the first digits of the digest: enough for people and module names."""
        return self.digest[:_SHORT_DIGEST]

    @property
    def package(self) -> str:
        """Return the name under which this version is imported; no other version has it."""
        return f"{NAMESPACE}.{self.name}_{self.short_digest}"

    @property
    def main(self) -> str:
        """Return the file that is the plugin's top module."""
        return "__init__.py" if "__init__.py" in self.files else f"{self.name}.py"

    @property
    def folder(self) -> Path:
        """Return the folder that the names in `files` are relative to."""
        return self.root.parent if self.root.suffix == ".py" else self.root

    def code_filename(self, file: str) -> str:
        """Return the file name that tracebacks show.

        It carries the digest because Python's source cache is keyed by file name: with the plain
        path, a traceback through an older version would quote lines of the newer file.
        """
        return f"{self.folder / file}@{self.short_digest}"

    def locate(self, code_filename: str) -> str | None:
        """Return which of `files` a traceback's file name stands for, or None for foreign code."""
        prefix, suffix = f"{self.folder}/", f"@{self.short_digest}"
        if code_filename.startswith(prefix) and code_filename.endswith(suffix):
            return code_filename[len(prefix) : -len(suffix)]
        return None

    def problem(self, cause: str, *, file: str = "", line: int = 0, next_step: str = "") -> PluginProblem:
        """Describe what is wrong with one file of this version (its main file by default)."""
        shown = file or self.main
        return PluginProblem(self.name, self.folder / shown, shown, line, cause, next_step)


def capture(path: Path) -> Version:
    """Read a plugin: a `.py` file, or a folder with `__init__.py` and everything below it.

    Hidden files, bytecode and what editors leave behind do not count. Raises `PluginRejected`
    when a file cannot be read, which includes one that vanished while reading.
    """
    path = path.absolute()
    name = path.stem if path.suffix == ".py" else path.name
    try:
        if path.suffix == ".py":
            files = {path.name: path.read_bytes()}
        else:
            files = {file.relative_to(path).as_posix(): file.read_bytes() for file in _walk(path)}
    except OSError as error:
        at = Path(error.filename or path)
        cause = f"cannot be read: {error.strerror}"
        raise PluginRejected(
            [PluginProblem(name, at, at.name, 0, cause, "check its path and rights")]
        ) from error
    if path.suffix != ".py" and "__init__.py" not in files:
        raise PluginRejected(
            [PluginProblem(name, path, path.name, 0, "a plugin folder has an __init__.py, this one has none")]
        )
    return Version(name, path, _digest(files), files)


def is_ignored(name: str) -> bool:
    """Return whether a file or folder of this name is no part of any plugin."""
    return name.startswith((".", "#")) or name.endswith(_IGNORED_SUFFIXES) or name in _IGNORED_NAMES


def _walk(folder: Path) -> Iterator[Path]:
    for entry in sorted(folder.iterdir()):
        if is_ignored(entry.name):
            continue
        if entry.is_dir():
            yield from _walk(entry)
        else:
            yield entry


def _digest(files: Mapping[str, bytes]) -> str:
    # Lengths go in as well: without them {"a": "bc"} and {"ab": "c"} would be one version.
    digest = hashlib.sha256()
    for name in sorted(files):
        for part in (name.encode(), files[name]):
            digest.update(len(part).to_bytes(8, "big"))
            digest.update(part)
    return digest.hexdigest()
