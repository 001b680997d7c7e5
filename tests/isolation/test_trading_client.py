"""A stand-alone strategy in Python: it comes and goes as it likes, and is told plainly why it cannot."""

import asyncio
import time
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import zmq
from attached_tools import Running, client_desk, running
from desk_tools import BTC
from isolation_tools import QUOTER, until

from host.api import BookTop, Fill, Order, OrderRefused, OrderStatus
from host.client.trading import TradingClient
from host.client.trading_errors import (
    ClientRefused,
    NoHost,
    StrategyFailed,
    TokenRefused,
    TradingClientError,
)
from host.config import ClientSection
from host.core.entries import InstanceState
from host.isolation.conduct import ALLOWED_NS
from host.wire import JSON
from host.wire.messages import Hello, Refused


def test_it_runs_the_class_of_a_plugin_file_as_the_host_would(tmp_path: Path) -> None:
    async def run() -> None:
        async with client_desk(tmp_path) as desk:
            desk.open_door()
            program = running(desk.client(), desk.cls["q"])
            await desk.attached_to()
            await desk.top_and_quotes()
            bid = next(order for order in desk.desk.venue.open() if order.side == "buy")
            desk.desk.venue.trade(bid, "0.4")
            desk.desk.settle()
            await until(lambda: desk.saved().get("fills") == 1, "the fill is in the saved state")
            assert desk.saved()["traded"] == "0.4"
            assert desk.proxy().status().state == "running"
            await program.stop()
            await until(lambda: not desk.open(), "its orders are pulled")
            assert desk.desk.state_of("q") is InstanceState.RUNNING
            assert desk.proxy().status().state == "waiting"

    asyncio.run(run())


def test_when_it_is_back_it_hears_what_it_missed_once(tmp_path: Path) -> None:
    async def run() -> None:
        async with client_desk(tmp_path) as desk:
            desk.open_door(section=ClientSection(on_loss="keep"))
            first = running(desk.client(), desk.cls["q"])
            await desk.attached_to()
            await desk.top_and_quotes()
            bid = next(order for order in desk.desk.venue.open() if order.side == "buy")
            await first.stop()
            desk.desk.venue.trade(bid, "0.3")
            assert len(desk.open()) == 2
            assert desk.unheard() > 0
            second = running(desk.client(), desk.cls["q"])
            await until(lambda: desk.saved().get("fills") == 1, "it hears of the fill")
            await second.stop()
            await until(lambda: len(desk.alerts("client_gone")) == 2, "it said bye")
            third = running(desk.client(), desk.cls["q"])
            await desk.attached_to()
            await desk.handled()
            assert desk.unheard() == 0
            await third.stop()
            await until(lambda: len(desk.alerts("client_gone")) == 3, "it said bye")
            assert (desk.saved()["fills"], desk.saved()["starts"]) == (1, 3)
            assert len(desk.alerts("client_attached")) == 3

    asyncio.run(run())


def test_one_that_is_killed_is_noticed_at_once_and_its_orders_are_kept_if_that_is_the_policy(
    tmp_path: Path,
) -> None:
    async def run() -> None:
        async with client_desk(tmp_path) as desk:
            # Its deadline is not what ends it.
            desk.open_door(section=ClientSection(on_loss="keep"), deadline_ns=10**15)
            client = desk.client()
            await asyncio.to_thread(client.connect)
            order_id = await asyncio.to_thread(client.buy_limit, BTC, Decimal(1), Decimal(50_000))
            await until(desk.open, "it rests")
            client._drop(has_said_bye=False)  # what the kernel does to the sockets of a killed process
            await until(lambda: desk.alerts("client_gone"), "it is gone")
            assert "its connection ended" in desk.alerts("client_gone")[0]
            assert [order.client_id for order in desk.open()] == [order_id]
            again = desk.client()
            await asyncio.to_thread(again.connect)
            assert [order.client_id for order in again.open_orders()] == [order_id]
            await asyncio.to_thread(again.cancel_order, order_id)
            await until(lambda: not desk.open(), "it is cancelled")
            await asyncio.to_thread(again.close)

    asyncio.run(run())


