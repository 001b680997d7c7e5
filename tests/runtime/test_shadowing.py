"""A standby's muted strategies: fed by this node's market data and by another node's journal."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import msgspec
import pytest
from desk_tools import ACCOUNT, BTC, ETH, START_NS, Desk, ScriptedVenue, spot

from host.api import BookTop, Strategy, TandemError, Trade
from host.config import InstanceSection, ScheduleSection
from host.core import entries as e
from host.core.entries import InstanceState
from host.core.state import TradingState
from host.journal import Journal, read
from host.loader import Catalog, make
from host.runtime.clock import VirtualClock
from host.runtime.culprit import Call, Culprit
from host.runtime.engine import Engine, EngineSettings
from host.runtime.instance_maker import InstanceMaker
from host.runtime.roster import InstanceSpec
from host.runtime.shadowing import Shadowing, as_the_primary_runs_it

PLUGIN = """
from decimal import Decimal
from host.api import BookTop, Fill, Params, Quote, State, Strategy


class CountParams(Params, frozen=True):
    away: float = 0.02
    breaks_at: float = 0.0


class CountState(State):
    fills: int = 0
    books: int = 0


class Count(Strategy[CountParams]):
    state: CountState

    def on_start(self):
        self.heard = []
        self.ctx.set_timer("tick", 5.0)

    def on_takeover(self):
        self.heard.append("takeover")

    def on_timer(self, name):
        self.heard.append(name)

    def on_book(self, book: BookTop):
        self.state.books += 1
        if book.bid == self.params.breaks_at:
            raise RuntimeError("broken")
        self.quote(book.symbol, Quote(book.bid - self.params.away, Decimal(1), book.ask + self.params.away, Decimal(1)))

    def on_fill(self, fill: Fill):
        self.state.fills += 1
        self.heard.append("fill")

    def on_order(self, order):
        pass

    def on_candle(self, candle):
        if candle.close == self.params.breaks_at:
            raise RuntimeError("broken")
"""


class Standby:
    """A following engine on a journal of its own, whose entries are copied from a primary's desk."""

    def __init__(
        self, folder: Path, primary: Desk, catalog: Catalog, sections: list[InstanceSection]
    ) -> None:
        self.primary = primary
        self.journal = Journal.open(folder, node="b", segment_bytes=1 << 20)
        self.clock = VirtualClock(START_NS)
        self.venue = ScriptedVenue()
        self.engine = Engine(
            clock=self.clock,
            journal=self.journal,
            state=TradingState(),
            risk_config=primary.risk,
            settings=EngineSettings(snapshot_in_thread=False),
            is_following=True,
        )
        self.feed = self.engine.add_account(ACCOUNT, self.venue, "")
        self.feed.follow([BTC, ETH])
        self.maker = InstanceMaker(self.engine, lambda: catalog)
        self.sections = sections
        self.shadows = Shadowing(self.engine, self.maker, lambda: sections)
        self._next_lsn = 1

    def catch_up(self) -> None:
        """Take in what the primary has journaled since, as replication does."""
        for record in read(self.primary.folder, self._next_lsn):
            assert self.journal.append(record.entry, record.ts_ns) == record.lsn
            outcome = self.engine.state.apply(record.lsn, record.ts_ns, record.entry)
            self.shadows.on_record(record, outcome)
            self._next_lsn = record.lsn + 1
        self.journal.flush()
        self.clock.set(max(self.clock.now_ns(), self.primary.clock.now_ns()))
        self.shadows.on_time(self.clock.now_ns())

    def top(self, bid: float, ask: float) -> None:
        """Let this node's own market data show a best bid and ask."""
        now_ns = self.clock.now_ns()
        self.feed.market(BookTop(BTC, bid, 1.0, ask, 1.0, now_ns, now_ns, now_ns))

    def take_over(self) -> Any:
        """Lead from here on, and return the instance that goes on."""
        self.clock.set(self.clock.now_ns() + 1)  # what the venue says from here on is newer than the journal
        prepared = self.shadows.take("count")
        assert prepared is not None
        self.venue.orders, self.venue.fills = self.primary.venue.orders, self.primary.venue.fills
        self.engine.start_epoch("b", self.journal.cell, self.engine.state.epoch + 1, "test")
        self.engine.set_instruments(ACCOUNT, [spot(BTC), spot(ETH)], {BTC, ETH})
        self.engine.start_reconciling(ACCOUNT)
        self.settle()
        instance = self.maker.install(prepared)
        self.maker.start(instance, prepared.section, takes_over=True)
        self.settle()
        return instance

    def settle(self) -> None:
        while self.venue.waiting:
            self.feed.report(self.venue.waiting.popleft())

    @property
    def strategy(self) -> Any:
        """The muted copy."""
        return self.shadows._running["count"].instance.strategy


