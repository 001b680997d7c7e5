"""The configuration as clients may see it: secrets left out."""

import re
from collections.abc import Mapping
from typing import Any, Final

import msgspec
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

from host.config import NodeConfig

__all__ = ["HIDDEN", "shown_config"]

HIDDEN: Final = "***"
_SECRET: Final = re.compile(r"secret|password|passphrase|token|api_?key|private|credential", re.IGNORECASE)


def shown_config(config: NodeConfig) -> dict[str, Any]:
    """Return a configuration as plain data. Whatever a key's name calls a secret is `***`, and so is
    the password of a database."""
    shown: dict[str, Any] = msgspec.to_builtins(config, enc_hook=str)
    if config.store.url:
        shown["store"]["url"] = _without_password(config.store.url)
    if config.failover is not None:
        shown["failover"]["lease"] = _without_password(config.failover.lease)
    return {key: _hide(value) for key, value in shown.items()}


def _hide(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {
            key: HIDDEN if _SECRET.search(str(key)) and isinstance(one, str | bytes) else _hide(one)
            for key, one in value.items()
        }
    return [_hide(one) for one in value] if isinstance(value, list | tuple) else value


def _without_password(url: str) -> str:
    if url.startswith("etcd://"):
        return url  # hosts and ports alone
    try:
        return make_url(url).render_as_string(hide_password=True)
    except ArgumentError:
        return HIDDEN
