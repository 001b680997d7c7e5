"""Opens the database of a projection from its URL."""

import sqlite3
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, create_engine, event
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, NoSuchModuleError

from host.store.errors import StoreError

__all__ = ["database_name", "one_line", "open_engine"]

SQLITE_BUSY_TIMEOUT_S = 10.0
"""How long one connection waits for another's write. Readers never wait: the log is write-ahead."""

POSTGRESQL_CONNECT_TIMEOUT_S = 5


def open_engine(url: str) -> Engine:
    """Return an engine for `sqlite:///path` or `postgresql://...`; connects at first use.

    A missing folder of a SQLite file is created. Raises `StoreError` for a URL that cannot work.
    """
    try:
        parsed = make_url(url)
    except ArgumentError as error:
        raise StoreError(
            f"database URL: expected sqlite:///PATH or postgresql://USER@HOST/NAME, was {url!r}"
        ) from error
    match parsed.get_backend_name():
        case "sqlite":
            return _open_sqlite(parsed)
        case "postgresql":
            return _open_postgresql(parsed)
        case other:
            raise StoreError(f"database URL: expected sqlite or postgresql, was {other!r}")


def database_name(engine: Engine) -> str:
    """Return the URL without its password, for messages."""
    return engine.url.render_as_string(hide_password=True)


def one_line(error: Exception) -> str:
    """Return what the driver said, without the statement, parameters and link that SQLAlchemy adds."""
    return " ".join(str(getattr(error, "orig", None) or error).split())


def _open_sqlite(url: URL) -> Engine:
    if url.database and url.database != ":memory:":
        Path(url.database).parent.mkdir(parents=True, exist_ok=True)
    engine = create_engine(url, connect_args={"timeout": SQLITE_BUSY_TIMEOUT_S})

    @event.listens_for(engine, "connect")
    def _prepare(connection: Any, _record: object) -> None:
        assert isinstance(connection, sqlite3.Connection)
        connection.execute("PRAGMA journal_mode=WAL")
        # Without a sync at each commit a power cut may lose the last batches, never half of one;
        # they are projected again from the journal.
        connection.execute("PRAGMA synchronous=NORMAL")

    return engine


def _open_postgresql(url: URL) -> Engine:
    if url.drivername == "postgresql":
        url = url.set(drivername="postgresql+psycopg")
    if "connect_timeout" not in url.query:
        url = url.update_query_dict({"connect_timeout": str(POSTGRESQL_CONNECT_TIMEOUT_S)})
    try:
        return create_engine(url)
    except (ModuleNotFoundError, NoSuchModuleError) as error:
        raise StoreError(
            f"database URL: {url.drivername} needs a driver that is not installed ({error}); "
            "install it with `pip install tandem[postgres]`"
        ) from error
