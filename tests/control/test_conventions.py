"""What holds for every call: roles, repetition, etags, validate_only, deadlines, errors."""

import asyncio
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from control_tools import ControlDesk, Refusal, Status, bearer, refused
from google.protobuf import message_factory
from google.protobuf.descriptor import MethodDescriptor
from google.rpc import code_pb2

from host.api import TandemError
from host.control.node_service import NodeService
from host.control.plain import to_struct
from host.control.plugin_service import PluginService
from host.control.principal import Role
from host.control.reasons import REASONS, refusal_of, status_of
from host.control.rules import RULES
from host.control.subject import Phase
from host.control.trading_service import TradingService
from host.core import entries as e
from host.core.state import REQUESTS_KEPT
from tandem.v1 import node_pb2, plugin_pb2, trading_pb2

PROTOS = Path(__file__).parents[2] / "proto" / "tandem" / "v1"
FILES = (node_pb2.DESCRIPTOR, plugin_pb2.DESCRIPTOR, trading_pb2.DESCRIPTOR)
SERVED = {
    "tandem.v1.NodeService": NodeService,
    "tandem.v1.PluginService": PluginService,
    "tandem.v1.TradingService": TradingService,
}


def methods(*services: str) -> Iterator[MethodDescriptor]:
    for file in FILES:
        for service in file.services_by_name.values():
            if not services or service.full_name in services:
                yield from service.methods


def name_of(method: MethodDescriptor) -> str:
    return f"{method.containing_service.full_name}/{method.name}"


SERVED_METHODS = [pytest.param(method, id=method.name) for method in methods(*SERVED)]
CHANGING = [
    pytest.param(method, id=method.name) for method in methods(*SERVED) if RULES[name_of(method)].mutates
]


@pytest.fixture
def desk(tmp_path: Path) -> ControlDesk:
    return ControlDesk(tmp_path)


def request_for(method: MethodDescriptor, **more: Any) -> Any:
    """Return a request that would be carried out, for any method: names are those of the desk."""
    request: Any = message_factory.GetMessageClass(method.input_type)()
    fields = method.input_type.fields_by_name
    names: dict[str, Any] = {
        "name": "instances/mm",
        "parent": "plugins/maker",
        "level": 2,
        "instance_id": "new",
        "scope": "node",
        "to": "b",
        "force": True,
    }
    if "Plugin" in method.name or method.name == "SetAutoReload":
        names["name"] = "plugins/maker"
    if method.name.endswith("Order"):
        names["name"] = "orders/none"
    if method.name == "GetBook":
        names["name"] = "accounts/acc/books/BTC-USDT"
    if method.name == "GetRiskLimits":
        names["name"] = "node/riskLimits"
    if method.name == "ActivateVersion":
        names["name"] = f"plugins/maker/versions/{'ab' * 32}"
    for field, value in {**names, **more}.items():
        if field in fields:
            setattr(request, field, value)
    if method.name == "SetParams":
        to_struct({"away": 3.0}, request.params)
    if method.name == "CreateInstance":
        request.instance.MergeFrom(
            plugin_pb2.Instance(plugin="maker", account="accounts/acc", symbols=["ETH-USDT"])
        )
    return request


async def call(client: Any, method: MethodDescriptor, request: Any, **options: Any) -> Any:
    """Call any method; of a stream, return the first answer."""
    stub = getattr(client.stub(method.containing_service.full_name), method.name)
    if method.server_streaming:
        # Some watches have nothing to say until something happens.
        stream = stub(request, timeout=0.5, **options)
        try:
            answer = await stream.read()
        except grpc.aio.AioRpcError as error:
            if error.code() is not Status.DEADLINE_EXCEEDED:
                raise
            return None
        stream.cancel()
        return answer
    return await stub(request, **options)


# -- the table of rules ----------------------------------------------------------------------------


