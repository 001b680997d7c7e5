"""Probes from a warm process: the first import of unproven bytes in a few milliseconds.

`python -m host.loader._fork_server` holds an interpreter with everything imported; each probe is a
fork of it. What a probe checks, and what it reports of children that hang or die, is `probe`'s.
"""

import asyncio
import os
import socket
import subprocess
import sys
from contextlib import ExitStack, suppress
from types import TracebackType
from typing import Self

import msgspec
from msgspec import Struct

from host.api import TandemError
from host.loader.capture import Version
from host.loader.probe import PROBE_STAGES, ProbeResult, conclude
from host.loader.stages import Outcome, StageReport

__all__ = ["ForkServer", "ForkServerFailed"]

_START_S = 30.0  # for the interpreter to start and import on a loaded machine
_ANSWER_GRACE_S = 15.0  # past the deadline, until the server itself counts as hanging
_STOP_S = 5.0
_MOST_AT_ONCE = 4  # more would only take each other's processor time, and so their deadlines
_MOST_LAST_WORDS = 64 << 10
_WARM = 0


class Ask(Struct, frozen=True, array_like=True):
    """Probe, with three descriptors: the request, and where answers and errors go. No deadline: cancel."""

    number: int
    deadline_s: float | None


class Ended(Struct, frozen=True, array_like=True):
    """The child of that number and all it started are gone. Number 0 says that the server is warm."""

    number: int
    exit_code: int


class ForkServerFailed(TandemError):  # noqa: N818 - parallel to the other outcomes
    """The server process does not start; no plugin is to blame. `probe` works without it."""


class ForkServer:
    """Owns the server process: starts it when needed, again when it died, and ends it.

    Belongs to one event loop. Use it as an async context manager, or `close` it.
    """

    def __init__(self) -> None:
        self._link: _Link | None = None
        self._starting = asyncio.Lock()
        self._room = asyncio.Semaphore(_MOST_AT_ONCE)

    @property
    def pid(self) -> int | None:
        """Return the server's process id, or None where none is running."""
        return self._link.process.pid if self._link is not None and not self._link.is_lost else None

    async def start(self) -> None:
        """Start the process now, so that the first probe need not wait for it; raise `ForkServerFailed`."""
        await self._connected()

    async def probe(self, version: Version, deadline_s: float) -> ProbeResult:
        """Import and check a version in a throwaway process that gets `deadline_s` seconds for it.

        Whatever the plugin does, this returns, and nothing that it started is left behind; cancelled,
        it ends the child. Where the server dies meanwhile, the probe runs once more on one of its own.
        Raises `ForkServerFailed` only.
        """
        request = await asyncio.to_thread(msgspec.msgpack.encode, version, enc_hook=str)
        async with self._room:
            with suppress(_LinkLost):
                return await _probe_on(await self._connected(), version, request, deadline_s)
            # It may have been another plugin that ended the server: the second one serves this one alone.
            link = await _Link.open()
            try:
                with suppress(_LinkLost):
                    return await _probe_on(link, version, request, deadline_s)
            finally:
                await asyncio.shield(link.close())
        problem = version.problem(
            "the process that forks probes ended during its probe, twice",
            next_step="plugin code must not end the process that runs it",
        )
        failed = StageReport(PROBE_STAGES[0], Outcome.FAILED, problems=(problem,))
        return ProbeResult((failed, *(StageReport(stage, Outcome.SKIPPED) for stage in PROBE_STAGES[1:])))

    async def close(self) -> None:
        """End the server and every child; probes under way fail over to a new one, so end them first."""
        async with self._starting:
            link, self._link = self._link, None
            if link is not None:
                await link.close()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def _connected(self) -> "_Link":
        async with self._starting:
            if self._link is not None and self._link.is_lost:
                link, self._link = self._link, None
                await link.close()
            if self._link is None:
                self._link = await _Link.open()
            return self._link


class _LinkLost(Exception):  # noqa: N818 - parallel to ForkServerFailed
    """The server died or hangs."""


