"""The documentation says what the code says: files, links, alerts and the life of an order."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from host.cli import main
from host.core.lifecycle import RESTING, TRANSITIONS

REPO = Path(__file__).parents[1]
PAGES = [REPO / "README.md", REPO / "ops" / "README.md", *sorted((REPO / "docs").rglob("*.md"))]
SOURCES = [
    path for folder in ("host", "venue", "plugins", "failover") for path in (REPO / folder).rglob("*.py")
]
SOURCE = "\n".join(path.read_text(encoding="utf-8") for path in SOURCES)
FOLDERS = ("host/", "venue/", "plugins/", "bench/", "ops/", "scripts/", "tests/", "docs/")

page = pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(REPO)))


def anchors(path: Path) -> set[str]:
    """Return what a link may name in a page, as GitHub makes it of the headings."""
    headings = re.findall(r"^#+ (.+)$", path.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading).strip().lower().replace(" ", "-") for heading in headings}


@page
def test_links_lead_somewhere(path: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", path.read_text(encoding="utf-8")):
        if "://" in target:
            continue
        file, _, anchor = target.partition("#")
        place = path.parent / file if file else path
        assert place.exists(), target
        assert not anchor or anchor in anchors(place), target


@page
def test_files_that_are_named_exist(path: Path) -> None:
    for name in re.findall(r"`([\w/.-]+)`", path.read_text(encoding="utf-8")):
        if name.startswith(FOLDERS):
            assert (REPO / name).exists(), name


def test_functions_that_the_architecture_names_exist() -> None:
    text = (REPO / "docs" / "architecture.md").read_text(encoding="utf-8")
    names = re.findall(r"`([A-Z]\w+)\.(\w+)`", text)
    assert len(names) > 20
    for cls, function in names:
        assert re.search(rf"^class {cls}\b", SOURCE, re.MULTILINE), cls
        assert re.search(rf"^    (async )?def {function}\b", SOURCE, re.MULTILINE), f"{cls}.{function}"


def test_the_life_of_an_order_is_the_table_of_the_code() -> None:
    text = (REPO / "docs" / "architecture.md").read_text(encoding="utf-8")
    shown = text.partition("<!-- order states -->\n")[2].partition("<!-- end of order states -->")[0]
    assert shown.splitlines() == ["| status | moves on |", "|---|---|", *_rows()]


def _rows() -> Iterator[str]:
    for status, row in TRANSITIONS.items():
        moves: dict[str, list[str]] = {}
        for event, target in row.items():
            if target is not status:
                name = "resting" if target is RESTING else f"`{target.value}`"
                moves.setdefault(name, []).append(event.name.lower())
        told = "; ".join(", ".join(events) + " → " + to for to, events in moves.items())
        yield f"| `{status.value}` | {told} |"


def test_every_kind_of_alert_is_explained() -> None:
    pages = ("operating-a-node.md", "operating-a-pair.md")
    text = "\n".join((REPO / "docs" / page).read_text(encoding="utf-8") for page in pages)
    explained = set(re.findall(r"`(\w+)`", "".join(re.findall(r"^\| (`\w+`(?:, `\w+`)*) \|", text, re.M))))
    raised = set(re.findall(r'(?:alert|Alert)\(\s*"(\w+)"', SOURCE))
    raised |= set(re.findall(r'(?:anomaly=|return )f"(\w+): ', SOURCE))
    assert len(raised) > 15
    assert raised <= explained, "add a row to docs/operating-a-node.md, or docs/operating-a-pair.md"


def test_the_strategy_in_the_readme_is_one_the_host_takes(tmp_path: Path) -> None:
    plugin = tmp_path / "maker.py"
    plugin.write_text(_examples("python")[0])
    done = CliRunner().invoke(main, ["plugin", "check", str(plugin)])
    assert done.exit_code == 0, done.output


def test_the_configuration_in_the_readme_is_one_the_node_takes(tmp_path: Path) -> None:
    (example,) = _examples("toml")
    (tmp_path / "maker.py").write_text(_examples("python")[0])
    config = tmp_path / "tandem.toml"
    config.write_text(
        f'[node]\ndata_dir = "{tmp_path}/data"\nplugin_dirs = ["{tmp_path}"]\n'
        f'[[account]]\nname = "paper"\nexchange = "paper"\n{example}'
    )
    done = CliRunner().invoke(main, ["config", "check", "-c", str(config)])
    assert done.exit_code == 0, done.output


def _examples(language: str) -> list[str]:
    text = (REPO / "README.md").read_text(encoding="utf-8")
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)