def test_every_rpc_has_a_rule_and_every_rule_an_rpc() -> None:
    assert {name_of(method) for method in methods()} == RULES.keys()


def test_what_mutates_takes_a_request_id_and_can_be_tried_out() -> None:
    for method in methods():
        fields = method.input_type.fields_by_name
        wants = RULES[name_of(method)].mutates
        assert ("request_id" in fields, "validate_only" in fields) == (wants, wants), method.full_name
        assert not (wants and method.server_streaming), method.full_name


def test_the_protos_say_the_role_that_each_rpc_needs_and_whether_a_standby_answers() -> None:
    for file in FILES:
        text = (PROTOS / Path(file.name).name).read_text(encoding="utf-8")
        for service in file.services_by_name.values():
            for method in service.methods:
                comment = re.search(rf"((?:  //[^\n]*\n)+)  rpc {method.name}\(", text)
                assert comment, method.full_name
                words = " ".join(comment[1].replace("//", " ").split())
                rule = RULES[name_of(method)]
                assert f"Role: {rule.role}." in words, method.full_name
                assert ("Standby: answers." in words) == rule.on_standby, method.full_name


# -- roles ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", SERVED_METHODS)
def test_each_role_gets_what_the_table_gives_it_and_nothing_else(
    desk: ControlDesk, method: MethodDescriptor
) -> None:
    rule = RULES[name_of(method)]

    async def story() -> None:
        async with desk.serving() as client:
            for role in Role:
                lsn = desk.journal.last_lsn
                options = {"metadata": bearer(desk.token(role))}
                request = request_for(method, **({"validate_only": True} if rule.mutates else {}))
                try:
                    await call(client, method, request, **options)
                    code = Status.OK
                except grpc.aio.AioRpcError as error:
                    code = error.code()
                assert (code is Status.PERMISSION_DENIED) == (role < rule.role), role
                assert all(isinstance(one, e.AuditAnchored) for one in desk.entries[lsn:]), role
        refusals = [line for line in desk.audited() if line.outcome == "PERMISSION_DENIED"]
        assert [line.who for line in refusals] == [str(role) for role in Role if role < rule.role]

    asyncio.run(story())


def test_a_wrong_token_is_nobody_even_on_the_socket(desk: ControlDesk) -> None:
    async def story() -> None:
        async with desk.serving() as client:
            refusal = await refused(
                client.node.GetStatus(node_pb2.GetStatusRequest(), metadata=bearer("tandem_none"))
            )
        assert (refusal.code, refusal.reason) == (Status.UNAUTHENTICATED, "NOT_AUTHENTICATED")
        assert [line.outcome for line in desk.audited()] == ["UNAUTHENTICATED"]

    asyncio.run(story())


# -- repetition ------------------------------------------------------------------------------------


async def _set_away(client: Any, away: float, request_id: str, **more: Any) -> plugin_pb2.SetParamsResponse:
    request = plugin_pb2.SetParamsRequest(name="instances/mm", request_id=request_id, **more)
    to_struct({"away": away}, request.params)
    answer: plugin_pb2.SetParamsResponse = await client.plugin.SetParams(request)
    return answer


def _changes(desk: ControlDesk) -> int:
    return sum(isinstance(entry, e.ParamsChanged) for entry in desk.entries)


def test_a_repeated_request_has_its_effect_once_and_the_same_answer(desk: ControlDesk) -> None:
    async def story() -> None:
        async with desk.serving() as client:
            first = await _set_away(client, 3.0, "one")
            await _set_away(client, 4.0, "two")
            again = await _set_away(client, 3.0, "one")
        assert again == first
        assert _changes(desk) == 2
        assert desk.instance().strategy.params.away == 4.0

    asyncio.run(story())


