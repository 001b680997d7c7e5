"""SQL projections of the journal, for queries and reports."""

from host.store.database import open_engine
from host.store.errors import (
    DatabaseBusyError,
    ForeignDatabaseError,
    JournalBehindError,
    JournalGapError,
    SchemaMismatchError,
    StoreError,
)
from host.store.projector import Projector
from host.store.queries import EquityPoint, equity, fills, orders
from host.store.rebuild import Rebuilt, rebuild
from host.store.writer import StoreWriter

__all__ = [
    "DatabaseBusyError",
    "EquityPoint",
    "ForeignDatabaseError",
    "JournalBehindError",
    "JournalGapError",
    "Projector",
    "Rebuilt",
    "SchemaMismatchError",
    "StoreError",
    "StoreWriter",
    "equity",
    "fills",
    "open_engine",
    "orders",
    "rebuild",
]
