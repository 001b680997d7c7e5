"""The processes that a pair runs: started on a leash, signalled by pid, ended whatever happens."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

__all__ = ["Child"]

LOOK_S: Final = 0.02


class Child:
    """One `tandem` command in a process group of its own; a guardian's node is in the group too.

    `output` is where everything goes that it says, of all its lives.
    """

    def __init__(self, name: str, arguments: Sequence[str], output: Path) -> None:
        self.name: Final = name
        self.output: Final = output
        self._arguments = list(arguments)
        # Variables overlay a configuration, and this one is the pair's.
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("TANDEM_")}
        self._environment = inherited | {"PYTHONUNBUFFERED": "1"}
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it; the one before must have ended."""
        command = [sys.executable, "-P", "-c", "import sys; from host.cli import main; sys.exit(main())"]
        leash = [sys.executable, "-P", "-m", "host.pair.leash", str(os.getpid()), "--"]
        with self.output.open("ab") as file:
            self._process = subprocess.Popen(
                [*leash, *command, *self._arguments],
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                env=self._environment,
                # A Ctrl-C in the terminal is for the pair alone, which then stops each in turn.
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        """Return the process that was started, a node's guardian; 0 before the first start."""
        return 0 if self._process is None else self._process.pid

    @property
    def is_alive(self) -> bool:
        """Return whether it runs, or is frozen."""
        return self._process is not None and self._process.poll() is None

    @property
    def exit_code(self) -> int | None:
        """Return what it ended with; None while it runs."""
        return None if self._process is None else self._process.poll()

    def inner_pid(self) -> int:
        """Return its child, the node under the guardian; 0 between two lives of it."""
        pid = self.pid
        try:
            children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        except OSError:
            return 0
        return int(children[0]) if children else 0

    def signal_group(self, number: signal.Signals) -> None:
        """Send a signal to it and to everything that it has started, at once."""
        if self.is_alive:
            os.killpg(self.pid, number)

    def kill(self) -> None:
        """End it and everything that it has started with SIGKILL, frozen or not; returns when it is reaped."""
        if self._process is not None:
            self.signal_group(signal.SIGKILL)
            self._process.wait()

    async def stop(self, within_s: float) -> bool:
        """Ask it to end in order; return whether it did so within the time. It is gone in any case."""
        if self._process is None or not self.is_alive:
            return True
        self._process.send_signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(within_s):
                while self.is_alive:
                    await asyncio.sleep(LOOK_S)
        except TimeoutError:
            self.kill()
            return False
        return True

    def said(self, most_bytes: int = 4_000) -> str:
        """Return the end of its output."""
        if not self.output.exists():
            return ""
        with self.output.open("rb") as file:
            file.seek(max(0, self.output.stat().st_size - most_bytes))
            return file.read().decode(errors="replace")
