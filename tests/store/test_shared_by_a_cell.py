"""The projection of a journal that the nodes of a cell write in turn."""

import threading
from pathlib import Path

import pytest
from sqlalchemy import select

from host.core import entries as e
from host.journal import Journal, cut_tail
from host.store import schema
from host.store.database import open_engine
from host.store.follow import FollowStatus, follow


def write(folder: Path, *entries: e.Entry, since_ns: int = 0) -> None:
    with Journal.open(folder, node="a", cell="main", segment_bytes=1 << 16) as journal:
        for entry in entries:
            journal.append(entry, since_ns + 1_000 * (journal.last_lsn + 1))
        journal.flush()


def project(folder: Path, url: str, cell: str) -> FollowStatus:
    said: list[FollowStatus] = []
    stop = threading.Event()
    stop.set()
    follow(folder, url, stop, said.append, cell)
    return said[-1]


def alerts_in(url: str) -> list[str]:
    engine = open_engine(url)
    with engine.connect() as connection:
        rows = connection.execute(select(schema.events.c.text).where(schema.events.c.kind == "alert")).all()
    engine.dispose()
    return [row.text for row in rows]


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'store.db'}"


def test_another_node_of_the_cell_may_go_on_with_the_journal(tmp_path: Path, url: str) -> None:
    folder = tmp_path / "journal"
    write(folder, e.NodeStarted("a", "main", 1, "0.1.0"), e.Alert("one", "by a"))
    assert project(folder, url, "main").error is None
    write(folder, e.NodeStarted("b", "main", 2, "0.1.0"), e.Alert("two", "by b"))

    assert project(folder, url, "main") == FollowStatus(4, True, is_over=True)
    assert alerts_in(url) == ["by a", "by b"]


def test_a_node_alone_takes_another_node_for_another_journal(tmp_path: Path, url: str) -> None:
    folder = tmp_path / "journal"
    write(folder, e.NodeStarted("a", "main", 1, "0.1.0"))
    project(folder, url, "")
    write(folder, e.NodeStarted("b", "main", 2, "0.1.0"))

    assert "belongs to node 'a'" in (project(folder, url, "").error or "")


def test_entries_that_the_successor_never_saw_leave_the_projection_too(tmp_path: Path, url: str) -> None:
    folder = tmp_path / "journal"
    write(folder, e.NodeStarted("a", "main", 1, "0.1.0"), e.Alert("one", "kept"), e.Alert("two", "unseen"))
    project(folder, url, "main")
    cut_tail(folder, 2, 0)
    write(folder, e.NodeStarted("b", "main", 2, "0.1.0"), e.Alert("three", "by b"), since_ns=7)

    assert project(folder, url, "main").error is None
    assert alerts_in(url) == ["kept", "by b"]


def test_a_database_of_another_cell_is_left_alone(tmp_path: Path, url: str) -> None:
    write(tmp_path / "theirs", e.NodeStarted("x", "other", 1, "0.1.0"), e.Alert("one", "theirs"))
    project(tmp_path / "theirs", url, "other")
    write(tmp_path / "ours", e.NodeStarted("a", "main", 1, "0.1.0"))

    assert project(tmp_path / "ours", url, "main").error is not None
    assert alerts_in(url) == ["theirs"]
