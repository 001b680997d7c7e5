"""What ends process groups once the host is gone."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

import pytest
from isolation_tools import PATIENCE_S, is_alive

from host.isolation.reaper import Reaper

WAITS = [sys.executable, "-c", "import time; time.sleep(1000)"]


@pytest.fixture
def started() -> Iterator[Callable[[], "subprocess.Popen[bytes]"]]:
    processes: list[subprocess.Popen[bytes]] = []

    def start() -> "subprocess.Popen[bytes]":
        processes.append(subprocess.Popen(WAITS, start_new_session=True))
        return processes[-1]

    yield start
    for process in processes:
        process.kill()
        process.wait()


def until(is_so: Callable[[], object]) -> None:
    ends_s = time.monotonic() + PATIENCE_S
    while not is_so():
        assert time.monotonic() < ends_s
        time.sleep(0.005)


def test_groups_end_with_it_but_those_that_were_forgotten(
    started: Callable[[], "subprocess.Popen[bytes]"],
) -> None:
    reaper = Reaper()
    assert reaper.pid == 0
    first, second, third = started(), started(), started()
    for process in (first, second, third):
        reaper.add(process.pid)
    reaper.forget(second.pid)
    pid = reaper.pid
    reaper.close()
    assert not is_alive(pid)
    until(lambda: not is_alive(first.pid) and not is_alive(third.pid))
    assert is_alive(second.pid)


def test_one_that_was_lost_is_started_again_and_knows_all_groups(
    started: Callable[[], "subprocess.Popen[bytes]"],
) -> None:
    reaper = Reaper()
    first, second = started(), started()
    reaper.add(first.pid)
    lost = reaper.pid
    os.kill(lost, signal.SIGKILL)
    until(lambda: not is_alive(lost))
    reaper.add(second.pid)
    assert reaper.pid != lost
    assert is_alive(first.pid)
    reaper.close()
    until(lambda: not is_alive(first.pid) and not is_alive(second.pid))


def test_one_that_does_not_read_is_replaced_and_ends_nothing(
    started: Callable[[], "subprocess.Popen[bytes]"],
) -> None:
    reaper = Reaper()
    process = started()
    reaper.add(process.pid)
    stuck = reaper.pid
    os.kill(stuck, signal.SIGSTOP)
    for _ in range(100_000):  # more than a pipe holds
        reaper.forget(1 << 30)
        if reaper.pid != stuck:
            break
    assert reaper.pid != stuck
    assert not is_alive(stuck)
    assert is_alive(process.pid)
    reaper.close()
    until(lambda: not is_alive(process.pid))


def test_once_closed_it_takes_no_other() -> None:
    reaper = Reaper()
    reaper.close()
    with pytest.raises(OSError, match="the node ends"):
        reaper.add(1 << 30)
    assert reaper.pid == 0


def test_it_outlives_the_host_only_to_end_what_is_left(
    started: Callable[[], "subprocess.Popen[bytes]"],
) -> None:
    process = started()
    host = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import sys, time; from host.isolation.reaper import Reaper; reaper = Reaper(); "
            f"reaper.add({process.pid}); print(reaper.pid, flush=True); time.sleep(1000)",
        ],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert host.stdout is not None
    with host, host.stdout as output:
        reaper = int(output.readline())
        assert is_alive(reaper)
        host.kill()
    until(lambda: not is_alive(process.pid) and not is_alive(reaper))
