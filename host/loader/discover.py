"""Which plugins the plugin folders hold."""

from collections.abc import Iterable, Iterator
from pathlib import Path

from msgspec import Struct

from host.loader.capture import Version, capture
from host.loader.problem import PluginProblem, PluginRejected
from host.loader.tree import full_path, is_ignored

__all__ = ["Discovery", "Found", "discover", "find_versions"]


class Discovery(Struct, frozen=True):
    """Plugin names and where each lies. A name with a problem is not among `plugins`."""

    plugins: dict[str, Path]
    problems: tuple[PluginProblem, ...]
    notes: tuple[str, ...] = ()
    """Which plugins stand in for others of their name, in words."""


class Found(Struct, frozen=True):
    """The plugins of some folders as their files are now, by name, and what is wrong with the others."""

    versions: dict[str, Version]
    problems: tuple[PluginProblem, ...]
    notes: tuple[str, ...]


def find_versions(plugin_dirs: Iterable[str | Path]) -> Found:
    """Discover the plugins in these folders and capture each; never raises for a bad one."""
    discovery = discover(map(Path, plugin_dirs))
    versions: dict[str, Version] = {}
    problems = [*discovery.problems]
    for name, path in discovery.plugins.items():
        try:
            versions[name] = capture(path)
        except PluginRejected as rejected:
            problems.extend(rejected.problems)
    return Found(versions, tuple(problems), discovery.notes)


def discover(plugin_dirs: Iterable[Path]) -> Discovery:
    """Find the plugins in these folders and their plain subfolders.

    A `.py` file and a folder with `__init__.py` are plugins; a folder without one
    (`strategies/`, `models/`) is only looked into. Names that start with `_` are no plugins. A plugin
    in a later folder stands in for one of its name in an earlier one, so that a bundled plugin can
    be copied and changed. Two of one name below one folder are both left out: which of them a
    configuration means cannot be known.
    """
    found: dict[str, Path | None] = {}
    problems: list[PluginProblem] = []
    notes: list[str] = []
    for plugin_dir in dict.fromkeys(full_path(path) for path in plugin_dirs):
        if not plugin_dir.is_dir():
            problems.append(
                _problem(plugin_dir, "is not a folder", "create it or take it out of node.plugin_dirs")
            )
            continue
        here: dict[str, list[Path]] = {}
        for path in _walk(plugin_dir, {plugin_dir.resolve()}):
            name = path.stem if path.suffix == ".py" else path.name
            if not name.isidentifier():
                wanted = "".join(c if c.isalnum() else "_" for c in name)
                problems.append(
                    _problem(path, f'"{name}" cannot name a plugin', f'rename it, for example to "{wanted}"')
                )
            else:
                here.setdefault(name, []).append(path)
        for name, (path, *others) in here.items():
            if others:
                cause = f"has the same name as {', '.join(map(str, others))}"
                problems.append(PluginProblem(name, path, str(path), 0, cause, "rename all but one"))
                found[name] = None
                continue
            known = found.get(name)
            if known is not None and known.resolve() != path.resolve():
                notes.append(f"plugin {name}: {path} stands in for {known}")
            found[name] = path
    return Discovery(
        {name: path for name, path in found.items() if path is not None}, tuple(problems), tuple(notes)
    )


def _walk(folder: Path, seen: set[Path]) -> Iterator[Path]:
    for entry in sorted(folder.iterdir()):
        if is_ignored(entry.name) or entry.name.startswith("_"):
            continue
        if (entry.suffix == ".py" and entry.is_file()) or (entry / "__init__.py").is_file():
            yield entry
        elif entry.is_dir() and (resolved := entry.resolve()) not in seen:  # a symlink may lead back up
            seen.add(resolved)
            yield from _walk(entry, seen)


def _problem(path: Path, cause: str, next_step: str) -> PluginProblem:
    return PluginProblem(path.stem, path, str(path), 0, cause, next_step)
