"""An edit of the configuration file, followed while quotes are live: all of it, or nothing."""

import asyncio
from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path

import pytest
from config_tools import FIRST, MAKER, OTHER, ConfigDesk, play
from desk_tools import ACCOUNT, BTC, ETH, spot

from host.api import BookTop, ExchangeError, Side
from host.config import RESTART_REQUIRED, ConfigSource
from host.core import entries as e
from host.core.entries import InstanceState
from host.loader import capture
from host.runtime.reconfigure import ConfigReport

OTHER_FIRST = FIRST.replace("[[instance]]", OTHER + "\n[[instance]]")


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ConfigDesk:
    monkeypatch.chdir(tmp_path)
    return ConfigDesk(tmp_path)


# -- parameters ----------------------------------------------------------------------------------


def test_new_parameters_hold_for_the_next_quote_and_are_journaled(desk: ConfigDesk) -> None:
    async def story() -> None:
        desk.tick()
        assert desk.bids() == [Decimal(98)]
        [order] = [order for order in desk.venue.open(BTC) if order.side == "buy"]

        report = await desk.edit(FIRST.replace("away = 2.0", 'away = 5.0, size = "2"'))

        assert report.changes == (
            "instance[mm].params.away: 2.0 → 5.0",
            'instance[mm].params.size: default → "2"',
        )
        desk.tick()
        assert desk.bids() == [Decimal(95)]
        assert order.client_id in {order.client_id for order in desk.venue.open(BTC)}
        [changed] = [entry for entry in desk.entries if isinstance(entry, e.ParamsChanged)]
        assert (changed.instance, changed.who) == ("mm", "config")
        assert b'"away":5.0' in changed.params
        assert e.ConfigApplied(report.changes) in desk.entries
        assert (await desk.reconfigurer.look()) == ConfigReport()

    play(story)


def test_parameters_and_additions_survive_a_restart(desk: ConfigDesk, tmp_path: Path) -> None:
    async def story() -> None:
        desk.tick()
        await desk.edit(FIRST.replace("away = 2.0", "away = 5.0") + OTHER)
        desk.tick()
        desk.advance(2)
        books = desk.instance("other").strategy.state.books
        desk.journal.close()
        desk.venue.waiting.clear()
        again = ConfigDesk(tmp_path, desk.venue)
        again.clock.set(desk.clock.now_ns() + 1)

        assert set(again.engine.roster.instances) == {"mm", "other"}
        assert again.instance().strategy.params.away == 5.0
        assert again.instance("other").strategy.state.books == books

    play(story)


def test_strategy_that_raises_on_its_new_parameters_is_quarantined_alone(desk: ConfigDesk) -> None:
    async def story() -> None:
        await desk.edit(FIRST + OTHER)
        desk.tick()

        report = await desk.edit(FIRST.replace("away = 2.0", "raises = true") + OTHER)

        assert report.changes
        assert desk.state_of("mm") is InstanceState.QUARANTINED
        assert "on_params raised ValueError: told to" in desk.alerts("quarantined")[0]
        assert desk.state_of("other") is InstanceState.RUNNING
        assert not desk.venue.open(BTC)
        assert len(desk.venue.open(ETH)) == 2

    play(story)


def test_parameters_set_on_probation_stay_after_the_rollback(desk: ConfigDesk) -> None:
    async def story() -> None:
        desk.tick()
        await desk.edit_plugin(MAKER.replace("on_params(self", "on_ticker(self"))
        assert desk.reloader.on_probation == {"maker"}

        await desk.edit(FIRST.replace("away = 2.0", "away = 5.0"))
        assert desk.reloader.roll_back("maker", "by hand")

        assert desk.reloader.on_probation == set()
        desk.tick()
        assert desk.bids() == [Decimal(95)]

    play(story)


# -- instances -----------------------------------------------------------------------------------


def test_added_instance_quotes_from_the_next_event_on(desk: ConfigDesk) -> None:
    async def story() -> None:
        desk.tick()
        report = await desk.edit(FIRST + OTHER)

        assert report.changes == ("instance[other]: added, maker on acc, ETH-USDT",)
        desk.tick()
        assert desk.bids(ETH) == [Decimal(99)]
        assert desk.state_of("other") is InstanceState.RUNNING
        assert desk.reloader.uses.keys() == {"mm", "other"}

    play(story)


