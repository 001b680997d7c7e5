"""The sockets of one worker, with strangers at them."""

import asyncio
import select
import socket
import threading
import time
from pathlib import Path

import pytest
import zmq
from attached_tools import two_ports
from isolation_tools import until

from bench.zmtp import connect, frame, message
from host.isolation import channel as channel_module
from host.isolation.channel import (
    MOST_CONNECTIONS,
    MOST_MESSAGE_BYTES,
    MOST_STRANGERS,
    WISHES_AT_ONCE,
    Channel,
)

KEY = b"the key"


class Ends:
    """A channel, and sockets at its other end."""

    def __init__(self, folder: Path, port: int = 0, curve: tuple[bytes, bytes] | None = None) -> None:
        self.context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self.heard: list[bytes] = []
        self.sockets: list[zmq.Socket[bytes]] = []
        self.events, self.turns = f"{folder}/e.sock", f"{folder}/t.sock"
        events, turns = f"ipc://{self.events}", f"ipc://{self.turns}"
        if port:
            events, turns = f"tcp://127.0.0.1:{port}", f"tcp://127.0.0.1:{port + 1}"
        self.curve = curve
        self.channel = Channel(self.context, events, turns, KEY, curve=curve)
        self.channel.open(self.heard.append)
        self.links: list[socket.socket] = []

    def listener(self, topic: bytes) -> "zmq.Socket[bytes]":
        socket = self.context.socket(zmq.SUB)
        socket.connect(self.channel.events_address)
        socket.setsockopt(zmq.SUBSCRIBE, topic)
        return socket

    def speaker(self) -> "zmq.Socket[bytes]":
        socket = self.context.socket(zmq.PUSH)
        socket.linger = 0
        if self.curve is not None:
            socket.curve_serverkey = self.curve[0]
            socket.curve_publickey, socket.curve_secretkey = zmq.curve_keypair()
        socket.connect(self.channel.turns_address)
        self.sockets.append(socket)
        return socket

    def link(self, path: str, kind: bytes = b"PUSH") -> socket.socket:
        """A connection past ZeroMQ, which would keep to the rules."""
        link = connect(path, kind)
        self.links.append(link)
        return link

    def descriptor_is_ready(self) -> bool:
        return bool(select.select([self.channel._turns.FD], [], [], 10.0)[0])

    async def fault(self) -> str:
        found: list[str] = []
        await until(lambda: found.append(self.channel.fault(time.monotonic_ns())) or found[-1], "a fault")  # type: ignore[func-returns-value]
        return found[-1]

    def __enter__(self) -> "Ends":
        return self

    def __exit__(self, *_: object) -> None:
        self.channel.close()
        for link in self.links:
            link.close()
        self.context.destroy(linger=0)


def test_only_the_key_opens_it_either_way(tmp_path: Path) -> None:
    async def run() -> None:
        with Ends(tmp_path) as ends:
            stranger, eavesdropper, friend = ends.listener(b""), ends.listener(b"the"), ends.listener(KEY)
            await until(ends.channel.is_subscribed, "the friend listens")
            await until(
                lambda: ends.channel.is_subscribed() and ends.channel.tally.strangers == 2, "the others ask"
            )
            ends.channel.send(b"a secret")
            assert await asyncio.to_thread(friend.recv_multipart) == [KEY, b"a secret"]
            assert not stranger.poll(50)
            assert not eavesdropper.poll(50)
            speaker = ends.speaker()
            for frames in ([b"x", b"no"], [b"no"], [KEY], [KEY, b"too", b"many"], [b"", KEY], [KEY, b"yes"]):
                speaker.send_multipart(frames)
            await until(lambda: ends.heard, "the one that has the key")
            assert ends.heard == [b"yes"]
            assert ends.channel.tally.strangers == 2 + 5

    asyncio.run(run())


def test_a_message_without_end_is_not_taken(tmp_path: Path) -> None:
    async def run() -> None:
        with Ends(tmp_path) as ends:
            for body in (b"x" * (5 << 20), b"small"):
                ends.speaker().send_multipart([KEY, body])
            await until(lambda: ends.heard, "the small one")
            assert ends.heard == [b"small"]

    asyncio.run(run())


