"""The table of a conformance suite as text: behaviours down, what was tried across, reasons below."""

import io

from rich.console import Console
from rich.table import Table

from tests.conformance.suites import Outcome

__all__ = ["rendered"]

SHOWN_LINES = 12
"""Of each failure, from its end."""


def rendered(outcome: Outcome, width: int) -> str:
    """Return a table at most `width` characters wide, with its reasons and failures below."""
    reasons: dict[str, int] = {}
    table = Table(box=None, padding=(0, 1, 0, 0), show_edge=False, title=None)
    table.add_column("", ratio=1, min_width=13)
    for column in outcome.columns:
        table.add_column(column.replace(" ", "\n"), no_wrap=True, vertical="bottom")
    for row in outcome.rows:
        cells = []
        for column in outcome.columns:
            reason = row.absent.get(column)
            if reason is None:
                cells.append(row.cells.get(column, ""))
            else:
                cells.append(f"n/a {reasons.setdefault(reason, len(reasons) + 1)}")
        table.add_row(row.behaviour, *cells)
    text = io.StringIO()
    console = Console(file=text, width=width, color_system=None, highlight=False, markup=False)
    console.print(table)
    for reason, number in reasons.items():
        console.print(f"n/a {number}: {reason}")
    cells = [cell for row in outcome.rows for cell in row.cells.values()]
    counts = ", ".join(f"{cells.count(kind)} {kind}" for kind in dict.fromkeys(cells))
    console.print(f"{outcome.title}: {counts or 'nothing was tried'}")
    for name, story in outcome.failures.items():
        console.print(f"\nFAIL {name}")
        console.print("\n".join(story.splitlines()[-SHOWN_LINES:]))
    return "\n".join(line.rstrip() for line in text.getvalue().splitlines())
