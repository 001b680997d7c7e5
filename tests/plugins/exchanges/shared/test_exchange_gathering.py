"""Commands of one turn: the first few alone, the others together right after it."""

import asyncio

import pytest
from exchange_tools import story

from plugins.exchanges._shared.gathering import Gathering


class Sender:
    """Sends what a test has it send, and keeps what went out together."""

    def __init__(self, alone: int) -> None:
        self.sent: list[list[str]] = []
        self.gathering = Gathering[str](alone, self.sent.append)

    def send(self, item: str) -> None:
        if self.gathering.is_alone():
            self.sent.append([item])
        else:
            self.gathering.add(item)


@pytest.mark.parametrize(("alone", "sent"), [(1, [["a"], ["b", "c"]]), (2, [["a"], ["b"], ["c"]])])
def test_the_first_go_at_once_and_the_others_after_the_turn(alone: int, sent: list[list[str]]) -> None:
    @story
    async def run() -> None:
        sender = Sender(alone)
        for item in "abc":
            sender.send(item)
        assert sender.sent == sent[:alone]
        await asyncio.sleep(0)
        assert sender.sent == sent

    run()


@story
async def test_each_turn_begins_to_count_anew() -> None:
    sender = Sender(1)
    for item in "abc":
        sender.send(item)
        await asyncio.sleep(0)
    assert sender.sent == [["a"], ["b"], ["c"]]


@story
async def test_what_something_else_depends_on_goes_at_once_and_only_once() -> None:
    sender = Sender(1)
    for item in "abc":
        sender.send(item)
    assert sender.gathering.waits(lambda item: item == "c")
    assert not sender.gathering.waits(lambda item: item == "a")
    sender.gathering.flush()
    await asyncio.sleep(0)
    assert sender.sent == [["a"], ["b", "c"]]


@story
async def test_after_closing_nothing_goes_out() -> None:
    sender = Sender(1)
    sender.send("a")
    sender.send("b")
    sender.gathering.close()
    await asyncio.sleep(0)
    assert sender.sent == [["a"]]
