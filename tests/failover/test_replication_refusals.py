"""What is no stream of this cell is refused with a reason, and the primary's order flow goes on."""

import asyncio
import contextlib
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import grpc
import pytest
from replication_tools import CALM, Leader, alert, following, leading, run, same_entries, until

from failover.replication import PeerTls, Reason, history_of
from failover.replication.batch import batch_crc
from failover.replication.events import Attached, Detached, Following, PrimaryEvent, TurnedAway, Unfollowed
from host.control.authority import Authority
from host.control.principal import Role
from tandem.v1 import replication_pb2 as pb
from tandem.v1 import replication_pb2_grpc as pb_grpc

NOW = datetime.now(UTC)


@pytest.mark.parametrize(
    ("node", "cell", "reason"), [("b", "other", Reason.OTHER_CELL), ("a", "main", Reason.SAME_NAME)]
)
def test_another_cell_and_the_same_name_are_refused_on_both_sides(
    tmp_path: Path, node: str, cell: str, reason: Reason
) -> None:
    async def test() -> None:
        async with leading(tmp_path / "one") as primary:
            async with following(tmp_path / "two", primary.address, node=node, cell=cell) as standby:
                await until(lambda: standby.of(Unfollowed), "the refusal")
                refused = standby.of(Unfollowed)[0]
                assert (refused.reason, refused.is_refused) == (reason, True)
                primary.fill(3)
            turned_away = primary.of(TurnedAway)[0]
            assert (turned_away.node, turned_away.reason, turned_away.text) == (node, reason, refused.text)
            assert primary.server.standbys() == []

    run(test())


def test_a_second_process_of_one_name_is_refused_until_the_first_is_gone(tmp_path: Path) -> None:
    async def test() -> None:
        async with leading(tmp_path) as primary, following(tmp_path / "one", primary.address) as first:
            await first.holds(1)
            async with following(tmp_path / "two", primary.address, session="another") as second:
                await until(lambda: second.of(Unfollowed), "the refusal")
                assert second.of(Unfollowed)[0].reason is Reason.NAME_TAKEN
                await first.close()
                await second.holds(primary.fill(1))

    run(test())


def test_a_journal_from_the_future_is_refused_and_kept(tmp_path: Path) -> None:
    async def test() -> None:
        ahead = Leader(tmp_path, node="b")
        ahead.begin(7)
        ahead.journal.close()
        async with leading(tmp_path) as primary, following(tmp_path, primary.address) as standby:
            await until(lambda: standby.of(Unfollowed), "the refusal")
            assert standby.of(Unfollowed)[0].reason is Reason.FROM_THE_FUTURE
            assert (standby.replica.held_lsn, standby.replica.kept_aside) == (1, [])

    run(test())


# -- certificates ------------------------------------------------------------------------------------


def pem(authority: Authority, pair: tuple[Path, Path]) -> PeerTls:
    certificate, key = pair
    return PeerTls(certificate.read_bytes(), key.read_bytes(), (authority.folder / "ca.crt").read_bytes())


def peer(authority: Authority, name: str) -> PeerTls:
    return pem(authority, authority.issue_peer(name, ["127.0.0.1"], NOW, 1))


def test_two_nodes_with_certificates_of_their_own_replicate(tmp_path: Path) -> None:
    async def test() -> None:
        authority = Authority.create(tmp_path / "ca", NOW)
        primary = Leader(tmp_path)
        primary.begin(1)
        await primary.serve(1, peer(authority, "a"))
        try:
            async with following(tmp_path, primary.address, tls=peer(authority, "b")) as standby:
                await standby.holds(primary.fill(3))
        finally:
            await primary.close()
        assert same_entries(primary.folder, standby.folder)

    run(test())


def _other_node(authority: Authority, _other: Authority) -> PeerTls:
    return peer(authority, "c")


def _client(authority: Authority, _other: Authority) -> PeerTls:
    return pem(authority, authority.issue_client("b", Role.ADMIN, NOW, 1))


def _other_authority(authority: Authority, other: Authority) -> PeerTls:
    made = peer(other, "b")
    return PeerTls(made.certificate, made.key, (authority.folder / "ca.crt").read_bytes())


