"""Starting a plugin."""

from pathlib import Path

import pytest

from host.loader import ScaffoldRefused, scaffold


def test_class_is_named_after_the_plugin(tmp_path: Path) -> None:
    (path,) = scaffold("strategy", "my_maker", tmp_path / "new" / "folder")

    assert path == tmp_path / "new" / "folder" / "my_maker.py"
    assert "class MyMaker(Strategy[MyMakerParams]):" in path.read_text()


def test_existing_files_are_never_overwritten(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("precious")

    with pytest.raises(ScaffoldRefused, match="is there already"):
        scaffold("model", "mine", tmp_path)
    assert (tmp_path / "mine.py").read_text() == "precious"


@pytest.mark.parametrize("name", ["my-maker", "2fast", "class", "_hidden", "Maker", "", "../up"])
def test_bad_names_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ScaffoldRefused, match=f'was "{name}"'):
        scaffold("strategy", name, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_unknown_kind_is_refused_with_the_kinds(tmp_path: Path) -> None:
    with pytest.raises(ScaffoldRefused, match='one of strategy, exchange, model, was "stratgy"'):
        scaffold("stratgy", "mine", tmp_path)
