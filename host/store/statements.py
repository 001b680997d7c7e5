"""Inserts and upserts, written once for both databases."""

from collections.abc import Sequence
from functools import cache
from typing import Any

from sqlalchemy import Connection, Table, func
from sqlalchemy.dialects import postgresql, sqlite

__all__ = ["Row", "insert_new", "upsert"]

Row = dict[str, Any]

_FIRST_VALUE_STAYS = frozenset({"created_lsn", "done_lsn"})


def upsert(connection: Connection, table: Table, rows: Sequence[Row]) -> None:
    """Insert rows; where the primary key exists, write the other columns over.

    `created_lsn` and `done_lsn` keep the first value that was not NULL.
    """
    if rows:
        connection.execute(_upsert(connection.dialect.name, table), rows)


def insert_new(connection: Connection, table: Table, rows: Sequence[Row]) -> None:
    """Insert rows; one whose primary key exists changes nothing."""
    if rows:
        connection.execute(_insert(connection.dialect.name, table).on_conflict_do_nothing(), rows)


@cache
def _upsert(dialect: str, table: Table) -> sqlite.Insert | postgresql.Insert:
    statement = _insert(dialect, table)
    written = {
        column.name: func.coalesce(column, statement.excluded[column.name])
        if column.name in _FIRST_VALUE_STAYS
        else statement.excluded[column.name]
        for column in table.columns
        if not column.primary_key
    }
    return statement.on_conflict_do_update(index_elements=list(table.primary_key.columns), set_=written)


def _insert(dialect: str, table: Table) -> sqlite.Insert | postgresql.Insert:
    return sqlite.insert(table) if dialect == "sqlite" else postgresql.insert(table)