@pytest.mark.parametrize("made", [_other_node, _client, _other_authority])
def test_a_wrong_certificate_gets_no_entry(
    tmp_path: Path, made: Callable[[Authority, Authority], PeerTls]
) -> None:
    async def test() -> None:
        authority = Authority.create(tmp_path / "ca", NOW)
        other = Authority.create(tmp_path / "other ca", NOW)
        primary = Leader(tmp_path)
        primary.begin(1)
        await primary.serve(1, peer(authority, "a"))
        try:
            async with following(tmp_path, primary.address, tls=made(authority, other)) as standby:
                await until(lambda: standby.of(Unfollowed), "the refusal")
                primary.fill(3)
                assert standby.of(Following) == []
                assert standby.replica.held_lsn == 0
                if made is not _other_authority:  # that one does not come as far as a greeting
                    assert standby.of(Unfollowed)[0].reason is Reason.WRONG_CERTIFICATE
        finally:
            await primary.close()

    run(test())


# -- sides that break the rules ----------------------------------------------------------------------


class Liar(pb_grpc.ReplicationServiceServicer):
    """A primary whose first batch is what `spoil` makes of a good one; it keeps to the rules afterwards."""

    def __init__(self, honest: Leader, spoil: Callable[[pb.EntryBatch], None]) -> None:
        self.honest = honest
        self.spoil = spoil
        self.has_lied = False
        self.faults: list[str] = []

    async def Replicate(  # type: ignore[override] # noqa: N802
        self, requests: Any, context: Any
    ) -> None:
        liar = self

        class Between:
            """The context of the stream, but for one batch."""

            def __getattr__(self, name: str) -> Any:
                return getattr(context, name)

            async def write(self, message: pb.ReplicateResponse) -> None:
                if message.WhichOneof("kind") == "batch" and not liar.has_lied:
                    liar.has_lied = True
                    liar.spoil(message.batch)
                await context.write(message)

        await self.honest.server.Replicate(requests, Between())


def _flip(batch: pb.EntryBatch) -> None:
    batch.frames = batch.frames[:-1] + bytes([batch.frames[-1] ^ 1])


def _skip(batch: pb.EntryBatch) -> None:
    batch.first_lsn += 1
    batch.crc = batch_crc(batch.first_lsn, batch.count, batch.frames)


def _flip_before_the_checksum(batch: pb.EntryBatch) -> None:
    _flip(batch)
    batch.crc = batch_crc(batch.first_lsn, batch.count, batch.frames)


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [(_flip, Reason.DAMAGED), (_flip_before_the_checksum, Reason.DAMAGED), (_skip, Reason.GAP)],
)
def test_a_flipped_bit_and_a_gap_are_refused_and_sent_again(
    tmp_path: Path, spoil: Callable[[pb.EntryBatch], None], reason: Reason
) -> None:
    async def test() -> None:
        primary = Leader(tmp_path)
        primary.begin(1)
        primary.server.lead(primary.journal, history_of(primary.journal), 1)
        server = grpc.aio.server()
        pb_grpc.add_ReplicationServiceServicer_to_server(Liar(primary, spoil), server)
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        try:
            async with following(tmp_path, f"127.0.0.1:{port}") as standby:
                await standby.holds(primary.fill(3))
                assert standby.of(Unfollowed)[0].reason is reason
                await until(lambda: primary.of(Detached), "the complaint")
                assert primary.of(Detached)[0].reason is reason
        finally:
            await server.stop(0)
            await primary.close()
        assert same_entries(primary.folder, standby.folder)

    run(test())


def _greeting(**changes: Any) -> pb.ReplicateRequest:
    fields = {"protocol_version": 1, "cell": "main", "node": "b", "session": "s"} | changes
    return pb.ReplicateRequest(greeting=pb.Greeting(**fields))


