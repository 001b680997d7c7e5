"""The reference of the control API says what the code does."""

from collections.abc import Iterator
from pathlib import Path

from google.rpc import code_pb2

from host.control.event_methods import KINDS
from host.control.reasons import REASONS

REFERENCE = Path(__file__).parents[2] / "docs" / "control-api.md"


def reasons() -> Iterator[str]:
    for code in dict.fromkeys(REASONS.values()):
        names = ", ".join(f"`{reason}`" for reason, its in REASONS.items() if its == code)
        yield f"| `{code_pb2.Code.Name(code)}` | {names} |"


def part(name: str) -> list[str]:
    text = REFERENCE.read_text(encoding="utf-8")
    return text.partition(f"<!-- {name} -->\n")[2].partition(f"<!-- end of {name} -->")[0].splitlines()


def test_the_reference_lists_every_reason_with_its_code() -> None:
    assert part("reasons") == list(reasons())


def test_the_reference_lists_every_kind_of_event() -> None:
    assert part("kinds") == [", ".join(f"`{kind}`" for kind in sorted(KINDS))]
