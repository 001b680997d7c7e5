"""One bad strategy, one good one: the bad one is taken out, the good one goes on."""

from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any, ClassVar

import pytest
from desk_tools import ACCOUNT, BTC, ETH, SECOND, START_NS, Desk, Quoter

from host.api import (
    BookTop,
    CancelOrder,
    Candle,
    Depth,
    Fill,
    NoParams,
    Order,
    OrderRefused,
    OrderStatus,
    OrderType,
    PlaceOrder,
    Strategy,
    TandemError,
    Trade,
)
from host.core.entries import InstanceState, KillSwitchSet
from host.core.risk_limits import Action, Limits, RiskConfig, RiskReason
from host.runtime.strategy_states import MAX_STATE_BYTES


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    desk = Desk(tmp_path / "journal")
    yield desk
    desk.journal.close()


class Faulty(Quoter):
    """Quotes until it raises in the callback named by `where`."""

    def __init__(self, where: str = "") -> None:
        super().__init__()
        self.where = where

    def _maybe(self, where: str) -> None:
        if where == self.where:
            raise RuntimeError("on purpose")

    def on_start(self) -> None:
        self._maybe("on_start")
        self.ctx.set_timer("tick", 1.0)

    def on_timer(self, name: str) -> None:
        self._maybe("on_timer")

    def on_book(self, book: BookTop) -> None:
        super().on_book(book)
        if self.books > 1:
            self._maybe("on_book")

    def on_trade(self, trade: Trade) -> None:
        self._maybe("on_trade")

    def on_candle(self, candle: Candle) -> None:
        self._maybe("on_candle")

    def on_fill(self, fill: Fill) -> None:
        super().on_fill(fill)
        self._maybe("on_fill")

    def on_order(self, order: Order) -> None:
        super().on_order(order)
        if order.status is OrderStatus.OPEN and self.books > 1:
            self._maybe("on_order")
        if self.where == "state" and self.books > 1:
            self.state.junk = 2**70  # no msgpack integer


def trade(desk: Desk, price: float = 60_000.0) -> None:
    now_ns = desk.clock.now_ns()
    desk.feed.market(Trade(BTC, price, 0.5, True, 1, now_ns, now_ns))


@pytest.mark.parametrize(
    "where", ["on_start", "on_book", "on_trade", "on_fill", "on_order", "on_timer", "on_candle", "state"]
)
def test_strategy_that_raises_is_quarantined_and_its_neighbour_goes_on(desk: Desk, where: str) -> None:
    good = Quoter()
    desk.run("good", good)
    desk.run("bad", Faulty(where))
    desk.top()
    trade(desk)
    desk.top(60_001.0, 60_001.1)
    for order in desk.venue.open():
        desk.venue.trade(order, "0.5")
    desk.settle()
    desk.advance(61.0)
    trade(desk)
    desk.settle()

    assert desk.state_of("bad") is InstanceState.QUARANTINED
    reason = desk.engine.state.instances["bad"].reason
    assert where in reason
    if where != "state":
        assert "RuntimeError: on purpose" in reason
        assert "test_engine.py, line" in reason
    assert desk.orders("bad") == []
    assert len(desk.alerts("quarantined")) == 1
    assert desk.state_of("good") is InstanceState.RUNNING
    before = good.books
    desk.top(60_002.0, 60_002.1)
    assert good.books == before + 1
    assert {order.price for order in desk.orders("good")} == {Decimal("60001.98"), Decimal("60002.12")}


def test_quarantined_strategy_with_a_timer_leaves_nothing_due_for_ever(desk: Desk) -> None:
    desk.run("bad", Faulty("on_book"))
    desk.top()
    desk.top(60_001.0, 60_001.1)
    desk.advance(5.0)

    assert desk.state_of("bad") is InstanceState.QUARANTINED
    assert desk.engine.upkeep.next_time_ns() > desk.clock.now_ns()


