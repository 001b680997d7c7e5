"""Instances through the control API: what changes, what is refused, and what outlives a restart."""

import asyncio
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
import pytest
from control_tools import BTC, ETH, MM, ControlDesk, Status, refused
from google.protobuf.field_mask_pb2 import FieldMask

from host.config import ScheduleSection
from host.control.plain import struct, to_struct
from host.core import entries as e
from host.core.entries import InstanceState
from host.runtime.instance_control import with_api_instances
from tandem.v1 import common_pb2, node_pb2, trading_pb2
from tandem.v1 import plugin_pb2 as pb


@pytest.fixture
def desk(tmp_path: Path) -> ControlDesk:
    return ControlDesk(tmp_path)


def params(**values: Any) -> Any:
    request = pb.SetParamsRequest()
    to_struct(values, request.params)
    return request.params


def wanted(**fields: Any) -> pb.Instance:
    settings = {"plugin": "maker", "account": "accounts/acc", "symbols": [ETH], **fields}
    return pb.Instance(**settings)


def entries_of(desk: ControlDesk, kind: type[Any]) -> list[Any]:
    return [entry for entry in desk.entries if isinstance(entry, kind)]


def bids(desk: ControlDesk, symbol: str = BTC) -> list[Decimal | None]:
    return [order.price for order in desk.venue.open(symbol) if order.side == "buy"]


# -- parameters ----------------------------------------------------------------------------------


def test_new_parameters_hold_from_the_next_event_on_and_are_seen_everywhere(desk: ControlDesk) -> None:
    async def story() -> None:
        async with desk.serving() as client:
            desk.tick()
            assert bids(desk) == [Decimal(98)]
            watch = client.plugin.WatchInstances(pb.WatchInstancesRequest())
            assert (await watch.read()).snapshot

            answer = await client.plugin.SetParams(
                pb.SetParamsRequest(name="instances/mm", params=params(away=5, size="2"))
            )

            assert struct(answer.instance.params) == {"away": 5, "size": "2", "raises": False}
            assert bids(desk) == [Decimal(98)]
            desk.tick()
            assert bids(desk) == [Decimal(95)]
            got = await client.plugin.GetInstance(pb.GetInstanceRequest(name="instances/mm"))
            assert got.instance.params == answer.instance.params
            assert got.instance.etag == answer.instance.etag
            seen = (await watch.read()).instances[0]
            assert seen.params == answer.instance.params
        [changed] = entries_of(desk, e.ParamsChanged)
        assert changed.instance == "mm"
        [line] = desk.audited()
        assert (line.method, line.outcome) == ("tandem.v1.PluginService/SetParams", "OK")
        assert (line.before["away"], line.after["away"]) == (2.0, 5.0)

    asyncio.run(story())


def test_an_instance_without_parameters_says_that_it_has_none(tmp_path: Path) -> None:
    (tmp_path / "plugins").mkdir()
    (tmp_path / "plugins" / "maker.py").write_text(
        "from host.api import NoParams, Strategy\nclass Maker(Strategy[NoParams]): pass\n"
    )
    desk = ControlDesk(tmp_path, sections=(msgspec.structs.replace(MM, params={}),))

    async def story() -> None:
        async with desk.serving() as client:
            request = pb.SetParamsRequest(name="instances/mm", update_mask=FieldMask(paths=["away"]))
            refusal = await refused(client.plugin.SetParams(request))
            assert refusal.fields == {"update_mask": 'mm has no parameter "away"; it has none'}

    asyncio.run(story())