def run_on(desk: Desk, catalog: Catalog, params: dict[str, object] | None = None) -> Any:
    """Start the instance on the primary."""
    offer = catalog.strategy("count")
    strategy: Strategy[Any] = make(offer, params or {}, instance="count")
    spec = InstanceSpec(
        name="count",
        account=ACCOUNT,
        symbols=(BTC,),
        plugin="count",
        digest=offer.version.digest,
        params_json=msgspec.json.encode(strategy.params),
    )
    instance = desk.engine.roster.add(spec, strategy, (), desk.feed.spawn)
    desk.engine.roster.start(instance)
    desk.settle()
    return instance


@pytest.fixture
def catalog(tmp_path: Path) -> Iterator[Catalog]:
    (tmp_path / "plugins").mkdir()
    (tmp_path / "plugins" / "count.py").write_text(PLUGIN)
    catalog = Catalog.load([tmp_path / "plugins"])
    yield catalog
    catalog.close()


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path / "a")


@pytest.fixture
def standby(tmp_path: Path, desk: Desk, catalog: Catalog) -> Iterator[Standby]:
    section = InstanceSection(name="count", plugin="count", account=ACCOUNT, symbols=(BTC,))
    made = Standby(tmp_path / "b", desk, catalog, [section])
    yield made
    made.journal.close()


def test_copy_hears_its_own_market_and_the_primarys_fills_and_sends_nothing(
    desk: Desk, standby: Standby, catalog: Catalog
) -> None:
    run_on(desk, catalog)
    desk.top(60_000.0, 60_000.1)
    standby.catch_up()
    standby.top(60_000.0, 60_000.1)
    standby.top(60_000.1, 60_000.2)
    desk.feed.report(desk.venue.trade(desk.venue.open()[0], "0.4"))
    standby.catch_up()

    assert standby.strategy.heard == ["fill"]
    assert standby.venue.sent == []
    assert standby.journal.last_lsn == desk.journal.last_lsn, "a standby writes nothing of its own"
    assert standby.strategy.ctx.position(BTC) == desk.engine.state.position("count", BTC)


def test_state_that_the_primary_saves_takes_the_place_of_the_copys_own(
    desk: Desk, standby: Standby, catalog: Catalog
) -> None:
    instance = run_on(desk, catalog)
    standby.catch_up()
    for _ in range(3):
        standby.top(60_000.0, 60_000.1)
    assert standby.strategy.state.books == 3
    desk.top(60_000.0, 60_000.1)
    desk.advance(2.0)
    standby.catch_up()

    assert instance.strategy.state.books == 1
    assert standby.strategy.state.books == 1


def test_takeover_goes_on_with_the_copy_and_quotes_at_once(
    desk: Desk, standby: Standby, catalog: Catalog
) -> None:
    run_on(desk, catalog)
    desk.top(60_000.0, 60_000.1)
    standby.catch_up()
    standby.top(60_010.0, 60_010.1)
    copy = standby.strategy

    instance = standby.take_over()

    assert instance.strategy is copy
    assert copy.ctx is instance
    assert copy.heard == ["takeover"]
    assert standby.engine.state.instances["count"].state is InstanceState.RUNNING
    assert {str(order.price) for order in standby.venue.open()} == {"60009.98", "60010.12"}, (
        "what it wanted by its own market, with no further event"
    )
    assert "tick" in instance.timers


def test_news_that_no_saved_state_has_seen_is_heard_once_by_the_successor(
    desk: Desk, standby: Standby, catalog: Catalog
) -> None:
    run_on(desk, catalog)
    desk.top(60_000.0, 60_000.1)
    standby.catch_up()
    desk.feed.report(desk.venue.trade(desk.venue.open()[0], "0.4"))
    cut = [
        record.lsn
        for record in read(desk.folder)
        if isinstance(record.entry, e.Reported) and type(record.entry.report).__name__ == "OrderFilled"
    ]
    for record in read(desk.folder, standby._next_lsn):
        if record.lsn > cut[-1]:
            break  # the primary died before what heard of the fill was sent
        standby.journal.append(record.entry, record.ts_ns)
        standby.shadows.on_record(record, standby.engine.state.apply(record.lsn, record.ts_ns, record.entry))
    standby.journal.flush()
    assert standby.strategy.state.fills == 1

    instance = standby.take_over()

    assert instance.strategy.state.fills == 1


