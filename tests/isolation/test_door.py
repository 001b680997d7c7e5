"""A client's door with somebody at it who means no good: refused, counted, shut out; the others trade on."""

import asyncio
import json
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import zmq
from attached_tools import client_desk, running
from isolation_tools import until

from host.api import Secret
from host.config import ClientSection
from host.config.private_files import NotPrivate
from host.core.entries import InstanceState
from host.isolation.door import Door, DoorProblem, door_of

FLOOD = """
import sys, zmq
address, kind, token = sys.argv[1], sys.argv[2], sys.stdin.buffer.readline().strip()
context = zmq.Context()
socket = context.socket(zmq.PUSH)
socket.connect(address)
number = 0
while True:
    number += 1
    if kind == "turns":
        body = b'{"type":"turn","seq":%d,"handled":0}' % number
    elif kind == "hellos":
        body = b'{"type":"hello","protocol":1,"run":"%d"}' % number
    else:
        body = b"{no message"
    socket.send_multipart([b"x" * 32 if kind == "strangers" else token, body])
"""


@contextmanager
def flood(door: Door, kind: str) -> Iterator[None]:
    """Have another process send as fast as it can."""
    command = [sys.executable, "-c", FLOOD, door.turns, kind]
    with subprocess.Popen(command, stdin=subprocess.PIPE) as process:
        assert process.stdin is not None
        process.stdin.write(door.token)
        process.stdin.close()
        try:
            yield
        finally:
            process.kill()


class Peer:
    """Somebody with the token, who says what a test wants, in JSON."""

    def __init__(self, door: Door) -> None:
        self.context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self.door = door
        self.events = self.context.socket(zmq.SUB)
        self.turns = self.context.socket(zmq.PUSH)
        self.events.connect(door.events)
        self.events.setsockopt(zmq.SUBSCRIBE, door.token)
        self.turns.connect(door.turns)
        self.heard: list[dict[str, Any]] = []

    def say(self, message: dict[str, Any] | bytes) -> None:
        body = message if isinstance(message, bytes) else json.dumps(message).encode()
        self.turns.send_multipart([self.door.token, body])

    def listen(self) -> list[dict[str, Any]]:
        while self.events.poll(0):
            self.heard.append(json.loads(self.events.recv_multipart()[1]))
        return self.heard

    async def attach(self, run: str = "r") -> dict[str, Any]:
        def welcomes() -> list[dict[str, Any]]:
            self.say({"type": "hello", "protocol": 1, "run": run})
            return [message for message in self.listen() if message.get("run") == run]

        await until(welcomes, "an answer")
        return welcomes()[-1]

    def close(self) -> None:
        self.context.destroy(linger=0)


@pytest.mark.parametrize("kind", ["garbage", "turns", "hellos", "strangers"])
def test_a_flood_is_shut_out_and_a_neighbour_trades_on(tmp_path: Path, kind: str) -> None:
    async def run() -> None:
        async with client_desk(tmp_path) as desk:
            desk.open_door("flooded", messages_at_once=200, backoff_ns=10**18, most_backoff_ns=10**18)
            desk.open_door("q")
            neighbour = running(desk.client("q"), desk.cls["q"])
            await desk.attached_to("q")
            with flood(desk.doors["flooded"], kind):
                await until(lambda: desk.alerts("client_cut_off"), "it is cut off")
                for price in (60_000.0, 60_010.0, 60_020.0):
                    await desk.top_and_quotes(price, price + 0.1)
            assert desk.desk.state_of("flooded") is InstanceState.RUNNING
            assert len(desk.alerts("client_cut_off")) == 1
            await neighbour.stop()

    asyncio.run(run())


def test_one_that_floods_whenever_it_is_let_in_is_put_in_quarantine(tmp_path: Path) -> None:
    async def run() -> None:
        async with client_desk(tmp_path) as desk:
            desk.open_door(crashes=3, backoff_ns=1_000_000)
            with flood(desk.doors["q"], "garbage"):
                await desk.reach(InstanceState.QUARANTINED)
            assert len(desk.alerts("client_cut_off")) == 3
            assert "broke the protocol" in desk.alerts("quarantined")[0]
            assert not list((tmp_path / "clients").glob("*.sock"))

    asyncio.run(run())


def test_strangers_cannot_put_an_instance_in_quarantine(tmp_path: Path) -> None:
    async def run() -> None:
        async with client_desk(tmp_path) as desk:
            desk.open_door(crashes=1, messages_at_once=200, most_backoff_ns=1_000_000)
            with flood(desk.doors["q"], "strangers"):
                await until(lambda: len(desk.alerts("client_cut_off")) >= 2, "it is shut twice")
            assert desk.desk.state_of("q") is InstanceState.RUNNING
            program = running(desk.client(), desk.cls["q"])
            await desk.attached_to()
            await program.stop()

    asyncio.run(run())


