"""Replication: from a flushed intent to the standby's acknowledgement, and how fast a standby catches up.

Primary and standby are two processes over loopback. `ack` is the time from the append of an intent on the
primary until it knows that the standby has written it, at 2,000 intents a second; `pingpong` is a bare
grpc.aio bidirectional stream between the same two processes that carries the same bytes back and forth on
the same schedule, waiting for nothing either. Both in turn, A B A B. Catching up is from an empty
journal, with the state folded.
"""

import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parents[1])  # not this folder: its failover.py is no package

import argparse
import asyncio
import contextlib
import json
import shutil
import subprocess
import tempfile
import time
from collections import deque
from collections.abc import Iterator
from decimal import Decimal
from typing import Any, Final

import grpc
import uvloop
from rich.console import Console
from rich.table import Table

from failover.replication import Replica, ReplicationClient, ReplicationServer, history_of
from host.api import OrderAccepted, OrderAmended, OrderType, Side, TimeInForce
from host.core import entries as e
from host.journal import FrameReader, Journal
from tandem.v1 import replication_pb2 as pb

PER_SECOND: Final = 2_000
GAP_S: Final = 1 / PER_SECOND
WARM_UP: Final = 200
ECHO: Final = "/bench.v1.EchoService/Echo"
REPO: Final = Path(__file__).parents[1]
TS: Final = 1_723_107_600_000_000_000


QTY: Final = Decimal("0.010")
BUY, SELL = "tdm1a0000000001", "tdm1a0000000002"


def first_entries() -> list[e.Entry]:
    """Return the start of an epoch, and two orders that rest."""
    found: list[e.Entry] = [e.NodeStarted("a", "main", 1, "bench")]
    for client_id, side in ((BUY, Side.BUY), (SELL, Side.SELL)):
        placed = e.PlaceSent(
            client_id,
            "mm",
            "acc",
            "BTC-USDT",
            side,
            OrderType.LIMIT,
            TimeInForce.GTC,
            price(0),
            QTY,
            True,
            False,
            0,
        )
        found += [placed, e.Reported("acc", OrderAccepted(client_id, client_id, TS))]
    return found


def price(number: int) -> Decimal:
    """Return a price that wanders."""
    return Decimal("61800.2") + number % 50


def requote(number: int) -> list[e.Entry]:
    """Return what a market maker writes most: what became of the last amends, then both orders moved."""
    before, now = price(number), price(number + 1)
    return [
        e.Reported("acc", OrderAmended(BUY, before, QTY, TS)),
        e.Reported("acc", OrderAmended(SELL, before, QTY, TS)),
        e.AmendSent((e.Change(BUY, now, QTY), e.Change(SELL, now, QTY))),
    ]


# -- the standby's process ----------------------------------------------------------------------------


async def stand_by(folder: Path, address: str, echo: str) -> None:
    """Follow `address`, and echo what comes from `echo`, until standard input ends."""
    replica = Replica.open(folder, node="b", cell="main")
    client = ReplicationClient(replica, [address], "bench", lambda _event: None)
    client.start()
    async with grpc.aio.insecure_channel(echo) as channel:
        call: Any = channel.stream_stream(ECHO)()
        pongs = asyncio.create_task(_pong(call))
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
        pongs.cancel()
        await asyncio.gather(pongs, return_exceptions=True)
    await client.stop()
    replica.close()


async def _pong(call: Any) -> None:
    ack = pb.ReplicateRequest(ack=pb.EntryAck(lsn=1_000_000, applied_lsn=1_000_000)).SerializeToString()
    await call.write(b"here")
    while await call.read() is not grpc.aio.EOF:
        await call.write(ack)


@contextlib.contextmanager
def standby_process(folder: Path, address: str, echo: str) -> Iterator[None]:
    """Run a standby in a process of its own."""
    command = [sys.executable, "-m", "bench.replication", "--standby", str(folder), address, echo]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, cwd=REPO)
    try:
        yield
    finally:
        assert process.stdin is not None
        process.stdin.close()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


# -- the primary's process ----------------------------------------------------------------------------


