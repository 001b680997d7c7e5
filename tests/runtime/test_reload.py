"""A saved file goes live between two events, with state, orders and positions kept; or is refused."""

import asyncio
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import pytest
from desk_tools import ACCOUNT, BTC, ETH
from reload_tools import ReloadDesk, maker, taking

from host.api import Trade
from host.core import entries as e
from host.core.entries import InstanceState, VersionState
from host.loader import PluginRejected, Version, probe
from host.runtime.reload import ReloadReport, ReloadSettings, Stage
from host.runtime.reload.probation import ProbationLimits


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[ReloadDesk]:
    rig = ReloadDesk(tmp_path)
    rig.write(maker())
    rig.load()
    yield rig
    rig.close()


def trade(rig: ReloadDesk, price: float = 60_000.0) -> None:
    now_ns = rig.desk.clock.now_ns()
    rig.desk.feed.market(Trade(BTC, price, 0.5, True, 1, now_ns, now_ns))
    rig.desk.settle()


def test_good_edit_goes_live_with_state_orders_and_position_kept(rig: ReloadDesk) -> None:
    instance = rig.run("mm")
    rig.tops(10)
    rig.desk.venue.trade(rig.desk.venue.open()[0], "0.5")
    rig.desk.settle()
    position = instance.position(BTC)
    before = {order.client_id for order in rig.desk.venue.open()}

    report = rig.save(maker(0.05))

    assert report.state is VersionState.ACTIVE
    assert report.instances == ("mm",)
    assert {order.client_id for order in rig.desk.venue.open()} == before, "nothing is sent by the swap"
    rig.tops(1)
    assert instance.strategy.state.books == 11
    assert instance.strategy.state.fills == 1
    assert instance.position(BTC) == position
    assert rig.offsets() == {0.05}
    assert rig.stages() == [(s, "passed") for s in ("capture", "validate", "restore", "warm_up", "swap")]
    rig.tops(10, seconds=1.0)
    assert rig.moves() == [VersionState.PERMANENT, VersionState.ACTIVE, VersionState.PERMANENT]
    assert rig.desk.engine.state.plugin("maker").permanent == report.digest


def test_unchanged_bytes_do_nothing(rig: ReloadDesk) -> None:
    instance = rig.run("mm")
    strategy = instance.strategy
    lsn = rig.desk.journal.last_lsn

    report = rig.reload()

    assert (report.state, report.reason) == (None, "unchanged")
    assert instance.strategy is strategy
    assert rig.desk.journal.last_lsn == lsn


def test_removed_parameter_that_is_configured_is_refused_by_name(rig: ReloadDesk) -> None:
    instance = rig.run("mm", size=2)
    rig.tops(3)
    strategy = instance.strategy

    report = rig.save(maker().replace("size: int = 1", "lots: int = 1").replace("params.size", "params.lots"))

    assert report.state is VersionState.REFUSED
    assert 'maker.py:6: instance "mm": params.size is not a parameter' in report.reason
    assert report.stages[-1].stage is Stage.RESTORE
    assert instance.strategy is strategy
    rig.tops(1, 60_100.0)
    assert rig.offsets() == {0.02}


def test_parameter_whose_type_changed_is_refused_by_name(rig: ReloadDesk) -> None:
    rig.run("mm", size=2)

    report = rig.save(maker().replace("size: int = 1", 'size: str = "1"'))

    assert report.reason == (
        'plugin maker: maker.py:7: instance "mm": params.size must be of type str, was 2 (int); '
        "change one of them"
    )
    assert rig.desk.alerts("reload_refused") == [
        f"plugin maker {report.digest[:12]}: restore: {report.reason}"
    ]


def test_parameters_changed_during_the_warm_up_are_those_that_it_goes_live_with(rig: ReloadDesk) -> None:
    instance = rig.run("mm", size=1)
    rig.tops(3)
    rig.write(maker(0.05, more="def on_params(self, old):\n    self.state.fills = 100 + old.size\n"))

    async def story() -> None:
        reloading = asyncio.ensure_future(rig.reload_async())
        while not any(stage == "restore" for stage, _ in rig.stages()):
            await asyncio.sleep(0)
        use = rig.reloader.uses["mm"]
        rig.reloader.uses["mm"] = type(use)(use.offer, {"size": 3})
        assert (await reloading).state is VersionState.ACTIVE

    asyncio.run(story())

    assert instance.strategy.params.size == 3
    rig.tops(1)
    assert {order.qty for order in rig.desk.venue.open()} == {Decimal(3)}


