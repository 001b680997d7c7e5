"""Setting a tail or a whole journal aside: nothing is lost, and a death in the middle leaves a journal."""

import contextlib
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from journal_tools import SMALL, fill, segments

from host.journal import (
    Journal,
    JournalLocked,
    JournalPruned,
    cut_tail,
    journal_digest,
    read,
    replace_journal,
    verify,
)

NOW = 1_723_107_600_000_000_000


def journal_of(folder: Path, count: int, size: int = 900) -> None:
    with Journal.open(folder, node="b", segment_bytes=SMALL) as journal:
        fill(journal, count, size)


@settings(max_examples=25)
@given(count=st.integers(1, 200), after=st.integers(0, 200), size=st.sampled_from([0, 900, 5_000]))
def test_head_and_tail_together_are_what_there_was(
    tmp_path_factory: pytest.TempPathFactory, count: int, after: int, size: int
) -> None:
    folder = tmp_path_factory.mktemp("cut") / "journal"
    journal_of(folder, count, size)
    before = list(read(folder))
    kept = cut_tail(folder, after, NOW)
    assert verify(folder).is_sound
    if after >= count:
        assert kept is None
        assert list(read(folder)) == before
        return
    assert kept is not None
    assert (kept.first_lsn, kept.last_lsn) == (after + 1, count)
    assert list(read(folder)) == before[:after]
    assert list(read(kept.folder, after + 1)) == before[after:]
    with Journal.open(folder, node="b", segment_bytes=SMALL) as journal:
        assert journal.repaired is None
        assert journal.last_lsn == after
        fill(journal, 3)
    assert verify(folder).last_lsn == after + 3


def test_snapshots_of_what_is_cut_off_go_with_it(tmp_path: Path) -> None:
    folder = tmp_path / "journal"
    with Journal.open(folder, node="b", segment_bytes=SMALL) as journal:
        fill(journal, 10)
        journal.write_snapshot(5, b"five")
        journal.write_snapshot(10, b"ten")
    kept = cut_tail(folder, 7, NOW)
    assert kept is not None
    with Journal.open(folder, node="b", segment_bytes=SMALL) as journal:
        snapshot = journal.latest_snapshot()
        assert snapshot is not None and snapshot.data == b"five"
    assert [path.stem.lstrip("0") for path in kept.folder.glob("*.snap")] == ["10"]


def test_a_tail_without_which_nothing_can_be_read_stays(tmp_path: Path) -> None:
    folder = tmp_path / "journal"
    with Journal.open(folder, node="b", segment_bytes=SMALL) as journal:
        fill(journal, 200, 900)
        journal.write_snapshot(190, b"a")
        journal.write_snapshot(200, b"b")
        journal.prune(200)
    before = journal_digest(folder, 185)
    with pytest.raises(JournalPruned):
        cut_tail(folder, 188, NOW)
    assert journal_digest(folder, 185) == before


@pytest.mark.parametrize("dies_at", range(2, 9))  # 1: while the lock is taken
def test_a_death_at_any_step_leaves_a_journal_that_opens(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dies_at: int
) -> None:
    folder = tmp_path / "journal"
    journal_of(folder, 200)
    before = list(read(folder))
    left = dies_at

    def dying(real: object) -> object:
        def call(*arguments: object, **options: object) -> object:
            nonlocal left
            left -= 1
            if left == 0:
                raise KeyboardInterrupt
            assert callable(real)
            return real(*arguments, **options)

        return call

    for name in ("unlink", "rename"):
        monkeypatch.setattr(Path, name, dying(getattr(Path, name)))
    monkeypatch.setattr(os, "ftruncate", dying(os.ftruncate))
    with contextlib.suppress(KeyboardInterrupt):
        cut_tail(folder, 50, NOW)
    monkeypatch.undo()
    assert verify(folder).is_sound
    with Journal.open(folder, node="b", segment_bytes=SMALL) as journal:
        assert 50 <= journal.last_lsn <= 200
    assert list(read(folder))[:50] == before[:50]


def test_a_journal_is_replaced_by_one_that_starts_with_a_snapshot(tmp_path: Path) -> None:
    folder = tmp_path / "journal"
    journal_of(folder, 20)
    before = list(read(folder))
    kept = replace_journal(
        folder, node="b", cell="main", lsn=77, snapshot=b"state", segment_bytes=SMALL, now_ns=NOW
    )
    assert kept is not None
    assert (kept.first_lsn, kept.last_lsn) == (1, 20)
    assert list(read(kept.folder)) == before
    with Journal.open(folder, node="b", segment_bytes=SMALL) as journal:
        assert (journal.first_lsn, journal.last_lsn) == (78, 77)
        snapshot = journal.latest_snapshot()
        assert snapshot is not None and (snapshot.lsn, snapshot.data) == (77, b"state")
        fill(journal, 2)
    assert [record.lsn for record in read(folder, 78)] == [78, 79]
    assert verify(folder).is_sound


def test_an_empty_journal_leaves_nothing_aside(tmp_path: Path) -> None:
    folder = tmp_path / "journal"
    journal_of(folder, 0)
    kept = replace_journal(
        folder, node="b", cell="main", lsn=0, snapshot=b"", segment_bytes=SMALL, now_ns=NOW
    )
    assert kept is None
    assert segments(folder) and not list((tmp_path / "journal.aside").iterdir())


def test_a_replacement_that_was_interrupted_is_made_again(tmp_path: Path) -> None:
    folder = tmp_path / "journal"
    journal_of(folder, 3)
    (tmp_path / "journal.new").mkdir()
    (tmp_path / "journal.new" / "half").write_text("of a process that died here")
    kept = replace_journal(
        folder, node="b", cell="main", lsn=5, snapshot=b"s", segment_bytes=SMALL, now_ns=NOW
    )
    assert kept is not None and kept.last_lsn == 3
    assert not (folder / "half").exists()


def test_a_journal_in_use_is_left_alone(tmp_path: Path) -> None:
    folder = tmp_path / "journal"
    with Journal.open(folder, node="b", segment_bytes=SMALL) as journal:
        fill(journal, 3)
        with pytest.raises(JournalLocked):
            cut_tail(folder, 1, NOW)
        with pytest.raises(JournalLocked):
            replace_journal(
                folder, node="b", cell="main", lsn=5, snapshot=b"s", segment_bytes=SMALL, now_ns=NOW
            )