def test_a_refused_change_of_parameters_changes_nothing_at_all(desk: ControlDesk) -> None:
    async def story() -> None:
        async with desk.serving() as client:
            before = await client.plugin.GetInstance(pb.GetInstanceRequest(name="instances/mm"))
            lsn = desk.journal.last_lsn
            for values, field in (
                ({"away": -1}, "params.away"),
                ({"away": "far"}, "params.away"),
                ({"awya": 3}, "params.awya"),
                ({"away": 3, "size": [1]}, "params.size"),
            ):
                refusal = await refused(
                    client.plugin.SetParams(
                        pb.SetParamsRequest(name="instances/mm", params=params(**values), request_id="r")
                    )
                )
                assert (refusal.code, refusal.reason) == (Status.INVALID_ARGUMENT, "INVALID_PARAMS")
                assert field in refusal.fields
            after = await client.plugin.GetInstance(pb.GetInstanceRequest(name="instances/mm"))
        assert after == before
        assert desk.journal.last_lsn == lsn
        assert {line.outcome for line in desk.audited()} == {"INVALID_ARGUMENT"}

    asyncio.run(story())


def test_a_bound_that_is_broken_is_named_with_field_bound_and_value(desk: ControlDesk) -> None:
    async def story() -> None:
        async with desk.serving() as client:
            refusal = await refused(
                client.plugin.SetParams(pb.SetParamsRequest(name="instances/mm", params=params(away=-1)))
            )
        assert refusal.fields == {"params.away": "must be > 0, was -1"}

    asyncio.run(story())


@pytest.mark.parametrize(
    ("mask", "values", "after"),
    [
        ([], {"size": "3"}, {"away": 2.0, "size": "3"}),
        (["size"], {"size": "3", "away": 9}, {"away": 2.0, "size": "3"}),
        (["away"], {}, {"away": 1.0, "size": "1"}),
        (["*"], {"size": "3"}, {"away": 1.0, "size": "3"}),
    ],
)
def test_the_mask_says_which_parameters_change(
    desk: ControlDesk, mask: list[str], values: dict[str, Any], after: dict[str, Any]
) -> None:
    async def story() -> None:
        async with desk.serving() as client:
            answer = await client.plugin.SetParams(
                pb.SetParamsRequest(
                    name="instances/mm", params=params(**values), update_mask=FieldMask(paths=mask)
                )
            )
        assert struct(answer.instance.params) == {**after, "raises": False}

    asyncio.run(story())


def test_an_instance_that_raises_in_on_params_is_quarantined_and_the_answer_says_so(
    desk: ControlDesk,
) -> None:
    async def story() -> None:
        async with desk.serving() as client:
            answer = await client.plugin.SetParams(
                pb.SetParamsRequest(name="instances/mm", params=params(raises=True))
            )
        assert answer.instance.state == pb.INSTANCE_STATE_QUARANTINED
        assert "told to" in answer.instance.state_reason

    asyncio.run(story())


def test_get_holds_the_schema_of_the_parameters_and_lists_do_not(desk: ControlDesk) -> None:
    async def story() -> None:
        async with desk.serving() as client:
            got = await client.plugin.GetInstance(pb.GetInstanceRequest(name="instances/mm"))
            listed = await client.plugin.ListInstances(pb.ListInstancesRequest())
        schema = struct(got.instance.params_schema)
        assert schema["$defs"]["MakerParams"]["properties"]["away"]["exclusiveMinimum"] == 0
        assert not listed.instances[0].HasField("params_schema")

    asyncio.run(story())


def test_schedule_is_shown_and_what_it_holds_is_not_resumed(tmp_path: Path) -> None:
    schedule = ScheduleSection(windows=("mon 10:00-11:00",), triggers={"look": "every 1h"})
    held = msgspec.structs.replace(MM, name="held", schedule=schedule, after=("mm",))
    desk = ControlDesk(tmp_path, sections=(MM, held))

    async def story() -> None:
        async with desk.serving() as client:
            shown = (await client.plugin.GetInstance(pb.GetInstanceRequest(name="instances/held"))).instance
            assert shown.state == pb.INSTANCE_STATE_PAUSED
            assert shown.state_reason == shown.schedule.held_by
            assert shown.schedule.open_time.ToJsonString() == "2025-08-11T10:00:00Z"
            assert not shown.schedule.HasField("close_time")
            assert shown.schedule.next_trigger == "look"
            assert shown.schedule.next_trigger_time.ToJsonString() == "2025-08-08T11:00:00Z"
            assert shown.schedule.after == ["instances/mm"]
            free = (await client.plugin.GetInstance(pb.GetInstanceRequest(name="instances/mm"))).instance
            assert not free.HasField("schedule")
            for call in (
                client.plugin.ResumeInstance(pb.ResumeInstanceRequest(name="instances/held")),
                client.plugin.ResumeInstance(
                    pb.ResumeInstanceRequest(name="instances/held", validate_only=True)
                ),
            ):
                assert (await refused(call)).reason == "HELD_BY_SCHEDULE"

    asyncio.run(story())


