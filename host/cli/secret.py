"""`tandem secret`: keys of exchange accounts, kept outside the configuration."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from host.cli._options import config_options, data_dir_option, load_or_default, with_data_dir
from host.cli._output import print_json

if TYPE_CHECKING:
    from host.config.secret_files import SecretFiles

__all__ = ["secret"]


@click.group()
def secret() -> None:
    """Store keys of exchange accounts outside the configuration.

    A configuration names a secret, `api_secret = "secret:NAME"`, and never holds one. Each is a file of
    mode 0600 in the node's data_dir. An account takes a new value when the node starts.
    """


@secret.command(
    "set",
    epilog="""\b
Examples:
  tandem secret set binance-key                     asks, and shows nothing while you type
  tandem secret set binance-pem < ed25519.pem
  pass show binance | tandem secret set binance-key""",
)
@click.argument("name")
@config_options
@data_dir_option
def set_(name: str, path: Path | None, env: str | None, data_dir: Path | None) -> None:
    """Store a secret, read from standard input; it replaces what NAME held.

    There is no option for the value: command lines are seen by every user of the machine.
    """
    secrets = _secrets(path, env, data_dir)
    text = click.prompt(name, hide_input=True) if sys.stdin.isatty() else sys.stdin.read()
    secrets.set(name, text)
    click.echo(f'stored; write "secret:{name}" in the params of an account')


@secret.command("list")
@config_options
@data_dir_option
@click.option("--json", "as_json", is_flag=True, help="One JSON list.")
def list_(path: Path | None, env: str | None, data_dir: Path | None, as_json: bool) -> None:
    """Print the names of the secrets, never their values."""
    names = _secrets(path, env, data_dir).names()
    if as_json:
        print_json(names)
    else:
        click.echo("\n".join(names) or "there are no secrets")


@secret.command()
@click.argument("name")
@config_options
@data_dir_option
@click.option("--yes", is_flag=True, help="Do not ask.")
def remove(name: str, path: Path | None, env: str | None, data_dir: Path | None, yes: bool) -> None:
    """Delete a secret. Revoke it at the exchange as well: copies of it may exist."""
    secrets = _secrets(path, env, data_dir)
    if not yes:
        click.confirm(f"Delete the secret {name}? Accounts that name it cannot start then", abort=True)
    secrets.remove(name)
    click.echo("removed")


def _secrets(path: Path | None, env: str | None, data_dir: Path | None) -> "SecretFiles":
    from host.config.secret_files import SECRETS_FOLDER, SecretFiles

    config = with_data_dir(load_or_default(path, env).config, data_dir)
    return SecretFiles(config.node.data_dir / SECRETS_FOLDER)
