"""Importing versions side by side."""

import gc
import importlib.resources
import inspect
import pkgutil
import sys
import threading
import traceback
import weakref
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import msgspec
import pytest

from host.loader import CompiledVersion, PluginRejected, Version, capture, import_version, unload
from host.loader.importer import is_loaded
from tests.loader.conftest import WritePlugin


@pytest.fixture(autouse=True)
def nothing_stays_loaded() -> Iterator[None]:
    before = {name for name in sys.modules if name.startswith("tandem_plugins.")}
    yield
    for name in {name for name in sys.modules if name.startswith("tandem_plugins.")} - before:
        del sys.modules[name]


def test_two_versions_live_side_by_side(write: WritePlugin) -> None:
    old = import_version(capture(write("alpha.py", "class A:\n    x = 1\n")))
    new = import_version(capture(write("alpha.py", "class A:\n    x = 2\n")))

    assert (old.A.x, new.A.x) == (1, 2)
    assert not isinstance(old.A(), new.A)


def test_rewrites_of_equal_size_in_one_second_are_told_apart(write: WritePlugin) -> None:
    # Bytecode caches key on whole seconds and size, and fail exactly here.
    values = [import_version(capture(write("alpha.py", f"x = {number}\n"))).x for number in range(10, 40)]

    assert values == list(range(10, 40))


def test_no_bytecode_is_written(write: WritePlugin) -> None:
    root = write("alpha/__init__.py", "from . import core\n").parent
    write("alpha/core.py", "x = 1\n")
    import_version(capture(root))

    assert not list(root.rglob("*.pyc"))


def test_relative_imports_are_served_from_the_captured_bytes(write: WritePlugin) -> None:
    root = write("alpha/__init__.py", "from .deep.core import later\n").parent
    write("alpha/deep/__init__.py", "")
    write("alpha/deep/core.py", "def later():\n    from ..helpers import x\n    return x\n")
    helpers = write("alpha/helpers.py", "x = 'captured'\n")
    module = import_version(capture(root))
    helpers.write_text("x = 'on disk'\n")

    assert module.later() == "captured"


def test_same_bytes_are_imported_once_and_stay_until_the_last_holder_lets_go(write: WritePlugin) -> None:
    version = capture(write("alpha.py", "x = 1\n"))

    assert import_version(version) is import_version(version)
    unload(version)
    assert is_loaded(version)
    unload(version)
    assert not is_loaded(version)
    assert version.package not in sys.modules


def test_retired_version_is_collected_while_the_new_one_runs(write: WritePlugin) -> None:
    source = """
        from host.api import BookTop, Params, State, Strategy

        class AlphaParams(Params, frozen=True):
            size: float = {size}

            def double(self) -> float:
                return self.size * 2

        class AlphaState(State):
            seen: int = 0

        class Alpha(Strategy[AlphaParams]):
            state: AlphaState

            def on_book(self, book: BookTop) -> None:
                self.state.seen += 1
    """
    old_version = capture(write("alpha.py", source.format(size="1.0")))
    new_version = capture(write("alpha.py", source.format(size="2.0")))
    old, new = import_version(old_version), import_version(new_version)
    instance = old.Alpha(old.AlphaParams())
    traces = [
        weakref.ref(thing) for thing in (old, old.Alpha, old.AlphaParams, old.AlphaParams.double, instance)
    ]

    del old, instance
    unload(old_version)
    gc.collect()

    assert [trace() for trace in traces] == [None] * len(traces)
    assert new.Alpha(new.AlphaParams()).params.double() == 4.0


def test_tracebacks_and_getsource_show_the_code_that_ran(write: WritePlugin) -> None:
    path = write("alpha.py", "def fail():\n    return 1 / 0  # old line\n")
    old = import_version(capture(path))
    write("alpha.py", "# moved\ndef fail():\n    return 2 / 0  # new line\n")
    new = import_version(capture(path))

    for module, line in ((old, "return 1 / 0  # old line"), (new, "return 2 / 0  # new line")):
        with pytest.raises(ZeroDivisionError) as caught:
            module.fail()
        assert line in "".join(traceback.format_exception(caught.value))
        assert line in inspect.getsource(module.fail)
        assert line in inspect.getsource(module)


