"""`tandem venue` as a process: one exchange, and every protocol that it is to speak.

The house protocol (`venue.house`) and the real venues' (`venue.protocols`) share the exchange, the
clock and the event loop.
"""

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path

import uvloop

from venue.house import HouseServer, ServerError
from venue.opening import open_venue, opening_balances
from venue.protocols.server import ProtocolServer
from venue.protocols.settings import Settings

__all__ = ["ServerError", "run", "serve"]

_log = logging.getLogger(__name__)


async def serve(
    listen: str,
    *,
    seed: int = 1,
    log: Path | None = None,
    replay: Path | None = None,
    speed: float = 1.0,
    protocols: Settings | None = None,
    started: asyncio.Event | None = None,
    on_start: Callable[[ProtocolServer], None] | None = None,
) -> None:
    """Serve the synthetic market, or a recording from its start, until cancelled.

    `listen` is where the house protocol is spoken; `protocols` says which others are, and where.
    With `log`, accounts come back from it after a restart. `started` is set, and `on_start` called,
    once connections are accepted. Raises `ServerError`, `LedgerError` and `RecordingError`.
    """
    venue = open_venue(seed=seed, log=log, replay=replay, speed=speed)
    exchange = venue.running.exchange
    house = HouseServer(venue.running, opening_balances(exchange.instruments))
    others = ProtocolServer(venue, protocols or Settings(), seed=seed)
    try:
        await house.start(listen)
        await others.start()
        if on_start is not None:
            on_start(others)
        if started is not None:
            started.set()
        await venue.running.run()
    finally:
        house.close()
        await others.close()
        venue.close()


def run(
    listen: str,
    *,
    seed: int = 1,
    log: Path | None = None,
    replay: Path | None = None,
    speed: float = 1.0,
    protocols: Settings | None = None,
    on_start: Callable[[ProtocolServer], None] | None = None,
) -> None:
    """Run `serve` until Ctrl-C; the command line's entry."""
    try:
        uvloop.run(
            serve(
                listen, seed=seed, log=log, replay=replay, speed=speed, protocols=protocols, on_start=on_start
            )
        )
    except KeyboardInterrupt:
        _log.info("venue stopped")
