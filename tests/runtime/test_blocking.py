"""Code that blocks the event loop: it is named, counted, and its instance taken off the loop, by policy."""

import asyncio
import threading
from collections.abc import Callable, Coroutine
from pathlib import Path
from time import monotonic_ns, thread_time
from typing import Any

import msgspec
import pytest
from blocking_tools import BLOCKER, NAP_LINE, SLEEP_LINE
from desk_tools import BTC, Desk

from host.config import WatchdogSection
from host.core.entries import InstanceState
from host.loader import Catalog, make
from host.runtime.blocking import LAST_WORDS, Blocks
from host.runtime.culprit import Call, Culprit, culprit_in
from host.runtime.instance import Instance
from host.runtime.reload.shadow import Shadow
from host.runtime.remote import RemoteStrategy
from host.runtime.turn import turn
from host.runtime.watchdog import BEAT_S, LoopWatchdog, take_last_words

LIMIT_MS = 100
LONG_S = 60.0
RUNNING, QUARANTINED = InstanceState.RUNNING, InstanceState.QUARANTINED


class WatchedDesk(Desk):
    """A desk whose loop is watched, and which has plugins that block it."""

    def __init__(self, folder: Path, on_block: str = "warn") -> None:
        super().__init__(folder / "journal")
        plugins = folder / "plugins"
        plugins.mkdir(exist_ok=True)
        (plugins / "blocker.py").write_text(BLOCKER)
        self.catalog = Catalog.load([plugins], entry_points=False)
        assert not self.catalog.problems
        section = WatchdogSection(limit_ms=LIMIT_MS, on_block=on_block, give_up_ms=600_000)  # type: ignore[arg-type]
        self.blocks = Blocks(section, folder)
        self.blocks.look_at(self.engine)

    def blocker(self, name: str, models: tuple[str, ...] = (), **params: Any) -> Instance:
        offer = self.catalog.strategy("blocker")
        strategy = make(offer, {} if models else params, instance=name)
        chain = [(model, make(self.catalog.model(model), params, instance=name)) for model in models]
        return self.run(name, strategy, BTC, digest=offer.version.digest, models=chain)

    def has_told(self, culprit: str) -> bool:
        """Tell what has blocked the loop, and return whether this was among it: a busy machine blocks it too."""
        self.blocks.tell(self.engine.alert)
        return any(text.endswith(f" by {culprit}") for text in self.alerts("loop_blocked"))

    def play(self, story: Callable[[], Coroutine[Any, Any, None]]) -> None:
        async def watched() -> None:
            self.blocks.start()
            try:
                await story()
            finally:
                self.blocks.stop()

        asyncio.run(watched())

    async def beat(self) -> None:
        """Wait until the loop has beaten, so that what blocked it is over for the watchdog too."""
        before = self.blocks.watchdog._due_ns
        async with asyncio.timeout(LONG_S):
            while self.blocks.watchdog._due_ns == before:
                await asyncio.sleep(0.001)


def long_enough() -> float:
    """Return seconds for which a block is noticed on any machine: its thread looks 4 times within the limit."""
    return 10 * LIMIT_MS / 1e3


def test_callback_that_blocks_is_named_with_its_instance_and_line_and_counted(tmp_path: Path) -> None:
    desk = WatchedDesk(tmp_path)
    desk.blocker("quick")
    slow = desk.blocker("slow", seconds=long_enough())

    async def story() -> None:
        await desk.beat()
        desk.top()
        desk.top(60_010.0, 60_010.1)
        await desk.beat()

    desk.play(story)
    assert desk.has_told(f"instance slow, on_book (blocker.py, line {SLEEP_LINE})")
    count = desk.blocks.by_instance["slow"]
    assert count.count >= 1
    assert count.longest_ns >= (long_enough() - BEAT_S) * 1e9
    assert slow.state is RUNNING  # only warned