def test_edited_schedule_holds_at_once_and_its_removal_lets_go(desk: ConfigDesk) -> None:
    closed = FIRST + '[instance.schedule]\nwindows = ["sun 00:00-01:00"]\n'

    async def story() -> None:
        desk.tick()
        await desk.edit(closed)
        assert desk.state_of("mm") is InstanceState.PAUSED
        assert desk.bids() == []
        await desk.edit(closed.replace('symbols = ["BTC-USDT"]', 'symbols = ["BTC-USDT", "ETH-USDT"]'))
        assert desk.state_of("mm") is InstanceState.PAUSED  # another one took its place
        await desk.edit(FIRST)
        assert desk.state_of("mm") is InstanceState.RUNNING
        desk.tick()
        assert desk.bids() == [Decimal(98)]

    play(story)


@pytest.mark.parametrize(
    "held",
    [
        '[instance.schedule]\nwindows = ["sun 00:00-01:00"]\noutside = "stop"\n',
        'after = ["other"]\non_dependency_lost = "stop"\n',
    ],
)
def test_edit_that_takes_back_what_stopped_an_instance_starts_it_as_it_says_now(
    desk: ConfigDesk, held: str
) -> None:
    now = OTHER_FIRST.replace("quote_tolerance_bps = 0", "quote_tolerance_bps = 7").replace("2.0", "3.0")

    async def story() -> None:
        await desk.edit(OTHER_FIRST)
        desk.engine.roster.stop(desk.instance("other"), "by hand")
        await desk.edit(OTHER_FIRST + held)
        assert desk.state_of("mm") is InstanceState.STOPPED
        await desk.edit(now)
        assert desk.state_of("mm") is InstanceState.RUNNING
        assert desk.engine.state.instances["mm"].by == ""
        desk.tick()
        assert desk.bids() == [Decimal(97)]
        desk.tick(100.06)  # within the tolerance: the quote stays
        assert desk.bids() == [Decimal(97)]

    play(story)


def test_edit_that_makes_an_instance_depend_on_one_that_is_stopped_pauses_it(desk: ConfigDesk) -> None:
    async def story() -> None:
        await desk.edit(OTHER_FIRST)
        desk.engine.roster.stop(desk.instance("other"), "by hand")
        await desk.edit(OTHER_FIRST + 'after = ["other"]\n')
        assert desk.state_of("mm") is InstanceState.PAUSED
        await desk.edit(OTHER_FIRST + 'after = ["other"]\non_dependency_lost = "keep"\n')
        assert desk.state_of("mm") is InstanceState.RUNNING

    play(story)


HEDGER = OTHER.replace("other", "hedger") + 'after = ["quoter"]\n'
QUOTER = OTHER.replace("other", "quoter")


def test_instances_that_one_edit_adds_start_in_their_order(desk: ConfigDesk) -> None:
    async def story() -> None:
        await desk.edit(FIRST + HEDGER + QUOTER)
        moves = [(entry.instance, entry.state) for entry in desk.since(0, e.InstanceChanged)]
        running = InstanceState.RUNNING
        assert moves.index(("quoter", running)) < moves.index(("hedger", running))

    play(story)


@pytest.mark.parametrize("symbol", ["ETH-USDT", "BTC-USDT"])
def test_edit_that_turns_an_order_round_is_followed(desk: ConfigDesk, symbol: str) -> None:
    turned = QUOTER + 'after = ["hedger"]\n'
    first = HEDGER.replace('after = ["quoter"]\n', "").replace(
        "ETH-USDT", symbol
    )  # with another, it is replaced

    async def story() -> None:
        await desk.edit(FIRST + HEDGER + QUOTER)
        report = await desk.edit(FIRST + turned + first)
        assert not report.problems
        names = [instance.instance for instance in desk.engine.roster.in_order()]
        assert names.index("hedger") < names.index("quoter")

    play(story)


def test_edit_that_pauses_an_instance_outlives_the_pause_of_its_schedule(desk: ConfigDesk) -> None:
    closed = FIRST + '[instance.schedule]\nwindows = ["sun 00:00-01:00"]\n'

    async def story() -> None:
        await desk.edit(closed)
        assert desk.engine.state.instances["mm"].by == "schedule"
        await desk.edit(closed.replace('name = "mm"', 'name = "mm"\nstart = "paused"'))
        await desk.edit(FIRST.replace('name = "mm"', 'name = "mm"\nstart = "paused"'))
        assert desk.state_of("mm") is InstanceState.PAUSED

    play(story)


