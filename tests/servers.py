"""What fixtures of real servers share: free ports, skipping by name, waiting for a port, stopping by pid."""

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable
from typing import NoReturn

import pytest

STOP_TIMEOUT_S = 10


def require_program(name: str, package: str) -> str:
    """Return the path of a program, or skip; with TANDEM_REQUIRE_SERVERS=1, fail."""
    path = shutil.which(name)
    if path is None:
        missing(f"no {name} found; install it with `apt-get install {package}`")
    return path


def missing(reason: str) -> NoReturn:
    """Skip the test for a server that is not there, or fail where it must be."""
    if os.environ.get("TANDEM_REQUIRE_SERVERS") == "1":
        pytest.fail(reason)
    pytest.skip(reason)


def free_ports(count: int) -> list[int]:
    """Return loopback ports that nobody listens on; all are held until all are known, so they differ."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [server.getsockname()[1] for server in sockets]
    for server in sockets:
        server.close()
    return ports


def wait_for(condition: Callable[[], bool], what: str, timeout_s: float = 30) -> None:
    """Poll until `condition` holds."""
    give_up_s = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > give_up_s:
            raise TimeoutError(f"no {what} within {timeout_s} s")
        time.sleep(0.02)


def stop(process: "subprocess.Popen[bytes]") -> None:
    """End a process that this test started, and wait for its end."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(STOP_TIMEOUT_S)
