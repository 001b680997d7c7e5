"""What changes a running node, where it meets another change: an order of the API, a reload, a stop, a quarantine."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
from config_tools import FIRST, MAKER, OTHER, ConfigDesk, play
from desk_tools import ACCOUNT, BTC, ETH, ScriptedVenue

from host.api import ExchangeError
from host.config import InstanceSection
from host.core.entries import InstanceState, VersionState
from host.loader import Version, capture

NAMED = MAKER + (
    "\nfrom host.api import hookimpl\n\n"
    "class Slow(Maker):\n    pass\n\n"
    "@hookimpl\ndef provide_strategies():\n"
    "    return {'quick': Maker, 'slow': Slow}\n"
)
"""A plugin whose offers have other names than its file."""
HEDGER = """
[[instance]]
name = "hedger"
plugin = "maker"
account = "acc"
symbols = ["ETH-USDT"]
quote_tolerance_bps = 0
"""


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ConfigDesk:
    monkeypatch.chdir(tmp_path)
    return ConfigDesk(tmp_path)


def section(name: str, **keys: Any) -> InstanceSection:
    return InstanceSection(name=name, **{"plugin": "maker", "account": ACCOUNT, "symbols": (ETH,), **keys})


# -- orders of the API ---------------------------------------------------------------------------


def test_instance_that_the_api_makes_does_not_leave_with_the_configured_one_of_its_name(
    desk: ConfigDesk,
) -> None:
    async def story() -> None:
        control = desk.control
        await desk.edit(FIRST + OTHER)
        desk.tick()
        desk.file.write_text(FIRST)
        await desk.reconfigurer.look()  # its cancels are not answered yet
        made = await control.create(section("other", start="paused"), "tester", lambda _: None)
        desk.settle()
        desk.advance(2)

        assert desk.engine.roster.instances["other"] is made
        control.resume("other", "go on")
        desk.tick()
        assert len(desk.venue.open(ETH)) == 2
        control.remove("other", "tester", "no more of it")
        desk.settle()
        desk.advance(2)
        assert "other" not in desk.engine.roster.instances

    play(story)


def test_symbol_that_another_change_began_to_follow_is_not_lost_with_an_edit_that_waited(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Once(ScriptedVenue):
        taken: tuple[str, ...] = ()

        async def subscribe(self, symbols: Any) -> None:
            if set(symbols) & set(self.taken):
                raise ExchangeError("scripted: subscribed to that already")
            self.taken += tuple(symbols)

    monkeypatch.chdir(tmp_path)
    desk = ConfigDesk(tmp_path, Once())
    del desk.feed.symbols[ETH]

    async def story() -> None:
        control = desk.control
        desk.file.write_text(FIRST + OTHER)
        async with desk.reloader.holding(["maker"]):
            making = asyncio.ensure_future(control.create(section("first"), "tester", lambda _: None))
            await asyncio.sleep(0)
            looking = asyncio.ensure_future(desk.reconfigurer.look())
            await asyncio.sleep(0.3)
        await making
        report = await looking

        assert not report.problems
        desk.tick()
        assert len(desk.venue.open(ETH)) == 4

    play(story)


def test_parameters_that_say_a_default_outright_hold_after_a_restart_with_another_default(
    desk: ConfigDesk, tmp_path: Path
) -> None:
    async def story() -> None:
        control = desk.control
        await control.create(section("api"), "tester", lambda _: None)
        table, params = control.merged_params("api", {"away": 1.0}, [])
        control.set_params("api", table, params, "tester")

        assert control.section("api").params == {"away": 1.0}
        del desk.reloader.uses["api"]
        assert control.section("api").params == {"away": 1.0}, "what a restart reads"

    play(story)


# -- reloads -------------------------------------------------------------------------------------


def test_addition_to_a_plugin_on_probation_waits_whatever_its_offer_is_called(desk: ConfigDesk) -> None:
    async def story() -> None:
        named = desk.maker_file.with_name("makers.py")
        named.write_text(NAMED)
        desk.reloader.catalog.add(capture(named))
        quick = FIRST.replace('"maker"', '"quick"')
        assert not (await desk.edit(quick)).problems
        desk.tick()
        named.write_text(NAMED + "\n# another version\n")

        async def found() -> Version:
            return capture(named)

        report = await desk.reloader.reload("makers", found)
        assert report.state is VersionState.ACTIVE

        slow = OTHER.replace('"maker"', '"slow"')
        assert (await desk.edit(quick + slow)).waits_for == {"makers"}
        desk.reloader.promote("makers")
        assert not (await desk.edit(quick + slow)).waits_for
        assert desk.state_of("other") is InstanceState.RUNNING

    play(story)


def test_offer_that_is_gone_after_the_reload_that_an_edit_waited_for_is_told(desk: ConfigDesk) -> None:
    async def story() -> None:
        two = MAKER + "\nclass Slow(Maker):\n    pass\n"
        two_file = desk.maker_file.with_name("two.py")
        two_file.write_text(two)
        desk.reloader.catalog.add(capture(two_file))
        desk.file.write_text(FIRST + OTHER.replace('"maker"', '"two.Slow"'))
        async with desk.reloader.holding(["two"]):
            looking = asyncio.ensure_future(desk.reconfigurer.look())
            await asyncio.sleep(0.3)
            two_file.write_text(MAKER)
            catalog = desk.reloader.catalog
            desk.reloader.in_use.switch(catalog.with_version(capture(two_file)))
        report = await looking

        [problem] = report.problems
        assert 'no strategy plugin is named "two.Slow"' in problem.text

    play(story)


# -- dependencies --------------------------------------------------------------------------------


@pytest.mark.parametrize("policy", ["pause", "stop"])
def test_hedger_that_comes_after_nobody_any_more_does_not_notice_that_its_quoter_is_removed(
    desk: ConfigDesk, policy: str
) -> None:
    async def story() -> None:
        after = f'after = ["mm"]\non_dependency_lost = "{policy}"\n'
        assert not (await desk.edit(FIRST + HEDGER + after)).problems
        desk.tick()
        hedger = desk.instance("hedger")
        before = {order.client_id for order in desk.venue.open(ETH)}
        assert len(before) == 2

        alone = FIRST.partition("[[instance]]")[0] + HEDGER
        assert not (await desk.edit(alone)).problems
        desk.tick()

        assert desk.instance("hedger") is hedger
        assert {order.client_id for order in desk.venue.open(ETH)} == before

    play(story)


# -- stops and quarantine ------------------------------------------------------------------------


def test_edit_that_comes_while_the_node_stops_is_left_to_the_next_start(desk: ConfigDesk) -> None:
    async def story() -> None:
        desk.tick()
        desk.engine.roster.pause(desk.instance(), "by hand")
        desk.engine.stop_trading("SIGTERM received")
        desk.settle()
        await desk.edit(FIRST.replace('symbols = ["BTC-USDT"]', 'symbols = ["ETH-USDT"]') + OTHER)

        assert desk.engine.roster.instances.keys() == {"mm"}
        assert desk.state_of("mm") is InstanceState.PAUSED, "as it is to be after the next start"

    play(story)


def test_version_whose_turn_comes_while_the_node_stops_does_not_go_live(desk: ConfigDesk) -> None:
    async def story() -> None:
        desk.tick()
        digest = desk.reloader.catalog.versions["maker"].digest
        async with desk.reloader.holding(["maker"]):
            editing = asyncio.ensure_future(desk.edit_plugin(MAKER + "\n# another version\n"))
            await asyncio.sleep(0.05)
            desk.engine.stop_trading("SIGTERM received")
            desk.reloader.stop("SIGTERM received")
        await editing

        assert desk.reloader.on_probation == set()
        assert desk.reloader.catalog.versions["maker"].digest == digest

    play(story)


def test_version_that_is_proved_while_the_node_stops_does_not_go_live(desk: ConfigDesk) -> None:
    async def story() -> None:
        desk.tick()
        digest = desk.reloader.catalog.versions["maker"].digest

        async def share(_version: Version) -> None:
            desk.engine.stop_trading("SIGTERM received")
            desk.reloader.stop("SIGTERM received")

        desk.reloader.share = share
        await desk.edit_plugin(MAKER + "\n# another version\n")

        assert desk.reloader.catalog.versions["maker"].digest == digest
        record = desk.engine.state.plugin("maker")
        assert not record.refused, "the next start tries it"

    play(story)


def test_instance_started_by_hand_is_not_paused_when_it_leaves_a_later_quarantine(desk: ConfigDesk) -> None:
    async def story() -> None:
        control, roster = desk.control, desk.engine.roster
        roster.pause(desk.instance(), "by hand")
        quarantine(desk, "it raised while it was paused")
        await control.start("mm", "tester", paused=False, as_configured=False, then=lambda _: None)
        desk.tick()
        assert len(desk.venue.open(BTC)) == 2
        quarantine(desk, "it raised while it ran")
        await desk.edit_plugin(MAKER + "\n# mended\n")
        desk.tick()

        assert desk.state_of("mm") is InstanceState.RUNNING

    play(story)


def quarantine(desk: ConfigDesk, why: str) -> None:
    engine = desk.engine
    engine.begin_turn(engine.clock.now_ns())
    engine.roster.put_in_quarantine(desk.instance(), why)
    engine.end_turn(engine.now_ns, 0)
    desk.settle()


def test_instance_that_is_to_start_paused_is_paused_when_it_leaves_quarantine_after_a_restart(
    desk: ConfigDesk, tmp_path: Path
) -> None:
    desk.file.write_text(FIRST.replace("quote_tolerance_bps", 'start = "paused"\nquote_tolerance_bps'))
    quarantine(desk, "it raised while it was paused")
    desk.journal.close()
    again = ConfigDesk(tmp_path, desk.venue)

    async def story() -> None:
        assert again.state_of("mm") is InstanceState.QUARANTINED
        await again.edit_plugin(MAKER + "\n# mended\n")
        again.tick()
        assert again.state_of("mm") is InstanceState.PAUSED
        assert not again.venue.open()

    play(story)


@pytest.mark.parametrize("is_mended_before", [False, True])
def test_instance_paused_before_its_quarantine_is_paused_after_it_over_a_restart_too(
    desk: ConfigDesk, tmp_path: Path, is_mended_before: bool
) -> None:
    desk.engine.roster.pause(desk.instance(), "by hand")
    quarantine(desk, "it raised while it was paused")
    desk.journal.close()
    if is_mended_before:
        desk.maker_file.write_text(MAKER + "\n# mended\n")
    again = ConfigDesk(tmp_path, desk.venue)

    async def story() -> None:
        if not is_mended_before:
            assert again.state_of("mm") is InstanceState.QUARANTINED
            await again.edit_plugin(MAKER + "\n# mended\n")
        again.tick()
        assert again.state_of("mm") is InstanceState.PAUSED
        assert not again.venue.open()
        again.engine.roster.resume(again.instance(), "by hand")
        again.tick()
        assert len(again.venue.open(BTC)) == 2

    play(story)
