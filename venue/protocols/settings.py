"""Where protocols are spoken, who has an account, and what goes wrong from the start."""

import tomllib
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct, field

from host.api import TandemError
from venue.protocols.accounts import DEMO_ACCOUNTS, KeyedAccount
from venue.protocols.faults import Fault, FaultError

__all__ = ["Settings", "SettingsError", "load_settings"]


class SettingsError(TandemError):
    """A settings file that cannot be read; the message names the file and the field."""


class Settings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All of it; the command line's flags go before the file's."""

    listen: dict[str, str] = field(default_factory=dict)
    """Address (`host:port`, port 0 for any) by protocol name; a protocol without one is not spoken."""
    admin: str = ""
    """Address of the admin HTTP; empty for none."""
    requests: str = ""
    """File that the request log is written to; empty keeps it in memory alone."""
    has_rate_limits: bool = True
    funding_rate: Decimal = Decimal("0.0001")
    """What longs pay shorts of a perpetual each `funding_hours`, as a fraction of the value."""
    funding_hours: float = 8.0
    """In market time, counted from midnight UTC; 0 for no funding."""
    account: list[KeyedAccount] = field(default_factory=lambda: list(DEMO_ACCOUNTS))
    fault: list[Fault] = field(default_factory=list)


def load_settings(path: Path) -> Settings:
    """Read a TOML file. Raises `SettingsError`."""
    try:
        data: dict[str, Any] = tomllib.loads(path.read_text())
        return msgspec.convert(data, Settings, strict=False)
    except (OSError, tomllib.TOMLDecodeError, msgspec.ValidationError, FaultError) as error:
        raise SettingsError(f"{path}: {error}; see docs/venue.md for what it may hold") from error
