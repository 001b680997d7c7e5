"""The watchdog: what blocks the loop is named while it does, once, and measured."""

import asyncio
import threading

from host.runtime.culprit import Culprit
from host.runtime.watchdog import LoopWatchdog

LONG_S = 60.0
LIMIT_S = 0.02


class Told:
    """What a watchdog says, and when it has."""

    def __init__(self) -> None:
        self.stacks: list[str] = []
        self.heard = threading.Event()

    def __call__(self, culprit: Culprit) -> None:
        self.stacks.append(culprit.stack)
        self.heard.set()


def a_slow_callback(told: Told) -> None:
    """Block until the watchdog has spoken, and for several times as long as it looks away."""
    assert told.heard.wait(LONG_S)
    threading.Event().wait(10 * LIMIT_S)


async def a_beat(watchdog: LoopWatchdog) -> None:
    """Wait until the watchdog has taken in what is over."""
    before = watchdog._due_ns
    async with asyncio.timeout(LONG_S):
        while watchdog._due_ns == before:
            await asyncio.sleep(0.001)


def test_code_that_blocks_the_loop_is_named_once_while_it_does() -> None:
    told = Told()

    async def story() -> None:
        watchdog = LoopWatchdog(LIMIT_S, on_blocked=told)
        watchdog.start()
        try:
            await a_beat(watchdog)
            a_slow_callback(told)
            await a_beat(watchdog)
            [block] = [block for block in watchdog.take() if "a_slow_callback" in block.stack]
            assert block.lasted_ns > LIMIT_S * 1e9
            assert watchdog.longest_ns() >= block.lasted_ns
            assert watchdog.take() == []
        finally:
            watchdog.stop()

    asyncio.run(story())
    # A busy machine may block the loop by itself before or after.
    assert len([stack for stack in told.stacks if "a_slow_callback" in stack]) == 1


def test_a_second_block_is_named_too() -> None:
    told = Told()

    async def story() -> None:
        watchdog = LoopWatchdog(LIMIT_S, on_blocked=told)
        watchdog.start()
        try:
            for _ in range(2):
                told.heard.clear()
                await a_beat(watchdog)
                told.heard.clear()
                a_slow_callback(told)
                await a_beat(watchdog)
        finally:
            watchdog.stop()

    asyncio.run(story())
    assert len([stack for stack in told.stacks if "a_slow_callback" in stack]) == 2


def test_a_loop_that_runs_is_left_alone() -> None:
    told = Told()

    async def story() -> None:
        watchdog = LoopWatchdog(LONG_S, on_blocked=told)
        watchdog.start()
        try:
            for _ in range(3):
                await a_beat(watchdog)
            assert watchdog.take() == []
        finally:
            watchdog.stop()
            watchdog.stop()

    asyncio.run(story())
    assert told.stacks == []


def test_its_thread_ends_with_it() -> None:
    async def story() -> None:
        watchdog = LoopWatchdog()
        watchdog.start()
        watchdog.stop()

    before = set(threading.enumerate())
    asyncio.run(story())
    assert set(threading.enumerate()) == before
