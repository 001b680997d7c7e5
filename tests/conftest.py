"""What all tests share: how hypothesis runs, that nodes do not fight for one port, and that files are given back."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from host.journal import Journal, JournalError

# Speed is not judged: the machine may be busy. In CI every run draws the same examples, so that a
# failure is the change's own; elsewhere each run draws new ones.
settings.register_profile(
    "tandem",
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    derandomize=bool(os.environ.get("CI")),
)
settings.load_profile("tandem")

# A node serves its control API on one port by default, and several tests run nodes at a time.
os.environ.setdefault("TANDEM__CONTROL__LISTEN", "[]")


@pytest.fixture
def short_path() -> Iterator[Path]:
    """A folder such as `tmp_path`, for sockets: their paths have a hundred characters at most."""
    with tempfile.TemporaryDirectory(prefix="tandem-") as folder:
        yield Path(folder)


@pytest.fixture(autouse=True)
def _close_journals(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Close the journals that a test left open: three descriptors each, over thousands of tests."""
    opened: list[Journal] = []
    make = Journal.__init__

    def note(self: Journal, *args: Any, **kwargs: Any) -> None:
        make(self, *args, **kwargs)
        opened.append(self)

    monkeypatch.setattr(Journal, "__init__", note)
    yield
    for journal in opened:
        with suppress(JournalError):  # one that failed, as its test wanted
            journal.close()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print how long nobody traded at each switch, from the last order of one leader to the next one's first."""
    reports = [report for of_kind in terminalreporter.stats.values() for report in of_kind]
    rows = [
        value
        for report in reports
        if getattr(report, "when", "") == "call"
        for name, value in report.user_properties
        if name == "switch"
    ]
    if rows:
        terminalreporter.section("switches, as the venue saw them")
        for row in rows:
            terminalreporter.write_line(row)
