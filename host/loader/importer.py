"""Imports a version from its captured bytes, under a name that no other version has.

Old and new versions of a plugin live side by side as different modules; nothing is ever patched
or re-executed in place. A version that nobody uses any more is unloaded and can be collected.
"""

import importlib
import linecache
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
from host.loader.problem import PluginProblem, PluginRejected
from host.loader.resources import CapturedResources
from host.loader.source import compile_files

__all__ = ["import_version", "is_loaded", "problem_of", "unload"]


class _VersionLoader(ExecutionLoader):
    """Serves one module of one version: code, source for tracebacks, data files."""

    def __init__(self, version: Version, file: str, code: CodeType) -> None:
        self._version = version
        self._file = file
        self._code = code

    def get_code(self, fullname: str) -> CodeType:
        return self._code

    def get_source(self, fullname: str) -> str:
        return decode_source(self._version.files.get(self._file, b""))

    def get_filename(self, fullname: str) -> str:
        return self._version.code_filename(self._file)

    def is_package(self, fullname: str) -> bool:
        return self._file == self._version.main or self._file.endswith("__init__.py")

    def get_data(self, path: str | bytes | Path) -> bytes:
        """Return a file of this version by its path on disk or relative to the plugin."""
        wanted = Path(str(path))
        file = wanted.relative_to(self._version.folder) if wanted.is_absolute() else wanted
        try:
            return self._version.files[file.as_posix()]
        except KeyError:
            raise OSError(f"plugin {self._version.name} has no file {file}") from None

    def get_resource_reader(self, fullname: str) -> CapturedResources:
        return CapturedResources(self._version, self._file.rpartition("/")[0])


class _Loaded:
    def __init__(self, version: Version, codes: dict[str, CodeType]) -> None:
        self.version = version
        self.codes = codes
        self.holders = 0


class _VersionFinder(MetaPathFinder):
    """Answers for modules below `tandem_plugins`, and for no others."""

    def __init__(self) -> None:
        self.loaded: dict[str, _Loaded] = {}

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        namespace, _, rest = fullname.partition(".")
        if namespace != NAMESPACE:
            return None
        package, _, inner = rest.partition(".")
        loaded = self.loaded.get(f"{NAMESPACE}.{package}")
        if loaded is None:
            return None
        file = _file_of(loaded, inner.replace(".", "/"))
        if file is None:
            return None
        loader = _VersionLoader(loaded.version, file, loaded.codes[file])
        spec = spec_from_loader(fullname, loader, origin=loader.get_filename(fullname))
        assert spec is not None
        spec.has_location = True  # so that the module gets __file__
        return spec


def _file_of(loaded: _Loaded, inner: str) -> str | None:
    if not inner:
        return loaded.version.main
    for file in (f"{inner}.py", f"{inner}/__init__.py"):
        if file in loaded.codes:
            return file
    return None


_FINDER = _VersionFinder()
_LOCK = threading.RLock()  # imports run in worker threads during a reload


def import_version(version: Version) -> ModuleType:
    """Import a version's top module, or return it when this very version is loaded already.

    Each successful call is paired with one `unload`. Raises `PluginRejected` for whatever goes
    wrong, naming file and line, and leaves nothing behind then. Not proof against an import that
    never returns or kills the process: `probe` is.
    """
    with _LOCK:
        loaded = _FINDER.loaded.get(version.package)
        if loaded is None:
            loaded = _Loaded(version, compile_files(version))
            _install(loaded)
        try:
            module = importlib.import_module(version.package)
        except BaseException as error:
            if not loaded.holders:
                _forget(version)
            if isinstance(error, Exception | SystemExit):  # sys.exit() at import must not end the host
                # Not `from error`: its traceback would keep the dropped modules alive.
                raise PluginRejected([problem_of(version, error, "at import")]) from None
            raise
        loaded.holders += 1
        return module


def unload(version: Version) -> None:
    """Give back one `import_version`; after the last one the version's modules are dropped.

    Classes and functions still referenced elsewhere keep working, but can import nothing more of
    their plugin. No effect on a version that is not loaded.
    """
    with _LOCK:
        loaded = _FINDER.loaded.get(version.package)
        if loaded is None:
            return
        loaded.holders -= 1
        if loaded.holders == 0:
            _forget(version)


def is_loaded(version: Version) -> bool:
    """Return whether this version's modules are in place."""
    return version.package in _FINDER.loaded


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
        own_name = error.name.removeprefix(version.package + ".")
        if own_name != error.name:
            cause = f'the plugin has no module "{own_name}"'
            next_step = f"its files are {', '.join(sorted(version.files))}"
        else:
            cause = f'no module named "{error.name}" {when}'
            next_step = "install the package that holds it into the host's environment"
    else:
        cause = f"{type(error).__name__} {when}: {error}".removesuffix(": ")
    return version.problem(cause, file=file, line=line, next_step=next_step)


def _install(loaded: _Loaded) -> None:
    version = loaded.version
    if _FINDER not in sys.meta_path:
        sys.meta_path.insert(0, _FINDER)
    if NAMESPACE not in sys.modules:
        namespace = ModuleType(NAMESPACE, "Parent of all plugin versions.")
        namespace.__path__ = []
        sys.modules[NAMESPACE] = namespace
    _FINDER.loaded[version.package] = loaded
    for file in loaded.codes:
        # An entry without a modification time is never checked against the disk.
        source = decode_source(version.files[file])
        name = version.code_filename(file)
        linecache.cache[name] = (len(source), None, source.splitlines(keepends=True), name)


def _forget(version: Version) -> None:
    loaded = _FINDER.loaded.pop(version.package)
    for name in [n for n in sys.modules if n == version.package or n.startswith(version.package + ".")]:
        del sys.modules[name]
    # The import system sets each module as an attribute of its parent, this one included.
    vars(sys.modules[NAMESPACE]).pop(version.package.rpartition(".")[2], None)
    for file in loaded.codes:
        linecache.cache.pop(version.code_filename(file), None)
    # `Strategy[SomeParams]` sits in a cache inside `typing`, which would keep the class, and by
    # its methods the whole module, until 128 other subscriptions have pushed it out.
    cleanups: Sequence[Callable[[], None]] = getattr(typing, "_cleanups", ())
    for cleanup in cleanups:
        cleanup()
