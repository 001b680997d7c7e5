"""When a plugin's files have come to rest."""

import asyncio
import fcntl
import os
import signal
import sys
from pathlib import Path

import pytest

from host.loader import NotStable, PluginRejected, Version, capture, settle
from tests.loader.conftest import WritePlugin

MODULE = sys.modules[settle.__module__]  # its name in the package is the function's


def settled(path: Path, give_up_s: float = 30.0) -> Version:
    return asyncio.run(settle(path, apart_ms=1.0, give_up_s=give_up_s))


def test_files_at_rest_are_captured(write: WritePlugin) -> None:
    path = write("alpha.py")

    assert settled(path) == capture(path)


def test_writer_that_pauses_halfway_is_waited_for(write: WritePlugin) -> None:
    path = write("alpha.py", "x = 1\n")
    with path.open("wb", buffering=0) as writer:
        writer.write(b"x = 2\n")  # valid by itself, and half of what is coming
        with pytest.raises(NotStable, match=r"plugin alpha: .*alpha\.py is open for writing; close it"):
            settled(path, give_up_s=0.1)
        writer.write(b"y = 3\n")

    assert settled(path).files == {"alpha.py": b"x = 2\ny = 3\n"}


def test_writer_of_shared_code_is_waited_for(write: WritePlugin) -> None:
    shared = write("_ema.py", "x = 1\n")
    path = write("alpha.py", "from ._ema import x\n")
    with shared.open("ab"), pytest.raises(NotStable, match=r"_ema\.py is open for writing"):
        settled(path, give_up_s=0.1)


def test_readers_are_not_waited_for(write: WritePlugin) -> None:
    path = write("alpha.py")
    with path.open("rb"):
        assert settled(path) == capture(path)


def test_opening_a_file_while_it_is_looked_at_does_no_harm(
    write: WritePlugin, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The kernel signals whoever holds a lease on a file that is opened; SIGIO by default, which kills.
    path = write("alpha.py")
    signals: list[int] = []
    before = signal.signal(signal.SIGIO, lambda number, _frame: signals.append(number))
    real = fcntl.fcntl

    def open_while_leased(descriptor: int, command: int, argument: int) -> int:
        answer = real(descriptor, command, argument)
        if (command, argument) == (fcntl.F_SETLEASE, fcntl.F_RDLCK):
            with pytest.raises(BlockingIOError):  # without O_NONBLOCK it would wait for the lease's end
                os.open(path, os.O_WRONLY | os.O_NONBLOCK)
        return answer

    monkeypatch.setattr(fcntl, "fcntl", open_while_leased)
    try:
        assert settled(path) == capture(path)
    finally:
        signal.signal(signal.SIGIO, before)
    assert signals == []


def test_two_equal_captures_in_a_row_decide(write: WritePlugin, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write("alpha.py", "x = 0\n")
    contents = iter([b"x = 1\n", b"x = 2\n", b"x = 1\n", b"x = 3\n", b"x = 3\n"])

    def write_and_capture(path: Path) -> Version:
        path.write_bytes(next(contents))
        return capture(path)

    monkeypatch.setattr(MODULE, "capture", write_and_capture)

    assert settled(path).files == {"alpha.py": b"x = 3\n"}
    assert not list(contents)


def test_endless_changes_are_given_up(write: WritePlugin, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write("alpha.py", "")

    def grow_and_capture(path: Path) -> Version:
        path.write_bytes(path.read_bytes() + b"#\n")
        return capture(path)

    monkeypatch.setattr(MODULE, "capture", grow_and_capture)

    with pytest.raises(NotStable, match=r"did not come to rest within 0\.1 s: its files kept changing"):
        settled(path, give_up_s=0.1)


def test_git_at_work_is_waited_for(write: WritePlugin, tmp_path: Path) -> None:
    path = write("alpha.py")
    lock = tmp_path / ".git" / "index.lock"
    lock.parent.mkdir()
    lock.touch()
    with pytest.raises(NotStable, match=r"git holds .*index\.lock; if no git is running, delete that file"):
        settled(path, give_up_s=0.1)
    lock.unlink()

    assert settled(path) == capture(path)


def test_git_worktree_has_its_lock_elsewhere(write: WritePlugin, tmp_path: Path) -> None:
    path = write("alpha.py")
    (tmp_path / ".git").write_text("gitdir: main/.git/worktrees/w\n")
    lock = tmp_path / "main/.git/worktrees/w/index.lock"
    lock.parent.mkdir(parents=True)
    lock.touch()

    with pytest.raises(NotStable, match="git holds"):
        settled(path, give_up_s=0.1)


def test_missing_file_is_refused_at_once(tmp_path: Path) -> None:
    with pytest.raises(PluginRejected, match=r"gone\.py: cannot be read: No such file"):
        settled(tmp_path / "gone.py")


def test_file_that_appears_after_a_first_look_is_taken(
    write: WritePlugin, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write("alpha.py", "x = 1\n")
    path.unlink()
    looks = iter([False, True])

    def look(path: Path) -> Version:
        try:
            return capture(path)
        finally:
            if next(looks, True) is False:
                path.write_text("x = 2\n")

    monkeypatch.setattr(MODULE, "capture", look)

    assert settled(path).files == {"alpha.py": b"x = 2\n"}
