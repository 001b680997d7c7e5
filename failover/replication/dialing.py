"""The standby's side of replication: dial whoever leads, follow it, dial again."""

import asyncio
import contextlib
import random
from collections.abc import Callable, Sequence
from typing import Final

import grpc
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from msgspec import Struct

from failover.clock import boottime_ns
from failover.replication.credentials import PeerCredentials, check_address
from failover.replication.errors import Reason, ReplicationConfigError, StreamBroken
from failover.replication.events import StandbyEvent, Unfollowed
from failover.replication.following import FollowedStream
from failover.replication.greeting import PROTOCOL_VERSION, Greeting
from failover.replication.lag import StandbyHealth
from failover.replication.replica import Replica
from failover.replication.serving import ERROR_DOMAIN
from failover.replication.session import StreamSettings
from failover.replication.wire import greeting_request
from host.journal import JournalError
from tandem.v1 import replication_pb2_grpc as pb_grpc

__all__ = ["Backoff", "ReplicationClient"]

_CHANNEL: Final = [
    ("grpc.keepalive_time_ms", 5_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    # A channel is made for each attempt, and must not share the broken connection of the one before.
    ("grpc.use_local_subchannel_pool", 1),
]


class Backoff(Struct, frozen=True):
    """How long to wait before all peers are dialled again: doubled each time, and drawn from its upper half."""

    first_s: float = 0.05
    longest_s: float = 2.0

    def delay_s(self, rounds: int, draw: float) -> float:
        """Return the wait after so many rounds without a stream; `draw` is from 0 to 1."""
        longest = min(self.first_s * 2.0 ** min(rounds, 32), self.longest_s)
        return longest * (0.5 + draw / 2)


class ReplicationClient:
    """Keeps a replica equal to the journal of whoever leads the cell, for as long as `run` runs.

    `peers` are tried in turn. `on_event` hears what happens. After `stop` the replica holds and has folded
    everything that was received: a takeover goes on with its journal and state.
    """

    def __init__(
        self,
        replica: Replica,
        peers: Sequence[str],
        session: str,
        on_event: Callable[[StandbyEvent], object],
        *,
        tls: PeerCredentials | None = None,
        settings: StreamSettings | None = None,
        backoff: Backoff | None = None,
        clock_ns: Callable[[], int] = boottime_ns,
        draw: Callable[[], float] = random.random,
        control_address: str = "",
    ) -> None:
        if not peers:
            raise ReplicationConfigError("a standby needs the address of at least one peer in failover.peers")
        for address in peers:
            check_address(address, tls)
        self.replica: Final = replica
        self._peers: Final = tuple(peers)
        self._session: Final = session
        self._on_event: Final = on_event
        self._tls: Final = tls
        self._settings: Final = settings or StreamSettings()
        self._backoff: Final = backoff or Backoff()
        self._clock_ns: Final = clock_ns
        self._draw: Final = draw
        self._control_address: Final = control_address
        self._health = StandbyHealth()
        self._least_epoch = 0
        self._wants_snapshot = False
        self._stream: FollowedStream | None = None
        self._hint = asyncio.Event()
        self._running: asyncio.Task[None] | None = None
        self._last_lag = 0

    # -- what its node asks and tells ------------------------------------------------------------

    @property
    def primary(self) -> str:
        """Return the name of the node that is followed now; empty if none is."""
        return "" if self._stream is None else self._stream.primary

    @property
    def failure(self) -> BaseException | None:
        """Return what `run` ended with, None while it runs: the journal could not be written."""
        running = self._running
        if running is None or not running.done() or running.cancelled():
            return None
        return running.exception()

    @property
    def lag(self) -> int:
        """Return how many entries of the primary are not held here, as far as it last said."""
        return self._last_lag if self._stream is None else self._stream.lag

    def set_health(self, health: StandbyHealth) -> None:
        """Say how this standby is: the primary hears it now, or with the next stream."""
        self._health = health
        if self._stream is not None:
            self._stream.report(health)

    def promise(self, epoch: int, asked_ns: int) -> None:
        """Answer a `ClaimAsked` with the promise not to claim; lost if the stream is."""
        if self._stream is not None:
            self._stream.promise(epoch, asked_ns)

    def hold_version(self, plugin: str, digest: str, problem: str) -> None:
        """Answer a `VersionCame`: whether that version can be run here; lost if the stream is."""
        if self._stream is not None:
            self._stream.hold_version(plugin, digest, problem)

    def require_epoch(self, epoch: int) -> None:
        """Follow nobody who leads in an earlier epoch: the lease says that it is over."""
        self._least_epoch = max(self._least_epoch, epoch)
        stream = self._stream
        if stream is not None and stream.epoch and stream.epoch < self._least_epoch:
            stream.end(Reason.NOT_PRIMARY, f"{stream.primary} leads in epoch {stream.epoch}, which is over")

    def dial_now(self) -> None:
        """Do not wait any longer before the next attempt: something suggests that there is a primary."""
        self._hint.set()

    def start(self) -> None:
        """Begin to dial, as a task of this loop."""
        self._running = asyncio.create_task(self.run())

    async def stop(self) -> None:
        """End the stream and fold everything received; raises what `run` ended with, if it did."""
        running, self._running = self._running, None
        if running is not None:
            running.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await running
        self.replica.fold()

    # -- dialling --------------------------------------------------------------------------------

    async def run(self) -> None:
        """Dial and follow until cancelled. Ends with `JournalError` where the journal cannot be written."""
        rounds = 0
        while True:
            for address in self._peers:
                if await self._follow(address):
                    rounds = 0
            self._hint.clear()
            delay_s = self._backoff.delay_s(rounds, self._draw())
            rounds += 1
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(delay_s):
                    await self._hint.wait()

    async def _follow(self, address: str) -> bool:
        """Follow the node at `address` while it leads; return whether it did."""
        async with self._channel(address) as channel:
            reason: Reason | None = None
            stream: FollowedStream | None = None
            try:
                greeting = Greeting(
                    PROTOCOL_VERSION,
                    self.replica.cell,
                    self.replica.node,
                    self._session,
                    self.replica.history(),
                    self._wants_snapshot,
                    self._control_address,
                )
                stream = FollowedStream(
                    self.replica,
                    pb_grpc.ReplicationServiceStub(channel).Replicate(),
                    address,
                    max(self._least_epoch, greeting.history.epoch),
                    self._health,
                    self._settings,
                    self._clock_ns,
                    self._follows,
                )
                self._stream = stream
                await stream.run(greeting_request(greeting))
            except StreamBroken as broken:
                reason, text = broken.reason, str(broken)
                if reason is Reason.OTHER_HISTORY:
                    self._wants_snapshot = True
            except grpc.aio.AioRpcError as error:
                reason, text = _reason_of(error)
            except TimeoutError:
                text = f"{address} was dialled and did not answer"
            except JournalError as error:
                self._on_event(Unfollowed(address, Reason.JOURNAL_FAILED, str(error), is_refused=False))
                raise
            except asyncio.InvalidStateError as error:  # gRPC's word for writing to a call that has ended
                text = f"the stream from {address} ended: {error}"
            finally:
                if stream is not None:
                    self._last_lag = stream.lag
                self._stream = None
            followed = stream is not None and stream.epoch > 0
            self._on_event(Unfollowed(address, reason, text, is_refused=not followed and reason is not None))
            return followed

    def _follows(self, event: StandbyEvent) -> None:
        self._wants_snapshot = False
        self._on_event(event)

    def _channel(self, address: str) -> grpc.aio.Channel:
        if self._tls is None:
            return grpc.aio.insecure_channel(address, options=_CHANNEL)
        return grpc.aio.secure_channel(address, self._tls.for_channel(), options=_CHANNEL)


def _reason_of(error: grpc.aio.AioRpcError) -> tuple[Reason | None, str]:
    """Return why a call ended, where the other side is one of ours and said so."""
    text = f"{error.code().name}: {error.details()}"
    status = rpc_status.from_call(error)  # type: ignore[arg-type] # it has all that is asked of a call
    for detail in () if status is None else status.details:
        info = error_details_pb2.ErrorInfo()
        if detail.Unpack(info) and info.domain == ERROR_DOMAIN and info.reason in Reason.__members__:
            return Reason(info.reason), error.details() or ""
    return None, text
