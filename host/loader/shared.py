"""Code that several plugins share, and which of it a plugin uses.

Shared code is a file or folder beside the plugins whose name starts with `_`. A plugin says that it
uses some by importing it, relatively and as it lies on disk: `from ._ema import ema` in a file next to
`_ema.py`, `from .._ema import ema` in a folder next to it. What it imports becomes part of its
version: its own copy, under its own digest, so that two versions never share a changed module.

What is taken is a *unit*: one file, or one folder with an `__init__.py` and all below it. A folder
without one (`_shared/`) is only a place, and each file in it is a unit of its own.
"""

import ast
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from msgspec import Struct

from host.loader.parsing import parse
from host.loader.tree import walk

__all__ = ["Shared", "find_shared", "shared_code_of"]

_RELATIVE_IMPORT = re.compile(rb"^\s*from\s+\.", re.MULTILINE)  # parsing is for the few files that have one


class Shared(Struct, frozen=True):
    """What a plugin takes from beside itself.

    `files` maps paths relative to the plugin's folder (`_ema.py`, `../_shared/ema.py`) to contents.
    `looked_at` holds each path that was tried to find them, found or not: a change at or below one
    of these may change what the plugin is.
    """

    files: Mapping[str, bytes]
    looked_at: frozenset[Path]


def shared_code_of(plugin: Path) -> Shared:
    """Find what the plugin at this path (a file or folder, absolute) shares, as it is on disk now.

    Raises `OSError` when a file vanishes meanwhile. A file with a syntax error imports nothing.
    """
    if plugin.suffix == ".py":
        return find_shared(plugin.parent, {plugin.name: plugin.read_bytes()})
    own = {path.relative_to(plugin).as_posix(): path for path in walk(plugin) if path.suffix == ".py"}
    return find_shared(plugin, {name: path.read_bytes() for name, path in own.items()})


def find_shared(folder: Path, own: Mapping[str, bytes]) -> Shared:
    """Follow the relative imports that lead out of a plugin, and those that start from there.

    `own` maps the plugin's files, relative to `folder`, to their contents. Raises `OSError`.
    """
    search = _Search(folder, is_package="__init__.py" in own)
    waiting = [(name, content) for name, content in own.items() if name.endswith(".py")]
    while waiting:
        name, content = waiting.pop()
        for unit in search.units_imported_by(name, content):
            paths = walk(unit) if unit.is_dir() else [unit]
            found = {search.key(path): path.read_bytes() for path in paths}
            search.files.update(found)
            waiting += [(key, found[key]) for key in found if key.endswith(".py")]
    return Shared(search.files, frozenset(search.looked_at))


class _Search:
    def __init__(self, folder: Path, *, is_package: bool) -> None:
        self._folder = folder
        self._is_package = is_package
        self._units: list[Path] = []
        self.files: dict[str, bytes] = {}
        self.looked_at: set[Path] = set()

    def key(self, path: Path) -> str:
        return os.path.relpath(path, self._folder)

    def _path(self, key: str) -> Path:
        return Path(os.path.normpath(self._folder / key))

    def units_imported_by(self, name: str, content: bytes) -> Iterator[Path]:
        for start, parts, names in _relative_imports(self._path(name), content):
            if any(start.is_relative_to(unit) for unit in self._units):
                continue
            for tail in names if self._is_only_a_place(start, parts) else [()]:
                unit = self._resolve(start, (*parts, *tail))
                if unit is not None and unit not in self._units:
                    self._units.append(unit)
                    yield unit

    def _is_only_a_place(self, start: Path, parts: tuple[str, ...]) -> bool:
        place = start.joinpath(*parts)
        return place.is_dir() and not (place / "__init__.py").is_file()

    def _resolve(self, place: Path, parts: tuple[str, ...]) -> Path | None:
        for part in parts:
            file, package = place / f"{part}.py", place / part
            if self._may_be_shared(package):
                self.looked_at |= {file, package / "__init__.py"}
                if (package / "__init__.py").is_file():
                    self.looked_at.add(package)
                    return package
                if file.is_file():
                    return file
            if not package.is_dir():
                return None
            place = package
        return None

    def _may_be_shared(self, path: Path) -> bool:
        parts = self.key(path).split("/")
        if self._is_package and parts[0] != "..":
            return False  # the plugin's own
        return any(part.startswith("_") for part in parts)


def _relative_imports(
    file: Path, content: bytes
) -> Iterator[tuple[Path, tuple[str, ...], list[tuple[str, ...]]]]:
    """Yield where each relative import starts, the module it names there, and the names it takes."""
    if not _RELATIVE_IMPORT.search(content):
        return
    try:
        tree = parse(content)
    except (SyntaxError, ValueError, RecursionError):
        return  # the version is refused for this when it is compiled, with file and line
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.level:
            start = file.parents[min(node.level, len(file.parents)) - 1]
            parts = tuple(node.module.split(".")) if node.module else ()
            yield start, parts, [(alias.name,) for alias in node.names if alias.name != "*"]
