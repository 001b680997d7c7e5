"""The bytes of a plugin at one moment: what a version is.

Everything later (compiling, importing, data files, shipping to a standby) works from these bytes
and never looks at the disk again, so an edit halfway through cannot be seen halfway.
"""

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path

from msgspec import Struct

from host.loader.problem import PluginProblem, PluginRejected
from host.loader.shared import find_shared
from host.loader.tree import full_path, walk

__all__ = ["NAMESPACE", "Version", "capture", "digest_of"]

NAMESPACE = "tandem_plugins"
"""The package under which every plugin version is imported."""

_SHORT_DIGEST = 12  # hex digits; 48 bits tell apart all versions that one machine will ever see


class Version(Struct, frozen=True):
    """One plugin as its files were when captured.

    `root` is the plugin's file or folder, `files` maps paths relative to the plugin's folder
    (with `/`) to contents, and `shared` does the same for the code it imports from beside itself
    (`_ema.py`, `../_shared/ema.py`). `digest` is the SHA-256 of all those names and contents in hex.
    """

    name: str
    root: Path
    digest: str
    files: Mapping[str, bytes]
    shared: Mapping[str, bytes] = {}

    def __repr__(self) -> str:
        return f"Version({self.name}@{self.short_digest}, root={str(self.root)!r}, {len(self.files)} files)"

    @property
    def short_digest(self) -> str:
        """Return the first digits of the digest: enough for people and module names."""
        return self.digest[:_SHORT_DIGEST]

    @property
    def namespace(self) -> str:
        """Return the package that holds all modules of this version and no others.

        It stands for the folder below which the plugin and its shared code lie.
        """
        return f"{NAMESPACE}.{self.name}_{self.short_digest}"

    @property
    def package(self) -> str:
        """Return the name under which the top module is imported; no other version has it."""
        return f"{self.namespace}.{self.module_name(self.main)}"

    @property
    def sources(self) -> Mapping[str, bytes]:
        """Return the plugin's own files and the shared ones."""
        return {**self.files, **self.shared}

    @property
    def main(self) -> str:
        """Return the file that is the plugin's top module."""
        return "__init__.py" if "__init__.py" in self.files else f"{self.name}.py"

    @property
    def folder(self) -> Path:
        """Return the folder that the names in `files` are relative to."""
        return self.root.parent if self.root.suffix == ".py" else self.root

    def module_name(self, file: str) -> str:
        """Return the name, below `namespace`, of the module that one of the files (or folders) is.

        Modules are named as they lie on disk, so that relative imports mean here what they mean to
        a type checker. The folder that the namespace stands for is named "".
        """
        steps_up = max((shared.split("/").count("..") for shared in self.shared), default=0)
        if self.main == "__init__.py":
            steps_up = max(steps_up, 1)
        top = self.folder.parents[steps_up - 1] if steps_up else self.folder
        path = self._on_disk(file.removesuffix("__init__.py").removesuffix(".py"))
        return ".".join(part.replace(".", "_") for part in path.relative_to(top).parts)

    def code_filename(self, file: str) -> str:
        """Return the file name that tracebacks show.

        It carries the digest because Python's source cache is keyed by file name: with the plain
        path, a traceback through an older version would quote lines of the newer file.
        """
        return f"{self._on_disk(file)}@{self.short_digest}"

    def locate(self, code_filename: str) -> str | None:
        """Return which of `sources` a traceback's file name stands for, or None for foreign code."""
        path, _, digest = code_filename.rpartition("@")
        if digest != self.short_digest:
            return None
        file = os.path.relpath(path, self.folder)
        return file if file in self.files or file in self.shared else None

    def problem(self, cause: str, *, file: str = "", line: int = 0, next_step: str = "") -> PluginProblem:
        """Describe what is wrong with one file of this version (its main file by default)."""
        shown = file or self.main
        return PluginProblem(self.name, self._on_disk(shown), shown, line, cause, next_step)

    def _on_disk(self, file: str) -> Path:
        return Path(os.path.normpath(self.folder / file))


def capture(path: Path) -> Version:
    """Read a plugin: a `.py` file, or a folder with `__init__.py` and everything below it.

    The shared code that it imports is read with it. Hidden files, bytecode and what editors leave
    behind do not count. Raises `PluginRejected` when a file cannot be read, which includes one that
    vanished while reading.
    """
    path = full_path(path)
    name = path.stem if path.suffix == ".py" else path.name
    try:
        if path.suffix == ".py":
            files = {path.name: path.read_bytes()}
        else:
            files = {file.relative_to(path).as_posix(): file.read_bytes() for file in walk(path)}
        shared = find_shared(path.parent if path.suffix == ".py" else path, files).files
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
    return Version(name, path, digest_of({**files, **shared}), files, shared)


def digest_of(files: Mapping[str, bytes]) -> str:
    """Return the SHA-256 of these names and contents in hex."""
    # Lengths go in as well: without them {"a": "bc"} and {"ab": "c"} would be one version.
    digest = hashlib.sha256()
    for name in sorted(files):
        for part in (name.encode(), files[name]):
            digest.update(len(part).to_bytes(8, "big"))
            digest.update(part)
    return digest.hexdigest()