def test_instance_that_blocks_is_quarantined_in_the_very_turn_and_its_neighbours_go_on(
    tmp_path: Path,
) -> None:
    desk = WatchedDesk(tmp_path, "quarantine")
    quick = desk.blocker("quick")
    slow = desk.blocker("slow", seconds=long_enough())

    async def story() -> None:
        await desk.beat()
        desk.top()
        assert len(desk.venue.open(BTC)) == 4
        desk.top(60_010.0, 60_010.1)
        assert (quick.state, slow.state) == (RUNNING, QUARANTINED)
        assert len(desk.venue.open(BTC)) == 2

    desk.play(story)
    reason = desk.engine.state.instances["slow"].reason
    assert (
        reason == f"on_book held the event loop for more than {LIMIT_MS} ms (blocker.py, line {SLEEP_LINE})"
    )


STOPPER = BLOCKER.replace(
    "    def on_book(", "    def on_stop(self) -> None:\n        nap(self.params)\n\n    def on_book(", 1
)


def test_version_that_blocks_as_it_goes_is_not_held_against_the_one_in_its_place(tmp_path: Path) -> None:
    desk = WatchedDesk(tmp_path, "quarantine")
    (tmp_path / "others").mkdir()
    (tmp_path / "others" / "stopper.py").write_text(STOPPER)
    offer = Catalog.load([tmp_path / "others"], entry_points=False).strategy("stopper")
    old = make(offer, {"seconds": long_enough(), "at_book": 0}, instance="mm")
    before = desk.run("mm", old, BTC, digest=offer.version.digest)

    async def story() -> None:
        await desk.beat()
        with turn(desk.engine):
            desk.engine.roster.stop(before, "replaced")
            desk.engine.roster.remove(before)
            desk.blocker("mm")
        assert desk.state_of("mm") is RUNNING
        await desk.beat()

    desk.play(story)
    assert any("instance mm, on_stop (stopper.py" in text for text in _told(desk))


def test_new_version_that_blocks_as_it_rehearses_is_not_held_against_the_one_that_runs(
    tmp_path: Path,
) -> None:
    desk = WatchedDesk(tmp_path, "quarantine")
    running = desk.blocker("mm", at_book=0)
    (tmp_path / "others").mkdir()
    (tmp_path / "others" / "stopper.py").write_text(STOPPER)
    offer = Catalog.load([tmp_path / "others"], entry_points=False).strategy("stopper")
    new = make(offer, {"seconds": long_enough(), "at_book": 1}, instance="mm")
    clock = desk.engine.clock

    async def story() -> None:
        await desk.beat()
        desk.top()
        Shadow(running, new, clock.now_ns(), clock.stopwatch_ns).run(list(running.account_history.events))
        desk.top(60_010.0, 60_010.1)
        assert running.state is RUNNING
        await desk.beat()

    desk.play(story)
    assert any("instance mm, on_book (stopper.py" in text for text in _told(desk))


def test_block_that_is_told_of_twice_moves_its_instance_into_a_worker_once(tmp_path: Path) -> None:
    """Once by the thread and, as it keeps the interpreter's lock then, once by a dump of its stack."""
    desk = WatchedDesk(tmp_path, "worker")
    slow = desk.blocker("slow")
    digest = desk.engine.state.instances["slow"].digest[:12]
    moved: list[str] = []

    def move(name: str, why: str) -> bool:
        moved.append(why)
        slow.strategy = RemoteStrategy(slow.strategy.params)
        return True

    desk.engine.move_to_worker = move
    told = Culprit("slow", "", "on_book", "blocker.py", 7, (Call("on_book", digest),))
    for culprit in (told, msgspec.structs.replace(told, instance="")):
        desk.blocks._on_culprit(culprit)
        desk.advance(1)
    assert len(moved) == 1
    assert slow.state is RUNNING


def _told(desk: WatchedDesk) -> list[str]:
    desk.blocks.tell(desk.engine.alert)
    return desk.alerts("loop_blocked")


def test_model_that_blocks_is_named_with_the_instance_whose_quote_it_adjusts(tmp_path: Path) -> None:
    desk = WatchedDesk(tmp_path)
    desk.blocker("quick")
    desk.blocker("slow", models=("blocker",), seconds=long_enough())

    async def story() -> None:
        await desk.beat()
        desk.top()
        await desk.beat()

    desk.play(story)
    assert desk.has_told(f"instance slow, adjust (blocker.py, line {SLEEP_LINE})")


