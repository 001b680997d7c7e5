"""Leases in SQL: a SQLite file for nodes of one machine, PostgreSQL for several.

One row per cell, one statement per call, each its own transaction: that alone makes the calls
linearisable on both.
"""

import asyncio
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, TypeVar

from sqlalchemy import (
    URL,
    BigInteger,
    Column,
    ColumnElement,
    Connection,
    Engine,
    Integer,
    MetaData,
    Row,
    Table,
    Text,
    and_,
    create_engine,
    delete,
    event,
    insert,
    inspect,
    select,
    text,
    update,
)
from sqlalchemy.exc import DBAPIError, IntegrityError, NoSuchModuleError, SQLAlchemyError
from sqlalchemy.pool import NullPool

from failover.lease.contract import LeaseStore
from failover.lease.errors import LeaseConfigError, LeaseDamagedError, LeaseUnansweredError
from failover.lease.record import Record, Status, check_record
from failover.lease.worker import ConnectionWorker

__all__ = ["SqlLeaseStore"]

T = TypeVar("T")

MAX_HANGING_CALLS: Final = 4
"""How many calls may hang past their deadline before the next one is refused without a try.

A driver that connects cannot be interrupted; without a bound each attempt of a long outage would leave
one more thread behind.
"""

SQLITE_BUSY_TIMEOUT_S: Final = 0.25
"""How long a call waits for another process's write; those take a millisecond."""

POSTGRESQL_CONNECT_TIMEOUT_S: Final = 2
"""The least that libpq allows."""

_LEASES = Table(
    "tandem_lease",
    MetaData(),
    Column("cell", Text, primary_key=True),
    Column("epoch", BigInteger, nullable=False),
    Column("holder", Text, nullable=False),
    Column("session", Text, nullable=False),
    Column("ttl_ms", Integer, nullable=False),
    Column("renewal", BigInteger, nullable=False),
    Column("status", Text, nullable=False),
    Column("heir", Text, nullable=False),
)


class SqlLeaseStore(LeaseStore):
    """Leases in the table `tandem_lease`, which is made where it is missing.

    Connects at the first call. Raises `LeaseConfigError` where the driver of `url` is not installed.
    """

    def __init__(self, url: URL) -> None:
        self._engine = _open_engine(url)
        self._name = url.render_as_string(hide_password=True)
        self._worker: ConnectionWorker | None = None
        self._hanging: list[ConnectionWorker] = []
        self._is_closed = False

    @property
    def name(self) -> str:
        """The URL, without its password."""
        return self._name

    async def read(self, cell: str, deadline_s: float) -> Record | None:
        """Read one row by its key."""
        statement = select(_LEASES).where(_LEASES.c.cell == cell)
        row = await self._run(lambda connection: connection.execute(statement).one_or_none(), deadline_s)
        return None if row is None else _record(row, cell)

    async def swap(self, expected: Record | None, new: Record, deadline_s: float) -> bool:
        """Update one row whose every column is as expected, or insert it."""
        if expected is None:
            return await self._run(lambda connection: _insert(connection, new), deadline_s)
        statement = update(_LEASES).where(_is(expected)).values(_values(new))
        return await self._run(lambda connection: connection.execute(statement).rowcount == 1, deadline_s)

    async def remove(self, record: Record, deadline_s: float) -> bool:
        """Delete one row whose every column is as expected."""
        statement = delete(_LEASES).where(_is(record))
        return await self._run(lambda connection: connection.execute(statement).rowcount == 1, deadline_s)

    async def cells(self, deadline_s: float) -> list[str]:
        """Read all keys."""
        statement = select(_LEASES.c.cell).order_by(_LEASES.c.cell)
        return await self._run(lambda connection: list(connection.execute(statement).scalars()), deadline_s)

    async def minimum_ttl_ms(self, deadline_s: float) -> int:
        """Return 0: neither database elects leaders by itself."""
        return 0

    async def close(self) -> None:
        """Close the connection and end the thread."""
        self._is_closed = True
        if self._worker is not None:
            self._worker.cut()
            self._worker = None

    async def _run(self, work: Callable[[Connection], T], deadline_s: float) -> T:
        if self._is_closed:
            raise LeaseUnansweredError(self._name, "it was closed by this process")
        self._hanging = [worker for worker in self._hanging if worker.is_busy]
        if len(self._hanging) >= MAX_HANGING_CALLS:
            raise LeaseUnansweredError(self._name, f"{len(self._hanging)} earlier calls still hang")
        if self._worker is None:
            self._worker = ConnectionWorker(self._connect)
        worker = self._worker
        future = worker.submit(work)
        try:
            async with asyncio.timeout(deadline_s):
                return await future
        except TimeoutError as error:
            self._give_up(worker)
            raise LeaseUnansweredError(self._name, f"no answer within {deadline_s * 1000:.0f} ms") from error
        except asyncio.CancelledError:
            self._give_up(worker)
            raise
        except SQLAlchemyError as error:
            self._give_up(worker)
            raise LeaseUnansweredError(self._name, _one_line(error)) from error

    def _give_up(self, worker: ConnectionWorker) -> None:
        if worker is self._worker:
            self._worker = None
        worker.cut()
        if worker.is_busy:
            self._hanging.append(worker)

    def _connect(self) -> Connection:
        connection = self._engine.connect()
        try:
            if self._engine.dialect.name == "postgresql":
                self._prepare_postgresql(connection)
            _make_table(connection)
        except BaseException:
            connection.close()
            raise
        return connection

    def _prepare_postgresql(self, connection: Connection) -> None:
        if connection.execute(text("SELECT pg_is_in_recovery()")).scalar_one():
            raise LeaseUnansweredError(
                self._name, "this server is a replica, which may lag; name the primary"
            )
        # A commit that is confirmed before it is on disk can be forgotten: two nodes would hold the lease.
        if connection.execute(text("SHOW synchronous_commit")).scalar_one() in ("off", "local"):
            connection.execute(text("SET synchronous_commit TO on"))


