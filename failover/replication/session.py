"""The primary's side of one stream: what one standby was sent, has acknowledged, and is owed."""

import asyncio
from collections.abc import Callable
from typing import Any, Final

import grpc
import msgspec
from google_crc32c import value as crc32c
from msgspec import Struct

from failover.replication.errors import Reason, StreamBroken
from failover.replication.events import ClaimPromised, PrimaryEvent, Reported, VersionTaken
from failover.replication.greeting import PROTOCOL_VERSION, Greeting, Start
from failover.replication.lag import EligibilityLimits, LagClock, StandbyHealth, StandbyView, why_not_eligible
from failover.replication.replica import Difference
from failover.replication.window import SendWindow
from failover.replication.wire import batch_response, health_message, health_of
from host.journal import FrameReader, Journal, JournalError, JournalPruned, crc_of
from tandem.v1 import replication_pb2 as pb

__all__ = ["Session", "StreamSettings"]

Context = grpc.aio.ServicerContext[pb.ReplicateRequest, pb.ReplicateResponse]


class StreamSettings(Struct, frozen=True):
    """How a stream is run. The defaults suit two nodes in one data centre, or on one machine."""

    heartbeat_ns: int = 100_000_000
    silence_ns: int = 1_500_000_000
    """A side that was not heard for so long is gone."""
    batch_bytes: int = 64 << 10
    """What is read from the journal at a time while catching up: about 0.1 ms of the event loop."""
    window_bytes: int = 4 << 20
    """What may be on its way to a standby unacknowledged."""
    snapshot_part_bytes: int = 256 << 10
    greeting_deadline_ns: int = 5_000_000_000
    goodbye_ns: int = 500_000_000
    """How long a side tries to tell why it leaves; after that the end alone tells that it did."""
    max_catch_up_entries: int = 5_000_000
    """A standby that is so much further behind than a snapshot gets that instead."""
    limits: EligibilityLimits = EligibilityLimits()


