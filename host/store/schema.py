"""The tables of the projection. A change of shape raises `SCHEMA_VERSION`; a rebuild fills the new one.

Times are nanoseconds since the Unix epoch, money is exact, `lsn` is the journal entry that a row
last changed with. No foreign keys: the journal has already decided what is true.
"""

from typing import Final

from sqlalchemy import Boolean, Column, Index, Integer, MetaData, String, Table, Text

from host.store.columns import BigInt, ExactDecimal, FreeText

__all__ = [
    "SCHEMA_VERSION",
    "balance_history",
    "balances",
    "equity",
    "events",
    "fills",
    "instances",
    "instruments",
    "metadata",
    "orders",
    "params_history",
    "positions",
    "projection",
]

SCHEMA_VERSION: Final = 2

metadata = MetaData()

projection = Table(
    "projection",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),  # always 1: there is one row
    Column("schema_version", Integer, nullable=False),
    Column("node", String, nullable=False),
    Column("cell", String, nullable=False),
    Column("first_lsn", BigInt, nullable=False),  # above 1: the journal had been pruned before it
    Column("last_lsn", BigInt, nullable=False),
    Column("last_ts_ns", BigInt, nullable=False),
)

instances = Table(
    "instances",
    metadata,
    Column("instance", String, primary_key=True),
    Column("number", Integer, nullable=False),
    Column("plugin", String, nullable=False),
    Column("digest", String, nullable=False),
    Column("account", String, nullable=False),
    Column("symbols", Text, nullable=False),  # JSON list
    Column("params", FreeText, nullable=False),  # JSON object
    Column("state", String, nullable=False),
    Column("reason", FreeText, nullable=False),
    Column("lsn", BigInt, nullable=False),
)

params_history = Table(
    "params_history",
    metadata,
    Column("lsn", BigInt, primary_key=True, autoincrement=False),
    Column("ts_ns", BigInt, nullable=False),
    Column("instance", String, nullable=False, index=True),
    Column("params", FreeText, nullable=False),
    Column("who", FreeText, nullable=False),
)

instruments = Table(
    "instruments",
    metadata,
    Column("account", String, primary_key=True),
    Column("symbol", String, primary_key=True),
    Column("instrument", Text, nullable=False),  # JSON of host.api.Instrument
    Column("lsn", BigInt, nullable=False),
)

orders = Table(
    "orders",
    metadata,
    Column("client_id", String, primary_key=True),
    Column("instance", String, nullable=False),
    Column("account", String, nullable=False),
    Column("symbol", String, nullable=False),
    Column("side", String, nullable=False),
    Column("type", String, nullable=False),
    Column("time_in_force", String, nullable=False),
    Column("price", ExactDecimal),
    Column("qty", ExactDecimal, nullable=False),
    Column("filled", ExactDecimal, nullable=False),
    Column("status", String, nullable=False),
    Column("reason", FreeText, nullable=False),
    Column("venue_id", String, nullable=False),
    Column("post_only", Boolean, nullable=False),
    Column("reduce_only", Boolean, nullable=False),
    Column("slot", Integer, nullable=False),
    Column("pending_price", ExactDecimal),
    Column("pending_qty", ExactDecimal),
    Column("trade_ids", Text, nullable=False),  # JSON list
    Column("placed_by", FreeText, nullable=False),  # who placed it by hand, else empty
    Column("created_ns", BigInt, nullable=False),
    Column("updated_ns", BigInt, nullable=False),
    Column("created_lsn", BigInt, nullable=False),
    Column("done_lsn", BigInt, index=True),  # the entry that ended it; NULL: it may still trade
    Column("lsn", BigInt, nullable=False),
    Index("orders_by_instance", "instance", "created_lsn"),
)

fills = Table(
    "fills",
    metadata,
    Column("account", String, primary_key=True),
    Column("symbol", String, primary_key=True),
    Column("trade_id", String, primary_key=True),
    Column("client_id", String, nullable=False, index=True),
    Column("instance", String, nullable=False),
    Column("side", String, nullable=False),
    Column("price", ExactDecimal, nullable=False),
    Column("qty", ExactDecimal, nullable=False),
    Column("fee", ExactDecimal, nullable=False),
    Column("fee_currency", String, nullable=False),
    Column("liquidity", String, nullable=False),
    Column("ts_ns", BigInt, nullable=False),  # the venue's time
    Column("lsn", BigInt, nullable=False, index=True),
)

positions = Table(
    "positions",
    metadata,
    Column("instance", String, primary_key=True),  # `@ACCOUNT`: of nobody, found in that account
    Column("symbol", String, primary_key=True),
    Column("account", String, nullable=False),
    Column("qty", ExactDecimal, nullable=False),
    Column("open_cost", ExactDecimal, nullable=False),
    Column("cash", ExactDecimal, nullable=False),
    Column("holding", Text, nullable=False),  # JSON of host.core.accounting.Holding, whole
    Column("lsn", BigInt, nullable=False),
)
"""`cash` is what the fills brought in (+) or cost (−), `open_cost` the signed cost of `qty`; both in
settlement currency and before fees."""

balances = Table(
    "balances",
    metadata,
    Column("account", String, primary_key=True),
    Column("currency", String, primary_key=True),
    Column("total", ExactDecimal, nullable=False),  # the venue's last word plus the fills since
    Column("locked", ExactDecimal, nullable=False),  # the venue's last word
    Column("lsn", BigInt, nullable=False),
)

balance_history = Table(
    "balance_history",
    metadata,
    Column("lsn", BigInt, primary_key=True, autoincrement=False),
    Column("currency", String, primary_key=True),
    Column("account", String, nullable=False),
    Column("total", ExactDecimal, nullable=False),
    Column("locked", ExactDecimal, nullable=False),
    Column("ts_ns", BigInt, nullable=False),
)

equity = Table(
    "equity",
    metadata,
    Column("lsn", BigInt, primary_key=True, autoincrement=False),
    Column("ts_ns", BigInt, nullable=False),
    Column("account", String, nullable=False),
    Column("instance", String, nullable=False),
    Column("symbol", String, nullable=False),
    Column("mark", ExactDecimal, nullable=False),
    Column("qty", ExactDecimal, nullable=False),
    Column("realised", ExactDecimal, nullable=False),
    Column("unrealised", ExactDecimal, nullable=False),
    Column("fees", ExactDecimal, nullable=False),
    Column("total", ExactDecimal, nullable=False),
    Index("equity_by_instance", "instance", "symbol", "lsn"),
)

events = Table(
    "events",
    metadata,
    Column("lsn", BigInt, primary_key=True, autoincrement=False),
    Column("kind", String, primary_key=True),  # the journal entry's tag, or `anomaly`
    Column("ts_ns", BigInt, nullable=False),
    Column("instance", String, nullable=False),
    Column("account", String, nullable=False),
    Column("symbol", String, nullable=False),
    Column("code", String, nullable=False),
    Column("text", FreeText, nullable=False),
)
