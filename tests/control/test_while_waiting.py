"""Calls that wait: what others do meanwhile counts, and a caller who leaves leaves nothing half done."""

import asyncio
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec
import pytest
from control_tools import ETH, MM, ControlDesk
from desk_tools import ScriptedVenue
from google.protobuf.duration_pb2 import Duration

from host.core import entries as e
from host.runtime.instance_control import NotNow
from tandem.v1 import node_pb2, plugin_pb2


@pytest.fixture
def desk(tmp_path: Path) -> ControlDesk:
    return ControlDesk(tmp_path)


def start_while(
    desk: ControlDesk, meanwhile: Callable[[], object], name: str = "mm", times: int = 1
) -> list[str]:
    """Do something while starts of an instance wait for a reload; return what each start came to."""

    async def start() -> str:
        try:
            instance = await desk.subject.instances.start(
                name, "ann", paused=False, as_configured=False, then=lambda _: None
            )
        except NotNow as error:
            return error.reason
        return str(instance.state)

    async def story() -> list[str]:
        async with desk.reloader.holding(["maker"]):
            starts = [asyncio.ensure_future(start()) for _ in range(times)]
            await asyncio.sleep(0)  # each runs until it waits
            assert not any(one.done() for one in starts)
            meanwhile()
        return await asyncio.gather(*starts)

    return asyncio.run(story())


def test_of_two_starts_at_once_the_second_finds_the_instance_running(desk: ControlDesk) -> None:
    desk.subject.instances.stop("mm", "ann", "test")
    assert start_while(desk, lambda: None, times=2) == ["running", "WRONG_STATE"]
    assert [entry.is_held for entry in desk.entries if isinstance(entry, e.InstanceHeld)] == [True, False]


def test_parameters_set_while_a_start_waits_are_what_the_instance_starts_with(desk: ControlDesk) -> None:
    control = desk.subject.instances
    control.stop("mm", "ann", "test")

    def set_params() -> None:
        table, params = control.merged_params("mm", {"away": 7.0}, ())
        control.set_params("mm", table, params, "bob")

    assert start_while(desk, set_params) == ["running"]
    assert msgspec.to_builtins(desk.instance().strategy.params)["away"] == 7.0


def test_an_instance_whose_section_changes_while_its_start_waits_is_not_started(desk: ControlDesk) -> None:
    desk.subject.instances.stop("mm", "ann", "test")

    def edit() -> None:
        other = msgspec.structs.replace(MM, symbols=(ETH,))
        desk.config = msgspec.structs.replace(desk.config, instance=(other,))

    assert start_while(desk, edit) == ["WRONG_STATE"]
    assert desk.instance().state == "stopped"


def test_an_instance_removed_while_its_start_waits_does_not_come_back(desk: ControlDesk) -> None:
    control = desk.subject.instances
    section = msgspec.structs.replace(MM, name="eth", symbols=(ETH,))
    asyncio.run(control.create(section, "ann", lambda _: None))
    control.stop("eth", "ann", "test")
    assert start_while(desk, lambda: control.remove("eth", "bob", "test"), "eth") == ["WRONG_STATE"]
    assert list(desk.engine.roster.instances) == ["mm"]


def test_a_start_that_waits_while_the_node_stops_is_refused(desk: ControlDesk) -> None:
    desk.subject.instances.stop("mm", "ann", "test")
    assert start_while(desk, lambda: desk.engine.stop_trading("test")) == ["STOPPING"]


def test_an_instance_that_starts_while_the_node_stops_sends_no_order(desk: ControlDesk) -> None:
    """An edit of the configuration can be that late too."""
    desk.engine.stop_trading("test")
    desk.settle()
    late = msgspec.structs.replace(MM, name="late")
    desk.maker.start(desk.maker.install(desk.maker.prepare(late)), late)
    desk.tick()
    assert desk.instance("late").state == "running"
    assert not desk.venue.open()


class _SlowVenue(ScriptedVenue):
    """A venue that answers subscriptions when it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.subscriptions: list[str] = []
        self.was_asked, self.was_given_up, self.may_answer = (asyncio.Event() for _ in range(3))

    async def subscribe(self, symbols: Sequence[str]) -> None:
        self.subscriptions += symbols
        self.was_asked.set()
        try:
            await self.may_answer.wait()
        except asyncio.CancelledError:
            self.was_given_up.set()
            raise


def test_a_creation_given_up_while_the_venue_subscribes_leaves_no_symbol_behind(tmp_path: Path) -> None:
    async def story() -> None:
        venue = _SlowVenue()
        desk = ControlDesk(tmp_path, venue)
        del desk.engine.feeds["acc"].symbols[ETH]
        made = plugin_pb2.Instance(plugin="maker", account="accounts/acc", symbols=[ETH])
        request = plugin_pb2.CreateInstanceRequest(instance_id="eth", instance=made)
        async with desk.serving() as client:
            left = client.plugin.CreateInstance(request)
            await venue.was_asked.wait()
            left.cancel()
            await venue.was_given_up.wait()
            venue.may_answer.set()
            await client.plugin.CreateInstance(request)
        assert venue.subscriptions == [ETH, ETH]

    asyncio.run(story())


def test_a_drain_whose_caller_left_is_not_done_again_under_the_same_id(desk: ControlDesk) -> None:
    async def story() -> None:
        async with desk.serving() as client:
            desk.tick()
            watch = client.plugin.WatchInstances(plugin_pb2.WatchInstancesRequest())
            assert (await watch.read()).snapshot
            request = node_pb2.DrainRequest(wait=Duration(seconds=60), request_id="one")
            left = client.node.Drain(request)
            paused = (await watch.read()).instances[0]
            assert paused.state == plugin_pb2.INSTANCE_STATE_PAUSED
            left.cancel()
            desk.settle()
            await client.plugin.ResumeInstance(plugin_pb2.ResumeInstanceRequest(name="instances/mm"))
            answer = await client.node.Drain(request)
            assert list(answer.paused_instances) == ["instances/mm"]
        assert desk.instance().state == "running"

    asyncio.run(story())


def test_a_reload_whose_caller_leaves_after_the_swap_is_told_as_carried_out(desk: ControlDesk) -> None:
    """Else it were in no audit log, and would be done again under the same id."""

    async def story() -> None:
        desk.maker_file.write_text(desk.maker_file.read_text() + "\n# edited\n")
        loop, in_use = asyncio.get_running_loop(), desk.reloader.in_use
        close_discarded, may_end, has_swapped = in_use.close_discarded, threading.Event(), asyncio.Event()

        def close_when_told() -> None:
            loop.call_soon_threadsafe(has_swapped.set)
            assert may_end.wait(30)
            close_discarded()

        in_use.close_discarded = close_when_told  # type: ignore[method-assign]
        reload = asyncio.ensure_future(desk.subject.reload("maker"))
        await has_swapped.wait()
        reload.cancel()
        await asyncio.sleep(0)  # it hears of that
        may_end.set()
        assert (await reload).state == "active"

    asyncio.run(story())
