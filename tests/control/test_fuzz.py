"""Random and mutated requests over every RPC: refused in good order, and nothing trades for it."""

import asyncio
import os
import random
from pathlib import Path
from typing import Any, Final

import grpc
import pytest
from control_tools import ControlDesk, Status, bearer
from google.protobuf import message_factory
from google.protobuf.descriptor import Descriptor, FieldDescriptor, MethodDescriptor
from google.protobuf.message import Message

from host.control.principal import Role
from host.control.rules import RULES
from host.control.server import service_named
from host.core import entries as e

REQUESTS: Final = int(os.environ.get("TANDEM_FUZZ_REQUESTS", "3000"))
"""In one run; CI does few, a person before a release 100,000."""
AT_ONCE: Final = 16
SERVICES: Final = ("tandem.v1.NodeService", "tandem.v1.PluginService", "tandem.v1.TradingService")
WORDS: Final = (
    "", "node", "instances/mm", "instances/none", "plugins/maker", "plugins/shift", "accounts/acc", "accounts/none",
    "symbols/BTC-USDT", "orders/tdt1i1n1", "accounts/acc/books/BTC-USDT", "node/riskLimits", "instances/mm/riskLimits",
    "plugins/maker/versions/abcdef012345", "mm", "maker", "BTC-USDT", "ETH-USDT", "1", "0.01", "-1", "NaN", "Infinity",
    "1e400", "0x10", "every 30s", "every 999999999999999999h", "0 16 * * mon-fri", "fri-mon 22:00-02:00",
    "Europe/Zurich", "away", "size", "*", "max_order_qty", "alert", "../..", "a" * 300, "ä\u0000\n", "kqw3YWZjNTVj",
)  # fmt: skip
NUMBERS: Final = (0, 1, 2, 3, 7, 100, 1000, -1, 10**6, 2**31 - 1, -(2**31))
LONG: Final = (*NUMBERS, 2**63 - 1, -(2**63))
REALS: Final = (0.0, 1.0, -1.0, 0.5, 1e-300, 1e300, float("inf"), float("-inf"), float("nan"))
UNEXPECTED: Final = (Status.UNKNOWN, Status.INTERNAL, Status.UNIMPLEMENTED, Status.DATA_LOSS)
STOPPING: Final = ("Shutdown", "SetLogLevel", "Switchover", "Promote")
"""What ends the node that is tested, or hides what it says, is tried out only."""


def scalar(field: FieldDescriptor, rng: random.Random) -> Any:
    match field.cpp_type:
        case FieldDescriptor.CPPTYPE_STRING:
            text = rng.choice(WORDS)
            return text.encode() if field.type == FieldDescriptor.TYPE_BYTES else text
        case FieldDescriptor.CPPTYPE_BOOL:
            return rng.random() < 0.5
        case FieldDescriptor.CPPTYPE_DOUBLE | FieldDescriptor.CPPTYPE_FLOAT:
            return rng.choice(REALS)
        case FieldDescriptor.CPPTYPE_INT64:
            return rng.choice(LONG)
        case FieldDescriptor.CPPTYPE_UINT32 | FieldDescriptor.CPPTYPE_UINT64:
            return abs(rng.choice(NUMBERS)) % 2**31
        case _:
            return rng.choice(NUMBERS)


def fill(message: Any, rng: random.Random, depth: int = 0) -> None:
    """Set some fields of a message to something of their type."""
    described: Descriptor = message.DESCRIPTOR
    for field in described.fields:
        if rng.random() < 0.35:
            continue
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            key, value = field.message_type.fields_by_name["key"], field.message_type.fields_by_name["value"]
            if value.message_type is None:
                getattr(message, field.name)[scalar(key, rng)] = scalar(value, rng)
            elif depth < 4:
                fill(getattr(message, field.name)[scalar(key, rng)], rng, depth + 1)
        elif field.is_repeated:
            values = getattr(message, field.name)
            for _ in range(rng.randrange(4)):
                if field.message_type is None:
                    values.append(scalar(field, rng))
                elif depth < 4:
                    fill(values.add(), rng, depth + 1)
        elif field.message_type is not None:
            if depth < 4:
                getattr(message, field.name).SetInParent()
                fill(getattr(message, field.name), rng, depth + 1)
        else:
            setattr(message, field.name, scalar(field, rng))


