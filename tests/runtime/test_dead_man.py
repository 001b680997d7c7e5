"""The dead man's switch: armed in time, for what it covers and no longer than that."""

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, ClassVar

import pytest
from desk_tools import BTC, ETH, Desk, Quoter, ScriptedVenue
from hypothesis import given, settings
from hypothesis import strategies as st

from host.api import DeadManTerms, ExchangeError
from host.core.client_id import epoch_tag
from host.runtime.dead_man import DeadMan

AFTER_MS = 9_000
THIRD_S = AFTER_MS / 3 / 1e3
ACCOUNT_WIDE = DeadManTerms(least_ms=1_000, most_ms=60_000)
TAGGED = DeadManTerms(least_ms=1_000, most_ms=60_000, is_tagged=True)
PER_SYMBOL = DeadManTerms(least_ms=1_000, most_ms=60_000, is_per_symbol=True)


class SwitchedVenue(ScriptedVenue):
    """A venue with a switch: what it was told, and how it behaves."""

    dead_man: ClassVar[DeadManTerms | None] = ACCOUNT_WIDE

    def __init__(self) -> None:
        super().__init__()
        self.armed: list[tuple[int, str, str]] = []
        self.refusal = ""
        self.answers = asyncio.Event()
        self.answers.set()

    async def arm_dead_man(self, after_ms: int, *, symbol: str = "", tag: str = "") -> None:
        self.armed.append((after_ms, symbol, tag))
        await self.answers.wait()
        if self.refusal:
            raise ExchangeError(self.refusal)

    def take(self) -> list[tuple[int, str, str]]:
        """Return what it was told since the last time."""
        taken, self.armed = self.armed, []
        return taken


class TaggedVenue(SwitchedVenue):
    dead_man = TAGGED


class SymbolVenue(SwitchedVenue):
    dead_man = PER_SYMBOL


async def turns() -> None:
    """Let tasks that wait for nothing come to their end."""
    for _ in range(10):
        await asyncio.sleep(0)


async def advance(desk: Desk, seconds: float) -> None:
    desk.advance(seconds)
    await turns()


def with_desk(
    folder: Path,
    venue: type[SwitchedVenue],
    story: Callable[[Desk, Any, DeadMan], Coroutine[Any, Any, None]],
    after_ms: int = AFTER_MS,
) -> None:
    async def run() -> None:
        desk = Desk(folder, venue())
        dead_man = DeadMan(desk.engine, after_ms)
        desk.engine.upkeep.duties.append(dead_man.on_duty)
        try:
            await story(desk, desk.venue, dead_man)
        finally:
            await desk.feed.close()
            desk.journal.close()

    asyncio.run(run())


def test_nothing_is_armed_before_this_node_trades(tmp_path: Path) -> None:
    async def story(desk: Desk, venue: SwitchedVenue, _dead_man: DeadMan) -> None:
        desk.run("mm", Quoter())
        await advance(desk, 60)
        assert venue.armed == []

    with_desk(tmp_path, SwitchedVenue, story)


def test_it_is_armed_three_times_within_its_time_and_not_more_often(tmp_path: Path) -> None:
    async def story(desk: Desk, venue: SwitchedVenue, dead_man: DeadMan) -> None:
        desk.run("mm", Quoter())
        await dead_man.begin()
        assert venue.take() == [(AFTER_MS, "", "")]
        for _ in range(10):
            await advance(desk, THIRD_S + 0.5)  # the housekeeping looks every half second
            assert venue.take() == [(AFTER_MS, "", "")]

    with_desk(tmp_path, SwitchedVenue, story)


def test_the_first_order_waits_for_a_switch_that_another_node_may_have_set(tmp_path: Path) -> None:
    async def story(desk: Desk, venue: SwitchedVenue, dead_man: DeadMan) -> None:
        desk.add("mm", Quoter())
        venue.answers.clear()
        beginning = asyncio.ensure_future(dead_man.begin())
        await turns()
        assert venue.armed == [(AFTER_MS, "", "")]
        assert not beginning.done()
        venue.answers.set()
        await beginning

    with_desk(tmp_path, SwitchedVenue, story)