def test_one_that_comes_and_goes_without_end_is_cut_off(tmp_path: Path) -> None:
    async def run() -> None:
        async with client_desk(tmp_path) as desk:
            desk.open_door(backoff_ns=10**18)
            peer = Peer(desk.doors["q"])
            for number in count():
                if desk.alerts("client_cut_off"):
                    break
                await peer.attach(str(number))
                peer.say({"type": "bye"})
                gone = number + 1
                await until(
                    lambda gone=gone: (  # type: ignore[misc]
                        len(desk.alerts("client_gone")) >= gone or desk.alerts("client_cut_off")
                    ),
                    "it is gone",
                )
            assert "it began 50 times within a minute" in desk.alerts("client_cut_off")[0]
            peer.close()

    asyncio.run(run())


def test_turns_of_an_earlier_session_are_nobody_s(tmp_path: Path) -> None:
    async def run() -> None:
        async with client_desk(tmp_path) as desk:
            desk.open_door()
            desk.desk.top()
            peer = Peer(desk.doors["q"])
            first = await peer.attach("first")
            order = {"symbol": "BTC-USDT", "side": "buy", "qty": "1", "price": "50000"}
            quote = {"bid": 50_000, "bid_qty": "1", "ask": None, "ask_qty": "1"}
            ids = first["ids"]
            late = {
                "type": "turn",
                "seq": first["next_turn"],
                "handled": 0,
                "requests": [
                    {"type": "place", "client_id": f"{ids['stem']}{ids['first']:x}", "order": order},
                    {"type": "quote", "symbol": "BTC-USDT", "quotes": [quote]},
                ],
            }
            peer.say({"type": "bye"})
            await until(lambda: desk.alerts("client_gone"), "it is gone")
            second = await peer.attach("second")
            peer.say(late)  # it was stopped before it could send this, say
            session = desk.session()
            await until(lambda: session.conduct.tally.repeated == 1, "it is counted")
            assert desk.open() == []
            assert second["next_turn"] > first["next_turn"]
            assert session.conduct.refused == 0
            peer.close()

    asyncio.run(run())


def test_a_rival_gets_the_place_once_the_first_gives_no_sign_of_life(tmp_path: Path) -> None:
    async def run() -> None:
        async with client_desk(tmp_path) as desk:
            desk.open_door(deadline_ns=300_000_000)
            silent, rival = Peer(desk.doors["q"]), Peer(desk.doors["q"])
            await silent.attach("silent")
            answer = await rival.attach("rival")
            assert answer["type"] == "welcome"
            assert "handled nothing" in desk.alerts("client_gone")[0]
            silent.close()
            rival.close()

    asyncio.run(run())


# -- what a door needs ---------------------------------------------------------------------------


def door(folder: Path, secret: str = "", **section: Any) -> Door:
    return door_of(folder / "clients", "q", ClientSection(**section), lambda _reference: Secret(secret))


def test_the_token_is_made_once_and_is_the_owner_s_alone(tmp_path: Path) -> None:
    first = door(tmp_path)
    file = tmp_path / "clients" / "q.token"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert door(tmp_path) == first
    file.unlink()
    assert door(tmp_path).token != first.token
    file.chmod(0o644)
    with pytest.raises(NotPrivate, match="chmod 600"):
        door(tmp_path)


def test_a_token_can_be_named_and_must_be_one(tmp_path: Path) -> None:
    assert door(tmp_path, "a" * 32 + "\n", token="secret:q").token == b"a" * 32
    with pytest.raises(DoorProblem, match="16 to 255 printable ASCII characters, has 5 bytes"):
        door(tmp_path, "short", token="secret:q")


def test_a_path_that_no_socket_may_have_is_refused_with_the_way_out(tmp_path: Path) -> None:
    with pytest.raises(DoorProblem, match="shorter data_dir or client = "):
        door(tmp_path / ("x" * 100))
    assert door(tmp_path / ("x" * 100), listen="tcp://127.0.0.1:7710").turns == "tcp://127.0.0.1:7711"


def test_keys_are_made_once_and_a_damaged_one_is_refused(tmp_path: Path) -> None:
    first = door(tmp_path, curve=True)
    assert door(tmp_path, curve=True).curve == first.curve
    (tmp_path / "clients" / "q.curve.key").write_text("no key")
    with pytest.raises(DoorProblem, match="holds no CURVE key"):
        door(tmp_path, curve=True)
