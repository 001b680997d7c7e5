"""Peers that mean no good, on real sockets: refused, counted, cut off when it persists; the others trade on.

Each kind is played by a client over IPC, by one over TCP with CURVE, and by a strategy in a worker that reaches into
its process for the socket. Which messages are refused, and why, is in `test_session.py`.
"""

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import zmq
from attached_tools import ClientDesk, client_desk, running, two_ports
from desk_tools import BTC, Quoter
from isolation_tools import QUOTER, WorkerDesk, until, worker_desk

from bench.zmtp import connect, frame, message
from host.config import ClientSection
from host.core.entries import InstanceState
from host.isolation.door import Door
from host.isolation.settings import SECOND_NS
from host.runtime.remote import RemoteStatus

PAUSE = {"backoff_ns": SECOND_NS // 5, "most_backoff_ns": SECOND_NS // 5, "busy_ns": SECOND_NS // 2}
KINDS = ("garbage", "unknown", "foreign", "replayed", "forged")
"""Those that are the same for workers and clients."""
FAR: dict[str, Any] = {"symbol": BTC, "side": "buy", "qty": "1", "price": "50000"}


class Near:
    """An instance inline beside the bad one, whose orders follow every quote at once."""

    def __init__(self, desk: WorkerDesk) -> None:
        self.desk = desk
        self.quotes = 0
        desk.desk.run("near", Quoter())

    def trades(self) -> bool:
        """Show another quote; fail where its orders are not around it in the same turn."""
        self.quotes += 1
        bid = 60_000.0 + self.quotes % 50
        self.desk.desk.top(bid, bid + 0.1)
        self.desk.desk.settle()
        prices = sorted(order.price for order in self.desk.desk.orders("near") if order.price is not None)
        assert prices == [Decimal(str(round(bid - 0.02, 2))), Decimal(str(round(bid + 0.12, 2)))]
        return True

    @property
    def order_id(self) -> str:
        return self.desk.desk.orders("near")[0].client_id

    async def trades_until(self, is_so: Any, what: str) -> None:
        await until(lambda: self.trades() and is_so(), what)


def status(desk: WorkerDesk, name: str = "q") -> RemoteStatus:
    return desk.proxy(name).status()


def section_of(way: str) -> ClientSection:
    if way == "ipc":
        return ClientSection()
    return ClientSection(listen=f"tcp://127.0.0.1:{two_ports()}", curve=True)


# -- clients -------------------------------------------------------------------------------------


class Peer:
    """A program with the token, that says what a test wants, in JSON."""

    def __init__(self, door: Door) -> None:
        self.context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self.token = door.token
        self.events, self.turns = self.context.socket(zmq.SUB), self.context.socket(zmq.PUSH)
        for socket in (self.events, self.turns):
            if door.curve is not None:
                socket.curve_serverkey = door.curve[0]
                socket.curve_publickey, socket.curve_secretkey = zmq.curve_keypair()
        self.events.setsockopt(zmq.SUBSCRIBE, door.token)
        self.events.connect(door.events)
        self.turns.connect(door.turns)
        self.welcome: dict[str, Any] = {}
        self.refused: list[str] = []
        self.turn = 0

    def say(self, *messages: dict[str, Any] | bytes) -> None:
        for one in messages:
            body = one if isinstance(one, bytes) else json.dumps(one).encode()
            with suppress(zmq.Again):  # the door is shut, for longer than a thousand hellos take
                self.turns.send_multipart([self.token, body], zmq.NOBLOCK)

    def hear(self) -> list[str]:
        """Take in what was said; return why it was refused, so far."""
        while self.events.poll(0):
            heard = json.loads(self.events.recv_multipart()[1])
            if heard["type"] == "welcome":
                self.welcome, self.turn = heard, heard["next_turn"] - 1
            elif heard["type"] == "refused":
                self.refused.append(heard["reason"])
        return self.refused

    async def attach(self) -> None:
        def asks() -> dict[str, Any]:
            self.say({"type": "hello", "protocol": 1, "run": "r", "subscribe": []})
            self.hear()
            return self.welcome

        await until(asks, "a welcome")

    def next_turn(self, *requests: dict[str, Any], **fields: Any) -> dict[str, Any]:
        self.turn += 1
        return {"type": "turn", "seq": self.turn, "handled": 0, "requests": requests, **fields}

    def place(self) -> dict[str, Any]:
        ids = self.welcome["ids"]
        return {"type": "place", "client_id": f"{ids['stem']}{ids['first']:x}", "order": FAR}

    def misbehaves(self, kind: str, theirs: str) -> None:
        """Say something of a kind often enough to be cut off for it."""
        cancel = {"type": "cancel", "client_id": theirs}
        stolen = {"type": "place", "client_id": theirs, "order": FAR}
        if kind == "garbage":
            self.say(*[b"{no message"] * 20)
        elif kind == "unknown":
            self.say(*[{"type": "transfer", "to": "me"}] * 20)
        elif kind == "foreign":
            self.say(*(self.next_turn(cancel, stolen) for _ in range(10)))
        elif kind == "replayed":
            again = {
                "type": "turn",
                "seq": self.welcome["next_turn"],
                "handled": 0,
                "requests": [self.place()],
            }
            self.say(*[again] * 700)
        elif kind == "forged":
            self.say(*[self.next_turn(self.place(), seq=self.turn + 1_000)] * 20)

    def close(self) -> None:
        self.context.destroy(linger=0)


@asynccontextmanager
async def peer_at(desk: ClientDesk, name: str = "q") -> AsyncIterator[Peer]:
    peer = Peer(desk.doors[name])
    try:
        await peer.attach()
        yield peer
    finally:
        peer.close()


@pytest.mark.parametrize("way", ["ipc", "curve"])
@pytest.mark.parametrize("kind", KINDS)
def test_client(tmp_path: Path, kind: str, way: str) -> None:
    section = section_of(way)

    async def run() -> None:
        async with client_desk(tmp_path) as desk:
            desk.open_door("q", section=section, **PAUSE)
            near = Near(desk)
            near.trades()
            async with peer_at(desk) as peer:
                before = status(desk)
                peer.misbehaves(kind, near.order_id)

                def is_cut_off() -> list[str]:
                    if (
                        kind == "replayed"
                    ):  # what counts is how many come at once, and a slow machine reads fewer
                        peer.misbehaves(kind, "")
                    return desk.alerts("client_cut_off")

                await near.trades_until(is_cut_off, "it is cut off")
            assert desk.desk.state_of("q") is InstanceState.RUNNING
            assert [order.client_id for order in desk.desk.orders("q")] == []
            now = status(desk)
            if kind == "replayed":
                assert now.repeated - before.repeated >= 20
                placed = [order for order in desk.desk.engine.state.retired.values() if order.instance == "q"]
                assert len(placed) == 1, "once, and pulled when it was cut off"
            else:
                assert now.refused - before.refused == 20
            # After the pause somebody who behaves is let in, and trades.
            async with peer_at(desk) as again:
                again.say(again.next_turn(again.place()))
                await near.trades_until(lambda: len(desk.desk.orders("q")) == 1, "it trades")
            assert status(desk).refused == now.refused

    asyncio.run(run())


@pytest.mark.parametrize("way", ["ipc", "curve"])
def test_another_version_is_turned_away_and_counted(tmp_path: Path, way: str) -> None:
    section = section_of(way)

    async def run() -> None:
        async with client_desk(tmp_path) as desk:
            desk.open_door("q", section=section, **PAUSE)
            near = Near(desk)
            peer = Peer(desk.doors["q"])

            def asks() -> list[str]:
                peer.say({"type": "hello", "protocol": 2, "run": "r"})
                return peer.hear()

            await near.trades_until(asks, "an answer")
            assert peer.refused[0] == "PROTOCOL"
            assert status(desk).refused > 0
            peer.close()
            async with peer_at(desk):
                assert desk.alerts("client_attached")

    asyncio.run(run())


@contextmanager
def raw_flood(path: str, kind: bytes, block: bytes) -> Iterator[list[int]]:
    """Write a block over and over past ZeroMQ, from a thread; gives how many bytes went out, one entry a write."""
    link = connect(path, kind)
    link.settimeout(None)
    sent: list[int] = []

    def write() -> None:
        try:
            while True:
                at = sent[-1] if sent else 0
                sent.append(at + link.send(memoryview(block)[at % len(block) :][: 1 << 16]))
        except OSError:
            return

    thread = threading.Thread(target=write, daemon=True)
    thread.start()
    try:
        yield sent
    finally:
        link.close()
        thread.join(0)


def flood_of(kind: str, peer: Peer) -> tuple[str, bytes]:
    """Return a socket's kind and many messages: in order and valid, without sense, without the token, wishes."""
    token = peer.token
    if kind == "valid":
        pull = {"type": "quote", "symbol": BTC, "quotes": []}
        turns = (json.dumps(peer.next_turn(pull)).encode() for _ in range(20_000))
        return "turns", b"".join(message(token, turn) for turn in turns)
    if kind == "garbage":
        return "turns", message(token, b"{no message") * 20_000
    if kind == "strangers":
        return "turns", message(b"x" * 32, b"{no message") * 20_000
    return "events", frame(b"\x01what nobody has") * 100_000


@pytest.mark.parametrize("kind", ["valid", "garbage", "strangers", "wishes"])
def test_flood(tmp_path: Path, kind: str) -> None:
    async def run() -> None:
        async with client_desk(tmp_path) as desk:
            limits = dict(PAUSE)
            if kind == "valid":  # how many come at once is no matter then, and on a slow machine few do
                limits.update(messages_at_once=10**9, busy_ns=SECOND_NS // 50)
            desk.open_door("q", **limits)
            near = Near(desk)
            async with peer_at(desk) as peer:
                socket, block = flood_of(kind, peer)
                role = b"PUSH" if socket == "turns" else b"SUB"
                with raw_flood(f"{tmp_path}/clients/q.{socket}.sock", role, block) as sent:
                    await near.trades_until(lambda: desk.alerts("client_cut_off"), "it is cut off")
                    assert sent[-1] < 20 << 20, "most of it was never taken"
            why = desk.alerts("client_cut_off")[0]
            now = status(desk)
            if kind == "valid":
                assert "more than a fifth of the host's time" in why
                assert now.refused == 0
            elif kind == "garbage":
                assert "broke the protocol" in why
                assert now.refused == 20
            else:
                assert "without its token" in why
                assert now.strangers > 500
            async with peer_at(desk):
                near.trades()

    asyncio.run(run())


def test_a_turn_with_more_requests_than_there_are_ids_is_refused_whole(tmp_path: Path) -> None:
    async def run() -> None:
        async with client_desk(tmp_path) as desk:
            desk.open_door("q", **PAUSE)
            async with peer_at(desk) as peer:
                log = {"type": "log", "level": "info", "text": ""}
                peer.say(peer.next_turn(peer.place(), *[log] * 4096))
                await until(lambda: status(desk).refused == 1, "it is refused")
                assert desk.open() == []

    asyncio.run(run())


@pytest.mark.parametrize(
    "last", [{"type": "bye"}, {"type": "failed", "where": "on_book", "error": "KeyError"}]
)
def test_a_last_word_without_a_hello_ends_nothing(tmp_path: Path, last: dict[str, str]) -> None:
    async def run() -> None:
        async with client_desk(tmp_path) as desk:
            desk.open_door("q", **PAUSE)
            stranger, lsn = Peer(desk.doors["q"]), desk.desk.engine.state.lsn

            def is_cut_off() -> list[str]:
                stranger.say(*[last] * 500)
                return desk.alerts("client_cut_off")

            await until(is_cut_off, "it is cut off for so many")
            assert desk.desk.state_of("q") is InstanceState.RUNNING
            assert desk.alerts("client_gone") == []
            assert desk.desk.engine.state.lsn < lsn + 10
            stranger.close()

    asyncio.run(run())


def test_one_that_is_cut_off_while_it_is_to_stop_leaves_no_door_open(tmp_path: Path) -> None:
    async def run() -> None:
        async with client_desk(tmp_path) as desk:
            instance = desk.open_door("q", **{**PAUSE, "stop_ns": 10**15})
            async with peer_at(desk) as peer:
                desk.desk.engine.roster.stop(instance, "enough")
                peer.misbehaves("garbage", "")
                await until(lambda: desk.alerts("client_cut_off"), "it is cut off")
                assert desk.attached["q"].is_over

    asyncio.run(run())


# -- workers -------------------------------------------------------------------------------------

MISCHIEF = (
    QUOTER.replace("        p = self.params\n", "        misbehave()\n        p = self.params\n")
    + '''

def misbehave():
    """Once, as the file says: reach for the socket, and say what the host never asked for."""
    import gc
    from pathlib import Path

    import msgspec

    order = Path("ORDER")
    try:
        kind, theirs = order.read_text().split()
        order.unlink()
    except FileNotFoundError:
        return
    seat = next(one for one in gc.get_objects() if type(one).__name__ == "_Seat")
    stage, say = seat.stage, lambda message: seat.send(msgspec.msgpack.encode(message))
    far = {"symbol": "BTC-USDT", "side": "buy", "qty": "1", "price": "50000"}
    first = stage._turn + 1

    def turn(seq, *requests):
        return {"type": "turn", "seq": seq, "handled": 0, "requests": requests}

    place = {"type": "place", "client_id": stage._ctx._make_id(), "order": far}
    if kind == "garbage":
        for _ in range(20):
            seat.send(b"no message")
    elif kind == "unknown":
        for _ in range(20):
            say({"type": "transfer", "to": "me"})
    elif kind == "foreign":
        stolen = {"type": "place", "client_id": theirs, "order": far}
        for number in range(10):
            say({**turn(first + number, {"type": "cancel", "client_id": theirs}, stolen), "handled": stage._handled})
    elif kind == "replayed":
        while not seat.is_given_up:
            say({**turn(first, place), "handled": stage._handled})
    elif kind == "forged":
        for _ in range(20):
            say(turn(first + 1000, place))
    elif kind == "version":
        say({"type": "hello", "protocol": 2, "run": "another"})
    elif kind == "flood":
        while not seat.is_given_up:
            say(turn(0))
    elif kind == "strangers":
        for _ in range(2000):
            seat._turns.send_multipart([b"x" * 32, b"what the host never asked for"])
    import time

    time.sleep(3600)
'''
)


def test_worker(tmp_path: Path) -> None:
    """One after another, on one desk: a worker that is cut off is soon back, and behaves."""
    order = tmp_path / "order"

    async def run() -> None:
        async with worker_desk(tmp_path) as desk:
            source = MISCHIEF.replace("ORDER", str(order))
            limits = {**PAUSE, "crashes": 100, "deadline_ns": 60 * SECOND_NS}
            desk.add("q", source, **limits)
            near = Near(desk)
            near.trades()
            for number, kind in enumerate((*KINDS, "version", "flood", "strangers")):
                await desk.started()
                before = status(desk)
                writing = tmp_path / "writing"
                writing.write_text(f"{kind} {near.order_id}")
                writing.rename(order)
                lost = number + 1
                await near.trades_until(lambda lost=lost: len(desk.alerts("worker_lost")) == lost, kind)
                why, now = desk.alerts("worker_lost")[-1], status(desk)
                assert ("began anew" if kind == "version" else "it was cut off: ") in why, (kind, why)
                assert desk.desk.state_of("q") is InstanceState.RUNNING
                assert desk.desk.orders("q") == [], kind
                if kind in ("replayed", "flood"):
                    assert now.repeated - before.repeated >= 20, kind
                elif kind == "strangers":
                    # They are counted from tenth to tenth of a second, of which the flood may touch two.
                    assert 500 < now.strangers - before.strangers <= 1001
                elif kind != "version":
                    assert now.refused - before.refused == 20, kind
            pid = await desk.started()
            await near.trades_until(lambda: len(desk.desk.orders("q")) == 2, "it is back, and quotes")
            assert status(desk).pid == pid

    asyncio.run(run())


def test_a_neighbour_s_client_trades_on(tmp_path: Path) -> None:
    async def run() -> None:
        async with client_desk(tmp_path) as desk:
            desk.open_door("q", **PAUSE)
            desk.open_door("good")
            program = running(desk.client("good"), desk.cls["good"])
            await desk.attached_to("good")
            async with peer_at(desk) as peer:
                peer.misbehaves("garbage", "")
                await until(lambda: desk.alerts("client_cut_off"), "it is cut off")
            await desk.top_and_quotes(name="good")
            good = status(desk, "good")
            assert (good.state, good.refused, good.strangers) == ("running", 0, 0)
            await program.stop()

    asyncio.run(run())
