"""What a new process makes of the journal that a dead one left."""

from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from desk_tools import BTC, ETH, Desk, Quoter, ScriptedVenue, spot
from hypothesis import given
from hypothesis import strategies as st

from host.api import BookTop, Fill, NoParams, OrderStatus, Quote, Strategy, TandemError
from host.core import entries as e
from host.core.entries import InstanceState
from host.core.state import TradingState
from host.journal import Journal, read
from host.runtime.instance import StateNotCarried
from host.runtime.recovery import recover
from host.runtime.roster import InstanceSpec


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    desk = Desk(tmp_path / "journal")
    desk.run("mm", Quoter())
    desk.top()
    yield desk
    desk.journal.close()


def trade_a_bid(desk: Desk, qty: str) -> None:
    bid = next(order for order in desk.venue.open(BTC) if order.side == "buy")
    desk.venue.trade(bid, qty)


def test_strategy_state_and_position_come_back(desk: Desk) -> None:
    trade_a_bid(desk, "0.25")
    desk.settle()
    again = desk.restart()
    strategy = Quoter()
    again.run("mm", strategy)

    assert strategy.state.fills == 1
    assert strategy.state.traded == Decimal("0.25")
    assert strategy.ctx.position(BTC).qty == Decimal("0.25")
    again.journal.close()


def test_fill_while_the_node_was_dead_is_delivered_once(desk: Desk) -> None:
    trade_a_bid(desk, "0.25")
    desk.settle()
    trade_a_bid(desk, "0.5")  # its report is lost with the process
    for _ in range(3):
        desk = desk.restart()
        strategy = Quoter()
        desk.run("mm", strategy)
        assert (strategy.state.fills, strategy.state.traded) == (2, Decimal("0.75"))
    desk.journal.close()


def test_fill_found_by_a_process_that_died_before_its_strategies_started_is_not_lost(desk: Desk) -> None:
    trade_a_bid(desk, "0.5")
    desk = desk.restart()  # reconciled, and dies before an instance is there
    assert desk.engine.state.position("mm", BTC).qty == Decimal("0.5")
    desk = desk.restart()
    strategy = Quoter()
    desk.run("mm", strategy)

    assert strategy.state.fills == 1
    desk.journal.close()


def test_fill_that_comes_while_the_node_stops_is_delivered_at_the_next_start(desk: Desk) -> None:
    instance = desk.engine.roster.instances["mm"]
    trade_a_bid(desk, "0.5")
    desk.engine.roster.stop(instance, "node stops")
    desk.settle()
    desk.engine.say_stopped("test")
    assert desk.engine.state.position("mm", BTC).qty == Decimal("0.5")
    desk = desk.restart()
    strategy = Quoter()
    desk.run("mm", strategy)

    assert (strategy.state.fills, strategy.state.traded) == (1, Decimal("0.5"))
    desk.journal.close()


def test_strategy_without_state_is_not_told_again_what_it_has_heard(tmp_path: Path) -> None:
    class Forgetful(Strategy[NoParams]):
        def __init__(self) -> None:
            super().__init__(NoParams())
            self.heard: list[str] = []

        def on_book(self, book: BookTop) -> None:
            self.quote(book.symbol, Quote(book.bid, Decimal(1), book.ask, Decimal(1)))

        def on_fill(self, fill: Fill) -> None:
            self.heard.append(fill.trade_id)

    desk = Desk(tmp_path / "journal")
    first, second = Forgetful(), Forgetful()
    desk.run("mm", first)
    desk.top()
    trade_a_bid(desk, "0.25")
    desk.settle()
    trade_a_bid(desk, "0.5")
    desk = desk.restart()
    desk.run("mm", second)

    assert (first.heard, second.heard) == (["1"], ["2"])
    desk.journal.close()


def test_strategy_may_act_on_a_fill_that_it_missed(desk: Desk) -> None:
    class Hedger(Quoter):
        def on_fill(self, fill: Fill) -> None:
            super().on_fill(fill)
            self.sell_market(fill.symbol, fill.qty)

    trade_a_bid(desk, "0.5")
    desk = desk.restart()
    desk.top()  # without a price nothing may be sent
    desk.run("mm", Hedger())

    assert desk.state_of("mm") is InstanceState.RUNNING
    assert [(o.side, o.qty) for o in desk.orders("mm") if o.slot < 0] == [("sell", Decimal("0.5"))]
    desk.journal.close()


