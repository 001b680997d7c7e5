"""NodeService: status, events, configuration, log level, drain and shutdown."""

import asyncio
import json
import logging
from pathlib import Path
from typing import Any

import grpc
import pytest
from control_tools import BTC, ETH, ControlDesk, Status, refused
from google.protobuf.duration_pb2 import Duration

from host.control.event_json import event_json
from host.control.plain import struct, to_struct
from host.control.tail import KEPT, SLICE
from host.core import entries as e
from host.journal import describe, read
from tandem.v1 import node_pb2 as pb
from tandem.v1 import plugin_pb2, trading_pb2


@pytest.fixture
def desk(tmp_path: Path) -> ControlDesk:
    return ControlDesk(tmp_path)


def alerts(desk: ControlDesk, count: int, kind: str = "test") -> None:
    """Write so many entries, in turns of a hundred."""
    for start in range(0, count, 100):
        desk.engine.begin_turn(desk.clock.now_ns())
        for number in range(start, min(start + 100, count)):
            desk.engine.record(e.Alert(kind, str(number)), desk.clock.now_ns())
        desk.engine.end_turn(desk.clock.now_ns(), 0)


# -- status --------------------------------------------------------------------------------------


def test_status_says_what_the_node_is_doing(desk: ControlDesk) -> None:
    async def story() -> None:
        async with desk.serving() as client:
            desk.tick()
            status = (await client.node.GetStatus(pb.GetStatusRequest())).status
        assert (status.node, status.role, status.phase) == (
            "desk",
            pb.NODE_ROLE_PRIMARY,
            pb.NODE_PHASE_RUNNING,
        )
        assert (status.epoch, status.last_lsn) == (desk.engine.state.epoch, desk.journal.last_lsn)
        assert dict(status.instances) == {"RUNNING": 1}
        assert [(one.name, one.exchange, one.ready) for one in status.accounts] == [
            ("accounts/acc", "scripted", True)
        ]
        assert (status.open_orders, status.counters.orders) == (2, 2)
        assert not status.HasField("store_lag")

    asyncio.run(story())


def test_status_of_a_halted_node_says_why_and_what_stops_nothing_still_works(desk: ControlDesk) -> None:
    async def story() -> None:
        async with desk.serving() as client:
            desk.engine.halt("the disk is gone")
            status = (await client.node.GetStatus(pb.GetStatusRequest())).status
            assert (status.phase, status.halted) == (pb.NODE_PHASE_HALTED, "the disk is gone")
            pause = plugin_pb2.PauseInstanceRequest(name="instances/mm")
            refusal = await refused(client.plugin.PauseInstance(pause))
            assert (refusal.code, refusal.reason) == (Status.UNAVAILABLE, "HALTED")
            await client.node.Shutdown(pb.ShutdownRequest(reason="enough", request_id="one"))
        assert len(desk.stopped) == 1

    asyncio.run(story())


def test_status_names_the_scopes_that_are_stopped_as_calls_name_them(desk: ControlDesk) -> None:
    async def story() -> None:
        async with desk.serving() as client:
            for scope in ("node", "instances/mm", "accounts/acc", "symbols/BTC-USDT"):
                stop = trading_pb2.PanicStopRequest(scope=scope, reason="odd")
                stopped = (await client.trading.PanicStop(stop)).stopped_scopes
                status = (await client.node.GetStatus(pb.GetStatusRequest())).status
                assert scope in status.stopped_scopes
                assert status.stopped_scopes == stopped

    asyncio.run(story())


def test_watching_the_status_sends_it_again_and_again(desk: ControlDesk) -> None:
    async def story() -> None:
        async with desk.serving() as client:
            watch = client.node.WatchStatus(pb.WatchStatusRequest(interval=Duration(nanos=100_000_000)))
            first = await watch.read()
            alerts(desk, 1)
            second = await watch.read()
            assert second.status.last_lsn == first.status.last_lsn + 1
            too_often = client.node.WatchStatus(pb.WatchStatusRequest(interval=Duration(nanos=1)))
            assert (await refused(too_often.read())).fields.keys() == {"interval"}

    asyncio.run(story())


# -- events --------------------------------------------------------------------------------------


def test_events_are_the_journal_with_every_field_by_name(desk: ControlDesk) -> None:
    desk.tick()
    desk.venue.trade(desk.venue.open(BTC)[0], "0.5")
    desk.settle()

    async def story() -> None:
        async with desk.serving() as client:
            answer = await client.node.ListEvents(pb.ListEventsRequest(page_size=1000))
        records = list(read(desk.journal))
        assert [event.lsn for event in answer.events] == [record.lsn for record in records]
        for event, record in zip(answer.events, records, strict=True):
            told = describe(record)
            assert event.kind == told["entry"]
            known = {k: v for k, v in told.items() if k not in ("lsn", "ts_ns", "time", "entry")}
            assert json.loads(event.json) == known
        assert not answer.has_more

    asyncio.run(story())