def test_a_repetition_is_known_after_a_restart(desk: ControlDesk) -> None:
    async def first() -> plugin_pb2.SetParamsResponse:
        async with desk.serving() as client:
            return await _set_away(client, 3.0, "one")

    answer = asyncio.run(first())
    later = desk.restarted()

    async def again() -> None:
        async with later.serving() as client:
            assert await _set_away(client, 3.0, "one") == answer

    asyncio.run(again())
    assert _changes(later) == 1


def test_effect_and_answer_are_in_one_write_of_the_journal(desk: ControlDesk) -> None:
    async def story() -> None:
        async with desk.serving() as client:
            flushed: list[int] = []
            desk.journal.on_durable(flushed.append)
            before = desk.journal.flushed_lsn
            await _set_away(client, 3.0, "one")
        kinds = [type(entry) for entry in desk.entries[before : flushed[0]]]
        assert kinds == [e.ParamsChanged, e.RequestServed, e.AuditAnchored][: len(kinds)]
        assert len(kinds) >= 2

    asyncio.run(story())


def test_an_id_that_stood_for_another_request_is_refused(desk: ControlDesk) -> None:
    async def story() -> None:
        async with desk.serving() as client:
            await _set_away(client, 3.0, "one")
            refusal = await refused(_set_away(client, 4.0, "one"))
            assert (refusal.code, refusal.reason) == (Status.INVALID_ARGUMENT, "REQUEST_ID_REUSED")
            pause = plugin_pb2.PauseInstanceRequest(name="instances/mm", request_id="one")
            assert (await refused(client.plugin.PauseInstance(pause))).reason == "REQUEST_ID_REUSED"
        assert _changes(desk) == 1

    asyncio.run(story())


def test_ids_of_different_callers_are_different(desk: ControlDesk) -> None:
    async def story() -> None:
        async with desk.serving() as client:
            for role in (Role.OPERATOR, Role.TRADER):
                request = plugin_pb2.SetParamsRequest(name="instances/mm", request_id="one")
                to_struct({"away": role + 5.0}, request.params)
                await client.plugin.SetParams(request, metadata=bearer(desk.token(role)))
        assert _changes(desk) == 2

    asyncio.run(story())


@pytest.mark.parametrize("request_id", ["a b", "ä", "x" * 65, "\n"])
def test_a_malformed_id_is_refused(desk: ControlDesk, request_id: str) -> None:
    async def story() -> None:
        async with desk.serving() as client:
            refusal = await refused(_set_away(client, 3.0, request_id))
        assert refusal.fields.keys() == {"request_id"}

    asyncio.run(story())


def test_a_second_call_with_the_same_id_waits_for_the_first(desk: ControlDesk) -> None:
    async def story() -> None:
        async with desk.serving() as client:
            request = plugin_pb2.CreateInstanceRequest(instance_id="new", request_id="one")
            request.instance.MergeFrom(
                plugin_pb2.Instance(plugin="maker", account="accounts/acc", symbols=["ETH-USDT"])
            )
            async with desk.reloader.holding(["maker"]):
                both = [
                    asyncio.ensure_future(_awaited(client.plugin.CreateInstance(request))) for _ in range(2)
                ]
                await client.node.GetStatus(node_pb2.GetStatusRequest())  # both came before this one
            first, second = await asyncio.gather(*both)
        assert first == second
        assert sum(isinstance(entry, e.InstanceConfigured) for entry in desk.entries) == 1

    asyncio.run(story())


async def _awaited(call: Any) -> Any:
    return await call


def test_only_the_latest_answers_are_kept(desk: ControlDesk) -> None:
    for number in range(REQUESTS_KEPT + 5):
        desk.engine.begin_turn(desk.clock.now_ns())
        desk.engine.record(e.RequestServed("a", str(number), "m", "d", b""), desk.clock.now_ns())
        desk.engine.end_turn(desk.clock.now_ns(), 0)
    assert next(iter(desk.engine.state.requests)) == "5 a"
    assert len(desk.engine.state.requests) == REQUESTS_KEPT
    desk.clock.set(desk.clock.now_ns() + 3601 * 1_000_000_000)
    desk.engine.begin_turn(desk.clock.now_ns())
    desk.engine.record(e.RequestServed("a", "late", "m", "d", b""), desk.clock.now_ns())
    desk.engine.end_turn(desk.clock.now_ns(), 0)
    assert list(desk.engine.state.requests) == ["late a"]


