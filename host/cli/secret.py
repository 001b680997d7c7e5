"""`tandem secret`: keys of exchange accounts, kept outside the configuration."""

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from host.cli._options import config_options, data_dir_option, load_or_default, with_data_dir
from host.cli._output import print_json, print_table

if TYPE_CHECKING:
    from host.secrets import SecretSources

__all__ = ["secret"]


@click.group()
def secret() -> None:
    """Store keys of exchange accounts outside the configuration.

    A configuration names a secret, `api_secret = "secret:NAME"`, and never holds one. With a master key,
    [secrets] master_key = "file:PATH" or the variable TANDEM_MASTER_KEY, secrets are encrypted in one file;
    without one, each is a file of mode 0600 in the node's data_dir. An account takes a new value when the
    node starts.
    """


@secret.command(
    epilog="""\b
Examples:
  tandem secret key /etc/tandem/master.key          then: [secrets] master_key = "file:/etc/tandem/master.key"
  export TANDEM_MASTER_KEY=$(cat master.key)        where a file cannot be had"""
)
@click.argument("path", type=click.Path(path_type=Path, dir_okay=False))
def key(path: Path) -> None:
    """Make a master key in a new file of mode 0600.

    Keep a copy in a safe place, and neither of them beside the store: with both, everything is open.
    """
    from host.secrets import write_new_key

    click.echo(f"{path}: master key {write_new_key(path).id}")


@secret.command(
    "set",
    epilog="""\b
Examples:
  tandem secret set binance-key                     asks, and shows nothing while you type
  tandem secret set okx/api_key                     with a master key names may have parts
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
    sources = _sources(path, env, data_dir)
    text = click.prompt(name, hide_input=True) if sys.stdin.isatty() else sys.stdin.read()
    if sources.is_encrypting:
        sources.store.set(name, text)
        if "/" not in name:
            sources.files.remove(name)  # what it held before, which nobody encrypted
        how = f"encrypted in {sources.store.path}"
    else:
        sources.files.set(name, text)
        how = f"in a file of {sources.files.folder}, not encrypted: there is no master key"
    click.echo(f'stored {how}; write "secret:{name}" in the params of an account')


@secret.command("list")
@config_options
@data_dir_option
@click.option("--json", "as_json", is_flag=True, help="One JSON list of objects: name, kept, set_at, key_id.")
def list_(path: Path | None, env: str | None, data_dir: Path | None, as_json: bool) -> None:
    """Print the names of the secrets, when each was set and under which key, never their values.

    Needs no master key.
    """
    sources = _sources(path, env, data_dir)
    rows = [
        *(
            {"name": one.name, "kept": "encrypted", "set_at": one.set_at, "key_id": one.key_id}
            for one in sources.store.listed()
        ),
        *(
            {"name": name, "kept": "file", "set_at": set_at, "key_id": ""}
            for name, set_at in sources.files.listed()
        ),
    ]
    if as_json:
        print_json(rows)
    elif rows:
        print_table("secrets", ("name", "kept", "set", "master key"), (tuple(row.values()) for row in rows))
    else:
        click.echo("there are no secrets")


@secret.command(
    epilog="""\b
Examples:
  tandem secret rotate                              a new key in the key file; older ones stay there
  tandem secret rotate --drop-old                   ... and go: no other store may need them"""
)
@config_options
@data_dir_option
@click.option("--drop-old", is_flag=True, help="Take older keys out of the key file, when all is done.")
def rotate(path: Path | None, env: str | None, data_dir: Path | None, drop_old: bool) -> None:
    """Encrypt every secret under a new master key, all or none, whatever happens meanwhile.

    A key file gets a new key before the older ones. In a variable write the new key before the older ones,
    with a space between, and give this command. Values stay as they are: a value that others may have seen is
    to be replaced at the exchange, and then with `tandem secret set`.
    """
    from host.secrets import rotate as do

    sources = _sources(path, env, data_dir)
    done = do(sources.store, sources.key_source, sources.environ, drops_old=drop_old)
    older = f"; still there: {', '.join(done.kept)}" if done.kept else ""
    click.echo(f"{done.resealed} secrets are encrypted anew, all are under {done.key_id}{older}")


@secret.command()
@click.argument("name")
@config_options
@data_dir_option
@click.option("--yes", is_flag=True, help="Do not ask.")
def remove(name: str, path: Path | None, env: str | None, data_dir: Path | None, yes: bool) -> None:
    """Delete a secret. Revoke it at the exchange as well: copies of it may exist."""
    from host.config.secret_files import SecretProblem

    sources = _sources(path, env, data_dir)
    if not yes:
        click.confirm(f"Delete the secret {name}? Accounts that name it cannot start then", abort=True)
    was_sealed = sources.store.remove(name)
    was_file = "/" not in name and sources.files.remove(name)
    if not was_sealed and not was_file:
        known = [*(one.name for one in sources.store.listed()), *sources.files.names()]
        raise SecretProblem(f'there is no secret "{name}"; there are: {", ".join(known) or "none"}')
    click.echo("removed")


def _sources(path: Path | None, env: str | None, data_dir: Path | None) -> "SecretSources":
    from host.secrets import SecretSources

    config = with_data_dir(load_or_default(path, env).config, data_dir)
    return SecretSources(config, os.environ)