def test_pages_of_events_follow_one_another(desk: ControlDesk) -> None:
    alerts(desk, 250)

    async def story() -> None:
        async with desk.serving() as client:
            lsn, texts = 1, []
            while True:
                page = await client.node.ListEvents(
                    pb.ListEventsRequest(from_lsn=lsn, page_size=100, filter=pb.EventFilter(kinds=["alert"]))
                )
                texts += [json.loads(event.json)["text"] for event in page.events]
                lsn = page.next_lsn
                if not page.has_more:
                    break
        assert texts == [str(number) for number in range(250)]

    asyncio.run(story())


def test_a_watch_resumes_where_it_was_cut_off_and_misses_nothing(desk: ControlDesk) -> None:
    alerts(desk, SLICE * 3)

    async def story() -> None:
        async with desk.serving() as client:
            seen: list[int] = []
            lsn = 1
            while lsn <= desk.journal.flushed_lsn:
                watch = client.node.WatchEvents(pb.WatchEventsRequest(from_lsn=lsn))
                await watch.read()
                batch = await watch.read()
                watch.cancel()
                seen += [event.lsn for event in batch.events]
                lsn = batch.next_lsn
        assert seen == list(range(1, lsn))

    asyncio.run(story())


def test_a_watch_goes_on_with_what_is_written_later(desk: ControlDesk) -> None:
    async def story() -> None:
        async with desk.serving() as client:
            watch = client.node.WatchEvents(pb.WatchEventsRequest())
            start = (await watch.read()).next_lsn
            assert start == desk.journal.flushed_lsn + 1
            for number in range(3):
                alerts(desk, 1, f"kind{number}")
                batch = await watch.read()
                assert [event.lsn for event in batch.events] == [start + number]

    asyncio.run(story())


