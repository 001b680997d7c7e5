"""Requests as large as they may be: each is answered soon, and its refusal fits what gRPC carries."""

import asyncio
from pathlib import Path

import msgspec
import pytest
from control_tools import BTC, ControlDesk, Status, refused

from tandem.v1 import plugin_pb2, trading_pb2


@pytest.fixture
def desk(tmp_path: Path) -> ControlDesk:
    return ControlDesk(tmp_path)


def _new(symbols: list[str], models: int = 0) -> plugin_pb2.CreateInstanceRequest:
    made = plugin_pb2.Instance(plugin="maker", account="accounts/acc", symbols=symbols)
    for _ in range(models):
        made.models.add(model="none")
    return plugin_pb2.CreateInstanceRequest(instance_id="new", instance=made, validate_only=True)


def test_a_venue_of_many_symbols_does_not_make_a_refusal_too_large_to_send(desk: ControlDesk) -> None:
    async def story() -> None:
        feed = desk.engine.feeds["acc"]
        feed.listed = {f"COIN{number}-USDT": feed.listed[BTC] for number in range(2000)}
        async with desk.serving() as client:
            refusal = await refused(client.plugin.CreateInstance(_new(["NONE-USDT"])))
        assert (refusal.code, refusal.reason) == (Status.INVALID_ARGUMENT, "INVALID_FIELD")
        assert refusal.fields["instance.symbols[0]"].startswith("account acc has no symbol NONE-USDT")

    asyncio.run(story())


def test_a_refusal_names_the_first_of_many_faults_and_says_how_many_there_are(desk: ControlDesk) -> None:
    async def story() -> None:
        async with desk.serving() as client:
            refusal = await refused(client.plugin.CreateInstance(_new(["x"] * 90)))
        assert refusal.code is Status.INVALID_ARGUMENT
        assert "instance.symbols[0]" in refusal.fields
        assert "80 more" in refusal.fields[""]

    asyncio.run(story())


def test_what_a_request_may_hold_many_of_is_bounded(desk: ControlDesk) -> None:
    async def story() -> None:
        async with desk.serving() as client:
            symbols = [f"COIN{number}-USDT" for number in range(50_000)]
            refusal = await refused(client.plugin.CreateInstance(_new(symbols)))
            assert refusal.fields == {"instance.symbols": "expected at most 1000, was 50000"}
            refusal = await refused(client.plugin.CreateInstance(_new([BTC], models=20_000)))
            assert refusal.fields == {"instance.models": "expected at most 100, was 20000"}
            names = [f"accounts/acc/books/{BTC}"] * 20_000
            watch = client.trading.WatchBooks(trading_pb2.WatchBooksRequest(names=names))
            refusal = await refused(watch.read())
            assert refusal.fields == {"names": "expected at most 1000, was 20000"}

    asyncio.run(story())


class _Mask(list[str]):
    def __contains__(self, name: object) -> bool:
        raise AssertionError(f"searched for {name}: with every parameter once, trading stands still")


def test_a_long_mask_is_not_searched_for_every_parameter(desk: ControlDesk) -> None:
    control = desk.subject.instances
    table, params = control.merged_params("mm", {"away": 4.0, "size": "9"}, _Mask(["away"] * 3))
    assert (table, msgspec.to_builtins(params)["size"]) == ({"away": 4.0}, "1")