def test_state_is_upgraded_step_by_step(rig: ReloadDesk) -> None:
    instance = rig.run("mm")
    rig.tops(4)
    upgrade = """
        from typing import ClassVar
        state_version: ClassVar[int] = 3
        seen: int = 0

        @classmethod
        def upgrade(cls, version, data):
            if version == 1:
                return {"seen_twice": data["books"] * 2, "fills": data["fills"]}
            return {"seen": data["seen_twice"] // 2, "fills": data["fills"]}
    """
    text = maker().replace("    books: int = 0\n", upgrade).replace("state.books", "state.seen")

    report = rig.save(text)

    assert report.state is VersionState.ACTIVE, report.reason
    assert instance.strategy.state.seen == 4
    assert "upgraded from version 1 to 3" in report.stages[2].detail


def test_state_that_does_not_fit_is_found_before_the_swap(rig: ReloadDesk) -> None:
    instance = rig.run("mm")
    rig.tops(4)

    report = rig.save(
        maker().replace("books: int = 0", 'books: str = ""').replace("books += 1", "fills += 0")
    )

    assert report.stages[-1].stage is Stage.RESTORE
    assert "does not fit MakerState (version 1): Expected `str`, got `int` - at `$.books`" in report.reason
    assert "raise state_version and extend upgrade()" in report.reason
    assert instance.strategy.state.books == 4


def test_upgrade_that_raises_is_a_refusal(rig: ReloadDesk) -> None:
    rig.run("mm")
    rig.tops(1)
    upgrade = "    @classmethod\n    def upgrade(cls, version, data):\n        return data.nothing\n"
    fields = "    state_version = 2\n    books: int = 0\n" + upgrade

    report = rig.save(maker().replace("    books: int = 0\n", fields))

    assert report.state is VersionState.REFUSED
    assert "has no attribute 'nothing'" in report.reason


def test_several_instances_swap_in_one_turn(rig: ReloadDesk) -> None:
    rig.run("btc")
    rig.run("eth", ETH)
    rig.tops(3)

    rig.save(maker(0.05))

    records = rig.desk.entries
    revised = [n for n, entry in enumerate(records) if isinstance(entry, e.InstanceRevised)]
    [moved] = [n for n, m in enumerate(records) if isinstance(m, e.VersionMoved) and m.state == "active"]
    assert [records[n].instance for n in revised] == ["btc", "eth"]  # type: ignore[union-attr]
    between = records[revised[0] : moved]
    assert all(isinstance(entry, e.InstanceRevised | e.StrategyStateSaved) for entry in between)


def test_no_instance_swaps_where_one_cannot(rig: ReloadDesk) -> None:
    first, second = rig.run("one"), rig.run("two")
    rig.tops(3)
    second.strategy.state.fills = 7
    refuses_7 = (
        "    def __post_init__(self):\n        if self.fills == 7:\n            raise ValueError('seven')\n"
    )
    strategies = first.strategy, second.strategy

    report = rig.save(maker(0.05).replace("fills: int = 0\n", "fills: int = 0\n" + refuses_7))

    assert report.state is VersionState.REFUSED
    assert "instance two" in report.reason
    assert "seven" in report.reason
    assert (first.strategy, second.strategy) == strategies
    assert not any(isinstance(entry, e.InstanceRevised) for entry in rig.desk.entries)


def test_no_instance_swaps_where_one_can_no_longer_at_the_last_moment(rig: ReloadDesk) -> None:
    first, second = rig.run("one"), rig.run("two")
    rig.tops(3)
    refuses_7 = (
        "    def __post_init__(self):\n        if self.fills == 7:\n            raise ValueError('seven')\n"
    )
    rig.write(maker(0.05).replace("fills: int = 0\n", "fills: int = 0\n" + refuses_7))
    strategies = first.strategy, second.strategy

    async def story() -> VersionState | None:
        reloading = asyncio.ensure_future(rig.reload_async())
        while not any(stage == "warm_up" for stage, _ in rig.stages()):
            await asyncio.sleep(0)
            second.strategy.state.fills = 7 if any(s == "restore" for s, _ in rig.stages()) else 0
        return (await reloading).state

    assert asyncio.run(story()) is VersionState.REFUSED
    assert (first.strategy, second.strategy) == strategies
    assert rig.stages()[-1] == ("swap", "failed")
    rig.tops(2)
    assert first.strategy.state.books == 5
    assert rig.offsets() == {0.02}