class Primary:
    """A journal, its replication server, and the bare stream beside it."""

    def __init__(self, folder: Path) -> None:
        self.journal = Journal.open(folder, node="a")
        if self.journal.last_lsn == 0:
            self.write(first_entries())
        self.server = ReplicationServer("a", "main", lambda _event: None)
        self.echo = grpc.aio.server()
        self.ping: Any = None
        self.is_ready = asyncio.Event()
        self.is_over = asyncio.Event()
        self.address = self.echo_address = ""

    def write(self, entries: list[e.Entry]) -> None:
        """Append and flush, as a turn does."""
        for entry in entries:
            self.journal.append(entry, TS + self.journal.last_lsn)
        self.journal.flush()

    async def start(self) -> None:
        """Serve both."""
        self.server.lead(self.journal, history_of(self.journal), 1)
        self.address = f"127.0.0.1:{await self.server.start('127.0.0.1:0')}"
        handler: Any = grpc.stream_stream_rpc_method_handler(self._hold)
        self.echo.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler(ECHO.split("/")[1], {"Echo": handler}),)
        )
        self.echo_address = f"127.0.0.1:{self.echo.add_insecure_port('127.0.0.1:0')}"
        await self.echo.start()

    async def close(self) -> None:
        """Stop both."""
        self.is_over.set()
        await self.echo.stop(0.1)
        await self.server.close()
        self.journal.close()

    async def _hold(self, _requests: Any, context: Any) -> None:
        self.ping = context
        await context.read()
        self.is_ready.set()
        await self.is_over.wait()

    async def caught_up(self) -> None:
        """Wait until the standby holds everything."""
        while not (views := self.server.standbys()) or views[0].acked_lsn < self.journal.flushed_lsn:
            await asyncio.sleep(0.005)

    async def intents(self, count: int) -> list[int]:
        """Write `count` intents at the pace; return the nanoseconds until each was acknowledged."""
        sent: dict[int, int] = {}
        found: list[int] = []
        done = asyncio.Event()
        last = self.journal.last_lsn + 3 * count
        heard = self.journal.last_lsn
        plain = self.server._acked

        def acked(node: str, lsn: int) -> None:
            nonlocal heard
            now = time.perf_counter_ns()
            plain(node, lsn)
            while heard < lsn:
                heard += 1
                if heard in sent:
                    found.append(now - sent.pop(heard))
            if lsn >= last:
                done.set()

        for session in self.server._sessions.values():
            session._on_ack = acked  # type: ignore[misc] # the moment of the acknowledgement itself
        loop = asyncio.get_running_loop()
        due = loop.time()
        for number in range(count):
            due += GAP_S
            await asyncio.sleep(max(due - loop.time(), 0))
            entries = requote(number)
            sent[self.journal.last_lsn + len(entries)] = time.perf_counter_ns()
            self.write(entries)
        await done.wait()
        return found

    async def pings(self, count: int, message: bytes) -> list[int]:
        """Send `message` at the pace; return the nanoseconds until each was answered."""
        sent: deque[int] = deque()
        found: list[int] = []

        async def hear() -> None:
            for _ in range(count):
                await self.ping.read()
                found.append(time.perf_counter_ns() - sent.popleft())

        hearing = asyncio.create_task(hear())
        loop = asyncio.get_running_loop()
        due = loop.time()
        queue: asyncio.Queue[bytes] = asyncio.Queue()

        async def say() -> None:
            for _ in range(count):
                await self.ping.write(await queue.get())

        saying = asyncio.create_task(say())
        for _ in range(count):
            due += GAP_S
            await asyncio.sleep(max(due - loop.time(), 0))
            sent.append(time.perf_counter_ns())
            queue.put_nowait(message)
        await asyncio.gather(saying, hearing)
        return found


