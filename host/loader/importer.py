"""Imports a version from its captured bytes, under a name that no other version has.

Old and new versions of a plugin live side by side as different modules; nothing is ever patched
or re-executed in place. A version that nobody uses any more is unloaded and can be collected.
"""

import importlib
import linecache
import os
import posixpath
import sys
import threading
import traceback
import typing
from collections.abc import Callable, Sequence
from importlib.abc import ExecutionLoader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import decode_source, spec_from_loader
from pathlib import Path
from types import CodeType, ModuleType

from host.loader.capture import NAMESPACE, Version
from host.loader.memory import MOST_MEMORY_BYTES
from host.loader.problem import PluginProblem, PluginRejected
from host.loader.resources import CapturedResources
from host.loader.source import CompiledVersion, compile_files

__all__ = ["import_version", "is_loaded", "problem_of", "unload", "was_imported"]


class _VersionLoader(ExecutionLoader):
    """Serves one module of one version: code, source for tracebacks, data files.

    `folder` is that of a package's files, None for a plain module; `file` is empty for a folder
    without `__init__.py`.
    """

    def __init__(self, version: Version, file: str, folder: str | None, code: CodeType) -> None:
        self._version = version
        self._file = file
        self._folder = folder
        self._code = code

    def get_code(self, fullname: str) -> CodeType:
        return self._code

    def get_source(self, fullname: str) -> str:
        return decode_source(self._version.sources.get(self._file, b""))

    def get_filename(self, fullname: str) -> str:
        return self._version.code_filename(self._file or self._folder or ".")

    def is_package(self, fullname: str) -> bool:
        return self._folder is not None

    def get_data(self, path: str | bytes | Path) -> bytes:
        """Return a file of this version by its path on disk or relative to the plugin."""
        file = os.path.relpath(self._version.folder / str(path), self._version.folder)
        try:
            return self._version.sources[file]
        except KeyError:
            raise OSError(f"plugin {self._version.name} has no file {file}") from None

    def get_resource_reader(self, fullname: str) -> CapturedResources:
        return CapturedResources(self._version, self._folder or "")


_NOTHING = compile("", "<a folder without __init__.py>", "exec")


class _Loaded:
    """A version that is in place: how to load each of its modules."""

    def __init__(self, version: Version, compiled: CompiledVersion | None) -> None:
        self.version = version
        self.module: ModuleType | None = None
        self.holders = 0
        self.codes = compile_files(version) if compiled is None else compiled.codes_of(version)
        self._loaders: dict[str, _VersionLoader] = {}
        # Packages first: they win over a module of their name, as they do on disk.
        for file in sorted(self.codes, key=lambda file: not file.endswith("__init__.py")):
            folder = posixpath.dirname(file)
            loader = _VersionLoader(
                version, file, folder if file.endswith("__init__.py") else None, self.codes[file]
            )
            self._loaders.setdefault(version.module_name(file), loader)
        for file in self.codes:
            folder, name = file, version.module_name(file)
            while name:
                folder = posixpath.normpath(posixpath.join(folder, ".."))
                name = version.module_name(folder)
                self._loaders.setdefault(name, _VersionLoader(version, "", folder, _NOTHING))

    def loader(self, name: str) -> _VersionLoader | None:
        """Return the loader of a module by its name below the version's namespace."""
        return self._loaders.get(name)


class _VersionFinder(MetaPathFinder):
    """Answers for modules below `tandem_plugins`, and for no others."""

    def __init__(self) -> None:
        self.loaded: dict[str, _Loaded] = {}

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        top, _, rest = fullname.partition(".")
        if top != NAMESPACE:
            return None
        version, _, name = rest.partition(".")
        loaded = self.loaded.get(f"{NAMESPACE}.{version}")
        loader = loaded.loader(name) if loaded is not None else None
        if loader is None:
            return None
        spec = spec_from_loader(fullname, loader, origin=loader.get_filename(fullname))
        assert spec is not None
        spec.has_location = True  # so that the module gets __file__
        return spec


_FINDER = _VersionFinder()
_IMPORTING = threading.RLock()  # imports run in worker threads during a reload, one at a time
_LOCK = threading.RLock()
"""For who is loaded and how often. Never held while plugin code runs: the event loop takes it, too."""
_imported: set[str] = set()
"""The digests of all versions that this process has ever imported to the end."""


def import_version(version: Version, compiled: CompiledVersion | None = None) -> ModuleType:
    """Import a version's top module, or return it when this very version is loaded already.

    `compiled` spares compiling it here. Each successful call is paired with one `unload`. Raises
    `PluginRejected` for whatever goes wrong, naming file and line, and leaves nothing behind then.
    Not proof against an import that never returns or kills the process: `probe` is.
    """
    module = _held(version)
    if module is None:
        with _IMPORTING:
            module = _held(version)  # another thread may have been quicker
            if module is None:
                module = _import(_Loaded(version, compiled))
    return module