def test_plugin_of_several_files_reloads_as_one(tmp_path: Path) -> None:
    rig = ReloadDesk(tmp_path)
    rig.write("OFFSET = 0.02\n", "pair/offsets.py")
    rig.write(
        maker()
        .replace("0.02", "offsets.OFFSET")
        .replace("from decimal", "from . import offsets\nfrom decimal", 1),
        "pair/__init__.py",
    )
    rig.load()
    rig.run("mm", plugin="pair")
    rig.tops(2)
    assert rig.offsets() == {0.02}

    rig.write("OFFSET = 0.07\n", "pair/offsets.py")
    report = rig.reload("pair")
    rig.tops(1)

    assert report.state is VersionState.ACTIVE
    assert rig.offsets() == {0.07}
    rig.close()


def test_on_start_of_the_new_version_runs_muted_and_its_timers_become_the_instances(rig: ReloadDesk) -> None:
    instance = rig.run("mm")
    rig.tops(3)
    sent = len(rig.desk.venue.sent)
    more = """
        def on_start(self):
            self.ctx.set_timer("tick", 1.0)
            self.buy_limit("BTC-USDT", Decimal(1), Decimal(59_000))

        def on_timer(self, name):
            self.state.fills += 1
    """

    report = rig.save(maker(more=more))

    assert report.state is VersionState.ACTIVE, report.reason
    assert len(rig.desk.venue.sent) == sent
    assert list(instance.timers) == ["tick"]
    rig.desk.advance(3.5)
    assert instance.strategy.state.fills == 3


def test_timer_that_both_versions_set_stays_due_when_it_was(rig: ReloadDesk) -> None:
    more = """
        def on_start(self):
            self.ctx.set_timer('tick', 10.0)

        def on_timer(self, name):
            self.state.fills += 1
    """
    rig.write(maker(more=more))
    rig.reloader.close()
    rig.load()
    instance = rig.run("mm")
    [due] = instance.timers.values()
    for edit in range(3):  # each well within the timer's period
        rig.tops(2)
        rig.desk.advance(3.0)
        assert rig.save(maker(0.03 + edit / 100, more=more)).state is VersionState.ACTIVE
        assert instance.timers == {"tick": due}
    rig.desk.advance(1.5)

    assert instance.strategy.state.fills == 1


def test_timer_that_the_new_version_does_not_set_is_gone(rig: ReloadDesk) -> None:
    rig.write(maker(more="def on_start(self):\n    self.ctx.set_timer('tick', 10.0)\n"))
    rig.reloader.close()
    rig.load()
    instance = rig.run("mm")
    rig.tops(2)

    rig.save(maker())

    assert instance.timers == {}


def test_callbacks_that_are_new_are_called_after_the_swap(rig: ReloadDesk) -> None:
    instance = rig.run("mm")
    rig.tops(2)
    trade(rig)
    more = """
        candle_seconds = 1

        def on_trade(self, trade):
            self.state.fills += 1

        def on_candle(self, candle):
            self.state.fills += 100
    """

    rig.save(maker(more=more))
    trade(rig)
    assert instance.strategy.state.fills == 1
    rig.desk.advance(2.0)
    assert instance.strategy.state.fills == 101
    rig.save(maker(0.05))
    trade(rig)
    rig.desk.advance(2.0)
    assert instance.strategy.state.fills == 101


def test_candle_under_way_is_not_cut_by_a_reload(rig: ReloadDesk) -> None:
    more = "candle_seconds = 1\n\ndef on_candle(self, candle):\n    self.state.fills += candle.trades\n"
    rig.write(maker(more=more))
    rig.reloader.close()
    rig.load()
    instance = rig.run("mm")
    rig.tops(2)
    trade(rig)

    rig.save(maker(0.05, more=more))
    trade(rig)
    rig.desk.advance(2.0)

    assert instance.strategy.state.fills == 2


def test_paused_instance_stays_paused(rig: ReloadDesk) -> None:
    instance = rig.run("mm")
    rig.tops(2)
    rig.desk.engine.roster.pause(instance, "test")
    rig.desk.settle()

    rig.save(maker(0.05))
    rig.tops(3)

    assert rig.desk.state_of("mm") is InstanceState.PAUSED
    assert rig.desk.venue.open() == []
    rig.desk.engine.roster.resume(instance, "test")
    rig.tops(1)
    assert rig.offsets() == {0.05}