def test_removed_instance_leaves_once_its_orders_are_done(desk: ConfigDesk) -> None:
    async def story() -> None:
        await desk.edit(FIRST + OTHER)
        desk.tick()
        desk.file.write_text(FIRST)

        await desk.reconfigurer.look()  # the venue has not answered the cancels yet

        assert desk.state_of("other") is InstanceState.STOPPED
        assert "other" in desk.engine.roster.instances
        assert desk.reloader.uses.keys() == {"mm"}
        desk.settle()
        desk.advance(1)
        assert "other" not in desk.engine.roster.instances
        assert not desk.venue.open(ETH)
        assert len(desk.venue.open(BTC)) == 2
        desk.tick()
        assert not desk.venue.open(ETH)

    play(story)


def test_instance_that_comes_back_has_its_state_and_never_uses_an_order_id_twice(desk: ConfigDesk) -> None:
    async def story() -> None:
        await desk.edit(FIRST + OTHER)
        desk.tick()
        await desk.edit(FIRST)
        desk.advance(1)
        assert "other" not in desk.engine.roster.instances
        await desk.edit(FIRST + OTHER)

        assert desk.instance("other").strategy.state.books == 1
        desk.tick()
        assert len(desk.venue.open(ETH)) == 2
        placed = [entry.client_id for entry in desk.entries if isinstance(entry, e.PlaceSent)]
        assert len(placed) == len(set(placed)) == 6

    play(story)


def test_instance_removed_from_quarantine_starts_afresh_when_it_is_added_again(desk: ConfigDesk) -> None:
    async def story() -> None:
        await desk.edit(FIRST + OTHER)
        await desk.edit(FIRST + OTHER + "params = { raises = true }\n")
        assert desk.state_of("other") is InstanceState.QUARANTINED
        await desk.edit(FIRST)
        await desk.edit(FIRST + OTHER)

        assert desk.state_of("other") is InstanceState.RUNNING

    play(story)


def test_instance_with_other_symbols_is_replaced_and_keeps_its_state(desk: ConfigDesk) -> None:
    async def story() -> None:
        desk.tick()
        desk.tick()
        lsn = desk.journal.last_lsn

        report = await desk.edit(FIRST.replace('["BTC-USDT"]', '["ETH-USDT"]'))

        assert report.changes == ('instance[mm].symbols: ["BTC-USDT"] → ["ETH-USDT"]',)
        assert not desk.venue.open(BTC)
        assert ("mm", BTC) not in desk.engine.oms._channels
        desk.tick()
        assert desk.bids(ETH) == [Decimal(98)]
        assert desk.instance().strategy.state.books == 3
        states = [entry.state for entry in desk.since(lsn, e.InstanceChanged)]
        assert states == [InstanceState.STOPPED, InstanceState.STARTING, InstanceState.RUNNING]

    play(story)


def test_replaced_instance_adopts_quotes_whose_cancel_is_not_answered_yet(desk: ConfigDesk) -> None:
    async def story() -> None:
        desk.tick()
        assert len(desk.venue.open(BTC)) == 2
        desk.file.write_text(FIRST.replace('["BTC-USDT"]', '["BTC-USDT", "ETH-USDT"]'))

        await desk.reconfigurer.look()  # the cancels are sent and not answered yet
        now_ns = desk.clock.now_ns()
        desk.feed.market(BookTop(BTC, 110.0, 1.0, 111.0, 1.0, now_ns, now_ns, 99))
        assert len(desk.orders("mm")) == 2
        desk.settle()
        desk.tick(110.0)

        assert len(desk.venue.open(BTC)) == len(desk.venue.open(ETH)) == 2
        assert len(desk.orders("mm")) == 4

    play(story)


def test_paused_instance_stays_paused_when_it_is_replaced(desk: ConfigDesk) -> None:
    async def story() -> None:
        desk.engine.roster.pause(desk.instance(), "operator")
        await desk.edit(FIRST.replace('["BTC-USDT"]', '["ETH-USDT"]'))

        assert desk.state_of("mm") is InstanceState.PAUSED

    play(story)


def test_start_pauses_and_resumes_a_running_instance(desk: ConfigDesk) -> None:
    async def story() -> None:
        desk.tick()
        await desk.edit(FIRST + 'start = "paused"\n')
        assert desk.state_of("mm") is InstanceState.PAUSED
        assert not desk.venue.open(BTC)
        await desk.edit(FIRST)
        desk.tick()
        assert desk.state_of("mm") is InstanceState.RUNNING
        assert len(desk.venue.open(BTC)) == 2

    play(story)