def test_code_compiled_elsewhere_shows_where_it_came_from(write: WritePlugin) -> None:
    write("alpha/__init__.py", "from . import helper\n")
    root = write("alpha/helper.py", "def fail():\n    return 1 / 0  # the line\n").parent
    version = capture(root)
    sent = msgspec.json.encode(CompiledVersion.of(version))
    module = import_version(version, msgspec.json.decode(sent, type=CompiledVersion))

    with pytest.raises(ZeroDivisionError) as caught:
        module.helper.fail()

    assert "return 1 / 0  # the line" in "".join(traceback.format_exception(caught.value))
    assert inspect.getsource(module.helper.fail).endswith("# the line\n")
    assert version.locate(module.helper.fail.__code__.co_filename) == "helper.py"


def test_code_compiled_of_other_bytes_elsewhere_or_by_another_interpreter_is_compiled_anew(
    write: WritePlugin, tmp_path: Path
) -> None:
    path = write("alpha.py", "x = 1\n")
    old = CompiledVersion.of(capture(path))
    moved = tmp_path / "moved" / "alpha.py"
    moved.parent.mkdir()
    moved.write_bytes(path.read_bytes())
    elsewhere = capture(moved)
    write("alpha.py", "x = 2\n")
    edited = capture(path)
    foreign = CompiledVersion(edited.digest, b"other", {"alpha.py": b"no code at all"})

    assert elsewhere.digest == old.digest
    assert old.codes_of(elsewhere)["alpha.py"].co_filename == elsewhere.code_filename("alpha.py")
    assert import_version(edited, old).x == 2
    assert foreign.codes_of(edited).keys() == {"alpha.py"}


def test_import_that_takes_long_holds_up_nobody_who_uses_what_is_loaded(
    write: WritePlugin, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = capture(write("alpha.py", "x = 1\n"))
    module = import_version(loaded)
    gate = ModuleType("gate_of_this_test")
    gate.began, gate.open = threading.Event(), threading.Event()  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, gate.__name__, gate)
    slow = capture(write("slow.py", "import gate_of_this_test as gate\ngate.began.set()\ngate.open.wait()\n"))
    importing = threading.Thread(target=import_version, args=[slow])
    importing.start()
    gate.began.wait()

    try:
        assert import_version(loaded) is module
        unload(loaded)
        unload(slow)
        unload(loaded)
        assert not is_loaded(loaded), "while the other is still being imported"
    finally:
        gate.open.set()
        importing.join()
    assert is_loaded(slow)
    unload(slow)
    assert not is_loaded(slow)


def test_classes_have_source_too(write: WritePlugin) -> None:
    module = import_version(capture(write("alpha.py", "x = 1\nclass A:\n    y = 2\n")))

    assert inspect.getsourcelines(module.A) == (["class A:\n", "    y = 2\n"], 2)


def test_data_files_are_read_from_the_captured_version(write: WritePlugin) -> None:
    code = (
        "from importlib.resources import files\n"
        "def load(): return files(__package__).joinpath('data/model.bin').read_bytes()\n"
    )
    root = write("alpha/__init__.py", code).parent
    model = write("alpha/data/model.bin", "one")
    old = import_version(capture(root))
    model.write_text("two")
    new = import_version(capture(root))

    assert (old.load(), new.load()) == (b"one", b"two")
    assert pkgutil.get_data(old.__name__, "data/model.bin") == b"one"
    with importlib.resources.as_file(importlib.resources.files(old) / "data" / "model.bin") as path:
        assert path.read_bytes() == b"one"
    inside = {entry.name: entry.is_dir() for entry in importlib.resources.files(old).iterdir()}
    assert inside == {"__init__.py": False, "data": True}
    with importlib.resources.files(old).joinpath("data/model.bin").open() as stream:
        assert stream.read() == "one"


