"""NodeService and PluginService, each call by a table: what is wrong with it, repeated, and too late.

TradingService has the same tables in test_trading_refusals.py and test_trading_by_hand.py.
"""

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from control_tools import ControlDesk, Status, refused
from google.protobuf.duration_pb2 import Duration
from google.protobuf.field_mask_pb2 import FieldMask
from test_conventions import call, methods, name_of, request_for

from host.control.rules import RULES
from host.core import entries as e
from host.journal import read
from host.loader import settle
from tandem.v1 import node_pb2, plugin_pb2

METHODS = {one.name: one for one in methods("tandem.v1.NodeService", "tandem.v1.PluginService")}
MUTATIONS = [name for name, method in METHODS.items() if RULES[name_of(method)].mutates]
REPEATED = [name for name in MUTATIONS if name != "Switchover"]
"""A switchover is repeated at another node: tests/control/test_failover_methods.py."""
NAMED = [name for name, method in METHODS.items() if "name" in method.input_type.fields_by_name]
PAGED = ("ListPlugins", "ListVersions", "ListInstances")
REASONED = [name for name, method in METHODS.items() if "reason" in method.input_type.fields_by_name]
WAIT_S = 60


@pytest.fixture
def desk(tmp_path: Path) -> ControlDesk:
    return ControlDesk(tmp_path)


def everything_written(desk: ControlDesk, lsn: int) -> list[e.Entry]:
    """Return the entries after an LSN, without those that only prove the audit log."""
    found = read(desk.journal, lsn + 1) if desk.journal.last_lsn > lsn else ()
    return [record.entry for record in found if not isinstance(record.entry, e.AuditAnchored)]


# -- what is wrong with a request ----------------------------------------------------------------


def instance(**fields: Any) -> dict[str, Any]:
    """Return a new instance that is all right but for `fields`."""
    right = {"plugin": "maker", "account": "accounts/acc", "symbols": ["ETH-USDT"]}
    return {"instance": plugin_pb2.Instance(**(right | fields))}


def events(**fields: Any) -> dict[str, Any]:
    return {"filter": node_pb2.EventFilter(**fields)}


INVALID: list[tuple[str, dict[str, Any], str]] = [
    *((m, {"name": name}, "name") for m in NAMED for name in ("", "x", "orders/mm", "instances/a/b")),
    *((m, {"request_id": text}, "request_id") for m in MUTATIONS for text in ("a b", "x" * 65, "é")),
    *((m, {"reason": "x" * 501}, "reason") for m in REASONED),
    *((m, {"page_size": size}, "page_size") for m in (*PAGED, "ListEvents") for size in (-1, 1001)),
    *((m, {"page_token": text}, "page_token") for m in PAGED for text in ("nonsense", "w6R0ZXN0", "é")),
    *((m, events(kinds=["alert", "x"]), "filter.kinds") for m in ("ListEvents", "WatchEvents")),
    *((m, events(instance="mm"), "filter.instance") for m in ("ListEvents", "WatchEvents")),
    *((m, {"from_lsn": lsn}, "from_lsn") for m in ("ListEvents", "WatchEvents") for lsn in (-1, 1 << 60)),
    ("WatchStatus", {"interval": Duration(nanos=99_000_000)}, "interval"),
    ("WatchStatus", {"interval": Duration(seconds=-1)}, "interval"),
    ("SetLogLevel", {"level": 0}, "level"),
    ("SetLogLevel", {"level": 9}, "level"),
    ("Drain", {"wait": Duration(seconds=-1)}, "wait"),
    ("Drain", {"wait": Duration(seconds=61)}, "wait"),
    ("Switchover", {"to": ""}, "to"),
    ("Promote", {"force": False}, "force"),
    ("ListPlugins", {"kind": 9}, "kind"),
    ("ListVersions", {"parent": "maker"}, "parent"),
    ("ActivateVersion", {"name": "plugins/maker"}, "name"),
    ("ListInstances", {"states": [3, 99]}, "states"),
    ("ListInstances", {"states": [0]}, "states"),
    ("ListInstances", {"account": "acc"}, "account"),
    ("ListInstances", {"plugin": "maker"}, "plugin"),
    ("CreateInstance", {"instance_id": "a b"}, "instance_id"),
    ("CreateInstance", instance(plugin="none"), "instance.plugin"),
    ("CreateInstance", instance(account="acc"), "instance.account"),
    ("CreateInstance", instance(symbols=[]), "instance.symbols"),
    ("CreateInstance", instance(symbols=["ETH-USDT", "eth"]), "instance.symbols[1]"),
    ("CreateInstance", instance(quote_tolerance_bps=-1), "instance.quote_tolerance_bps"),
    ("CreateInstance", instance(models=[plugin_pb2.ModelUse(model="none")]), "instance.models[0].model"),
    ("CreateInstance", instance(params={"away": -1}), "instance.params.away"),
    ("CreateInstance", instance(schedule={"windows": ["9-5"]}), "instance.schedule.windows[0]"),
    ("CreateInstance", instance(isolation=9), "instance.isolation"),
    ("CreateInstance", instance(worker_settings={"crashes": -1}), "instance.worker_settings.crashes"),
    ("CreateInstance", instance(client_settings={"deadline_ms": -1}), "instance.client_settings.deadline_ms"),
    ("SetParams", {"params": {"away": 0}}, "params.away"),
    ("SetParams", {"params": {"size": "much"}}, "params.size"),
    ("SetParams", {"params": {"colour": "red"}}, "params.colour"),
    ("SetParams", {"update_mask": FieldMask(paths=["colour"])}, "update_mask"),
]