def test_instance_skipped_at_the_start_is_made_once_its_section_is_good(desk: ConfigDesk) -> None:
    async def story() -> None:
        desk.skipped["other"] = "its params were out of bounds"
        desk.file.write_text(FIRST + OTHER)
        desk.reconfigurer.config = ConfigSource(desk.file, None, {}).load().config

        await desk.edit(FIRST + OTHER + "params = { away = 3.0 }\n")

        assert desk.skipped == {}
        desk.tick()
        assert desk.bids(ETH) == [Decimal(97)]

    play(story)


def test_symbol_that_nobody_followed_is_subscribed_first(desk: ConfigDesk) -> None:
    async def story() -> None:
        asked: list[list[str]] = []

        async def subscribe(symbols: Sequence[str]) -> None:
            asked.append(list(symbols))

        desk.venue.subscribe = subscribe  # type: ignore[method-assign]
        listed = [spot(BTC), spot(ETH), spot("SOL-USDT")]
        desk.engine.set_instruments(ACCOUNT, listed, {BTC, ETH})
        await desk.edit(FIRST + OTHER.replace("ETH-USDT", "SOL-USDT"))

        assert asked == [["SOL-USDT"]]
        desk.top(100.0, 101.0, "SOL-USDT")
        assert desk.bids("SOL-USDT") == [Decimal(99)]

    play(story)


def test_venue_that_refuses_a_symbol_leaves_everything_as_it_was(desk: ConfigDesk) -> None:
    async def story() -> None:
        async def subscribe(symbols: Sequence[str]) -> None:
            raise ExchangeError("the venue is closed")

        desk.venue.subscribe = subscribe  # type: ignore[method-assign]
        desk.engine.set_instruments(ACCOUNT, [spot(BTC), spot(ETH), spot("SOL-USDT")], {BTC, ETH})

        report = await desk.edit(FIRST.replace("2.0", "3.0") + OTHER.replace("ETH-USDT", "SOL-USDT"))

        assert "the venue is closed" in report.problems[0].text
        assert desk.instance().strategy.params.away == 2.0
        assert "SOL-USDT" not in desk.feed.symbols

    play(story)


def test_bytes_of_a_plugin_are_kept_for_restarts_before_it_runs(desk: ConfigDesk) -> None:
    async def story() -> None:
        desk.is_full = True
        with_model = FIRST + 'models = ["shift"]\n'
        report = await desk.edit(with_model)
        assert "no space left" in report.problems[0].text
        assert desk.instance().models == ()
        desk.is_full = False
        await desk.edit(with_model + "# again\n")
        assert "shift" in desk.kept
        assert desk.engine.state.plugin("shift").permanent

    play(story)


# -- models, limits, tolerance -------------------------------------------------------------------


def test_models_are_added_changed_and_taken_away_between_two_quotes(desk: ConfigDesk) -> None:
    async def story() -> None:
        model = '\nmodels = [{{ name = "shift", params = {{ bps = {} }} }}]\n'
        desk.tick()
        await desk.edit(FIRST + model.format(100))
        desk.tick()
        assert desk.bids() == [Decimal("98.98")]
        [stage] = desk.instance().models
        await desk.edit(FIRST + model.format(200))
        desk.tick()
        assert desk.bids() == [Decimal("99.96")]
        assert desk.reloader.model_uses["mm"][0].params == {"bps": 200}
        await desk.edit(FIRST.replace("2.0", "3.0") + model.format(200))
        assert desk.instance().models[0] is not stage
        await desk.edit(FIRST)
        desk.tick()
        assert desk.bids() == [Decimal(98)]
        assert desk.reloader.model_uses["mm"] == ()

    play(story)


def test_models_that_stay_are_the_ones_that_run(desk: ConfigDesk) -> None:
    async def story() -> None:
        await desk.edit(FIRST + 'models = [{ name = "shift", params = { bps = 1 } }]\n')
        [first] = desk.instance().models
        both = 'models = ["shift", { name = "shift", params = { bps = 1 } }]\n'

        await desk.edit(FIRST + both)

        assert [stage is first for stage in desk.instance().models] == [False, True]

    play(story)