def test_a_flood_leaves_the_loop_its_turns(tmp_path: Path) -> None:
    async def run() -> None:
        with Ends(tmp_path) as ends:
            speaker = ends.speaker()
            speaker.sndhwm = 0
            for _ in range(20_000):
                speaker.send_multipart([KEY, b"again"])
            turns_between = 0
            while len(ends.heard) < 20_000:
                await asyncio.sleep(0)
                turns_between += 1
            # No machine reads all of them in less than 20 times 50 µs.
            assert turns_between > 20

    asyncio.run(run())


def test_what_was_bound_is_gone_afterwards(tmp_path: Path) -> None:
    async def run() -> None:
        with Ends(tmp_path) as ends:
            assert len(list(tmp_path.iterdir())) == 2
            ends.channel.close()
            assert list(tmp_path.iterdir()) == []

    asyncio.run(run())


# -- past ZeroMQ ---------------------------------------------------------------------------------


def written(link: socket.socket, data: bytes) -> threading.Thread:
    """Write in a thread, which ends when all is with the host, or the connection ends."""

    def write() -> None:
        link.settimeout(None)
        try:
            link.sendall(data)
        except OSError:
            return

    thread = threading.Thread(target=write, daemon=True)
    thread.start()
    return thread


def is_ended(link: socket.socket) -> bool:
    link.settimeout(0.001)
    try:
        return link.recv(1) == b""
    except TimeoutError:
        return False
    except OSError:
        return True


@pytest.mark.parametrize("wish", [b"\x01somebody else's", b"\x07no wish at all", b"\x01" + KEY])
def test_of_subscriptions_without_end_only_some_are_taken_in(tmp_path: Path, wish: bytes) -> None:
    async def run() -> None:
        with Ends(tmp_path) as ends:
            writing = written(ends.link(ends.events, b"SUB"), frame(wish) * 200_000)
            assert "were made within" in await ends.fault() or ends.channel.tally.strangers > MOST_STRANGERS
            # Those of two tenths of a second, and of the last look.
            assert ends.channel.tally.strangers <= 2 * MOST_STRANGERS + WISHES_AT_ONCE
            for _ in range(100):
                ends.channel.send(b"a quote")  # by which ZeroMQ looks at what has come, too
                await asyncio.sleep(0.001)
            assert writing.is_alive(), "the rest waits with the sender"
            ends.channel.close()
            writing.join()

    asyncio.run(run())


def test_a_message_of_a_hundred_thousand_parts_leaves_the_loop_its_turns(tmp_path: Path) -> None:
    async def run() -> None:
        with Ends(tmp_path) as ends:
            parts = frame(KEY, has_more=True) + frame(b"", has_more=True) * 100_000 + frame(b"the end")
            written(ends.link(ends.turns), parts + message(KEY, b"yes"))
            turns_between = 0
            while not ends.heard:
                await asyncio.sleep(0)
                turns_between += 1
            assert ends.heard == [b"yes"]
            assert ends.channel.tally.strangers == 1
            # No machine reads all of them in less than 20 times 50 µs.
            assert turns_between > 20

    asyncio.run(run())


def test_of_messages_without_the_key_no_more_are_read_than_it_takes_to_shut(tmp_path: Path) -> None:
    async def run() -> None:
        with Ends(tmp_path) as ends:
            writing = written(ends.link(ends.turns), message(b"x" * 32, b"no") * 100_000)
            await until(lambda: ends.channel.tally.strangers > MOST_STRANGERS, "they are read")
            for _ in range(100):
                await asyncio.sleep(0)
            assert ends.channel.tally.strangers == MOST_STRANGERS + 1
            assert f"more than {MOST_STRANGERS} messages without its token" in await ends.fault()
            assert writing.is_alive(), "the rest waits with the sender"
            ends.channel.close()
            writing.join()

    asyncio.run(run())


