"""Projects the journal while a node runs, in a process of its own.

Not a thread: one would hold the node's interpreter lock for up to 5 ms at a time while an order is
due. A process still competes for the processors; `docs/store.md` says what was measured. The
journal's files are all that the two share.
"""

import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import IO, Final

import msgspec

from host.store.errors import StoreError
from host.store.follow import FollowStatus
from host.store.worker import Job

__all__ = ["StoreWriter"]

_KILL_WAIT_S: Final = 5.0


class StoreWriter:
    """Projects the journal in `journal_folder` into the database at `url` from `start` to `stop`.

    `cell` is whose nodes take turns writing the journal, where they do.

    Never raises into the caller for what happens to the database: an outage is retried, with
    `error` saying what and when, and the journal keeps everything meanwhile.
    """

    def __init__(self, journal_folder: str | Path, url: str, cell: str = "") -> None:
        self._job = Job(str(Path(journal_folder).resolve()), url, cell)
        self._process: subprocess.Popen[bytes] | None = None
        self._listener: threading.Thread | None = None
        self._changed = threading.Condition()
        self._status = FollowStatus(0, is_caught_up=False)

    @property
    def last_lsn(self) -> int:
        """Return the LSN of the last entry that the database holds, as far as we were told."""
        return self._status.last_lsn

    @property
    def error(self) -> str | None:
        """Return what keeps the projection from going on, or None."""
        return self._status.error

    @property
    def process_id(self) -> int | None:
        """Return the id of the process that projects, None before `start`."""
        return None if self._process is None else self._process.pid

    @property
    def is_running(self) -> bool:
        """Return whether the projection goes on, or tries to."""
        return self._process is not None and not self._status.is_over

    def lag(self, journal_lsn: int) -> int:
        """Return how many records the database is behind `journal_lsn`, the journal's last entry."""
        return max(0, journal_lsn - self._status.last_lsn)

    def start(self) -> None:
        """Start projecting; raise `StoreError` if it was started before."""
        if self._process is not None:
            raise StoreError("store writer: start may be called once, was called again; make a new one")
        errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed by the listener
        self._process = process = subprocess.Popen(
            # -P: a folder named `host` where the user happens to stand is not ours.
            [sys.executable, "-P", "-m", "host.store.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            # Ctrl-C is the node's to handle; it then stops us.
            start_new_session=True,
        )
        assert process.stdin is not None
        process.stdin.write(msgspec.json.encode(self._job) + b"\n")
        process.stdin.flush()
        self._listener = threading.Thread(
            target=self._listen, args=(process, errors), name="store-writer", daemon=True
        )
        self._listener.start()

    def wait_for(self, lsn: int, timeout: float) -> bool:
        """Return whether the database held entry `lsn` within `timeout` seconds."""
        self.wait_until(lambda: self._status.last_lsn >= lsn or self._status.is_over, timeout)
        return self._status.last_lsn >= lsn

    def wait_until(self, condition: Callable[[], bool], timeout: float) -> bool:
        """Return whether `condition`, asked after each change of this writer, held in time."""
        with self._changed:
            return self._changed.wait_for(condition, timeout)

    def stop(self, timeout: float = 5.0) -> bool:
        """Project what the journal holds by now and end; return whether all of it was projected.

        After `timeout` seconds the process is killed, which loses nothing: the next start goes on
        where the database is.
        """
        process, listener = self._process, self._listener
        if process is None or listener is None:
            return False
        assert process.stdin is not None
        process.stdin.close()
        listener.join(timeout)
        if listener.is_alive():
            process.kill()
            listener.join(_KILL_WAIT_S)
        return self._status.is_over and self._status.error is None

    def _listen(self, process: subprocess.Popen[bytes], errors: IO[bytes]) -> None:
        assert process.stdout is not None
        with process.stdout, errors:
            for line in process.stdout:
                self._set(msgspec.json.decode(line, type=FollowStatus))
            code = process.wait()
            if self._status.is_over:
                return
            errors.seek(0)
            text = errors.read().decode(errors="replace").strip().rpartition("\n")[2]
        last = self._status.last_lsn
        error = f"the projecting process ended by itself with code {code} after LSN {last}: {text}"
        self._set(FollowStatus(last, False, error, is_over=True))

    def _set(self, status: FollowStatus) -> None:
        with self._changed:
            self._status = status
            self._changed.notify_all()
