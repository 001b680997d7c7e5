import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine, func, select

from host.core import entries as e
from host.core.state import TradingState
from host.journal import Journal
from host.store import StoreError, StoreWriter, open_engine, orders, schema
from host.store.rows import load_state
from tests.postgres import PostgresServer
from tests.store.story import START_NS, opening, place, session

DEADLINE_S = 20.0


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    with Journal.open(tmp_path / "journal", node="a") as journal:
        yield journal


def _write(journal: Journal, entries: list[e.Entry]) -> None:
    for entry in entries:
        journal.append(entry, START_NS + 1_000 * (journal.last_lsn + 1))
    journal.flush()


def _lsn(engine: Engine) -> int:
    with engine.connect() as connection:
        return int(connection.execute(select(schema.projection.c.last_lsn)).scalar_one())


def test_it_follows_a_growing_journal(journal: Journal, url: str, engine: Engine) -> None:
    _write(journal, opening())
    writer = StoreWriter(journal.folder, url)
    writer.start()
    try:
        assert writer.wait_for(journal.last_lsn, DEADLINE_S), writer.error
        _write(journal, [place(1)])
        assert writer.wait_for(journal.last_lsn, DEADLINE_S), writer.error
        assert [order.client_id for order in orders(engine)] == ["t1x1"]
        assert writer.lag(journal.last_lsn) == 0
        assert writer.lag(journal.last_lsn + 5) == 5
        assert writer.is_running
    finally:
        assert writer.stop(DEADLINE_S), writer.error
    assert not writer.is_running


def test_stop_projects_what_is_already_journaled(journal: Journal, url: str, engine: Engine) -> None:
    _write(journal, session(500))
    writer = StoreWriter(journal.folder, url)
    writer.start()
    assert writer.stop(DEADLINE_S), writer.error
    assert _lsn(engine) == journal.last_lsn > 2_000


def test_killed_at_any_moment_it_goes_on_exactly_where_it_was(journal: Journal, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/store.db"
    entries = session(3_000)
    _write(journal, entries)
    seen = []
    for wanted in (1, 2_000, 5_000):
        writer = StoreWriter(journal.folder, url)
        writer.start()
        assert writer.wait_for(wanted, DEADLINE_S), writer.error
        assert writer.process_id is not None
        os.kill(writer.process_id, signal.SIGKILL)
        assert not writer.stop(DEADLINE_S)
        if writer.error is not None:  # else it was done before the kill
            assert "ended by itself with code -9" in writer.error
        seen.append(_lsn(open_engine(url)))
    assert seen == sorted(seen)
    last = StoreWriter(journal.folder, url)
    last.start()
    assert last.stop(DEADLINE_S), last.error
    state = TradingState()
    for lsn, entry in enumerate(entries, 1):
        state.apply(lsn, START_NS + 1_000 * lsn, entry)
    with open_engine(url).connect() as connection:
        loaded = load_state(connection)
        fills = connection.execute(select(func.count()).select_from(schema.fills)).scalar_one()
    assert (loaded.orders, loaded.retired, loaded.holdings) == (state.orders, state.retired, state.holdings)
    assert fills == sum(h.fills for by_symbol in state.holdings.values() for h in by_symbol.values())


def test_a_database_outage_is_reported_and_survived(journal: Journal, postgres: PostgresServer) -> None:
    url = postgres.url()
    _write(journal, opening())
    writer = StoreWriter(journal.folder, url)
    writer.start()
    try:
        assert writer.wait_for(journal.last_lsn, DEADLINE_S), writer.error
        postgres.stop()
        try:
            _write(journal, session(20)[6:])
            assert writer.wait_until(lambda: writer.error is not None, DEADLINE_S)
            assert "next attempt in" in str(writer.error)
            assert writer.is_running
            assert writer.lag(journal.last_lsn) > 0
        finally:
            postgres.start()
        assert writer.wait_for(journal.last_lsn, DEADLINE_S), writer.error
        assert writer.error is None
    finally:
        writer.stop(DEADLINE_S)


def test_another_nodes_database_ends_it_with_the_reason(journal: Journal, url: str, tmp_path: Path) -> None:
    with Journal.open(tmp_path / "b", node="b") as other:
        _write(other, [*opening(node="b"), *session(20)[6:]])
        writer = StoreWriter(other.folder, url)
        writer.start()
        assert writer.stop(DEADLINE_S), writer.error
    _write(journal, opening())
    writer = StoreWriter(journal.folder, url)
    writer.start()
    assert writer.wait_until(lambda: not writer.is_running, DEADLINE_S)
    assert "the journal in" in str(writer.error)
    assert "ends before that" in str(writer.error)
    assert not writer.stop(DEADLINE_S)


def test_a_folder_without_a_journal_ends_it_with_the_reason(tmp_path: Path) -> None:
    writer = StoreWriter(tmp_path / "nowhere", f"sqlite:///{tmp_path}/store.db")
    writer.start()
    assert not writer.stop(DEADLINE_S)
    assert "there is no journal here" in str(writer.error)


def test_starting_twice_is_refused(journal: Journal, tmp_path: Path) -> None:
    writer = StoreWriter(journal.folder, f"sqlite:///{tmp_path}/store.db")
    writer.start()
    with pytest.raises(StoreError, match="once"):
        writer.start()
    assert writer.stop(DEADLINE_S), writer.error