# -- states --------------------------------------------------------------------------------------


def test_pause_pulls_quotes_and_resume_brings_them_back(desk: ControlDesk) -> None:
    async def story() -> None:
        async with desk.serving() as client:
            desk.tick()
            assert bids(desk)
            answer = await client.plugin.PauseInstance(
                pb.PauseInstanceRequest(name="instances/mm", reason="lunch")
            )
            desk.settle()
            assert answer.instance.state == pb.INSTANCE_STATE_PAUSED
            assert answer.instance.state_reason.endswith(": lunch")
            assert not desk.venue.open()
            await client.plugin.ResumeInstance(pb.ResumeInstanceRequest(name="instances/mm"))
            desk.tick()
            assert bids(desk)

    asyncio.run(story())


def test_a_stopped_instance_stays_stopped_over_a_restart_until_it_is_started(desk: ControlDesk) -> None:
    async def stop() -> None:
        async with desk.serving() as client:
            desk.tick()
            await client.plugin.StopInstance(pb.StopInstanceRequest(name="instances/mm"))
            desk.settle()
            assert not desk.venue.open()

    asyncio.run(stop())
    books = desk.instance().strategy.state.books
    assert books == 1
    again = desk.restarted()
    again.tick()
    assert again.instance().state is InstanceState.STOPPED
    assert not again.venue.open()

    async def start() -> None:
        async with again.serving() as client:
            answer = await client.plugin.StartInstance(pb.StartInstanceRequest(name="instances/mm"))
            assert answer.instance.state == pb.INSTANCE_STATE_RUNNING
        again.tick()
        assert again.instance().strategy.state.books == books + 1
        assert bids(again) == [Decimal(98)]

    asyncio.run(start())
    assert again.restarted().instance().state is InstanceState.RUNNING


def test_a_quarantined_instance_starts_again_on_an_operators_word(desk: ControlDesk) -> None:
    async def story() -> None:
        async with desk.serving() as client:
            await client.plugin.SetParams(
                pb.SetParamsRequest(name="instances/mm", params=params(raises=True))
            )
            await client.plugin.SetParams(
                pb.SetParamsRequest(name="instances/mm", params=params(raises=False))
            )
            answer = await client.plugin.StartInstance(
                pb.StartInstanceRequest(name="instances/mm", paused=True)
            )
        assert answer.instance.state == pb.INSTANCE_STATE_PAUSED

    asyncio.run(story())


@pytest.mark.parametrize(
    ("verb", "state"),
    [("Start", "running"), ("Pause", "stopped"), ("Resume", "stopped"), ("Stop", "stopped")],
)
def test_what_does_not_fit_the_state_is_refused_and_changes_nothing(
    desk: ControlDesk, verb: str, state: str
) -> None:
    async def story() -> None:
        async with desk.serving() as client:
            if state == "stopped":
                await client.plugin.StopInstance(pb.StopInstanceRequest(name="instances/mm"))
            lsn = desk.journal.last_lsn
            request = getattr(pb, f"{verb}InstanceRequest")(name="instances/mm")
            refusal = await refused(getattr(client.plugin, f"{verb}Instance")(request))
        assert (refusal.code, refusal.reason) == (Status.FAILED_PRECONDITION, "WRONG_STATE")
        assert f"instance mm is {state}" in refusal.text
        assert desk.journal.last_lsn == lsn

    asyncio.run(story())