def test_stopped_strategy_with_a_timer_leaves_nothing_due_for_ever(desk: Desk) -> None:
    instance = desk.run("mm", Faulty())
    desk.engine.roster.stop(instance, "enough")
    desk.advance(5.0)

    assert desk.engine.upkeep.next_time_ns() > desk.clock.now_ns()


class BrokenError(Exception):
    """An error that cannot even say what it is."""

    def __str__(self) -> str:
        raise RuntimeError("no text")


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (BrokenError(), "BrokenError: its text cannot be had"),
        (SystemExit(3), "SystemExit: 3"),
        (RecursionError("deep"), "RecursionError: deep"),
        (ValueError("x" * 100_000_000), "ValueError: xxx"),
    ],
)
def test_whatever_a_strategy_raises_stays_with_it(desk: Desk, error: BaseException, said: str) -> None:
    class Raises(Quoter):
        def on_book(self, book: BookTop) -> None:
            raise error

    desk.run("bad", Raises())
    desk.top()

    assert desk.engine.halted == ""
    assert f"on_book raised {said}" in desk.engine.state.instances["bad"].reason
    assert len(desk.engine.state.instances["bad"].reason) < 3_000


def test_state_that_grows_for_ever_is_the_strategy_s_own_trouble(desk: Desk) -> None:
    class Hoarder(Quoter):
        def on_order(self, order: Order) -> None:
            self.state.junk = "x" * MAX_STATE_BYTES

    desk.run("bad", Hoarder())
    desk.top()

    assert desk.state_of("bad") is InstanceState.QUARANTINED
    assert "bytes are kept" in desk.engine.state.instances["bad"].reason


def test_quarantine_of_one_costs_its_neighbour_no_part_of_a_candle(desk: Desk) -> None:
    class Charts(Strategy[NoParams]):
        candle_seconds: ClassVar[int] = 60

        def __init__(self) -> None:
            super().__init__(NoParams())
            self.candles: list[Candle] = []

        def on_candle(self, candle: Candle) -> None:
            self.candles.append(candle)

    charts = Charts()
    desk.run("charts", charts)
    desk.run("bad", Faulty("on_trade"))
    trade(desk, 100.0)
    trade(desk, 90.0)
    assert desk.state_of("bad") is InstanceState.QUARANTINED
    desk.advance(60.0)

    assert [(c.open, c.low, c.trades) for c in charts.candles] == [(100.0, 90.0, 2)]


def test_strategy_with_impossible_candles_is_refused(desk: Desk) -> None:
    class Never(Quoter):
        candle_seconds: ClassVar[int] = 0

        def on_candle(self, candle: Candle) -> None: ...

    with pytest.raises(TandemError, match=r"instance never: candle_seconds must be .* above 0, was 0"):
        desk.add("never", Never())
    assert "never" not in desk.engine.state.instances


def test_instance_on_a_symbol_that_is_not_there_changes_nothing(desk: Desk) -> None:
    with pytest.raises(TandemError, match="account acc has no symbol X-Y; it has BTC-USDT, ETH-USDT"):
        desk.add("lost", Quoter(), "X-Y")
    assert "lost" not in desk.engine.state.instances


# -- life ----------------------------------------------------------------------------------------


def test_paused_instance_has_no_quotes_but_keeps_watching(desk: Desk) -> None:
    strategy = Quoter()
    instance = desk.run("mm", strategy)
    desk.top()
    desk.engine.roster.pause(instance, "operator")
    desk.settle()
    assert desk.venue.open() == []
    desk.top(60_001.0, 60_001.1)
    assert (strategy.books, desk.venue.open()) == (2, [])
    desk.engine.roster.resume(instance, "operator")
    desk.top(60_002.0, 60_002.1)
    assert len(desk.venue.open()) == 2