def test_one_that_comes_right_after_another_is_not_taken_for_it(tmp_path: Path) -> None:
    async def run() -> None:
        async with client_desk(tmp_path) as desk:
            desk.open_door(heartbeat_ns=50_000_000)
            looking = desk.workers._looking
            assert looking is not None
            looking.cancel()  # so that both happen between two looks at who is there
            first, second = desk.client(), desk.client()
            await asyncio.to_thread(first.connect)
            await asyncio.to_thread(first.close)
            await until(lambda: desk.alerts("client_gone"), "it said bye")
            channel = desk.attached["q"]._channel
            assert channel is not None
            await until(lambda: channel._events.poll(0), "its connection ended")
            await asyncio.to_thread(second.connect)
            session = desk.proxy().session
            assert session is not None
            desk.workers._look()
            told = Running(second, lambda: list(second.events()))
            # Four heartbeats take longer than the node waits for the last words of one whose connection ended.
            outlet = session.outlet
            await until(lambda: outlet is None or outlet.handled > 6, "it makes progress")
            assert desk.proxy().session is session
            assert len(desk.alerts("client_gone")) == 1
            second.stop()
            await told.task

    asyncio.run(run())


def test_one_that_handles_nothing_is_given_up_and_begins_anew_by_itself(tmp_path: Path) -> None:
    async def run() -> None:
        async with client_desk(tmp_path) as desk:
            desk.open_door(deadline_ns=300_000_000, heartbeat_ns=50_000_000)
            client = desk.client()
            await asyncio.to_thread(client.connect)
            await asyncio.to_thread(client.buy_limit, BTC, Decimal(1), Decimal(50_000))
            await until(desk.open, "it rests")
            await until(lambda: desk.alerts("client_gone"), "it is given up")
            assert "handled nothing" in desk.alerts("client_gone")[0]
            await until(lambda: not desk.open(), "its order is pulled")
            told = Running(
                client, lambda: [event.status for event in client.events() if isinstance(event, Order)]
            )
            await until(lambda: len(desk.alerts("client_attached")) == 2, "it is back")
            await until(lambda: desk.unheard() == 0, "it has heard what became of its order")
            client.stop()
            assert (await told.task)[-1] is OrderStatus.CANCELLED
            await asyncio.to_thread(client.close)

    asyncio.run(run())


def test_it_trades_call_by_call(tmp_path: Path) -> None:
    async def run() -> None:
        async with client_desk(tmp_path) as desk:
            desk.open_door(source=QUOTER + "\n    def on_trade(self, trade): pass\n")

            def trade(client: TradingClient) -> list[Any]:
                client.subscribe("book")
                heard: list[Any] = []
                order_id = ""
                for event in client.events():
                    heard.append(event)
                    if isinstance(event, BookTop) and not order_id:
                        order_id = client.sell_limit(BTC, Decimal(1), Decimal(70_000), post_only=True)
                        with pytest.raises(OrderRefused, match="trades BTC-USDT"):
                            client.buy_market("ETH-USDT", Decimal(1))
                    elif isinstance(event, Fill):
                        assert client.position(BTC).qty == Decimal("-0.6")
                        assert [order.client_id for order in client.open_orders(BTC)] == [order_id]
                        client.cancel_order(order_id)
                    elif isinstance(event, Order) and event.status is OrderStatus.CANCELLED:
                        return heard
                raise AssertionError("it was not cancelled")

            client = desk.client(encoding="json")
            program = Running(client, lambda: trade(client))
            await desk.attached_to()
            desk.desk.top(60_000.0, 60_000.1)
            await until(desk.open, "it rests")
            desk.desk.venue.trade(desk.desk.venue.open()[0], "0.6")
            desk.desk.settle()
            await until(lambda: desk.desk.settle() or program.task.done(), "it is done")
            heard = await program.task
            assert {type(event) for event in heard} == {BookTop, Order, Fill}
            await asyncio.to_thread(client.close)
            await until(lambda: desk.alerts("client_gone"), "it said bye")

    asyncio.run(run())


def test_it_attaches_again_when_the_host_restarts(tmp_path: Path) -> None:
    async def run() -> None:
        async with client_desk(tmp_path) as desk:
            desk.open_door()
            program = running(desk.client(), desk.cls["q"])
            await desk.attached_to()
            await desk.top_and_quotes()
            await until(lambda: desk.saved().get("starts") == 1, "its state is saved")
            again = desk.restart()
            try:
                again.open_door()
                await again.attached_to()
                await until(lambda: again.saved().get("starts") == 2, "it started with its old state")
                await program.stop()
            finally:
                again.workers.close()
                again.desk.journal.close()

    asyncio.run(run())


