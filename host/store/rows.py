"""The trading core's objects as table rows, and back."""

from collections.abc import Iterable
from decimal import Decimal

import msgspec
from msgspec.structs import asdict
from sqlalchemy import Connection, RowMapping, Table, select

from host.api import Fill, Instrument, Order
from host.core.accounting import Holding
from host.core.entries import InstanceState
from host.core.state import RETIRED_LIMIT, InstanceRecord, TradingState
from host.store import schema
from host.store.statements import Row

__all__ = [
    "fill_row",
    "instance_row",
    "instrument_row",
    "load_locked",
    "load_state",
    "order_from",
    "order_row",
    "position_row",
]

_JSON = msgspec.json.Encoder(decimal_format="string")
_HOLDING = msgspec.json.Decoder(Holding)
_INSTRUMENT = msgspec.json.Decoder(Instrument)
_NAMES = msgspec.json.Decoder(list[str])
_ORDER_FIELDS = [name for name in Order.__struct_fields__ if name != "trade_ids"]


def order_row(order: Order, created_lsn: int, done_lsn: int | None, lsn: int) -> Row:
    """Return the row of `order`."""
    row = {name: getattr(order, name) for name in _ORDER_FIELDS}
    row["trade_ids"] = _JSON.encode(order.trade_ids).decode() if order.trade_ids else "[]"
    row["created_lsn"] = created_lsn
    row["done_lsn"] = done_lsn
    row["lsn"] = lsn
    return row


def order_from(row: RowMapping) -> Order:
    """Return the order of a row."""
    fields = {name: row[name] for name in _ORDER_FIELDS}
    return msgspec.convert({**fields, "trade_ids": _NAMES.decode(row["trade_ids"])}, Order)


def fill_row(fill: Fill, lsn: int) -> Row:
    """Return the row of `fill`."""
    return {**asdict(fill), "lsn": lsn}


def instance_row(record: InstanceRecord, lsn: int) -> Row:
    """Return the row of an instance; the state that its strategy saved stays in the journal."""
    return {
        "instance": record.instance,
        "number": record.number,
        "plugin": record.plugin,
        "digest": record.digest,
        "account": record.account,
        "symbols": _JSON.encode(record.symbols).decode(),
        "params": record.params.decode(),
        "state": record.state,
        "reason": record.reason,
        "lsn": lsn,
    }


def instrument_row(account: str, instrument: Instrument, lsn: int) -> Row:
    """Return the row of what `account`'s venue allows for one symbol."""
    return {
        "account": account,
        "symbol": instrument.symbol,
        "instrument": _JSON.encode(instrument).decode(),
        "lsn": lsn,
    }


def position_row(state: TradingState, instance: str, symbol: str, lsn: int) -> Row:
    """Return the row of what `instance` holds in `symbol`."""
    record = state.instances.get(instance)
    holding = state.holding(instance, symbol)
    return {
        "instance": instance,
        "symbol": symbol,
        "account": record.account if record is not None else instance.partition("@")[2],
        "qty": holding.qty,
        "open_cost": holding.open_cost,
        "cash": holding.cash,
        "holding": _JSON.encode(holding).decode(),
        "lsn": lsn,
    }


def load_state(connection: Connection) -> TradingState:
    """Return the part of the trading state that the projection folds with, as of its last entry.

    Left out, because no row depends on it: kill switches, saved strategy state, the venue's own
    view of positions.
    """
    state = TradingState()
    for row in _all(connection, schema.instances):
        state.instances[row["instance"]] = InstanceRecord(
            row["instance"],
            row["number"],
            row["plugin"],
            row["digest"],
            row["account"],
            tuple(_NAMES.decode(row["symbols"])),
            row["params"].encode(),
            InstanceState(row["state"]),
            row["reason"],
        )
    for row in _all(connection, schema.instruments):
        by_symbol = state.instruments.setdefault(row["account"], {})
        by_symbol[row["symbol"]] = _INSTRUMENT.decode(row["instrument"])
    for row in _all(connection, schema.positions):
        state.holdings.setdefault(row["instance"], {})[row["symbol"]] = _HOLDING.decode(row["holding"])
    for row in _all(connection, schema.balances):
        state.balances.setdefault(row["account"], {})[row["currency"]] = row["total"]
    _load_orders(connection, state)
    return state


def load_locked(connection: Connection) -> dict[tuple[str, str], Decimal]:
    """Return what the venue last said is locked, by account and currency."""
    return {(row["account"], row["currency"]): row["locked"] for row in _all(connection, schema.balances)}


def _load_orders(connection: Connection, state: TradingState) -> None:
    table = schema.orders
    live = select(table).where(table.c.done_lsn.is_(None)).order_by(table.c.created_lsn)
    latest = select(table).where(table.c.done_lsn.is_not(None))
    latest = latest.order_by(table.c.done_lsn.desc(), table.c.updated_ns.desc()).limit(RETIRED_LIMIT)
    for row in connection.execute(live).mappings():
        state.orders[row["client_id"]] = order_from(row)
    for row in reversed(connection.execute(latest).mappings().all()):
        state.retired[row["client_id"]] = order_from(row)


def _all(connection: Connection, table: Table) -> Iterable[RowMapping]:
    return connection.execute(select(table)).mappings()
