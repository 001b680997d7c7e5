"""Group sync: a thread that makes segments durable, many flushes with one fdatasync."""

import os
import threading
from collections.abc import Callable
from pathlib import Path
from queue import Empty, SimpleQueue

from host.journal._errors import JournalError
from host.journal._segments import Segment, sync_folder

__all__ = ["GroupSync"]

_CLOSE_DEADLINE_S = 30.0


class _Request:
    __slots__ = ("done", "is_last", "lsn", "segment")

    def __init__(self, segment: Segment, lsn: int, is_last: bool, done: threading.Event | None) -> None:
        self.segment = segment
        self.lsn = lsn
        self.is_last = is_last  # the journal has moved on to the next segment: close this one
        self.done = done


class GroupSync:
    """Syncs segments in the order of the requests and says how far it got.

    Everything that was asked for while a sync ran is covered by the next one. The thread starts
    with the first request. `on_synced(lsn)` and `on_failed(error)` are called in that thread.
    """

    def __init__(
        self,
        folder: Path,
        durable_lsn: int,
        on_synced: Callable[[int], None],
        on_failed: Callable[[JournalError], None],
    ) -> None:
        self.durable_lsn = durable_lsn
        self.syncs = 0
        """How many times the disk was asked."""
        self.failure: JournalError | None = None
        self._folder = folder
        self._on_synced = on_synced
        self._on_failed = on_failed
        self._queue: SimpleQueue[_Request | None] = SimpleQueue()
        self._thread: threading.Thread | None = None

    def request(
        self, segment: Segment, lsn: int, *, is_last: bool = False, done: threading.Event | None = None
    ) -> None:
        """Ask for the entries up to `lsn`, the last of which is in `segment`; never waits."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="journal-sync", daemon=True)
            self._thread.start()
        self._queue.put(_Request(segment, lsn, is_last, done))

    def wait(self, segment: Segment, lsn: int) -> None:
        """Return when the entries up to `lsn` are on disk; raises `JournalError` if they cannot be."""
        done = threading.Event()
        self.request(segment, lsn, done=done)
        done.wait()
        if self.failure is not None:
            raise self.failure

    def close(self) -> None:
        """Finish what was asked for and end the thread."""
        if self._thread is not None:
            self._queue.put(None)
            self._thread.join(_CLOSE_DEADLINE_S)
            if self._thread.is_alive():
                raise JournalError(
                    f"the disk did not finish a sync within {_CLOSE_DEADLINE_S:.0f} s; check the disk",
                    path=self._folder,
                )
            self._thread = None

    def _run(self) -> None:
        while (request := self._queue.get()) is not None:
            batch = [request]
            is_closing = False
            try:
                while not is_closing:
                    following = self._queue.get_nowait()
                    if following is None:
                        is_closing = True
                    else:
                        batch.append(following)
            except Empty:
                pass  # that was everything asked for until now
            self._serve(batch)
            if is_closing:
                return

    def _serve(self, batch: list[_Request]) -> None:
        # After one failed sync the kernel may have dropped the dirty pages, and a second sync would
        # report success for data that is gone: a failure is final.
        if self.failure is None:
            self._sync(batch)
        for request in batch:
            if request.is_last:
                request.segment.close()
            if request.done is not None:
                request.done.set()

    def _sync(self, batch: list[_Request]) -> None:
        segment = batch[0].segment
        try:
            for segment in dict.fromkeys(request.segment for request in batch):
                if not segment.is_closed:
                    os.fdatasync(segment.fd)
                    self.syncs += 1
            if any(request.is_last for request in batch):
                sync_folder(self._folder)  # the name of the segment that came after it
        except OSError as error:
            self.failure = JournalError(
                "the disk did not confirm a sync; check the disk, then restart the node",
                path=segment.path,
                errno=error.errno,
            )
            self._on_failed(self.failure)
            return
        lsn = max(request.lsn for request in batch)
        if lsn > self.durable_lsn:
            self.durable_lsn = lsn
            self._on_synced(lsn)