def test_it_does_not_wait_where_tags_keep_epochs_apart(tmp_path: Path) -> None:
    async def story(desk: Desk, venue: SwitchedVenue, dead_man: DeadMan) -> None:
        desk.add("mm", Quoter())
        venue.answers.clear()
        beginning = asyncio.ensure_future(dead_man.begin())
        await turns()
        assert beginning.done()
        assert venue.armed == [(AFTER_MS, "", epoch_tag("td", desk.engine.state.epoch))]

    with_desk(tmp_path, TaggedVenue, story)


def test_orders_of_an_earlier_epoch_stay_covered_until_they_are_gone(tmp_path: Path) -> None:
    async def run() -> None:
        before = Desk(tmp_path, TaggedVenue())
        before.run("mm", Quoter())
        before.top()
        assert before.orders("mm")
        desk = before.restart()
        dead_man = DeadMan(desk.engine, AFTER_MS)
        desk.engine.upkeep.duties.append(dead_man.on_duty)
        venue = desk.venue
        assert isinstance(venue, TaggedVenue)
        await dead_man.begin()
        await turns()
        earlier = desk.engine.state.epoch - 1
        assert venue.take() == [(AFTER_MS, "", epoch_tag("td", earlier))]
        desk.engine.stop_trading("test")
        desk.settle()
        assert not desk.engine.state.orders
        await advance(desk, 1)
        assert venue.take() == [(0, "", epoch_tag("td", earlier))]
        await desk.feed.close()
        desk.journal.close()

    asyncio.run(run())


def test_each_symbol_has_its_own_where_the_venue_has_it_so(tmp_path: Path) -> None:
    async def story(desk: Desk, venue: SwitchedVenue, dead_man: DeadMan) -> None:
        desk.run("mm", Quoter(), BTC, ETH)
        await dead_man.begin()
        assert sorted(venue.take()) == [(AFTER_MS, BTC, ""), (AFTER_MS, ETH, "")]

    with_desk(tmp_path, SymbolVenue, story)


def test_it_is_disarmed_once_nothing_is_left_to_cancel(tmp_path: Path) -> None:
    async def story(desk: Desk, venue: SwitchedVenue, dead_man: DeadMan) -> None:
        instance = desk.run("mm", Quoter())
        desk.top()
        await dead_man.begin()
        venue.take()
        desk.engine.roster.stop(instance, "test")
        desk.settle()
        await advance(desk, 1)
        assert venue.take() == [(0, "", "")]
        await advance(desk, 60)
        assert venue.take() == []

    with_desk(tmp_path, SwitchedVenue, story)


def test_a_clean_stop_disarms_it_and_orders_left_open_stay_covered(tmp_path: Path) -> None:
    async def story(desk: Desk, venue: SwitchedVenue, dead_man: DeadMan) -> None:
        desk.run("mm", Quoter())
        desk.top()
        await dead_man.begin()
        venue.take()
        await dead_man.end()
        assert venue.take() == []  # two quotes rest there
        await dead_man.begin()
        venue.take()
        desk.engine.stop_trading("test")
        desk.settle()
        await dead_man.end()
        assert venue.take() == [(0, "", "")]
        await advance(desk, 60)
        assert venue.take() == []

    with_desk(tmp_path, SwitchedVenue, story)


def test_a_deposed_node_neither_arms_nor_disarms(tmp_path: Path) -> None:
    async def story(desk: Desk, venue: SwitchedVenue, dead_man: DeadMan) -> None:
        desk.run("mm", Quoter())
        await dead_man.begin()
        venue.take()
        dead_man.forget()
        await advance(desk, 60)
        assert venue.take() == []

    with_desk(tmp_path, SwitchedVenue, story)