def test_an_instance_that_stops_has_it_run_on_stop_and_wait(tmp_path: Path) -> None:
    source = QUOTER + "\n    def on_stop(self) -> None:\n        self.state.trades.append('stopped')\n"

    async def run() -> None:
        async with client_desk(tmp_path) as desk:
            instance = desk.open_door(source=source)
            program = running(desk.client(), desk.cls["q"])
            await desk.attached_to()
            desk.desk.engine.roster.stop(instance, "enough")
            await until(lambda: not desk.workers.are_busy, "it says bye")
            assert desk.saved()["trades"] == ["stopped"]
            desk.desk.engine.roster.start(instance)
            await desk.attached_to()
            await program.stop()
            await until(lambda: desk.saved()["starts"] == 2, "its last state is saved")

    asyncio.run(run())


def test_what_its_strategy_raises_quarantines_the_instance_and_reaches_the_program(tmp_path: Path) -> None:
    source = QUOTER.replace("p = self.params", "raise ValueError('too high')")

    async def run() -> None:
        async with client_desk(tmp_path) as desk:
            desk.open_door(source=source)
            program = running(desk.client(), desk.cls["q"])
            await desk.attached_to()
            desk.desk.top()
            await desk.reach(InstanceState.QUARANTINED)
            with pytest.raises(StrategyFailed, match="too high") as raised:
                await program.task
            assert isinstance(raised.value.__cause__, ValueError)

    asyncio.run(run())


@pytest.mark.parametrize(
    ("of_first", "of_second"), [("msgpack",) * 2, ("json", "msgpack"), ("msgpack", "json")]
)
def test_a_second_one_is_refused_while_the_first_is_alive(
    tmp_path: Path, of_first: str, of_second: str
) -> None:
    async def run() -> None:
        async with client_desk(tmp_path) as desk:
            desk.open_door(deadline_ns=10**15)
            first = running(desk.client(name="the first", encoding=of_first), desk.cls["q"])
            await desk.attached_to()
            with pytest.raises(ClientRefused, match="'the first'") as refused:
                await asyncio.to_thread(desk.client(encoding=of_second).connect)
            assert refused.value.reason == "TAKEN"
            await desk.top_and_quotes()  # the first trades on
            await first.stop()
            await until(lambda: desk.alerts("client_gone"), "it said bye")
            third = running(desk.client(), desk.cls["q"])
            await desk.attached_to()
            await third.stop()
            assert len(desk.alerts("client_attached")) == 2

    asyncio.run(run())


def test_it_says_why_nobody_answers(tmp_path: Path) -> None:
    async def run() -> None:
        async with client_desk(tmp_path) as desk:
            with pytest.raises(NoHost, match='isolation = "client"'):
                desk.client()
            with pytest.raises(NoHost, match="start the node"):
                await asyncio.to_thread(
                    TradingClient(f"ipc://{tmp_path}/nobody", "x" * 32, answer_s=0.1).connect
                )
            desk.open_door()
            address = f"ipc://{tmp_path}/clients/q"
            with pytest.raises(TokenRefused, match="does not answer to this token"):
                await asyncio.to_thread(TradingClient(address, "x" * 32, answer_s=0.5).connect)
            with pytest.raises(TradingClientError, match='"tcp://HOST:PORT", was "udp://'):
                TradingClient("udp://x", "x" * 32).connect()

    asyncio.run(run())


def test_over_tcp_it_is_encrypted_and_another_key_is_refused(tmp_path: Path) -> None:
    from servers import free_ports

    (port,) = free_ports(1)
    address = f"tcp://127.0.0.1:{port}"

    async def run() -> None:
        async with client_desk(tmp_path) as desk:
            desk.open_door(section=ClientSection(listen=address, curve=True))
            token = desk.doors["q"].token.decode()
            server_key = (tmp_path / "clients" / "q.curve.pub").read_text()
            client = TradingClient(address, token, server_key=server_key)
            program = running(client, desk.cls["q"])
            await desk.attached_to()
            await desk.top_and_quotes()
            await program.stop()
            stranger = TradingClient(address, token, server_key=zmq.curve_keypair()[0].decode(), answer_s=0.5)
            with pytest.raises(TokenRefused, match="server_key"):
                await asyncio.to_thread(stranger.connect)

    asyncio.run(run())


