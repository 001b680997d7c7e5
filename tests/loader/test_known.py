"""What a node notes of versions that were imported well."""

import sys
from pathlib import Path

import pytest

from host.loader import KnownVersions

A, B, C = "a" * 64, "b" * 64, "c" * 64


def test_what_was_noted_is_known_until_it_is_taken(tmp_path: Path) -> None:
    known = KnownVersions(tmp_path / "versions" / "known")
    assert known.take() == frozenset()

    known.put([A, B])
    known.add(C)

    assert known.read() == known.take() == {A, B, C}
    assert known.read() == frozenset()
    known.add(C)
    assert known.read() == frozenset(), "what a start has taken away and not put back"


def test_put_replaces_what_was_noted(tmp_path: Path) -> None:
    known = KnownVersions(tmp_path / "known")
    known.put([A, B])
    known.put([C])

    assert known.read() == {C}


def test_nothing_is_known_in_another_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    known = KnownVersions(tmp_path / "known")
    known.put([A])
    packages = tmp_path / "packages"
    (packages / "other-1.0.dist-info").mkdir(parents=True)
    monkeypatch.syspath_prepend(packages)
    assert known.read() == frozenset()
    monkeypatch.undo()
    assert known.read() == {A}
    monkeypatch.setattr(sys, "version", "4.0")
    assert known.read() == frozenset()


def test_note_that_is_cut_short_or_garbled_says_less_and_never_more(tmp_path: Path) -> None:
    path = tmp_path / "known"
    known = KnownVersions(path)
    known.put([A, B])
    whole = path.read_bytes()

    for length in range(0, len(whole), 7):
        path.write_bytes(whole[:length])
        assert known.read() & {A, B, C} <= {A, B}
    path.write_bytes(b"\xff\x00" * 40)
    assert known.read() == frozenset()


def test_note_that_cannot_be_written_is_told_of_and_nothing_fails(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "known").mkdir()
    known = KnownVersions(tmp_path / "known")

    known.put([A])
    known.add(B)

    assert known.read() == known.take() == frozenset()
    assert str(tmp_path / "known") in caplog.text and "proves every plugin again" in caplog.text
