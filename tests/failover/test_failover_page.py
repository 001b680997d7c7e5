"""The page about the lease says what the code says."""

from pathlib import Path

from failover.states import TRANSITIONS

PAGE = Path(__file__).parents[2] / "docs" / "failover.md"


def test_the_states_of_the_page_are_the_table_of_the_code() -> None:
    text = PAGE.read_text(encoding="utf-8")
    shown = text.partition("<!-- elector states -->\n")[2].partition("<!-- end of elector states -->")[0]
    rows = [
        f"| `{state.value}` | {'; '.join(f'{move.value} → `{to.value}`' for move, to in moves.items())} |"
        for state, moves in TRANSITIONS.items()
    ]
    assert shown.splitlines() == ["| state | moves on |", "|---|---|", *rows]