def test_broken_version_s_event_is_heard_again_by_the_next_version(desk: Desk) -> None:
    class Broken(Quoter):
        def on_fill(self, fill: Fill) -> None:
            self.state.fills = 99  # and then it fails half-way
            raise RuntimeError("on purpose")

    desk = desk.restart()
    desk.run("mm", Broken(), digest="cd" * 32)
    desk.top()
    trade_a_bid(desk, "0.5")
    desk.settle()
    assert desk.state_of("mm") is InstanceState.QUARANTINED
    desk = desk.restart()
    strategy = Quoter()
    desk.run("mm", strategy, digest="ef" * 32)

    assert (strategy.state.fills, strategy.state.traded) == (1, Decimal("0.5"))
    desk.journal.close()


def move_to_another_account(desk: Desk) -> None:
    """Make the instance of an earlier process on another account, which is there, too."""
    other = desk.engine.add_account("other", ScriptedVenue(), "")
    desk.engine.set_instruments("other", [spot(BTC)], {BTC})
    other.follow([BTC])
    spec = InstanceSpec(
        name="mm", account="other", symbols=(BTC,), plugin="test", digest="ab" * 32, params_json=b"{}"
    )
    desk.engine.roster.add(spec, Quoter(), (), other.spawn)


def test_instance_with_open_orders_does_not_move_to_another_account(desk: Desk) -> None:
    desk = desk.restart()
    with pytest.raises(TandemError, match="mm cannot move from account acc to other while it has 2 open ord"):
        move_to_another_account(desk)
    assert desk.engine.state.instances["mm"].account == "acc"
    desk.journal.close()


def test_instance_with_a_position_does_not_move_to_another_account(desk: Desk) -> None:
    trade_a_bid(desk, "0.5")
    desk.engine.roster.stop(desk.engine.roster.instances["mm"], "operator")
    desk.settle()
    desk = desk.restart()
    with pytest.raises(TandemError, match=r"while it has 0\.5 BTC-USDT there; close that first"):
        move_to_another_account(desk)
    desk.journal.close()


def test_instance_that_has_nothing_moves_to_another_account(desk: Desk) -> None:
    desk.engine.roster.stop(desk.engine.roster.instances["mm"], "operator")
    desk.settle()
    desk = desk.restart()
    move_to_another_account(desk)
    assert desk.engine.state.instances["mm"].account == "other"
    desk.journal.close()


def test_live_quotes_are_taken_up_not_doubled(desk: Desk) -> None:
    before = {order.client_id for order in desk.venue.open()}
    desk = desk.restart()
    desk.run("mm", Quoter())
    desk.top()

    assert {order.client_id for order in desk.venue.open()} == before
    desk.journal.close()


def test_orders_of_an_instance_that_is_gone_are_cancelled(desk: Desk) -> None:
    desk = desk.restart()
    desk.run("other", Quoter(), ETH)
    desk.engine.roster.cancel_strays("its instance does not run")
    desk.settle()

    assert desk.venue.open() == []
    desk.journal.close()


def test_orders_in_a_symbol_that_its_instance_gave_up_are_cancelled(desk: Desk) -> None:
    desk = desk.restart()
    desk.run("mm", Quoter(), ETH)
    desk.engine.roster.cancel_strays("its instance does not run")
    desk.settle()

    assert desk.venue.open() == []
    desk.journal.close()


def test_instance_that_was_dying_to_pause_leaves_no_quotes_behind(desk: Desk) -> None:
    desk.venue.is_down = True
    desk.engine.roster.pause(desk.engine.roster.instances["mm"], "operator")
    desk.venue.is_down = False
    assert len(desk.venue.open()) == 2
    desk = desk.restart()
    assert desk.state_of("mm") is InstanceState.PAUSED
    instance = desk.add("mm", Quoter())
    desk.engine.roster.start(instance, paused=True)
    desk.settle()

    assert desk.venue.open() == []
    desk.journal.close()


