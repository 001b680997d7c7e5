"""A TCP relay in front of a server that can be made slow, silent or absent, and well again."""

import asyncio
import threading
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

__all__ = ["Relay", "running_relay"]

T = TypeVar("T")
_CHUNK = 1 << 16
Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Relay:
    """Passes bytes between `host:port` and a server, on a loop and a thread of its own.

    Every method has taken effect when it returns.
    """

    def __init__(self, dial: Callable[[], Awaitable[Streams]], host: str) -> None:
        self.host = host
        self.port = 0
        self.ended = 0
        """Connections that one side ended, and so both."""
        self._dial = dial
        self._delay_s = 0.0
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="relay", daemon=True)
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._may_pass = asyncio.Event()

    def open(self) -> None:
        """Begin to listen, on the port that it had before if it had one, and pass everything at once."""
        self._do(self._open())

    def slow_down(self, delay_s: float) -> None:
        """Hold back each piece of data for so long, in both directions."""
        self._delay_s = delay_s

    def silence(self) -> None:
        """Pass nothing on, and keep connections and what comes: a server that hangs."""
        self._do(self._set(False))

    def resume(self) -> None:
        """Pass on what was held back, and everything from here on."""
        self._delay_s = 0.0
        self._do(self._set(True))

    def close(self) -> None:
        """Break every connection and refuse new ones: a server that is down."""
        self._do(self._close())

    def start(self) -> None:
        """Start the thread, and open."""
        self._thread.start()
        self.open()

    def end(self) -> None:
        """Close for good."""
        self.close()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _do(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(10)

    async def _set(self, may_pass: bool) -> None:
        if may_pass:
            self._may_pass.set()
        else:
            self._may_pass.clear()

    async def _open(self) -> None:
        self._may_pass.set()
        self._server = await asyncio.start_server(self._on_connection, self.host, self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _close(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _on_connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = self._loop.create_task(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
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
            if self._delay_s:
                await asyncio.sleep(self._delay_s)
            await self._may_pass.wait()
            writer.write(data)
            await writer.drain()
        raise ConnectionResetError("one side has closed")


@contextmanager
def running_relay(dial: Callable[[], Awaitable[Streams]], host: str = "127.0.0.1") -> Iterator[Relay]:
    """Give a relay to what `dial` connects to, open, until the block ends."""
    relay = Relay(dial, host)
    relay.start()
    try:
        yield relay
    finally:
        relay.end()