def test_a_failure_is_alerted_once_and_tried_again_until_it_is_armed(tmp_path: Path) -> None:
    async def story(desk: Desk, venue: SwitchedVenue, dead_man: DeadMan) -> None:
        desk.run("mm", Quoter())
        venue.refusal = "no permission"
        await dead_man.begin()
        assert len(venue.take()) == 1
        for _ in range(6):
            await advance(desk, 1.5)  # a tenth of its time, and when the housekeeping looks next
            assert len(venue.take()) == 1
        assert desk.alerts("dead_man_failed") == [
            "account acc: its dead man's switch was not set: no permission"
        ]
        venue.refusal = ""
        await advance(desk, 1.5)
        assert len(venue.take()) == 1
        await advance(desk, THIRD_S - 1.6)
        assert venue.take() == []
        venue.refusal = "again"
        await advance(desk, THIRD_S)
        assert len(desk.alerts("dead_man_failed")) == 2
        assert desk.feed.failure == ""

    with_desk(tmp_path, SwitchedVenue, story)


def test_a_venue_that_does_not_answer_is_a_failure_too(tmp_path: Path) -> None:
    async def story(desk: Desk, venue: SwitchedVenue, dead_man: DeadMan) -> None:
        desk.run("mm", Quoter())
        venue.answers.clear()
        told = asyncio.Event()
        desk.engine.alert = lambda kind, text, instance="": told.set()  # type: ignore[method-assign]
        await dead_man.begin()
        async with asyncio.timeout(60):
            await told.wait()

    with_desk(tmp_path, ShortVenue, story, after_ms=30)


class ShortVenue(SwitchedVenue):
    dead_man = DeadManTerms(least_ms=1, most_ms=100)


@pytest.mark.parametrize(
    ("after_ms", "terms", "expected"),
    [
        (10_000, DeadManTerms(least_ms=1_000, most_ms=60_000), 10_000),
        (500, DeadManTerms(least_ms=1_000, most_ms=60_000), 1_000),
        (90_000, DeadManTerms(least_ms=1_000, most_ms=60_000), 60_000),
        (10_001, DeadManTerms(least_ms=10_000, most_ms=120_000, step_ms=1_000), 11_000),
    ],
)
def test_the_time_is_one_that_the_venue_takes(
    tmp_path: Path, after_ms: int, terms: DeadManTerms, expected: int
) -> None:
    class OwnTerms(SwitchedVenue):
        dead_man = terms

    async def story(desk: Desk, venue: SwitchedVenue, dead_man: DeadMan) -> None:
        desk.add("mm", Quoter())
        await dead_man.begin()
        assert venue.take() == [(expected, "", "")]

    with_desk(tmp_path, OwnTerms, story, after_ms)


def test_a_venue_without_a_switch_is_left_alone(tmp_path: Path) -> None:
    class Without(SwitchedVenue):
        dead_man = None

    async def story(desk: Desk, venue: SwitchedVenue, dead_man: DeadMan) -> None:
        desk.run("mm", Quoter())
        await dead_man.begin()
        await advance(desk, 60)
        await dead_man.end()
        assert venue.take() == []

    with_desk(tmp_path, Without, story)


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from(["top", "refuse", "heal", "wait"]), st.integers(1, 8)), max_size=12)
)
def test_while_orders_rest_it_never_runs_out_unless_arming_fails(
    tmp_path_factory: pytest.TempPathFactory, script: list[tuple[str, int]]
) -> None:
    async def story(desk: Desk, venue: SwitchedVenue, dead_man: DeadMan) -> None:
        desk.run("mm", Quoter())
        await dead_man.begin()
        until_s, now_s = AFTER_MS / 1e3, 0.0
        venue.take()
        for what, steps in script:
            if what == "top":
                desk.top()
            elif what in ("refuse", "heal"):
                venue.refusal = "refused" if what == "refuse" else ""
            for _ in range(steps):
                await advance(desk, 0.5)
                now_s += 0.5
                if venue.take() and not venue.refusal:
                    until_s = now_s + AFTER_MS / 1e3
                if venue.refusal:
                    until_s = max(until_s, now_s + 1.5)  # nothing is promised until it is tried again
                assert now_s < until_s

    with_desk(tmp_path_factory.mktemp("desk"), SwitchedVenue, story)
