"""A program for tests: holds a lease with the real elector until it is told to stop.

    python -m tests.failover.holder LEASE_URL CELL NAME TTL_MS [--with-child]

Prints `lead EPOCH PID`, `child PID`, `hup` and `released` as they happen.
"""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Callable

from failover.clock import boottime_ns
from failover.elector import Elector, ElectorSettings
from failover.guardian import SESSION_VARIABLE
from failover.lease import open_store
from failover.runner import ElectorRunner
from failover.signals import Action, Drain, Lead


async def hold(url: str, cell: str, name: str, ttl_ms: int) -> None:
    """Lead, and leave in order at SIGTERM."""
    settings = ElectorSettings(cell, name, os.environ[SESSION_VARIABLE], ttl_ms)
    loop = asyncio.get_running_loop()

    def carry_out(action: Action) -> None:
        match action:
            case Lead():
                print(f"lead {action.epoch} {os.getpid()}", flush=True)
            case Drain():
                loop.call_soon(lambda: runner.tell(runner.elector.on_drained))
            case _:
                pass

    store = open_store(url)
    runner = ElectorRunner(Elector(settings, boottime_ns()), store, carry_out)
    stop: Callable[[], None] = lambda: runner.tell(runner.elector.stop)  # noqa: E731
    loop.add_signal_handler(signal.SIGTERM, stop)
    loop.add_signal_handler(signal.SIGHUP, lambda: print("hup", flush=True))
    try:
        await runner.run()
    finally:
        await store.close()
    print("released", flush=True)


def main() -> None:
    """Read the arguments."""
    url, cell, name, ttl_ms = sys.argv[1:5]
    if "--with-child" in sys.argv:
        child = subprocess.Popen([sys.executable, "-c", "import signal; signal.pause()"])
        print(f"child {child.pid}", flush=True)
    asyncio.run(hold(url, cell, name, int(ttl_ms)))


if __name__ == "__main__":
    main()
