"""`tandem token`: what other programs and people show to the control API."""

import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from host.cli._options import config_options, data_dir_option, load_or_default, with_data_dir
from host.cli._output import print_json, print_table

if TYPE_CHECKING:
    from host.control.tokens import TokenRecord, TokenStore

__all__ = ["token"]

ROLES: Final = ("viewer", "operator", "trader", "admin")
_UNITS_S: Final = {"m": 60, "h": 3_600, "d": 86_400}


class _Lifetime(click.ParamType[int | None]):
    """`90d`, `12h`, `30m` in nanoseconds, or None for `never`."""

    name = "time"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> int | None:
        text = str(value)
        if text == "never":
            return None
        number, unit = text[:-1], text[-1:]
        if unit not in _UNITS_S or not number.isascii() or not number.isdigit() or not int(number):
            self.fail(f'expected a time such as 90d, 12h or 30m, or never; was "{text}"', param, ctx)
        return int(number) * _UNITS_S[unit] * 1_000_000_000


@click.group()
def token() -> None:
    """Make, list and revoke tokens of the control API.

    A node that runs minds the change at once: no restart is needed.
    """


@token.command(
    epilog="""\b
Examples:
  tandem token create grafana --role viewer
  tandem token create deploy --role operator --expires 12h
  TOKEN=$(tandem token create ci --role operator --quiet)"""
)
@click.argument("name")
@click.option("--role", required=True, type=click.Choice(ROLES), help="What its holder may do.")
@click.option(
    "--expires", default="90d", show_default=True, type=_Lifetime(), help="From now: 90d, 12h, 30m or never."
)
@click.option("--quiet", is_flag=True, help="Print the token and nothing else.")
@config_options
@data_dir_option
def create(
    name: str,
    role: str,
    expires: int | None,
    quiet: bool,
    path: Path | None,
    env: str | None,
    data_dir: Path | None,
) -> None:
    """Make a token for NAME and print it, this once: it is stored as a hash only.

    NAME is what the audit log calls its holder.
    """
    from host.control.principal import Role

    now_ns = time.time_ns()
    store = _store(path, env, data_dir)
    text = store.create(name, Role.parse(role), now_ns, None if expires is None else now_ns + expires)
    click.echo(text)
    if not quiet:
        until = "never expires" if expires is None else f"expires at {_shown(now_ns + expires)}"
        click.echo(
            f"{name} is {role}; the token {until}. It is shown this once. Send it as\n"
            "  authorization: Bearer TOKEN",
            err=True,
        )


@token.command("list")
@config_options
@data_dir_option
@click.option("--json", "as_json", is_flag=True, help="One JSON list.")
def list_(path: Path | None, env: str | None, data_dir: Path | None, as_json: bool) -> None:
    """Print the tokens there are: id, holder, role and times, never the tokens themselves."""
    records = _store(path, env, data_dir).records()
    now_ns = time.time_ns()
    if as_json:
        print_json([_described(record, now_ns) for record in records])
    else:
        rows = (_described(record, now_ns) for record in records)
        print_table(
            "tokens", ("id", "name", "role", "created", "expires", "state"), (tuple(r.values()) for r in rows)
        )


@token.command(epilog="Example:\n  tandem token revoke grafana")
@click.argument("id_or_name")
@config_options
@data_dir_option
def revoke(id_or_name: str, path: Path | None, env: str | None, data_dir: Path | None) -> None:
    """Take a token back, named by its id or its holder: it is refused from the next call on."""
    for record in _store(path, env, data_dir).revoke(id_or_name):
        click.echo(f"revoked {record.name} ({record.id}, {record.role})")


def _described(record: "TokenRecord", now_ns: int) -> dict[str, str]:
    return {
        "id": record.id,
        "name": record.name,
        "role": record.role,
        "created": _shown(record.created_ns),
        "expires": "never" if record.expires_ns is None else _shown(record.expires_ns),
        "state": "expired" if record.is_expired(now_ns) else "valid",
    }


def _store(path: Path | None, env: str | None, data_dir: Path | None) -> "TokenStore":
    from host.control.tokens import TOKENS_FILE, TokenStore

    config = with_data_dir(load_or_default(path, env).config, data_dir)
    return TokenStore.open(config.node.data_dir / TOKENS_FILE)


def _shown(ns: int) -> str:
    return f"{datetime.fromtimestamp(ns // 1_000_000_000, UTC):%Y-%m-%dT%H:%M:%SZ}"