def test_connections_are_counted_and_too_many_are_a_fault(tmp_path: Path) -> None:
    async def run() -> None:
        with Ends(tmp_path) as ends:
            links = [ends.link(ends.turns) for _ in range(20)]
            channel = ends.channel
            await until(lambda: channel.fault(time.monotonic_ns()) or channel.connections == 20, "they count")
            for link in links:
                link.close()
            await until(lambda: channel.fault(time.monotonic_ns()) or channel.connections == 0, "they went")
            for _ in range(MOST_CONNECTIONS + 1):
                silent = socket.socket(socket.AF_UNIX)
                silent.connect(ends.turns)
                ends.links.append(silent)
            assert f"more than {MOST_CONNECTIONS} connections" in await ends.fault()

    asyncio.run(run())


def test_half_a_handshake_and_a_length_without_end_have_their_connection_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(channel_module, "HANDSHAKE_MS", 50)

    async def run() -> None:
        with Ends(tmp_path) as ends:
            silent = socket.socket(socket.AF_UNIX)
            silent.connect(ends.turns)
            silent.sendall(b"\xff" + bytes(8))
            ends.links.append(silent)
            huge, large = ends.link(ends.turns), ends.link(ends.turns)
            huge.sendall(b"\x02" + (1 << 62).to_bytes(8, "big"))
            large.sendall(b"\x02" + (MOST_MESSAGE_BYTES + 1).to_bytes(8, "big"))
            await until(lambda: is_ended(huge) and is_ended(large), "they announced too much")
            # It is sent the host's half first.
            silent.settimeout(0.001)
            await until(lambda: is_ended(silent), "it had its time")
            ends.speaker().send_multipart([KEY, b"yes"])
            await until(lambda: ends.heard == [b"yes"], "others are heard")

    asyncio.run(run())


@pytest.mark.parametrize("kind", [b"PUSH", b"SUB"])
def test_a_message_without_end_over_tcp_is_a_fault_before_it_fills_the_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: bytes
) -> None:
    monkeypatch.setattr(channel_module, "MOST_UNREAD_BYTES", 4 << 20)

    async def run() -> None:
        port = two_ports()
        with Ends(tmp_path, port) as ends:
            link = connect(("127.0.0.1", port + (kind == b"PUSH")), kind)
            ends.links.append(link)
            part = frame(bytes(500), has_more=True)
            writing = written(link, part * ((64 << 20) // len(part)))
            assert "more than 4 MiB came that are no whole messages" in await ends.fault()
            ends.channel.close()
            writing.join()

    asyncio.run(run())


@pytest.mark.parametrize("is_curve", [False, True])
def test_what_is_read_is_no_fault_however_much_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, is_curve: bool
) -> None:
    monkeypatch.setattr(channel_module, "MOST_UNREAD_BYTES", 8 << 10)

    async def run() -> None:
        with Ends(tmp_path, two_ports(), zmq.curve_keypair() if is_curve else None) as ends:
            speaker = ends.speaker()
            for number in range(1, 101):
                for _ in range(20):
                    speaker.send_multipart([KEY, b"x"])
                await until(lambda number=number: len(ends.heard) == 20 * number, "they are read")  # type: ignore[misc]
                assert ends.channel.fault(time.monotonic_ns()) == ""

    asyncio.run(run())


def test_in_a_pause_nothing_is_read_and_nothing_is_lost(tmp_path: Path) -> None:
    async def run() -> None:
        with Ends(tmp_path) as ends:
            speaker = ends.speaker()
            speaker.send_multipart([KEY, b"1"])
            await until(lambda: ends.heard, "the first")
            ends.channel.pause(500_000_000)
            for number in range(2, 300):
                speaker.send_multipart([KEY, b"%d" % number])
            assert ends.descriptor_is_ready(), "something is there to be read"
            for _ in range(10):
                await asyncio.sleep(0)
            assert ends.heard == [b"1"]
            await until(lambda: len(ends.heard) == 299, "the others")
            assert ends.heard == [b"%d" % number for number in range(1, 300)]

    asyncio.run(run())
