"""The stand-alone client of `bench/isolation.py`, a process of its own: arguments DATA_DIR NAME."""

import sys
import time
from pathlib import Path

from bench.plugins.answering import Answering
from host.client.trading import TradingClient
from host.client.trading_errors import NoHost

__all__ = ["main"]


def main() -> None:
    """Run the strategy until the bench ends this process, or the node does."""
    folder, name = Path(sys.argv[1]), sys.argv[2]
    ends_s = time.monotonic() + 30
    while True:
        try:
            TradingClient.of(folder, name, name="bench").run(Answering, stay=False)
            return
        except NoHost:
            if time.monotonic() > ends_s:
                raise
            time.sleep(0.05)