def test_stopped_instance_hears_nothing_and_cannot_be_resumed(desk: Desk) -> None:
    strategy = Quoter()
    instance = desk.run("mm", strategy)
    desk.top()
    desk.engine.roster.stop(instance, "operator")
    desk.settle()
    desk.top(60_001.0, 60_001.1)

    assert (strategy.books, desk.venue.open()) == (1, [])
    with pytest.raises(TandemError, match="only a running or paused one"):
        desk.engine.roster.resume(instance, "operator")


def test_only_a_running_instance_may_place_orders(desk: Desk) -> None:
    instance = desk.run("mm", Quoter())
    desk.engine.roster.pause(instance, "operator")

    with pytest.raises(OrderRefused, match="NOT_RUNNING"):
        instance.strategy.buy_market(BTC, Decimal(1))


def test_timers_fire_on_time_until_they_are_cancelled(desk: Desk) -> None:
    class Clockwork(Strategy[NoParams]):
        def __init__(self) -> None:
            super().__init__(NoParams())
            self.fired: list[tuple[str, float]] = []

        def on_start(self) -> None:
            self.ctx.set_timer("slow", 0.7)
            self.ctx.set_timer("fast", 0.25)

        def on_timer(self, name: str) -> None:
            self.fired.append((name, (self.ctx.now_ns() - START_NS) / SECOND))
            if len(self.fired) == 3:
                self.ctx.cancel_timer("fast")

    clockwork = Clockwork()
    desk.run("clock", clockwork)
    desk.advance(2.2)

    assert clockwork.fired == [
        ("fast", 0.25),
        ("fast", 0.5),
        ("slow", 0.7),
        ("slow", 1.4),
        ("slow", 2.1),
    ]


def test_timer_cancelled_by_another_that_is_due_with_it_does_not_fire(desk: Desk) -> None:
    class Exclusive(Strategy[NoParams]):
        def __init__(self) -> None:
            super().__init__(NoParams())
            self.fired: list[str] = []

        def on_start(self) -> None:
            self.ctx.set_timer("a", 1.0)
            self.ctx.set_timer("b", 1.0)

        def on_timer(self, name: str) -> None:
            self.fired.append(name)
            self.ctx.cancel_timer("b" if name == "a" else "a")

    strategy = Exclusive()
    desk.run("one", strategy)
    desk.advance(3.5)

    assert strategy.fired == ["a", "a", "a"]


# -- when trading must stop ----------------------------------------------------------------------


def desk_with(tmp_path: Path, limits: Limits) -> Desk:
    return Desk(tmp_path / "limited", risk=RiskConfig(node=limits))


def fill_a_bid(desk: Desk, qty: str = "1") -> None:
    bid = next(order for order in desk.venue.open(BTC) if order.side == "buy")
    desk.venue.trade(bid, qty)
    desk.settle()


def test_daily_loss_cancels_everything_and_refuses_what_comes_after(tmp_path: Path) -> None:
    desk = desk_with(tmp_path, Limits(max_daily_loss="500 USDT"))
    desk.run("btc", Quoter())
    desk.run("eth", Quoter(), ETH)
    desk.top()
    desk.top(3_000.0, 3_000.1, symbol=ETH)
    fill_a_bid(desk)
    desk.advance(2.0)
    desk.top(59_000.0, 59_000.1)
    desk.advance(2.0)

    assert "daily_loss" in desk.engine.state.kill_switches["node"]
    assert desk.venue.open() == []
    sent = len(desk.venue.sent)
    desk.top(59_001.0, 59_001.1)
    desk.top(3_001.0, 3_001.1, symbol=ETH)
    assert not [command for command in desk.venue.sent[sent:] if isinstance(command, PlaceOrder)]
    assert desk.engine.state.position("btc", BTC).qty == 1
    again = desk.restart()
    again.run("btc", Quoter())
    again.top()
    assert again.venue.open() == []  # a restart is no way round it


