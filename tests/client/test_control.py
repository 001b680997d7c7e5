"""The Python client: what it is told, how long it waits, and what it repeats."""

import asyncio
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

import pytest
from client_tools import PATIENCE_S, Wire, make_refusing, make_standby, run, serving, socket_of, until
from control_tools import ControlDesk
from desk_tools import ACCOUNT, BTC
from google.protobuf import message_factory
from google.protobuf.struct_pb2 import Struct

from host.client import (
    Conflict,
    Control,
    ControlError,
    Credentials,
    DeadlineExceeded,
    InvalidRequest,
    NotFound,
    NotPermitted,
    NotPrimary,
    Refused,
    Unavailable,
    Unreachable,
)
from host.client.calling import Unary, Watch
from host.client.nodes import Node, Nodes
from host.client.services import NodeCalls, PluginCalls, TradingCalls
from host.control.principal import Role
from host.core import entries as e
from tandem.v1 import common_pb2 as c
from tandem.v1 import node_pb2 as n
from tandem.v1 import plugin_pb2 as p
from tandem.v1 import trading_pb2 as t

MM = "instances/mm"


@pytest.fixture
def desk(tmp_path: Path) -> ControlDesk:
    return ControlDesk(tmp_path)


def away(value: float, **fields: Any) -> p.SetParamsRequest:
    params = Struct()
    params["away"] = value
    return p.SetParamsRequest(name=MM, params=params, **fields)


def changes(desk: ControlDesk) -> int:
    """Return how often parameters were changed, as the journal has it."""
    desk.journal.flush()
    return sum(isinstance(entry, e.ParamsChanged) for entry in desk.entries)


@pytest.mark.parametrize(
    ("calls", "service"),
    [
        (NodeCalls, n.DESCRIPTOR.services_by_name["NodeService"]),
        (PluginCalls, p.DESCRIPTOR.services_by_name["PluginService"]),
        (TradingCalls, t.DESCRIPTOR.services_by_name["TradingService"]),
    ],
)
def test_every_rpc_is_there_with_its_own_types(calls: type, service: Any) -> None:
    hints = get_type_hints(calls)
    assert len(hints) == len(service.methods)
    for method, (name, hint) in zip(service.methods, hints.items(), strict=True):
        assert name.replace("_", "") == method.name.lower()
        assert get_origin(hint) is (Watch if method.server_streaming else Unary)
        types = (
            message_factory.GetMessageClass(method.input_type),
            message_factory.GetMessageClass(method.output_type),
        )
        assert get_args(hint) == types


def test_a_call_changes_the_node_and_returns_its_answer(desk: ControlDesk) -> None:
    async def story() -> None:
        async with serving(desk) as address, Control([address]) as control:
            answer = await control.plugins.set_params(away(3.0))
            assert answer.instance.params["away"] == 3.0
            assert control.address == address
        assert desk.instance().strategy.params.away == 3.0

    run(story)


@pytest.mark.parametrize(
    ("kind", "reason", "request_"),
    [
        (NotFound, "INSTANCE_NOT_FOUND", p.PauseInstanceRequest(name="instances/none")),
        (InvalidRequest, "INVALID_FIELD", p.PauseInstanceRequest(name="plugins/mm")),
        (Conflict, "ETAG_MISMATCH", p.PauseInstanceRequest(name=MM, etag="old")),
    ],
)
def test_a_refusal_is_of_the_class_that_says_what_to_do(
    kind: type[ControlError], reason: str, request_: p.PauseInstanceRequest, desk: ControlDesk
) -> None:
    async def story() -> None:
        async with serving(desk) as address, Control([address]) as control:
            with pytest.raises(kind) as refused:
                await control.plugins.pause_instance(request_)
            assert (refused.value.reason, refused.value.request_id) == (reason, "")
            assert ("name" in refused.value.fields) is (kind is InvalidRequest)

    run(story)


def test_a_change_that_the_node_refused_is_not_asked_for_again(desk: ControlDesk) -> None:
    async def story() -> None:
        async with serving(desk) as address, Control([address]) as control:
            with pytest.raises(Refused, match="only one that is stopped or quarantined"):
                await control.plugins.start_instance(p.StartInstanceRequest(name=MM))

    run(story)
    assert [line.count for line in desk.audited()] == [1]