def test_every_invalid_field_is_named_and_the_call_changes_nothing(desk: ControlDesk) -> None:
    async def story() -> None:
        async with desk.serving() as client:
            before, lsn = desk.engine.state.digest(), desk.journal.last_lsn
            for name, fields, field in INVALID:
                request = request_for(METHODS[name])
                for one, value in fields.items():
                    request.ClearField(one)
                    request.MergeFrom(type(request)(**{one: value}))
                refusal = await refused(call(client, METHODS[name], request))
                said = f"{name} {fields}: {refusal}"
                assert refusal.code in (Status.INVALID_ARGUMENT, Status.OUT_OF_RANGE), said
                assert refusal.code is Status.OUT_OF_RANGE or refusal.fields.keys() == {field}, said
                assert field in refusal.text, said
            assert not everything_written(desk, lsn)
            assert desk.journal.last_lsn > lsn or desk.engine.state.digest() == before

    asyncio.run(story())
    assert not desk.stopped


def test_every_field_that_can_be_wrong_is_in_the_table() -> None:
    fine = {"validate_only", "etag", "enabled", "paused", "inline"}
    made = {
        "plugin",
        "account",
        "symbols",
        "models",
        "params",
        "quote_tolerance_bps",
        "schedule",
        "isolation",
    }
    made |= {"worker_settings", "client_settings"}
    for name, method in METHODS.items():
        tried = {field.partition(".")[0] for called, _, field in INVALID if called == name}
        assert {field.name for field in method.input_type.fields} - fine <= tried, name
    tried = {field.removeprefix("instance.") for _, _, field in INVALID if field.startswith("instance.")}
    assert made <= {field.partition(".")[0].partition("[")[0] for field in tried}


# -- repeated, and too late ------------------------------------------------------------------------


async def nothing(desk: ControlDesk, client: Any) -> None: ...


async def following(desk: ControlDesk, client: Any) -> None:
    desk.pair.step_down()


async def stopped(desk: ControlDesk, client: Any) -> None:
    await client.plugin.StopInstance(plugin_pb2.StopInstanceRequest(name="instances/mm"))


async def paused(desk: ControlDesk, client: Any) -> None:
    await client.plugin.PauseInstance(plugin_pb2.PauseInstanceRequest(name="instances/mm"))


async def created(desk: ControlDesk, client: Any) -> None:
    await client.plugin.CreateInstance(
        plugin_pb2.CreateInstanceRequest(instance_id="new", **instance(start_paused=True))
    )


async def edited(desk: ControlDesk, client: Any) -> None:
    desk.maker_file.write_text(desk.maker_file.read_text() + "\n# another version\n")


async def on_probation(desk: ControlDesk, client: Any) -> None:
    await edited(desk, client)
    await client.plugin.ReloadPlugin(plugin_pb2.ReloadPluginRequest(name="plugins/maker"))


async def staged(desk: ControlDesk, client: Any) -> None:
    await edited(desk, client)
    desk.reloader.settings = msgspec.structs.replace(desk.reloader.settings, mode="stage")
    await desk.reloader.reload("maker", lambda: settle(desk.maker_file, apart_ms=1))


