"""Two processes, and kill -9 of either: what was called durable is held, and both journals meet again."""

import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from host.journal import Journal, journal_digest, read, verify

REPO = Path(__file__).parents[2]
NODE = Path(__file__).with_name("replication_node.py")
DEADLINE_S = 60.0
"""Far above what anything here needs; only a test that has failed waits for it."""


class Node:
    """A process of `replication_node.py` and what it has said."""

    def __init__(self, output: Path, *arguments: str | Path) -> None:
        self._output = output
        with output.open("wb") as file:
            self.process = subprocess.Popen(
                [sys.executable, str(NODE), *map(str, arguments)], cwd=REPO, stdout=file, env=_environ()
            )

    def said(self, word: str) -> list[str]:
        """Return what followed `word` in each whole line that begins with it."""
        whole = self._output.read_text().rpartition("\n")[0]
        return re.findall(rf"^{word} ?(.*)$", whole, re.MULTILINE)

    def last(self, word: str) -> int:
        """Return the number that it last said with `word`."""
        return int((self.said(word) or ["0"])[-1])

    def kill(self) -> None:
        """End it with SIGKILL."""
        self.process.kill()
        self.process.wait()


def _environ() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(REPO), str(REPO / "proto")])}


@contextmanager
def node(output: Path, *arguments: str | Path) -> Iterator[Node]:
    one = Node(output, *arguments)
    try:
        yield one
    finally:
        one.kill()


def wait_until(is_true: Callable[[], object], what: str) -> None:
    end = time.monotonic() + DEADLINE_S
    while not is_true():
        assert time.monotonic() < end, f"waited in vain for {what}"
        time.sleep(0.005)


def free_address() -> str:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{taken.getsockname()[1]}"


def test_what_a_killed_primary_called_durable_is_on_the_standby_and_both_go_on(tmp_path: Path) -> None:
    address = free_address()
    a, b = tmp_path / "a", tmp_path / "b"
    with node(tmp_path / "standby", "standby", b, address) as standby:
        for epoch in (1, 2, 3):
            with node(tmp_path / f"primary {epoch}", "primary", a, address, str(epoch)) as primary:
                wait_until(lambda: primary.said("serving"), "the primary")
                start = int(primary.last("durable"))
                wait_until(lambda: primary.last("durable") > start + 120, "durable entries")  # noqa: B023
                primary.kill()
                durable = primary.last("durable")
            wait_until(lambda: standby.last("held") >= durable, f"entry {durable}")  # noqa: B023
        assert standby.said("differs") == []
        assert not any("Rejoined" in event for event in standby.said("event"))
    assert [record.lsn for record in read(b)][-1] >= durable
    held = verify(b).last_lsn
    assert verify(b).is_sound
    with Journal.open(a, node="a", segment_bytes=1 << 16) as journal:
        assert journal.last_lsn >= held
    assert [record.entry for record in read(a)][:held] == [record.entry for record in read(b)]


def test_a_killed_standby_comes_back_and_catches_up_while_the_primary_goes_on(tmp_path: Path) -> None:
    address = free_address()
    a, b = tmp_path / "a", tmp_path / "b"
    with node(tmp_path / "primary", "primary", a, address, "1") as primary:
        wait_until(lambda: primary.said("serving"), "the primary")
        for life in range(3):
            with node(tmp_path / f"standby {life}", "standby", b, address) as standby:
                before = primary.last("durable")
                wait_until(lambda: primary.last("durable") > before + 60, "durable entries")  # noqa: B023
                standby.kill()
                assert standby.said("differs") == []
            # It may have been killed between writing and saying so, never the other way round.
            assert verify(b).last_lsn >= primary.last("durable")
        assert primary.process.poll() is None
    held = verify(b).last_lsn
    assert journal_digest(b) == _digest_of_first(a, held, tmp_path)


def _digest_of_first(folder: Path, count: int, scratch: Path) -> str:
    """Return the digest of the first `count` entries of a journal."""
    with Journal.open(scratch / "first", node="x", segment_bytes=1 << 16) as journal:
        for record in read(folder):
            if record.lsn > count:
                break
            journal.append(record.entry, record.ts_ns)
    return journal_digest(scratch / "first")
