"""The futures' dead man's switch: a symbol's orders are cancelled unless the countdown is set again."""

import asyncio
from typing import Any

from host.api import CancelOrder
from venue.protocols.binance.errors import missing
from venue.protocols.binance.product import Call, Endpoint, Security
from venue.protocols.binance.symbols import Listing
from venue.protocols.front import NO_DEADLINE_NS, Desk
from venue.protocols.requests import Kind

__all__ = ["Countdown"]


class Countdown:
    """One countdown per wallet and symbol."""

    def __init__(self, desk: Desk, listing: Listing) -> None:
        self._desk = desk
        self._listing = listing
        self._switches: dict[tuple[str, str], asyncio.Task[None]] = {}

    def endpoints(self) -> tuple[Endpoint, ...]:
        """Return what can be asked for."""
        path = ("POST /fapi/v1/countdownCancelAll",)
        return (Endpoint("countdown", Kind.SETTING, Security.SIGNED, self._set, 10, path),)

    def close(self) -> None:
        """Stop every countdown."""
        for task in self._switches.values():
            task.cancel()

    async def _set(self, call: Call) -> Any:
        instrument = self._listing.instrument(call.params)
        after_ms = call.params.integer("countdownTime")
        if after_ms is None:
            raise missing("countdownTime")
        key = (call.wallet, instrument.symbol)
        armed = self._switches.pop(key, None)
        if armed is not None:
            armed.cancel()
        if after_ms:
            self._switches[key] = asyncio.create_task(self._run_out(*key, after_ms / 1e3))
        return {"symbol": self._listing.name_of(instrument.symbol), "countdownTime": str(after_ms)}

    async def _run_out(self, wallet: str, symbol: str, after_s: float) -> None:
        await self._desk.clock.sleep(after_s)
        for record in self._desk.exchange.records(wallet).open():
            if record.order.symbol == symbol:
                command = CancelOrder(record.order.client_id, symbol)
                self._desk.running.submit(wallet, command, NO_DEADLINE_NS)
        self._desk.running.step()
