"""A store with its key file, as `tandem secret` makes them."""

from collections.abc import Mapping
from pathlib import Path

from host.config import NodeConfig, NodeSection, SecretsSection
from host.secrets import SecretSources, write_new_key

VALUES = {"okx/api_key": "8a1f-the-key", "okx/api_secret": "Zk3+quite/a=secret", "pem": "-----A\nB-----"}


def sources_at(folder: Path, environ: Mapping[str, str] = {}, *, has_key_file: bool = True) -> SecretSources:
    """Return what a node in `folder` finds its secrets by."""
    key = folder / "master.key"
    section = SecretsSection(master_key=f"file:{key}") if has_key_file else SecretsSection()
    return SecretSources(NodeConfig(node=NodeSection(data_dir=folder / "data"), secrets=section), environ)


def filled_store(folder: Path) -> SecretSources:
    """Make a key file and a store with `VALUES`."""
    write_new_key(folder / "master.key")
    sources = sources_at(folder)
    for name, value in VALUES.items():
        sources.store.set(name, value)
    return sources


def values_at(folder: Path) -> dict[str, str]:
    """Open every secret of the store, as a new process would."""
    sources = sources_at(folder)
    return {one.name: sources.get(one.name).reveal() for one in sources.store.listed()}