def _open_engine(url: URL) -> Engine:
    if url.get_backend_name() == "sqlite":
        if url.database:
            Path(url.database).parent.mkdir(parents=True, exist_ok=True)
        engine = create_engine(
            url,
            poolclass=NullPool,
            isolation_level="AUTOCOMMIT",
            connect_args={"timeout": SQLITE_BUSY_TIMEOUT_S},
        )
        event.listen(engine, "connect", _prepare_sqlite)
        return engine
    if url.drivername == "postgresql":
        url = url.set(drivername="postgresql+psycopg")
    url = url.update_query_dict(
        {"connect_timeout": str(POSTGRESQL_CONNECT_TIMEOUT_S), "application_name": "tandem-lease"}
    )
    try:
        return create_engine(url, poolclass=NullPool, isolation_level="AUTOCOMMIT")
    except (ModuleNotFoundError, NoSuchModuleError) as error:
        raise LeaseConfigError(
            f"lease URL: {url.drivername} needs a driver that is not installed ({error}); "
            "install it with `pip install tandem[postgres]`"
        ) from error


def _prepare_sqlite(connection: sqlite3.Connection, _record: object) -> None:
    connection.execute("PRAGMA journal_mode=WAL")
    # The record outlives a power cut: a node must not come back to an epoch that was used before.
    connection.execute("PRAGMA synchronous=FULL")


def _make_table(connection: Connection) -> None:
    try:
        _LEASES.create(connection, checkfirst=True)
    except DBAPIError:
        if not inspect(connection).has_table(_LEASES.name):
            raise
        # Two nodes that start together both found it missing: the other one was first.


def _insert(connection: Connection, record: Record) -> bool:
    try:
        connection.execute(insert(_LEASES).values(_values(record)))
    except IntegrityError:
        return False
    return True


def _values(record: Record) -> dict[str, Any]:
    return {column.name: getattr(record, column.name) for column in _LEASES.c} | {
        "status": record.status.value
    }


def _is(record: Record) -> ColumnElement[bool]:
    values = _values(record)
    return and_(*(column == values[column.name] for column in _LEASES.c))


def _record(row: Row[Any], cell: str) -> Record:
    values = dict(row._mapping)
    try:
        values["status"] = Status(values["status"])
    except ValueError as error:
        raise LeaseDamagedError(cell, f"its status is {values['status']!r}") from error
    return check_record(Record(**values), cell)


def _one_line(error: SQLAlchemyError) -> str:
    return " ".join(str(getattr(error, "orig", None) or error).split())
