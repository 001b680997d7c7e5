"""What makes a version."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from host.loader import PluginRejected, capture
from host.loader.capture import digest_of
from tests.loader.conftest import WritePlugin

NAMES = st.text(alphabet="ab/.", min_size=1, max_size=4)
FILES = st.dictionaries(NAMES, st.binary(max_size=4), max_size=4)


def test_single_file_is_one_file_under_its_own_name(write: WritePlugin) -> None:
    version = capture(write("alpha.py", "x = 1\n"))

    assert (version.name, dict(version.files), version.main) == (
        "alpha",
        {"alpha.py": b"x = 1\n"},
        "alpha.py",
    )
    assert version.package == f"tandem_plugins.alpha_{version.digest[:12]}.alpha"


def test_folder_holds_code_and_data_recursively(write: WritePlugin) -> None:
    root = write("alpha/__init__.py", "").parent
    write("alpha/deep/core.py", "y = 2\n")
    write("alpha/data/table.csv", "1,2\n")

    assert sorted(capture(root).files) == ["__init__.py", "data/table.csv", "deep/core.py"]


@pytest.mark.parametrize(
    "litter",
    [
        "__pycache__/core.cpython-311.pyc",
        ".git/index",
        ".core.py.swp",
        "core.py~",
        "4913",
        ".#core.py",
        "#core.py#",
        "core.py.swo",
        "core.py___jb_tmp___",
    ],
)
def test_what_editors_leave_behind_does_not_make_a_new_version(write: WritePlugin, litter: str) -> None:
    root = write("alpha/__init__.py").parent
    before = capture(root)
    write(f"alpha/{litter}", "junk")

    assert capture(root) == before


def test_a_changed_data_file_is_a_new_version(write: WritePlugin) -> None:
    root = write("alpha/__init__.py").parent
    write("alpha/model.bin", "one")
    before = capture(root)
    write("alpha/model.bin", "two")

    assert capture(root).digest != before.digest


@given(FILES, FILES)
def test_digests_are_equal_exactly_when_the_files_are(
    left: dict[str, bytes], right: dict[str, bytes]
) -> None:
    assert (digest_of(left) == digest_of(right)) == (left == right)


def test_digest_does_not_depend_on_the_order_of_files() -> None:
    assert digest_of({"a": b"1", "b": b"2"}) == digest_of({"b": b"2", "a": b"1"})


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(PluginRejected, match=r"plugin gone: gone\.py: cannot be read: No such file"):
        capture(tmp_path / "gone.py")


def test_a_path_that_goes_up_names_the_same_plugin(write: WritePlugin) -> None:
    path = write("one.py", "X = 1\n")
    winding = path.parent / "elsewhere" / ".." / path.name

    assert capture(winding).digest == capture(path).digest
    assert str(capture(winding).problem("wrong")) == str(capture(path).problem("wrong"))


def test_folder_without_init_is_refused(write: WritePlugin) -> None:
    with pytest.raises(PluginRejected, match=r"a plugin folder has an __init__\.py"):
        capture(write("alpha/core.py").parent)