def test_of_several_nodes_it_finds_the_one_that_answers(tmp_path: Path) -> None:
    async def run() -> None:
        async with client_desk(tmp_path) as desk:
            desk.open_door()
            here = f"ipc://{tmp_path}/clients/q"
            client = TradingClient([f"ipc://{tmp_path}/nobody", here], desk.doors["q"].token.decode())
            await asyncio.to_thread(client.connect)
            await asyncio.to_thread(client.close)

    asyncio.run(run())


def test_another_version_of_the_protocol_is_refused_by_name(tmp_path: Path) -> None:
    async def run() -> None:
        async with client_desk(tmp_path) as desk:
            desk.open_door()
            answer = await asyncio.to_thread(_say_hello, desk.doors["q"], Hello(protocol=2, run="r"))
            assert isinstance(answer, Refused)
            assert (answer.reason, answer.run) == ("PROTOCOL", "r")
            assert "speaks version 1" in answer.detail

    asyncio.run(run())


def _say_hello(door: Any, hello: Hello) -> Any:
    with zmq.Context() as context, context.socket(zmq.SUB) as events, context.socket(zmq.PUSH) as turns:
        events.linger = turns.linger = 0
        events.connect(door.events)
        events.setsockopt(zmq.SUBSCRIBE, door.token)
        turns.connect(door.turns)
        for _ in range(600):
            turns.send_multipart([door.token, JSON.encode(hello)])
            if events.poll(50):
                return JSON.decode_from_host(events.recv_multipart()[1])
    raise AssertionError("nobody answered")


def test_many_orders_at_once_are_taken_at_its_share_s_pace_and_none_is_lost(tmp_path: Path) -> None:
    async def run() -> None:
        async with client_desk(tmp_path) as desk:
            # The pause is longer than its deadline: what counts is what it has done since its orders were read.
            desk.open_door(deadline_ns=1_000_000_000)
            client = desk.client()
            await asyncio.to_thread(client.connect)
            pauses = 0
            session = desk.session()
            pause = session._way.pause

            def counted(for_ns: int) -> None:
                nonlocal pauses
                pauses += 1
                pause(for_ns)

            session._way.pause = counted
            session.conduct.spend(ALLOWED_NS * 7, time.monotonic_ns())  # it has had its share

            def ladder() -> None:
                for step in range(500):
                    client.buy_limit(BTC, Decimal(1), Decimal(50_000 - step))
                for _ in client.events(wait_s=5.0):
                    if all(order.status is OrderStatus.OPEN for order in client.open_orders()):
                        return

            program = Running(client, ladder)
            await until(lambda: len(desk.open()) == 500, "all of them rest")
            await program.task
            assert pauses > 0
            assert desk.alerts("client_gone") == desk.alerts("client_cut_off") == []
            await asyncio.to_thread(client.close)

    asyncio.run(run())


def test_what_a_program_has_not_taken_yet_is_not_handled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("host.wire.stage.SAY_HANDLED_NS", 0)

    async def run() -> None:
        async with client_desk(tmp_path) as desk:
            desk.open_door(deadline_ns=10**15)
            client = desk.client()
            await asyncio.to_thread(client.connect)
            for number in range(1, 101):
                desk.desk.top(60_000.0 + number, 60_000.5 + number)
            events = client.events()
            taken = [await asyncio.to_thread(next, events) for _ in range(5)]
            session = desk.proxy().session
            assert session is not None
            outlet = session.outlet
            assert outlet is not None
            await until(lambda: outlet.handled >= 4, "the host has heard that it makes progress")
            assert outlet.handled < 4 * len(taken), "those, and next to nothing else"
            await asyncio.to_thread(client.close)

    asyncio.run(run())


def test_who_waits_for_nothing_is_told_what_is_there(tmp_path: Path) -> None:
    async def run() -> None:
        async with client_desk(tmp_path) as desk:
            desk.open_door(deadline_ns=10**15)
            client = desk.client()
            await asyncio.to_thread(client.connect)
            desk.desk.top()
            told: list[object] = []

            def looks() -> list[object]:
                told.extend(client.events(wait_s=0))
                return told

            await until(looks, "it has heard of the book")
            assert isinstance(told[0], BookTop)
            await asyncio.to_thread(client.close)

    asyncio.run(run())
