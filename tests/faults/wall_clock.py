"""A wall clock for one process that can be stepped while it runs; its monotonic clocks stay right."""

import os
from pathlib import Path

from tests.servers import missing

__all__ = ["WallClock"]

_LIBRARIES = "lib/*/faketime/libfaketime.so.1"
_REPAIRS = Path(__file__).parent / "under_faketime"


class WallClock:
    """What the processes started with `environment` see as the date: the real one, stepped by `step`.

    Skips the test where Debian's faketime is not installed.
    """

    def __init__(self, folder: Path, name: str) -> None:
        found = sorted(Path("/usr").glob(_LIBRARIES))
        if not found:
            missing("no libfaketime found; install it with `apt-get install faketime`")
        self._file = folder / f"{name}.clock"
        self.step(0.0)
        self.environment = {
            "LD_PRELOAD": str(found[0]),
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
            # Looked at once a second: reading the file at each look at the clock slows a node to a crawl.
            "FAKETIME_CACHE_DURATION": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            # What it finds out by itself is wrong with the clock left alone: a thread that waits for a time is
            # woken at once, again and again.
            "FAKETIME_FORCE_MONOTONIC_FIX": "0",
            "PYTHONPATH": os.pathsep.join(filter(None, (str(_REPAIRS), os.environ.get("PYTHONPATH")))),
        }

    def step(self, by_s: float) -> None:
        """Put the clock this far from the real one, from a second later at the latest."""
        new = self._file.with_suffix(".new")
        new.write_text(f"{by_s:+.3f}\n")
        os.replace(new, self._file)  # noqa: PTH105 - in one step: a reader finds the old or the new one
