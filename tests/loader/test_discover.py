"""Which plugins the folders hold."""

from pathlib import Path

from host.loader import discover
from tests.loader.conftest import WritePlugin


def test_files_folders_and_plain_subfolders_are_found(write: WritePlugin, tmp_path: Path) -> None:
    for name in (
        "top.py",
        "strategies/maker.py",
        "models/onnx/__init__.py",
        "models/onnx/core.py",
        "a/b/deep.py",
    ):
        write(name)

    found = discover([tmp_path / "plugins"])

    assert sorted(found.plugins) == ["deep", "maker", "onnx", "top"]
    assert found.plugins["onnx"] == tmp_path / "plugins/models/onnx"
    assert found.problems == ()


def test_underscore_names_and_litter_are_no_plugins(write: WritePlugin, tmp_path: Path) -> None:
    for name in ("_shared.py", "_shared_folder/__init__.py", ".hidden.py", "alpha.py~", "notes.txt"):
        write(name)

    assert discover([tmp_path / "plugins"]).plugins == {}


def test_two_plugins_of_one_name_are_both_left_out_and_both_named(write: WritePlugin, tmp_path: Path) -> None:
    paths = [write("strategies/maker.py"), write("models/maker.py")]
    write("other.py")

    found = discover([tmp_path / "plugins"])

    assert list(found.plugins) == ["other"]
    assert all(str(path) in str(found.problems[0]) for path in paths)


def test_plugin_in_a_later_folder_stands_in_for_an_earlier_one(write: WritePlugin, tmp_path: Path) -> None:
    bundled = write("bundled/strategies/maker.py")
    write("bundled/other.py")
    mine = write("mine/maker.py")

    found = discover([tmp_path / "plugins/bundled", tmp_path / "plugins/mine"])

    assert found.plugins["maker"] == mine
    assert (sorted(found.plugins), found.problems) == (["maker", "other"], ())
    assert found.notes == (f"plugin maker: {mine} stands in for {bundled}",)


def test_name_that_a_later_folder_has_twice_is_not_taken_from_an_earlier_one(
    write: WritePlugin, tmp_path: Path
) -> None:
    write("bundled/maker.py")
    write("mine/a/maker.py")
    write("mine/b/maker.py")

    found = discover([tmp_path / "plugins/bundled", tmp_path / "plugins/mine"])

    assert found.plugins == {}
    assert "has the same name" in str(found.problems[0])


def test_one_folder_given_twice_is_no_conflict(write: WritePlugin, tmp_path: Path) -> None:
    write("maker.py")

    assert discover([tmp_path / "plugins", tmp_path / "plugins"]).problems == ()


def test_missing_folder_is_a_problem_and_no_error(tmp_path: Path) -> None:
    found = discover([tmp_path / "nowhere"])

    assert "is not a folder" in str(found.problems[0])


def test_name_that_python_cannot_import_is_a_problem(write: WritePlugin, tmp_path: Path) -> None:
    write("my-maker.py")

    assert 'rename it, for example to "my_maker"' in str(discover([tmp_path / "plugins"]).problems[0])


def test_symlink_loops_end(write: WritePlugin, tmp_path: Path) -> None:
    write("sub/maker.py")
    (tmp_path / "plugins/sub/up").symlink_to(tmp_path / "plugins")

    assert list(discover([tmp_path / "plugins"]).plugins) == ["maker"]
