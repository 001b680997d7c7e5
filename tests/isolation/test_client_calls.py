"""A client that trades call by call: nothing that it was told is lost or told twice, and nothing vanishes quietly."""

import asyncio
import functools
import subprocess
import sys
import time
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from attached_tools import Running, client_desk, running
from desk_tools import BTC
from isolation_tools import QUOTER, until

from host.api import BookTop, Fill, Order, OrderStatus
from host.client.trading_errors import NoHost, StrategyFailed
from host.config import ClientSection
from host.isolation.attached import LINGER_NS

FORGETFUL = """
import gc, sys
from host.client.attachment import Attachment

attached = Attachment(sys.argv[1], b"token")
attached.itself = attached  # as what is held by a thread's traceback is
del attached
gc.collect()
"""


def test_a_program_ends_though_it_never_closed_its_client(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", FORGETFUL, f"ipc://{tmp_path}/q"], timeout=60, check=False, capture_output=True
    )
    assert done.returncode == 0, done.stderr


def test_what_was_told_before_it_had_to_begin_anew_is_told_once(tmp_path: Path) -> None:
    async def run() -> None:
        async with client_desk(tmp_path) as desk:
            desk.open_door(section=ClientSection(on_loss="keep"), deadline_ns=10**15)
            client = desk.client()
            await asyncio.to_thread(client.connect)
            first = await asyncio.to_thread(client.buy_limit, BTC, Decimal(1), Decimal(50_000))
            await until(desk.open, "it rests")
            (order,) = desk.open()
            desk.desk.venue.trade(order, "0.1")
            desk.desk.settle()
            while not any(isinstance(event, Fill) for event in client._inbox):
                client._inbox.clear()  # it has taken these
                await asyncio.to_thread(client._step, 1.0)
            # The next order says that the host's news are handled, though the program has not looked at the fill.
            await asyncio.to_thread(client.buy_limit, BTC, Decimal(1), Decimal(40_000))
            await until(lambda: desk.unheard() == 0 and len(desk.open()) == 2, "the host knows that")
            client._drop(has_said_bye=False)  # the connection is lost
            await until(lambda: desk.alerts("client_gone"), "the host notices")
            desk.desk.venue.trade(order, "0.2")
            desk.desk.settle()
            told: list[Fill] = []

            def listen() -> None:
                for event in client.events(30):
                    told.extend([event] if isinstance(event, Fill) else [])
                    if len(told) == 2:
                        return

            await asyncio.to_thread(listen)
            assert [(fill.client_id, fill.qty) for fill in told] == [
                (first, Decimal("0.1")),
                (first, Decimal("0.2")),
            ]
            await asyncio.to_thread(client.close)

    asyncio.run(run())


def test_all_that_it_said_is_done_though_it_leaves_at_once(tmp_path: Path) -> None:
    orders = 400  # more than ZeroMQ lets wait at the host: what is beyond that ends with the connection

    async def run() -> None:
        async with client_desk(tmp_path) as desk:
            desk.open_door(section=ClientSection(on_loss="keep"))

            def ladder() -> None:
                with desk.client() as client:
                    for step in range(orders):
                        client.buy_limit(BTC, Decimal(1), Decimal(50_000 - step))

            await asyncio.to_thread(ladder)
            await until(lambda: desk.desk.alerts("client_gone"), "it said bye")
            assert "it said bye" in desk.desk.alerts("client_gone")[0]
            assert len(desk.desk.venue.orders) == orders

    asyncio.run(run())


def test_what_one_said_that_was_killed_while_it_had_to_wait_is_done_first(tmp_path: Path) -> None:
    async def run() -> None:
        async with client_desk(tmp_path) as desk:
            desk.open_door(section=ClientSection(on_loss="keep"), deadline_ns=10**15)
            client = desk.client()
            await asyncio.to_thread(client.connect)
            attached, session = desk.attached["q"], desk.proxy().session
            channel = attached._channel
            assert channel is not None
            channel.pause(10**12)  # as for one that has had its share of the host
            order_id = await asyncio.to_thread(client.buy_limit, BTC, Decimal(1), Decimal(50_000))
            await until(lambda: channel._turns.poll(0), "the order is with the host")
            client._drop(has_said_bye=False)  # what the kernel does to the sockets of a killed process
            await until(lambda: attached._hung_up_ns, "its connection ended")
            attached.look(time.monotonic_ns() + 10 * LINGER_NS)
            assert desk.proxy().session is session, "it is not gone before its order was read"
            channel._resume()
            await until(lambda: desk.alerts("client_gone"), "it is gone")
            assert [order.client_id for order in desk.open()] == [order_id]

    asyncio.run(run())