# -- making and removing -------------------------------------------------------------------------


def test_a_created_instance_trades_and_comes_back_after_a_restart_with_its_parameters(
    desk: ControlDesk,
) -> None:
    async def story() -> None:
        async with desk.serving() as client:
            instance = wanted(models=[pb.ModelUse(model="shift")])
            to_struct({"away": 4.0}, instance.params)
            answer = await client.plugin.CreateInstance(
                pb.CreateInstanceRequest(instance_id="eth", instance=instance)
            )
            assert answer.instance.state == pb.INSTANCE_STATE_RUNNING
            assert answer.instance.origin == pb.INSTANCE_ORIGIN_API
            desk.tick()
            assert bids(desk, ETH) == [Decimal(96)]
            await client.plugin.SetParams(pb.SetParamsRequest(name="instances/eth", params=params(away=7)))

    asyncio.run(story())
    again = desk.restarted()
    again.tick()
    assert bids(again, ETH) == [Decimal(93)]
    assert [stage.name for stage in again.instance("eth").models] == ["shift"]
    assert bids(again) == [Decimal(98)], "the file's own instance has what the file says"


def test_a_removed_instance_leaves_once_its_orders_are_done_and_does_not_come_back(desk: ControlDesk) -> None:
    async def story() -> None:
        async with desk.serving() as client:
            await client.plugin.CreateInstance(pb.CreateInstanceRequest(instance_id="eth", instance=wanted()))
            desk.tick()
            assert bids(desk, ETH)
            watch = client.plugin.WatchInstances(pb.WatchInstancesRequest())
            await watch.read()

            await client.plugin.RemoveInstance(pb.RemoveInstanceRequest(name="instances/eth"))

            refusal = await refused(client.plugin.GetInstance(pb.GetInstanceRequest(name="instances/eth")))
            assert refusal.code is Status.NOT_FOUND
            assert list((await watch.read()).removed) == ["instances/eth"]
            assert "eth" in desk.engine.roster.instances, "its cancels are not confirmed yet"
            desk.settle()
            desk.advance(1)
            assert "eth" not in desk.engine.roster.instances
            assert not desk.venue.open(ETH)

    asyncio.run(story())
    assert "eth" not in desk.restarted().engine.roster.instances


def test_an_instance_that_a_start_left_out_can_be_removed_and_made_anew(desk: ControlDesk) -> None:
    section = msgspec.structs.replace(MM, name="eth", plugin="gone", symbols=(ETH,))
    desk.engine.begin_turn(desk.clock.now_ns())
    desk.engine.record(
        e.InstanceConfigured("eth", msgspec.json.encode(section), "tester"), desk.clock.now_ns()
    )
    desk.engine.end_turn(desk.clock.now_ns(), 0)

    async def story() -> None:
        async with desk.serving() as client:
            create = pb.CreateInstanceRequest(instance_id="eth", instance=wanted())
            remove = pb.RemoveInstanceRequest(name="instances/eth", validate_only=True)
            assert (await refused(client.plugin.CreateInstance(create))).reason == "INSTANCE_EXISTS"
            await client.plugin.RemoveInstance(remove)
            assert "eth" in desk.engine.state.api_instances
            remove.validate_only = False
            await client.plugin.RemoveInstance(remove)
            assert "eth" not in desk.engine.state.api_instances
            assert (await refused(client.plugin.RemoveInstance(remove))).code is Status.NOT_FOUND
            await client.plugin.CreateInstance(create)
            desk.tick()
            assert bids(desk, ETH)

    asyncio.run(story())