def test_instance_that_stays_quarantined_leaves_no_quotes_behind(desk: Desk) -> None:
    class Broken(Quoter):
        def on_book(self, book: BookTop) -> None:
            raise RuntimeError("on purpose")

    desk = desk.restart()
    desk.run("mm", Broken())
    desk.venue.is_down = True
    desk.top()
    desk.venue.is_down = False
    assert len(desk.venue.open()) == 2
    desk = desk.restart()
    roster = desk.engine.roster
    instance = desk.add("mm", Broken())
    assert not roster.is_new_version("mm")
    roster.keep_quarantined(instance, "on purpose")
    desk.settle()
    desk.top()

    assert desk.venue.open() == []
    desk.journal.close()


def test_order_that_never_left_is_proved_dead_before_the_account_is_ready(tmp_path: Path) -> None:
    desk = Desk(tmp_path / "journal")
    desk.run("mm", Quoter())
    desk.venue.is_deaf = True
    desk.top()
    (first, second) = desk.orders("mm")
    desk = desk.restart()
    desk.venue.is_deaf = False
    assert desk.engine.state.orders[first.client_id].status is OrderStatus.UNKNOWN
    assert not desk.engine.reconciler.is_ready("acc")
    desk.advance(10.0)

    assert desk.engine.reconciler.is_ready("acc")
    for order in (first, second):
        assert desk.engine.state.retired[order.client_id].status is OrderStatus.REJECTED
    desk.journal.close()


def test_snapshot_and_prune_lead_to_the_same_state_as_all_entries(tmp_path: Path) -> None:
    def run(folder: Path, snapshot_every: int) -> bool:
        desk = Desk(folder, snapshot_every=snapshot_every)
        desk.run("mm", Quoter())
        for step in range(60):
            desk.top(60_000.0 + step, 60_000.1 + step)
            if step % 4 == 0:
                trade_a_bid(desk, "0.25")
                desk.settle()
            desk.advance(1.0)
        live = desk.engine.state.digest()
        desk.journal.close()
        folded = TradingState()
        for record in read(folder):  # small journals are never pruned: all entries are there
            folded.apply(record.lsn, record.ts_ns, record.entry)
        assert folded.digest() == live
        with Journal.open(folder, node="desk") as journal:
            recovered = recover(journal)
            snapshot = journal.latest_snapshot()
        assert recovered.state.digest() == live
        assert recovered.entries_read == recovered.state.lsn - (snapshot.lsn if snapshot else 0)
        again = desk.restart()
        strategy = Quoter()
        again.run("mm", strategy)
        assert strategy.state.fills == 15
        again.journal.close()
        return snapshot is not None

    assert not run(tmp_path / "all", 1_000_000)
    assert run(tmp_path / "some", 50)


def take_snapshot(desk: Desk) -> None:
    desk.engine.upkeep.snapshot(desk.clock.now_ns())


def test_fill_that_a_stopped_instance_missed_outlives_a_snapshot(desk: Desk) -> None:
    trade_a_bid(desk, "0.5")  # its cancel comes too late
    desk.engine.roster.stop(desk.engine.roster.instances["mm"], "operator")
    desk.settle()
    take_snapshot(desk)
    for _ in range(2):
        desk = desk.restart()
        strategy = Quoter()
        desk.run("mm", strategy)
        assert (strategy.state.fills, strategy.state.traded) == (1, Decimal("0.5"))
        take_snapshot(desk)
    desk.journal.close()


def test_fill_found_before_its_strategy_started_outlives_a_snapshot(desk: Desk) -> None:
    trade_a_bid(desk, "0.5")
    desk = desk.restart()
    take_snapshot(desk)
    desk = desk.restart()
    strategy = Quoter()
    desk.run("mm", strategy)

    assert strategy.state.fills == 1
    desk.journal.close()


def test_fill_that_broke_its_strategy_outlives_a_snapshot(desk: Desk) -> None:
    class Broken(Quoter):
        def on_fill(self, fill: Fill) -> None:
            raise RuntimeError("on purpose")

    desk = desk.restart()
    desk.run("mm", Broken(), digest="cd" * 32)
    desk.top()
    trade_a_bid(desk, "0.5")
    desk.settle()
    take_snapshot(desk)
    desk = desk.restart()
    strategy = Quoter()
    desk.run("mm", strategy, digest="ef" * 32)

    assert (strategy.state.fills, strategy.state.traded) == (1, Decimal("0.5"))
    desk.journal.close()


