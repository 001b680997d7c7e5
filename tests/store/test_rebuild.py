from pathlib import Path

import pytest
from sqlalchemy import Engine, func, select, text

from host.core.state import TradingState
from host.journal import Journal
from host.store import JournalGapError, Projector, Rebuilt, StoreError, fills, rebuild, schema
from host.store.rows import load_state
from tests.store.story import START_NS, session


def _write(journal: Journal, orders: int) -> TradingState:
    state = TradingState()
    for lsn, entry in enumerate(session(orders), 1):
        journal.append(entry, START_NS + lsn)
        state.apply(lsn, START_NS + lsn, entry)
        if lsn % 50 == 0:
            journal.flush()
    journal.flush()
    return state


def test_a_rebuild_replaces_the_projection_and_nothing_else(tmp_path: Path, url: str, engine: Engine) -> None:
    with Journal.open(tmp_path / "journal", node="a") as journal:
        state = _write(journal, 1_000)
        with engine.begin() as connection:
            connection.execute(text("create table notes (words text)"))
            connection.execute(text("insert into notes values ('mine')"))
        Projector(engine)
        with engine.begin() as connection:
            connection.execute(schema.projection.update().values(schema_version=0))
        seen: list[int] = []
        result = rebuild(journal.folder, url, seen.append)
        assert result == Rebuilt(1, journal.last_lsn)
        assert seen == sorted(seen)
        assert seen[-1] == journal.last_lsn
    with engine.connect() as connection:
        loaded = load_state(connection)
        assert connection.execute(text("select words from notes")).scalar_one() == "mine"
    assert (loaded.orders, loaded.holdings, loaded.balances) == (state.orders, state.holdings, state.balances)


def test_a_pruned_journal_is_rebuilt_from_its_snapshot(tmp_path: Path, url: str, engine: Engine) -> None:
    with Journal.open(tmp_path / "journal", node="a", segment_bytes=64 * 1024) as journal:
        entries = session(1_000)
        state = TradingState()
        for lsn, entry in enumerate(entries, 1):
            journal.append(entry, START_NS + lsn)
            state.apply(lsn, START_NS + lsn, entry)
            if lsn == 2_500:
                journal.flush()
                journal.write_snapshot(lsn, state.encode())
        journal.flush()
        journal.prune(2_501)
        assert journal.first_lsn > 1
        result = rebuild(journal.folder, url)
        assert result == Rebuilt(2_501, len(entries))
    with engine.connect() as connection:
        loaded = load_state(connection)
        first = connection.execute(select(func.min(schema.fills.c.lsn))).scalar_one()
    assert first > 2_500
    assert (loaded.orders, loaded.holdings, loaded.balances) == (state.orders, state.holdings, state.balances)
    assert fills(engine, limit=1)


def test_a_pruned_journal_without_a_snapshot_is_refused(tmp_path: Path) -> None:
    with Journal.open(tmp_path / "journal", node="a", segment_bytes=64 * 1024) as journal:
        _write(journal, 1_000)
        first, *_ = sorted((tmp_path / "journal").glob("*.seg"))
        first.unlink()
        with pytest.raises(JournalGapError, match="should be LSN 1, was"):
            rebuild(journal.folder, f"sqlite:///{tmp_path}/store.db")


def test_an_unreachable_database_is_named_without_its_password(tmp_path: Path) -> None:
    url = f"postgresql://tandem:secret@/x?host={tmp_path}"
    with pytest.raises(StoreError, match=r"tandem:\*\*\*@/x.*No such file") as caught:
        rebuild(tmp_path, url)
    assert "secret" not in str(caught.value)
