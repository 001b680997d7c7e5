"""The standby's side of one stream: take entries, acknowledge them, then fold them.

Entries are acknowledged as soon as they are written, before the state has taken them in: what the primary
waits for is that they are held.
"""

import asyncio
from collections.abc import Callable
from typing import Any, Final

import grpc
from google_crc32c import value as crc32c

from failover.replication.batch import frames_of
from failover.replication.errors import Reason, StreamBroken
from failover.replication.events import (
    ClaimAsked,
    DifferenceFound,
    Following,
    HeirNamed,
    MarketSeen,
    PrimaryHealth,
    Rejoined,
    SeenTop,
    StandbyEvent,
    VersionCame,
)
from failover.replication.greeting import PROTOCOL_VERSION
from failover.replication.lag import StandbyHealth
from failover.replication.replica import Replica
from failover.replication.session import StreamSettings
from failover.replication.wire import batch_of, health_message, health_of
from host.journal import KeptAside
from tandem.v1 import replication_pb2 as pb

__all__ = ["Call", "FollowedStream"]

Call = grpc.aio.StreamStreamCall[pb.ReplicateRequest, pb.ReplicateResponse]

_FOLDED_AT_A_TIME: Final = 256
"""Entries between two looks at the stream: a few milliseconds at most."""
_MOST_UNAPPLIED_BYTES: Final = 16 << 20
"""What may be held in memory for the state; then the stream waits."""