def test_instance_whose_model_blocks_is_quarantined_as_no_worker_takes_that_off_the_loop(
    tmp_path: Path,
) -> None:
    desk = WatchedDesk(tmp_path, "worker")
    moved: list[str] = []
    desk.engine.move_to_worker = lambda name, _why: not moved.append(name)  # type: ignore[func-returns-value]
    slow = desk.blocker("slow", models=("blocker",), seconds=long_enough())

    async def story() -> None:
        await desk.beat()
        desk.top()
        assert slow.state is QUARANTINED

    desk.play(story)
    assert moved == []


def test_code_that_keeps_the_interpreters_lock_is_named_all_the_same(tmp_path: Path) -> None:
    desk = WatchedDesk(tmp_path, "quarantine")
    slow = desk.blocker("slow", seconds=0.3, holds_lock=True)

    async def story() -> None:
        await desk.beat()
        desk.top()
        desk.top(60_010.0, 60_010.1)
        await desk.beat()

    desk.play(story)
    assert desk.has_told(f"instance slow, on_book (blocker.py, line {NAP_LINE})")
    desk.advance(1)  # at the end of the next turn at the latest
    assert desk.blocks.by_instance["slow"].count >= 1
    assert slow.state is QUARANTINED


def test_block_that_ends_before_its_dump_is_looked_at_is_told_by_the_loop_itself(tmp_path: Path) -> None:
    told: list[Culprit] = []
    watchdog = LoopWatchdog(LIMIT_MS / 1e3, on_culprit=told.append, last_words=tmp_path / LAST_WORDS)
    dump = DUMP.replace("00007f0000000002", f"{threading.get_ident():016x}")

    async def story() -> None:
        watchdog.start()
        watchdog._ends.set()  # its thread cannot run from here on
        assert watchdog._thread is not None
        watchdog._thread.join()
        (tmp_path / LAST_WORDS).write_text(dump)
        ends = thread_time() + 4 * LIMIT_MS / 1e3
        while thread_time() < ends or monotonic_ns() < watchdog._due_ns + 2e6 * LIMIT_MS:
            pass
        before = watchdog._due_ns
        async with asyncio.timeout(LONG_S):
            while watchdog._due_ns == before:
                await asyncio.sleep(0.001)
        watchdog.stop()

    asyncio.run(story())
    [culprit] = told
    assert (culprit.callback, culprit.line) == ("on_trade", 3)
    [block] = watchdog.take()
    assert block.culprit == culprit


def test_last_words_say_what_blocks_while_it_does_and_nothing_else(tmp_path: Path) -> None:
    desk = WatchedDesk(tmp_path)
    desk.blocker("slow", seconds=long_enough())
    words: list[str] = []
    says_who = threading.Event()

    def look() -> None:
        while not says_who.is_set():
            text = (tmp_path / LAST_WORDS).read_text() if (tmp_path / LAST_WORDS).exists() else ""
            if "on_book" in text:
                words.append(text)
                says_who.set()

    reader = threading.Thread(target=look)
    reader.start()

    async def story() -> None:
        await desk.beat()
        desk.top()
        desk.top(60_010.0, 60_010.1)
        await desk.beat()
        assert (tmp_path / LAST_WORDS).read_text() == ""

    desk.play(story)
    reader.join(LONG_S)
    (tmp_path / LAST_WORDS).write_text(words[0])
    culprit = take_last_words(tmp_path / LAST_WORDS)
    assert culprit is not None
    assert str(culprit) == f"instance slow, on_book (blocker.py, line {SLEEP_LINE})"
    assert take_last_words(tmp_path / LAST_WORDS) is None


