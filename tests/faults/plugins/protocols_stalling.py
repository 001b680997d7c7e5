"""Venue connections that can be frozen at the worst moment: an order is signed, and its bytes have not left yet.

They are drop-in plugins of the nodes under test, found by `node.plugin_dirs`: the bundled adapters as they
are, with a socket that stops the whole process first when it is asked to.
"""

import os
import signal
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from host.api import Command, ExchangeAdapter, PlaceOrder, hookimpl
from plugins.exchanges._shared import websocket
from plugins.exchanges.binance.adapter import BinanceSpot
from plugins.exchanges.binance.params import BinanceParams
from plugins.exchanges.bybit.adapter import Bybit
from plugins.exchanges.bybit.params import BybitParams
from plugins.exchanges.okx.adapter import Okx
from plugins.exchanges.okx.params import OkxParams


class _Hand:
    """Which order is on its way to the socket in this call, and which file asks to stop there."""

    stall: Path | None = None
    client_id = ""


class _StallingSocket(websocket.WebSocket):
    """Stops its whole process with an order's bytes in hand; SIGCONT sends them."""

    __slots__ = ()

    def send(self, payload: bytes) -> None:
        """Send one message, after a stop if one is asked for; the file is left with the order's id."""
        stall, _Hand.stall = _Hand.stall, None
        if stall is not None:
            stall.write_text(_Hand.client_id)
            stall.rename(stall.with_suffix(".done"))
            os.kill(os.getpid(), signal.SIGSTOP)
        super().send(payload)


# The adapters below make their sockets of this; the bundled ones are loaded apart from them.
vars(websocket)["WebSocket"] = _StallingSocket


@contextmanager
def _in_hand(command: Command, path: str) -> Iterator[None]:
    """Have the socket stop on a new order if the file is there, in this call alone."""
    stall = Path(path)
    if isinstance(command, PlaceOrder) and stall.exists():
        _Hand.stall, _Hand.client_id = stall, command.client_id
    try:
        yield
    finally:
        _Hand.stall = None


class BinanceStallingParams(BinanceParams, frozen=True):
    """Beside what the adapter needs: which file's existence asks for a stall."""

    stall: str = ""


class BinanceStalling(BinanceSpot):
    """Binance spot."""

    params: BinanceStallingParams
    params_type = BinanceStallingParams

    def send(self, command: Command, deadline_ns: int) -> None:
        """Send one command, after a stop if one is asked for."""
        with _in_hand(command, self.params.stall):
            super().send(command, deadline_ns)


class OkxStallingParams(OkxParams, frozen=True):
    """Beside what the adapter needs: which file's existence asks for a stall."""

    stall: str = ""


class OkxStalling(Okx):
    """OKX."""

    params: OkxStallingParams
    params_type = OkxStallingParams

    def send(self, command: Command, deadline_ns: int) -> None:
        """Send one command, after a stop if one is asked for."""
        with _in_hand(command, self.params.stall):
            super().send(command, deadline_ns)


class BybitStallingParams(BybitParams, frozen=True):
    """Beside what the adapter needs: which file's existence asks for a stall."""

    stall: str = ""


class BybitStalling(Bybit):
    """Bybit."""

    params: BybitStallingParams
    params_type = BybitStallingParams

    def send(self, command: Command, deadline_ns: int) -> None:
        """Send one command, after a stop if one is asked for."""
        with _in_hand(command, self.params.stall):
            super().send(command, deadline_ns)


@hookimpl
def provide_exchanges() -> Mapping[str, type[ExchangeAdapter[Any]]]:
    """Offer them under names of their own."""
    return {
        "binance_stalling": BinanceStalling,
        "okx_stalling": OkxStalling,
        "bybit_stalling": BybitStalling,
    }
