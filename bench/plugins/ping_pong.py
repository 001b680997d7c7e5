"""Answers each message of one WebSocket with the same bytes: what any reaction over a wire costs at least."""

import asyncio

from picows import WSFrame, WSListener, WSMsgType, WSTransport, ws_connect

from host.api import Params, Strategy


class PingPongParams(Params, frozen=True):
    """Parameters of `PingPong`."""

    url: str = ""
    """Where to connect to; the first message from there is what to answer every later one with."""


class PingPong(Strategy[PingPongParams]):
    """Trades nothing: stands beside a strategy that does, in the same process, to be compared with."""

    def on_start(self) -> None:
        """Connect."""
        self._task = asyncio.get_running_loop().create_task(self._connect())

    def on_stop(self) -> None:
        """Hang up."""
        self._task.cancel()

    async def _connect(self) -> None:
        transport, _ = await ws_connect(_Answering, self.params.url)
        try:
            await transport.wait_disconnected()
        finally:
            transport.disconnect()


class _Answering(WSListener):
    def __init__(self) -> None:
        self._answer = b""

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        if self._answer:
            transport.send(WSMsgType.TEXT, self._answer)
        else:
            self._answer = frame.get_payload_as_bytes()