async def measure_acks(folder: Path, runs: int, per_run: int) -> dict[str, Any]:
    """Measure both in turn."""
    primary = Primary(folder / "a")
    await primary.start()
    acks: list[int] = []
    pings: list[int] = []
    try:
        with standby_process(folder / "b", primary.address, primary.echo_address):
            async with asyncio.timeout(60):
                await primary.is_ready.wait()
                await primary.caught_up()
            await primary.intents(WARM_UP)
            message = _same_bytes(primary.journal)
            await primary.pings(WARM_UP, message)
            for _ in range(runs):
                acks += await primary.intents(per_run)
                pings += await primary.pings(per_run, message)
    finally:
        await primary.close()
    ack, ping = quantiles(acks), quantiles(pings)
    return {
        "ack_us": ack,
        "pingpong_us": ping,
        "ratio_p50": round(ack["p50"] / ping["p50"], 2),
        "ratio_p99": round(ack["p99"] / ping["p99"], 2),
        "bytes_per_message": len(message),
        "intents": len(acks),
    }


def _same_bytes(journal: Journal) -> bytes:
    from failover.replication.wire import batch_response

    reader = FrameReader(journal, journal.flushed_lsn - 2)
    while not (frames := reader.read(1 << 16)).count:
        pass
    reader.close()
    return batch_response(frames).SerializeToString()


async def measure_catch_up(folder: Path, entries: int) -> dict[str, Any]:
    """Let an empty standby follow a journal of so many entries."""
    primary = Primary(folder / "a")
    for number in range((entries - primary.journal.last_lsn) // 3 + 1):
        primary.write(requote(number))
    await primary.start()
    try:
        with standby_process(folder / "b", primary.address, primary.echo_address):
            async with asyncio.timeout(600):
                while not primary.server.standbys():
                    await asyncio.sleep(0.001)
                started = time.perf_counter()
                await primary.caught_up()
                held_s = time.perf_counter() - started
                while primary.server.standbys()[0].applied_lsn < primary.journal.flushed_lsn:
                    await asyncio.sleep(0.005)
                applied_s = time.perf_counter() - started
        last = primary.journal.flushed_lsn
    finally:
        await primary.close()
    return {
        "catchup_entries_per_s": round(last / held_s),
        "catchup_applied_per_s": round(last / applied_s),
        "catchup_entries": last,
    }


def quantiles(values: list[int]) -> dict[str, float]:
    """Return the median and the 99th percentile in µs."""
    ordered = sorted(values)
    return {
        "p50": round(ordered[len(ordered) // 2] / 1e3, 1),
        "p99": round(ordered[min(int(len(ordered) * 0.99), len(ordered) - 1)] / 1e3, 1),
    }


def main() -> None:
    """Run the benchmark, or the standby's part of it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=10, help="turns of each kind")
    parser.add_argument("--seconds", type=float, default=1.0, help="length of a turn")
    parser.add_argument("--entries", type=int, default=1_000_000, help="to catch up with")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--standby", nargs=3, metavar=("FOLDER", "ADDRESS", "ECHO"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    uvloop.install()
    if options.standby:
        folder, address, echo = options.standby
        asyncio.run(stand_by(Path(folder), address, echo))
        return
    home = Path(tempfile.mkdtemp(prefix="tandem-replication-"))
    try:
        found = asyncio.run(
            measure_acks(home / "acks", options.runs, max(int(options.seconds * PER_SECOND), 1))
        )
        found |= asyncio.run(measure_catch_up(home / "catch-up", options.entries))
    finally:
        shutil.rmtree(home)
    if options.json:
        print(json.dumps(found))
    else:
        show(found)


def show(found: dict[str, Any]) -> None:
    """Print a table for people."""
    table = Table(title=f"replication, {PER_SECOND:,} intents/s of {found['bytes_per_message']} bytes")
    for column in ("", "p50 µs", "p99 µs"):
        table.add_column(column, justify="right")
    table.add_row("intent to acknowledgement", *(f"{found['ack_us'][key]:.0f}" for key in ("p50", "p99")))
    table.add_row("bare grpc.aio ping-pong", *(f"{found['pingpong_us'][key]:.0f}" for key in ("p50", "p99")))
    table.add_row("ratio", f"{found['ratio_p50']:.2f}", f"{found['ratio_p99']:.2f}")
    console = Console()
    console.print(table)
    console.print(
        f"catching up with {found['catchup_entries']:,} entries: {found['catchup_entries_per_s']:,} a second held, "
        f"{found['catchup_applied_per_s']:,} a second taken into the state"
    )


if __name__ == "__main__":
    main()