def test_a_role_that_is_too_low_and_a_wrong_token_are_not_permitted(desk: ControlDesk) -> None:
    viewer = Credentials.load(token=desk.token(Role.VIEWER))
    stranger = Credentials.load(token="tandem_00000000_" + "x" * 43)

    async def story() -> None:
        async with serving(desk) as address:
            async with Control([address], viewer) as control:
                assert (await control.node.get_status(n.GetStatusRequest())).status.node
                with pytest.raises(NotPermitted, match="needs the role operator"):
                    await control.plugins.pause_instance(p.PauseInstanceRequest(name=MM))
            async with Control([address], stranger) as control:
                with pytest.raises(NotPermitted, match="token is unknown"):
                    await control.node.get_status(n.GetStatusRequest())

    run(story)


def test_every_call_has_a_deadline_and_a_change_that_ran_out_of_time_can_be_repeated(
    desk: ControlDesk,
) -> None:
    async def story() -> None:
        desk.tick()
        desk.venue.is_deaf = True  # so that the drain waits for what never comes
        async with serving(desk) as address, Control([address], timeout_s=0.3) as control:
            with pytest.raises(DeadlineExceeded) as over:
                await control.node.drain(n.DrainRequest())
            assert over.value.request_id

    run(story)


def test_a_deadline_that_is_over_before_the_call_is_sent_leaves_no_doubt(desk: ControlDesk) -> None:
    async def story() -> None:
        async with serving(desk) as address, Control([address]) as control:
            await control.node.get_status(n.GetStatusRequest())
            with pytest.raises(DeadlineExceeded, match="nothing was done") as over:
                await control.plugins.set_params(away(9.0), timeout_s=0.0)
            assert over.value.request_id == ""

    run(story)
    assert changes(desk) == 0


def test_a_node_that_is_not_there_is_unreachable_and_nothing_is_in_doubt(tmp_path: Path) -> None:
    async def story() -> None:
        async with Control([f"unix:{tmp_path}/none.sock"], patience_s=0.1) as control:
            with pytest.raises(
                Unreachable, match=r"no node answers at unix:.*none\.sock: No such file"
            ) as error:
                await control.plugins.set_params(away(3.0))
            assert error.value.request_id == ""

    run(story)


def test_a_node_that_starts_meanwhile_is_found(desk: ControlDesk) -> None:
    async def story() -> None:
        async with Control([socket_of(desk)], timeout_s=PATIENCE_S, patience_s=PATIENCE_S) as control:
            asking = asyncio.create_task(control.node.get_status(n.GetStatusRequest()))
            await asyncio.sleep(0)
            async with serving(desk):
                assert (await asking).status.node == "desk"

    run(story)


def test_a_change_whose_answer_was_lost_happens_once(desk: ControlDesk, tmp_path: Path) -> None:
    order = t.PlaceOrderRequest(
        account=f"accounts/{ACCOUNT}", symbol=BTC, side=c.SIDE_BUY, price="50.00", qty="0.500"
    )

    def by_hand() -> list[str]:
        orders = desk.engine.state.orders.values()
        return [f"orders/{one.client_id}" for one in orders if one.instance == f"hand@{ACCOUNT}"]

    async def story() -> None:
        async with (
            serving(desk),
            Wire(tmp_path / "wire.sock", tmp_path / "c.sock").laid() as wire,
            Control([wire.address], timeout_s=PATIENCE_S, patience_s=PATIENCE_S) as control,
        ):
            await control.node.get_status(n.GetStatusRequest())
            wire.hold_answers()
            asking = asyncio.create_task(control.trading.place_order(order))
            await until(lambda: bool(by_hand()))
            wire.cut()
            assert [(await asking).order.name] == by_hand()

    desk.tick()
    run(story)
    assert len(by_hand()) == 1


@pytest.mark.parametrize("reason", ["HALTED", "STOPPING", "EXCHANGE_UNAVAILABLE", "AUDIT_FAILED"])
def test_a_node_that_says_no_is_asked_once(reason: str, desk: ControlDesk) -> None:
    refusing = make_refusing(desk, reason, "not now")

    async def story() -> None:
        async with serving(desk) as address, Control([address]) as control:
            with pytest.raises(Unavailable, match="not now") as refused:
                await control.plugins.set_params(away(3.0))
            assert (refused.value.reason, refused.value.request_id) == (reason, "")

    run(story)
    assert refusing.asked == 1