def test_missing_data_file_names_plugin_and_file(write: WritePlugin) -> None:
    module = import_version(capture(write("alpha.py", "")))

    with pytest.raises(FileNotFoundError, match=r"plugin alpha has no file 'model.bin'"):
        importlib.resources.files(module.__package__ or "").joinpath("model.bin").read_bytes()


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("def f(:\n", "plugin alpha: alpha.py:1: syntax error: invalid syntax"),
        ("x = 1\nreturn x\n", "plugin alpha: alpha.py:2: syntax error: 'return' outside function"),
        ("x = '\0'\n", "plugin alpha: alpha.py"),
        (
            "x = 1\nimport nopackage\n",
            'alpha.py:2: no module named "nopackage" at import; install the package',
        ),
        ("from . import nothing\n", "alpha.py:1: ImportError at import: cannot import name 'nothing'"),
        ("def f():\n    1 / 0\nf()\n", "alpha.py:2: ZeroDivisionError at import: division by zero"),
        ("import sys\nsys.exit(3)\n", "alpha.py:2: called sys.exit(3) at import"),
        ("from .core import x\n", 'alpha.py:1: the plugin has no module "core"'),
    ],
)
def test_bad_files_are_rejected_with_file_line_and_cause(
    write: WritePlugin, source: str, expected: str
) -> None:
    version = capture(write("alpha.py", source))

    with pytest.raises(PluginRejected) as caught:
        import_version(version)

    assert expected in str(caught.value)
    assert not is_loaded(version)
    assert version.package not in sys.modules


def test_failure_in_a_second_file_names_that_file_and_leaves_no_module_behind(write: WritePlugin) -> None:
    root = write("alpha/__init__.py", "from . import good, core\n").parent
    write("alpha/good.py", "")
    write("alpha/core.py", "x = 1\nx.nope\n")
    version = capture(root)

    with pytest.raises(PluginRejected, match=r"plugin alpha: core\.py:2: AttributeError at import"):
        import_version(version)
    assert not [name for name in sys.modules if name.startswith(version.package)]


def test_keyboard_interrupt_is_not_a_plugin_problem(write: WritePlugin) -> None:
    version = capture(write("alpha.py", "raise KeyboardInterrupt\n"))

    with pytest.raises(KeyboardInterrupt):
        import_version(version)
    assert not is_loaded(version)


@pytest.mark.parametrize(
    ("file", "statement", "wanted"),
    [
        ("core.py", "import helpers", "from . import helpers"),
        ("core.py", "import helpers.more", "from .helpers import more"),
        ("core.py", "from helpers import x, y", "from .helpers import x, y"),
        ("deep/core.py", "import helpers", "from .. import helpers"),
        ("core.py", "import alpha.helpers", "from . import helpers"),
        ("core.py", "from alpha.helpers import x", "from .helpers import x"),
        ("core.py", "from alpha import helpers", "from . import helpers"),
    ],
)
def test_absolute_import_of_own_module_is_refused_with_what_to_write(
    write: WritePlugin, file: str, statement: str, wanted: str
) -> None:
    root = write("alpha/__init__.py", "").parent
    write("alpha/helpers.py", "")
    write(f"alpha/{file}", f"import math\n\n{statement}\n")

    with pytest.raises(PluginRejected) as caught:
        import_version(capture(root))

    assert f"plugin alpha: {file}:3: " in str(caught.value)
    assert str(caught.value).endswith(f'write "{wanted}"')


def test_standard_library_wins_over_a_file_of_its_name(write: WritePlugin) -> None:
    root = write("alpha/__init__.py", "import json\n").parent
    write("alpha/json.py", "")

    assert import_version(capture(root)).json.__name__ == "json"


def test_versions_compare_by_content(write: WritePlugin, tmp_path: Path) -> None:
    version = capture(write("alpha.py", "x = 1\n"))

    assert version == Version(
        "alpha", tmp_path / "plugins/alpha.py", version.digest, {"alpha.py": b"x = 1\n"}
    )