class FollowedStream:
    """One stream, from the greeting to its end."""

    def __init__(
        self,
        replica: Replica,
        call: Call,
        address: str,
        least_epoch: int,
        health: StandbyHealth,
        settings: StreamSettings,
        clock_ns: Callable[[], int],
        on_event: Callable[[StandbyEvent], object],
    ) -> None:
        self.primary = ""
        self.epoch = 0
        """Whose stream this is; "" and 0 until the welcome."""
        self.primary_lsn = 0
        """Where the primary's journal ended when it last said so."""
        self._replica: Final = replica
        self._call: Final = call
        self._address: Final = address
        self._least_epoch: Final = least_epoch
        self._health = health
        self._settings: Final = settings
        self._clock_ns: Final = clock_ns
        self._on_event: Final = on_event
        self._is_taking = False  # false until the start is settled: then there is nothing to acknowledge
        self._acked = (0, 0)
        self._echo_ns = 0
        self._heard_ns = clock_ns()
        self._owed: list[pb.ReplicateRequest] = []
        self._primary_health: StandbyHealth | None = None
        self._is_report_due = True
        self._is_leaving = False
        self._to_write = asyncio.Event()
        self._to_fold = asyncio.Event()
        self._folded = asyncio.Event()
        self._ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    @property
    def lag(self) -> int:
        """Return how many entries of the primary are not held here, as far as it has said."""
        return max(self.primary_lsn - self._replica.held_lsn, 0)

    # -- what its owner tells --------------------------------------------------------------------

    def report(self, health: StandbyHealth) -> None:
        """Tell the primary how this standby is."""
        if health != self._health:
            self._health = health
            self._is_report_due = True
            self._to_write.set()

    def promise(self, epoch: int, asked_ns: int) -> None:
        """Promise the primary not to claim the lease."""
        self._owed.append(pb.ReplicateRequest(promise=pb.ClaimPromise(epoch=epoch, asked_ns=asked_ns)))
        self._to_write.set()

    def hold_version(self, plugin: str, digest: str, problem: str) -> None:
        """Tell the primary that a version of a plugin can be run here, or why not."""
        held = pb.VersionHeld(plugin=plugin, digest=digest, problem=problem)
        self._owed.append(pb.ReplicateRequest(version=held))
        self._to_write.set()

    def end(self, reason: Reason, text: str) -> None:
        """End the stream for this reason; harmless when it has ended."""
        if not self._ended.done():
            self._ended.set_exception(StreamBroken(reason, text))

    # -- the stream ------------------------------------------------------------------------------

    async def run(self, greeting: pb.ReplicateRequest) -> None:
        """Follow until the primary ends it; raises `StreamBroken`, `grpc.aio.AioRpcError`, `JournalError`."""
        async with asyncio.timeout(self._settings.greeting_deadline_ns / 1e9):
            await self._call.write(greeting)
            first = await self._read()
        welcome = self._check_welcome(first)
        work = (self._receive(welcome), self._write(), self._fold(), self._watch())
        tasks = [asyncio.ensure_future(one) for one in work]
        try:
            done, _ = await asyncio.wait([*tasks, self._ended], return_when=asyncio.FIRST_COMPLETED)
            for future in done:
                future.result()
        except StreamBroken as broken:
            await self._say_goodbye(tasks[0], tasks[1], broken)
            raise
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            if self._ended.done():
                self._ended.exception()  # looked at, whatever else ended the stream
            else:
                self._ended.cancel()

    def _check_welcome(self, first: Any) -> pb.Welcome:
        if first.WhichOneof("kind") != "welcome":
            raise StreamBroken(Reason.BAD_GREETING, f"{self._address} should have sent a welcome first")
        welcome: pb.Welcome = first.welcome
        if welcome.protocol_version != PROTOCOL_VERSION or welcome.cell != self._replica.cell:
            raise StreamBroken(
                Reason.OTHER_CELL,
                f"{self._address} is of cell {welcome.cell!r} and protocol version {welcome.protocol_version}, "
                f"expected cell {self._replica.cell!r} and version {PROTOCOL_VERSION}",
            )
        if welcome.epoch < self._least_epoch:
            raise StreamBroken(
                Reason.NOT_PRIMARY,
                f"{welcome.node} leads in epoch {welcome.epoch}, and epoch {self._least_epoch} has begun",
            )
        self.primary, self.epoch, self.primary_lsn = welcome.node, welcome.epoch, welcome.last_lsn
        return welcome

    async def _read(self) -> Any:
        message = await self._call.read()
        if message is grpc.aio.EOF:
            # Where it ended badly, this raises why.
            code = await self._call.code()
            if code is not grpc.StatusCode.OK:
                raise grpc.aio.AioRpcError(
                    code,
                    await self._call.initial_metadata(),
                    await self._call.trailing_metadata(),
                    details=await self._call.details(),
                )
            raise StreamBroken(Reason.NOT_PRIMARY, f"{self.primary or self._address} ended the stream")
        self._heard_ns = self._clock_ns()
        return message

    async def _receive(self, welcome: pb.Welcome) -> None:
        await self._settle(welcome)
        self._on_event(
            Following(self.primary, self._address, self.epoch, welcome.resume_lsn, welcome.control_address)
        )
        self._is_taking = self._is_report_due = True
        self._heard_ns = self._clock_ns()
        self._to_write.set()
        self._to_fold.set()
        replica = self._replica
        while True:
            message = await self._read()
            match message.WhichOneof("kind"):
                case "batch":
                    batch = batch_of(message.batch)
                    replica.take(frames_of(batch, replica.held_lsn))
                    self.primary_lsn = max(self.primary_lsn, replica.held_lsn)
                    self._to_write.set()
                    self._to_fold.set()
                    while replica.unapplied_bytes > _MOST_UNAPPLIED_BYTES:
                        self._folded.clear()
                        await self._folded.wait()
                case "heartbeat":
                    self._beat(message.heartbeat)
                case "ask":
                    ask = message.ask
                    self._on_event(ClaimAsked(self.primary, ask.epoch, ask.asked_ns, ask.ttl_ms))
                case "heir":
                    self._on_event(HeirNamed(self.primary))
                case "market":
                    tops = (SeenTop(t.account, t.symbol, t.bid, t.ask) for t in message.market.tops)
                    self._on_event(MarketSeen(tuple(tops)))
                case "version":
                    version = message.version
                    self._on_event(VersionCame(version.plugin, version.digest, version.content))
                case kind:
                    raise StreamBroken(
                        Reason.BAD_GREETING,
                        f"{self.primary} sent {kind or 'an unknown message'} in a running stream",
                    )

    async def _settle(self, welcome: pb.Welcome) -> None:
        """Make the journal end where the stream starts."""
        replica, lsn = self._replica, welcome.resume_lsn
        if welcome.is_replacing:
            snapshot = await self._snapshot(welcome)
            kept = await _to_the_end(lambda: replica.replace(lsn, snapshot))
        elif lsn > replica.held_lsn or not replica.holds(lsn, welcome.resume_crc):
            raise StreamBroken(
                Reason.OTHER_HISTORY,
                f"entry {lsn} is not the one of {self.primary}: this journal is of another history, and a "
                "snapshot is needed",
            )
        elif lsn < replica.held_lsn:
            kept = await _to_the_end(lambda: replica.cut(lsn))
        else:
            return
        if kept is not None:
            self._on_event(Rejoined(kept, self.epoch))

    async def _snapshot(self, welcome: pb.Welcome) -> bytes:
        data = bytearray()
        while len(data) < welcome.snapshot_bytes:
            message = await self._read()
            if message.WhichOneof("kind") == "heartbeat":
                continue
            if message.WhichOneof("kind") != "snapshot":
                raise StreamBroken(Reason.GAP, f"{len(data)} of {welcome.snapshot_bytes} snapshot bytes came")
            data += message.snapshot.data
        if len(data) != welcome.snapshot_bytes or crc32c(bytes(data)) != welcome.snapshot_crc:
            raise StreamBroken(Reason.DAMAGED, "the snapshot came damaged: its checksum does not match")
        return bytes(data)

    def _beat(self, beat: pb.Heartbeat) -> None:
        self._echo_ns = beat.sent_ns
        self.primary_lsn = max(self.primary_lsn, beat.last_lsn)
        self._to_write.set()
        health = health_of(beat.health)
        if health != self._primary_health:
            self._primary_health = health
            self._on_event(PrimaryHealth(self.primary, health, self.lag))

    async def _write(self) -> None:
        while True:
            await self._to_write.wait()
            self._to_write.clear()
            replica = self._replica
            if self._is_taking:
                state = (replica.held_lsn, min(replica.applied_lsn, replica.held_lsn))
                if state != self._acked or self._echo_ns:
                    ack = pb.EntryAck(lsn=state[0], applied_lsn=state[1], heard_ns=self._echo_ns)
                    self._acked, self._echo_ns = state, 0
                    await self._call.write(pb.ReplicateRequest(ack=ack))
            owed, self._owed = self._owed, []
            for message in owed:
                await self._call.write(message)
            if self._is_report_due:
                self._is_report_due = False
                await self._call.write(pb.ReplicateRequest(report=self._standby_report()))
            if self._is_leaving and not self._owed:  # what came while the others were written goes first
                await self._call.done_writing()
                return

    def _standby_report(self) -> pb.StandbyReport:
        health = self._health
        if not self._is_taking:
            health = StandbyHealth(health.is_fit, False, health.ailments, "it is taking in where to start")
        difference = self._replica.difference
        report = pb.StandbyReport(health=health_message(health))
        if difference is not None:
            report.differs_at_lsn = difference.lsn
            report.expected_digest = difference.expected
            report.found_digest = difference.found
        return report

    async def _fold(self) -> None:
        replica = self._replica
        known = None
        while True:
            await self._to_fold.wait()
            self._to_fold.clear()
            while replica.fold(_FOLDED_AT_A_TIME):
                self._folded.set()
                await asyncio.sleep(0)  # what came meanwhile is written and acknowledged first
            self._folded.set()
            if replica.difference is not None and replica.difference is not known:
                known = replica.difference
                self._on_event(DifferenceFound(known))
                self._is_report_due = True
                self._to_write.set()

    async def _watch(self) -> None:
        """Give marks of life; notice when there is none from the other side."""
        while True:
            await asyncio.sleep(self._settings.heartbeat_ns / 1e9)
            if not self._is_taking:
                self._is_report_due = True  # a snapshot is being taken in: say that we are here
                self._to_write.set()
                continue
            silent_ns = self._clock_ns() - self._heard_ns
            if silent_ns > self._settings.silence_ns:
                raise StreamBroken(
                    Reason.SILENT, f"{self.primary} was not heard for {silent_ns / 1e6:.0f} ms"
                )

    async def _say_goodbye(
        self, receiving: "asyncio.Task[None]", writing: "asyncio.Task[None]", broken: StreamBroken
    ) -> None:
        """Tell the primary why the stream ends, if that can be done soon.

        No task is cancelled before: gRPC cancels the whole call when a read or a write is.
        """
        if writing.done():
            return
        fault = pb.StreamFault(reason=broken.reason, text=str(broken))
        self._owed.append(pb.ReplicateRequest(fault=fault))
        self._is_leaving = True
        self._to_write.set()
        try:
            async with asyncio.timeout(self._settings.goodbye_ns / 1e9):
                await asyncio.wait([writing])
                while receiving.done() and await self._call.read() is not grpc.aio.EOF:
                    continue  # the call's end comes after what is on its way
        except (grpc.aio.AioRpcError, asyncio.InvalidStateError, TimeoutError):
            return  # it is told by the connection's end, without the reason


async def _to_the_end(work: Callable[[], KeptAside | None]) -> KeptAside | None:
    """Run `work` in a thread; a cancellation waits for its end, for nobody else may touch the journal until then."""
    task = asyncio.ensure_future(asyncio.to_thread(work))
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait([task])
        raise