def test_a_node_that_is_starting_is_asked_until_it_has_started(desk: ControlDesk) -> None:
    refusing = make_refusing(desk, "STARTING", "not yet", most=2)

    async def story() -> None:
        async with (
            serving(desk) as address,
            Control([address], timeout_s=PATIENCE_S, patience_s=PATIENCE_S) as control,
        ):
            await control.plugins.set_params(away(3.0))

    run(story)
    assert (refusing.asked, changes(desk)) == (2, 1)


def test_a_request_is_left_as_it_is_so_that_it_can_be_sent_again_as_another(desk: ControlDesk) -> None:
    request = away(4.0)

    async def story() -> None:
        async with serving(desk) as address, Control([address]) as control:
            await control.plugins.set_params(request)
            await control.plugins.set_params(away(5.0))
            await control.plugins.set_params(request)

    run(story)
    assert request == away(4.0)
    assert desk.instance().strategy.params.away == 4.0


def test_a_callers_own_request_id_is_kept(desk: ControlDesk) -> None:
    async def story() -> None:
        async with serving(desk) as address, Control([address]) as control:
            for _ in range(2):
                await control.plugins.set_params(away(4.0, request_id="mine"))

    run(story)
    assert changes(desk) == 1


def test_all_pages_of_a_list_are_read(desk: ControlDesk) -> None:
    async def story() -> None:
        async with serving(desk) as address, Control([address]) as control:
            request = p.ListPluginsRequest(page_size=1)
            pages = [page async for page in control.pages(control.plugins.list_plugins, request)]
            assert [one.name for page in pages for one in page.plugins] == ["plugins/maker", "plugins/shift"]
            assert len(pages) == 2
            assert request.page_token == ""

    run(story)


# -- watches -------------------------------------------------------------------------------------


def test_a_watch_of_events_goes_on_after_a_cut_without_a_gap(desk: ControlDesk, tmp_path: Path) -> None:
    async def story() -> None:
        async with (
            serving(desk),
            Wire(tmp_path / "wire.sock", tmp_path / "c.sock").laid() as wire,
            Control([wire.address], patience_s=PATIENCE_S) as control,
        ):
            seen: list[int] = []
            cuts = 0
            async with asyncio.timeout(PATIENCE_S):
                async for answer in control.node.watch_events(n.WatchEventsRequest(from_lsn=1)):
                    seen.extend(event.lsn for event in answer.events)
                    if seen and cuts < 3:
                        wire.cut()
                        cuts += 1
                        last = desk.journal.last_lsn
                    elif seen and seen[-1] > last:
                        break
                    desk.tick(100.0 + cuts)
            assert seen == list(range(1, seen[-1] + 1))

    run(story)


def test_a_watch_of_resources_begins_again_after_a_cut(desk: ControlDesk, tmp_path: Path) -> None:
    async def story() -> None:
        async with (
            serving(desk),
            Wire(tmp_path / "wire.sock", tmp_path / "c.sock").laid() as wire,
            Control([wire.address], patience_s=PATIENCE_S) as control,
        ):
            watch = control.plugins.watch_instances(p.WatchInstancesRequest())
            async with asyncio.timeout(PATIENCE_S):
                assert (await anext(watch)).snapshot
                wire.cut()
                again = await anext(watch)
            assert again.snapshot
            assert [one.name for one in again.instances] == [MM]
            await watch.aclose()

    run(story)


def test_a_watch_that_cannot_go_on_without_a_gap_says_so(desk: ControlDesk, tmp_path: Path) -> None:
    async def story() -> None:
        async with (
            serving(desk),
            Wire(tmp_path / "wire.sock", tmp_path / "c.sock").laid() as wire,
            Control([wire.address], patience_s=PATIENCE_S) as control,
        ):
            await control.node.get_status(n.GetStatusRequest())
            wire.hold_answers()
            carried = wire.carried
            first = asyncio.ensure_future(anext(control.trading.watch_fills(t.WatchFillsRequest())))
            await until(lambda: wire.carried > carried)
            wire.cut()
            with pytest.raises(Unreachable):
                await asyncio.wait_for(first, PATIENCE_S)

    run(story)


