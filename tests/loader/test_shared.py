"""Code that several plugins share."""

from collections.abc import Callable, Iterator
from importlib.resources import files
from pathlib import Path

import pytest

from host.loader import Catalog, PluginRejected, Version, capture, check_plugin, import_version, unload
from host.loader.shared import shared_code_of
from tests.loader.conftest import STRATEGY, WritePlugin

Import = Callable[[Path], object]


@pytest.fixture
def imported() -> Iterator[Callable[[Path], object]]:
    versions: list[Version] = []

    def capture_and_import(path: Path) -> object:
        version = capture(path)
        module = import_version(version)
        versions.append(version)
        return module

    yield capture_and_import
    for version in versions:
        unload(version)


@pytest.mark.parametrize(
    ("plugin", "shared", "statement"),
    [
        ("alpha.py", "_ema.py", "from ._ema import x"),
        ("alpha.py", "_ema.py", "from . import _ema; x = _ema.x"),
        ("alpha.py", "_ema/__init__.py", "from ._ema import x"),
        ("alpha.py", "_shared/ema.py", "from ._shared.ema import x"),
        ("alpha.py", "_shared/ema.py", "from ._shared import ema; x = ema.x"),
        ("strategies/alpha.py", "_shared/ema.py", "from .._shared.ema import x"),
        ("strategies/v1.2/alpha.py", "_shared/ema.py", "from ..._shared.ema import x"),
        ("alpha/__init__.py", "_ema.py", "from .._ema import x"),
        ("alpha/__init__.py", "_shared/deep/ema.py", "from .._shared.deep.ema import x"),
        ("strategies/alpha/__init__.py", "_ema.py", "from ..._ema import x"),
        (
            "strategies/alpha/__init__.py",
            "strategies/_ema.py",
            "def f():\n    from .._ema import x\n    return x\nx = f()",
        ),
    ],
)
def test_shared_code_is_imported_as_it_lies_on_disk(
    write: WritePlugin, imported: Import, plugin: str, shared: str, statement: str
) -> None:
    write(shared, "x = 'shared'\n")
    path = write(plugin, statement + "\n")
    root = path.parent if path.name == "__init__.py" else path

    assert imported(root).x == "shared"  # type: ignore[attr-defined]


def test_two_versions_of_a_dependant_keep_their_own_shared_code(write: WritePlugin, imported: Import) -> None:
    path = write(
        "alpha.py",
        "from ._shared.ema import Ema\ndef value():\n    from ._shared import ema\n    return ema.VALUE\n",
    )
    write("_shared/ema.py", "from .base import VALUE\nclass Ema: ...\n")
    write("_shared/base.py", "VALUE = 1\n")
    old = imported(path)
    write("_shared/base.py", "VALUE = 2\n")
    new = imported(path)

    assert (old.value(), new.value()) == (1, 2)  # type: ignore[attr-defined]
    assert old.Ema is not new.Ema  # type: ignore[attr-defined]


def test_change_of_shared_code_is_a_new_version_of_its_dependants_alone(write: WritePlugin) -> None:
    plugins = [
        write(f"{name}.py", f"from .{used} import x\n") for name, used in (("a", "_one"), ("b", "_two"))
    ]
    plugins.append(write("c.py", "x = 1  # from ._one import x\n"))
    write("_one.py", "from ._three import x\n")
    write("_two.py", "x = 2\n")
    write("_three.py", "x = 3\n")
    before = [capture(path).digest for path in plugins]
    write("_three.py", "x = 4\n")
    after = [capture(path).digest for path in plugins]

    assert [old == new for old, new in zip(before, after, strict=True)] == [False, True, True]


def test_unused_neighbours_are_no_part_of_a_version(write: WritePlugin) -> None:
    write("_shared/ema.py", "x = 1\n")
    write("_shared/other.py", "x = 1\n")
    write("_other.py", "x = 1\n")
    path = write("alpha.py", "from ._shared.ema import x\n")

    assert sorted(capture(path).sources) == ["_shared/ema.py", "alpha.py"]


