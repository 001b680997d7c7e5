"""The primary's side of replication: a gRPC server that standbys dial, whoever leads now.

It listens for as long as the node runs, and refuses with `NOT_PRIMARY` while the node does not lead. What
goes wrong with a standby ends its stream, is told as an event, and touches nothing else.
"""

import asyncio
import contextlib
from collections.abc import Callable, Collection, Iterable
from typing import Any, Final

import grpc
from google.rpc import code_pb2, error_details_pb2, status_pb2
from grpc_status import rpc_status
from msgspec import Struct

from failover.clock import boottime_ns
from failover.replication.credentials import PeerCredentials, check_address, named_in
from failover.replication.durability import ReplicaDurability
from failover.replication.errors import Reason, ReplicationConfigError, StreamBroken, StreamRefused
from failover.replication.events import Attached, Detached, PrimaryEvent, SeenTop, TurnedAway
from failover.replication.greeting import Greeting, PrimarySide, answer
from failover.replication.history import History
from failover.replication.lag import StandbyHealth, StandbyView
from failover.replication.session import Context, Session, StreamSettings
from failover.replication.wire import greeting_of
from host.journal import Journal, JournalError
from tandem.v1 import replication_pb2 as pb
from tandem.v1 import replication_pb2_grpc as pb_grpc

__all__ = ["ERROR_DOMAIN", "ReplicationServer"]

