"""The process that projects: `python -m host.store.worker`, started by `StoreWriter`.

It reads one JSON line (`Job`) from standard input, writes one JSON line (`FollowStatus`) to standard
output whenever something changed, and ends when standard input does, after projecting what the
journal holds by then. So it also ends when its parent is killed.
"""

import os
import sys
import threading
from pathlib import Path

import msgspec
from msgspec import Struct

from host.store.follow import FollowStatus, follow

__all__ = ["Job", "main"]

NICENESS = 10
"""Trading goes first where processor time is short."""


class Job(Struct, frozen=True):
    """Which journal goes into which database. Not in the command line, where a password would show."""

    journal_folder: str
    url: str
    cell: str = ""
    """Whose nodes take turns writing the journal; empty where one node alone does."""


def main() -> None:
    """Run one job."""
    os.nice(NICENESS)
    job = msgspec.json.decode(sys.stdin.buffer.readline(), type=Job)
    stop = threading.Event()
    threading.Thread(target=_wait_for_end_of_input, args=(stop,), daemon=True).start()
    previous: FollowStatus | None = None

    def report(status: FollowStatus) -> None:
        nonlocal previous
        if status != previous:
            previous = status
            _print(status)

    follow(Path(job.journal_folder), job.url, stop, report, job.cell)


def _print(status: FollowStatus) -> None:
    try:
        sys.stdout.buffer.write(msgspec.json.encode(status) + b"\n")
        sys.stdout.buffer.flush()
    except BrokenPipeError:
        # The parent is gone; its end of input stops us after the journal's last entries.
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115, PTH123 - lives until the process ends


def _wait_for_end_of_input(stop: threading.Event) -> None:
    sys.stdin.buffer.read()  # nothing is ever sent; only the end matters
    stop.set()


if __name__ == "__main__":
    main()