# -- etags, trying out, deadlines --------------------------------------------------------------------


GUARDED = [  # orders and limits have etags too: tests/control/test_trading_by_hand.py
    pytest.param(method, id=method.name)
    for method in methods("tandem.v1.NodeService", "tandem.v1.PluginService")
    if "etag" in method.input_type.fields_by_name
]


@pytest.mark.parametrize("method", GUARDED)
def test_a_stale_etag_aborts_and_changes_nothing(desk: ControlDesk, method: MethodDescriptor) -> None:
    async def story() -> None:
        async with desk.serving() as client:
            lsn = desk.journal.last_lsn
            refusal = await refused(call(client, method, request_for(method, etag="0000000000000000")))
            assert (refusal.code, refusal.reason) == (Status.ABORTED, "ETAG_MISMATCH")
            assert all(isinstance(one, e.AuditAnchored) for one in desk.entries[lsn:])

    asyncio.run(story())


def test_the_etag_of_what_was_read_is_taken_once(desk: ControlDesk) -> None:
    async def story() -> None:
        async with desk.serving() as client:
            got = await client.plugin.GetInstance(plugin_pb2.GetInstanceRequest(name="instances/mm"))
            await _set_away(client, 3.0, "", etag=got.instance.etag)
            refusal = await refused(_set_away(client, 4.0, "", etag=got.instance.etag))
            assert refusal.code is Status.ABORTED

    asyncio.run(story())


@pytest.mark.parametrize("method", CHANGING)
def test_trying_out_changes_nothing(desk: ControlDesk, method: MethodDescriptor) -> None:
    async def story() -> None:
        async with desk.serving() as client:
            desk.tick()
            lsn, state = desk.journal.last_lsn, desk.engine.state.encode()
            try:
                await call(client, method, request_for(method, validate_only=True, request_id="one"))
            except grpc.aio.AioRpcError as error:
                assert error.code() in (
                    Status.FAILED_PRECONDITION,
                    Status.NOT_FOUND,
                    Status.INVALID_ARGUMENT,
                )
            assert all(isinstance(one, e.AuditAnchored) for one in desk.entries[lsn:])
            if desk.journal.last_lsn == lsn:
                assert desk.engine.state.encode() == state
        assert not desk.stopped
        assert not desk.engine.state.requests

    asyncio.run(story())


CHANGING_TRADING = [
    pytest.param(method, id=method.name)
    for method in methods(*SERVED)
    if RULES[name_of(method)].mutates and not RULES[name_of(method)].on_standby
]


@pytest.mark.parametrize("method", CHANGING_TRADING)
@pytest.mark.parametrize("phase", [Phase.STARTING, Phase.STOPPING])
def test_a_node_that_is_not_trading_takes_no_change_of_trading(
    desk: ControlDesk, method: MethodDescriptor, phase: Phase
) -> None:
    desk.subject.phase = phase

    async def story() -> None:
        async with desk.serving() as client:
            refusal = await refused(call(client, method, request_for(method)))
        assert (refusal.code, refusal.reason) == (Status.UNAVAILABLE, phase.upper())

    asyncio.run(story())


