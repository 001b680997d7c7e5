"""Writing plugin files, and giving back what a test loaded."""

import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from host.loader import Catalog

WritePlugin = Callable[..., Path]

STRATEGY = """
    from host.api import BookTop, Params, Positive, Strategy

    class AlphaParams(Params, frozen=True):
        half_spread_bps: Positive = 5.0

    class Alpha(Strategy[AlphaParams]):
        def on_book(self, book: BookTop) -> None:
            pass
"""


@pytest.fixture
def write(tmp_path: Path) -> WritePlugin:
    """Return a function that writes one dedented file below the test's plugin folder."""

    def write_file(name: str, text: str = STRATEGY) -> Path:
        path = tmp_path / "plugins" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text).lstrip("\n"))
        return path

    return write_file


@pytest.fixture
def load(tmp_path: Path) -> Iterator[Callable[[], Catalog]]:
    """Return a function that loads the test's plugin folder; unloads everything afterwards."""
    catalogs: list[Catalog] = []

    def load_catalog() -> Catalog:
        catalogs.append(Catalog.load([tmp_path / "plugins"], entry_points=False))
        return catalogs[-1]

    yield load_catalog
    for catalog in catalogs:
        catalog.close()