def test_a_fill_that_the_host_tells_again_is_not_told_twice(tmp_path: Path) -> None:
    async def run() -> None:
        async with client_desk(tmp_path) as desk:
            desk.open_door(section=ClientSection(on_loss="keep"), deadline_ns=10**15)
            client = desk.client()
            await asyncio.to_thread(client.connect)
            await asyncio.to_thread(client.buy_limit, BTC, Decimal(1), Decimal(50_000))
            await until(desk.open, "it rests")
            desk.desk.venue.trade(desk.open()[0], "0.1")
            desk.desk.settle()
            events = client.events(30)
            await asyncio.to_thread(lambda: next(event for event in events if isinstance(event, Fill)))
            client._drop(has_said_bye=False)  # the host has not heard that it is handled
            await until(lambda: desk.alerts("client_gone"), "the host notices")
            assert desk.unheard() > 0
            desk.desk.venue.trade(desk.open()[0], "0.2")
            desk.desk.settle()
            again = await asyncio.to_thread(
                lambda: next(event for event in events if isinstance(event, Fill))
            )
            assert again.qty == Decimal("0.2")
            await asyncio.to_thread(client.close)

    asyncio.run(run())


def test_an_order_after_the_host_stopped_the_instance_is_not_taken_for_sent(tmp_path: Path) -> None:
    async def run() -> None:
        async with client_desk(tmp_path) as desk:
            instance = desk.open_door()
            client = desk.client()
            await asyncio.to_thread(client.connect)
            client._answer_s = 0.2  # type: ignore[misc] # only now: the first answer may take long
            desk.desk.engine.roster.stop(instance, "enough")
            stage = client._stage
            assert stage is not None
            while not stage.is_over:
                await asyncio.to_thread(client._step, 1.0)
            with pytest.raises(NoHost):
                await asyncio.to_thread(client.buy_limit, BTC, Decimal(1), Decimal(50_000))

    asyncio.run(run())


def test_an_order_that_went_with_the_connection_is_told_as_rejected_and_no_other(tmp_path: Path) -> None:
    async def run() -> None:
        async with client_desk(tmp_path) as desk:
            desk.open_door(section=ClientSection(on_loss="keep"), deadline_ns=10**15)
            client = desk.client()
            await asyncio.to_thread(client.connect)
            buy = functools.partial(asyncio.to_thread, client.buy_limit, BTC, Decimal(1))
            filled, resting = await buy(Decimal(50_000)), await buy(Decimal(40_000))
            await until(lambda: len(desk.open()) == 2, "they rest")
            assert client._stage is not None
            client._stage._send_bytes = lambda _body: None  # type: ignore[misc] # what is said is lost
            lost = await buy(Decimal(30_000))
            client._drop(has_said_bye=False)
            await until(lambda: desk.alerts("client_gone"), "the host notices")
            (order,) = (order for order in desk.open() if order.client_id == filled)
            desk.desk.venue.trade(order, "1")
            desk.desk.settle()
            told: list[Order | Fill] = []

            def listen() -> None:
                for event in client.events(30):
                    told.extend([event] if isinstance(event, Order | Fill) else [])
                    if isinstance(event, Order) and event.client_id == lost:
                        return

            await asyncio.to_thread(listen)
            assert [one.client_id for one in told if isinstance(one, Fill)] == [filled]
            rejected = [one for one in told if isinstance(one, Order) and one.status is OrderStatus.REJECTED]
            assert [(one.client_id, one.reason.partition(":")[0]) for one in rejected] == [
                (lost, "NOT_TAKEN")
            ]
            assert [one.client_id for one in client.open_orders()] == [resting]
            await asyncio.to_thread(client.close)

    asyncio.run(run())


def test_what_cannot_be_sent_is_not_taken_for_an_order(tmp_path: Path) -> None:
    wrong: Any = object()

    async def run() -> None:
        async with client_desk(tmp_path) as desk:
            desk.open_door(deadline_ns=10**15)
            client = desk.client()
            await asyncio.to_thread(client.connect)
            with pytest.raises(StrategyFailed, match="prices and quantities are numbers"):
                await asyncio.to_thread(client.buy_limit, BTC, wrong, Decimal(50_000))
            await until(lambda: desk.alerts("quarantined"), "as an inline one it is quarantined")

    asyncio.run(run())


def test_a_class_is_run_though_its_client_was_attached_before(tmp_path: Path) -> None:
    async def run() -> None:
        async with client_desk(tmp_path) as desk:
            desk.open_door(deadline_ns=10**15)
            client = desk.client()
            await asyncio.to_thread(client.connect)
            program = running(client, desk.cls["q"])
            await desk.top_and_quotes()
            await program.stop()

    asyncio.run(run())


INTERRUPTED = """
from decimal import Decimal

from host.api import BookTop, Fill, NoParams, State, Strategy


class Counted(State):
    fills: int = 0


class Interrupted(Strategy[NoParams]):
    state: Counted
    is_to_be = True

    def on_book(self, book: BookTop) -> None:
        if not self.ctx.open_orders():
            self.buy_limit(book.symbol, Decimal(1), Decimal(50_000))

    def on_fill(self, fill: Fill) -> None:
        self.state.fills += 1
        if Interrupted.is_to_be:
            Interrupted.is_to_be = False
            raise KeyboardInterrupt
"""


