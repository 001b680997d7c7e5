"""docs/isolation.md says how soon a fault of a worker is found and what follows: by these settings, and no others."""

from pathlib import Path

import pytest

from host.isolation import meter, workers
from host.isolation.fate import Fate
from host.isolation.settings import SECOND_NS, WorkerSettings

PAGE = (Path(__file__).parents[2] / "docs" / "isolation.md").read_text(encoding="utf-8")
DEFAULTS = WorkerSettings()
MS = SECOND_NS // 1000


def within(fault: str) -> str:
    """Return what the page says of a fault in the column `within`."""
    row = next(line for line in PAGE.splitlines() if line.startswith(f"| {fault}"))
    return row.split("|")[3].strip()


def test_the_page_states_the_defaults_that_its_times_are_of() -> None:
    stated = (
        f"`deadline_ms` {DEFAULTS.deadline_ns // MS}, `backoff_ms` {DEFAULTS.backoff_ns // MS}, `crashes` "
    )
    assert f"({stated}{DEFAULTS.crashes})" in PAGE


@pytest.mark.parametrize(
    ("fault", "stated"),
    [
        ("`while True`", f"`deadline_ms` + {workers.LOOK_EVERY_S * 1000:g} ms"),
        ("memory without end", f"{meter.LOOK_EVERY_NS / SECOND_NS:g} s after the limit"),
        ("more processor time", f"{2 * DEFAULTS.cpu_window_ns // SECOND_NS} s"),
        ("`stop` not handled", f"{DEFAULTS.stop_ns // SECOND_NS} s"),
    ],
)
def test_the_page_states_within_what_a_fault_is_found_by_the_settings(fault: str, stated: str) -> None:
    assert within(fault).startswith(stated)


def test_the_pauses_until_quarantine_are_those_of_the_page() -> None:
    fate = Fate(DEFAULTS)
    pauses = [fate.lost(k * SECOND_NS) for k in range(DEFAULTS.crashes)]
    assert pauses.pop() is None
    assert " + ".join(f"{pause / SECOND_NS:g}" for pause in pauses if pause is not None) + " s" in PAGE
