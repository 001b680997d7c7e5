"""What `durable_lsn` promises, and the group sync behind it."""

import threading
from collections.abc import Callable
from pathlib import Path
from queue import Queue
from typing import Any

from journal_tools import SMALL, TS, alert, fill

from host.journal import Journal, read


class Loop:
    """Stands where an event loop does: runs callbacks on the thread that asks for them."""

    def __init__(self) -> None:
        self.queue: Queue[tuple[Callable[[Any], object], Any]] = Queue()

    def call_soon_threadsafe(self, callback: Callable[[Any], object], argument: Any) -> None:
        self.queue.put((callback, argument))

    def run_one(self) -> None:
        callback, argument = self.queue.get(timeout=30)
        callback(argument)


def test_with_process_durability_a_flush_is_durable_at_once(tmp_path: Path) -> None:
    told: list[int] = []
    with Journal.open(tmp_path, node="a", segment_bytes=SMALL) as journal:
        undo = journal.on_durable(told.append)
        journal.append(alert(1), TS)
        journal.append(alert(2), TS)
        assert journal.durable_lsn == 0
        journal.flush()
        assert (journal.durable_lsn, told) == (2, [2])
        undo()
        fill(journal, 1)
        assert told == [2]
        assert journal.syncs == 0


def test_with_disk_durability_the_callback_comes_through_the_loop(tmp_path: Path) -> None:
    told: list[tuple[int, bool]] = []
    loop = Loop()
    with Journal.open(tmp_path, node="a", durability="disk", segment_bytes=SMALL) as journal:

        def on_durable(lsn: int) -> None:
            told.append((lsn, threading.current_thread() is threading.main_thread()))

        journal.on_durable(on_durable, call_soon=loop.call_soon_threadsafe)
        fill(journal, 1)
        loop.run_one()
        assert told == [(1, True)]
        assert journal.durable_lsn == 1


def test_many_flushes_share_one_sync(tmp_path: Path) -> None:
    is_syncing, go_on = threading.Event(), threading.Event()
    told: list[int] = []

    def hold(callback: Callable[[Any], object], argument: Any) -> None:
        callback(argument)
        is_syncing.set()
        assert go_on.wait(30)

    journal = Journal.open(tmp_path, node="a", durability="disk", segment_bytes=SMALL)
    journal.on_durable(told.append, call_soon=hold)
    fill(journal, 1)
    assert is_syncing.wait(30)
    fill(journal, 100)
    assert (journal.durable_lsn, told) == (1, [1])
    go_on.set()
    journal.sync()
    assert (journal.durable_lsn, told, journal.syncs) == (101, [1, 101], 2)
    journal.close()


def test_durability_goes_across_segments(tmp_path: Path) -> None:
    told: list[int] = []
    with Journal.open(tmp_path, node="a", durability="disk", segment_bytes=4096) as journal:
        journal.on_durable(told.append)
        records = fill(journal, 200, size=200)
        journal.sync()
        assert journal.durable_lsn == 200
        assert told == sorted(set(told))
        assert told[-1] == 200
    assert list(read(tmp_path)) == records


def test_a_sync_can_be_asked_for_with_process_durability(tmp_path: Path) -> None:
    with Journal.open(tmp_path, node="a", segment_bytes=SMALL) as journal:
        fill(journal, 1)
        journal.request_sync()
        journal.sync()
        assert 1 <= journal.syncs <= 2
