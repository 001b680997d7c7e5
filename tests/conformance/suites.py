"""Runs a conformance suite with pytest and keeps what became of each cell: behaviour × what was tried."""

import contextlib
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import pytest
from msgspec import Struct, field

__all__ = ["SUITES", "Outcome", "Row", "Suite", "row_of", "run"]

TESTS: Final = Path(__file__).parents[1]
OK: Final = "ok"
FAILED: Final = "FAIL"
SKIPPED: Final = "skip"
_WORSE: Final = (OK, SKIPPED, FAILED)
"""A cell that stands for several tests is as the worst of them."""


class Suite(Struct, frozen=True):
    """Where the tests of one table are, and what names its columns."""

    title: str
    paths: tuple[str, ...]
    parameter: str
    """The tests' parameter that says what is tried. A test without it names its column in its own name."""
    columns: tuple[str, ...] = ()
    """In this order; those that are not named here follow as they come."""


SUITES: Final[dict[str, Suite]] = {
    "adapters": Suite(
        "exchange adapters",
        tuple(
            f"plugins/exchanges/conformance/test_conformance_{part}.py"
            for part in (
                "market",
                "orders",
                "changes",
                "outcomes",
                "account",
                "streams",
                "limits",
                "bad_input",
            )
        ),
        "column",
    ),
    "leases": Suite(
        "lease stores",
        ("failover/test_lease_conformance.py", "failover/test_lease_deadlines.py"),
        "url",
        ("sqlite", "postgresql", "etcd"),
    ),
}


class Row(Struct):
    """One behaviour: what became of it in each column, and which columns have it not, and why."""

    behaviour: str
    cells: dict[str, str] = field(default_factory=dict)
    absent: dict[str, str] = field(default_factory=dict)


class Outcome(Struct):
    """One table."""

    title: str
    columns: list[str]
    rows: list[Row]
    failures: dict[str, str] = field(default_factory=dict)
    """The end of each failure's account, by behaviour and column."""

    @property
    def is_ok(self) -> bool:
        """Return whether something was tried and nothing failed."""
        return not self.failures and any(row.cells for row in self.rows)


def row_of(marks: Mapping[str, Any], name: str) -> tuple[str, Mapping[str, str]]:
    """Return how a test is called in the table, and who has not got its behaviour, and why."""
    mark = marks.get("behaviour")
    if mark is None:
        return name.partition("[")[0].removeprefix("test_").replace("_", " "), {}
    title, absent = mark.args
    return title, absent


class _Watcher:
    """A pytest plugin that fills an `Outcome`."""

    def __init__(self, suite: Suite) -> None:
        self.outcome = Outcome(suite.title, list(suite.columns), [])
        self._suite = suite
        self._rows: dict[str, Row] = {}
        self._places: dict[str, tuple[str, str]] = {}

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Lay the table out."""
        for item in items:
            title, absent = row_of({mark.name: mark for mark in item.iter_markers()}, item.name)
            row = self._rows.get(title)
            if row is None:
                row = self._rows[title] = Row(title, absent=dict(absent))
                self.outcome.rows.append(row)
            column = self._column_of(item)
            if column not in self.outcome.columns:
                self.outcome.columns.append(column)
            self._places[item.nodeid] = title, column

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Note what became of a test."""
        if report.when != "call" and report.passed:
            return
        title, column = self._places[report.nodeid]
        found = FAILED if report.failed else SKIPPED if report.skipped else OK
        cells = self._rows[title].cells
        cells[column] = max(cells.get(column, OK), found, key=_WORSE.index)
        if report.failed:
            self.outcome.failures[f"{title} · {column}"] = report.longreprtext

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """Note tests that cannot even be read."""
        if report.failed:
            self.outcome.failures[report.nodeid] = report.longreprtext

    def _column_of(self, item: pytest.Item) -> str:
        callspec = getattr(item, "callspec", None)
        if callspec is not None and self._suite.parameter in callspec.params:
            return str(callspec.params[self._suite.parameter])
        return next((column for column in self._suite.columns if column in item.name), "all")


def run(suite: Suite) -> Outcome:
    """Run a suite in this process and return its table."""
    watcher = _Watcher(suite)
    paths = [str(TESTS / path) for path in suite.paths]
    with contextlib.redirect_stdout(io.StringIO()):
        pytest.main([*paths, "-p", "no:cacheprovider", "-p", "no:xdist"], plugins=[watcher])
    return watcher.outcome
