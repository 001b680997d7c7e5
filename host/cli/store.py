"""`tandem store`: the SQL projection of the journal."""

from pathlib import Path

import click

from host.cli._options import config_options, data_dir_option, load_or_default, with_data_dir

__all__ = ["store"]


@click.group()
def store() -> None:
    """Look after the SQL projection of the journal."""


@store.command(
    epilog="""\b
Examples:
  tandem store rebuild
  tandem store rebuild -c prod/tandem.toml --url postgresql://tandem@db/tandem"""
)
@config_options
@data_dir_option
@click.option("--url", help="SQLAlchemy URL, instead of store.url.")
def rebuild(path: Path | None, env: str | None, data_dir: Path | None, url: str | None) -> None:
    """Empty the projection's tables and fill them again from the journal.

    The journal is the truth; nothing is lost by this.
    """
    from host.store import rebuild as rebuild_store

    config = with_data_dir(load_or_default(path, env).config, data_dir)
    target = url or config.store_url
    if not target:
        raise click.UsageError("store.url is empty, which turns the store off; name a database with --url")
    rebuilt = rebuild_store(config.journal_dir, target)
    click.echo(f"entries {rebuilt.first_lsn} to {rebuilt.last_lsn} projected")
