"""Reads a node's configuration: a file, its overlay for an environment, and variables."""

from collections.abc import Callable, Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from types import MappingProxyType
from typing import Final

from host.api import TandemError
from host.config.check import convert, find_mistakes
from host.config.schema import NodeConfig
from host.config.sources import KeyPath, Problem, Sources, show_path
from host.config.without_effect import find_without_effect

__all__ = [
    "ConfigError",
    "ConfigSource",
    "LoadedConfig",
    "default_config",
    "load_config",
    "load_whereabouts",
    "replay_config",
]

_WHEREABOUTS: Final = ("node", "control")


class ConfigError(TandemError):
    """The configuration cannot be used. `problems` lists everything that is wrong with it."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        lines = [str(problem) for problem in self.problems]
        count = "1 problem" if len(lines) == 1 else f"{len(lines)} problems"
        super().__init__("\n  ".join([f"the configuration has {count}:", *lines]))


class LoadedConfig:
    """A valid configuration, and the names of the sources it came from, weakest first."""

    def __init__(self, config: NodeConfig, sources: Sources) -> None:
        self.config = config
        self.sources = tuple(sources.names)
        self._sources = sources

    def problem(self, at: KeyPath, text: str) -> Problem:
        """Return a problem that names the file or variable which wrote the setting `at`."""
        return Problem(self._sources.origin(at), show_path(self._sources.tree, at), text)

    def warnings(self, now_ns: int) -> list[Problem]:
        """Return what is written and has no effect: a node runs with it all the same. `now_ns` is since 1970."""
        found = find_without_effect(self._sources.tree, self.config, now_ns)
        return [self.problem(at, text) for at, text in found]


def load_config(path: Path | None, env: str | None, environ: Mapping[str, str]) -> LoadedConfig:
    """Load `path`, then `tandem.<env>.toml` beside it, then the `TANDEM__SECTION__KEY` variables.

    `env` falls back to the variable `TANDEM_ENV`. Without a `path` the embedded defaults stand in
    for it. Raises `ConfigError` with every problem found.
    """
    sources = _read(path, env, environ)
    return LoadedConfig(_build(sources), sources)


def load_whereabouts(path: Path | None, env: str | None, environ: Mapping[str, str]) -> NodeConfig:
    """Return `node.data_dir` and `[control]` alone, all else at its defaults: where a node is, not what it does.

    For those who have to reach a node that runs: it goes on trading while the rest of its file has a mistake. Reads
    what `load_config` does, and raises `ConfigError` for what is wrong with these two, or with a whole file.
    """
    sources = _read(path, env, environ)
    sources.tree = {name: sources.tree[name] for name in _WHEREABOUTS if name in sources.tree}
    node = sources.tree.get("node")
    if isinstance(node, dict):  # what else is there may need sections that are left out
        sources.tree["node"] = {key: value for key, value in node.items() if key == "data_dir"}
    sources.problems = [one for one in sources.problems if one.key.partition(".")[0] in ("", *_WHEREABOUTS)]
    return _build(sources)


def _read(path: Path | None, env: str | None, environ: Mapping[str, str]) -> Sources:
    sources = Sources()
    if path is None:
        sources.add_text(_default_text(), "built-in defaults")
    for file in _files(path, env, environ):
        sources.add_file(file)
    sources.add_variables(environ)
    return sources


def _files(path: Path | None, env: str | None, environ: Mapping[str, str]) -> tuple[Path, ...]:
    env = env or environ.get("TANDEM_ENV")
    files = () if path is None else (path,)
    if env:
        overlaid = path or Path("tandem.toml")
        files = (*files, overlaid.with_name(f"{overlaid.stem}.{env}{overlaid.suffix}"))
    return files


class ConfigSource:
    """Where a node's configuration is written, so that a running node can read it again.

    `adapt` is what the command line changed of it. `files` are the ones to watch, none for the
    built-in defaults.
    """

    def __init__(
        self,
        path: Path | None,
        env: str | None,
        environ: Mapping[str, str],
        adapt: Callable[[NodeConfig], NodeConfig] = lambda config: config,
    ) -> None:
        self.files = tuple(file.absolute() for file in _files(path, env, environ))
        self._arguments = path, env, dict(environ)
        self._adapt = adapt

    def load(self) -> LoadedConfig:
        """Read it as `load_config` does; raise `ConfigError`."""
        loaded = load_config(*self._arguments)
        loaded.config = self._adapt(loaded.config)
        return loaded


def default_config() -> NodeConfig:
    """Return what a node runs without a file: two market makers on the synthetic market."""
    return load_config(None, None, {}).config


def replay_config(path: Path, symbol: str, environ: Mapping[str, str] = MappingProxyType({})) -> NodeConfig:
    """Return the configuration that quotes `symbol` against the recording at `path`.

    The one instance is named `two-sided`; variables change it as they change a file. Raises
    `ConfigError`.
    """
    sources = Sources()
    sources.add_text(_REPLAY.format(symbol=symbol), f"built-in defaults for {path}")
    sources.add_variables(environ)
    return _build(sources)


_REPLAY = """
[node]
name = "replay"

[[account]]
name = "paper"
exchange = "paper"

[[instance]]
name = "two-sided"
plugin = "two_sided"
account = "paper"
symbols = ["{symbol}"]
"""


def _build(sources: Sources) -> NodeConfig:
    _spell_out_models(sources.tree)
    problems = list(sources.problems)
    for at, text in find_mistakes(sources.tree):
        problems.append(Problem(sources.origin(at), show_path(sources.tree, at), text))
    if problems:
        raise ConfigError(problems)
    return convert(sources.tree)


def _spell_out_models(tree: dict[str, object]) -> None:
    """Turn the short form `models = ["name"]` into `[{name = "name"}]`."""
    instances = tree.get("instance")
    for entry in instances if isinstance(instances, list) else ():
        models = entry.get("models") if isinstance(entry, dict) else None
        if isinstance(models, list):
            entry["models"] = [{"name": model} if isinstance(model, str) else model for model in models]


def _default_text() -> str:
    return files("host.config").joinpath("default.toml").read_text(encoding="utf-8")
