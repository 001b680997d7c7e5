"""A channel against a real WebSocket server: kept up, watched, renewed without a break."""

import asyncio
import socket
import struct
from typing import Any

import pytest
from aiohttp import web
from exchange_tools import ScriptedVenue, eventually, scripted_venue, story

from host.api import ExchangeError
from plugins.exchanges._shared.backoff import Backoff
from plugins.exchanges._shared.channel import Channel, Heartbeat
from plugins.exchanges._shared.websocket import NotConnected, WebSocket, open_websocket

QUIET = Heartbeat(ping_after_s=60.0, lost_after_s=120.0)


class Kept:
    """A channel to a scripted venue, and what it told."""

    def __init__(self, venue: ScriptedVenue, heartbeat: Heartbeat = QUIET, **settings: Any) -> None:
        self.told: list[str] = []
        self.heard: list[bytes] = []
        self.opened = 0
        self.failure: Exception | None = None
        self.channel = Channel(
            "test",
            url=lambda: self._url(venue),
            on_message=lambda message: self.on_message(bytes(message)),
            on_open=self._on_open,
            on_up=lambda text: self.told.append(f"up: {text}"),
            on_down=lambda text: self.told.append(f"down: {text}"),
            heartbeat=heartbeat,
            backoff=Backoff(0.001, 0.01),
            **settings,
        )

    async def _url(self, venue: ScriptedVenue) -> str:
        return venue.ws_url

    async def _on_open(self, websocket: WebSocket) -> None:
        self.opened += 1
        if self.failure is not None:
            raise self.failure
        websocket.send(b"hello")

    def on_message(self, message: bytes) -> None:
        self.heard.append(message)


@story
async def test_a_channel_opens_sends_and_hears() -> None:
    async with scripted_venue() as venue:
        venue.on_message = _echo
        kept = Kept(venue)
        await kept.channel.open()
        kept.channel.send(b"1")
        await eventually(lambda: kept.heard == [b"hello", b"1"])
        assert kept.told == ["up: connected"]
        kept.channel.close()


@story
async def test_a_lost_connection_is_told_once_and_dialled_again() -> None:
    async with scripted_venue() as venue:
        kept = Kept(venue)
        await kept.channel.open()
        running = asyncio.create_task(kept.channel.run())
        await eventually(lambda: venue.messages == ["hello"])
        venue.refuses = True
        await venue.live[0].close(code=1001, message=b"maintenance")
        await eventually(lambda: len(kept.told) == 2)
        assert "1001" in kept.told[1] and "maintenance" in kept.told[1]
        with pytest.raises(NotConnected, match="nothing was sent"):
            kept.channel.send(b"lost")
        venue.refuses = False
        await eventually(lambda: len(kept.told) == 3)
        assert kept.told[2] == "up: connected again"
        assert kept.opened == 2
        await eventually(lambda: venue.messages == ["hello", "hello"])
        kept.channel.close()
        await running


@story
async def test_a_first_connection_that_cannot_be_made_says_where_to() -> None:
    async with scripted_venue() as venue:
        venue.refuses = True
        kept = Kept(venue)
        with pytest.raises(NotConnected, match=f"cannot connect to ws://127.0.0.1:{venue.port}/ws"):
            await kept.channel.open()
        assert kept.told == []


@story
async def test_silence_is_answered_by_a_ping_and_a_pong_keeps_the_connection() -> None:
    async with scripted_venue() as venue:
        kept = Kept(venue, Heartbeat(ping_after_s=0.02, lost_after_s=30.0))
        await kept.channel.open()
        running = asyncio.create_task(kept.channel.run())
        await eventually(lambda: venue.live)
        assert kept.channel._socket is not None
        websocket = kept.channel._socket
        websocket.heard = False
        await eventually(lambda: websocket.heard)
        kept.channel.close()
        await running
        assert kept.told == ["up: connected"]


@story
async def test_a_connection_that_answers_no_ping_is_given_up() -> None:
    async with scripted_venue() as venue:
        venue.answers_pings = False
        kept = Kept(venue, Heartbeat(ping_after_s=0.01, lost_after_s=0.05))
        await kept.channel.open()
        running = asyncio.create_task(kept.channel.run())
        await eventually(lambda: len(kept.told) >= 3)
        assert "nothing was heard" in kept.told[1]
        assert kept.told[2] == "up: connected again"
        kept.channel.close()
        await running