def test_shared_package_is_one_unit_with_its_data(write: WritePlugin, imported: Import) -> None:
    code = """
        from importlib.resources import files
        from .core import x

        def load() -> str:
            return files(__package__).joinpath("t.csv").read_text()
    """
    write("_lib/__init__.py", code)
    write("_lib/core.py", "x = 1\n")
    write("_lib/t.csv", "1,2\n")
    path = write("alpha.py", "from ._lib import load, x\n")

    assert sorted(capture(path).shared) == ["_lib/__init__.py", "_lib/core.py", "_lib/t.csv"]
    assert imported(path).load() == "1,2\n"  # type: ignore[attr-defined]


def test_own_data_files_do_not_mix_with_shared_ones(write: WritePlugin, imported: Import) -> None:
    write("_ema.py", "x = 1\n")
    write("alpha/table.csv", "own")
    module = imported(write("alpha/__init__.py", "from .._ema import x\n").parent)

    inside = sorted(entry.name for entry in files(module).iterdir())  # type: ignore[arg-type]
    assert inside == ["__init__.py", "table.csv"]


def test_another_plugin_is_not_shared_code(write: WritePlugin) -> None:
    write("beta.py", "x = 1\n")
    version = capture(write("alpha.py", "from .beta import x\n"))

    with pytest.raises(PluginRejected, match=r'alpha\.py:1: the plugin has no module "beta".* starts with _'):
        import_version(version)


def test_absolute_import_of_shared_code_says_how_to_write_it(write: WritePlugin) -> None:
    write("_ema.py", "x = 1\n")
    version = capture(write("alpha.py", "from _ema import x\n"))

    with pytest.raises(PluginRejected, match=r'alpha\.py:1: no module named "_ema".*imported relatively'):
        import_version(version)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("x = (\n", "../_shared/ema.py:1: syntax error"),
        ("# one\n\nx = 1 / 0\n", "../_shared/ema.py:3: ZeroDivisionError at import"),
    ],
)
def test_errors_in_shared_code_name_its_file(write: WritePlugin, content: str, expected: str) -> None:
    shared = write("_shared/ema.py", content)
    version = capture(write("strategies/alpha.py", "from .._shared.ema import x\n"))

    with pytest.raises(PluginRejected) as caught:
        import_version(version)

    assert expected in str(caught.value)
    assert caught.value.problems[0].path == shared


def test_classes_in_shared_code_are_bases_and_not_offers(
    write: WritePlugin, load: Callable[[], Catalog]
) -> None:
    write("_maker.py", "from host.api import Strategy\n\nclass Maker(Strategy): ...\n")
    write("alpha.py", "from ._maker import Maker\n\nclass Alpha(Maker): ...\n")
    write("beta/__init__.py", "from .._maker import Maker\n\nclass Beta(Maker): ...\n")

    catalog = load()
    assert sorted(name for _, name in catalog.offers) == ["alpha", "beta"], catalog.problems


def test_child_process_gets_the_shared_code_too(write: WritePlugin) -> None:
    write("_lib.py", "SIZE = 1.0\n")
    report = check_plugin(write("alpha.py", STRATEGY + "    from ._lib import SIZE\n"))

    assert report.is_ok, report.problems


def test_places_that_were_looked_at_include_those_not_found(write: WritePlugin, tmp_path: Path) -> None:
    path = write("alpha.py", "from ._shared.ema import x\nfrom ._missing import y\nfrom json import z\n")
    (tmp_path / "plugins/_shared").mkdir()
    looked_at = {str(place.relative_to(path.parent)) for place in shared_code_of(path).looked_at}

    assert {"_shared/ema.py", "_shared/ema/__init__.py", "_missing.py", "_missing/__init__.py"} <= looked_at
    assert not {"_shared", "json.py"} & looked_at


def test_cycle_between_shared_files_ends(write: WritePlugin) -> None:
    write("_a.py", "from . import _b\n")
    write("_b.py", "from . import _a\n")

    assert sorted(capture(write("alpha.py", "from . import _a\n")).shared) == ["_a.py", "_b.py"]
