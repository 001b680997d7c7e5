"""What docs/writing-a-plugin.md promises."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from host.loader import Catalog, PluginRejected, UnknownPlugin, capture, import_version, probe
from tests.loader.conftest import WritePlugin

DOCUMENT = (Path(__file__).parents[2] / "docs" / "writing-a-plugin.md").read_text()
PLUGINS = dict(re.findall(r"```python\n# file: (\w+\.py)\n(.*?)```", DOCUMENT, re.DOTALL))

BAD_FILES = [
    "x = (\n",
    "import nopackage\n",
    "from _ema import ema\n",
    "import sys\nsys.exit(1)\n",
    "from host.api import *\n\nclass Alpha(Strategy):\n    def on_book(self, book, depth): ...\n",
    "from host.api import *\n\nclass Alpha(Strategy):\n    def on_bok(self, book): ...\n",
    "from host.api import *\n\nclass Alpha(Strategy):\n    async def on_fill(self, fill): ...\n",
    "from host.api import *\n\nclass P(Params, frozen=True):\n    x: Positive = -1.0\nclass Alpha(Strategy[P]): ...\n",
    "from host.api import *\n\nclass S(State):\n    x: int\nclass Alpha(Strategy):\n    state: S\n",
]


def test_every_complete_example_loads(write: WritePlugin, load: Callable[[], Catalog]) -> None:
    for name, source in PLUGINS.items():
        write(name, source)
    catalog = load()

    assert len(PLUGINS) == 6
    assert catalog.problems == []
    assert sorted(name for _, name in catalog.offers) == sorted(
        ["patient" if name == "named.py" else name.removesuffix(".py") for name in PLUGINS]
    )


@pytest.mark.parametrize("source", BAD_FILES)
def test_quoted_problems_are_what_the_host_says(
    write: WritePlugin, load: Callable[[], Catalog], source: str
) -> None:
    write("alpha.py", source)
    (problem,) = load().problems

    assert f"\n{problem}\n" in DOCUMENT


def test_quoted_import_problem_is_what_the_host_says(write: WritePlugin) -> None:
    root = write("alpha/__init__.py", "").parent
    write("alpha/helpers.py", "")
    write("alpha/core.py", "x = 1\n\nimport helpers\n")

    with pytest.raises(PluginRejected) as caught:
        import_version(capture(root))
    assert f"\n{caught.value}\n" in DOCUMENT


@pytest.mark.parametrize(
    ("source", "deadline_s"),
    [
        ("while True: pass\n", 1.0),
        ("held = []\nwhile True:\n    held.append(bytearray(64 << 20))\n", 60.0),
        ("import os\nos.kill(os.getpid(), 11)\n", 60.0),
    ],
)
def test_quoted_end_of_a_child_is_what_the_host_says(
    write: WritePlugin, source: str, deadline_s: float
) -> None:
    (problem,) = probe(capture(write("alpha.py", source)), deadline_s).problems

    assert f"\n{problem}\n" in DOCUMENT


def test_quoted_lookups_are_what_the_host_says(write: WritePlugin, load: Callable[[], Catalog]) -> None:
    write("two_sided.py")
    write("alpha.py", "x = (\n")
    catalog = load()

    for name in ("two_sidd", "alpha"):
        with pytest.raises(UnknownPlugin) as caught:
            catalog.strategy(name)
        assert f"\n{caught.value}\n" in DOCUMENT