def test_quarantined_instance_is_released_by_a_good_version_and_hears_again_what_broke_it(
    rig: ReloadDesk,
) -> None:
    broken = maker().replace(
        "self.state.fills += 1", "self.state.fills += 1\n        raise RuntimeError('bad')"
    )
    rig.write(broken)
    rig.reloader.close()
    rig.load()
    instance = rig.run("mm")
    rig.tops(3)
    order = rig.desk.venue.open()[0]
    rig.desk.venue.trade(order, "0.25")
    rig.desk.settle()
    assert rig.desk.state_of("mm") is InstanceState.QUARANTINED

    report = rig.save(maker(0.05))
    assert report.state is VersionState.ACTIVE, report.reason
    assert rig.desk.state_of("mm") is InstanceState.RUNNING
    assert instance.strategy.state.fills == 1
    rig.tops(1)
    assert rig.offsets() == {0.05}
    rig.desk.advance(60.0)
    rig.tops(6)
    rig.desk.advance(1.0)
    assert rig.moves()[-1] is VersionState.PERMANENT
    assert rig.desk.restart().engine.state.instances["mm"].strategy_state


def test_paused_instance_that_was_quarantined_is_released_paused(rig: ReloadDesk) -> None:
    rig.write(maker(at_book="if self.state.books == 3:\n    raise RuntimeError('bad')\n"))
    rig.reloader.close()
    rig.load()
    instance = rig.run("mm")
    rig.tops(1)
    rig.desk.engine.roster.pause(instance, "test")
    rig.tops(2)
    assert rig.desk.state_of("mm") is InstanceState.QUARANTINED

    rig.save(maker())

    assert rig.desk.state_of("mm") is InstanceState.PAUSED


def test_plugin_that_nothing_runs_only_changes_the_catalog(rig: ReloadDesk) -> None:
    report = rig.save(maker(0.05))

    assert (report.state, report.reason) == (VersionState.PERMANENT, "nothing runs it")
    assert rig.reloader.catalog.strategy("maker").version.digest == report.digest
    rig.run("mm")
    rig.tops(1)
    assert rig.offsets() == {0.05}


def test_symbol_that_the_new_version_does_not_quote_is_pulled(rig: ReloadDesk) -> None:
    rig.run("mm", BTC, ETH)
    rig.tops(3)
    rig.desk.top(3_000.0, 3_000.1, ETH)
    assert rig.desk.venue.open(ETH)
    rig.desk.engine.roster.states.take_checkpoints()
    rig.desk.top(3_001.0, 3_001.1, ETH)

    rig.save(maker(at_book="if book.symbol != 'BTC-USDT':\n    return\n"))

    assert rig.desk.venue.open(ETH) == []
    assert len(rig.desk.venue.open(BTC)) == 2


def test_events_during_the_warm_up_are_in_the_new_versions_memory_once(rig: ReloadDesk) -> None:
    """Attributes outside `state` are not carried, but warm: they have heard what the old one heard."""
    rig.run("mm")
    rig.tops(3)
    rig.desk.advance(11.0)
    rig.tops(4)
    text = maker(
        0.05,
        more="def on_start(self):\n    self.seen = []\n",
        at_book="self.seen.append(book.seq)",
    )
    rig.write(text)

    async def story() -> None:
        reloading = asyncio.ensure_future(rig.reload_async())
        while not reloading.done():
            for price in (60_000.0, 60_002.0, 60_004.0):
                rig.desk.top(price, price + 1.0)
            await asyncio.sleep(0)

    asyncio.run(story())
    rig.tops(2)

    instance = rig.desk.engine.roster.instances["mm"]
    seen = instance.strategy.seen  # type: ignore[attr-defined]
    assert seen == list(range(seen[0], seen[0] + len(seen)))
    assert seen[-1] == rig.desk._seq
    assert instance.strategy.state.books == rig.desk._seq  # type: ignore[attr-defined]


def test_muted_orders_are_reported_gone_before_the_version_goes_live(rig: ReloadDesk) -> None:
    rig.run("mm")
    rig.tops(2)
    more = """
        def on_start(self):
            self.working = ""

        def on_trade(self, trade):
            if not self.working:
                self.working = self.buy_limit(trade.symbol, Decimal(1), Decimal(59_000))

        def on_order(self, order):
            if order.client_id == self.working and order.status.is_terminal:
                self.working = ""
    """
    trade(rig)

    rig.save(maker(more=more))
    assert not [order for order in rig.desk.venue.open() if order.price == Decimal(59_000)]
    trade(rig)

    assert [order.qty for order in rig.desk.venue.open() if order.price == Decimal(59_000)] == [Decimal(1)]


def test_slow_version_is_refused_before_the_swap(rig: ReloadDesk) -> None:
    rig.run("mm")
    rig.tops(5)
    rig.desk.engine.roster.states.take_checkpoints()
    rig.tops(5)

    report = rig.save(maker(0.05, at_book=taking(150.0)))

    assert report.stages[-1].stage is Stage.WARM_UP
    assert "a callback took 150.0 ms in the replay of recent events, the limit is 100 ms" in report.reason