def test_limits_hold_for_the_next_order_and_count_what_is_there(desk: ConfigDesk) -> None:
    async def story() -> None:
        await desk.edit(FIRST + OTHER)
        desk.tick()
        report = await desk.edit(FIRST + OTHER + "[risk.node]\nmax_open_orders = 4\n")

        assert report.changes == ("risk.node.max_open_orders: none → 4",)
        refusal = desk.instance().channels[BTC].risk.check(Side.BUY, Decimal(90), Decimal(1), None, 0)
        assert refusal is not None
        assert refusal.detail.startswith("4 orders are open")
        await desk.edit(FIRST + OTHER)
        assert desk.instance().channels[BTC].risk.check(Side.BUY, Decimal(90), Decimal(1), None, 0) is None

    play(story)


def test_tighter_loss_limit_trips_at_once(desk: ConfigDesk) -> None:
    async def story() -> None:
        desk.tick()
        [bid] = [order for order in desk.venue.open(BTC) if order.side == "buy"]
        desk.venue.trade(bid, "1")
        desk.settle()
        desk.tick(50.0)

        await desk.edit(FIRST + '[risk.node]\nmax_daily_loss = "10 USDT"\n')

        assert "node" in desk.engine.state.kill_switches
        assert not desk.venue.open()

    play(story)


def test_tolerance_changes_what_moves_an_order(desk: ConfigDesk) -> None:
    async def story() -> None:
        desk.tick(100.0)
        await desk.edit(FIRST.replace("quote_tolerance_bps = 0", "quote_tolerance_bps = 500"))
        desk.tick(101.0)
        assert desk.bids() == [Decimal(98)]
        await desk.edit(FIRST)
        desk.tick(101.0)
        assert desk.bids() == [Decimal(99)]

    play(story)


def test_reload_settings_are_handed_on(desk: ConfigDesk) -> None:
    async def story() -> None:
        await desk.edit(FIRST.replace("[node]", '[node]\nreload = "stage"'))
        assert [node.reload for node in desk.node_sections] == ["stage"]

    play(story)


# -- all or nothing ------------------------------------------------------------------------------

