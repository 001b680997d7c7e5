"""The tables of `make conformance`: a failure shows and ends the command with 1, and the page shows what is tried."""

import importlib
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from conformance_columns import COLUMNS

from tests.conformance.suites import SUITES, TESTS, Outcome, Row, row_of
from tests.conformance.table import rendered

REPO = TESTS.parent
PAGE_WIDTH = 118
EXAMPLE = """
import pytest

@pytest.mark.parametrize("column", ["one", "two"])
@pytest.mark.behaviour("stays in one piece", {"three": "it has no pieces"})
def test_it(column: str) -> None:
    assert column == "one"
"""


def shown_as_ok() -> Outcome:
    """Return the table of the adapters as it is when nothing fails."""
    rows = []
    for path in SUITES["adapters"].paths:
        module = importlib.import_module(Path(path).stem)
        tests = [value for name, value in vars(module).items() if name.startswith("test_")]
        for test in tests:
            marks = {mark.name: mark for mark in test.pytestmark}
            title, absent = row_of(marks, test.__name__)
            cells = dict.fromkeys((name for name in COLUMNS if name not in absent), "ok")
            rows.append(Row(title, cells, dict(absent)))
    return Outcome(SUITES["adapters"].title, list(COLUMNS), rows)


def test_the_page_shows_what_is_tried_and_what_is_not_there() -> None:
    page = (REPO / "docs" / "exchanges.md").read_text(encoding="utf-8")
    shown = page.partition("<!-- conformance -->\n```\n")[2].partition("\n```\n")[0]
    assert shown.splitlines() == rendered(shown_as_ok(), PAGE_WIDTH).splitlines()


@pytest.mark.parametrize("width", [80, PAGE_WIDTH, 120])
def test_the_table_is_as_wide_as_the_terminal_at_most(width: int) -> None:
    lines = rendered(shown_as_ok(), width).splitlines()
    assert max(map(len, lines)) <= width
    assert " ".join(lines[:2]).split() == [
        part for column in zip(*map(str.split, COLUMNS), strict=True) for part in column
    ]


def test_every_file_of_the_suite_is_in_the_table() -> None:
    files = sorted((TESTS / "plugins/exchanges/conformance").glob("test_*.py"))
    assert [str(file.relative_to(TESTS)) for file in files] == sorted(SUITES["adapters"].paths)


def test_a_failure_shows_in_its_cell_and_ends_the_command_with_1(tmp_path: Path) -> None:
    (tmp_path / "test_example.py").write_text(EXAMPLE)
    command = (
        "import sys; import tests.conformance.__main__ as command; "
        "from tests.conformance.suites import SUITES, Suite; SUITES.clear(); "
        f"SUITES['it'] = Suite('it', ({str(tmp_path / 'test_example.py')!r},), 'column'); "
        "sys.argv[1:] = {}; sys.exit(command.main())"
    )
    plain, object_ = (
        subprocess.run(
            [sys.executable, "-c", command.format(arguments)],
            capture_output=True,
            text=True,
            cwd=REPO,
            check=False,
        )
        for arguments in ([], ["--json"])
    )
    assert plain.returncode == object_.returncode == 1
    assert re.search(r"stays in one piece +ok +FAIL", plain.stdout), plain.stdout + plain.stderr
    assert "FAIL stays in one piece · two" in plain.stdout and "assert 'two' == 'one'" in plain.stdout
    found = json.loads(object_.stdout)
    assert found["ok"] is False
    assert found["it"]["rows"][0]["cells"] == {"one": "ok", "two": "FAIL"}
