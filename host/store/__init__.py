"""SQL projections of the journal, for queries and reports."""

from host.store.database import open_engine
from host.store.errors import DatabaseBusy, ForeignDatabase, JournalGap, SchemaMismatch, StoreError
from host.store.projector import Projector
from host.store.queries import EquityPoint, equity, fills, orders

__all__ = [
    "DatabaseBusy",
    "EquityPoint",
    "ForeignDatabase",
    "JournalGap",
    "Projector",
    "SchemaMismatch",
    "StoreError",
    "equity",
    "fills",
    "open_engine",
    "orders",
]