BAD = {
    "syntax error": (FIRST + "[risk.node\n", "is not valid TOML"),
    "unknown key": (FIRST + "simbols = []\n", 'instance[mm].simbols: unknown key; did you mean "symbols"?'),
    "out of bounds": (FIRST.replace("2.0", "-1.0"), "instance[mm].params.away: must be > 0, was -1.0"),
    "unknown param": (FIRST.replace("away", "awy"), 'params.awy: is not a parameter; did you mean "away"?'),
    "unknown plugin": (FIRST + OTHER.replace('"maker"', '"makr"'), 'no strategy plugin is named "makr"'),
    "unlisted symbol": (FIRST + OTHER.replace("ETH", "XRP"), "other].symbols[0]: account acc has no symbol XRP-USDT"),
    "bad model": (FIRST + 'models = ["shft"]\n', 'models[shft].name: no model plugin is named "shft"'),
    "bad model param": (
        FIRST + 'models = [{ name = "shift", params = { bps = "x" } }]\n',
        "models[shift].params.bps: must be of type float",
    ),
    "model that does not start": (
        FIRST + 'models = [{ name = "shift", params = { starts = false } }]\n',
        "on_start raised RuntimeError: no model file",
    ),
    "bad limit": (FIRST + "[risk.node]\nmax_open_orders = 0\n", "risk.node.max_open_orders: expected"),
    "node name": (FIRST.replace("[node]", '[node]\nname = "b"'), f"node.name: {RESTART_REQUIRED}"),
    "data folder": (FIRST.replace('"data"', '"elsewhere"'), f"node.data_dir: {RESTART_REQUIRED}"),
    "durability": (FIRST.replace("[node]", '[node]\ndurability = "disk"'), f"node.durability: {RESTART_REQUIRED}"),
    "store": (FIRST + '[store]\nurl = ""\n', f"store.url: {RESTART_REQUIRED}"),
    "account": (
        FIRST.replace('"scripted"', '"paper"'),
        f'account[acc].exchange: {RESTART_REQUIRED}: changes with a restart only, runs with "scripted", was "paper"',
    ),
    "new account": (
        FIRST + '[[account]]\nname = "b"\nexchange = "paper"\n' + OTHER.replace('"acc"', '"b"'),
        "account b cannot be traded on: it was not connected",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_bad_edit_changes_nothing_is_told_once_and_the_next_good_one_is_followed(
    desk: ConfigDesk, case: str
) -> None:
    text, expected = BAD[case]

    async def story() -> None:
        desk.tick()
        quotes = {order.client_id: order.price for order in desk.venue.open()}
        instance, lsn = desk.instance(), desk.journal.last_lsn

        # With good changes beside the bad one, which must not be followed either.
        both = text if case == "syntax error" else text + OTHER.replace('"other"', '"good"')
        report = await desk.edit(both)
        again = await desk.reconfigurer.look()

        assert report.problems == again.problems
        [alert] = desk.alerts("config_refused")
        assert expected in alert
        assert str(desk.file) in alert
        assert [type(entry) for entry in desk.entries[lsn:]] == [e.Alert]
        assert list(desk.engine.roster.instances.values()) == [instance]
        desk.tick()
        assert {order.client_id: order.price for order in desk.venue.open()} == quotes
        await desk.edit(FIRST.replace("2.0", "5.0"))
        desk.tick()
        assert desk.bids() == [Decimal(95)]
        await desk.edit(both)
        assert len(desk.alerts("config_refused")) == 2

    play(story)


def test_everything_wrong_with_an_edit_is_told_at_once(desk: ConfigDesk) -> None:
    async def story() -> None:
        text = FIRST.replace("2.0", "-1.0").replace("[node]", '[node]\nname = "b"')
        report = await desk.edit(text + OTHER.replace("ETH", "XRP"))

        assert [problem.key for problem in report.problems] == [
            "node.name", "instance[mm].params.away", "instance[other].symbols[0]",
        ]  # fmt: skip

    play(story)


def test_state_that_does_not_fit_the_other_plugin_is_found_before_anything_stops(desk: ConfigDesk) -> None:
    async def story() -> None:
        strict = desk.maker_file.with_name("strict.py")
        strict.write_text(MAKER.replace("books: int = 0", "books: str = ''").replace("+= 1", "+= 'x'"))
        desk.reloader.catalog.add(capture(strict))
        desk.tick()

        report = await desk.edit(FIRST.replace('"maker"', '"strict"'))

        assert "state" in report.problems[0].text
        assert desk.state_of("mm") is InstanceState.RUNNING
        assert len(desk.venue.open(BTC)) == 2

    play(story)


def test_file_that_is_deleted_is_waited_for_and_then_told(desk: ConfigDesk) -> None:
    async def story() -> None:
        desk.file.unlink()
        report = await desk.reconfigurer.look()
        assert report.problems[0].text == "no such file"
        assert desk.state_of("mm") is InstanceState.RUNNING

    play(story)


# -- beside reloads ------------------------------------------------------------------------------


def test_addition_to_a_plugin_on_probation_waits_until_that_is_over(desk: ConfigDesk) -> None:
    async def story() -> None:
        desk.tick()
        await desk.edit_plugin(MAKER + "\n# another version\n")
        desk.file.write_text(FIRST + OTHER)

        desk.reconfigurer.on_config_changed()
        report = await desk.reconfigurer.look()
        assert report.waits_for == {"maker"}
        for _ in range(20):
            await asyncio.sleep(0.01)
        assert len(desk.alerts("config_waits")) == 1
        assert "other" not in desk.engine.roster.instances
        desk.reloader.promote("maker")
        desk.advance(1)
        while "other" not in desk.engine.roster.instances:
            await asyncio.sleep(0.01)

        assert desk.engine.state.instances["other"].digest == desk.engine.state.instances["mm"].digest
        await desk.reconfigurer.close()

    play(story)


def test_removal_on_probation_ends_it_where_nothing_else_runs_the_version(desk: ConfigDesk) -> None:
    async def story() -> None:
        await desk.edit(FIRST + OTHER)
        desk.tick()
        await desk.edit_plugin(MAKER + "\n# another version\n")
        desk.tick()
        await desk.edit(FIRST)
        assert desk.reloader.on_probation == {"maker"}
        await desk.edit(FIRST.partition("[[instance]]")[0])

        assert desk.reloader.on_probation == set()
        desk.advance(1)
        assert desk.engine.roster.instances == {}
        assert not desk.venue.open()

    play(story)


def test_later_version_reaches_an_instance_that_was_added(desk: ConfigDesk) -> None:
    async def story() -> None:
        await desk.edit(FIRST + OTHER)
        desk.tick()
        await desk.edit_plugin(MAKER.replace("book.bid - away", "book.bid - 2 * away"))
        desk.tick()
        assert desk.bids(ETH) == [Decimal(98)]
        assert desk.bids() == [Decimal(96)]

    play(story)
