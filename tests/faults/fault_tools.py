"""Real processes to kill, and what they run."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Self

REPO = Path(__file__).parents[2]
DEADLINE_S = 30.0
"""Far above what anything here needs; only a test that has failed waits for it."""

# Half a spread of nothing and no tolerance: every tick moves an order, and every trade hits one.
INSTANCES = """
[[instance]]
name = "mm-btc"
plugin = "two_sided"
account = "acc"
symbols = ["BTC-USDT"]
quote_tolerance_bps = 0.0
params = { half_spread_bps = 0.01, size = "0.01", skew_bps = 0.0 }

[[instance]]
name = "mm-eth"
plugin = "two_sided"
account = "acc"
symbols = ["ETH-USDT"]
quote_tolerance_bps = 0.0
params = { half_spread_bps = 0.01, size = "0.1", skew_bps = 0.0 }
"""

_DIE_WITH_PARENT = ("setpriv", "--pdeathsig", "KILL")


def wait_until(is_true: Callable[[], bool], what: str, every_s: float = 0.002) -> None:
    """Look again and again until it is so; fail, naming `what`, after the deadline."""
    end = time.monotonic() + DEADLINE_S
    while not is_true():
        assert time.monotonic() < end, f"waited {DEADLINE_S:g} s in vain for {what}"
        time.sleep(every_s)


class TandemProcess:
    """One `tandem` command in a process of its own; its output goes to a file.

    `inside` stands before the command and must become it, as `ip netns exec NAME` does. It leads a group of
    processes: what it starts is in it too. Should this process be killed, the kernel kills it.
    """

    def __init__(
        self,
        output: Path,
        *arguments: str | Path,
        inside: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.output = output
        code = "import sys; from host.cli import main; sys.exit(main())"
        with output.open("ab") as file:
            self._process = subprocess.Popen(
                [*inside, *_DIE_WITH_PARENT, sys.executable, "-c", code, *map(str, arguments)],
                cwd=REPO,
                stdout=file,
                stderr=file,
                env={**os.environ, "PYTHONUNBUFFERED": "1", **(environment or {})},
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        """Return the process id."""
        return self._process.pid

    @property
    def is_alive(self) -> bool:
        """Return whether the process runs."""
        return self._process.poll() is None

    def kill(self) -> None:
        """End it with SIGKILL, in the middle of whatever it does."""
        self._process.kill()
        self._process.wait()

    def signal_group(self, number: signal.Signals) -> None:
        """Send a signal to it and to all that it has started, at once."""
        os.killpg(self._process.pid, number)
        if number is signal.SIGKILL:
            self._process.wait()

    def stop(self) -> int:
        """Ask it to stop and return its exit code."""
        self._process.send_signal(signal.SIGTERM)
        return self.wait()

    def wait(self) -> int:
        """Wait for its end and return its exit code."""
        try:
            return self._process.wait(DEADLINE_S)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"it did not end; it said:\n{self.said()}") from None

    def said(self) -> str:
        """Return its output, and that of processes before it with the same file."""
        return self.output.read_text()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.is_alive:
            self.kill()


class Venue:
    """The paper venue as a server, with its log; on a Unix socket, or at `address`.

    Bytes for a Unix socket have arrived when they are sent. Where it matters what a dead node had not sent
    yet, as on a network, give it an address. `options` are more of its command's.
    """

    def __init__(
        self,
        folder: Path,
        seed: int,
        address: tuple[str, int] | None = None,
        options: Sequence[str | Path] = (),
    ) -> None:
        # A Unix socket's path has to be short, and pytest's folders are not.
        self.socket = Path(f"/tmp/tandem-{os.getpid()}-{seed}.sock")
        self._address = address
        self.log = folder / "venue.jsonl"
        self.url = f"unix:{self.socket}" if address is None else f"tcp:{address[0]}:{address[1]}"
        arguments = ("venue", "--listen", self.url, "--log", self.log, "--seed", str(seed), *options)
        self.process = TandemProcess(folder / "venue.out", *arguments)

    def __enter__(self) -> Self:
        wait_until(self._answers, "the venue to answer")
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.socket.unlink(missing_ok=True)

    def _answers(self) -> bool:
        assert self.process.is_alive, f"the venue ended:\n{self.process.said()}"
        with socket.socket(socket.AF_UNIX if self._address is None else socket.AF_INET) as probe:
            return probe.connect_ex(self._address or str(self.socket)) == 0

    @property
    def log_size(self) -> int:
        """Return how many bytes the log has."""
        return self.log.stat().st_size if self.log.exists() else 0