def test_a_refused_watch_says_why(desk: ControlDesk) -> None:
    async def story() -> None:
        async with serving(desk) as address, Control([address]) as control:
            with pytest.raises(InvalidRequest) as refused:
                await anext(control.node.watch_events(n.WatchEventsRequest(from_lsn=10**9)))
            assert refused.value.reason == "LSN_TOO_NEW"

    run(story)


# -- a pair --------------------------------------------------------------------------------------


def two_desks(folder: Path) -> tuple[ControlDesk, ControlDesk]:
    for name in ("a", "b"):
        (folder / name).mkdir(mode=0o700)
    return ControlDesk(folder / "a"), ControlDesk(folder / "b")


@pytest.fixture
def pair(tmp_path: Path) -> tuple[ControlDesk, ControlDesk]:
    """Return a primary and a standby."""
    primary, standby = two_desks(tmp_path)
    make_standby(standby, socket_of(primary))
    return primary, standby


def test_of_two_addresses_the_primarys_is_used_also_for_looking(
    pair: tuple[ControlDesk, ControlDesk],
) -> None:
    primary, standby = pair

    async def story() -> None:
        addresses = [socket_of(standby), socket_of(primary)]
        async with serving(primary), serving(standby, is_primary=False), Control(addresses) as control:
            await control.node.get_status(n.GetStatusRequest())
            assert control.address == socket_of(primary)

    run(story)


def test_a_standby_alone_leads_to_its_primary(pair: tuple[ControlDesk, ControlDesk]) -> None:
    primary, standby = pair

    async def story() -> None:
        async with (
            serving(primary),
            serving(standby, is_primary=False) as address,
            Control([address]) as control,
        ):
            await control.plugins.set_params(away(7.0))

    run(story)
    assert (changes(primary), changes(standby)) == (1, 0)


def test_when_the_primary_is_gone_the_one_that_took_over_is_called(tmp_path: Path) -> None:
    first, second = two_desks(tmp_path)

    async def story() -> None:
        addresses = [socket_of(first), socket_of(second)]
        async with serving(second), Control(addresses, patience_s=PATIENCE_S) as control:
            async with serving(first):
                await control.plugins.set_params(away(7.0))
                assert control.address == socket_of(first)
            await control.plugins.set_params(away(8.0))
            assert control.address == socket_of(second)

    run(story)
    assert (changes(first), changes(second)) == (1, 1)


def note_looks(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Return a list to which each look for a node adds whether it found one that leads."""
    looks: list[bool] = []
    find = Nodes.find

    async def noted(self: Nodes, until_s: float) -> Node:
        node = await find(self, until_s)
        looks.append(node.is_primary)
        return node

    monkeypatch.setattr(Nodes, "find", noted)
    return looks


def test_a_watch_waits_for_the_next_primary_rather_than_stay_with_a_standby(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = two_desks(tmp_path)

    async def story() -> None:
        addresses = [socket_of(first), socket_of(second)]
        async with (
            serving(first),
            serving(second, is_primary=False),
            Control(addresses, patience_s=PATIENCE_S) as control,
        ):
            assert first.server is not None
            assert second.server is not None
            watch = control.plugins.watch_instances(p.WatchInstancesRequest())
            assert (await anext(watch)).snapshot
            assert control.address == socket_of(first)
            looks = note_looks(monkeypatch)
            await first.server.set_primary(is_primary=False)
            first.pair.step_down()
            again = asyncio.ensure_future(anext(watch))
            await until(lambda: looks.count(False) >= 2)  # in vain: nobody leads
            assert not first.subject.under_way.count
            await second.server.set_primary(is_primary=True)
            assert (await again).snapshot
            assert control.address == socket_of(second)
            await watch.aclose()

    run(story)


@pytest.mark.parametrize("hint", ["", "nonsense", "itself"])
def test_a_standby_that_leads_nowhere_is_told_of(hint: str, tmp_path: Path) -> None:
    desk = ControlDesk(tmp_path)
    make_standby(desk, socket_of(desk) if hint == "itself" else hint)

    async def story() -> None:
        async with serving(desk, is_primary=False) as address, Control([address], patience_s=0.1) as control:
            with pytest.raises(NotPrimary, match="this node is a standby"):
                await control.plugins.set_params(away(7.0))
            assert (await control.node.get_status(n.GetStatusRequest())).status.node

    run(story)
    assert changes(desk) == 0