class _Link:
    """One server process and the socket to it."""

    def __init__(self, process: subprocess.Popen[bytes], control: socket.socket) -> None:
        self.process = process
        self.is_lost = False
        self._control = control
        self._answers = msgspec.msgpack.Decoder(Ended)
        self._waiting: dict[int, asyncio.Future[int]] = {}
        self._number = _WARM
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(control.fileno(), self._on_answer)

    @classmethod
    async def open(cls) -> Self:
        """Start a server and wait until it is warm; raise `ForkServerFailed`."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setblocking(False)
        with theirs:
            spawning = asyncio.ensure_future(asyncio.to_thread(_spawn, theirs))
            try:
                process = await asyncio.shield(spawning)
            except BaseException:
                # A thread cannot be cancelled: what it starts is ended, and needs its socket until then.
                with ours:
                    started = await spawning
                    started.kill()
                    started.wait()
                raise
        link = cls(process, ours)
        try:
            await link._answer(_WARM, _START_S)
        except _LinkLost:
            await link.close()
            raise ForkServerFailed(
                f"the process that forks probes did not start (exit code {process.returncode}); "
                "its standard error, which is the host's, says why"
            ) from None
        except BaseException:
            await asyncio.shield(link.close())
            raise
        return link

    async def ask(self, deadline_s: float, descriptors: list[int]) -> int:
        """Have one child forked with these descriptors and return its exit code; raise `_LinkLost`."""
        self._number += 1
        number = self._number
        try:
            socket.send_fds(self._control, [msgspec.msgpack.encode(Ask(number, deadline_s))], descriptors)
        except OSError as error:
            raise self._lost() from error
        try:
            return await self._answer(number, deadline_s + _ANSWER_GRACE_S)
        except asyncio.CancelledError:
            if not self.is_lost:
                self._control.send(msgspec.msgpack.encode(Ask(number, None)))
            raise

    async def close(self) -> None:
        """End the process: it does so by itself at the end of its socket, or is killed."""
        self._lost()
        try:
            await asyncio.to_thread(self.process.wait, _STOP_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            await asyncio.to_thread(self.process.wait)

    async def _answer(self, number: int, within_s: float) -> int:
        future: asyncio.Future[int] = self._loop.create_future()
        self._waiting[number] = future
        try:
            async with asyncio.timeout(within_s):
                return await future
        except TimeoutError:
            self.process.kill()
            raise self._lost() from None
        finally:
            del self._waiting[number]

    def _on_answer(self) -> None:
        try:
            message = self._control.recv(4096)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            message = b""
        if not message:
            self._lost()
            return
        ended = self._answers.decode(message)
        future = self._waiting.get(ended.number)
        if future is not None and not future.done():  # else cancelled
            future.set_result(ended.exit_code)

    def _lost(self) -> _LinkLost:
        if not self.is_lost:
            self.is_lost = True
            self._loop.remove_reader(self._control.fileno())
            self._control.close()
            for future in self._waiting.values():
                if not future.done():
                    future.set_exception(_LinkLost())
        return _LinkLost()


async def _probe_on(link: _Link, version: Version, request: bytes, deadline_s: float) -> ProbeResult:
    with ExitStack() as stack:
        # Files in memory and not pipes: a process that the plugin started may hold a pipe open for ever.
        files = [os.fdopen(os.memfd_create(name), "w+b", buffering=0) for name in ("in", "out", "err")]
        for file in files:
            stack.enter_context(file)
        asked, answers, errors = files
        await asyncio.to_thread(asked.write, request)
        asked.seek(0)
        exit_code = await link.ask(deadline_s, [file.fileno() for file in files])
        for file in (answers, errors):
            file.seek(max(0, os.fstat(file.fileno()).st_size - _MOST_LAST_WORDS) if file is errors else 0)
        return conclude(version, deadline_s, exit_code, answers.read(), errors.read())


def _spawn(control: socket.socket) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "host.loader._fork_server", str(control.fileno())],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        # One thread each: numerical libraries otherwise start a pool when imported, which no fork survives.
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
            "OPENBLAS_NUM_THREADS": "1",
            "OMP_NUM_THREADS": "1",
        },
        pass_fds=[control.fileno()],
        start_new_session=True,  # an interrupt typed at the terminal is for the host alone
    )
