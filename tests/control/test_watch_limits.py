"""Watches cost a bounded amount: of streams, and of memory. What services there are is told, or not."""

import asyncio
import tracemalloc
from pathlib import Path
from typing import Any

import grpc
import msgspec
import pytest
from control_tools import ControlDesk, Status, bearer, refusal_in
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from test_node_service import alerts

from host.control.principal import Role
from tandem.v1 import node_pb2 as pb

WAIT_S = 60
MB = 1 << 20


@pytest.fixture
def desk(tmp_path: Path) -> ControlDesk:
    return ControlDesk(tmp_path)


def configure(desk: ControlDesk, **control: Any) -> None:
    desk.config = msgspec.structs.replace(
        desk.config, control=msgspec.structs.replace(desk.config.control, **control)
    )


async def refused(watch: Any) -> Any:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await watch.read()
    return refusal_in(caught.value)


def test_one_caller_has_only_so_many_watches_and_others_have_theirs(desk: ControlDesk) -> None:
    configure(desk, max_watches_per_caller=2)

    async def story() -> None:
        async with asyncio.timeout(WAIT_S), desk.serving() as client:
            watch, request = client.node.WatchEvents, pb.WatchEventsRequest()
            own = [watch(request) for _ in range(2)]
            for one in own:
                await one.read()
            refusal = await refused(watch(request))
            assert (refusal.code, refusal.reason) == (Status.RESOURCE_EXHAUSTED, "TOO_MANY_WATCHES")
            assert refusal.metadata == {"most": "2"}
            other = watch(request, metadata=bearer(desk.token(Role.VIEWER)))
            await other.read()
            own[0].cancel()
            while desk.subject.under_way.count > 2:
                await asyncio.sleep(0.002)
            await watch(request).read()

    asyncio.run(story())


def test_all_callers_together_have_only_so_many_watches(desk: ControlDesk) -> None:
    configure(desk, max_watches=2)

    async def story() -> None:
        async with asyncio.timeout(WAIT_S), desk.serving() as client:
            watch, request = client.node.WatchEvents, pb.WatchEventsRequest()
            for role in (Role.VIEWER, Role.TRADER):
                await watch(request, metadata=bearer(desk.token(role))).read()
            refusal = await refused(watch(request))
            assert refusal.reason == "TOO_MANY_WATCHES"
            assert "there are 2 watches already" in refusal.text

    asyncio.run(story())


def test_what_a_watcher_does_not_read_is_held_nowhere(desk: ControlDesk) -> None:
    async def story() -> None:
        async with asyncio.timeout(WAIT_S), desk.serving() as client:
            lazy = client.node.WatchEvents(pb.WatchEventsRequest(from_lsn=1))
            await lazy.read()
            held_before, _ = tracemalloc.get_traced_memory()
            tracemalloc.reset_peak()
            for _ in range(20):
                alerts(desk, 1000, "much ado " * 250)  # 2 MB each
                await client.node.GetStatus(pb.GetStatusRequest())  # and the watch has its turn
            _, peak = tracemalloc.get_traced_memory()
            # One slice of 256 entries, as messages and as the bytes that wait for the connection.
            assert peak - held_before < 8 * MB
            assert desk.journal.last_lsn > 20_000, "40 MB were to be read"
            lazy.cancel()

    tracemalloc.start()
    try:
        asyncio.run(story())
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("is_on", [True, False])
def test_reflection_can_be_switched_off(desk: ControlDesk, is_on: bool) -> None:
    configure(desk, reflection=is_on)

    async def story() -> None:
        async with asyncio.timeout(WAIT_S), desk.serving() as client:
            stub: Any = reflection_pb2_grpc.ServerReflectionStub(client.channel)
            question = reflection_pb2.ServerReflectionRequest(list_services="")
            answers = stub.ServerReflectionInfo(iter([question]))
            try:
                found = [answer async for answer in answers]
            except grpc.aio.AioRpcError as error:
                assert error.code() is Status.UNIMPLEMENTED
                found = []
            assert bool(found) is is_on

    asyncio.run(story())
