"""Links that can be cut: what passes, what waits, what is told."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from host.pair.relay import LinkState, Relay, Streams

DEADLINE_S = 20.0


class Echo:
    """A server that sends back what it gets, and counts it."""

    def __init__(self) -> None:
        self.port = 0
        self.heard = b""
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    def close(self) -> None:
        if self._server is not None:
            self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(1024):
            self.heard += data
            writer.write(data)
        writer.close()


@asynccontextmanager
async def relayed() -> AsyncIterator[tuple[Relay, Echo]]:
    """A relay to an echo, both gone at the end."""
    echo = Echo()
    await echo.start()
    relay = Relay(lambda: asyncio.open_connection("127.0.0.1", echo.port))
    await relay.start()
    try:
        async with asyncio.timeout(DEADLINE_S):
            yield relay, echo
    finally:
        await relay.close()
        echo.close()


async def dial(relay: Relay) -> Streams:
    return await asyncio.open_connection("127.0.0.1", relay.port)


async def asked(streams: Streams, data: bytes) -> bytes:
    reader, writer = streams
    writer.write(data)
    return await reader.readexactly(len(data))


def test_an_open_link_passes_bytes_both_ways() -> None:
    async def story() -> None:
        async with relayed() as (relay, _):
            assert await asked(await dial(relay), b"hello") == b"hello"

    asyncio.run(story())


def test_a_cut_link_keeps_what_is_sent_until_it_is_healed() -> None:
    async def story() -> None:
        async with relayed() as (relay, echo):
            streams = await dial(relay)
            await asked(streams, b"before")
            relay.put(LinkState.CUT)
            streams[1].write(b"late")
            late = asyncio.create_task(streams[0].readexactly(4))
            # What goes another way meanwhile arrives: time has passed, and the cut link has passed nothing.
            for _ in range(50):
                await asked(await asyncio.open_connection("127.0.0.1", echo.port), b".")
            assert not late.done()
            assert b"late" not in echo.heard
            relay.put(LinkState.OPEN)
            assert await late == b"late"

    asyncio.run(story())


def test_a_connection_made_over_a_cut_link_is_served_when_it_is_healed() -> None:
    async def story() -> None:
        async with relayed() as (relay, echo):
            relay.put(LinkState.CUT)
            answer = asyncio.create_task(asked(await dial(relay), b"new"))
            await asked(await asyncio.open_connection("127.0.0.1", echo.port), b".")
            assert echo.heard == b"."
            relay.put(LinkState.OPEN)
            assert await answer == b"new"

    asyncio.run(story())


def test_a_refused_link_resets_what_is_open_and_what_is_new() -> None:
    async def story() -> None:
        async with relayed() as (relay, _):
            streams = await dial(relay)
            await asked(streams, b"before")
            relay.put(LinkState.REFUSED)
            for each in (streams, await dial(relay)):
                with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError)):
                    await each[0].readexactly(1)
            relay.put(LinkState.OPEN)
            assert await asked(await dial(relay), b"again") == b"again"

    asyncio.run(story())


def test_the_end_of_one_side_is_the_end_of_the_other() -> None:
    async def story() -> None:
        async with relayed() as (relay, _):
            reader, writer = await dial(relay)
            await asked((reader, writer), b"x")
            writer.write_eof()
            with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError)):
                await reader.readexactly(1)

    asyncio.run(story())


def test_a_server_that_is_not_there_is_told_at_once() -> None:
    async def story() -> None:
        echo = Echo()
        await echo.start()
        port = echo.port
        echo.close()
        relay = Relay(lambda: asyncio.open_connection("127.0.0.1", port))
        await relay.start()
        try:
            async with asyncio.timeout(DEADLINE_S):
                with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError)):
                    await (await dial(relay))[0].readexactly(1)
        finally:
            await relay.close()

    asyncio.run(story())
