"""Reads the projection for people and reports."""

from decimal import Decimal
from typing import Any, TypeVar

import msgspec
from msgspec import Struct
from sqlalchemy import Engine, Select, select

from host.api import Fill, Order
from host.store import schema
from host.store.rows import order_from

__all__ = ["EquityPoint", "equity", "fills", "orders"]

T = TypeVar("T", bound=Struct)


class EquityPoint(Struct, frozen=True):
    """Profit and loss of one instance in one symbol at one moment, in settlement currency."""

    ts_ns: int
    account: str
    instance: str
    symbol: str
    mark: Decimal
    qty: Decimal
    realised: Decimal
    unrealised: Decimal
    fees: Decimal
    total: Decimal


def orders(
    engine: Engine,
    *,
    instance: str | None = None,
    symbol: str | None = None,
    is_live: bool | None = None,
    limit: int = 100,
) -> list[Order]:
    """Return orders, the newest first. `is_live` keeps those that may still trade, or those that not."""
    table = schema.orders
    query = _where(select(table), instance=instance, symbol=symbol)
    if is_live is not None:
        query = query.where(table.c.done_lsn.is_(None) if is_live else table.c.done_lsn.is_not(None))
    query = query.order_by(table.c.created_lsn.desc()).limit(limit)
    with engine.connect() as connection:
        return [order_from(row) for row in connection.execute(query).mappings()]


def fills(
    engine: Engine,
    *,
    instance: str | None = None,
    symbol: str | None = None,
    client_id: str | None = None,
    limit: int = 100,
) -> list[Fill]:
    """Return fills, the newest first."""
    table = schema.fills
    query = _where(select(table), instance=instance, symbol=symbol, client_id=client_id)
    return _fetch(engine, query.order_by(table.c.lsn.desc()).limit(limit), Fill)


def equity(
    engine: Engine,
    *,
    instance: str | None = None,
    symbol: str | None = None,
    since_ns: int = 0,
    limit: int = 10_000,
) -> list[EquityPoint]:
    """Return marks at or after `since_ns`, the oldest first."""
    table = schema.equity
    query = _where(select(table), instance=instance, symbol=symbol).where(table.c.ts_ns >= since_ns)
    return _fetch(engine, query.order_by(table.c.lsn).limit(limit), EquityPoint)


def _where(query: Select[Any], **wanted: str | None) -> Select[Any]:
    columns = query.selected_columns
    for name, value in wanted.items():
        if value is not None:
            query = query.where(columns[name] == value)
    return query


def _fetch(engine: Engine, query: Select[Any], type_: type[T]) -> list[T]:
    names = type_.__struct_fields__
    with engine.connect() as connection:
        rows = connection.execute(query).mappings()
        return [msgspec.convert({name: row[name] for name in names}, type_) for row in rows]
