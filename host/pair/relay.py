"""A TCP relay that a link of a node goes through, so that the link can be cut without a privilege."""

import asyncio
from collections.abc import Awaitable, Callable
from enum import Enum
from typing import Final

__all__ = ["LinkState", "Relay", "Streams"]

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]
_CHUNK: Final = 1 << 16


class LinkState(Enum):
    """What a link does with what is sent over it."""

    OPEN = "open"
    CUT = "cut"
    """Nothing arrives and nobody is told, as with a pulled cable. What was sent arrives when it is mended."""
    REFUSED = "refused"
    """Connections are reset, and so is each new one, as by a host whose server is gone."""


class Relay:
    """Passes bytes between 127.0.0.1:`port` and what `dial` connects to."""

    def __init__(self, dial: Callable[[], Awaitable[Streams]]) -> None:
        self.port = 0
        self.state = LinkState.OPEN
        self.ended = 0
        """Connections that one side ended, and so both, or that nobody took at the other end."""
        self._dial: Final = dial
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._may_pass: Final = asyncio.Event()

    async def start(self) -> None:
        """Listen on a free port."""
        self._may_pass.set()
        self._server = await asyncio.start_server(self._on_connection, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    def put(self, state: LinkState) -> None:
        """Make the link so, at once."""
        self.state = state
        if state is LinkState.CUT:
            self._may_pass.clear()
            return
        if state is LinkState.REFUSED:
            for task in self._tasks:
                task.cancel()
        self._may_pass.set()

    async def close(self) -> None:
        """Break every connection and listen no more."""
        if self._server is not None:
            self._server.close()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _on_connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.state is LinkState.REFUSED:
            writer.transport.abort()
            return
        task = asyncio.get_running_loop().create_task(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await self._may_pass.wait()
            there_reader, there_writer = await self._dial()
            try:
                async with asyncio.TaskGroup() as both:
                    both.create_task(self._pass(reader, there_writer))
                    both.create_task(self._pass(there_reader, writer))
            finally:
                there_writer.transport.abort()
        except* OSError:
            self.ended += 1
        finally:
            writer.transport.abort()

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(_CHUNK):
            await self._may_pass.wait()
            writer.write(data)
            await writer.drain()
        raise ConnectionResetError("one side has closed")
