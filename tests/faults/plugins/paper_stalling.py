"""A venue connection that can be frozen at the worst moment: when an order has passed the gate and not left yet.

It is a drop-in plugin of the nodes under test, found by `node.plugin_dirs`.
"""

import os
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from host.api import AmendOrder, Command, ExchangeAdapter, PlaceOrder, hookimpl
from plugins.exchanges.paper import PaperRemote, PaperRemoteParams


class PaperStallingParams(PaperRemoteParams, frozen=True):
    """Beside what a venue connection needs: which file's existence asks for a stall."""

    stall: str = ""


class PaperStalling(PaperRemote):
    """Stops its whole process with the next order in hand once the file is there; SIGCONT sends the order."""

    params: PaperStallingParams
    params_type = PaperStallingParams

    def send(self, command: Command, deadline_ns: int) -> None:
        """Send one command, after a stop if one is asked for."""
        stall = Path(self.params.stall)
        if isinstance(command, PlaceOrder | AmendOrder) and stall.exists():
            stall.rename(stall.with_suffix(".done"))
            os.kill(os.getpid(), signal.SIGSTOP)
        super().send(command, deadline_ns)


@hookimpl
def provide_exchanges() -> Mapping[str, type[ExchangeAdapter[Any]]]:
    """Offer it under a name of its own."""
    return {"paper_stalling": PaperStalling}
