"""Makes a projection anew from its journal."""

from collections.abc import Callable
from pathlib import Path

from msgspec import Struct
from sqlalchemy.exc import SQLAlchemyError

from host.store import schema
from host.store.database import database_name, one_line, open_engine
from host.store.errors import StoreError
from host.store.follow import BATCH_RECORDS, open_follower
from host.store.projector import Projector

__all__ = ["Rebuilt", "rebuild"]


class Rebuilt(Struct, frozen=True):
    """What a rebuild projected. `first_lsn` above 1: older entries were pruned from the journal.

    Orders that still traded, positions and balances are right even then, because they come from the
    journal's snapshot; fills, equity and events before `first_lsn` are gone.
    """

    first_lsn: int
    last_lsn: int


def rebuild(journal_folder: str | Path, url: str, progress: Callable[[int], None] | None = None) -> Rebuilt:
    """Drop the tables of the projection in `url` and project the journal from its first entry.

    `progress` is called with the last LSN after each batch. Stop the node's own writer first: two
    writers are refused with `DatabaseBusyError`. Other tables in the database are left alone.
    Interrupted, the tables hold a correct beginning, and the next writer goes on from there. Raises
    `StoreError`, also when the database cannot be reached, or `JournalError`.
    """
    engine = open_engine(url)
    try:
        schema.metadata.drop_all(engine)
        projector = Projector(engine)
        with open_follower(Path(journal_folder), projector) as follower:
            while batch := follower.poll(BATCH_RECORDS):
                projector.apply(batch)
                if progress is not None:
                    progress(projector.last_lsn)
        return Rebuilt(projector.first_lsn, projector.last_lsn)
    except SQLAlchemyError as error:
        raise StoreError(f"projection {database_name(engine)}: {one_line(error)}") from error
    finally:
        engine.dispose()
