"""Versions that outlive their files."""

import os
import traceback
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from host.loader import (
    ArchivedVersionDamaged,
    ArchivedVersionMissing,
    Version,
    VersionArchive,
    capture,
    import_version,
    unload,
)
from host.loader.archive import VERSIONS_KEPT
from host.loader.capture import digest_of
from tests.loader.conftest import WritePlugin

FILES = st.dictionaries(st.text(min_size=1, max_size=8), st.binary(max_size=64), max_size=4)


@pytest.fixture
def archive(tmp_path: Path) -> VersionArchive:
    return VersionArchive(tmp_path / "var" / "versions")


@given(files=FILES, shared=FILES)
@settings(max_examples=30)
def test_what_was_put_comes_back_equal(
    tmp_path_factory: pytest.TempPathFactory, files: dict[str, bytes], shared: dict[str, bytes]
) -> None:
    archive = VersionArchive(tmp_path_factory.mktemp("versions"))
    version = Version("alpha", Path("/p/alpha.py"), digest_of({**files, **shared}), files, shared)
    archive.put(version)

    assert archive.get("alpha", version.digest) == version


def test_restored_version_runs_and_names_its_original_file_when_that_is_gone(
    write: WritePlugin, archive: VersionArchive
) -> None:
    write("_lib.py", "def fail():\n    return 1 / 0\n")
    path = write("alpha.py", "from ._lib import fail\n\ndef run():\n    fail()\n")
    captured = capture(path)
    archive.put(captured)
    path.unlink()
    restored = VersionArchive(archive.folder).get("alpha", captured.digest)
    module = import_version(restored)
    try:
        with pytest.raises(ZeroDivisionError) as caught:
            module.run()
        shown = "".join(traceback.format_exception(caught.value))
    finally:
        unload(restored)

    assert f'"{path}@{captured.short_digest}", line 4, in run\n    fail()' in shown
    assert f'"{path.parent / "_lib.py"}@{captured.short_digest}", line 2' in shown


def test_same_bytes_under_a_new_root_are_kept_with_that_root(
    write: WritePlugin, archive: VersionArchive
) -> None:
    old, new = capture(write("a/alpha.py", "x = 1\n")), capture(write("b/alpha.py", "x = 1\n"))
    assert old.digest == new.digest
    archive.put(old)
    archive.put(new)

    assert archive.get("alpha", new.digest).root == new.root


def test_putting_a_kept_version_again_writes_nothing(write: WritePlugin, archive: VersionArchive) -> None:
    version = capture(write("alpha.py"))
    archive.put(version)
    (file,) = archive.folder.glob("*/*")
    before = file.stat().st_ino
    archive.put(version)

    assert file.stat().st_ino == before


def test_damage_anywhere_in_the_file_is_found_and_mended_by_putting_it_again(
    write: WritePlugin, archive: VersionArchive
) -> None:
    version = capture(write("alpha.py", "x = 1\n"))
    archive.put(version)
    (file,) = archive.folder.glob("*/*")
    whole = file.read_bytes()
    broken = [whole[:cut] for cut in (0, 3, 4, len(whole) - 1)]
    broken += [whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :] for at in range(len(whole))]

    for content in broken:
        file.write_bytes(content)
        with pytest.raises(ArchivedVersionDamaged, match=r"plugin alpha: the archived version .* is damaged"):
            archive.get("alpha", version.digest)
    archive.put(version)
    assert archive.get("alpha", version.digest) == version


def test_file_of_another_version_is_damage(write: WritePlugin, archive: VersionArchive) -> None:
    one, two = capture(write("alpha.py", "x = 1\n")), capture(write("alpha.py", "x = 2\n"))
    for version in (one, two):
        archive.put(version)
    paths = {version.digest: archive.folder / "alpha" / f"{version.digest}.version" for version in (one, two)}
    paths[one.digest].replace(paths[two.digest])

    with pytest.raises(ArchivedVersionDamaged, match=f"it holds alpha with digest {one.short_digest}"):
        archive.get("alpha", two.digest)


@pytest.mark.parametrize(
    ("name", "digest"), [("alpha", "0" * 64), ("../alpha", "0" * 64), ("alpha", "../../x"), ("", "0" * 64)]
)
def test_missing_version_names_path_and_next_step(archive: VersionArchive, name: str, digest: str) -> None:
    with pytest.raises(ArchivedVersionMissing, match="restore that file from a backup") as caught:
        archive.get(name, digest)

    assert caught.value.path.is_relative_to(archive.folder)
    assert str(caught.value.path) in str(caught.value)


def test_prune_keeps_what_is_needed_and_the_newest_few(write: WritePlugin, archive: VersionArchive) -> None:
    versions = [capture(write("alpha.py", f"x = {x}\n")) for x in range(VERSIONS_KEPT + 3)]
    for age, version in enumerate(reversed(versions)):
        archive.put(version)
        _make_older(archive, version, seconds=age)
    other = capture(write("beta.py", "x = 1\n"))
    archive.put(other)
    archive.prune("alpha", {versions[1].digest})

    assert [archive.holds("alpha", version.digest) for version in versions[:4]] == [False, True, False, True]
    assert all(archive.holds("alpha", version.digest) for version in versions[3:])
    assert archive.get("alpha", versions[1].digest) == versions[1]
    assert archive.holds("beta", other.digest)


def test_version_that_is_put_again_is_among_the_newest(write: WritePlugin, archive: VersionArchive) -> None:
    versions = [capture(write("alpha.py", f"x = {x}\n")) for x in range(VERSIONS_KEPT + 1)]
    for age, version in enumerate(reversed(versions)):
        archive.put(version)
        _make_older(archive, version, seconds=age + 1)
    archive.put(versions[0])
    archive.prune("alpha", ())

    assert archive.holds("alpha", versions[0].digest)
    assert not archive.holds("alpha", versions[1].digest)


def test_prune_sweeps_a_write_that_never_ended_but_none_that_is_under_way(
    write: WritePlugin, archive: VersionArchive
) -> None:
    archive.put(capture(write("alpha.py", "x = 1\n")))
    torn, young = archive.folder / "alpha" / "torn.tmp", archive.folder / "alpha" / "young.tmp"
    for path in (torn, young):
        path.write_text("half")
    os.utime(torn, ns=(0, 0))
    archive.prune("alpha", ())

    assert (torn.exists(), young.exists()) == (False, True)


def _make_older(archive: VersionArchive, version: Version, *, seconds: int) -> None:
    path = archive.folder / version.name / f"{version.digest}.version"
    written_ns = path.stat().st_mtime_ns - seconds * 1_000_000_000
    os.utime(path, ns=(written_ns, written_ns))


def test_failed_write_leaves_the_old_file_and_nothing_else(
    write: WritePlugin, archive: VersionArchive, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new = capture(write("a/alpha.py", "x = 1\n")), capture(write("b/alpha.py", "x = 1\n"))
    archive.put(old)

    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        archive.put(new)

    assert len(list(archive.folder.glob("*/*"))) == 1
    assert archive.get("alpha", old.digest) == old
