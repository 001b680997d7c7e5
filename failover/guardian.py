"""The guardian: the parent process of a node, which knows for certain when the node can no longer send.

It holds no trading state. It passes signals on, gives up the lease in the name of a node that has died,
and starts it again. Whoever dies first, nobody is left behind: the kernel kills the node with its
guardian, and what a dead node leaves running falls to the guardian, which kills it before it lets go.

    python -m failover.guardian [--lease URL] --cell NAME -- COMMAND ...

A failover waits for the time between the node's death and the lease given up. So the connection to the
store is open before, and what happens in between imports nothing.
"""

import argparse
import asyncio
import logging
import os
import secrets
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from enum import Enum
from typing import Final

from failover.lease import (
    LeaseDamagedError,
    LeaseError,
    LeaseStore,
    LeaseUnansweredError,
    abandoned,
    open_store,
)
from failover.offspring import adopt_orphans, die_with_parent, kill_children, reap_orphans

__all__ = [
    "LEASE_VARIABLE",
    "SESSION_VARIABLE",
    "Guardian",
    "Released",
    "guarded_session",
    "release",
]

log = logging.getLogger(__name__)

SESSION_VARIABLE: Final = "TANDEM_SESSION"
"""The environment variable with the name under which the node's process holds the lease."""
GUARDIAN_VARIABLE: Final = "TANDEM_GUARDIAN"
"""The one with the guardian's process id."""
LEASE_VARIABLE: Final = "TANDEM_GUARDIAN_LEASE"
"""The one that takes the place of `--lease`: other users can read a command line, and a URL has a password."""

PASSED_ON: Final = frozenset({signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2})
STOPS: Final = frozenset({signal.SIGTERM, signal.SIGINT})
AWAITED: Final = PASSED_ON | {signal.SIGCHLD}

FINAL_CODES: Final = frozenset({0, 2})
"""Exit codes after which a start would be pointless: an orderly end, and a mistake in the configuration."""

FIRST_DELAY_S: Final = 0.1
LONGEST_DELAY_S: Final = 30.0
STEADY_S: Final = 60.0
"""A node that ran for so long is started again at once, however often it had died before."""

KEEP_WARM_S: Final = 5.0
"""How often the connection to the store is used while there is nothing to do: servers and routers forget idle ones."""
CONNECT_S: Final = 0.5
"""How long such a use may take; signals wait for it."""


def guarded_session(environment: Mapping[str, str]) -> str:
    """Return the session that this process's guardian gave it; empty for a process without a guardian.

    A process further down, which inherited the variables, has none: two processes must not share a session.
    """
    is_guarded = environment.get(GUARDIAN_VARIABLE) == str(os.getppid())
    return environment.get(SESSION_VARIABLE, "") if is_guarded else ""


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
    """Keeps one node running. `run` blocks; call it from the main thread of a process of its own.

    `environment` is the node's, without what the guardian adds.
    """

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
        self._is_stopping = False

    def run(self) -> int:
        """Run the node, again and again if need be; return the exit code of its last process.

        A process that was killed by a signal counts as 128 and the signal's number, as in a shell.
        """
        adopt_orphans()
        # Blocked for good and asked for one by one: none is lost while there is no child yet, and each
        # says whether the terminal has told the child already.
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, AWAITED)
        try:
            return self._keep_running(mask)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)

    def _keep_running(self, mask: "set[signal.Signals | int]") -> int:
        delay_s = FIRST_DELAY_S
        while True:
            started_s = time.monotonic()
            code = self._run_once(mask)
            if self._is_stopping or code in FINAL_CODES:
                return code
            if time.monotonic() - started_s > STEADY_S:
                delay_s = FIRST_DELAY_S
            self._pause(delay_s)
            if self._is_stopping:
                return code
            delay_s = min(2 * delay_s, LONGEST_DELAY_S)

    def _run_once(self, mask: "set[signal.Signals | int]") -> int:
        session = secrets.token_hex(8)
        child = self._start(session, mask)
        # Only now: this process must have no other thread when it forks, and a store may have one.
        with asyncio.Runner() as runner:
            store = open_store(self._lease_url)
            try:
                code = self._wait(child, store, runner)
                ended_s = time.perf_counter()
                kill_children()  # from here on nothing of the node can send
                released = runner.run(
                    release(store, self._cell, session, self._release_within_s, self._call_s)
                )
                took_ms = (time.perf_counter() - ended_s) * 1e3
            finally:
                runner.run(store.close())
        _end_threads()
        log.info(
            "guardian: the node ended with code %d; its lease: %s, %.1f ms later",
            code,
            released.value,
            took_ms,
        )
        return code

    def _start(self, session: str, mask: "set[signal.Signals | int]") -> "subprocess.Popen[bytes]":
        guardian = os.getpid()

        def before_exec() -> None:
            die_with_parent(guardian)
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)

        names = {SESSION_VARIABLE: session, GUARDIAN_VARIABLE: str(guardian)}
        return subprocess.Popen(
            self._command,
            env=self._environment | names,
            preexec_fn=before_exec,  # noqa: PLW1509 - safe without other threads
        )

    def _wait(self, child: "subprocess.Popen[bytes]", store: LeaseStore, runner: asyncio.Runner) -> int:
        """Wait until the child has ended, reap it and return its code; meanwhile pass signals on."""
        used_s = -KEEP_WARM_S
        while True:
            reap_orphans(child.pid)
            code = child.poll()
            if code is not None:
                return 128 - code if code < 0 else code
            left_s = used_s + KEEP_WARM_S - time.monotonic()
            if left_s <= 0:
                runner.run(self._use(store))
                used_s = time.monotonic()
                continue
            got = signal.sigtimedwait(AWAITED, left_s)
            if got is not None and got.si_signo in PASSED_ON:
                self._is_stopping |= got.si_signo in STOPS
                # What comes from the terminal went to the child too, which is in the same process group.
                # Twice, it would take it for an impatient second Ctrl-C.
                if got.si_code <= 0:
                    child.send_signal(got.si_signo)

    async def _use(self, store: LeaseStore) -> None:
        """Have a connection ready. If there is none, the node says so: it needs the store more than we do."""
        try:
            await store.read(self._cell, CONNECT_S)
        except LeaseError as error:
            log.debug("guardian: %s", error)

    def _pause(self, delay_s: float) -> None:
        """Wait, or go on as soon as a signal says to stop."""
        until_s = time.monotonic() + delay_s
        while not self._is_stopping and (left_s := until_s - time.monotonic()) > 0:
            got = signal.sigtimedwait(PASSED_ON, left_s)
            self._is_stopping = got is not None and got.si_signo in STOPS


def _end_threads() -> None:
    """Wait for the threads of a store that was closed; one that hangs in a driver is left behind."""
    until_s = time.monotonic() + CONNECT_S
    for thread in threading.enumerate():
        if thread is not threading.current_thread():
            thread.join(max(until_s - time.monotonic(), 0.0))


def main() -> int:
    """Run the guardian of the command line."""
    parser = argparse.ArgumentParser("python -m failover.guardian", description="Keep a node running.")
    parser.add_argument(
        "--lease", help=f"the lease URL of the node's cell; better in the variable {LEASE_VARIABLE}"
    )
    parser.add_argument("--cell", required=True)
    parser.add_argument("command", nargs="+")
    arguments = parser.parse_args()
    lease = os.environ.pop(LEASE_VARIABLE, None) or arguments.lease
    if lease is None:
        parser.error(f"expected --lease URL or the variable {LEASE_VARIABLE}")
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    return Guardian(arguments.command, lease, arguments.cell).run()


if __name__ == "__main__":
    sys.exit(main())
