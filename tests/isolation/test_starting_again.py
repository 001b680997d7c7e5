"""An instance that is started again, or whose name is taken, while the strategy that ran it still handles its stop."""

import asyncio
from pathlib import Path

import pytest
from attached_tools import client_desk, running, two_ports
from isolation_tools import QUOTER, until, worker_desk

from host.client.trading import TradingClient
from host.config import ClientSection
from host.isolation.settings import SECOND_NS

SOON = SECOND_NS // 20
NEVER_STOPS = QUOTER + "\n    def on_stop(self) -> None:\n        while True: pass\n"


def test_its_client_says_bye_and_is_let_in_again(short_path: Path) -> None:
    async def run() -> None:
        async with client_desk(short_path) as desk:
            instance, roster = desk.open_door(), desk.desk.engine.roster
            program = running(desk.client(), desk.cls["q"])
            await desk.attached_to()
            roster.stop(instance, "a moment")
            roster.start(instance)
            await until(lambda: desk.proxy("q").status().restarts == 1, "it attaches again")
            await desk.attached_to()
            assert not desk.attached["q"].is_busy, "it would be shut once the time for the stop is over"
            await desk.top_and_quotes()
            await program.stop()

    asyncio.run(run())


def test_a_client_that_does_not_handle_the_stop_leaves_the_door_open(short_path: Path) -> None:
    async def run() -> None:
        async with client_desk(short_path) as desk:
            instance, roster = desk.open_door(stop_ns=SOON), desk.desk.engine.roster
            hung = desk.client()
            await asyncio.to_thread(hung.connect)
            roster.stop(instance, "a moment")
            roster.start(instance)
            await until(lambda: desk.alerts("client_gone"), "it is given up")
            assert "did not handle stop" in desk.alerts("client_gone")[0]
            program = running(desk.client(), desk.cls["q"])
            await desk.top_and_quotes()
            await program.stop()
            await asyncio.to_thread(hung.close)

    asyncio.run(run())


def test_a_worker_that_does_not_handle_the_stop_is_followed_by_another(short_path: Path) -> None:
    async def run() -> None:
        async with worker_desk(short_path) as desk:
            instance, roster = desk.add("q", NEVER_STOPS, stop_ns=SOON), desk.desk.engine.roster
            first = await desk.started()
            roster.stop(instance, "a moment")
            roster.start(instance)
            await until(lambda: desk.alerts("worker_lost"), "it is given up")
            assert await desk.started() != first
            await desk.top_and_quotes()

    asyncio.run(run())


@pytest.mark.parametrize("way", ["ipc", "tcp"])
def test_another_of_its_name_opens_the_door_once_it_is_gone(short_path: Path, way: str) -> None:
    section = ClientSection() if way == "ipc" else ClientSection(listen=f"tcp://127.0.0.1:{two_ports()}")

    async def run() -> None:
        async with client_desk(short_path) as desk:
            instance, roster = desk.open_door(section=section, stop_ns=SOON), desk.desk.engine.roster
            door = desk.doors["q"]
            address = section.listen if way == "tcp" else door.events.removesuffix(".events.sock")
            hung, other = (TradingClient(address, door.token.decode(), answer_s=30.0) for _ in range(2))
            await asyncio.to_thread(hung.connect)
            before = desk.attached["q"]
            roster.stop(instance, "its terms change")
            roster.remove(instance)
            desk.open_door(section=section)
            await until(lambda: before.is_over, "it is given up")
            program = running(other, desk.cls["q"])
            await desk.top_and_quotes()
            await program.stop()
            await asyncio.to_thread(hung.close)

    asyncio.run(run())