def test_daily_loss_with_flatten_closes_the_position_too(tmp_path: Path) -> None:
    limits = Limits(max_daily_loss="500 USDT", on_breach={RiskReason.DAILY_LOSS: Action.FLATTEN})
    desk = desk_with(tmp_path, limits)
    desk.run("btc", Quoter())
    desk.top()
    fill_a_bid(desk)
    desk.advance(2.0)
    desk.top(59_000.0, 59_000.1)
    desk.advance(2.0)

    closing = [c for c in desk.venue.sent if isinstance(c, PlaceOrder) and c.type is OrderType.MARKET]
    assert [(c.side, c.qty, c.price) for c in closing] == [("sell", Decimal(1), None)]


def test_quotes_are_pulled_when_the_market_goes_quiet(tmp_path: Path) -> None:
    desk = desk_with(tmp_path, Limits(max_data_age_ms=2_000))
    desk.run("btc", Quoter())
    desk.top()
    assert len(desk.venue.open()) == 2
    desk.advance(3.5)
    assert desk.venue.open() == []
    desk.top(60_001.0, 60_001.1)
    assert len(desk.venue.open()) == 2


def test_crossed_quote_leads_to_no_order(desk: Desk) -> None:
    strategy = Quoter()
    desk.run("btc", strategy)
    desk.top(60_000.1, 60_000.0)

    assert (strategy.books, desk.venue.open()) == (0, [])
    assert strategy.ctx.book(BTC) is None
    assert "bad quote" in desk.alerts("book_fault")[0]
    desk.top(60_000.2, 60_000.0)
    assert len(desk.alerts("book_fault")) == 1  # said once
    desk.top()
    assert len(desk.venue.open()) == 2


def test_gap_in_the_depth_asks_for_a_whole_book(desk: Desk) -> None:
    class Deep(Strategy[NoParams]):
        def __init__(self) -> None:
            super().__init__(NoParams())
            self.seen: list[int] = []

        def on_depth(self, depth: Depth) -> None:
            self.seen.append(depth.seq)

    deep = Deep()
    desk.run("deep", deep)
    desk.depth(1, 10, is_snapshot=True)
    desk.depth(11, 12)
    desk.depth(15, 16)

    assert desk.venue.resyncs == [BTC]
    assert len(desk.alerts("book_fault")) == 1
    desk.depth(1, 20, is_snapshot=True)
    assert deep.seen == [10, 12, 20]
    desk.depth(25, 26)
    desk.depth(1, 24, is_snapshot=True)
    desk.depth(27, 27)
    assert deep.seen == [10, 12, 20, 26, 27], "what went on from a snapshot before it came is told with it"


# -- the connection ------------------------------------------------------------------------------


def test_lost_market_data_pulls_quotes_and_trusts_no_book(desk: Desk) -> None:
    instance = desk.run("btc", Quoter())
    desk.top()
    desk.connection("market", is_up=False)
    desk.settle()

    assert desk.venue.open() == []
    assert instance.book(BTC) is None
    with pytest.raises(OrderRefused, match="NOT_CONNECTED: account acc"):
        instance.strategy.buy_market(BTC, Decimal(1))


def test_nothing_is_sent_after_a_reconnect_before_the_venue_has_been_asked(desk: Desk) -> None:
    desk.run("btc", Quoter())
    desk.top()
    desk.venue.is_down = True
    for channel in ("market", "private", "orders"):
        desk.connection(channel, is_up=False)
    desk.venue.trade(desk.venue.open()[0], "0.4")
    desk.venue.waiting.clear()  # nobody hears of it
    desk.venue.is_down = False
    before = len(desk.venue.sent)
    for channel in ("market", "private", "orders"):
        desk.connection(channel, is_up=True)
        now_ns = desk.clock.now_ns()
        desk.feed.market(BookTop(BTC, 60_001.0, 1.0, 60_001.1, 1.0, now_ns, now_ns, 0))
    questions = [type(command).__name__ for command in desk.venue.sent[before:]]

    assert {"QueryOpenOrders", "QueryFills"} <= set(questions)
    assert not {"PlaceOrder", "AmendOrder"} & set(questions)
    desk.settle()
    desk.advance(1.0)
    desk.top(60_002.0, 60_002.1)
    assert len(desk.venue.open()) == 2
    assert desk.engine.state.balances[ACCOUNT] == desk.venue.balances
    assert desk.engine.state.position("btc", BTC).qty == Decimal("-0.4")