async def end_of(call: Any) -> grpc.StatusCode:
    """Read what there is to read, and return how the stream ended."""
    with contextlib.suppress(grpc.aio.AioRpcError):
        while await call.read() is not grpc.aio.EOF:
            continue
    code: grpc.StatusCode = await call.code()
    return code


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ([_greeting(protocol_version=2)], Reason.PROTOCOL_VERSION),
        ([_greeting(last_lsn=-3)], Reason.BAD_GREETING),
        ([pb.ReplicateRequest()], Reason.BAD_GREETING),
        ([pb.ReplicateRequest(ack=pb.EntryAck(lsn=1))], Reason.BAD_GREETING),
        ([_greeting(), _greeting()], Reason.BAD_GREETING),
        ([_greeting(), pb.ReplicateRequest(ack=pb.EntryAck(lsn=999))], Reason.BAD_ACK),
        ([_greeting(), pb.ReplicateRequest(ack=pb.EntryAck(lsn=0, applied_lsn=5))], Reason.BAD_ACK),
    ],
)
def test_whoever_breaks_the_protocol_is_shown_out(
    tmp_path: Path, said: list[pb.ReplicateRequest], reason: Reason
) -> None:
    async def test() -> None:
        async with leading(tmp_path) as primary, following(tmp_path, primary.address, node="c") as good:
            async with grpc.aio.insecure_channel(primary.address) as channel:
                call: Any = pb_grpc.ReplicationServiceStub(channel).Replicate()  # type: ignore[no-untyped-call]
                for request in said:
                    await call.write(request)
                assert await end_of(call) is grpc.StatusCode.FAILED_PRECONDITION
            told = [event.reason for event in primary.events if isinstance(event, TurnedAway | Detached)]
            assert reason in told
            await good.holds(primary.fill(2))

    run(test())


def test_a_stream_that_ends_while_its_first_message_is_on_its_way_tells_the_reason(tmp_path: Path) -> None:
    async def test() -> None:
        async with leading(tmp_path) as primary, grpc.aio.insecure_channel(primary.address) as channel:
            server = primary.server

            def end_at_once(event: PrimaryEvent) -> None:
                primary.events.append(event)
                if isinstance(event, Attached):
                    server._sessions["b"].end(Reason.REPLACED, "by the test")

            server._on_event = end_at_once  # type: ignore[misc]
            call: Any = pb_grpc.ReplicationServiceStub(channel).Replicate()  # type: ignore[no-untyped-call]
            await call.write(_greeting())
            assert await end_of(call) is grpc.StatusCode.FAILED_PRECONDITION
            assert [event.reason for event in primary.of(Detached)] == [Reason.REPLACED]

    run(test())


def test_a_standby_that_falls_silent_is_let_go_and_one_that_hears_nothing_dials_again(tmp_path: Path) -> None:
    from msgspec.structs import replace

    async def test() -> None:
        primary = Leader(tmp_path)
        primary.begin(1)
        primary.server._settings = replace(CALM, silence_ns=100_000_000)  # type: ignore[misc]
        await primary.serve(1)
        try:
            async with grpc.aio.insecure_channel(primary.address) as channel:
                call: Any = pb_grpc.ReplicationServiceStub(channel).Replicate()  # type: ignore[no-untyped-call]
                await call.write(_greeting())
                await until(lambda: primary.of(Detached), "the end")
                assert primary.of(Detached)[0].reason is Reason.SILENT
            primary.server._beating.cancel()  # type: ignore[union-attr]
            quick = replace(CALM, silence_ns=100_000_000)
            async with following(tmp_path, primary.address, node="c", settings=quick) as standby:
                await until(lambda: standby.of(Unfollowed), "the end")
                assert standby.of(Unfollowed)[0].reason is Reason.SILENT
                await until(lambda: len(standby.of(Following)) > 1, "another stream")
        finally:
            primary.server._beating = None
            await primary.close()

    run(test())


def test_an_address_that_nobody_listens_on_is_dialled_again(tmp_path: Path) -> None:
    async def test() -> None:
        primary = Leader(tmp_path)
        primary.begin(1)
        address = await primary.serve(1)
        await primary.server.close()
        async with following(tmp_path, address) as standby:
            await until(lambda: len(standby.of(Unfollowed)) > 1, "two attempts")
            assert not standby.of(Unfollowed)[0].is_refused
            await asyncio.sleep(0)
        primary.write(alert(1))
        primary.journal.close()

    run(test())