def test_many_watchers_from_everywhere_see_the_same(desk: ControlDesk) -> None:
    alerts(desk, KEPT + SLICE)

    async def follow(client: Any, from_lsn: int, until_lsn: int) -> list[int]:
        watch = client.node.WatchEvents(pb.WatchEventsRequest(from_lsn=from_lsn))
        seen: list[int] = []
        while not seen or seen[-1] < until_lsn:
            seen += [event.lsn for event in (await watch.read()).events]
        return seen

    async def story() -> None:
        async with desk.serving() as client:
            end = desk.journal.flushed_lsn + 2 * KEPT + 10
            starts = (1, 500, KEPT, desk.journal.flushed_lsn)
            watches = [asyncio.ensure_future(follow(client, start, end)) for start in starts]
            for _ in range(2 * KEPT // 100 + 1):
                alerts(desk, 100)
                await asyncio.sleep(0)
            alerts(desk, 100)
            for start, seen in zip(starts, await asyncio.gather(*watches), strict=True):
                assert seen[: end - start + 1] == list(range(start, end + 1))

    asyncio.run(story())


def test_a_watch_of_one_instance_sees_what_the_venue_says_of_its_orders(desk: ControlDesk) -> None:
    async def story() -> None:
        async with desk.serving() as client:
            create = plugin_pb2.CreateInstanceRequest(
                instance_id="eth",
                instance=plugin_pb2.Instance(plugin="maker", account="accounts/acc", symbols=[ETH]),
            )
            await client.plugin.CreateInstance(create)
            desk.tick()
            wanted = pb.EventFilter(instance="instances/eth", kinds=["place_sent", "reported"])
            answer = await client.node.ListEvents(pb.ListEventsRequest(filter=wanted, page_size=1000))
        owners = {order.client_id for order in desk.orders("eth")}
        told = [json.loads(event.json) for event in answer.events]
        ids = [one["report"]["client_id"] if "report" in one else one["client_id"] for one in told]
        assert set(ids) == owners
        assert len(ids) == 4, "two placed, two acknowledged"

    asyncio.run(story())


def test_what_is_pruned_and_what_is_not_written_yet_are_out_of_range(desk: ControlDesk) -> None:
    for _ in range(3):
        alerts(desk, 3_000, "much ado " * 50)
        desk.engine.upkeep.snapshot(desk.clock.now_ns())
    first = desk.journal.first_lsn
    assert first > 1

    async def story() -> None:
        async with desk.serving() as client:
            for call in (client.node.ListEvents, _first_of(client.node.WatchEvents)):
                request = pb.ListEventsRequest if call == client.node.ListEvents else pb.WatchEventsRequest
                refusal = await refused(call(request(from_lsn=1)))
                assert (refusal.code, refusal.reason) == (Status.OUT_OF_RANGE, "LSN_TOO_OLD")
                assert refusal.metadata == {"first_lsn": str(first)}
                refusal = await refused(call(request(from_lsn=desk.journal.last_lsn + 2)))
                assert refusal.reason == "LSN_TOO_NEW"
            answer = await client.node.ListEvents(pb.ListEventsRequest(page_size=1))
            assert answer.events[0].lsn == first

    asyncio.run(story())


def _first_of(stream: Any) -> Any:
    return lambda request: stream(request).read()


def test_a_watcher_that_does_not_read_is_dropped_and_the_others_go_on(desk: ControlDesk) -> None:
    alerts(desk, 10_000, "much ado " * 250)  # 20 MB: more than gRPC and the kernel hold for a client

    async def story() -> None:
        async with desk.serving(stall_s=0.3) as client:
            lazy = client.node.WatchEvents(pb.WatchEventsRequest(from_lsn=1))
            await lazy.read()  # and nothing more: the connection's buffers fill up
            good = client.node.WatchEvents(pb.WatchEventsRequest(filter=pb.EventFilter(kinds=["alert"])))
            await good.read()
            while True:
                batch = await good.read()
                found = [json.loads(event.json) for event in batch.events]
                if any(one["kind"] == "watcher_dropped" for one in found):
                    break
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                while await lazy.read() is not grpc.aio.EOF:
                    continue
            assert caught.value.code() is Status.RESOURCE_EXHAUSTED
        [text] = desk.alerts("watcher_dropped")
        assert "WatchEvents unread for 0.3 s" in text

    asyncio.run(story())


def test_every_kind_of_entry_can_be_shown() -> None:
    assert json.loads(event_json(e.StrategyStateSaved("a", 1, b"\x81\xa1n\x01"))) == {
        "instance": "a",
        "state_version": 1,
        "data": "81a16e01",
        "heard": -1,
    }
    assert json.loads(event_json(e.ParamsChanged("a", b'{"x": 1}', "me")))["params"] == {"x": 1}
    assert json.loads(event_json(e.ParamsChanged("a", b"{broken", "me")))["params"] == b"{broken".hex()


# -- configuration, log, drain, shutdown -------------------------------------------------------------


def test_the_configuration_is_shown_without_secrets(desk: ControlDesk) -> None:
    async def story() -> None:
        async with desk.serving() as client:
            config = struct((await client.node.GetConfig(pb.GetConfigRequest())).config)
        assert config["account"][0]["params"] == {"api_key": "***"}
        assert config["instance"][0]["params"] == {"away": 2}
        assert "hush" not in json.dumps(config)

    asyncio.run(story())


def test_the_log_level_changes_and_is_told(desk: ControlDesk) -> None:
    logger = logging.getLogger("tandem")
    before = logger.level

    async def story() -> None:
        async with desk.serving() as client:
            await client.node.SetLogLevel(pb.SetLogLevelRequest(level=pb.LOG_LEVEL_DEBUG))
            assert logger.level == logging.DEBUG
            answer = await client.node.GetLogLevel(pb.GetLogLevelRequest())
            assert answer.level == pb.LOG_LEVEL_DEBUG

    try:
        asyncio.run(story())
    finally:
        logger.setLevel(before)


def test_drain_pauses_all_and_answers_once_no_order_is_left(desk: ControlDesk) -> None:
    async def story() -> None:
        async with desk.serving() as client:
            desk.tick()
            asyncio.get_running_loop().call_later(0.1, desk.settle)  # the venue confirms
            answer = await client.node.Drain(pb.DrainRequest(wait=Duration(seconds=30)))
            assert list(answer.paused_instances) == ["instances/mm"]
            assert (answer.cancelled_orders, answer.open_orders) == (2, 0)
        assert desk.instance().state == "paused"

    asyncio.run(story())


def test_drain_says_what_is_left_when_its_time_is_over(desk: ControlDesk) -> None:
    async def story() -> None:
        async with desk.serving() as client:
            desk.tick()
            answer = await client.node.Drain(pb.DrainRequest(wait=Duration()))
            assert answer.open_orders == 2

    asyncio.run(story())


def test_numbers_keep_their_kind_on_the_way_through_a_message() -> None:
    table = {
        "whole": 3,
        "part": 0.25,
        "text": "0.10",
        "flag": True,
        "none": None,
        "list": [1, {"a": 2}],
        "empty": {},
    }
    request = plugin_pb2.SetParamsRequest()
    to_struct(table, request.params)
    back = struct(request.params)
    assert back == table
    assert isinstance(back["whole"], int)
