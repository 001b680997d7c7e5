"""One machine of a cell: what runs on it is started, killed, frozen, asked, and read afterwards."""

import os
import signal
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import grpc

from tandem.v1 import failover_pb2
from tandem.v1 import node_pb2 as pb
from tandem.v1 import node_pb2_grpc as pb_grpc
from tests.faults.fault_tools import TandemProcess, wait_until

__all__ = ["CALL_S", "Machine"]

CALL_S = 30.0
"""For what an operator orders."""
_STATUS_S = 5.0
T = TypeVar("T")


class Machine:
    """What one node of a cell runs on: its configuration, its data, and the processes of its life.

    The process that is started is the guardian, and the node is its child.
    """

    def __init__(self, name: str, config: Path, control: Path, replicate: str, inside: Sequence[str]) -> None:
        self.name = name
        self.replicate = replicate
        """Where its peers dial it for its journal."""
        self.config = config
        self.output = config.with_suffix(".out")
        self.data = config.with_suffix("")
        self.control = control
        self.environment: dict[str, str] = {"TANDEM__CONTROL__LISTEN": f'["unix:{control}"]'}
        self._inside = list(inside)
        self._process: TandemProcess | None = None

    @property
    def journal(self) -> Path:
        """Return the folder of its journal."""
        return self.data / "journal"

    @property
    def process(self) -> TandemProcess:
        """Return the guardian of its present or last life."""
        assert self._process is not None, f"{self.name} was never started"
        return self._process

    @property
    def is_running(self) -> bool:
        """Return whether its guardian runs."""
        return self._process is not None and self._process.is_alive

    def rewrite(self, old: str, new: str) -> None:
        """Change a part of its configuration, which must be there once."""
        text = self.config.read_text()
        assert text.count(old) == 1, f"{old!r} should be there once:\n{text}"
        self.config.write_text(text.replace(old, new))

    def move_data(self, folder: Path) -> None:
        """Keep its data elsewhere."""
        self.rewrite(f'data_dir = "{self.data}"', f'data_dir = "{folder}"')
        self.data = folder

    def start(self) -> None:
        """Start the guardian, and it the node."""
        arguments = ("run", "-c", self.config, "--no-ui")
        self._process = TandemProcess(
            self.output, *arguments, inside=self._inside, environment=self.environment
        )

    def node_pid(self) -> int:
        """Return the process that trades; 0 between two lives of it."""
        pid = self.process.pid
        try:
            children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        except FileNotFoundError:
            return 0
        return int(children[0]) if children else 0

    def call(self, ask: Callable[[pb_grpc.NodeServiceStub], T]) -> T:
        """Ask its node something over its control API; raises `grpc.RpcError`."""
        # A channel for each call: one that lasts would wait longer and longer for a node that restarts.
        with grpc.insecure_channel(f"unix:{self.control}") as channel:
            return ask(pb_grpc.NodeServiceStub(channel))

    def failover(self) -> failover_pb2.Failover | None:
        """Return what its node says of its cell; None while it does not answer."""
        try:
            return self.call(
                lambda stub: stub.GetFailover(pb.GetFailoverRequest(), timeout=_STATUS_S).failover
            )
        except grpc.RpcError:
            return None

    def kill_node(self) -> int:
        """Kill the node in the middle of whatever it does, and leave its guardian; return its pid."""
        wait_until(lambda: self.node_pid() != 0, f"the node of {self.name} to run")
        pid = self.node_pid()
        os.kill(pid, signal.SIGKILL)
        return pid

    def lose(self) -> None:
        """Kill the guardian and the node at once, as if the machine were gone."""
        self.process.signal_group(signal.SIGKILL)

    def freeze(self) -> None:
        """Stop everything on it, as a hypervisor that pauses a machine does; sockets stay open."""
        self.process.signal_group(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let everything on it go on, as if no time had passed."""
        self.process.signal_group(signal.SIGCONT)

    def stop(self) -> None:
        """Ask it to stop in order and hold it to that."""
        code = self.process.stop()
        assert code == 0, f"{self.name} ended with {code}; it said:\n{self.said()[-4000:]}"

    def end(self) -> None:
        """Leave nothing of it running, whatever became of it."""
        if self.is_running:
            self.process.signal_group(signal.SIGKILL)

    def said(self) -> str:
        """Return what its processes have said in all their lives."""
        return self.output.read_text() if self.output.exists() else ""
