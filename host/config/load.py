"""Reads a node's configuration: a file, its overlay for an environment, and variables."""

from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from types import MappingProxyType

from host.api import TandemError
from host.config.check import convert, find_mistakes
from host.config.schema import NodeConfig
from host.config.sources import KeyPath, Problem, Sources, show_path

__all__ = ["ConfigError", "LoadedConfig", "default_config", "load_config", "replay_config"]


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


def load_config(path: Path | None, env: str | None, environ: Mapping[str, str]) -> LoadedConfig:
    """Load `path`, then `tandem.<env>.toml` beside it, then the `TANDEM__SECTION__KEY` variables.

    `env` falls back to the variable `TANDEM_ENV`. Without a `path` the embedded defaults stand in
    for it. Raises `ConfigError` with every problem found.
    """
    sources = Sources()
    env = env or environ.get("TANDEM_ENV")
    if path is None:
        sources.add_text(_default_text(), "built-in defaults")
    else:
        sources.add_file(path)
    if env:
        overlaid = path or Path("tandem.toml")
        sources.add_file(overlaid.with_name(f"{overlaid.stem}.{env}{overlaid.suffix}"))
    sources.add_variables(environ)
    return LoadedConfig(_build(sources), sources)


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