class Session:
    """One standby that is attached. All of it belongs to the event loop."""

    def __init__(
        self,
        greeting: Greeting,
        start: Start,
        snapshot: bytes,
        epoch: int,
        journal: Journal,
        context: Context,
        settings: StreamSettings,
        clock_ns: Callable[[], int],
        on_event: Callable[[PrimaryEvent], object],
        on_ack: Callable[[str, int], object],
        own_control_address: str = "",
    ) -> None:
        self.node: Final = greeting.node
        self.session: Final = greeting.session
        self.address: Final = context.peer()
        self._control_address: Final = greeting.control_address
        self._own_control_address: Final = own_control_address
        self.window = SendWindow(start.resume_lsn, settings.window_bytes)
        self._start: Final = start
        self._snapshot = snapshot if start.is_replacing else b""
        self._epoch: Final = epoch
        self._journal: Final = journal
        self._context: Final = context
        self._settings: Final = settings
        self._clock_ns: Final = clock_ns
        self._on_event: Final = on_event
        self._on_ack: Final = on_ack
        self._reader = FrameReader(journal, start.resume_lsn + 1)
        now_ns = clock_ns()
        self._lag = LagClock(start.resume_lsn, settings.heartbeat_ns // 16)
        self._lag.grew(journal.flushed_lsn, now_ns)
        self._heard_ns = now_ns
        self._applied_lsn = 0
        self._round_trip_ns = 0
        self._health = StandbyHealth(is_current=False)
        self._has_reported = False
        self._difference: Difference | None = None
        self._own_health = StandbyHealth()
        self._owed: list[pb.ReplicateResponse] = []
        self._wake = asyncio.Event()
        self._ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    # -- what its server asks and tells ----------------------------------------------------------

    def view(self, now_ns: int) -> StandbyView:
        """Return what is known of the standby."""
        acked = self.window.acked_lsn
        view = StandbyView(
            node=self.node,
            address=self.address,
            acked_lsn=acked,
            applied_lsn=self._applied_lsn,
            lag_entries=max(self._journal.flushed_lsn - acked, 0),
            lag_bytes=self.window.bytes_in_flight + self._reader.remaining_bytes(),
            lag_ns=self._lag.lag_ns(now_ns),
            round_trip_ns=self._round_trip_ns,
            health=self._health,
            differs_at_lsn=0 if self._difference is None else self._difference.lsn,
            why_not="it has not said yet how it is",
            control_address=self._control_address,
        )
        if not self._has_reported:
            return view
        return msgspec.structs.replace(view, why_not=why_not_eligible(view, self._settings.limits))

    def is_silent(self, now_ns: int) -> bool:
        """Return whether the standby must be taken for gone."""
        return now_ns - self._heard_ns > self._settings.silence_ns

    def grew(self, lsn: int, now_ns: int) -> None:
        """Note that there is more to send."""
        self._lag.grew(lsn, now_ns)
        self._wake.set()

    def beat(self, health: StandbyHealth, now_ns: int) -> None:
        """Send a mark of life; end the stream of a standby that gives none."""
        if self.is_silent(now_ns):
            silence_ms = (now_ns - self._heard_ns) / 1e6
            self.end(Reason.SILENT, f"{self.node} was not heard for {silence_ms:.0f} ms")
            return
        beat = pb.Heartbeat(sent_ns=now_ns, last_lsn=self._journal.flushed_lsn, health=health_message(health))
        self.owe(pb.ReplicateResponse(heartbeat=beat))

    def owe(self, message: pb.ReplicateResponse) -> None:
        """Send a message as soon as the one before it is out."""
        if len(self._owed) < _MOST_OWED:  # a standby that does not read is silent, and ends soon
            self._owed.append(message)
        self._wake.set()

    def end(self, reason: Reason, text: str) -> None:
        """End the stream for this reason; harmless when it has ended."""
        if not self._ended.done():
            self._ended.set_exception(StreamBroken(reason, text))

    # -- the stream ------------------------------------------------------------------------------

    async def run(self) -> None:
        """Serve the stream until the standby ends it; raise `StreamBroken` for any other end."""
        tasks = [asyncio.ensure_future(self._send()), asyncio.ensure_future(self._receive())]
        try:
            done, _ = await asyncio.wait([*tasks, self._ended], return_when=asyncio.FIRST_COMPLETED)
            for future in done:
                future.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            if self._ended.done():
                self._ended.exception()  # looked at, whatever else ended the stream
            else:
                self._ended.cancel()
            self._reader.close()

    async def _send(self) -> None:
        try:
            await self._welcome()
            while True:
                self._wake.clear()
                if self._owed:
                    owed, self._owed = self._owed, []
                    for message in owed:
                        await self._context.write(message)
                elif not await self._send_batch():
                    await self._wake.wait()
        except JournalPruned as error:
            raise StreamBroken(Reason.PRUNED, f"{self.node} needs what is pruned: {error}") from error
        except JournalError as error:
            raise StreamBroken(Reason.JOURNAL_FAILED, f"nothing can be sent: {error}") from error

    async def _send_batch(self) -> bool:
        """Send what there is and may be sent; return False where that is nothing."""
        reader, window = self._reader, self.window
        if not window.room or not reader.is_behind:
            return False
        frames = reader.read(min(self._settings.batch_bytes, window.room))
        if not frames.count:
            await asyncio.sleep(0)  # it is on its way to the place: order flow goes first
            return True
        window.send(frames.first_lsn, frames.last_lsn, len(frames.data))
        await self._context.write(batch_response(frames))
        return True

    async def _welcome(self) -> None:
        start, snapshot = self._start, self._snapshot
        welcome = pb.Welcome(
            protocol_version=PROTOCOL_VERSION,
            cell=self._journal.cell,
            node=self._journal.node,
            epoch=self._epoch,
            resume_lsn=start.resume_lsn,
            resume_crc=0 if start.is_replacing else await self._crc_at(start.resume_lsn),
            is_replacing=start.is_replacing,
            snapshot_bytes=len(snapshot),
            snapshot_crc=crc32c(snapshot),
            last_lsn=self._journal.flushed_lsn,
            heartbeat_ns=self._settings.heartbeat_ns,
            control_address=self._own_control_address,
        )
        await self._context.write(pb.ReplicateResponse(welcome=welcome))
        size = self._settings.snapshot_part_bytes
        for at in range(0, len(snapshot), size):
            part = pb.SnapshotPart(data=snapshot[at : at + size])
            await self._context.write(pb.ReplicateResponse(snapshot=part))
        self._snapshot = b""

    async def _crc_at(self, lsn: int) -> int:
        """Return the checksum of entry `lsn`; 0 where the journal starts after it."""
        if lsn < self._journal.first_lsn:
            return 0
        reader = FrameReader(self._journal, lsn)
        try:
            while not (frames := reader.read(self._settings.batch_bytes)).count:
                await asyncio.sleep(0)
            return crc_of(frames.data)
        finally:
            reader.close()

    async def _receive(self) -> None:
        while True:
            request: Any = await self._context.read()
            if request is grpc.aio.EOF:
                return
            self._heard_ns = self._clock_ns()
            match request.WhichOneof("kind"):
                case "ack":
                    self._acked(request.ack)
                case "report":
                    self._reported(request.report)
                case "promise":
                    promise = request.promise
                    self._on_event(ClaimPromised(self.node, promise.epoch, promise.asked_ns))
                case "version":
                    held = request.version
                    self._on_event(VersionTaken(self.node, held.plugin, held.digest, held.problem))
                case "fault":
                    raise StreamBroken(_reason_of(request.fault.reason), f"{self.node}: {request.fault.text}")
                case kind:
                    raise StreamBroken(
                        Reason.BAD_GREETING,
                        f"{self.node} sent {kind or 'an unknown message'} in a running stream",
                    )

    def _acked(self, ack: pb.EntryAck) -> None:
        had_room = self.window.room
        is_news = self.window.ack(ack.lsn)
        if not self._applied_lsn <= ack.applied_lsn <= ack.lsn:
            raise StreamBroken(
                Reason.BAD_ACK,
                f"{self.node} says that it took in entry {ack.applied_lsn} after {self._applied_lsn}, and holds "
                f"{ack.lsn}",
            )
        self._applied_lsn = ack.applied_lsn
        if ack.heard_ns:
            self._round_trip_ns = max(self._heard_ns - ack.heard_ns, 0)
        if is_news:
            self._lag.acked(ack.lsn)
            if not had_room:
                self._wake.set()
            self._on_ack(self.node, ack.lsn)

    def _reported(self, report: pb.StandbyReport) -> None:
        self._health = health_of(report.health)
        self._has_reported = True
        if report.differs_at_lsn:
            self._difference = Difference(report.differs_at_lsn, report.expected_digest, report.found_digest)
        self._on_event(Reported(self.node, self._health, self._difference))


_MOST_OWED: Final = 1_000


def _reason_of(word: str) -> Reason:
    return Reason(word) if word in Reason.__members__ else Reason.BAD_GREETING
