"""Rotation: everything is under the new key, or nothing is, and it can be opened at any moment."""

import os
import signal
import sys
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from secret_tools import VALUES, filled_store, sources_at, values_at

from host.config.secret_files import SecretProblem
from host.secrets import KeySource, MasterKey, rotate

TRACED = ("host/secrets/", "host/config/private_files.py")


def keys_of(folder: Path) -> list[str]:
    return [key.id for key in KeySource.parse(f"file:{folder / 'master.key'}").load({}).keys]


def sealed_under(folder: Path) -> set[str]:
    return {one.key_id for one in sources_at(folder).store.listed()}


def test_everything_is_under_a_new_key_and_the_values_and_times_are_as_they_were(tmp_path: Path) -> None:
    sources = filled_store(tmp_path)
    before = sources.store.listed()
    [old] = sealed_under(tmp_path)
    done = rotate(sources.store, sources.key_source, {})
    assert (done.resealed, done.kept) == (3, (old,))
    assert keys_of(tmp_path) == [done.key_id, old]
    assert sealed_under(tmp_path) == {done.key_id} != {old}
    assert values_at(tmp_path) == VALUES
    after = sources_at(tmp_path).store.listed()
    assert [(one.name, one.set_at) for one in after] == [(one.name, one.set_at) for one in before]


def test_old_keys_go_where_that_is_asked_for(tmp_path: Path) -> None:
    sources = filled_store(tmp_path)
    rotate(sources.store, sources.key_source, {})
    done = rotate(sources.store, sources.key_source, {}, drops_old=True)
    assert keys_of(tmp_path) == [done.key_id]
    assert values_at(tmp_path) == VALUES


def test_a_variable_holds_the_new_key_before_the_old_one(tmp_path: Path) -> None:
    filled_store(tmp_path)
    new, old = MasterKey.new(), (tmp_path / "master.key").read_text()
    environ = {"TANDEM_MASTER_KEY": f"{new.text()} {old}"}
    sources = sources_at(tmp_path, environ, has_key_file=False)
    assert rotate(sources.store, sources.key_source, environ).resealed == 3
    assert rotate(sources.store, sources.key_source, environ).resealed == 0
    assert sealed_under(tmp_path) == {new.id}
    alone = {"TANDEM_MASTER_KEY": new.text()}
    assert sources_at(tmp_path, alone, has_key_file=False).get("pem").reveal() == VALUES["pem"]


def test_one_record_that_does_not_open_and_nothing_is_changed(tmp_path: Path) -> None:
    sources = filled_store(tmp_path)
    path, [old] = sources.store.path, sealed_under(tmp_path)
    path.write_text(path.read_text().replace('"pem":', '"mep":'))
    before = path.read_bytes()
    with pytest.raises(SecretProblem, match='"mep"'):
        rotate(sources.store, sources.key_source, {}, drops_old=True)
    assert path.read_bytes() == before
    assert old in keys_of(tmp_path)


def test_a_rotation_that_was_broken_off_is_finished_with_its_own_key(tmp_path: Path) -> None:
    sources = filled_store(tmp_path)
    new, key_file = MasterKey.new(), tmp_path / "master.key"
    key_file.write_text(f"{new.text()}\n{key_file.read_text()}")
    assert rotate(sources.store, sources.key_source, {}).key_id == new.id
    assert sealed_under(tmp_path) == {new.id}


def test_a_kill_at_any_moment_leaves_a_store_that_opens(tmp_path: Path) -> None:
    """Die at every line that a rotation executes in turn, and look at what is left each time."""
    files = [filled_store(tmp_path).store.path, tmp_path / "master.key"]
    contents = [file.read_bytes() for file in files]
    [old] = sealed_under(tmp_path)
    line, outcomes, is_finished = 0, list[str](), False
    while not is_finished:
        line += 1
        for file, data in zip(files, contents, strict=True):
            file.write_bytes(data)
        is_finished = _rotate_and_die_at(tmp_path, line)
        assert values_at(tmp_path) == VALUES, f"died at line {line}"
        [key_id] = sealed_under(tmp_path)
        outcomes.append("old" if key_id == old else "new")
    assert outcomes == sorted(outcomes, reverse=True), "once it is the new store it stays that"
    assert set(outcomes) == {"old", "new"} and len(outcomes) > 50, "the rotation was not followed"
    assert keys_of(tmp_path) == [key_id]
    left = {path.name for folder in (tmp_path, tmp_path / "data") for path in folder.iterdir()}
    assert left == {"master.key", ".master.key.lock", "data", "secrets.json", ".secrets.json.lock"}


def _rotate_and_die_at(folder: Path, line: int) -> bool:
    """Rotate in a child that kills itself before its `line`-th line; return whether it got to the end."""
    child = os.fork()
    if child == 0:
        _die_at(folder, line)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        assert os.WTERMSIG(status) == signal.SIGKILL
        return False
    assert os.waitstatus_to_exitcode(status) == 0
    return True


def _die_at(folder: Path, line: int) -> None:
    left = line

    def follow(frame: FrameType, event: str, _argument: Any) -> Any:
        nonlocal left
        if not any(part in frame.f_code.co_filename for part in TRACED):
            return None
        if event == "line":
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
        return follow

    code = 1
    try:
        sources = sources_at(folder)
        sys.settrace(follow)
        rotate(sources.store, sources.key_source, {}, drops_old=True)
        sys.settrace(None)
        code = 0
    finally:
        os._exit(code)
