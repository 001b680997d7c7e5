"""A node takes another role within one process: what is under way ends, what comes next asks the new engine."""

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import grpc
import msgspec
import pytest
from control_tools import ControlDesk, Status, refusal_in, refused
from google.protobuf.descriptor import MethodDescriptor
from leadership_tools import B
from test_conventions import SERVED, call, methods, name_of, request_for
from test_node_service import alerts

from host.client import Control, Unavailable
from host.control.rules import RULES
from host.core import entries as e
from tandem.v1 import node_pb2, plugin_pb2, trading_pb2

PRIMARY = B.control_address
WAIT_S = 20
STREAMS = [pytest.param(one, id=one.name) for one in methods(*SERVED) if one.server_streaming]
LOOKS = [one for one in methods(*SERVED) if RULES[name_of(one)].on_standby and not one.server_streaming]


@pytest.fixture
def desk(tmp_path: Path) -> ControlDesk:
    return ControlDesk(tmp_path)


def run(story: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Tell a story, within a time that a busy machine keeps too."""
    asyncio.run(asyncio.wait_for(story(), WAIT_S))


async def until_under_way(desk: ControlDesk, *, is_so: bool = True) -> None:
    """Return when a watch or a longer call is under way, or none is any more."""
    while bool(desk.subject.under_way.count) is not is_so:
        await asyncio.sleep(0.002)


def stream_of(client: Any, method: MethodDescriptor) -> Any:
    stub = getattr(client.stub(method.containing_service.full_name), method.name)
    return stub(request_for(method), timeout=WAIT_S)


@pytest.mark.parametrize("method", STREAMS)
def test_every_watch_ends_with_the_role_and_says_so(desk: ControlDesk, method: MethodDescriptor) -> None:
    async def story() -> None:
        async with desk.serving() as client:
            desk.tick()
            watch = stream_of(client, method)
            await until_under_way(desk)
            desk.pair.step_down()
            with pytest.raises(grpc.aio.AioRpcError) as ended:
                async for _ in watch:
                    pass
            refusal = refusal_in(ended.value)
            assert (refusal.code, refusal.reason) == (Status.UNAVAILABLE, "ROLE_CHANGED")
            assert not desk.subject.under_way.count

    run(story)


def test_a_watch_whose_last_answer_nobody_read_ends_too(desk: ControlDesk) -> None:
    async def story() -> None:
        async with desk.serving() as client:
            alerts(desk, 10_000, "much ado " * 250)  # more than gRPC and the kernel hold for a client
            watch = client.node.WatchEvents(node_pb2.WatchEventsRequest(from_lsn=1))
            await watch.read()  # and then no more: what the node sends fills the connection's window
            await until_under_way(desk)
            desk.pair.step_down()
            with pytest.raises(grpc.aio.AioRpcError) as ended:
                while await watch.read() is not grpc.aio.EOF:
                    pass
            assert refusal_in(ended.value).reason == "ROLE_CHANGED"

    run(story)


def test_a_call_that_waits_ends_with_the_role_and_leaves_nothing(desk: ControlDesk) -> None:
    async def story() -> None:
        async with desk.serving() as client:
            lsn = desk.journal.last_lsn
            async with desk.reloader.holding(["maker"]):  # a reload that takes its time
                create = plugin_pb2.CreateInstanceRequest(
                    instance_id="new",
                    instance=plugin_pb2.Instance(
                        plugin="maker", account="accounts/acc", symbols=["ETH-USDT"], start_paused=True
                    ),
                    request_id="one",
                )
                waiting = asyncio.ensure_future(refused(client.plugin.CreateInstance(create)))
                await until_under_way(desk)
                desk.pair.step_down()
                refusal = await waiting
            assert (refusal.code, refusal.reason) == (Status.UNAVAILABLE, "ROLE_CHANGED")
            desk.pair.take_over()
            assert "new" not in desk.engine.state.api_instances
            assert not desk.engine.state.requests
            assert all(isinstance(one, e.AuditAnchored) for one in desk.entries[lsn:])
            [line] = desk.audited()
            assert (line.method, line.outcome) == ("tandem.v1.PluginService/CreateInstance", "UNAVAILABLE")
            # The same id is free: nothing was carried out under it.
            made = await client.plugin.CreateInstance(create)
            assert made.instance.name == "instances/new"

    run(story)


def test_a_standby_answers_every_question_from_what_the_journal_says(desk: ControlDesk) -> None:
    async def story() -> None:
        async with desk.serving() as client:
            desk.tick()
            live = (await client.plugin.ListInstances(plugin_pb2.ListInstancesRequest())).instances
            orders = (await client.trading.ListOrders(trading_pb2.ListOrdersRequest())).orders
            balances = (await client.trading.ListBalances(trading_pb2.ListBalancesRequest())).balances
            assert orders
            desk.pair.step_down()
            for method in LOOKS:
                if RULES[name_of(method)].mutates:
                    continue
                try:
                    await call(client, method, request_for(method))
                except grpc.aio.AioRpcError as error:
                    assert error.code() is Status.NOT_FOUND, (
                        method.name
                    )  # such as a book, which it follows none
            status = (await client.node.GetStatus(node_pb2.GetStatusRequest())).status
            assert (status.role, status.primary_address) == (node_pb2.NODE_ROLE_STANDBY, PRIMARY)
            assert dict(status.instances) == {"RUNNING": 1}
            [known] = (await client.plugin.ListInstances(plugin_pb2.ListInstancesRequest())).instances
            for field in ("name", "plugin", "account", "symbols", "state", "digest", "origin", "params"):
                assert getattr(known, field) == getattr(live[0], field), field
            assert known.etag != live[0].etag
            asked = plugin_pb2.GetInstanceRequest(name="instances/mm")
            assert (await client.plugin.GetInstance(asked)).instance == known
            none = plugin_pb2.GetInstanceRequest(name="instances/none")
            assert (await refused(client.plugin.GetInstance(none))).reason == "INSTANCE_NOT_FOUND"
            assert (await client.trading.ListOrders(trading_pb2.ListOrdersRequest())).orders == orders
            assert (await client.trading.ListBalances(trading_pb2.ListBalancesRequest())).balances == balances

    run(story)


def test_a_standby_goes_by_its_own_name_not_by_that_in_its_primarys_journal(desk: ControlDesk) -> None:
    desk.config = msgspec.structs.replace(
        desk.config, node=msgspec.structs.replace(desk.config.node, name="other")
    )

    async def story() -> None:
        async with desk.serving() as client:
            desk.pair.step_down()
            status = (await client.node.GetStatus(node_pb2.GetStatusRequest())).status
            assert (desk.subject.engine.state.node, status.node) == ("desk", "other")

    run(story)


def test_a_standby_knows_the_versions_of_its_primarys_plugins(desk: ControlDesk) -> None:
    async def story() -> None:
        async with desk.serving() as client:
            desk.maker_file.write_text(desk.maker_file.read_text() + "\n# another version\n")
            await client.plugin.ReloadPlugin(plugin_pb2.ReloadPluginRequest(name="plugins/maker"))
            await client.plugin.PromotePlugin(plugin_pb2.PromotePluginRequest(name="plugins/maker"))
            asked = plugin_pb2.GetPluginRequest(name="plugins/maker")
            versions = plugin_pb2.ListVersionsRequest(parent="plugins/maker")
            live, listed = (
                (await client.plugin.GetPlugin(asked)).plugin,
                await client.plugin.ListVersions(versions),
            )
            desk.pair.step_down()
            known = (await client.plugin.GetPlugin(asked)).plugin
            for field in ("name", "digest", "permanent_digest", "staged_digest", "auto_reload", "instances"):
                assert getattr(known, field) == getattr(live, field), field
            assert await client.plugin.ListVersions(versions) == listed
            mine = plugin_pb2.ListInstancesRequest(plugin="plugins/maker")
            other = plugin_pb2.ListInstancesRequest(plugin="plugins/shift")
            assert len((await client.plugin.ListInstances(mine)).instances) == 1
            assert not (await client.plugin.ListInstances(other)).instances
            missing = plugin_pb2.GetPluginRequest(name="plugins/none")
            assert (await refused(client.plugin.GetPlugin(missing))).reason == "PLUGIN_NOT_FOUND"

    run(story)


def test_a_standby_writes_nothing_into_the_journal_of_its_primary(desk: ControlDesk) -> None:
    async def story() -> None:
        async with desk.serving(stall_s=0.1) as client:
            alerts(desk, 10_000, "much ado " * 250)  # more than gRPC and the kernel hold for a client
            desk.pair.step_down()
            lsn = desk.journal.last_lsn
            level = node_pb2.SetLogLevelRequest(level=node_pb2.LOG_LEVEL_INFO, request_id="one")
            assert await client.node.SetLogLevel(level) == await client.node.SetLogLevel(level)
            shutdown = node_pb2.ShutdownRequest(request_id="two")
            await client.node.Shutdown(shutdown)
            await client.node.Shutdown(shutdown)
            assert len(desk.stopped) == 1, "a repeated id is answered as before on a standby too"
            level.level = node_pb2.LOG_LEVEL_ERROR
            assert (await refused(client.node.SetLogLevel(level))).reason == "REQUEST_ID_REUSED"
            stalled = client.node.WatchEvents(node_pb2.WatchEventsRequest(from_lsn=1))
            await stalled.read()
            await until_under_way(desk, is_so=False)  # it is dropped
            assert desk.journal.last_lsn == lsn

    run(story)


def test_a_standby_refuses_changes_also_where_it_does_not_know_the_primary(desk: ControlDesk) -> None:
    async def story() -> None:
        async with desk.serving() as client:
            desk.pair.step_down()
            desk.subject.standby_of = lambda: None  # between two roles
            set_params = plugin_pb2.SetParamsRequest(name="instances/mm")
            refusal = await refused(client.plugin.SetParams(set_params))
            assert (refusal.reason, refusal.metadata) == ("NOT_PRIMARY", {"primary_address": ""})

    run(story)


def test_the_python_client_goes_on_over_a_change_of_role_without_a_gap(desk: ControlDesk) -> None:
    async def story() -> None:
        async with (
            desk.serving(),
            Control([f"unix:{desk.home}/c.sock"], patience_s=WAIT_S) as control,
        ):
            first = desk.journal.last_lsn + 1
            watch = control.node.watch_events(node_pb2.WatchEventsRequest(from_lsn=first))
            resources = control.plugins.watch_instances(plugin_pb2.WatchInstancesRequest())
            seen: list[int] = []

            async def see(lsn: int) -> None:
                async with asyncio.timeout(WAIT_S):
                    while not seen or seen[-1] < lsn:
                        seen.extend(event.lsn for event in (await anext(watch)).events)

            assert (await anext(resources)).snapshot
            desk.engine.alert("one", "before")
            await see(desk.journal.last_lsn)
            desk.pair.step_down()
            desk.engine.alert("two", "what the primary wrote meanwhile")
            await see(desk.journal.last_lsn)
            desk.pair.take_over()
            desk.engine.alert("three", "after")
            await see(desk.journal.last_lsn)
            assert seen == list(range(first, first + len(seen)))
            assert len(seen) >= 3
            assert (await anext(resources)).snapshot
            await watch.aclose()
            await resources.aclose()

    run(story)


def test_a_change_cut_short_by_the_role_is_repeated_under_its_id(desk: ControlDesk) -> None:
    async def story() -> None:
        async with desk.serving(), Control([f"unix:{desk.home}/c.sock"], patience_s=WAIT_S) as control:
            paused = plugin_pb2.PauseInstanceRequest(name="instances/mm")
            await control.plugins.pause_instance(paused)
            await control.plugins.stop_instance(plugin_pb2.StopInstanceRequest(name="instances/mm"))
            start = plugin_pb2.StartInstanceRequest(name="instances/mm")
            async with desk.reloader.holding(["maker"]):
                waiting = asyncio.ensure_future(control.plugins.start_instance(start, timeout_s=WAIT_S))
                await until_under_way(desk)
                desk.pair.take_over()
            await waiting
        assert desk.instance().state == "running"

    run(story)


def test_what_the_role_cut_short_for_an_impatient_caller_tells_the_id_to_repeat_it_with(
    desk: ControlDesk,
) -> None:
    async def story() -> None:
        async with desk.serving(), Control([f"unix:{desk.home}/c.sock"], patience_s=0.0) as control:
            await control.plugins.stop_instance(plugin_pb2.StopInstanceRequest(name="instances/mm"))
            start = plugin_pb2.StartInstanceRequest(name="instances/mm", request_id="mine")
            async with desk.reloader.holding(["maker"]):
                waiting = asyncio.ensure_future(control.plugins.start_instance(start, timeout_s=WAIT_S))
                await until_under_way(desk)
                desk.pair.take_over()
                with pytest.raises(Unavailable) as refusal:
                    await waiting
            assert (refusal.value.reason, refusal.value.request_id) == ("ROLE_CHANGED", "mine")

    run(story)
