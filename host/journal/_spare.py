"""The next segment, created ahead by a thread so that the hot path never waits for the disk's room."""

import os
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from host.journal._errors import JournalError
from host.journal._format import SegmentHeader
from host.journal._segments import Segment, create_segment, preallocate

__all__ = ["SPARE_NAME", "Spare"]

SPARE_NAME = "next.blank"


class Spare:
    """At most one blank segment file, waiting for its first LSN."""

    def __init__(self, folder: Path, segment_bytes: int) -> None:
        self._folder = folder
        self._path = folder / SPARE_NAME
        self._segment_bytes = segment_bytes
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="journal-spare")
        self._pending: Future[int] | None = None

    @property
    def is_settled(self) -> bool:
        """Return whether the last `prepare` has ended, well or badly."""
        return self._pending is not None and self._pending.done()

    def prepare(self) -> None:
        """Start creating the blank file, unless it exists or is being created."""
        if self._pending is None:
            self._pending = self._executor.submit(preallocate, self._path, self._segment_bytes)

    def failure(self) -> JournalError | None:
        """Wait for the creation to end; return why it failed, and forget it so that it can be tried again."""
        self.prepare()
        assert self._pending is not None
        error = self._pending.exception()
        if error is None:
            return None
        self._pending = None
        if not isinstance(error, JournalError):
            raise error
        return error

    def take(self, header: SegmentHeader) -> Segment:
        """Return the blank file as the segment of `header`; waits for its creation where it must.

        Raises `JournalFull` or `JournalError` when it cannot be created.
        """
        error = self.failure()
        if error is not None:
            raise error
        assert self._pending is not None
        fd = self._pending.result()
        self._pending = None
        return create_segment(self._folder, header, self._path, fd, self._segment_bytes)

    def close(self) -> None:
        """Delete the blank file: its room goes back to the disk."""
        self._executor.shutdown(wait=True)
        if self._pending is not None and self._pending.exception() is None:
            os.close(self._pending.result())
            self._path.unlink(missing_ok=True)
        self._pending = None
