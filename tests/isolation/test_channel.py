"""The sockets of one worker, with strangers at them."""

import asyncio
from pathlib import Path

import zmq
from isolation_tools import until

from host.isolation.channel import Channel

KEY = b"the key"


class Ends:
    """A channel, and sockets at its other end."""

    def __init__(self, folder: Path) -> None:
        self.context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self.heard: list[bytes] = []
        self.sockets: list[zmq.Socket[bytes]] = []
        self.channel = Channel(self.context, f"ipc://{folder}/e.sock", f"ipc://{folder}/t.sock", KEY)
        self.channel.open(self.heard.append)

    def listener(self, topic: bytes) -> "zmq.Socket[bytes]":
        socket = self.context.socket(zmq.SUB)
        socket.connect(self.channel.events_address)
        socket.setsockopt(zmq.SUBSCRIBE, topic)
        return socket

    def speaker(self) -> "zmq.Socket[bytes]":
        socket = self.context.socket(zmq.PUSH)
        socket.linger = 0
        socket.connect(self.channel.turns_address)
        self.sockets.append(socket)
        return socket

    def __enter__(self) -> "Ends":
        return self

    def __exit__(self, *_: object) -> None:
        self.channel.close()
        self.context.destroy(linger=0)


def test_only_the_key_opens_it_either_way(tmp_path: Path) -> None:
    async def run() -> None:
        with Ends(tmp_path) as ends:
            stranger, eavesdropper, friend = ends.listener(b""), ends.listener(b"the"), ends.listener(KEY)
            await until(ends.channel.is_subscribed, "the friend listens")
            await until(
                lambda: ends.channel.is_subscribed() and ends.channel.strangers == 2, "the others ask"
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
            assert ends.channel.strangers == 2 + 5

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