def test_a_fill_in_the_middle_of_which_it_was_interrupted_is_heard_again_once(tmp_path: Path) -> None:
    async def run() -> None:
        async with client_desk(tmp_path) as desk:
            desk.open_door(source=INTERRUPTED, section=ClientSection(on_loss="keep"))
            strategy = desk.cls["q"]
            interrupted: list[bool] = []

            def first() -> None:
                try:
                    desk.client().run(strategy)
                except KeyboardInterrupt:
                    interrupted.append(True)

            program = asyncio.ensure_future(asyncio.to_thread(first))
            await desk.attached_to()
            desk.desk.top()
            await until(desk.open, "it rests")
            desk.desk.venue.trade(desk.open()[0], "0.4")
            desk.desk.settle()
            await program
            assert interrupted == [True]
            await until(lambda: desk.alerts("client_gone"), "it said bye")
            assert desk.unheard() > 0
            again = running(desk.client(), strategy)
            await until(lambda: desk.saved().get("fills") == 1 and desk.unheard() == 0, "it heard of it")
            await again.stop()
            assert desk.saved()["fills"] == 1

    asyncio.run(run())


def test_a_state_that_does_not_fit_ends_the_run_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def run() -> None:
        async with client_desk(tmp_path) as desk:
            desk.open_door(section=ClientSection(on_loss="keep"))
            first = running(desk.client(), desk.cls["q"])
            await desk.attached_to()
            await first.stop()
            await until(lambda: desk.alerts("client_gone"), "it said bye")
            assert desk.saved()["starts"] == 1
            # Given back: whoever imports the same bytes in this process has the same class.
            monkeypatch.setattr(desk.cls["q"].state_type, "state_version", 2)
            with pytest.raises(StrategyFailed, match="the saved state"):
                await running(desk.client(), desk.cls["q"]).task

    asyncio.run(run())


NAN = QUOTER.replace("    starts: int = 0\n", "    starts: int = 0\n    last: float = 0.0\n").replace(
    "        p = self.params\n", "        p = self.params\n        self.state.last = float('nan')\n"
)


@pytest.mark.parametrize("encoding", ["msgpack", "json"])
def test_what_json_has_not_is_found_out_when_it_is_to_be_saved(tmp_path: Path, encoding: str) -> None:
    async def run() -> None:
        async with client_desk(tmp_path) as desk:
            desk.open_door(source=NAN)
            program = running(desk.client(encoding=encoding), desk.cls["q"])
            await desk.attached_to()
            desk.desk.top()
            if encoding == "msgpack":
                await until(lambda: desk.saved().get("last") not in (0.0, None), "it is saved")
                await program.stop()
            else:
                with pytest.raises(StrategyFailed, match="the saved state"):
                    await program.task
                await until(lambda: desk.alerts("quarantined"), "it is quarantined")

    asyncio.run(run())


INDEXED = QUOTER.replace(
    "    starts: int = 0\n", "    starts: int = 0\n    by_level: dict[int, int] = {}\n"
).replace(
    "        self.state.starts += 1\n", "        self.state.starts += 1\n        self.state.by_level[7] = 1\n"
)


def test_a_map_by_number_comes_back_from_json(tmp_path: Path) -> None:
    async def run() -> None:
        async with client_desk(tmp_path) as desk:
            desk.open_door(source=INDEXED)
            first = running(desk.client(encoding="json"), desk.cls["q"])
            await desk.attached_to()
            await first.stop()
            await until(lambda: desk.alerts("client_gone"), "it said bye")
            second = running(desk.client(encoding="json"), desk.cls["q"])
            await until(lambda: desk.saved()["starts"] == 2, "it goes on from there")
            await second.stop()
            assert desk.saved()["by_level"] == {"7": 1}

    asyncio.run(run())


def test_a_long_line_of_its_log_ends_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    source = QUOTER.replace(
        "        p = self.params\n",
        "        p = self.params\n        self.ctx.log.info('x' * (8 << 20))\n"
        "        for n in range(9_000): self.ctx.log.info('%d', n)\n",
    )

    async def run() -> None:
        async with client_desk(tmp_path) as desk:
            desk.open_door(source=source, deadline_ns=10**15)
            program = running(desk.client(), desk.cls["q"])
            await desk.attached_to()
            await desk.top_and_quotes()
            await program.stop()
            assert not desk.alerts("client_cut_off")

    with caplog.at_level("INFO", "tandem.strategy"):
        asyncio.run(run())
    assert "x" * 2_000 in caplog.text
    assert "x" * 2_001 not in caplog.text


def test_no_book_is_begun_whose_changes_its_plugin_does_not_hear(tmp_path: Path) -> None:
    async def run() -> None:
        async with client_desk(tmp_path) as desk:
            desk.open_door()  # of a plugin that hears of the best prices only
            desk.desk.depth(1, 10, is_snapshot=True)
            client = desk.client()
            client.subscribe("book", "depth")
            told = Running(client, lambda: list(client.events()))
            await desk.attached_to()
            desk.desk.top(60_000.0, 60_002.0)
            await desk.handled()
            await told.stop()
            heard = {type(event) for event in told.task.result()}
            assert heard == {BookTop}

    asyncio.run(run())