@pytest.mark.parametrize("method", SERVED_METHODS)
def test_a_standby_shows_what_it_knows_and_leads_changes_to_its_primary(
    desk: ControlDesk, method: MethodDescriptor
) -> None:
    desk.subject.standby_of = lambda: "10.0.0.1:7600"
    rule = RULES[name_of(method)]
    desk.tick()

    async def story() -> None:
        async with desk.serving() as client:
            status = (await client.node.GetStatus(node_pb2.GetStatusRequest())).status
            assert (status.role, status.primary_address) == (node_pb2.NODE_ROLE_STANDBY, "10.0.0.1:7600")
            if rule.mutates and not rule.on_standby:
                lsn = desk.journal.last_lsn
                refusal = await refused(call(client, method, request_for(method)))
                assert (refusal.code, refusal.reason) == (Status.FAILED_PRECONDITION, "NOT_PRIMARY")
                assert refusal.metadata["primary_address"] == "10.0.0.1:7600"
                assert all(isinstance(one, e.AuditAnchored) for one in desk.entries[lsn:])
            else:
                try:
                    await call(client, method, request_for(method))
                except grpc.aio.AioRpcError as error:
                    assert error.code() is Status.NOT_FOUND  # the desk has no order of that name

    asyncio.run(story())


@pytest.mark.parametrize("method", SERVED_METHODS)
def test_bytes_that_are_no_message_are_an_invalid_argument(
    desk: ControlDesk, method: MethodDescriptor
) -> None:
    async def story() -> None:
        async with desk.serving() as client:
            path = f"/{name_of(method)}"
            if method.server_streaming:
                stream = client.channel.unary_stream(path)(b"\xff\xff\xff")
                refusal = await refused(stream.read())
            else:
                refusal = await refused(client.channel.unary_unary(path)(b"\xff\xff\xff"))
        assert (refusal.code, refusal.reason) == (Status.INVALID_ARGUMENT, "INVALID_REQUEST")

    asyncio.run(story())


NAMED = [
    pytest.param(one, id=one.name)
    for one in methods("tandem.v1.NodeService", "tandem.v1.PluginService")
    if {"name", "parent"} & set(one.input_type.fields_by_name)
]


@pytest.mark.parametrize("method", NAMED)
@pytest.mark.parametrize(
    "name", ["", "mm", "instances/", "instances/../x", "orders/x", "instances/a/b", "x" * 5000]
)
def test_a_name_that_is_none_is_named_as_the_field_that_is_wrong(
    desk: ControlDesk, method: MethodDescriptor, name: str
) -> None:
    field = "name" if "name" in method.input_type.fields_by_name else "parent"

    async def story() -> Refusal:
        async with desk.serving() as client:
            return await refused(call(client, method, request_for(method, **{field: name})))

    refusal = asyncio.run(story())
    assert (refusal.code, refusal.fields.keys()) == (Status.INVALID_ARGUMENT, {field})


@pytest.mark.parametrize("method", NAMED)
def test_what_is_not_there_is_not_found(desk: ControlDesk, method: MethodDescriptor) -> None:
    field = "name" if "name" in method.input_type.fields_by_name else "parent"
    name = getattr(request_for(method), field).replace("/mm", "/none").replace("/maker", "/none")

    async def story() -> Refusal:
        async with desk.serving() as client:
            return await refused(call(client, method, request_for(method, **{field: name})))

    refusal = asyncio.run(story())
    assert refusal.code is Status.NOT_FOUND
    assert refusal.reason.endswith("_NOT_FOUND")


# -- errors ----------------------------------------------------------------------------------------


def test_every_reason_has_a_code_of_its_own_kind() -> None:
    known = set(code_pb2.Code.values())
    assert set(REASONS.values()) <= known
    assert all(re.fullmatch(r"[A-Z][A-Z_]*[A-Z]", reason) for reason in REASONS)
    internal = [reason for reason, code in REASONS.items() if code in (code_pb2.INTERNAL, code_pb2.UNKNOWN)]
    assert internal == ["INTERNAL"]


def test_an_error_nobody_thought_of_is_a_refusal_and_not_a_failure() -> None:
    class UnheardError(TandemError):
        pass

    status = status_of(refusal_of(UnheardError("because")))
    assert (status.code, status.message) == (code_pb2.FAILED_PRECONDITION, "because")
