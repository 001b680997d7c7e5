"""Which plugins the plugin folders hold."""

from collections.abc import Iterable, Iterator
from pathlib import Path

from msgspec import Struct

from host.loader.problem import PluginProblem
from host.loader.tree import is_ignored

__all__ = ["Discovery", "discover"]


class Discovery(Struct, frozen=True):
    """Plugin names and where each lies. A name with a problem is not among `plugins`."""

    plugins: dict[str, Path]
    problems: tuple[PluginProblem, ...]


def discover(plugin_dirs: Iterable[Path]) -> Discovery:
    """Find the plugins in these folders and their plain subfolders.

    A `.py` file and a folder with `__init__.py` are plugins; a folder without one
    (`strategies/`, `models/`) is only looked into. Names that start with `_` are no plugins. Two
    plugins of one name are both left out: which of them a configuration means cannot be known.
    """
    found: dict[str, list[Path]] = {}
    problems: list[PluginProblem] = []
    for plugin_dir in dict.fromkeys(path.absolute() for path in plugin_dirs):
        if not plugin_dir.is_dir():
            problems.append(
                _problem(plugin_dir, "is not a folder", "create it or take it out of node.plugin_dirs")
            )
            continue
        for path in _walk(plugin_dir, {plugin_dir.resolve()}):
            name = path.stem if path.suffix == ".py" else path.name
            if not name.isidentifier():
                wanted = "".join(c if c.isalnum() else "_" for c in name)
                problems.append(
                    _problem(path, f'"{name}" cannot name a plugin', f'rename it, for example to "{wanted}"')
                )
            elif path not in found.setdefault(name, []):
                found[name].append(path)
    for name, paths in found.items():
        if len(paths) > 1:
            others = ", ".join(map(str, paths[1:]))
            problems.append(
                PluginProblem(
                    name, paths[0], str(paths[0]), 0, f"has the same name as {others}", "rename all but one"
                )
            )
    return Discovery({name: paths[0] for name, paths in found.items() if len(paths) == 1}, tuple(problems))


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
