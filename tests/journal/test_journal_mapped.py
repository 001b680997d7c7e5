"""Entries that are stored into mapped memory: the same file, as safe, as visible, within one window."""

import logging
import mmap
import os
import re
import resource
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from journal_tools import SMALL, TS, alert, fill, segments

from host.journal import Journal, read
from host.journal._window import WINDOW_BYTES, file_system_of, is_room_promised

needs_mapping = pytest.mark.skipif(
    not is_room_promised(Path(__file__).parent), reason="nothing is mapped on this file system"
)


@pytest.fixture
def no_pwrite(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every write by a system call fail the test."""

    def refuse(*_: object) -> int:
        raise AssertionError("written by a system call")

    monkeypatch.setattr(os, "pwrite", refuse)


def mapped_bytes(path: Path, field: str = "Size") -> int:
    """Return how much of a file is mapped here, or how much of that is in another state."""
    total, is_ours = 0, False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if re.match(r"[0-9a-f]+-[0-9a-f]+ ", line):
            is_ours = line.endswith(str(path))
        elif is_ours and line.startswith(f"{field}:"):
            total += int(line.split()[1]) << 10
    return total


def dirty_bytes(path: Path) -> int:
    """Return how much of what is mapped of a file is still to be written to the disk."""
    return mapped_bytes(path, "Shared_Dirty") + mapped_bytes(path, "Private_Dirty")


def taken_up(folder: Path) -> Journal:
    """Return a journal whose first flush, which opens the window, is behind it."""
    journal = Journal.open(folder, node="a", segment_bytes=SMALL)
    fill(journal, 1)
    return journal


@needs_mapping
def test_an_entry_is_in_the_file_when_flush_returns_and_no_system_call_wrote_it(
    tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    with taken_up(tmp_path) as journal:
        request.getfixturevalue("no_pwrite")
        records = fill(journal, 3)
        assert list(read(tmp_path))[1:] == records
        assert (journal.flushed_lsn, journal.durable_lsn) == (4, 4)


@settings(max_examples=60, deadline=None)
@given(
    flushes=st.lists(st.lists(st.sampled_from([1, 90, 900]), min_size=1, max_size=9), max_size=40),
    reopens=st.integers(0, 40),
)
def test_mapped_and_unmapped_journals_are_the_same_files(flushes: list[list[int]], reopens: int) -> None:
    files: list[dict[str, bytes]] = []
    written: list[int] = []
    for is_mapped in (True, False):
        with TemporaryDirectory() as name:
            folder = Path(name)

            def reopen(folder: Path = folder, is_mapped: bool = is_mapped) -> Journal:
                return Journal.open(folder, node="a", segment_bytes=4096, is_mapped=is_mapped)

            journal = reopen()
            bytes_written = 0
            for number, sizes in enumerate(flushes):
                if number == reopens:
                    bytes_written += journal.bytes_written
                    journal.close()
                    journal = reopen()
                for size in sizes:
                    journal.append(alert(journal.last_lsn + 1, size), TS)
                journal.flush()
                assert journal.durable_lsn == journal.flushed_lsn == journal.last_lsn
            written.append(bytes_written + journal.bytes_written)
            journal.close()
            files.append({path.name: path.read_bytes() for path in segments(folder)})
    assert files[0] == files[1]
    assert written[0] == written[1]


KILLED = """
import os, signal, sys
sys.path[:0] = [{tests!r}]
from journal_tools import fill
from host.journal import Journal
journal = Journal.open({folder!r}, node="a", segment_bytes=1 << 16)
fill(journal, 700, size=200)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_was_flushed_survives_kill_nine(tmp_path: Path) -> None:
    script = KILLED.format(tests=str(Path(__file__).parent), folder=str(tmp_path / "j"))
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    child = subprocess.run([sys.executable, "-c", script], timeout=60, check=False, env=environment)
    assert child.returncode == -signal.SIGKILL
    assert [record.lsn for record in read(tmp_path / "j")] == list(range(1, 701))
    with Journal.open(tmp_path / "j", node="a", segment_bytes=SMALL) as journal:
        assert (journal.last_lsn, journal.repaired) == (700, None)


@needs_mapping
def test_no_more_than_a_window_is_mapped_however_long_the_segment(tmp_path: Path) -> None:
    with Journal.open(tmp_path, node="a", segment_bytes=4 * WINDOW_BYTES) as journal:
        (path,) = segments(tmp_path)
        seen = set[int]()
        for _ in range(300):
            fill(journal, 1, size=10_000)
            seen.add(mapped_bytes(path))
        assert max(seen) == WINDOW_BYTES
        assert journal.bytes_written > 2 * WINDOW_BYTES
    assert mapped_bytes(path) == 0


def faults_of(work: Callable[[], object]) -> int:
    """Return how many pages `work` had to wait for."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    work()
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


@needs_mapping
def test_after_prefault_an_entry_that_goes_on_in_the_next_page_waits_for_none(tmp_path: Path) -> None:
    with Journal.open(tmp_path, node="a", segment_bytes=WINDOW_BYTES << 2) as journal:
        fill(journal, 1)
        crossings = faults = 0
        for number in range(200):
            journal.append(alert(number, 700), TS)
            page = journal._window.at // mmap.PAGESIZE
            faults += faults_of(journal.flush)
            crossings += journal._window.at // mmap.PAGESIZE - page
            journal.prefault()
        assert crossings > 30
        assert faults < 5  # a few may be the interpreter's own
        assert len(list(read(tmp_path))) == 201


@settings(max_examples=40, deadline=None)
@given(
    sizes=st.lists(st.sampled_from([1, 100, 4_000, 9_000]), max_size=30), skips=st.sets(st.integers(0, 30))
)
def test_prefault_changes_no_byte(sizes: list[int], skips: set[int]) -> None:
    with TemporaryDirectory() as name:
        with Journal.open(name, node="a", segment_bytes=SMALL) as journal:
            for number, size in enumerate(sizes):
                journal.append(alert(number, size), TS)
                journal.flush()
                if number not in skips:
                    journal.prefault()
        entries = [record.entry for record in read(name)]
    assert entries == [alert(number, size) for number, size in enumerate(sizes)]


@needs_mapping
def test_frames_of_one_flush_are_stored_one_after_the_other(tmp_path: Path) -> None:
    """Else a death in between could leave a later frame without the one before it."""
    stores: list[tuple[int, int]] = []

    class Witness(bytearray):
        def __setitem__(self, place: Any, data: Any) -> None:
            stores.append((place.start, len(data)))

    with taken_up(tmp_path) as journal:
        window, whole = journal._window, journal._window.memory
        window.memory = Witness()
        for number in range(3):
            journal.append(alert(number, 50 * number), TS)
        sizes = [len(frame) for frame in journal._pending]
        at = window.at
        journal.flush()
        window.memory = whole
        assert stores == [(at, sizes[0]), (at + sizes[0], sizes[1]), (at + sizes[0] + sizes[1], sizes[2])]


@needs_mapping
def test_a_sync_takes_what_was_stored_to_the_disk(tmp_path: Path) -> None:
    if file_system_of(tmp_path) == "tmpfs":
        pytest.skip("there is no disk to take it to")
    with taken_up(tmp_path) as journal:
        (path,) = segments(tmp_path)
        for _ in range(2):
            fill(journal, 1)
            assert dirty_bytes(path) == mmap.PAGESIZE
            journal.sync()
            assert dirty_bytes(path) == 0
        assert mapped_bytes(path) > 0


@needs_mapping
def test_somebody_who_wants_to_hear_of_each_entry_does(tmp_path: Path) -> None:
    told: list[int] = []
    with taken_up(tmp_path) as journal:
        undo = journal.on_durable(told.append)
        fill(journal, 2)
        undo()
        fill(journal, 2)
    assert told == [2, 3]


@pytest.mark.parametrize("options", [{"durability": "disk"}, {"is_mapped": False}], ids=str)
def test_nothing_is_mapped_where_that_gains_nothing_or_is_not_wanted(
    tmp_path: Path, options: dict[str, Any]
) -> None:
    with Journal.open(tmp_path, node="a", segment_bytes=SMALL, **options) as journal:
        records = fill(journal, 10)
        assert mapped_bytes(segments(tmp_path)[0]) == 0
        assert list(read(tmp_path)) == records


@needs_mapping
def test_system_calls_write_what_cannot_be_mapped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: object, **__: object) -> mmap.mmap:
        raise OSError(12, "Cannot allocate memory")

    monkeypatch.setattr(mmap, "mmap", refuse)
    with (
        caplog.at_level(logging.WARNING),
        Journal.open(tmp_path, node="a", segment_bytes=SMALL) as journal,
    ):
        records = fill(journal, 50)
        assert list(read(tmp_path)) == records
    assert [record.message for record in caplog.records] == [
        f"{segments(tmp_path)[0]} cannot be mapped, so it is written by system calls: "
        "[Errno 12] Cannot allocate memory"
    ]


def test_room_is_promised_by_file_systems_that_overwrite_in_place() -> None:
    assert (file_system_of(Path("/proc")), is_room_promised(Path("/proc"))) == ("proc", False)
    if file_system_of(Path("/dev/shm")) == "tmpfs":
        assert is_room_promised(Path("/dev/shm"))
