"""Turns, losses, fills, gaps and replays in any order: no order is lost or doubled, each end and fill is heard once.

    TANDEM_PEER_HISTORIES=3000 pytest --timeout=0 tests/isolation/test_orders_of_a_peer.py

tries as many histories; by default there are few. Both ends are the real ones, `Session` and `Stage`; between them are
queues, of which a history says what arrives when.
"""

import itertools
import os
import tempfile
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path

import msgspec
from desk_tools import ACCOUNT, BTC, Desk
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from pytest import MonkeyPatch

from host.api import BookTop, Fill, NoParams, Order, OrderFilled, PlaceOrder, Quote, State, Strategy, Trade
from host.core.entries import InstanceState
from host.isolation import outlet as outlet_module
from host.isolation import session as session_module
from host.isolation.client_session import ClientSession
from host.isolation.outlet import Item
from host.isolation.proxy import Proxy, proxy_class
from host.isolation.session import Session
from host.isolation.settings import WorkerSettings
from host.runtime.roster import InstanceSpec
from host.wire import JSON, MSGPACK
from host.wire import stage as stage_module
from host.wire.stage import Stage, StageRefused

HISTORIES = int(os.environ.get("TANDEM_PEER_HISTORIES", "40"))
ENDLESS = 10**15
PLACE, PLACE_WRONGLY, CANCEL = 1.0, 2.0, 3.0
"""What the peer does at a trade of this size."""


class Account(State):
    """What a trader knows of its own orders and trades."""

    placed: list[str] = msgspec.field(default_factory=list)
    ended: dict[str, str] = msgspec.field(default_factory=dict)
    trades: list[str] = msgspec.field(default_factory=list)


class Trader(Strategy[NoParams]):
    """Quotes around every book, places and cancels as it is told by trades, and writes down what it hears."""

    state: Account

    def on_book(self, book: BookTop) -> None:
        self.quote(book.symbol, Quote(book.bid - 0.02, Decimal(1), book.ask + 0.02, Decimal(1)))

    def on_trade(self, trade: Trade) -> None:
        if trade.qty == CANCEL:
            for order in self.ctx.open_orders()[:1]:
                self.cancel_order(order.client_id)
        else:
            qty = Decimal(1) if trade.qty == PLACE else Decimal("0.00001")  # of which the lot is 0.001
            self.state.placed.append(self.buy_limit(trade.symbol, qty, Decimal(50_000)))

    def on_order(self, order: Order) -> None:
        if order.slot < 0 and order.status.is_terminal:
            assert (
                order.client_id not in self.state.ended or self.state.ended[order.client_id] == order.status
            )
            self.state.ended[order.client_id] = str(order.status)

    def on_fill(self, fill: Fill) -> None:
        self.state.trades.append(fill.trade_id)


class Link:
    """One connection: what is under way on it, either way."""

    def __init__(self) -> None:
        self.to_host: deque[bytes] = deque()
        self.to_peer: deque[bytes] = deque()