def test_an_instance_of_the_file_cannot_be_removed_here(desk: ControlDesk) -> None:
    async def story() -> None:
        async with desk.serving() as client:
            refusal = await refused(
                client.plugin.RemoveInstance(pb.RemoveInstanceRequest(name="instances/mm"))
            )
        assert (refusal.code, refusal.reason) == (Status.FAILED_PRECONDITION, "CONFIGURED_IN_FILE")
        assert desk.instance().state is InstanceState.RUNNING

    asyncio.run(story())


def test_everything_wrong_with_a_new_instance_is_named_at_once(desk: ControlDesk) -> None:
    async def story() -> None:
        async with desk.serving() as client:
            instance = wanted(
                plugin="makr",
                account="acc",
                symbols=["ETH-USDT", "eth", "ETH-USDT", "DOGE-USDT"],
                models=[pb.ModelUse(model="shift"), pb.ModelUse(model="none")],
                quote_tolerance_bps=-1,
            )
            to_struct({"bps": "much"}, instance.models[0].params)
            refusal = await refused(
                client.plugin.CreateInstance(pb.CreateInstanceRequest(instance_id="-", instance=instance))
            )
        assert refusal.code is Status.INVALID_ARGUMENT
        assert refusal.fields.keys() == {
            "instance_id", "instance.plugin", "instance.account", "instance.symbols[1]", "instance.symbols[2]",
            "instance.symbols[3]",
            "instance.quote_tolerance_bps", "instance.models[0].params.bps", "instance.models[1].model",
        }  # fmt: skip
        assert 'did you mean "maker"?' in refusal.fields["instance.plugin"]
        assert not entries_of(desk, e.InstanceConfigured)

    asyncio.run(story())


def test_a_name_in_use_is_refused(desk: ControlDesk) -> None:
    async def story() -> None:
        async with desk.serving() as client:
            refusal = await refused(
                client.plugin.CreateInstance(pb.CreateInstanceRequest(instance_id="mm", instance=wanted()))
            )
        assert (refusal.code, refusal.reason) == (Status.ALREADY_EXISTS, "INSTANCE_EXISTS")

    asyncio.run(story())


def test_a_name_that_turns_up_in_the_file_is_the_files_from_the_next_start_on(desk: ControlDesk) -> None:
    async def story() -> None:
        async with desk.serving() as client:
            await client.plugin.CreateInstance(pb.CreateInstanceRequest(instance_id="eth", instance=wanted()))

    asyncio.run(story())
    config = msgspec.structs.replace(desk.config, instance=(MM, msgspec.structs.replace(MM, name="eth")))
    merged = with_api_instances(config, desk.engine)
    assert [section.name for section in merged.instance] == ["mm", "eth"]
    assert merged.instance[1].symbols == (BTC,)
    assert "eth" not in desk.engine.state.api_instances
    assert len(desk.alerts("instance_replaced")) == 1


# -- lists ---------------------------------------------------------------------------------------


def test_pages_hold_each_instance_once_while_others_come_and_go(desk: ControlDesk) -> None:
    async def story() -> None:
        async with desk.serving() as client:
            for name in ("a", "b", "c", "d"):
                await client.plugin.CreateInstance(
                    pb.CreateInstanceRequest(instance_id=name, instance=wanted())
                )
            first = await client.plugin.ListInstances(pb.ListInstancesRequest(page_size=2))
            await client.plugin.RemoveInstance(pb.RemoveInstanceRequest(name="instances/b"))
            await client.plugin.CreateInstance(pb.CreateInstanceRequest(instance_id="aa", instance=wanted()))
            rest = await client.plugin.ListInstances(
                pb.ListInstancesRequest(page_size=100, page_token=first.next_page_token)
            )
        names = [one.name.removeprefix("instances/") for one in (*first.instances, *rest.instances)]
        assert names == ["a", "b", "c", "d", "mm"]
        assert not rest.next_page_token

    asyncio.run(story())


