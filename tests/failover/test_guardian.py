"""The guardian with real processes and a real lease file."""

import asyncio
import os
import pty
import queue
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from failover.guardian import LEASE_VARIABLE, Released, release
from failover.lease import LeaseConfigError, Record, Status, open_store
from tests.servers import free_ports, wait_for

LONG_S = 60.0
TTL_MS = 30_000
"""Far longer than a test: what is free before that was given up, and did not run out."""
REPO = Path(__file__).parents[2]


class Guarded:
    """A guardian in a process of its own, and what its node prints."""

    def __init__(self, folder: Path, *options: str) -> None:
        self.url = f"sqlite:///{folder}/lease.db"
        node = [sys.executable, "-m", "tests.failover.holder", self.url, "main", "a", str(TTL_MS), *options]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "failover.guardian", "--lease", self.url, "--cell", "main", "--", *node],
            cwd=REPO,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.lines: queue.Queue[str] = queue.Queue()
        self.pids: list[int] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.put(line.strip())

    def next_line(self, word: str) -> list[int]:
        """Wait for the next line, which has to begin with `word`; return its numbers."""
        first, *numbers = self.lines.get(timeout=LONG_S).split()
        assert first == word
        if numbers:
            self.pids.append(int(numbers[-1]))
        return [int(number) for number in numbers]

    def close(self) -> None:
        """End the guardian, and whatever a broken one would leave behind."""
        self.process.terminate()
        self.process.wait(LONG_S)
        for pid in self.pids:
            if is_running(pid):
                os.kill(pid, signal.SIGKILL)
        self._reader.join(LONG_S)
        assert self.process.stdout is not None
        self.process.stdout.close()

    def record(self) -> Record:
        """Read the lease."""
        record = asyncio.run(self._read_record())
        assert record is not None
        return record

    async def _read_record(self) -> Record | None:
        store = open_store(self.url)
        try:
            return await store.read("main", LONG_S)
        finally:
            await store.close()


@contextmanager
def guarded(folder: Path, *options: str) -> Iterator[Guarded]:
    prepare(folder)
    guardian = Guarded(folder, *options)
    try:
        yield guardian
    finally:
        guardian.close()


def prepare(folder: Path) -> None:
    """Put a released record in place: a cell that never led waits for a ttl before it begins."""

    async def write() -> None:
        store = open_store(f"sqlite:///{folder}/lease.db")
        try:
            assert await store.swap(None, Record("main", 1, "a", "earlier", TTL_MS, 1).released(2), LONG_S)
        finally:
            await store.close()

    asyncio.run(write())


def is_running(pid: int) -> bool:
    """Return whether a process runs; one that ended and was not yet reaped does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def test_a_node_that_is_killed_gives_up_its_lease_at_once_and_starts_again(tmp_path: Path) -> None:
    with guarded(tmp_path) as guardian:
        epoch, pid = guardian.next_line("lead")
        held = guardian.record()
        assert (held.epoch, held.status) == (epoch, Status.HELD)
        os.kill(pid, signal.SIGKILL)
        # The next process leads long before the ttl is over: the lease was abandoned for it.
        next_epoch, next_pid = guardian.next_line("lead")
        assert (next_epoch, next_pid != pid) == (epoch + 1, True)
        assert guardian.record().session != held.session


def test_signals_reach_the_node_and_an_orderly_end_is_final(tmp_path: Path) -> None:
    with guarded(tmp_path) as guardian:
        epoch, _ = guardian.next_line("lead")
        guardian.process.send_signal(signal.SIGHUP)
        guardian.next_line("hup")
        guardian.process.send_signal(signal.SIGTERM)
        guardian.next_line("released")
        assert guardian.process.wait(LONG_S) == 0
        parting = guardian.record()
        assert (parting.epoch, parting.status) == (epoch, Status.RELEASED)


def test_a_node_does_not_outlive_its_guardian(tmp_path: Path) -> None:
    with guarded(tmp_path) as guardian:
        _, pid = guardian.next_line("lead")
        guardian.process.kill()
        wait_for(lambda: not is_running(pid), "end of the node", LONG_S)
        assert guardian.record().status is Status.HELD  # nobody was left to give it up: it runs out


def test_a_node_that_is_stopped_does_not_outlive_its_guardian(tmp_path: Path) -> None:
    with guarded(tmp_path) as guardian:
        _, pid = guardian.next_line("lead")
        os.kill(pid, signal.SIGSTOP)
        guardian.process.kill()
        wait_for(lambda: not is_running(pid), "end of the node", LONG_S)


def test_what_a_dead_node_leaves_running_is_killed_before_its_lease_is_given_up(tmp_path: Path) -> None:
    with guarded(tmp_path, "--with-child") as guardian:
        [child] = guardian.next_line("child")
        _, pid = guardian.next_line("lead")
        os.kill(pid, signal.SIGKILL)
        guardian.next_line("child")  # of the node's next process
        assert not is_running(child)


TELLS_SIGNALS = """
import signal
awaited = {signal.SIGINT, signal.SIGTERM, signal.SIGUSR1}
signal.pthread_sigmask(signal.SIG_BLOCK, awaited)
print("ready", flush=True)
while True:
    got = signal.sigwaitinfo(awaited)
    print(signal.Signals(got.si_signo).name, "kernel" if got.si_code > 0 else "user", flush=True)
    if got.si_signo == signal.SIGTERM:
        break