def request_bytes(method: MethodDescriptor, rng: random.Random) -> bytes:
    """Return a random request, in one of five with some of its bytes changed."""
    request: Message = message_factory.GetMessageClass(method.input_type)()
    fill(request, rng)
    if method.name in STOPPING:
        request.validate_only = True  # type: ignore[attr-defined]
    if method.name == "Drain":
        request.wait.Clear()  # type: ignore[attr-defined]
        request.wait.SetInParent()  # type: ignore[attr-defined]
    data = bytearray(request.SerializeToString())
    if method.name not in (*STOPPING, "Drain") and data and rng.random() < 0.2:
        for _ in range(rng.randrange(1, 4)):
            data[rng.randrange(len(data))] = rng.randrange(256)
    return bytes(data)


async def send(
    desk: ControlDesk, client: Any, method: MethodDescriptor, data: bytes, options: Any
) -> grpc.StatusCode:
    path = f"/{method.containing_service.full_name}/{method.name}"
    try:
        if method.server_streaming:
            # Some watches have nothing to say until something happens.
            stream = client.channel.unary_stream(path)(data, timeout=0.1, **options)
            await stream.read()
            code = await stream.code() if stream.done() else Status.OK
            stream.cancel()
            return Status.OK if code is Status.CANCELLED else code
        await client.channel.unary_unary(path)(data, timeout=60, **options)
    except grpc.aio.AioRpcError as error:
        assert error.code() not in UNEXPECTED, f"{path} {data!r}: {error.code()}: {error.details()}"
        return error.code()
    return Status.OK


@pytest.mark.timeout(600)
def test_no_request_crashes_the_node_or_is_answered_with_unknown_or_internal(tmp_path: Path) -> None:
    desk = ControlDesk(tmp_path)
    methods = [method for name in SERVICES for method in service_named(name).methods]
    seed = int(os.environ.get("TANDEM_FUZZ_SEED", "1"))
    rng = random.Random(seed)
    codes: dict[grpc.StatusCode, int] = {}

    async def story() -> None:
        async with desk.serving() as client:
            desk.tick()
            for _ in range(REQUESTS // AT_ONCE):
                chosen = [rng.choice(methods) for _ in range(AT_ONCE)]
                calls = [send(desk, client, method, request_bytes(method, rng), {}) for method in chosen]
                for code in await asyncio.gather(*calls):
                    codes[code] = codes.get(code, 0) + 1
                desk.settle()
            assert (await client.channel.unary_unary("/tandem.v1.NodeService/GetStatus")(b"")) != b""

    asyncio.run(story())
    assert not desk.engine.halted
    assert codes[Status.OK] > REQUESTS // 50, "some requests must get through, or nothing is tested"
    assert codes[Status.INVALID_ARGUMENT] > REQUESTS // 10


def test_a_viewer_can_ask_whatever_it_likes_and_nothing_is_journaled(tmp_path: Path) -> None:
    desk = ControlDesk(tmp_path)
    methods = [method for name in SERVICES for method in service_named(name).methods]
    rng = random.Random(2)

    async def story() -> None:
        options = {"metadata": bearer(desk.token(Role.VIEWER))}
        async with desk.serving() as client:
            desk.tick()
            lsn, state = desk.journal.last_lsn, desk.engine.state.orders.copy()
            for _ in range(REQUESTS // AT_ONCE // 4):
                chosen = [rng.choice(methods) for _ in range(AT_ONCE)]
                calls = [send(desk, client, method, request_bytes(method, rng), options) for method in chosen]
                for method, code in zip(chosen, await asyncio.gather(*calls), strict=True):
                    rule = RULES[f"{method.containing_service.full_name}/{method.name}"]
                    if code is not Status.DEADLINE_EXCEEDED:
                        assert (code is Status.PERMISSION_DENIED) == (rule.role > Role.VIEWER)
            assert all(isinstance(one, e.AuditAnchored) for one in desk.entries[lsn:])
            assert desk.engine.state.orders == state

    asyncio.run(story())