def test_lists_filter_by_state_account_and_plugin(desk: ControlDesk) -> None:
    async def story() -> None:
        async with desk.serving() as client:
            await client.plugin.CreateInstance(
                pb.CreateInstanceRequest(instance_id="eth", instance=wanted(start_paused=True))
            )

            async def names(**filters: Any) -> list[str]:
                answer = await client.plugin.ListInstances(pb.ListInstancesRequest(**filters))
                return [one.name for one in answer.instances]

            assert await names(states=[pb.INSTANCE_STATE_PAUSED]) == ["instances/eth"]
            assert await names(account="accounts/acc") == ["instances/eth", "instances/mm"]
            assert await names(plugin="plugins/shift") == []
            for filters, reason in (
                ({"account": "accounts/other"}, "ACCOUNT_NOT_FOUND"),
                ({"plugin": "plugins/other"}, "PLUGIN_NOT_FOUND"),
            ):
                unknown = client.plugin.ListInstances(pb.ListInstancesRequest(**filters))
                assert (await refused(unknown)).reason == reason
            page = await client.plugin.ListInstances(pb.ListInstancesRequest(page_size=1))
            refusal = await refused(
                client.plugin.ListInstances(
                    pb.ListInstancesRequest(page_token=page.next_page_token, plugin="plugins/maker")
                )
            )
            assert refusal.reason == "INVALID_PAGE_TOKEN"

    asyncio.run(story())


def test_a_paused_instance_says_after_a_restart_too_why_it_is_paused(desk: ControlDesk) -> None:
    async def pause() -> None:
        async with desk.serving() as client:
            await client.plugin.PauseInstance(
                pb.PauseInstanceRequest(name="instances/mm", reason="wide market")
            )

    asyncio.run(pause())
    again = desk.restarted()

    async def story() -> None:
        async with again.serving() as client:
            request = pb.GetInstanceRequest(name="instances/mm")
            shown = (await client.plugin.GetInstance(request)).instance
            assert shown.state == pb.INSTANCE_STATE_PAUSED
            assert shown.state_reason.endswith(": wide market")
            await client.plugin.ResumeInstance(pb.ResumeInstanceRequest(name="instances/mm"))

    asyncio.run(story())
    assert "wide market" not in again.restarted().engine.state.instances["mm"].reason


def test_what_people_trade_by_hand_is_no_instance(desk: ControlDesk) -> None:
    async def story() -> None:
        async with desk.serving() as client:
            desk.tick()
            watch = client.plugin.WatchInstances(pb.WatchInstancesRequest())
            await watch.read()
            order = trading_pb2.PlaceOrderRequest(
                account="accounts/acc", symbol="ETH-USDT", side=common_pb2.SIDE_BUY, qty="1", price="50"
            )
            placed = await client.trading.PlaceOrder(order)
            assert placed.order.instance == "instances/hand@acc"
            await client.plugin.PauseInstance(pb.PauseInstanceRequest(name="instances/mm"))
            answer = await watch.read()
            assert [one.name for one in answer.instances] == ["instances/mm"]
            assert not answer.removed
            listed = await client.plugin.ListInstances(pb.ListInstancesRequest())
            assert [one.name for one in listed.instances] == ["instances/mm"]
            status = (await client.node.GetStatus(node_pb2.GetStatusRequest())).status
            assert dict(status.instances) == {"PAUSED": 1}

    asyncio.run(story())


def test_a_creation_whose_deadline_passes_leaves_nothing(desk: ControlDesk) -> None:
    async def story() -> None:
        async with desk.serving() as client:
            async with desk.reloader.holding(["maker"]):  # a reload that takes its time
                refusal = await refused(
                    client.plugin.CreateInstance(
                        pb.CreateInstanceRequest(instance_id="eth", instance=wanted()), timeout=0.2
                    )
                )
                assert refusal.code is Status.DEADLINE_EXCEEDED
            listed = await client.plugin.ListInstances(pb.ListInstancesRequest())
        assert [one.name for one in listed.instances] == ["instances/mm"]
        assert not entries_of(desk, e.InstanceConfigured)

    asyncio.run(story())