ERROR_DOMAIN: Final = "tandem"
_STOP_GRACE_S: Final = 0.2
_CHANNEL: Final = [
    # A peer whose machine is gone is noticed by the transport too, so that its connection ends.
    ("grpc.keepalive_time_ms", 5_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.min_ping_interval_without_data_ms", 1_000),
    ("grpc.http2.min_recv_ping_interval_without_data_ms", 1_000),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.max_receive_message_length", -1),  # a batch of one entry may be as long as that entry
    ("grpc.max_send_message_length", -1),
    ("grpc.so_reuseport", 0),
]


class _Lead(Struct):
    journal: Journal
    history: History
    epoch: int
    durability: ReplicaDurability | None
    unfollow: Callable[[], None]


class ReplicationServer(pb_grpc.ReplicationServiceServicer):
    """Serves the journal of this node to standbys while it leads.

    `on_event` hears of standbys that come and go. With a `ReplicaDurability`, acknowledgements go to it and
    from it to `Journal.confirm`, so that the commands that waited can leave. All of it belongs to one event loop.
    """

    def __init__(
        self,
        node: str,
        cell: str,
        on_event: Callable[[PrimaryEvent], object],
        settings: StreamSettings | None = None,
        clock_ns: Callable[[], int] = boottime_ns,
        control_address: str = "",
        peers: Collection[str] | None = None,
    ) -> None:
        self._peers: Final = None if peers is None else frozenset(peers)
        self.control_address: Final = control_address
        self.node: Final = node
        self.cell: Final = cell
        self.health = StandbyHealth()
        """What standbys are told of this node."""
        self.leader = ""
        """Who leads as far as this node knows, for standbys that dial it while it does not."""
        self._on_event: Final = on_event
        self._settings: Final = settings or StreamSettings()
        self._clock_ns: Final = clock_ns
        self._lead: _Lead | None = None
        self._sessions: dict[str, Session] = {}
        self._server: grpc.aio.Server | None = None
        self._beating: asyncio.Task[None] | None = None

    # -- life ------------------------------------------------------------------------------------

    async def start(self, address: str, tls: PeerCredentials | None = None) -> int:
        """Listen on `address` and return the port; raise `ReplicationConfigError`."""
        check_address(address, tls)
        server = grpc.aio.server(options=_CHANNEL)
        pb_grpc.add_ReplicationServiceServicer_to_server(self, server)
        try:
            if tls is None:
                port = server.add_insecure_port(address)
            else:
                port = server.add_secure_port(address, tls.for_server())
        except RuntimeError as error:
            raise ReplicationConfigError(
                f"replication cannot listen on {address}: {error}; is another node there, or are the "
                "certificate and its key not a pair?"
            ) from error
        await server.start()
        self._server = server
        self._beating = asyncio.create_task(self._beat())
        return port

    def lead(
        self, journal: Journal, history: History, epoch: int, durability: ReplicaDurability | None = None
    ) -> None:
        """Serve `journal`, which this node writes as the leader of `epoch` from here on."""
        self.step_down("another epoch begins")
        unfollow = journal.on_flushed(self._flushed)
        self._lead = _Lead(journal, history, epoch, durability, unfollow)

    def step_down(self, text: str) -> None:
        """Serve nothing any more; standbys look for the next leader."""
        if self._lead is not None:
            self._lead.unfollow()
            self._lead = None
        for session in self._sessions.values():
            session.end(Reason.NOT_PRIMARY, f"{self.node} does not lead any more: {text}")

    async def close(self) -> None:
        """End every stream and stop listening; harmless when it has been closed."""
        self.step_down("it stops")
        if self._beating is not None:
            self._beating.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._beating
            self._beating = None
        if self._server is not None:
            await self._server.stop(_STOP_GRACE_S)
            self._server = None

    # -- what the node asks ----------------------------------------------------------------------

    def standbys(self) -> list[StandbyView]:
        """Return what is known of the standbys that are attached, by name."""
        now_ns = self._clock_ns()
        return [session.view(now_ns) for _, session in sorted(self._sessions.items())]

    def oldest_needed_lsn(self) -> int | None:
        """Return the first entry that an attached standby does not hold: what pruning should leave; None: none."""
        return min((session.window.acked_lsn + 1 for session in self._sessions.values()), default=None)

    def ask_claims(self, epoch: int, asked_ns: int, ttl_ms: int) -> None:
        """Ask every standby to promise not to claim the lease; `ClaimPromised` is the answer."""
        ask = pb.ClaimQuestion(epoch=epoch, asked_ns=asked_ns, ttl_ms=ttl_ms)
        for session in self._sessions.values():
            session.owe(pb.ReplicateResponse(ask=ask))

    def offer_version(self, plugin: str, digest: str, content: bytes, to: str = "") -> None:
        """Send a version of a plugin to the standby `to`, or to all; `VersionTaken` is the answer."""
        version = pb.VersionContent(plugin=plugin, digest=digest, content=content)
        for node, session in self._sessions.items():
            if to in ("", node):
                session.owe(pb.ReplicateResponse(version=version))

    def show_market(self, tops: Iterable[SeenTop]) -> None:
        """Tell every standby what this node sees of its markets."""
        sample = pb.MarketSample(
            tops=[
                pb.SampledTop(account=top.account, symbol=top.symbol, bid=top.bid, ask=top.ask)
                for top in tops
            ]
        )
        for session in self._sessions.values():
            session.owe(pb.ReplicateResponse(market=sample))

    def notify_heir(self, heir: str) -> None:
        """Tell `heir` that the lease waits for it, if it is attached."""
        session = self._sessions.get(heir)
        if session is not None:
            session.owe(pb.ReplicateResponse(heir=pb.HeirNotice()))

    # -- the stream ------------------------------------------------------------------------------

    async def Replicate(  # type: ignore[override] # noqa: N802 - the stubs know handlers that are generators only
        self, _requests: Any, context: Any
    ) -> None:
        """Serve one standby's stream."""
        greeting: Greeting | None = None
        try:
            greeting = await self._greeting(context)
            session = await self._attach(greeting, context)
        except StreamRefused as refused:
            node = "" if greeting is None else greeting.node
            self._on_event(TurnedAway(node, context.peer(), refused.reason, str(refused)))
            await _abort(context, refused.reason, str(refused))
            return
        await self._serve(session, context)

    async def _greeting(self, context: Context) -> Greeting:
        try:
            async with asyncio.timeout(self._settings.greeting_deadline_ns / 1e9):
                request: Any = await context.read()
        except TimeoutError:
            raise StreamRefused(Reason.SILENT, f"{context.peer()} dialled and said nothing") from None
        if request is grpc.aio.EOF or request.WhichOneof("kind") != "greeting":
            raise StreamRefused(Reason.BAD_GREETING, f"{context.peer()} should have sent a greeting first")
        return greeting_of(request.greeting)

    async def _attach(self, greeting: Greeting, context: Context) -> Session:
        snapshot = None
        if self._lead is not None:
            try:
                snapshot = await asyncio.to_thread(self._lead.journal.latest_snapshot)
            except JournalError as error:
                raise StreamRefused(Reason.JOURNAL_FAILED, f"{self.node}: {error}") from error
        # From here on without waiting: what is decided is true when the session begins.
        lead = self._lead
        if lead is None:
            known = f"; {self.leader} leads" if self.leader else ""
            raise StreamRefused(Reason.NOT_PRIMARY, f"{self.node} does not lead{known}")
        journal = lead.journal
        primary = PrimarySide(
            cell=self.cell,
            node=self.node,
            epoch=lead.epoch,
            history=lead.history.grown(journal.flushed_lsn),
            first_lsn=journal.first_lsn,
            snapshot_lsn=0 if snapshot is None else snapshot.lsn,
            max_catch_up=self._settings.max_catch_up_entries,
            peers=self._peers,
        )
        start = answer(greeting, primary, named_in(context.auth_context()))
        self._replace_dead(greeting)
        session = Session(
            greeting,
            start,
            b"" if snapshot is None else snapshot.data,
            lead.epoch,
            journal,
            context,
            self._settings,
            self._clock_ns,
            self._on_event,
            self._acked,
            self.control_address,
        )
        self._sessions[greeting.node] = session
        self._on_event(Attached(session.node, session.address, start.resume_lsn, start.is_replacing))
        return session

    def _replace_dead(self, greeting: Greeting) -> None:
        old = self._sessions.get(greeting.node)
        if old is None:
            return
        if old.session != greeting.session and not old.is_silent(self._clock_ns()):
            raise StreamRefused(
                Reason.NAME_TAKEN,
                f"a standby named {greeting.node!r} is attached from {old.address}: give each node its own "
                "node.name (if it is the same one, restarted, it gets in when the old connection has ended)",
            )
        old.end(Reason.REPLACED, f"{greeting.node} dialled again")

    async def _serve(self, session: Session, context: Context) -> None:
        reason: Reason | None = None
        text = "it ended the stream"
        try:
            # Before any message: gRPC cannot end a call while its first write, with these, is under way.
            await context.send_initial_metadata(())
            await session.run()
        except StreamBroken as broken:
            reason, text = broken.reason, str(broken)
        except grpc.aio.AioRpcError as error:
            text = f"the connection broke: {error.details()}"
        finally:
            if self._sessions.get(session.node) is session:
                del self._sessions[session.node]
                self._look()
            self._on_event(Detached(session.node, reason, text))
        if reason is not None:
            await _abort(context, reason, text)

    # -- acknowledgements ------------------------------------------------------------------------

    def _flushed(self, lsn: int) -> None:
        now_ns = self._clock_ns()
        for session in self._sessions.values():
            session.grew(lsn, now_ns)
        lead = self._lead
        if lead is not None and lead.durability is not None:
            lead.durability.flushed(lsn, now_ns)
            lead.journal.confirm(lead.durability.durable_lsn)

    def _acked(self, node: str, lsn: int) -> None:
        lead = self._lead
        if lead is not None and lead.durability is not None:
            lead.durability.acked(node, lsn)
            lead.journal.confirm(lead.durability.durable_lsn)

    async def _beat(self) -> None:
        while True:
            await asyncio.sleep(self._settings.heartbeat_ns / 1e9)
            now_ns = self._clock_ns()
            for session in list(self._sessions.values()):
                session.beat(self.health, now_ns)
            self._look()

    def _look(self) -> None:
        lead = self._lead
        if lead is not None and lead.durability is not None:
            changes = lead.durability.tick(self.standbys(), self._clock_ns())
            for change in changes:
                self._on_event(change)
            lead.journal.confirm(lead.durability.durable_lsn)


async def _abort(context: Context, reason: Reason, text: str) -> None:
    status = status_pb2.Status(code=code_pb2.FAILED_PRECONDITION, message=text)
    status.details.add().Pack(error_details_pb2.ErrorInfo(reason=reason, domain=ERROR_DOMAIN))
    await context.abort_with_status(rpc_status.to_status(status))
