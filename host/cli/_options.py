"""How commands find the configuration and the folders it names."""

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Final, TypeVar

import click
import msgspec

from host.config import LoadedConfig, NodeConfig, load_config, load_whereabouts

__all__ = [
    "config_options",
    "data_dir_option",
    "given_or_here",
    "journal_folder",
    "load_or_default",
    "seconds",
    "whereabouts",
    "with_data_dir",
]

F = TypeVar("F", bound=Callable[..., object])
_UNITS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}

data_dir_option = click.option(
    "--data-dir", type=click.Path(path_type=Path, file_okay=False), help="Instead of node.data_dir."
)


def seconds(_ctx: click.Context, _param: click.Parameter, value: str | None) -> float | None:
    """Read a duration such as `30s`; an option's callback, which raises `click.BadParameter`."""
    if value is None:
        return None
    match = re.fullmatch(r"(\d+(?:\.\d+)?)(ms|s|m|h)?", value)
    if match is None or float(match[1]) == 0:
        raise click.BadParameter(f'expected a duration such as 500ms, 30s, 5m or 1h, was "{value}"')
    return float(match[1]) * _UNITS[match[2] or "s"]


def config_options(command: F) -> F:
    """Add `-c` and `--env`."""
    command = click.option("--env", help="Overlay tandem.ENV.toml; the variable TANDEM_ENV says the same.")(
        command
    )
    return click.option(
        "-c",
        "--config",
        "path",
        type=click.Path(path_type=Path, dir_okay=False),
        help="Configuration file. [default: tandem.toml here if there is one, else built-in]",
    )(command)


def given_or_here(path: Path | None) -> Path | None:
    """Return the file given, or `tandem.toml` here, or None where there is none."""
    here = Path("tandem.toml")
    return path or (here if here.exists() else None)


def load_or_default(path: Path | None, env: str | None) -> LoadedConfig:
    """Load the configuration given, or `tandem.toml` here, or the built-in defaults."""
    return load_config(given_or_here(path), env, os.environ)


def whereabouts(path: Path | None, env: str | None, data_dir: Path | None) -> NodeConfig:
    """Return where the node of that configuration is; the rest of the file may have mistakes that the node refuses."""
    return with_data_dir(load_whereabouts(given_or_here(path), env, os.environ), data_dir)


def with_data_dir(config: NodeConfig, data_dir: Path | None) -> NodeConfig:
    """Return `config` with another data folder, if one is given."""
    if data_dir is None:
        return config
    return msgspec.structs.replace(config, node=msgspec.structs.replace(config.node, data_dir=data_dir))


def journal_folder(path: Path | None, env: str | None, data_dir: Path | None) -> Path:
    """Return where the journal is that these options name."""
    if data_dir is not None and any(data_dir.glob("*.seg")):
        return data_dir  # the journal's folder itself, perhaps a copy
    return whereabouts(path, env, data_dir).journal_dir