def test_parameters_are_those_that_the_primary_has(desk: Desk, standby: Standby, catalog: Catalog) -> None:
    run_on(desk, catalog, {"away": 0.05})
    standby.catch_up()
    assert standby.strategy.params.away == 0.05


def test_copy_that_raises_is_given_up_and_told_of_and_the_node_goes_on(
    desk: Desk, standby: Standby, catalog: Catalog
) -> None:
    run_on(desk, catalog, {"breaks_at": 5.0})
    standby.catch_up()
    standby.top(5.0, 6.0)

    assert "RuntimeError" in standby.shadows.stumbles["count"]
    standby.top(60_000.0, 60_000.1)
    assert standby.shadows.take("count") is None


def test_copy_that_raises_at_a_candle_is_given_up_and_its_connection_hears_nothing_of_it(
    desk: Desk, standby: Standby, catalog: Catalog
) -> None:
    run_on(desk, catalog, {"breaks_at": 5.0})
    standby.catch_up()
    for price in (5.0, 6.0):  # the second trade ends the first one's candle
        now_ns = standby.clock.now_ns()
        standby.feed.market(Trade(BTC, price, 1.0, True, ts_event=now_ns, ts_recv=now_ns))
        standby.clock.set(now_ns + 120 * 1_000_000_000)

    assert "RuntimeError" in standby.shadows.stumbles["count"]
    assert standby.engine.depth == 0 and not standby.feed.failure


def test_copy_that_raised_gets_another_try_when_its_parameters_change(
    desk: Desk, standby: Standby, catalog: Catalog
) -> None:
    run_on(desk, catalog, {"breaks_at": 5.0})
    standby.catch_up()
    standby.top(5.0, 6.0)
    standby.catch_up()
    assert list(standby.shadows.stumbles) == ["count"]
    now_ns = desk.clock.now_ns()
    desk.engine.begin_turn(now_ns)
    desk.engine.record(e.ParamsChanged("count", b'{"breaks_at": 1.0}', "ops"), now_ns)
    desk.engine.end_turn(now_ns, 0)
    standby.catch_up()
    standby.top(5.0, 6.0)

    assert standby.shadows.stumbles == {} and standby.strategy.params.breaks_at == 1.0


@pytest.mark.parametrize("is_same", [True, False])
def test_code_that_the_process_before_ended_in_gets_no_copy_until_it_is_other_code(
    is_same: bool, desk: Desk, standby: Standby, catalog: Catalog
) -> None:
    run_on(desk, catalog)
    digest = catalog.strategy("count").version.digest if is_same else "0" * 64
    culprit = Culprit("count", "", "on_book", "count.py", 7, (Call("on_book", digest[:12]),))
    standby.engine.blocks._before = culprit
    standby.catch_up()
    assert ("count" in standby.shadows._running) == (not is_same)
    assert ("ended in its code" in standby.shadows.stumbles.get("count", "")) == is_same
    assert standby.shadows.faults == {}, "it can lead all the same"


@pytest.mark.parametrize("isolation", ["inline", "process"])
def test_standby_without_the_primarys_version_says_so(
    desk: Desk, standby: Standby, catalog: Catalog, isolation: Literal["inline", "process"]
) -> None:
    standby.sections[0] = msgspec.structs.replace(standby.sections[0], isolation=isolation)
    instance = run_on(desk, catalog)
    with pytest.raises(AssertionError):
        standby.engine.record(e.Alert("x", "y"), 0)
    now_ns = desk.clock.now_ns()
    desk.engine.begin_turn(now_ns)
    desk.engine.record(e.InstanceRevised(instance.instance, "ff" * 32, "reload"), now_ns)
    desk.engine.end_turn(now_ns, 0)
    standby.catch_up()

    assert "the primary runs version ffffffffffff" in standby.shadows.faults["count"]