BEFORE: dict[str, Callable[[ControlDesk, Any], Any]] = {
    "SetLogLevel": nothing, "SetMaintenance": nothing, "Promote": following, "Drain": nothing,
    "Shutdown": nothing, "SetAutoReload": nothing,
    "CreateInstance": nothing, "PauseInstance": nothing, "StopInstance": nothing, "SetParams": nothing,
    "ReloadPlugin": edited, "PromotePlugin": on_probation, "RollBackPlugin": on_probation,
    "ActivateVersion": staged, "StartInstance": stopped, "ResumeInstance": paused, "RemoveInstance": created,
}  # fmt: skip
"""What has to be so for a change to change something."""
UNJOURNALED = ("SetLogLevel", "SetMaintenance", "Promote", "Shutdown")
"""What these change is no affair of trading."""


def change(desk: ControlDesk, name: str, **more: Any) -> Any:
    """Return a request that changes something once `BEFORE` is so."""
    if name == "ActivateVersion":
        more["name"] = f"plugins/maker/versions/{desk.engine.state.plugin('maker').staged}"
    if name == "RemoveInstance":
        more["name"] = "instances/new"
    return request_for(METHODS[name], **more)


def test_every_mutation_is_in_the_table() -> None:
    assert BEFORE.keys() == set(REPEATED)


@pytest.mark.parametrize("name", REPEATED)
def test_a_request_id_makes_a_call_happen_once(desk: ControlDesk, name: str) -> None:
    async def story() -> None:
        async with desk.serving() as client:
            desk.tick()
            await BEFORE[name](desk, client)
            request = change(desk, name, request_id="one")
            lsn = desk.journal.last_lsn
            first = await call(client, METHODS[name], request)
            effect = everything_written(desk, lsn)
            assert sum(isinstance(entry, e.RequestServed) for entry in effect) == 1
            assert len(effect) > 1 or name in UNJOURNALED, "it has changed something"
            lsn = desk.journal.last_lsn
            again = await asyncio.gather(*(call(client, METHODS[name], request) for _ in range(2)))
            assert again == [first, first]
            assert not everything_written(desk, lsn)
            assert len(desk.stopped) == (name == "Shutdown")

    before = logging.getLogger("tandem").level
    try:
        asyncio.run(story())
    finally:
        logging.getLogger("tandem").setLevel(before)


@pytest.mark.parametrize("name", METHODS)
def test_a_deadline_that_is_over_stops_a_call_before_it_changed_anything(
    desk: ControlDesk, name: str
) -> None:
    method = METHODS[name]

    async def story() -> None:
        async with desk.serving() as client:
            lsn = desk.journal.last_lsn
            stub = getattr(client.stub(method.containing_service.full_name), name)
            late = stub(request_for(method), timeout=-1.0)
            refusal = await refused(late.read() if method.server_streaming else late)
            assert refusal.code is Status.DEADLINE_EXCEEDED
            assert not everything_written(desk, lsn)

    asyncio.run(story())
    assert not desk.stopped


# -- a caller who leaves ---------------------------------------------------------------------------


def test_a_caller_who_leaves_before_anything_happened_leaves_nothing(desk: ControlDesk) -> None:
    async def story() -> None:
        async with desk.serving() as client:
            lsn = desk.journal.last_lsn
            async with desk.reloader.holding(["maker"]):  # a reload that takes its time
                create = asyncio.ensure_future(created(desk, client))
                await client.node.GetStatus(node_pb2.GetStatusRequest())  # the creation came before this one
                create.cancel()
                await asyncio.wait([create])
                await client.node.GetStatus(node_pb2.GetStatusRequest())  # and the cancellation before this
            listed = await client.plugin.ListInstances(plugin_pb2.ListInstancesRequest())
            assert [one.name for one in listed.instances] == ["instances/mm"]
            assert not everything_written(desk, lsn)

    asyncio.run(story())


def test_what_a_caller_who_left_has_caused_is_in_the_audit_log(desk: ControlDesk) -> None:
    async def story() -> None:
        async with desk.serving() as client:
            desk.tick()
            drain = client.node.Drain(node_pb2.DrainRequest(wait=Duration(seconds=60)))
            while desk.instance().state != "paused":
                await client.node.GetStatus(node_pb2.GetStatusRequest())
            drain.cancel()
            async with asyncio.timeout(WAIT_S):
                while not desk.audited():
                    await asyncio.sleep(0.01)
        [line] = desk.audited()
        assert (line.method, line.outcome) == ("tandem.v1.NodeService/Drain", "OK")
        assert line.detail == "the caller was gone before the answer"

    asyncio.run(story())