def unload(version: Version) -> None:
    """Give back one `import_version`; after the last one the version's modules are dropped.

    Classes and functions still referenced elsewhere keep working, but can import nothing more of
    their plugin. No effect on a version that is not loaded.
    """
    with _LOCK:
        loaded = _FINDER.loaded.get(version.namespace)
        if loaded is None or not loaded.holders:  # not loaded, or not yet
            return
        loaded.holders -= 1
        if loaded.holders == 0:
            _forget(version)


def is_loaded(version: Version) -> bool:
    """Return whether this version's modules are in place."""
    return version.namespace in _FINDER.loaded


def was_imported(version: Version) -> bool:
    """Return whether this process has imported these bytes to the end before, unloaded since or not."""
    return version.digest in _imported


def problem_of(version: Version, error: BaseException, when: str) -> PluginProblem:
    """Describe what a plugin's code raised, at the deepest line that is the plugin's own."""
    file, line = "", 0
    for frame, frame_line in traceback.walk_tb(error.__traceback__):
        if (own := version.locate(frame.f_code.co_filename)) is not None:
            file, line = own, frame_line
    next_step = ""
    if isinstance(error, SystemExit):
        cause = f"called sys.exit({error.code!r}) {when}"
        next_step = "plugin code must not end the process that runs it"
    elif isinstance(error, ModuleNotFoundError) and error.name is not None:
        if error.name.startswith(version.namespace + "."):
            parent = version.package if version.main == "__init__.py" else version.namespace
            own_name = error.name.removeprefix(parent + ".").removeprefix(version.namespace + ".")
            cause = f'the plugin has no module "{own_name}"'
            files = ", ".join(sorted(version.sources))
            next_step = f"its files are {files}; shared by plugins is only what has a name that starts with _"
        elif error.name.startswith("_") and file:
            cause = f'no module named "{error.name}" {when}'
            next_step = f'what plugins share is imported relatively: write "from . import {error.name}"'
        else:
            cause = f'no module named "{error.name}" {when}'
            next_step = "install the package that holds it into the host's environment"
    elif isinstance(error, MemoryError):
        cause = f"ran out of memory {when}"
        next_step = (
            f"to be looked at, a plugin gets {MOST_MEMORY_BYTES >> 20} MB; load what is big in on_start"
        )
    else:
        cause = f"{type(error).__name__} {when}: {error}".removesuffix(": ")
    return version.problem(cause, file=file, line=line, next_step=next_step)


def _held(version: Version) -> ModuleType | None:
    """Count one more holder of a version that is loaded, and return its top module."""
    with _LOCK:
        loaded = _FINDER.loaded.get(version.namespace)
        if loaded is None or not loaded.holders:
            return None
        loaded.holders += 1
        return loaded.module


def _import(loaded: _Loaded) -> ModuleType:
    version = loaded.version
    with _LOCK:
        _install(loaded)
    try:
        module = importlib.import_module(version.package)
    except BaseException as error:
        with _LOCK:
            _forget(version)
        if isinstance(error, Exception | SystemExit):  # sys.exit() at import must not end the host
            # Not `from error`: its traceback would keep the dropped modules alive.
            raise PluginRejected([problem_of(version, error, "at import")]) from None
        raise
    with _LOCK:
        loaded.module, loaded.holders = module, 1
        _imported.add(version.digest)
    return module


def _install(loaded: _Loaded) -> None:
    version = loaded.version
    if _FINDER not in sys.meta_path:
        sys.meta_path.insert(0, _FINDER)
    if NAMESPACE not in sys.modules:
        namespace = ModuleType(NAMESPACE, "Parent of all plugin versions.")
        namespace.__path__ = []
        sys.modules[NAMESPACE] = namespace
    _FINDER.loaded[version.namespace] = loaded
    for file in loaded.codes:
        # An entry without a modification time is never checked against the disk.
        source = decode_source(version.sources[file])
        name = version.code_filename(file)
        linecache.cache[name] = (len(source), None, source.splitlines(keepends=True), name)


def _forget(version: Version) -> None:
    loaded = _FINDER.loaded.pop(version.namespace)
    namespace = version.namespace
    for name in [n for n in list(sys.modules) if n == namespace or n.startswith(f"{namespace}.")]:
        del sys.modules[name]
    # The import system sets each module as an attribute of its parent, this one included.
    vars(sys.modules[NAMESPACE]).pop(version.namespace.rpartition(".")[2], None)
    for file in loaded.codes:
        linecache.cache.pop(version.code_filename(file), None)
    # `Strategy[SomeParams]` sits in a cache inside `typing`, which would keep the class, and by
    # its methods the whole module, until 128 other subscriptions have pushed it out.
    cleanups: Sequence[Callable[[], None]] = getattr(typing, "_cleanups", ())
    for cleanup in cleanups:
        cleanup()
