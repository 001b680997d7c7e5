"""Keeps a projection up with its journal: catch up, then look again every moment, until told to stop."""

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Final

from msgspec import Struct
from sqlalchemy.exc import SQLAlchemyError

from host.api import TandemError
from host.core.state import TradingState
from host.journal import Follower, JournalPruned
from host.journal._snapshots import latest_snapshot
from host.store import schema
from host.store.database import one_line, open_engine
from host.store.errors import (
    DatabaseBusyError,
    ForeignDatabaseError,
    JournalBehindError,
    JournalGapError,
)
from host.store.projector import Projector

__all__ = ["BATCH_RECORDS", "FollowStatus", "follow", "open_follower"]

BATCH_RECORDS: Final = 2_000
"""Records a transaction: enough to make its fixed cost small, few enough to commit within 50 ms."""

POLL_S: Final = 0.2
"""Pause once caught up: how old a query's answer may be."""

FIRST_RETRY_S: Final = 0.2
LAST_RETRY_S: Final = 10.0
"""Pauses between attempts while the database is away; each is twice the one before."""


class FollowStatus(Struct, frozen=True):
    """How far the projection is. `error` says what keeps it from going on, and is None when nothing does.

    With `is_over` nobody tries any more: either the projection was stopped or `error` needs a person.
    """

    last_lsn: int
    is_caught_up: bool
    error: str | None = None
    is_over: bool = False


def follow(
    journal_folder: Path,
    url: str,
    stop: threading.Event,
    report: Callable[[FollowStatus], None],
    cell: str = "",
) -> None:
    """Project the journal into `url` as it grows, until `stop` is set and all of it is projected.

    Where the nodes of `cell` take turns, the end of a deposed node's journal may have been replaced by
    what its successor wrote: then the tables are made anew from the journal, and that is said.

    A database that is away or in use is tried again and again; anything else ends it. Either way
    it is said through `report` and never raised.
    """
    last_lsn = 0
    retry_s = FIRST_RETRY_S

    def progress(lsn: int, is_caught_up: bool) -> None:
        nonlocal last_lsn, retry_s
        last_lsn, retry_s = lsn, FIRST_RETRY_S
        report(FollowStatus(lsn, is_caught_up))

    while True:
        try:
            _project(journal_folder, url, stop, progress, cell)
        except (SQLAlchemyError, DatabaseBusyError) as error:
            text = one_line(error)
            if not stop.is_set():
                report(FollowStatus(last_lsn, False, f"{text}; next attempt in {retry_s:g} s"))
                stop.wait(retry_s)
                retry_s = min(2 * retry_s, LAST_RETRY_S)
                continue
            report(FollowStatus(last_lsn, False, text, is_over=True))
        except TandemError as error:
            report(FollowStatus(last_lsn, False, str(error), is_over=True))
        except Exception as error:  # noqa: BLE001 - the root of the worker: told to the node, not lost
            text = f"projection stopped: {type(error).__name__}: {one_line(error)}"
            report(FollowStatus(last_lsn, False, text, is_over=True))
        else:
            report(FollowStatus(last_lsn, True, is_over=True))
        return


def open_follower(journal_folder: Path, projector: Projector) -> Follower:
    """Return a follower that goes on where the tables are.

    The last entry that the tables hold is read again, so that the projector sees whether this is the
    journal it knows. Empty tables of a pruned journal start from its newest snapshot. Raises
    `JournalGapError` where neither is possible, and `ForeignDatabaseError` or `JournalBehindError`
    where the tables are of another journal.
    """
    last = projector.last_lsn
    follower = Follower(journal_folder, max(last, 1))
    try:
        first = follower.poll(1)
    except JournalPruned as error:
        follower.close()
        if last and error.first_lsn == last + 1:
            return Follower(journal_folder, last + 1)
        snapshot = latest_snapshot(journal_folder)
        if last or snapshot is None:
            raise JournalGapError(projector.name, last + 1, error.first_lsn) from error
        state = TradingState.decode(snapshot.data)
        projector.seed(snapshot.lsn, state.ts_ns, state)
        return Follower(journal_folder, snapshot.lsn + 1)
    if last and not first:
        raise JournalBehindError(projector.name, str(journal_folder), last)
    projector.apply(first)
    return follower


def _project(
    journal_folder: Path,
    url: str,
    stop: threading.Event,
    progress: Callable[[int, bool], None],
    cell: str,
) -> None:
    engine = open_engine(url)
    try:
        projector = Projector(engine, cell)
        try:
            follower = open_follower(journal_folder, projector)
        except (ForeignDatabaseError, JournalBehindError, JournalGapError):
            if not projector.is_of_the_cell:
                raise
            schema.metadata.drop_all(engine)
            projector = Projector(engine, cell)
            follower = open_follower(journal_folder, projector)
        with follower:
            progress(projector.last_lsn, False)
            while True:
                # Asked before reading: what was journaled before the stop is still projected.
                is_last_round = stop.is_set()
                records = follower.poll(BATCH_RECORDS)
                added = projector.apply(records)
                is_caught_up = len(records) < BATCH_RECORDS
                if added or is_caught_up:
                    progress(projector.last_lsn, is_caught_up)
                if is_caught_up:
                    if is_last_round:
                        return
                    stop.wait(POLL_S)
    finally:
        engine.dispose()
