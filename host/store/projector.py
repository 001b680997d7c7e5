"""Applies journal records to the tables, each exactly once.

The projector folds records with the core's own `TradingState` and writes what changed. State and
position in the journal are committed together, so a process killed at any moment continues where
the tables are; in-memory state that a failed transaction left behind is thrown away and read back.
"""

from collections.abc import Sequence
from decimal import Decimal

from sqlalchemy import Connection, Engine, inspect, select, update

from host.core.entries import NodeStarted, Record
from host.core.state import TradingState
from host.store import schema
from host.store.batch import Batch
from host.store.database import database_name
from host.store.errors import DatabaseBusyError, ForeignDatabaseError, JournalGapError, SchemaMismatchError
from host.store.rows import load_locked, load_state
from host.store.statements import insert_new

__all__ = ["Projector"]


class Projector:
    """Projects one journal into one database; the tables are made where there are none.

    Where the nodes of a `cell` take turns writing the journal, name it: then it may say that another node
    of the cell began a new epoch. Without it, another node's name is another journal's.

    Raises `SchemaMismatchError` for tables of another version, and whatever SQLAlchemy raises when the
    database cannot be reached.
    """

    def __init__(self, engine: Engine, cell: str = "") -> None:
        self._engine = engine
        self._shared_cell = cell
        self.name = database_name(engine)
        """The database's URL without its password."""
        self._node = self._cell = ""
        self._first_lsn = self._last_lsn = self._last_ts_ns = 0
        self._state: TradingState | None = None
        self._locked: dict[tuple[str, str], Decimal] = {}
        with engine.begin() as connection:
            _make_tables(connection, self.name)
        self._open()

    @property
    def last_lsn(self) -> int:
        """Return the LSN of the last entry that the tables hold; 0 before the first one."""
        return self._last_lsn

    @property
    def is_of_the_cell(self) -> bool:
        """Return whether the tables hold entries of the cell that the nodes share."""
        return bool(self._shared_cell) and self._cell == self._shared_cell

    @property
    def first_lsn(self) -> int:
        """Return the LSN of the first entry that was projected; above 1, history is incomplete."""
        return self._first_lsn

    def apply(self, records: Sequence[Record]) -> int:
        """Project `records`, which rise by one, in one transaction; return how many were new.

        Records that the tables already hold are compared by time and then skipped. Raises
        `JournalGapError`, `ForeignDatabaseError` or `DatabaseBusyError`, or what SQLAlchemy raises;
        whatever is raised, nothing of the batch was projected.
        """
        new = self._check(records)
        if not new:
            return 0
        try:
            with self._engine.begin() as connection:
                # First, because it takes the write lock: nothing read after it can be outdated.
                node, cell = self._claim(connection, new)
                if self._state is None:
                    self._state, self._locked = load_state(connection), load_locked(connection)
                batch = Batch(self._state, self._locked)
                for record in new:
                    batch.add(record, self._state.apply(record.lsn, record.ts_ns, record.entry))
                batch.write(connection)
        except BaseException:
            self._state = None  # it may be ahead of the tables
            raise
        self._node, self._cell = node, cell
        self._first_lsn = self._first_lsn or new[0].lsn
        self._last_lsn, self._last_ts_ns = new[-1].lsn, new[-1].ts_ns
        return len(new)

    def seed(self, lsn: int, ts_ns: int, state: TradingState) -> None:
        """Start empty tables from a snapshot of the state after entry `lsn`, where older entries are gone.

        Raises `DatabaseBusyError` unless the tables are empty.
        """
        with self._engine.begin() as connection:
            claimed = connection.execute(
                update(schema.projection)
                .where(schema.projection.c.last_lsn == 0)
                .values(node=state.node, cell=state.cell, first_lsn=lsn + 1, last_lsn=lsn, last_ts_ns=ts_ns)
            )
            if claimed.rowcount != 1:
                raise DatabaseBusyError(self.name, 0)
            batch = Batch(state, {})
            batch.add_everything(lsn)
            batch.write(connection)
        self._state = None
        self._open()

    def _open(self) -> None:
        with self._engine.connect() as connection:
            row = connection.execute(select(schema.projection)).one()
        self._node, self._cell = row.node, row.cell
        self._first_lsn, self._last_lsn, self._last_ts_ns = row.first_lsn, row.last_lsn, row.last_ts_ns

    def _check(self, records: Sequence[Record]) -> list[Record]:
        new: list[Record] = []
        last = self._last_lsn
        for record in records:
            if record.lsn == self._last_lsn and record.ts_ns != self._last_ts_ns:
                # Same place, other entry: another journal, or one whose tail was replaced.
                raise ForeignDatabaseError(
                    self.name,
                    f"a journal whose entry {record.lsn} has time",
                    str(record.ts_ns),
                    str(self._last_ts_ns),
                )
            if record.lsn <= last:
                continue
            if record.lsn != last + 1:
                raise JournalGapError(self.name, last + 1, record.lsn)
            new.append(record)
            last = record.lsn
        return new

    def _claim(self, connection: Connection, new: Sequence[Record]) -> tuple[str, str]:
        node, cell = self._node, self._cell
        for record in new:
            if isinstance(record.entry, NodeStarted):
                for what, mine, other in (
                    ("node", node, record.entry.node),
                    ("cell", cell, record.entry.cell),
                ):
                    if what == "node" and self._shared_cell and record.entry.cell == self._shared_cell:
                        continue
                    if mine and mine != other:
                        raise ForeignDatabaseError(self.name, what, repr(other), repr(mine))
                node, cell = record.entry.node, record.entry.cell
        table = schema.projection
        claimed = connection.execute(
            update(table)
            .where(table.c.last_lsn == self._last_lsn)
            .values(
                node=node,
                cell=cell,
                first_lsn=self._first_lsn or new[0].lsn,
                last_lsn=new[-1].lsn,
                last_ts_ns=new[-1].ts_ns,
            )
        )
        if claimed.rowcount != 1:
            raise DatabaseBusyError(self.name, self._last_lsn)
        return node, cell


def _make_tables(connection: Connection, name: str) -> None:
    table = schema.projection
    if inspect(connection).has_table(table.name):
        found = connection.execute(select(table.c.schema_version)).scalar_one()
        if found != schema.SCHEMA_VERSION:
            raise SchemaMismatchError(name, schema.SCHEMA_VERSION, found)
        return
    schema.metadata.create_all(connection)
    first = {"id": 1, "schema_version": schema.SCHEMA_VERSION, "node": "", "cell": ""}
    insert_new(connection, table, [{**first, "first_lsn": 0, "last_lsn": 0, "last_ts_ns": 0}])