def test_what_a_client_runs_by_now_is_not_moved_to_a_worker_for_what_it_did_before(
    desk: Desk, standby: Standby, catalog: Catalog
) -> None:
    instance = run_on(desk, catalog)
    digest = desk.engine.state.instances["count"].digest
    now_ns = desk.clock.now_ns()
    desk.engine.begin_turn(now_ns)
    desk.engine.record(e.InstanceIsolated(instance.instance, digest, "it blocked the loop"), now_ns)
    desk.engine.end_turn(now_ns, 0)
    standby.catch_up()
    (inline,) = standby.sections
    client = msgspec.structs.replace(inline, isolation="client")
    taken_over = [as_the_primary_runs_it(one, standby.engine).isolation for one in (inline, client)]
    assert taken_over == ["process", "client"]


def test_instance_that_is_stopped_has_no_copy(desk: Desk, standby: Standby, catalog: Catalog) -> None:
    instance = run_on(desk, catalog)
    standby.catch_up()
    desk.engine.roster.stop(instance, "enough")
    standby.catch_up()

    assert standby.shadows.take("count") is None
    assert standby.shadows.faults == {}


def test_account_that_is_not_connected_is_a_fault(desk: Desk, standby: Standby, catalog: Catalog) -> None:
    run_on(desk, catalog)
    del standby.engine.feeds[ACCOUNT]
    standby.catch_up()

    assert "not connected" in standby.shadows.faults["count"]
    with pytest.raises(TandemError):
        standby.maker.prepare(standby.sections[0])


# -- schedules -----------------------------------------------------------------------------------


def _scheduled(desk: Desk, standby: Standby, catalog: Catalog, **schedule: Any) -> Any:
    """Run the instance on both nodes by a schedule in UTC; it is Friday, 10:46:40."""
    [section] = standby.sections
    section = msgspec.structs.replace(section, schedule=ScheduleSection(**schedule))
    standby.sections[:] = [section]
    desk.engine.scheduler.take_on(section)
    return run_on(desk, catalog)


def test_copy_hears_of_triggers_with_the_primary_and_of_none_twice(
    desk: Desk, standby: Standby, catalog: Catalog
) -> None:
    _scheduled(desk, standby, catalog, triggers={"sweep": "47 10 * * *"})
    desk.top()
    standby.catch_up()
    desk.advance(20)  # 10:47:00
    standby.catch_up()
    assert standby.strategy.heard.count("sweep") == 1

    standby.top(60_000.0, 60_000.1)
    instance = standby.take_over()
    standby.clock.set(standby.clock.now_ns() + 1_000_000_000)
    standby.engine.upkeep.on_time(standby.clock.now_ns())
    assert instance.strategy.heard.count("sweep") == 1


def test_trigger_that_the_primary_died_before_is_made_up_for_by_its_successor(
    desk: Desk, standby: Standby, catalog: Catalog
) -> None:
    _scheduled(desk, standby, catalog, triggers={"sweep": "47 10 * * *"})
    desk.top()
    desk.advance(19)
    standby.catch_up()
    standby.clock.set(standby.clock.now_ns() + 2_000_000_000)  # 10:47:01
    standby.top(60_000.0, 60_000.1)
    instance = standby.take_over()
    standby.engine.upkeep.on_time(standby.clock.now_ns())
    assert instance.strategy.heard[-2:] == ["takeover", "sweep"]


@pytest.mark.parametrize(
    ("window", "state", "by"),
    [
        ("fri 10:00-10:46:50", InstanceState.PAUSED, "schedule"),
        ("fri 10:00-11:00", InstanceState.RUNNING, ""),
        ("fri 10:46:50-11:00", InstanceState.RUNNING, ""),
    ],
)
def test_successor_looks_at_the_clock_for_whether_a_window_is_open(
    desk: Desk, standby: Standby, catalog: Catalog, window: str, state: InstanceState, by: str
) -> None:
    running = _scheduled(desk, standby, catalog, windows=(window,))
    desk.engine.scheduler.on_changed()
    desk.advance(1)
    standby.catch_up()
    before = running.state
    standby.clock.set(standby.clock.now_ns() + 15_000_000_000)  # 10:46:56
    instance = standby.take_over()
    record = standby.engine.state.instances["count"]
    assert (instance.state, record.by) == (state, by)
    assert before is (InstanceState.PAUSED if window.startswith("fri 10:46") else InstanceState.RUNNING)
