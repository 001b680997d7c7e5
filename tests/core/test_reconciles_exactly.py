"""At every moment, whatever a venue does, cash and inventory are the exact sum of the fills told.

A life of a node is a list of moves: what strategies want, what the venue does with requests, orders
and reports, time passing, the process starting anew. After each move the books are checked; in the
end the venue calms down, and then node and venue must agree on every order, fill and balance.
"""

import os
import tempfile
from decimal import Decimal
from fractions import Fraction
from pathlib import Path

import msgspec
from chaos_venue import ChaosVenue, ChaosWithoutAmends
from core_tools import ACCOUNT, BALANCES, BTC, BUY, MS, SECOND, START_NS, Core, instrument
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from host.api import (
    InstrumentKind,
    Order,
    OrderFilled,
    OrderRefused,
    OrderRequest,
    OrderType,
    Quote,
    Side,
    TimeInForce,
)
from host.core import entries as e
from host.core.accounting import signed_value, unrealised
from host.core.risk import RiskEngine
from host.core.risk_limits import RiskReason
from host.core.state import TradingState
from host.journal import Journal, read

D = Decimal
MEMORY = "/dev/shm" if Path("/dev/shm").is_dir() else None
"""Where syncing a file takes no time; what a sync is worth is tested with the journal."""
PERP = "BTC-USDT-PERP"
INSTRUMENTS = (instrument(min_notional=D(0)), instrument(PERP, InstrumentKind.LINEAR, min_notional=D(0)))
INSTANCES = ("mm", "other")
LIMITS = {"node": {"max_position": 1000, "max_open_orders": 1000, "max_inventory_notional": 10_000_000}}
WAITS = (1 * MS, 20 * MS, 120 * MS, 600 * MS, 2100 * MS, 31 * SECOND)
MARKS = (D(90), D("100.5"))
_decode = msgspec.msgpack.Decoder(e.Entry).decode
_encode = msgspec.msgpack.Encoder().encode

Move = tuple[str, int, int]