@story
async def test_a_regular_heartbeat_is_sent_whatever_arrives() -> None:
    async with scripted_venue() as venue:
        venue.on_message = _echo
        kept = Kept(venue, Heartbeat(ping_after_s=0.01, lost_after_s=30.0, text=b"ping", is_regular=True))
        await kept.channel.open()
        running = asyncio.create_task(kept.channel.run())
        await eventually(lambda: venue.messages.count("ping") >= 3)
        kept.channel.close()
        await running


@story
async def test_a_renewal_connects_first_and_tells_nobody() -> None:
    async with scripted_venue() as venue:
        kept = Kept(venue, overlap_s=0.01)
        await kept.channel.open()
        running = asyncio.create_task(kept.channel.run())
        await eventually(lambda: len(venue.live) == 1)
        kept.channel.renew()
        await eventually(lambda: kept.channel.renewals == 1)
        kept.channel.send(b"on the new one")
        await eventually(lambda: len(venue.sockets) == 2 and len(venue.live) == 1)
        assert venue.live[0] is venue.sockets[1]
        await eventually(lambda: venue.messages[-1] == "on the new one")
        assert kept.told == ["up: connected"]
        kept.channel.close()
        await running


@story
async def test_a_renewal_that_fails_leaves_the_old_connection_in_use() -> None:
    async with scripted_venue() as venue:
        venue.on_message = _echo
        kept = Kept(venue)
        await kept.channel.open()
        running = asyncio.create_task(kept.channel.run())
        await eventually(lambda: venue.live)
        kept.failure = NotConnected("not now")
        kept.channel.renew()
        await eventually(lambda: kept.opened >= 3)  # it tries again
        kept.channel.send(b"still")
        await eventually(lambda: b"still" in kept.heard)
        kept.failure = None
        await eventually(lambda: kept.channel.renewals == 1)
        assert kept.told == ["up: connected"]
        kept.channel.close()
        await running


@story
async def test_a_refusal_at_opening_ends_the_run() -> None:
    async with scripted_venue() as venue:
        kept = Kept(venue)
        await kept.channel.open()
        kept.failure = ExchangeError("wrong key")
        running = asyncio.create_task(kept.channel.run())
        kept.channel.drop("a test")
        with pytest.raises(ExchangeError, match="wrong key"):
            await running
        assert kept.told == ["up: connected", "down: a test"]


@story
async def test_an_error_of_our_own_on_a_message_is_raised_by_run() -> None:
    async with scripted_venue() as venue:
        kept = Kept(venue)

        def broken(message: bytes) -> None:
            raise ZeroDivisionError("ours")

        kept.on_message = broken  # type: ignore[method-assign]
        await kept.channel.open()
        running = asyncio.create_task(kept.channel.run())
        await eventually(lambda: venue.live)
        await venue.live[0].send_str("x")
        with pytest.raises(ZeroDivisionError, match="ours"):
            await running


@story
async def test_a_message_in_parts_arrives_whole() -> None:
    async with scripted_venue() as venue:
        kept = Kept(venue)
        await kept.channel.open()
        await eventually(lambda: venue.live)
        transport = venue.live[0]._req.transport  # type: ignore[union-attr]
        assert transport is not None
        # Text without FIN, continuation, continuation with FIN; a ping may come in between.
        transport.write(b"\x01\x02ab" + b"\x89\x00" + b"\x00\x02cd" + b"\x80\x02ef")
        await eventually(lambda: kept.heard == [b"abcdef"])
        kept.channel.close()


@story
async def test_an_order_socket_drops_unsent_bytes_on_death_and_keeps_them_at_an_orderly_end() -> None:
    async with scripted_venue() as venue:
        heard: list[str] = []
        websocket = await open_websocket(
            "orders", venue.ws_url, lambda m: None, heard.append, drops_unsent=True
        )
        sock = websocket._transport.underlying_transport.get_extra_info("socket")
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        assert _linger(sock) == (1, 0)
        websocket.send(b"last words")
        websocket.close()
        assert _linger(sock)[0] == 0
        await eventually(lambda: venue.messages == ["last words"])
        with pytest.raises(NotConnected):
            websocket.send(b"after the end")


def _linger(sock: socket.socket) -> tuple[int, int]:
    raw = sock.getsockopt(socket.SOL_SOCKET, socket.SO_LINGER, 8)
    on, seconds = struct.unpack("ii", raw)
    return on, seconds


async def _echo(websocket: web.WebSocketResponse, text: str) -> None:
    await websocket.send_str(text)
