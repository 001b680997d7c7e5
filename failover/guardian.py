"""The guardian: the parent process of a node, which knows for certain when the node can no longer send.

It holds no trading state. It passes signals on, gives up the lease in the name of a node that has died,
and starts it again. Whoever dies first, nobody is left behind: the kernel kills the node with its
guardian, and what a dead node leaves running falls to the guardian, which kills it before it lets go.

    python -m failover.guardian --lease URL --cell NAME -- COMMAND ...
"""

import argparse
import asyncio
import ctypes
import logging
import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from enum import Enum
from pathlib import Path
from types import FrameType
from typing import Final

from failover.lease import LeaseDamagedError, LeaseStore, LeaseUnansweredError, abandoned, open_store

__all__ = ["SESSION_VARIABLE", "Guardian", "Released", "release"]

log = logging.getLogger(__name__)

SESSION_VARIABLE: Final = "TANDEM_SESSION"
"""The environment variable with the name under which the node's process holds the lease."""

PASSED_ON: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
STOPS: Final = frozenset({signal.SIGTERM, signal.SIGINT})

FINAL_CODES: Final = frozenset({0, 2})
"""Exit codes after which a start would be pointless: an orderly end, and a mistake in the configuration."""

FIRST_DELAY_S: Final = 0.1
LONGEST_DELAY_S: Final = 30.0
STEADY_S: Final = 60.0
"""A node that ran for so long is started again at once, however often it had died before."""

_PR_SET_PDEATHSIG: Final = 1
_PR_SET_CHILD_SUBREAPER: Final = 36
_LIBC: Final = ctypes.CDLL(None, use_errno=True)


class Released(Enum):
    """How giving up the lease went."""

    DONE = "done"
    NOT_HELD = "not held"
    UNANSWERED = "unanswered"


async def release(store: LeaseStore, cell: str, session: str, within_s: float, call_s: float) -> Released:
    """Give up the lease in the name of the dead process `session`, if it still holds it.

    The process must have been reaped: after this a successor leads at once. Tries again until
    `within_s` have passed; each call to the store gets `call_s`.
    """
    give_up_s = time.monotonic() + within_s
    while True:
        try:
            record = await store.read(cell, call_s)
            parting = abandoned(record, session)
            if parting is None:
                # A release whose answer was lost reads like this too.
                is_ours = record is not None and record.session == session and record.is_free
                return Released.DONE if is_ours else Released.NOT_HELD
            if await store.swap(record, parting, call_s):
                return Released.DONE
        except LeaseUnansweredError as error:
            if time.monotonic() >= give_up_s:
                log.warning("guardian: the lease was not given up and runs out by itself: %s", error)
                return Released.UNANSWERED
            await asyncio.sleep(call_s / 10)
        except LeaseDamagedError as error:
            log.error("guardian: %s", error)
            return Released.UNANSWERED


class Guardian:
    """Keeps one node running. `run` blocks; call it from the main thread of a process of its own."""

    def __init__(
        self,
        command: Sequence[str],
        lease_url: str,
        cell: str,
        *,
        call_s: float = 0.15,
        release_within_s: float = 2.0,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        open_store(lease_url)  # a URL that cannot work is refused before anything is started
        self._command = list(command)
        self._lease_url = lease_url
        self._cell = cell
        self._call_s = call_s
        self._release_within_s = release_within_s
        self._environment = dict(os.environ if environment is None else environment)
        self._child: subprocess.Popen[bytes] | None = None
        self._is_stopping = False

    def run(self) -> int:
        """Run the node, again and again if need be; return the exit code of its last process.

        A process that was killed by a signal counts as 128 and the signal's number, as in a shell.
        """
        _prctl(_PR_SET_CHILD_SUBREAPER, 1)
        before = {number: signal.signal(number, self._on_signal) for number in PASSED_ON}
        try:
            return self._keep_running()
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _keep_running(self) -> int:
        delay_s = FIRST_DELAY_S
        while True:
            started_s = time.monotonic()
            session = secrets.token_hex(8)
            code = self._run_once(session)
            _kill_children()  # from here on nothing of the node can send
            released = asyncio.run(self._release(session))
            log.info("guardian: the node ended with code %d; its lease: %s", code, released.value)
            if self._is_stopping or code in FINAL_CODES:
                return code
            if time.monotonic() - started_s > STEADY_S:
                delay_s = FIRST_DELAY_S
            self._pause(delay_s)
            if self._is_stopping:
                return code
            delay_s = min(2 * delay_s, LONGEST_DELAY_S)

    def _run_once(self, session: str) -> int:
        guardian = os.getpid()
        # A signal that comes while there is no child yet must reach it all the same.
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, PASSED_ON)

        def before_exec() -> None:
            _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
            if os.getppid() != guardian:  # it died before the line above
                os._exit(1)
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)

        try:
            # This process has no other thread here, which is what makes code between fork and exec safe.
            self._child = subprocess.Popen(
                self._command,
                env=self._environment | {SESSION_VARIABLE: session},
                preexec_fn=before_exec,  # noqa: PLW1509
            )
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        code = self._child.wait()
        self._child = None
        return 128 - code if code < 0 else code

    async def _release(self, session: str) -> Released:
        store = open_store(self._lease_url)
        try:
            return await release(store, self._cell, session, self._release_within_s, self._call_s)
        finally:
            await store.close()

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        if number in STOPS:
            self._is_stopping = True
        if self._child is not None:
            self._child.send_signal(number)

    def _pause(self, delay_s: float) -> None:
        """Wait, or go on as soon as a signal says to stop."""
        until_s = time.monotonic() + delay_s
        while not self._is_stopping and (left_s := until_s - time.monotonic()) > 0:
            time.sleep(min(left_s, 0.1))


def _prctl(option: int, value: int) -> None:
    if _LIBC.prctl(option, value, 0, 0, 0) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"prctl({option}): {os.strerror(number)}")


def _kill_children() -> None:
    """Kill and reap everything that the dead node has left to this process."""
    while children := _children(os.getpid()):
        for pid in children:
            try:
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
            except (ProcessLookupError, ChildProcessError):
                continue  # it ended by itself


def _children(parent: int) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            stat = (entry / "stat").read_text()
        except OSError:
            continue  # it ended while we looked
        if int(stat.rpartition(")")[2].split()[1]) == parent:
            found.append(int(entry.name))
    return found


def main() -> int:
    """Run the guardian of the command line."""
    parser = argparse.ArgumentParser("python -m failover.guardian", description="Keep a node running.")
    parser.add_argument("--lease", required=True, help="the lease URL of the node's cell")
    parser.add_argument("--cell", required=True)
    parser.add_argument("command", nargs="+")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    return Guardian(arguments.command, arguments.lease, arguments.cell).run()


if __name__ == "__main__":
    sys.exit(main())