class Life:
    """A node and its venue, and everything that must hold at any moment."""

    def __init__(self, folder: Path, venue_type: type[ChaosVenue]) -> None:
        self.folder = folder
        self.now_ns = START_NS
        self.venue = venue_type(lambda: self.now_ns, BALANCES)
        self.generation = 0
        self._forget()
        self.core = self._start()
        self._talk()  # a new account is traded only once it is known what it holds
        assert self.core.reconciler.is_ready(ACCOUNT)
        self.first_lsn_of_epoch = self.core.journal.last_lsn

    def _forget(self) -> None:
        self.shadow = TradingState()
        """What a standby would know: the same entries, read back from bytes."""
        self.told: list[tuple[str, OrderFilled]] = []
        """Every fill in the journal once, with its instance; but none that was refused."""
        self.owners: dict[str, str] = {}

    def _start(self) -> Core:
        core = Core(
            self.folder / str(self.generation),
            self.venue,
            instruments=INSTRUMENTS,
            risk=LIMITS,
            now_ns=self.now_ns,
            instances=INSTANCES,
        )
        core.reconciler.start(ACCOUNT, self.now_ns)
        core.turn()
        self.first_lsn_of_epoch = core.journal.last_lsn
        return core

    # -- moves -----------------------------------------------------------------------------------

    def move(self, kind: str, pick: int, amount: int) -> None:
        """Make one move."""
        getattr(self, f"_{kind}")(pick, amount)
        self.core.turn()
        self.check()

    def _quote(self, pick: int, amount: int) -> None:
        name, symbol = INSTANCES[pick % 2], (BTC, PERP)[pick // 2 % 2]
        bid = 99.5 - pick % 7 / 2
        qty = D(amount % 5 + 1) / 10
        levels = [Quote(bid - level, qty, bid + 2 + level, qty) for level in range(amount // 5 % 3)]
        self.core.quote(*levels, instance=name, symbol=symbol)

    def _place(self, pick: int, amount: int) -> None:
        name, symbol = INSTANCES[pick % 2], (BTC, PERP)[pick // 2 % 2]
        side = (Side.BUY, Side.SELL)[pick // 4 % 2]
        qty = D(amount % 6 + 1) / 10
        price = D(95) if side is BUY else D(105)
        tif = TimeInForce.IOC if amount % 3 == 0 else TimeInForce.GTC
        request = OrderRequest(symbol=symbol, side=side, qty=qty, price=price, time_in_force=tif)
        if amount % 4 == 0:
            request = OrderRequest(symbol=symbol, side=side, qty=qty, type=OrderType.MARKET)
        try:
            self.core.place(request, name)
        except OrderRefused as refused:
            assert refused.reason is RiskReason.SELF_TRADE

    def _cancel(self, pick: int, _amount: int) -> None:
        orders = list(self.core.state.orders)
        if orders:
            self.core.cancel(orders[pick % len(orders)])

    def _nothing(self, _pick: int, _amount: int) -> None:
        pass

    def _talk_a_while(self, _pick: int, _amount: int) -> None:
        self._talk()

    def _pull(self, pick: int, _amount: int) -> None:
        self.core.oms.pull_quotes(INSTANCES[pick % 2], "test", self.now_ns)

    def _arrive(self, pick: int, _amount: int) -> None:
        for _ in range(pick % 3 + 1):
            self.venue.arrive()

    def _arrive_unanswered(self, _pick: int, _amount: int) -> None:
        self.venue.arrive(is_answered=False)

    def _lose_request(self, _pick: int, _amount: int) -> None:
        del self.venue.requests[:1]

    def _reject(self, _pick: int, _amount: int) -> None:
        self.venue.rejects_next = True

    def _trade(self, pick: int, amount: int) -> None:
        orders = self.venue.open()
        if orders:
            self.venue.trade(orders[pick % len(orders)], amount % 6 + 1)

    def _end(self, pick: int, _amount: int) -> None:
        orders = self.venue.open()
        if orders:
            self.venue.end(orders[pick % len(orders)])

    def _deliver(self, pick: int, _amount: int) -> None:
        for _ in range(pick % 4 + 1):
            if self.venue.reports:
                self.core.say(self.venue.reports.pop(0))

    def _deliver_early(self, pick: int, _amount: int) -> None:
        if self.venue.reports:
            self.core.say(self.venue.reports.pop(pick % len(self.venue.reports)))

    def _deliver_twice(self, pick: int, _amount: int) -> None:
        if self.venue.reports:
            report = self.venue.reports[pick % len(self.venue.reports)]
            self.core.say(report)

    def _drop(self, pick: int, _amount: int) -> None:
        if self.venue.reports:
            del self.venue.reports[pick % len(self.venue.reports)]

    def _wait(self, pick: int, _amount: int) -> None:
        self._pass(WAITS[pick % len(WAITS)])

    def _pass(self, duration_ns: int) -> None:
        self.now_ns += duration_ns
        self.core.wait(duration_ns)

    def _reconnect(self, _pick: int, _amount: int) -> None:
        self.venue.reports.clear()
        self.core.reconciler.start(ACCOUNT, self.now_ns)

    def _restart(self, pick: int, _amount: int) -> None:
        self.core.close()
        self.venue.reports.clear()
        if pick % 2:
            self.venue.requests.clear()  # not sent yet when the process died
        self.now_ns += 1 + pick % 3 * 700 * MS
        self.core = self._start()

    def lose_tail(self, entries: int) -> None:
        """Start anew from a journal that lacks its last entries: its machine died, or it was a standby's."""
        journal = self.core.journal
        keep = max(journal.last_lsn - entries, self.first_lsn_of_epoch)
        self.core.close()
        old = self.folder / str(self.generation)
        self.generation += 1
        with Journal.open(self.folder / str(self.generation), node="a", segment_bytes=1 << 16) as copy:
            for record in read(old, 1):
                if record.lsn <= keep:
                    copy.append(record.entry, record.ts_ns)
            copy.flush()
        self.venue.reports.clear()
        self.now_ns += 3 * SECOND  # what is still under way has become invalid
        self._forget()
        self.core = self._start()

    # -- what must hold --------------------------------------------------------------------------

    def check(self) -> None:
        """Compare the state with the journal's fills, a standby's fold and a rebuilt risk engine."""
        core = self.core
        if self.shadow.lsn == core.state.lsn:
            return
        for record in core.records[self.shadow.lsn :]:
            entry = _decode(_encode(record.entry))
            self.shadow.apply(record.lsn, record.ts_ns, entry)
            self._hear(entry)
        assert self.shadow.digest() == core.state.digest()
        self._check_orders()
        self._check_books()
        self._check_risk()

    def _check_orders(self) -> None:
        state = self.core.state
        for order in (*state.orders.values(), *state.retired.values()):
            assert len(set(order.trade_ids)) == len(order.trade_ids)
            assert 0 <= order.filled <= max(order.qty, order.pending_qty or D(0)), order
        assert not any(order.status.is_terminal for order in state.orders.values())
        assert all(order.status.is_terminal for order in state.retired.values())

    def _check_books(self) -> None:
        state = self.core.state
        qty: dict[tuple[str, str], Fraction] = {}
        cash: dict[tuple[str, str], Fraction] = {}
        fees: dict[str, Fraction] = {}
        for owner, fill in self.told:
            key = (owner, fill.symbol)
            signed = Fraction(fill.qty) * (1 if fill.side is BUY else -1)
            qty[key] = qty.get(key, Fraction(0)) + signed
            cash[key] = cash.get(key, Fraction(0)) - signed * Fraction(fill.price)
            fees[fill.fee_currency] = fees.get(fill.fee_currency, Fraction(0)) + Fraction(fill.fee)
        instruments = {each.symbol: each for each in INSTRUMENTS}
        for owner, by_symbol in state.holdings.items():
            for symbol, holding in by_symbol.items():
                key = (owner, symbol)
                assert Fraction(holding.qty) == qty.pop(key, Fraction(0))
                assert Fraction(holding.cash) == cash.get(key, Fraction(0))
                for mark in MARKS:
                    profit = holding.realised + unrealised(holding, instruments[symbol], mark)
                    assert profit == holding.cash + signed_value(instruments[symbol], mark, holding.qty)
        assert not qty, "a fill is in the journal but in no holding"
        if ACCOUNT in state.balances and not self.generation:
            spot = {key: value for key, value in cash.items() if key[1] == BTC}
            held = sum(
                (Fraction(each[BTC].qty) for each in state.holdings.values() if BTC in each), Fraction(0)
            )
            balances = {currency: Fraction(total) for currency, total in state.balances[ACCOUNT].items()}
            assert balances["BTC"] == Fraction(BALANCES["BTC"]) + held - fees.get("BTC", 0)
            net = state.net_holdings.get(ACCOUNT, {}).get(PERP)
            realised = Fraction(0 if net is None else net.realised)
            expected = Fraction(BALANCES["USDT"]) + sum(spot.values()) + realised - fees.get("USDT", 0)
            assert abs(balances["USDT"] - expected) < Fraction(1, 10**9)

    def _hear(self, entry: e.Entry) -> None:
        if isinstance(entry, e.PlaceSent):
            self.owners[entry.client_id] = entry.instance
        elif isinstance(entry, e.OrderAdopted):
            self.owners[entry.order.client_id] = entry.order.instance
        elif isinstance(entry, e.Alert) and entry.kind == "overfill":
            self.told.pop()
        elif isinstance(entry, e.Reported) and isinstance(entry.report, OrderFilled):
            if all(fill.trade_id != entry.report.trade_id for _, fill in self.told):
                self.told.append((self.owners[entry.report.client_id], entry.report))
        elif isinstance(entry, e.FillAdopted):
            raise AssertionError("this venue knows all its orders: no fill is without one")

    def _check_risk(self) -> None:
        core = self.core
        rebuilt = RiskEngine(core.risk.config, core.state.holding)
        lanes = {(lane.instance, lane.symbol): lane for lane in core.risk.lanes()}
        for lane in lanes.values():
            rebuilt.lane(lane.instance, lane.account, lane.instrument)
        for order in core.state.orders.values():
            rebuilt.order_changed(order)
        for lane in rebuilt.lanes():
            ours = lanes[lane.instance, lane.symbol]
            for mine, theirs in zip(ours.scopes, lane.scopes, strict=True):
                assert mine.open_orders == theirs.open_orders
                for symbol, exposure in theirs.exposures.items():
                    known = mine.exposures[symbol]
                    assert (known.longest, known.shortest) == (exposure.longest, exposure.shortest)

    # -- the end ---------------------------------------------------------------------------------

    def calm_down(self) -> None:
        """Let the venue answer everything at once, and time pass until an audit has seen it all."""
        self.venue.rejects_next = False
        for _ in range(75):
            self._talk()
            self._pass(SECOND)
        self.check()

    def _talk(self) -> None:
        for _ in range(40):
            if not (self.venue.requests or self.venue.reports):
                return
            while self.venue.requests:
                self.venue.arrive()
            while self.venue.reports:
                self.core.say(self.venue.reports.pop(0))
        raise AssertionError("node and venue never stop talking")

    def check_agreement(self) -> None:
        """Compare node and venue: they must tell the same story."""
        core, venue = self.core, self.venue
        state = core.state
        assert core.reconciler.is_ready(ACCOUNT), core.reconciler.waiting_for(ACCOUNT)
        assert not core.reconciler.is_asking

        def ours(order: Order) -> tuple[str, Decimal | None, Decimal, Decimal]:
            return order.client_id, order.price, order.qty, order.filled

        theirs = [(each.place.client_id, each.price, each.qty, each.filled) for each in venue.open()]
        assert sorted(map(ours, state.orders.values()), key=str) == sorted(theirs, key=str)
        assert {order.status.value for order in state.orders.values()} <= {"open", "partially_filled"}
        told = sorted(fill.trade_id for _, fill in self.told)
        assert told == sorted(fill.trade_id for fill in venue.fills)
        held, cost = venue.positions.get(PERP, (Fraction(0), Fraction(0)))
        assert Fraction(state.account_qty(ACCOUNT, PERP)) == held
        # Profit taken depends on the order of the fills, and they may have been told in another one:
        # what does not is the money less the cost of what is open.
        net = state.net_holdings.get(ACCOUNT, {}).get(PERP)
        ours_open = Fraction(0) if net is None else Fraction(net.open_cost)
        balances = {currency: Fraction(total) for currency, total in state.balances[ACCOUNT].items()}
        assert abs(balances["USDT"] - ours_open - venue.balances["USDT"] + cost) < Fraction(1, 10**8)
        assert balances["BTC"] == venue.balances["BTC"]
        assert "account_drift" not in core.alerts()


MOVES = st.sampled_from(
    ["nothing"]  # what the others shrink to
    + ["quote"] * 7
    + ["talk_a_while"] * 3
    + ["place"] * 2
    + ["arrive"] * 5
    + ["deliver"] * 5
    + ["trade"] * 3
    + ["wait"] * 3
    + ["cancel", "pull", "arrive_unanswered", "lose_request", "reject", "end"]
    + ["deliver_early", "deliver_twice", "drop", "reconnect", "restart"]
)
LIVES = st.lists(st.tuples(MOVES, st.integers(0, 30), st.integers(0, 30)), min_size=30, max_size=80)
VENUES = st.sampled_from([ChaosVenue, ChaosWithoutAmends])
LIVES_LED = int(os.environ.get("TANDEM_LIVES", "150"))
"""Set it to some thousand after a change of the order manager or of reconciliation."""
one_life = settings(
    max_examples=LIVES_LED, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)


@one_life
@given(moves=LIVES, venue_type=VENUES)
def test_the_books_are_exact_at_every_moment_and_agree_with_the_venue_in_the_end(
    moves: list[Move], venue_type: type[ChaosVenue]
) -> None:
    with tempfile.TemporaryDirectory(dir=MEMORY) as folder:
        life = Life(Path(folder), venue_type)
        try:
            for move in moves:
                life.move(*move)
            life.calm_down()
            life.check_agreement()
        finally:
            life.core.close()


@settings(one_life, max_examples=LIVES_LED // 2)
@given(moves=LIVES, lost=st.integers(1, 40))
def test_orders_and_fills_that_a_lost_journal_tail_held_are_found_at_the_venue(
    moves: list[Move], lost: int
) -> None:
    with tempfile.TemporaryDirectory(dir=MEMORY) as folder:
        life = Life(Path(folder), ChaosVenue)
        try:
            for move in moves:
                life.move(*move)
            life.lose_tail(lost)
            life.calm_down()
            life.check_agreement()
        finally:
            life.core.close()
