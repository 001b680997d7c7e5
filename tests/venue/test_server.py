"""The venue as a process of its own: what clients see, and what survives when one is killed."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

import pytest
from venue_tools import place

from host.api import (
    Command,
    Depth,
    OpenOrdersSnapshot,
    OrderAccepted,
    OrderRejected,
    OrderSnapshot,
    OrderStatus,
    QueryOpenOrders,
    QueryOrder,
    RejectReason,
    Report,
    Side,
)
from venue.server import ServerError, serve
from venue.wire import (
    FrameReader,
    Hello,
    Refused,
    Reported,
    Send,
    ServerMessage,
    Subscribe,
    Welcome,
    encode,
    market_event,
)

DEADLINE_S = 20.0
SECOND_NS = 1_000_000_000
REPO = Path(__file__).parents[2]


class Client:
    """A blocking client, so that a test reads from top to bottom."""

    def __init__(self, path: Path, account: str = "a") -> None:
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(DEADLINE_S)
        self.socket.connect(str(path))
        self._frames = FrameReader.for_client()
        self._received: list[ServerMessage] = []
        self.socket.sendall(encode(Hello(account)))

    def receive(self) -> ServerMessage | None:
        """Return the next message, None once the server has closed the connection."""
        while not self._received:
            data = self.socket.recv(65536)
            if not data:
                return None
            self._received += self._frames.feed(data)
        return self._received.pop(0)

    def send(self, command: Command, valid_ns: int = 5 * SECOND_NS) -> None:
        self.socket.sendall(encode(Send(command, time.time_ns(), valid_ns)))

    def report(self) -> Report:
        """Return the next report."""
        while (message := self.receive()) is not None:
            if isinstance(message, Reported):
                return message.report
        raise AssertionError("the server closed the connection")


@contextmanager
def venue_process(path: Path, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    code = "import sys; from pathlib import Path; from venue.server import run; "
    code += "run('unix:' + sys.argv[1], log=Path(sys.argv[2]))"
    process = subprocess.Popen([sys.executable, "-c", code, str(path), str(log)], cwd=REPO)
    try:
        end = time.monotonic() + DEADLINE_S
        while not _accepts(path):
            assert process.poll() is None and time.monotonic() < end, "the venue did not start"
            time.sleep(0.01)
        yield process
    finally:
        process.kill()
        process.wait()


def _accepts(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        return probe.connect_ex(str(path)) == 0


def test_orders_outlive_a_client_killed_in_the_middle_of_a_message(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with venue_process(path, tmp_path / "log"):
        first = Client(path)
        assert isinstance(first.receive(), Welcome)
        first.send(place("x", Side.BUY, "50000", "0.1"))
        assert isinstance(first.report(), OrderAccepted)
        frame = encode(Send(place("y", Side.BUY, "50000", "0.1"), 0, 0))
        first.socket.sendall(frame[: len(frame) // 2])
        first.socket.close()

        second = Client(path)
        second.send(QueryOpenOrders())
        opened = second.report()

        assert isinstance(opened, OpenOrdersSnapshot)
        assert [order.client_id for order in opened.orders] == ["x"]


def test_venue_killed_and_started_again_knows_what_it_accepted(tmp_path: Path) -> None:
    path, log = tmp_path / "s", tmp_path / "log"
    with venue_process(path, log) as process:
        client = Client(path)
        client.send(place("x", Side.BUY, "50000", "0.1"))
        assert isinstance(client.report(), OrderAccepted)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    with venue_process(path, log):
        client = Client(path)
        client.send(QueryOrder("x", "BTC-USDT"))
        order = client.report()

    assert isinstance(order, OrderSnapshot) and order.status is OrderStatus.EXPIRED


def test_subscriber_gets_a_whole_book_and_then_contiguous_changes(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with venue_process(path, tmp_path / "log"):
        client = Client(path)
        client.socket.sendall(encode(Subscribe(("BTC-USDT",))))
        depths: list[Depth] = []
        while len(depths) < 20:
            message = client.receive()
            assert message is not None
            event = market_event(message)
            if isinstance(event, Depth):
                depths.append(event)

    assert depths[0].is_snapshot
    for before, after in pairwise(depths):
        assert after.first_seq == before.seq + 1 and not after.is_snapshot


def test_request_whose_window_has_passed_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with venue_process(path, tmp_path / "log"):
        client = Client(path)
        client.send(place("x", Side.BUY, "50000", "0.1"), valid_ns=-SECOND_NS)
        report = client.report()

    assert isinstance(report, OrderRejected) and report.reason is RejectReason.EXPIRED_REQUEST


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (encode(Hello("a", protocol=99)), "protocol must be 1, was 99"),
        (encode(Hello("")), "a hello names an account"),
        (encode(Subscribe(("X",))), "the first message must be a hello"),
        (encode(Hello("a")) + encode(Subscribe(("X",))), "X does not trade here"),
        (b"nonsense", "a frame has at most"),
    ],
)
def test_client_that_breaks_the_protocol_is_told_why_and_others_go_on(
    tmp_path: Path, data: bytes, text: str
) -> None:
    async def story() -> tuple[list[ServerMessage], ServerMessage]:
        path, started = tmp_path / "s", asyncio.Event()
        async with asyncio.timeout(DEADLINE_S), asyncio.TaskGroup() as tasks:
            server = tasks.create_task(serve(f"unix:{path}", started=started))
            await started.wait()
            good_reader, good_writer = await asyncio.open_unix_connection(path)
            bad_reader, bad_writer = await asyncio.open_unix_connection(path)
            bad_writer.write(data)
            refused = list(FrameReader.for_client().feed(await bad_reader.read()))
            good_writer.write(encode(Hello("b")))
            [welcome] = FrameReader.for_client().feed(await good_reader.read(65536))
            good_writer.close()
            bad_writer.close()
            server.cancel()
        return refused, welcome

    refused, welcome = asyncio.run(story())

    assert isinstance(refused[-1], Refused) and text in refused[-1].text
    assert isinstance(welcome, Welcome)


@pytest.mark.parametrize("listen", ["nowhere", "tcp:host:", "unix:/no/such/folder/s"])
def test_address_that_cannot_be_used_is_named(listen: str) -> None:
    with pytest.raises(ServerError, match=listen):
        asyncio.run(serve(listen))