def test_dead_line_leads_to_no_storm_of_requests(desk: Desk) -> None:
    desk.run("btc", Quoter())
    desk.top()
    before = desk.engine.journal.last_lsn
    desk.venue.is_down = True
    for channel in ("market", "private", "orders"):
        desk.connection(channel, is_up=False)
    desk.advance(10.0)

    assert desk.engine.journal.last_lsn - before < 200


def test_adapter_that_fails_costs_its_account_alone(desk: Desk) -> None:
    desk.run("btc", Quoter())
    desk.top()
    desk.engine.add_account("other", type(desk.venue)(), "")
    desk.engine.safety.adapter_failed(ACCOUNT, RuntimeError("gone"))
    desk.settle()

    assert desk.venue.open() == []
    assert "account acc: its adapter raised RuntimeError: gone" in desk.alerts("account_failed")[0]
    assert desk.engine.must_stop == ""
    desk.engine.safety.adapter_failed("other", RuntimeError("gone too"))
    assert "account other" in desk.engine.must_stop


# -- the journal ---------------------------------------------------------------------------------


def test_journal_that_takes_no_more_cancels_all_and_sends_nothing_else(desk: Desk) -> None:
    desk.run("btc", Quoter())
    desk.top()
    live = {order.client_id for order in desk.venue.open()}
    desk.journal.close()  # the one failure that every machine can have: from here each append raises
    desk.top(60_001.0, 60_001.1)
    desk.advance(1.0)

    assert "the journal cannot be written" in desk.engine.halted
    assert desk.venue.open() == []
    cancels = [command for command in desk.venue.sent if isinstance(command, CancelOrder)]
    assert {command.client_id for command in cancels} == live
    assert isinstance(desk.venue.sent[-1], CancelOrder)
    assert not desk.engine.gate.permit(desk.clock.now_ns())
    assert desk.engine.live_orders == set()


def test_unanswered_last_cancel_is_counted_as_open(desk: Desk) -> None:
    desk.run("btc", Quoter())
    desk.top()
    desk.journal.close()
    desk.venue.is_down = True
    desk.top(60_001.0, 60_001.1)

    assert len(desk.engine.live_orders) == 2


def test_two_equal_days_have_equal_journals(tmp_path: Path) -> None:
    def day(folder: Path) -> list[Any]:
        desk = Desk(folder)
        desk.run("a", Quoter())
        desk.run("b", Faulty("on_candle"), BTC)
        for step in range(30):
            desk.top(60_000.0 + step % 7, 60_000.1 + step % 7)
            if step % 5 == 0:
                trade(desk)
                fill_a_bid(desk, "0.25")
            desk.advance(3.0)
        desk.journal.close()
        return desk.entries

    assert day(tmp_path / "one") == day(tmp_path / "two")


def test_kill_switch_that_outlived_its_process_cancels_what_is_found_live(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    desk.run("quoter", Quoter())
    desk.top()
    assert len(desk.venue.open(BTC)) == 2
    # The process ends right after the switch was journaled: none of its cancels has left.
    desk.engine.record(KillSwitchSet(f"account:{ACCOUNT}", True, "test"), desk.clock.now_ns())
    desk.journal.flush()
    after = desk.restart()
    after.advance(1)
    assert len(after.venue.open(BTC)) == 2

    after.engine.safety.enforce_kill_switches()
    after.settle()

    assert after.venue.open(BTC) == []
    assert not after.engine.state.orders