@pytest.mark.parametrize(
    ("policy", "state"), [("warn", RUNNING), ("quarantine", QUARANTINED), ("give_up", QUARANTINED)]
)
def test_what_blocked_the_process_before_until_it_ended_is_not_called_again(
    tmp_path: Path, policy: str, state: InstanceState
) -> None:
    desk = WatchedDesk(tmp_path)
    slow = desk.blocker("slow")
    desk.blocker("other")
    digest = desk.engine.state.instances["slow"].digest[:12]
    folder, venue = desk.folder.parent, desk.venue
    desk.journal.close()
    (tmp_path / LAST_WORDS).write_bytes(
        _words(Culprit("slow", "", "on_book", "blocker.py", 7, (Call("on_book", digest),)))
    )

    again = WatchedDesk(folder, policy)
    assert again.venue is not venue

    async def story() -> None:
        await again.beat()

    again.play(story)
    again.blocks.take_up(again.engine)
    assert again.engine.state.instances["slow"].state is state
    assert again.engine.state.instances["other"].state is RUNNING
    again.blocks.take_up(again.engine)
    [text] = again.alerts("gave_up")
    assert text.endswith("by instance slow, on_book (blocker.py, line 7)")
    assert slow.instance == "slow"


@pytest.mark.parametrize(
    ("callback", "own", "state"),
    [("on_book", True, RUNNING), ("adjust", True, QUARANTINED), ("adjust", False, QUARANTINED)],
)
def test_process_that_a_model_ended_is_not_ended_by_it_again(
    tmp_path: Path, callback: str, own: bool, state: InstanceState
) -> None:
    """A strategy goes on in a worker then; its models would be called by the host there too."""
    desk = WatchedDesk(tmp_path, "worker")
    desk.blocker("slow")
    digest = desk.engine.state.instances["slow"].digest[:12]
    calls = (Call("on_book", digest),) if own else (Call(callback, "0" * 12), Call("on_book", digest))
    desk.blocks._before = Culprit("slow", "", callback, "blocker.py", 7, calls)
    desk.engine.was_led_here = True
    desk.blocks.take_up(desk.engine)
    assert desk.state_of("slow") is state
    assert ("slow" in desk.engine.state.isolated) == (state is RUNNING)


def test_block_of_a_node_that_another_has_led_after_is_old_news(tmp_path: Path) -> None:
    desk = WatchedDesk(tmp_path, "quarantine")
    desk.blocker("slow")
    digest = desk.engine.state.instances["slow"].digest[:12]
    desk.blocks._before = Culprit("slow", "", "on_book", "blocker.py", 7, (Call("on_book", digest),))
    desk.engine.was_led_here = False
    desk.blocks.take_up(desk.engine)
    assert desk.state_of("slow") is RUNNING


def _words(culprit: Culprit) -> bytes:
    return msgspec.json.encode(culprit) + b"\n"


DUMP = """Timeout (0:00:01)!
Thread 0x00007f0000000001 (most recent call first):
  File "/usr/lib/python3.11/threading.py", line 331 in wait
  File "/srv/host/runtime/watchdog.py", line 200 in _watch

Thread 0x00007f0000000002 (most recent call first):
  File "/usr/lib/python3.11/re/__init__.py", line 166 in match
  File "/srv/mine/helper.py@0123456789ab", line 3 in parse
  File "/srv/mine/maker.py@ba9876543210", line 12 in on_trade
  File "/srv/host/runtime/feed.py", line 320 in _hand_out
  File "/srv/plugins/paper.py@00aa00aa00aa", line 189 in step
  File "/srv/host/runtime/driver.py", line 78 in _step
"""


def test_dump_of_a_stack_names_the_plugin_and_its_line() -> None:
    for thread in (0x7F0000000002, 0):
        culprit = culprit_in(DUMP, thread)
        assert culprit is not None
        assert (culprit.callback, culprit.file, culprit.line) == ("on_trade", "helper.py", 3)
        assert culprit.calls == (Call("on_trade", "ba9876543210"), Call("step", "00aa00aa00aa"))
    of_host = culprit_in(DUMP, 0x7F0000000001)
    assert of_host is not None
    assert (of_host.callback, of_host.line) == ("", 331)
    assert culprit_in("", 1) is None
    assert culprit_in(DUMP, 5) is None
