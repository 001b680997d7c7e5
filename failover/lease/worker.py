"""A thread with one database connection, for drivers that block: calls get a deadline that holds."""

import asyncio
import os
import socket
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

from sqlalchemy import Connection

from failover.lease.errors import LeaseError

__all__ = ["ConnectionWorker"]

T = TypeVar("T")


class ConnectionWorker:
    """Runs calls one after the other on a thread of its own, on a connection that `connect` opens there.

    After `cut()` it runs nothing more: a call that missed its deadline must not keep the next one waiting.
    """

    def __init__(self, connect: Callable[[], Connection]) -> None:
        self._connect = connect
        self._executor = ThreadPoolExecutor(1, "lease")
        self._connection: Connection | None = None
        self._is_cut = False
        self._pending = 0

    @property
    def is_busy(self) -> bool:
        """Whether a call is still running or waiting, even one whose caller has left."""
        return self._pending > 0

    def submit(self, work: Callable[[Connection], T]) -> "asyncio.Future[T]":
        """Run `work` on the thread."""
        future = self._executor.submit(self._call, work)
        self._pending += 1
        future.add_done_callback(self._done)
        return asyncio.wrap_future(future)

    def cut(self) -> None:
        """Make a call that hangs fail, run no other, and close the connection once the thread is free."""
        if self._is_cut:
            return
        self._is_cut = True
        connection = self._connection
        if connection is not None and self.is_busy:
            _shut_socket(connection)
        self._executor.submit(self._hang_up)
        self._executor.shutdown(wait=False)

    def _done(self, _future: "Future[Any]") -> None:
        self._pending -= 1

    def _call(self, work: Callable[[Connection], T]) -> T:
        connection = self._connection
        if connection is None and not self._is_cut:
            connection = self._connection = self._connect()
        if self._is_cut or connection is None:
            raise LeaseError("the deadline passed before the call began")
        result = work(connection)
        connection.rollback()  # ends SQLAlchemy's bookkeeping; every statement has committed by itself
        return result

    def _hang_up(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()


def _shut_socket(connection: Connection) -> None:
    """Wake a thread that waits for PostgreSQL. SQLite needs none of it: its waits are limited."""
    pgconn = getattr(connection.connection.dbapi_connection, "pgconn", None)
    if pgconn is None:
        return
    from psycopg import OperationalError

    try:
        with socket.socket(fileno=os.dup(pgconn.socket)) as duplicate:
            duplicate.shutdown(socket.SHUT_RDWR)
    except (OSError, OperationalError):
        return  # closed in the meantime: nobody waits for it any more
