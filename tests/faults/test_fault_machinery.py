"""The machinery of fault tests does what it says: cuts, slow servers, and clocks that are stepped."""

import asyncio
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.faults.network import running_network
from tests.faults.relay import running_relay
from tests.faults.wall_clock import WallClock

PATIENCE_S = 20
SHORT_S = 0.3
ECHO = """
import socket, sys
server = socket.create_server((sys.argv[1], int(sys.argv[2])))
print("ready", flush=True)
while True:
    with server.accept()[0] as one:
        one.sendall(one.recv(10))
"""
DIAL = """
import socket, sys
with socket.create_connection((sys.argv[1], int(sys.argv[2])), 0.3) as one:
    one.sendall(b"hello")
    assert one.recv(10) == b"hello"
"""


@contextmanager
def echoing(inside: list[str], address: str, port: int) -> Iterator[None]:
    command = [*inside, sys.executable, "-c", ECHO, address, str(port)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as server:
        try:
            assert server.stdout is not None and server.stdout.readline() == b"ready\n"
            yield
        finally:
            server.kill()


def reaches(inside: list[str], address: str, port: int) -> bool:
    command = [*inside, sys.executable, "-c", DIAL, address, str(port)]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def test_each_way_of_a_network_is_cut_and_healed_by_itself() -> None:
    with running_network("a", "b") as network:
        a, b = network.inside("a"), network.inside("b")
        with echoing(a, network.addresses["a"], 7001), echoing([], network.host, 7002):
            to_a, to_host = (b, network.addresses["a"], 7001), (b, network.host, 7002)
            assert reaches(*to_a) and reaches(*to_host)
            network.cut("b", "a")
            assert not reaches(*to_a) and reaches(*to_host)
            network.cut_off("b", 7002)
            assert not reaches(*to_host) and reaches(a, network.host, 7002)
            network.heal("b")
            assert reaches(*to_a) and reaches(*to_host)


class EchoServer:
    """An echo server on a thread, for one relay."""

    def __init__(self) -> None:
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._server.getsockname()[1]
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while True:
            try:
                one, _ = self._server.accept()
            except OSError:
                return
            threading.Thread(target=self._echo, args=(one,), daemon=True).start()

    def _echo(self, one: socket.socket) -> None:
        with one:
            try:
                while data := one.recv(100):
                    one.sendall(data)
            except OSError:
                return

    async def dial(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection("127.0.0.1", self.port)

    def close(self) -> None:
        self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()
        self._thread.join()


@pytest.fixture
def server() -> Iterator[EchoServer]:
    server = EchoServer()
    yield server
    server.close()


def test_a_relay_passes_delays_holds_back_and_breaks(server: EchoServer) -> None:
    with running_relay(server.dial) as relay:
        address = ("127.0.0.1", relay.port)
        with socket.create_connection(address, PATIENCE_S) as one:
            one.sendall(b"at once")
            assert one.recv(100) == b"at once"
            relay.slow_down(SHORT_S / 2)
            started_s = time.monotonic()
            one.sendall(b"later")
            assert one.recv(100) == b"later"
            assert time.monotonic() - started_s >= SHORT_S
            relay.silence()
            one.sendall(b"held back")
            one.settimeout(SHORT_S)
            with pytest.raises(TimeoutError):
                one.recv(100)
            one.settimeout(PATIENCE_S)
            relay.resume()
            assert one.recv(100) == b"held back"
            relay.close()
            assert one.recv(100) == b""
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(address, PATIENCE_S)
        relay.open()
        with socket.create_connection(address, PATIENCE_S) as one:
            one.sendall(b"again")
            assert one.recv(100) == b"again"


TELL = """
import sys, time
for _ in sys.stdin:
    print(time.time(), time.clock_gettime(time.CLOCK_BOOTTIME), time.monotonic(), flush=True)
"""


def test_a_stepped_clock_moves_the_date_and_nothing_else(tmp_path: Path) -> None:
    clock = WallClock(tmp_path, "one")

    def tell() -> list[float]:
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write("now\n")
        process.stdin.flush()
        return [float(text) for text in process.stdout.readline().split()]

    with subprocess.Popen(
        [sys.executable, "-c", TELL],
        env={**os.environ, **clock.environment},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        before = tell()
        assert abs(before[0] - time.time()) < PATIENCE_S
        for step_s in (3600.0, -3600.0):
            clock.step(step_s)
            while abs(tell()[0] - time.time() - step_s) > PATIENCE_S:
                assert time.time() - before[0] < PATIENCE_S
        after = tell()
        assert before[1] <= after[1] < before[1] + PATIENCE_S
        assert before[2] <= after[2] < before[2] + PATIENCE_S
