"""Makes the audit log durable without making anybody wait: a thread, many records with one sync."""

import os
import threading
from queue import Empty, SimpleQueue
from typing import Final

from host.control.audit_chain import AuditError

__all__ = ["SyncThread"]

_CLOSE_DEADLINE_S: Final = 30.0
_GATHER_S: Final = 0.02
"""A sync that nobody waits for waits so long for others: waking the thread and the disk for every call
made a change of parameters 4 % slower."""


class SyncThread:
    """Syncs files off the caller's thread, in the order asked, as many requests at once as there are."""

    def __init__(self) -> None:
        self._queue: SimpleQueue[tuple[int, bool, threading.Event | None] | None] = SimpleQueue()
        self._is_urgent = threading.Event()
        self._thread: threading.Thread | None = None
        self._failure: OSError | None = None

    def request(self, fd: int, *, is_last: bool = False, done: threading.Event | None = None) -> None:
        """Ask for what was written to `fd`; it is closed after its last request."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="audit-sync", daemon=True)
            self._thread.start()
        self._queue.put((fd, is_last, done))
        if done is not None:
            self._is_urgent.set()

    def check(self) -> None:
        """Raise `AuditError` if a sync failed: what the disk dropped then cannot be had back."""
        if self._failure is not None:
            why = self._failure.strerror
            raise AuditError(
                f"the disk did not confirm the audit log: {why}; check it, then restart the node"
            )

    def wait(self, fd: int) -> None:
        """Return when everything written to `fd` is on disk; raise `AuditError` if it cannot be."""
        done = threading.Event()
        self.request(fd, done=done)
        if not done.wait(_CLOSE_DEADLINE_S):
            raise AuditError(
                f"the disk did not sync the audit log within {_CLOSE_DEADLINE_S:.0f} s; check it"
            )
        self.check()

    def close(self, fd: int) -> None:
        """Sync and close `fd`, and end the thread; raise `AuditError` where a sync failed."""
        if fd >= 0:
            self.request(fd, is_last=True)
        if self._thread is not None:
            self._queue.put(None)
            self._is_urgent.set()
            self._thread.join(_CLOSE_DEADLINE_S)
            self._thread = None
        self.check()

    def _run(self) -> None:
        while (request := self._queue.get()) is not None:
            self._is_urgent.wait(_GATHER_S)
            self._is_urgent.clear()  # before looking: what is put in later sets it again
            batch, is_closing = [request], False
            try:
                while not is_closing:
                    following = self._queue.get_nowait()
                    is_closing = following is None
                    if following is not None:
                        batch.append(following)
            except Empty:
                pass  # that was everything asked for until now
            self._serve(batch)
            if is_closing:
                return

    def _serve(self, batch: list[tuple[int, bool, threading.Event | None]]) -> None:
        try:
            for fd in dict.fromkeys(fd for fd, _, _ in batch):
                if self._failure is None:
                    os.fdatasync(fd)
        except OSError as error:
            self._failure = error
        for fd, is_last, done in batch:
            if is_last:
                os.close(fd)
            if done is not None:
                done.set()
