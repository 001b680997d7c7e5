"""One writer per journal."""

import os
import select
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from journal_tools import SMALL, fill

from host.journal import Journal, JournalLocked, read
from host.journal._lock import acquire_lock

WRITER = """
import signal, sys
sys.path[:0] = [{tests!r}]
from journal_tools import SMALL, fill
from host.journal import Journal
journal = Journal.open({folder!r}, node="a", segment_bytes=SMALL)
fill(journal, 300, size=300)
print("ready", flush=True)
signal.pause()
"""


def test_a_second_writer_is_refused_and_told_who_writes(tmp_path: Path) -> None:
    with (
        Journal.open(tmp_path, node="a", segment_bytes=SMALL),
        pytest.raises(JournalLocked, match=f"process {os.getpid()}") as caught,
    ):
        Journal.open(tmp_path, node="a", segment_bytes=SMALL)
    assert caught.value.pid == os.getpid()
    Journal.open(tmp_path, node="a", segment_bytes=SMALL).close()


def in_a_copy(do: Callable[[], object]) -> None:
    """Run `do` in a copy of this process, to its end."""
    pid = os.fork()
    if not pid:
        try:
            do()
        finally:
            os._exit(0)
    os.waitpid(pid, 0)


def test_a_closed_journal_can_be_opened_while_a_copy_of_this_process_has_yet_to_start_another(
    tmp_path: Path,
) -> None:
    journal = Journal.open(tmp_path, node="a", segment_bytes=SMALL)
    reading, writing = os.pipe()
    pid = os.fork()
    if not pid:
        os.close(writing)
        os.read(reading, 1)  # before its exec, which closes what it has of this process
        os._exit(0)
    try:
        journal.close()
        Journal.open(tmp_path, node="a", segment_bytes=SMALL).close()
    finally:
        os.close(writing)
        os.waitpid(pid, 0)
        os.close(reading)


def test_a_copy_of_the_writer_cannot_let_go_of_its_lock(tmp_path: Path) -> None:
    with acquire_lock(tmp_path) as lock:
        in_a_copy(lock.release)
        with pytest.raises(JournalLocked):
            Journal.open(tmp_path, node="a", segment_bytes=SMALL)


def test_a_killed_writer_leaves_its_flushed_entries_and_no_lock(tmp_path: Path) -> None:
    script = WRITER.format(tests=str(Path(__file__).parent), folder=str(tmp_path))
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, env=environment) as child:
        try:
            assert child.stdout is not None
            assert select.select([child.stdout], [], [], 30)[0]
            assert child.stdout.readline() == b"ready\n"
            with pytest.raises(JournalLocked) as caught:
                Journal.open(tmp_path, node="a", segment_bytes=SMALL)
            assert caught.value.pid == child.pid
        finally:
            child.send_signal(signal.SIGKILL)
            child.wait(30)
    with Journal.open(tmp_path, node="a", segment_bytes=SMALL) as journal:
        assert (journal.last_lsn, journal.repaired) == (300, None)
        fill(journal, 1)
    assert [record.lsn for record in read(tmp_path)] == list(range(1, 302))