def test_snapshot_in_the_middle_of_a_turn_parts_no_fill_from_the_state_that_counts_it(desk: Desk) -> None:
    now_ns = desk.clock.now_ns()
    trade_a_bid(desk, "0.5")
    desk.engine.begin_turn(now_ns)
    desk.settle()
    take_snapshot(desk)
    assert isinstance(desk.entries[-1], e.StrategyStateSaved)  # a process that dies here leaves this
    desk.engine.end_turn(now_ns, 0)


STEPS = ("quote", "trade", "hear", "stop", "start", "snapshot", "die", "die before it starts")


@given(st.lists(st.sampled_from(STEPS), min_size=10, max_size=30))
def test_each_fill_is_heard_once_whatever_happens_between(steps: list[str]) -> None:
    with TemporaryDirectory() as folder:
        desk = Desk(Path(folder))
        roster, instance = desk.engine.roster, desk.run("mm", Quoter())
        desk.top()
        for step in [*steps, "die"]:
            if step == "quote":
                desk.top()
            elif step == "trade" and (resting := desk.venue.open(BTC)):
                desk.venue.trade(resting[0], "0.01")
            elif step == "hear":
                desk.settle()
            elif step == "stop" and instance.state is InstanceState.RUNNING:
                roster.stop(instance, "operator")
            elif step == "start" and instance.state is InstanceState.STOPPED:
                roster.start(instance)
            elif step == "snapshot":
                take_snapshot(desk)
            elif step.startswith("die"):
                desk = desk.restart(after_s=3.0)
                desk.advance(3.0)  # what was in flight is proved dead
                if step != "die":
                    take_snapshot(desk)
                    desk = desk.restart(after_s=3.0)
                    desk.advance(3.0)
                roster, instance = desk.engine.roster, desk.run("mm", Quoter())
        traded = sum((fill.qty * (1 if fill.side == "buy" else -1) for fill in desk.venue.fills), Decimal(0))

        assert isinstance(instance.strategy, Quoter)
        assert instance.strategy.state.fills == len(desk.venue.fills)
        assert instance.strategy.state.traded == traded == instance.position(BTC).qty
        desk.journal.close()


def test_recovery_reads_on_from_the_snapshot_alone(tmp_path: Path) -> None:
    desk = Desk(tmp_path / "journal", snapshot_every=1_000_000)
    desk.run("mm", Quoter())
    desk.top()
    desk.engine.upkeep.snapshot(desk.clock.now_ns())
    desk.top(60_001.0, 60_001.1)
    digest, lsn = desk.engine.state.digest(), desk.journal.last_lsn
    snapshot = desk.journal.latest_snapshot()
    assert snapshot is not None
    recovered = recover(desk.journal)

    assert recovered.entries_read == lsn - snapshot.lsn
    assert recovered.state.digest() == digest
    desk.journal.close()


def test_lives_too_short_for_a_snapshot_do_not_let_the_journal_to_read_grow(tmp_path: Path) -> None:
    desk = Desk(tmp_path / "journal", snapshot_every=40)
    for _ in range(12):
        desk = desk.restart(after_s=1.0)
        desk.run("mm", Quoter())
        desk.top()
        desk.advance(0.5)  # one housekeeping
        snapshot = desk.journal.latest_snapshot()
        assert desk.journal.last_lsn - (snapshot.lsn if snapshot else 0) < 60
    desk.journal.close()


def test_state_that_does_not_fit_is_refused_and_changes_nothing(desk: Desk) -> None:
    from host.api import State

    class Different(State):
        fills: dict[str, int]

    class Other(Strategy[NoParams]):
        state: Different
        state_type = Different

        def __init__(self) -> None:
            self.params = NoParams()
            self.state = Different({})

    desk = desk.restart()
    lsn = desk.journal.last_lsn
    with pytest.raises(StateNotCarried, match=r"instance mm: the saved state .* does not fit Different"):
        desk.add("mm", Other(), digest="99" * 32)
    assert desk.journal.last_lsn == lsn
    assert not [entry for entry in desk.entries if isinstance(entry, e.Alert)]
    desk.journal.close()