"""


def test_a_key_of_the_terminal_reaches_the_node_once(tmp_path: Path) -> None:
    ours, theirs = pty.openpty()
    guardian = subprocess.Popen(
        [
            *("setsid", "--ctty"),  # the terminal is its own: keys are signals for it and its child
            *(sys.executable, "-m", "failover.guardian", "--lease", f"sqlite:///{tmp_path}/lease.db"),
            *("--cell", "main", "--", sys.executable, "-c", TELLS_SIGNALS),
        ],
        cwd=REPO,
        stdin=theirs,
        stdout=subprocess.PIPE,
        text=True,
    )
    with guardian:
        assert guardian.stdout is not None
        assert guardian.stdout.readline() == "ready\n"
        os.write(ours, b"\x03")
        assert guardian.stdout.readline() == "SIGINT kernel\n"
        # The guardian takes its signals one by one: what it would have passed on came before this.
        guardian.send_signal(signal.SIGUSR1)
        assert guardian.stdout.readline() == "SIGUSR1 user\n"
        guardian.send_signal(signal.SIGINT)
        assert guardian.stdout.readline() == "SIGINT user\n"
        guardian.send_signal(signal.SIGTERM)
        assert guardian.wait(LONG_S) == 0
    os.close(ours)
    os.close(theirs)


def test_the_lease_s_url_can_stay_off_the_command_line_and_is_not_inherited(tmp_path: Path) -> None:
    shown = "import os; print('TANDEM_GUARDIAN_LEASE' in os.environ)"
    guardian = subprocess.run(
        [sys.executable, "-m", "failover.guardian", "--cell", "main", "--", sys.executable, "-c", shown],
        cwd=REPO,
        env=os.environ | {LEASE_VARIABLE: f"sqlite:///{tmp_path}/lease.db"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert guardian.stdout == "False\n"


def test_a_session_is_that_of_the_guardian_s_own_child_alone(tmp_path: Path) -> None:
    asks = "import os; from failover.guardian import guarded_session as g; print(bool(g(os.environ)))"
    asks_twice = f"import subprocess, sys; {asks}; subprocess.run([sys.executable, '-c', {asks!r}])"
    guardian = subprocess.run(
        [
            *(sys.executable, "-m", "failover.guardian", "--lease", f"sqlite:///{tmp_path}/lease.db"),
            *("--cell", "main", "--", sys.executable, "-u", "-c", asks_twice),
        ],
        cwd=REPO,
        capture_output=True,
        text=True,
        check=True,
    )
    assert guardian.stdout.split() == ["True", "False"]


def test_what_the_node_leaves_is_reaped_while_it_runs(tmp_path: Path) -> None:
    # The inner process leaves an orphan, which falls to the guardian; its end is seen there alone.
    leaves = "import subprocess; print(subprocess.Popen(['sleep', '0']).pid, flush=True)"
    node = (
        f"import signal, subprocess, sys; subprocess.run([sys.executable, '-c', {leaves!r}]); signal.pause()"
    )
    guardian = subprocess.Popen(
        [
            *(sys.executable, "-m", "failover.guardian", "--lease", f"sqlite:///{tmp_path}/lease.db"),
            *("--cell", "main", "--", sys.executable, "-c", node),
        ],
        cwd=REPO,
        stdout=subprocess.PIPE,
        text=True,
    )
    with guardian:
        assert guardian.stdout is not None
        orphan = int(guardian.stdout.readline())
        wait_for(lambda: not Path(f"/proc/{orphan}").exists(), "reaping of the orphan", LONG_S)
        guardian.terminate()
        assert guardian.wait(LONG_S) == 128 + signal.SIGTERM


def test_a_guardian_without_its_store_keeps_the_node_running_and_passes_signals_on() -> None:
    [port] = free_ports(1)
    guardian = subprocess.Popen(
        [
            *(sys.executable, "-m", "failover.guardian", "--lease", f"etcd://127.0.0.1:{port}"),
            *("--cell", "main", "--", sys.executable, "-c", TELLS_SIGNALS),
        ],
        cwd=REPO,
        stdout=subprocess.PIPE,
        text=True,
    )
    with guardian:
        assert guardian.stdout is not None
        assert guardian.stdout.readline() == "ready\n"
        guardian.terminate()
        assert guardian.stdout.readline() == "SIGTERM user\n"
        assert guardian.wait(LONG_S) == 0


def test_a_stop_while_no_node_runs_ends_the_guardian(tmp_path: Path) -> None:
    guardian = subprocess.Popen(
        [
            *(sys.executable, "-m", "failover.guardian", "--lease", f"sqlite:///{tmp_path}/lease.db"),
            *("--cell", "main", "--", sys.executable, "-c", "print('started', flush=True); exit(3)"),
        ],
        cwd=REPO,
        stdout=subprocess.PIPE,
        text=True,
    )
    with guardian:
        assert guardian.stdout is not None
        for _ in range(3):  # it starts again and again
            assert guardian.stdout.readline() == "started\n"
        guardian.terminate()
        assert guardian.wait(LONG_S) in (3, 128 + signal.SIGTERM)


def test_a_lease_url_that_cannot_work_is_refused_before_anything_starts() -> None:
    from failover.guardian import Guardian

    with pytest.raises(LeaseConfigError, match="unknown kind"):
        Guardian(["false"], "redis://localhost", "main")


HELD = Record("main", 5, "a", "mine", 600, 9)


@pytest.mark.parametrize(
    ("before", "outcome", "status"),
    [
        (HELD, Released.DONE, Status.ABANDONED),
        (HELD.renewed(10, Status.FENCING), Released.NOT_HELD, Status.FENCING),
        (Record("main", 6, "b", "theirs", 600, 1), Released.NOT_HELD, Status.HELD),
        (Record("main", 6, "a", "the next one", 600, 1), Released.NOT_HELD, Status.HELD),
        (HELD.released(10), Released.DONE, Status.RELEASED),
    ],
)
def test_only_the_dead_process_s_own_lease_is_given_up(
    tmp_path: Path, before: Record, outcome: Released, status: Status
) -> None:
    async def story() -> None:
        store = open_store(f"sqlite:///{tmp_path}/lease.db")
        try:
            assert await store.swap(None, before, LONG_S)
            assert await release(store, "main", "mine", LONG_S, LONG_S) is outcome
            after = await store.read("main", LONG_S)
            assert after is not None
            assert (after.epoch, after.session, after.status) == (before.epoch, before.session, status)
        finally:
            await store.close()

    asyncio.run(story())


def test_a_cell_without_a_record_has_nothing_to_give_up(tmp_path: Path) -> None:
    async def story() -> None:
        store = open_store(f"sqlite:///{tmp_path}/lease.db")
        try:
            assert await release(store, "main", "mine", LONG_S, LONG_S) is Released.NOT_HELD
        finally:
            await store.close()

    asyncio.run(story())


def test_a_store_that_does_not_answer_does_not_hold_the_guardian_for_long(tmp_path: Path) -> None:
    async def story() -> None:
        path = tmp_path / "lease.db"
        store = open_store(f"sqlite:///{path}")
        other = sqlite3.connect(path, isolation_level=None)
        try:
            assert await store.swap(None, HELD, LONG_S)
            other.execute("BEGIN EXCLUSIVE")
            assert await release(store, "main", "mine", 0.3, 0.1) is Released.UNANSWERED
        finally:
            other.close()
            await store.close()

    asyncio.run(story())