class Histories(RuleBasedStateMachine):
    """One instance, its peers one after the other, and a venue."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory(prefix="tandem-")
        self.runs = itertools.count(1)
        self.trades = itertools.count(1)
        self.stage: Stage | None = None
        self.link = Link()
        self.left: Link | None = None
        """Of a client that is gone, what the host may still read."""
        self.is_noticed = True
        self.forgotten: set[str] = set()
        """Orders that a host refused that ended before the peer heard of that."""
        self.desk = Desk(Path(self.folder.name))

    @initialize(is_client=st.booleans(), keeps=st.booleans(), is_json=st.booleans())
    def begin(self, is_client: bool, keeps: bool, is_json: bool) -> None:
        self.is_client, self.keeps, self.codec = is_client, keeps, JSON if is_json else MSGPACK
        self._start_instance()
        self.attach(is_quick=True)
        self.trade(PLACE)
        self.quote(60_000.0, answers=True)
        self.everything_arrives()

    def teardown(self) -> None:
        try:
            if hasattr(self, "codec"):
                self._come_to_rest()
        finally:
            self.desk.journal.close()
            self.folder.cleanup()

    # -- the host's end --------------------------------------------------------------------------

    def _start_instance(self) -> None:
        proxy: Proxy = proxy_class(Trader)(NoParams(), Item)
        spec = InstanceSpec(
            name="q", account=ACCOUNT, symbols=(BTC,), plugin="test", digest="ab" * 32, params_json=b"{}",
            tolerance_bps=0.0,
        )  # fmt: skip
        self.instance = self.desk.engine.roster.add(spec, proxy, (), self.desk.feed.spawn)
        self.desk.engine.roster.start(self.instance)
        self._new_session()

    def _new_session(self) -> None:
        engine, proxy = self.desk.engine, self.instance.strategy
        assert isinstance(proxy, Proxy)
        kind = ClientSession if self.is_client else Session
        self.session = proxy.session = kind(
            engine,
            self.instance,
            engine.roster.ids_of("q", engine.state.instances["q"].number),
            WorkerSettings(
                strikes=ENDLESS, messages_at_once=ENDLESS, busy_ns=10**18, conflate_after_ns=10**18, window=8
            ),
            self,
            takes_over=False,
            on_welcomed=lambda: None,
            on_failed=_unexpected,
            on_bye=_unexpected,
            on_cut_off=_unexpected,
        )

    def send(self, body: bytes) -> None:
        if self.stage is not None:
            self.link.to_peer.append(body)

    def is_subscribed(self) -> bool:
        return self.stage is not None

    def soon(self, work: Callable[[], None]) -> None:
        work()

    def pause(self, for_ns: int) -> None: ...

    # -- the peer's end --------------------------------------------------------------------------

    @precondition(lambda self: self.stage is None and self.is_noticed)
    @rule(is_quick=st.booleans())
    def attach(self, is_quick: bool) -> None:
        self.link = link = Link()
        self.stage = Stage(
            Trader,
            lambda _params: Trader(NoParams()),
            self.codec,
            link.to_host.append,
            run=str(next(self.runs)),
        )
        self.stage.say_hello()
        if is_quick:
            self.host_reads(1)
            self.peer_reads(2)

    @precondition(lambda self: self.stage is not None)
    @rule(most=st.integers(1, 6))
    def peer_reads(self, most: int) -> None:
        assert self.stage is not None
        try:
            while most and self.link.to_peer:
                most -= 1
                self.stage.receive(self.link.to_peer.popleft())
            if not self.link.to_peer:
                self.stage.idle()
        except StageRefused as refused:
            assert refused.reason == "GAP"
            self.die()
            return
        if not self.stage.is_welcome:
            self.stage.say_hello()
        assert self.stage.failure is None, self.stage.failure

    @rule(most=st.integers(1, 6))
    def host_reads(self, most: int) -> None:
        while most and self.link.to_host:
            most -= 1
            self.session.on_message(self.link.to_host.popleft())

    @precondition(lambda self: self.left is not None)
    @rule(most=st.integers(1, 6))
    def host_reads_what_one_before_said(self, most: int) -> None:
        assert self.left is not None
        while most and self.left.to_host:
            most -= 1
            self.session.on_message(self.left.to_host.popleft())

    @rule()
    def everything_arrives(self) -> None:
        while self.link.to_host or self.link.to_peer:
            self.host_reads(100)
            if self.stage is not None:
                self.peer_reads(100)

    @precondition(lambda self: len(self.link.to_host) > 0)
    @rule(which=st.integers(0, 5), becomes=st.sampled_from(("lost", "said once more", "said before")))
    def one_message_goes_astray(self, which: int, becomes: str) -> None:
        to_host = self.link.to_host
        body = to_host[which % len(to_host)]
        if becomes == "lost":
            del to_host[which % len(to_host)]
        elif becomes == "said once more":
            to_host.append(body)
        else:
            to_host.appendleft(body)

    # -- how peers and hosts end -----------------------------------------------------------------

    @precondition(lambda self: self.stage is not None)
    @rule(is_heard=st.booleans())
    def end_in_the_middle(self, is_heard: bool) -> None:
        """The host says something, the peer reacts, which may arrive, and that is the last of it."""
        self.venue_answers()
        self.peer_reads(1)
        if is_heard:
            self.host_reads(100)
        if self.stage is not None:
            self.die()

    @precondition(lambda self: self.stage is not None)
    @rule()
    def die(self) -> None:
        """The peer ends; what it said may still be read until the host has noticed, and of a client after that."""
        self.stage, self.is_noticed = None, False
        self.link.to_peer.clear()

    @precondition(lambda self: not self.is_noticed)
    @rule()
    def notice(self) -> None:
        """What `Worker` and `Attached` do when a peer is gone."""
        engine = self.desk.engine
        self.session.end()
        self.left, self.link, self.is_noticed = self.link if self.is_client else None, Link(), True
        if not self.keeps:
            engine.begin_turn(engine.clock.now_ns())
            engine.roster.pull_orders(self.instance, "gone", engine.now_ns)
            engine.end_turn(engine.now_ns, 0)
        self._new_session()

    @precondition(lambda self: self.stage is None)
    @rule()
    def restart_host(self) -> None:
        """The node is killed and starts again; what was under way is gone with the sockets."""
        was_paused = self.instance.state is InstanceState.PAUSED
        self.forgotten |= set(self.instance.unheard_refusals)
        self.desk = self.desk.restart()
        self.stage, self.left, self.link, self.is_noticed = None, None, Link(), True
        self._start_instance()
        if was_paused:
            self.pause_or_resume()

    # -- what happens ----------------------------------------------------------------------------

    @rule(bid=st.sampled_from((60_000.0, 60_001.0)), answers=st.booleans())
    def quote(self, bid: float, answers: bool) -> None:
        engine = self.desk.engine
        now_ns = engine.clock.now_ns()
        self.desk.feed.market(BookTop(BTC, bid, 1.0, bid + 0.1, 1.0, now_ns, now_ns, next(self.trades)))
        if answers:
            self.venue_answers()

    @rule(wish=st.sampled_from((PLACE, PLACE_WRONGLY, CANCEL)), is_seen=st.booleans())
    def trade(self, wish: float, is_seen: bool = True) -> None:
        now_ns = self.desk.clock.now_ns()
        self.desk.feed.market(Trade(BTC, 60_000.0, wish, True, next(self.trades), now_ns, now_ns))
        if is_seen and self.stage is not None:
            self.peer_reads(100)

    @precondition(lambda self: self.desk.venue.open())
    @rule(which=st.integers(0, 5), qty=st.sampled_from(("0.4", "0.7", "")))
    def fill(self, which: int, qty: str) -> None:
        resting = self.desk.venue.open()
        order = resting[which % len(resting)]
        left = order.qty - order.filled
        self.desk.venue.trade(order, str(min(Decimal(qty or left), left)))
        if order.price != 50_000:
            self.venue_answers()  # this venue would amend a quote that is filled, too

    @rule()
    def venue_answers(self) -> None:
        waiting = self.desk.venue.waiting
        while waiting:
            self.desk.feed.report(waiting.popleft())

    @rule()
    def pause_or_resume(self) -> None:
        roster = self.desk.engine.roster
        change = roster.resume if self.instance.state is InstanceState.PAUSED else roster.pause
        change(self.instance, "by hand")

    # -- what holds ------------------------------------------------------------------------------

    @invariant()
    def every_fill_is_saved_or_still_to_be_heard(self) -> None:
        venue, state = self.desk.venue, self.desk.engine.state
        on_its_way = {report.trade_id for report in venue.waiting if isinstance(report, OrderFilled)}
        told = [fill.trade_id for fill in venue.fills if fill.trade_id not in on_its_way]
        unheard = [news.fill.trade_id for news in state.unheard.get("q", ()) if news.fill is not None]
        assert self.saved().trades + unheard == told

    @invariant()
    def every_order_is_saved_with_what_led_to_it_and_sent_once(self) -> None:
        sent = [command.client_id for command in self.desk.venue.sent if isinstance(command, PlaceOrder)]
        assert len(sent) == len(set(sent))
        placed = {order.client_id for order in self.desk.venue.orders.values() if order.price == 50_000}
        saved = self.saved().placed
        assert len(saved) == len(set(saved))
        assert placed <= set(saved)

    def has_lost_turns(self) -> bool:
        """Return whether the peer has said what never came, once nothing is under way any more."""
        return self.stage is not None and self.stage.unacknowledged > 0

    def saved(self) -> Account:
        record = self.desk.engine.state.instances.get("q")
        if record is None or not record.strategy_state:
            return Account()
        return msgspec.msgpack.decode(record.strategy_state, type=Account)

    def _come_to_rest(self) -> None:
        """Let everything arrive; host, peer and venue are of one mind then."""
        if not self.is_noticed:
            self.notice()
        if self.stage is None:
            self.attach(is_quick=False)
        if self.instance.state is InstanceState.PAUSED:
            self.pause_or_resume()
        for _ in range(200):
            self.venue_answers()
            self.host_reads(100)
            if self.stage is None:
                self.notice()
                self.attach(is_quick=False)
            self.peer_reads(100)
            outlet = self.session.outlet
            is_quiet = not (self.link.to_host or self.link.to_peer or self.desk.venue.waiting)
            if is_quiet and not self.desk.engine.is_quiet:
                self.desk.advance(1.0)  # the venue is asked what became of an order
            elif is_quiet and outlet is not None and outlet.handled > 1 and not outlet.behind:
                break
            elif is_quiet and outlet is not None and outlet.behind and self.has_lost_turns():
                self.die()  # given up: its last turn was lost, and nothing happens that would show it
                continue
            self.session.beat(0)
        else:
            raise AssertionError("it does not come to rest")
        stage, state = self.stage, self.desk.engine.state
        assert stage is not None
        assert stage.strategy is not None
        resting = {order.client_id for order in self.desk.venue.open()}
        assert set(state.orders) == resting
        assert {order.client_id for order in stage.open_orders()} == resting
        assert stage.strategy.ctx.position(BTC) == self.instance.position(BTC)
        assert state.unheard.get("q", []) == []
        saved = self.saved()
        assert set(saved.placed) == (resting & set(saved.placed)) | set(saved.ended) | self.forgotten


def _unexpected(why: str) -> None:
    """Is called where a session ends by what its peer did."""
    raise AssertionError(why)


@contextmanager
def _without_pauses() -> Iterator[None]:
    """Have every state sent, and every gap asked about, at once: what else would depend on the time."""
    with MonkeyPatch.context() as patched:
        patched.setattr(stage_module, "SAVE_STATE_NS", 0)
        patched.setattr(session_module, "SECOND_NS", 0)
        patched.setattr(outlet_module, "SLOW_NS", ENDLESS)
        yield


def test_whatever_happens_between_host_and_peer_no_order_and_no_fill_is_lost_or_doubled() -> None:
    with _without_pauses():
        run_state_machine_as_test(
            Histories,
            settings=settings(max_examples=HISTORIES, stateful_step_count=40, report_multiple_bugs=False),
        )
