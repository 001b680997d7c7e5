"""A warm process that forks one throwaway child per probe; `ForkServer` is its other end.

It has imported what every probe needs, and imports what else a plugin needed once a child has shown that
this works and starts no thread; it never runs plugin code itself. It has one thread: a fork copies
only the thread that forks, and a lock held by another would stay locked in the child for ever. It ends
when its host does, and takes every child along.
"""

import contextlib
import ctypes
import faulthandler
import gc
import importlib
import os
import resource
import selectors
import signal
import socket
import sys
import time
from pathlib import Path

import msgspec
from msgspec import Struct

from host.loader import _probe_child
from host.loader.capture import NAMESPACE
from host.loader.fork_server import Ask, Ended

__all__ = ["main"]

_KILL_GRACE_S = 5.0  # past the deadline, at which a child ends itself and says where it was
_THREAD_END_S = 0.1
_MOST_OUTPUT_BYTES = 64 << 20  # of a plugin that prints in a loop; its output is held in memory
_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36
_LIBC = ctypes.CDLL(None, use_errno=True)


class _Child(Struct, eq=False):
    number: int
    pid: int
    pidfd: int
    notes: int
    kill_at: float


def main() -> None:
    """Serve the socket whose descriptor is the first argument until its other end closes."""
    control = socket.socket(fileno=int(sys.argv[1]))
    # What a plugin starts and abandons becomes a child of this process, which ends it.
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)
    _Server(control).run()


class _Server:
    def __init__(self, control: socket.socket) -> None:
        self._control = control
        self._selector = selectors.DefaultSelector()
        self._selector.register(control, selectors.EVENT_READ)
        self._children: dict[int, _Child] = {}
        self._asks = msgspec.msgpack.Decoder(Ask)
        _settle_memory()

    def run(self) -> None:
        try:
            self._tell(Ended(0, 0))
            while self._turn():
                pass
        except (BrokenPipeError, ConnectionResetError):
            return  # the host is gone; that is how this process ends
        finally:
            for child in list(self._children.values()):
                self._end(child)

    def _turn(self) -> bool:
        deadlines = [child.kill_at for child in self._children.values()]
        timeout = max(0.0, min(deadlines) - time.monotonic()) if deadlines else None
        for key, _ in self._selector.select(timeout):
            if isinstance(key.data, _Child):
                child = key.data
                exit_code, needed = self._end(child)
                self._tell(Ended(child.number, exit_code))
                if not _preload(needed):
                    return False
            elif not self._receive():
                return False
        for child in list(self._children.values()):
            if child.kill_at <= time.monotonic():
                _kill(child)
                child.kill_at = float("inf")
        return True

    def _receive(self) -> bool:
        message, descriptors, _, _ = socket.recv_fds(self._control, 4096, 3)
        if not message:
            return False
        ask = self._asks.decode(message)
        if ask.deadline_s is not None:
            try:
                self._fork(ask.number, ask.deadline_s, descriptors)
            finally:
                for descriptor in descriptors:
                    os.close(descriptor)
        elif ask.number in self._children:
            _kill(self._children[ask.number])
        return True

    def _fork(self, number: int, deadline_s: float, descriptors: list[int]) -> None:
        notes = os.memfd_create("notes")
        server = os.getpid()
        pid = os.fork()
        if pid == 0:
            try:
                _be_child(server, deadline_s, [*descriptors, notes])
            finally:
                os._exit(1)  # never back into the server's loop
        child = _Child(number, pid, os.pidfd_open(pid), notes, time.monotonic() + deadline_s + _KILL_GRACE_S)
        self._children[number] = child
        self._selector.register(child.pidfd, selectors.EVENT_READ, child)

    def _end(self, child: _Child) -> tuple[int, list[str]]:
        """End a child and all it started; return its exit code and the modules that it imported."""
        self._selector.unregister(child.pidfd)
        _kill(child)
        with contextlib.suppress(ProcessLookupError):  # killed before it made a group of its own
            # At once, so that what keeps forking cannot run ahead; its strays would be found one by one.
            # Before `waitpid`: until then the process id, and so its group's, cannot be another's.
            os.killpg(child.pid, signal.SIGKILL)
        exit_code = os.waitstatus_to_exitcode(os.waitpid(child.pid, 0)[1])
        needed = os.pread(child.notes, os.fstat(child.notes).st_size, 0).decode(errors="replace").split()
        os.close(child.pidfd)
        os.close(child.notes)
        del self._children[child.number]
        self._end_strays()
        return exit_code, needed if exit_code == 0 else []

    def _end_strays(self) -> None:
        """End what plugins started in sessions of their own; orphaned, they are this process's children."""
        known = {child.pid for child in self._children.values()}
        listing = Path(f"/proc/self/task/{os.getpid()}/children")
        while strays := set(map(int, listing.read_text().split())) - known:
            for stray in strays:
                os.kill(stray, signal.SIGKILL)
                os.waitpid(stray, 0)

    def _tell(self, ended: Ended) -> None:
        self._control.send(msgspec.msgpack.encode(ended))


def _kill(child: _Child) -> None:
    # A child may have ended by itself; it is not yet waited for, so this cannot meet another process.
    with contextlib.suppress(ProcessLookupError):
        signal.pidfd_send_signal(child.pidfd, signal.SIGKILL)


def _be_child(server: int, deadline_s: float, descriptors: list[int]) -> None:
    """Probe in this process, which is a fresh copy of the server; note what the plugin imported."""
    os.setsid()
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != server:
        return  # the server ended before it could take this child along
    for target, descriptor in enumerate(descriptors):  # request, answers, errors, notes
        os.dup2(descriptor, target)
    for descriptor in [int(entry.name) for entry in Path("/proc/self/fd").iterdir()]:
        if descriptor >= len(descriptors):
            with contextlib.suppress(OSError):  # the one that listed the folder is closed already
                os.close(descriptor)
    resource.setrlimit(resource.RLIMIT_FSIZE, (_MOST_OUTPUT_BYTES, _MOST_OUTPUT_BYTES))
    before = set(sys.modules)
    _probe_child.probe_stdin(deadline_s)
    faulthandler.cancel_dump_traceback_later()  # ends its thread
    if _is_alone():
        needed = [name for name in sys.modules if name not in before and not name.startswith(NAMESPACE)]
        os.write(len(descriptors) - 1, "\n".join(needed).encode())
    os._exit(0)


def _preload(names: list[str]) -> bool:
    """Import what a child could import; return whether this process can still fork."""
    for name in names:
        with contextlib.suppress(Exception):  # a plugin may have put anything among its modules
            importlib.import_module(name)
    if names:
        _settle_memory()
    return _thread_count() == 1


def _settle_memory() -> None:
    gc.collect()
    gc.freeze()  # a collection in a child would write to, and so copy, every page


def _is_alone() -> bool:
    """Return whether this process has one thread; one that has just ended is still listed for a moment."""
    give_up_at = time.monotonic() + _THREAD_END_S
    while _thread_count() > 1:
        if time.monotonic() >= give_up_at:
            return False
        time.sleep(0.0005)
    return True


def _thread_count() -> int:
    return len(list(Path("/proc/self/task").iterdir()))


def _prctl(option: int, value: int) -> None:
    if _LIBC.prctl(option, value, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), f"prctl({option}) failed")


if __name__ == "__main__":
    main()
