"""Where settings are written: files and variables, laid over each other, each value with its origin.

Tables are merged key by key. The entries of `[[account]]` and `[[instance]]` are merged by their
`name`, so that an overlay can change one setting of one instance. Everything else is replaced.
"""

import json
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from msgspec import Struct

__all__ = ["ENV_PREFIX", "KeyPath", "Problem", "Sources", "show_path"]

ENV_PREFIX: Final = "TANDEM__"

KeyPath = tuple[str | int, ...]
"""A place in the configuration: keys of tables and indexes of lists."""


class Problem(Struct, frozen=True):
    """Something wrong at one place of one source."""

    source: str
    key: str
    text: str

    def __str__(self) -> str:
        return ": ".join(part for part in (self.source, self.key, self.text) if part)


class Sources:
    """Collects settings from weaker to stronger sources; remembers where each value was written."""

    def __init__(self) -> None:
        self.tree: dict[str, Any] = {}
        self.names: list[str] = []
        self.problems: list[Problem] = []
        """What could not be read at all, or contradicts itself within one source."""
        self._origins: dict[KeyPath, str] = {}

    def add_file(self, path: Path) -> None:
        """Lay a TOML file over what is there."""
        try:
            text = path.read_text(encoding="utf-8")
        except FileNotFoundError:
            self.problems.append(Problem(str(path), "", "no such file"))
        except (OSError, UnicodeDecodeError) as error:
            self.problems.append(Problem(str(path), "", f"cannot be read: {error}"))
        else:
            self.add_text(text, str(path))

    def add_text(self, text: str, name: str) -> None:
        """Lay TOML text over what is there; `name` stands for it in messages."""
        self.names.append(name)
        try:
            table = tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            self.problems.append(Problem(name, "", f"is not valid TOML: {error}"))
        else:
            self._merge(self.tree, table, (), name)

    def add_variables(self, environ: Mapping[str, str]) -> None:
        """Lay `TANDEM__SECTION__KEY` variables over what is there.

        Names are matched to existing keys without regard to case, with `_` for `-`, because a shell
        cannot export anything else.
        """
        for variable in sorted(name for name in environ if name.startswith(ENV_PREFIX)):
            self.names.append(variable)
            parts = variable.removeprefix(ENV_PREFIX).split("__")
            self._set(variable, parts, typed_value(environ[variable]))

    def origin(self, path: KeyPath) -> str:
        """Return the name of the source that wrote `path`, or the nearest thing around it."""
        for end in range(len(path), 0, -1):
            if path[:end] in self._origins:
                return self._origins[path[:end]]
        return self.names[0] if self.names else ""

    def _merge(self, target: dict[str, Any], table: dict[str, Any], at: KeyPath, source: str) -> None:
        for key, value in table.items():
            here = (*at, key)
            old = target.get(key)
            if isinstance(old, dict) and isinstance(value, dict):
                self._merge(old, value, here, source)
            elif len(here) == 1 and _is_table_list(value) and (old is None or _is_table_list(old)):
                self._merge_named(target.setdefault(key, []), value, here, source)
            else:
                target[key] = value
                self._mark(value, here, source)

    def _merge_named(
        self, target: list[dict[str, Any]], entries: list[dict[str, Any]], at: KeyPath, source: str
    ) -> None:
        index_of = {entry["name"]: index for index, entry in enumerate(target) if _is_named(entry)}
        seen: set[str] = set()
        for entry in entries:
            name = entry["name"] if _is_named(entry) else None
            if name is not None and name in seen:
                self.problems.append(
                    Problem(source, f"{at[0]}[{name}].name", f'expected a name used once, was "{name}" again')
                )
            elif name is not None and name in index_of:
                index = index_of[name]
                self._merge(target[index], entry, (*at, index), source)
            else:
                target.append(entry)
                self._mark(entry, (*at, len(target) - 1), source)
            if name is not None:
                seen.add(name)

    def _mark(self, value: Any, at: KeyPath, source: str) -> None:
        self._origins = {path: name for path, name in self._origins.items() if path[: len(at)] != at}
        self._origins[at] = source
        for key, child in _children(value):
            self._mark(child, (*at, key), source)

    def _set(self, variable: str, parts: list[str], value: Any) -> None:
        node: Any = self.tree
        at: KeyPath = ()
        for part in parts[:-1]:
            key = self._match(node, part, at)
            node = (
                node.setdefault(key, {}) if isinstance(node, dict) else node[key] if key is not None else None
            )
            at = at if key is None else (*at, key)
        key = self._match(node, parts[-1], at)
        if key is None:
            text = f"has no entry that {variable} could name; write it in a file first"
            self.problems.append(Problem(variable, show_path(self.tree, at), text))
        else:
            node[key] = value
            self._mark(value, (*at, key), variable)

    def _match(self, node: Any, part: str, at: KeyPath) -> str | int | None:
        """Return the key or index in `node` that `part` of a variable's name means."""
        if isinstance(node, list):
            names = [entry["name"] if _is_named(entry) else "" for entry in node]
            return next((index for index, name in enumerate(names) if _normal(name) == _normal(part)), None)
        if isinstance(node, dict):
            known = [*node, *self._nameable(at)]
            return next((key for key in known if _normal(key) == _normal(part)), part.lower())
        return None

    def _nameable(self, at: KeyPath) -> Iterator[str]:
        """Yield what the tables of limits at `at` may be named after."""
        if len(at) == 2 and at[0] == "risk":
            entries = self.tree.get("account" if at[1] == "account" else "instance", [])
            for entry in entries if _is_table_list(entries) else ():
                symbols = entry.get("symbols", [])
                names = symbols if at[1] == "symbol" else [entry.get("name")]
                yield from (name for name in names if isinstance(name, str))


def typed_value(text: str) -> Any:
    """Read a variable's text as a TOML value, else as JSON, else take it as it is."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        pass
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text


def show_path(tree: Mapping[str, Any], path: KeyPath) -> str:
    """Return `path` as people write it: `instance[mm-btc].symbols[0]`."""
    shown = ""
    node: Any = tree
    for key in path:
        node = _step(node, key)
        if isinstance(key, int):
            shown += f"[{node['name'] if _is_named(node) else key}]"
        elif "-" in key or "." in key:
            shown += f'."{key}"'
        else:
            shown += f".{key}"
    return shown.removeprefix(".")


def _step(node: Any, key: str | int) -> Any:
    try:
        return node[key]
    except (KeyError, IndexError, TypeError):
        return None


def _children(value: Any) -> Iterator[tuple[str | int, Any]]:
    if isinstance(value, dict):
        yield from value.items()
    elif isinstance(value, list):
        yield from enumerate(value)


def _normal(name: str) -> str:
    return name.lower().replace("-", "_")


def _is_named(value: Any) -> bool:
    return isinstance(value, dict) and isinstance(value.get("name"), str)


def _is_table_list(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, dict) for item in value)