def test_version_that_raises_on_recent_events_is_refused(rig: ReloadDesk) -> None:
    rig.run("mm")
    rig.tops(5)
    rig.desk.engine.roster.states.take_checkpoints()
    rig.tops(5)

    report = rig.save(maker(at_book="1 / 0"))

    assert report.stages[-1].stage is Stage.WARM_UP
    assert "replaying recent events raised ZeroDivisionError" in report.reason
    assert "maker.py@" in report.reason
    assert "line 18)" in report.reason


def test_stage_mode_waits_for_an_operator(tmp_path: Path) -> None:
    settings = ReloadSettings(mode="stage", limits=ProbationLimits(seconds=2.0, events=5))
    rig = ReloadDesk(tmp_path, settings=settings)
    rig.write(maker())
    rig.load()
    rig.run("mm")
    rig.tops(2)

    report = rig.save(maker(0.05))
    rig.tops(1)
    assert (report.state, rig.offsets()) == (VersionState.STAGED, {0.02})
    assert rig.desk.engine.state.plugin("maker").staged == report.digest

    rig.write(maker(0.09))  # what is on disk by now is not what was proved
    activated = asyncio.run(rig.reloader.activate("maker", report.digest[:8]))
    rig.tops(1)

    assert (activated.state, activated.digest) == (VersionState.ACTIVE, report.digest)
    assert rig.offsets() == {0.05}
    rig.close()


def test_an_operator_does_not_activate_what_a_newer_version_took_the_place_of(tmp_path: Path) -> None:
    rig = ReloadDesk(tmp_path, settings=ReloadSettings(mode="stage"))
    rig.write(maker())
    rig.load()
    rig.run("mm")
    rig.tops(2)
    first = rig.save(maker(0.05))
    rig.write(maker(0.09))

    async def story() -> tuple[ReloadReport, ReloadReport]:
        newer = asyncio.ensure_future(rig.reload_async())
        await asyncio.sleep(0)  # it has its turn; the operator's word, spoken now, waits for its own
        return await rig.reloader.activate("maker", first.digest), await newer

    activated, newer = asyncio.run(story())
    rig.tops(1)

    assert (activated.state, newer.state) == (VersionState.REFUSED, VersionState.STAGED)
    assert f"staged is {newer.digest[:12]}" in activated.reason
    assert rig.offsets() == {0.02}
    assert rig.desk.engine.state.plugin("maker").staged == newer.digest
    rig.close()


def test_bad_edits_are_refused_in_a_child_process_with_file_line_and_cause(tmp_path: Path) -> None:
    async def check(version: Version) -> None:
        result = await asyncio.to_thread(probe, version, 5.0)
        if not result.is_ok:
            raise PluginRejected(result.problems)

    rig = ReloadDesk(tmp_path, probe=check)
    rig.write(maker())
    rig.load()
    rig.run("mm")
    rig.tops(2)

    syntax = rig.save(maker().replace("def on_fill(", "def on_fill(("))
    package = rig.save(maker(head="import numpy_of_tomorrow\n"))
    renamed = rig.save(maker().replace("class Maker(", "class _Maker("))

    assert "plugin maker: maker.py:22: syntax error" in syntax.reason
    assert 'plugin maker: maker.py:1: no module named "numpy_of_tomorrow"' in package.reason
    assert "offers nothing" in renamed.reason
    rig.tops(1)
    assert rig.offsets() == {0.02}
    assert [report.state for report in (syntax, package, renamed)] == [VersionState.REFUSED] * 3
    rig.close()


def test_class_that_instances_name_and_the_new_version_lacks_is_a_refusal(tmp_path: Path) -> None:
    two = maker() + "\n\nclass Other(Maker):\n    pass\n"
    rig = ReloadDesk(tmp_path)
    rig.write(two)
    rig.load()
    rig.run("mm", plugin="maker.Maker")

    report = rig.save(two.replace("class Maker(", "class Quoter(").replace("(Maker):", "(Quoter):"))

    assert 'plugin maker: maker.py:13: no strategy plugin is named "maker.Maker"' in report.reason
    assert report.state is VersionState.REFUSED
    rig.close()


def test_book_of_the_account_is_not_disturbed(rig: ReloadDesk) -> None:
    rig.run("mm")
    rig.tops(2)
    top = rig.desk.engine.top(ACCOUNT, BTC)

    rig.save(maker(0.05))

    assert rig.desk.engine.top(ACCOUNT, BTC) is top
