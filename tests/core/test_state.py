"""The fold: it never raises on what a venue said, and the same entries give the same state."""

from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import msgspec
import pytest
from core_tools import (
    ACCOUNT,
    BTC,
    BUY,
    INSTANCE,
    SELL,
    START_NS,
    Core,
    account,
    both,
    filled,
    instrument,
    limit,
    view,
)

from host.api import (
    AccountSnapshot,
    Balance,
    Fill,
    InstrumentKind,
    Liquidity,
    Order,
    OrderAccepted,
    OrderAmended,
    OrderCancelled,
    OrderFilled,
    OrderStatus,
    OrderType,
    Side,
    TimeInForce,
    VenuePosition,
)
from host.core import entries as e
from host.core import state as state_module
from host.core.state import TradingState

D = Decimal
S = OrderStatus
PERP, COIN = "BTC-USDT-PERP", "BTC-USD-PERP"
LINEAR = instrument(PERP, InstrumentKind.LINEAR)
INVERSE = instrument(COIN, InstrumentKind.INVERSE, lot_size=D(1), contract_size=D(100))


@pytest.fixture
def core(tmp_path: Path) -> Iterator[Core]:
    with Core(tmp_path, instruments=[instrument(), LINEAR, INVERSE]) as core:
        core.get_ready()
        yield core


def fill(qty: str, price: str, symbol: str = BTC, *, trade_id: str = "t1", side: Side = BUY) -> Fill:
    return Fill(
        "tdt9i9n9", "", ACCOUNT, symbol, side, D(price), D(qty), D(0), "", Liquidity.MAKER, trade_id, START_NS
    )


# -- what cannot be ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("qty", "price", "fee", "kind"),
    [
        ("0", "99", "0", "bad_fill"),
        ("-1", "99", "0", "bad_fill"),
        ("NaN", "99", "0", "bad_fill"),
        ("sNaN", "99", "0", "bad_fill"),
        ("Infinity", "99", "0", "bad_fill"),
        ("0.5", "NaN", "0", "bad_fill"),
        ("0.5", "Infinity", "0", "bad_fill"),
        ("0.5", "99", "NaN", "bad_fill"),
        ("0.5", "99", "-Infinity", "bad_fill"),
        ("0.5", "1E-70", "0", "bad_fill"),
        ("0.5", "99", "1E-70", "bad_fill"),
        ("1E-70", "99", "0", "bad_fill"),
        ("1.1", "99", "0", "overfill"),
    ],
)
def test_an_absurd_fill_is_an_anomaly_and_changes_nothing(
    core: Core, qty: str, price: str, fee: str, kind: str
) -> None:
    order = core.rest(qty="1")
    core.fill(order, "0.1", "t0")
    before = core.state.encode()
    report = OrderFilled(
        order.client_id, BTC, BUY, "t1", D(price), D(qty), D(fee), "USDT", Liquidity.MAKER, START_NS
    )
    state = TradingState.decode(before)
    outcome = state.apply(state.lsn, state.ts_ns, e.Reported(ACCOUNT, report))
    assert outcome is not None
    assert outcome.anomaly is not None
    assert outcome.anomaly.startswith(f"{kind}: ")
    assert outcome.fill is None
    assert state.anomalies.pop(kind) == 1
    assert state.encode() == before


def test_a_fill_of_another_symbol_or_side_is_an_anomaly(core: Core) -> None:
    order = core.rest()
    core.say(filled(order.client_id, SELL, "0.1", "99", "t1"))
    core.say(filled(order.client_id, BUY, "0.1", "99", "t2", symbol=PERP))
    assert order.filled == 0
    assert core.alerts() == ["bad_fill", "bad_fill"]


def test_fills_and_orders_of_a_symbol_that_was_never_listed_do_not_raise(core: Core) -> None:
    outcome = core.record(e.FillAdopted(fill("1", "99", "DOGE-USDT")), START_NS)
    assert outcome is not None
    assert outcome.anomaly == "unknown_instrument: trade t1 is in DOGE-USDT, never listed before"
    gtc = TimeInForce.GTC
    order = Order(
        "tdt9i9n1", "", ACCOUNT, "DOGE-USDT", BUY, OrderType.LIMIT, gtc, D(1), D(1), S.OPEN, venue_id="v"
    )
    core.oms.commit(e.OrderAdopted(order), START_NS)
    core.say(filled("tdt9i9n1", BUY, "1", "1", "t2", symbol="DOGE-USDT"))
    assert core.alerts() == ["unknown_instrument"]
    assert core.state.orders["tdt9i9n1"].filled == 0


def test_a_report_of_an_order_in_no_entry_is_an_anomaly(core: Core) -> None:
    outcome = core.record(e.Reported(ACCOUNT, OrderAccepted("nobody", "v", START_NS)), START_NS)
    assert outcome is not None
    assert outcome.anomaly == "unknown_order: nobody is in no journal entry"


@pytest.mark.parametrize(("symbol", "raises"), [(PERP, False), (COIN, True)])
def test_an_adjustment_at_price_0_does_not_raise(core: Core, symbol: str, raises: bool) -> None:
    adjusted = e.PositionAdjusted(ACCOUNT, "", symbol, D(2), D(0), "test")
    outcome = core.record(adjusted, START_NS)
    assert (outcome is not None) == raises
    assert core.state.account_qty(ACCOUNT, symbol) == (0 if raises else 2)


def test_adjustments_of_nothing_or_of_an_unlisted_symbol_change_nothing(core: Core) -> None:
    before = core.state.digest()
    lsn = core.state.lsn
    for entry in (
        e.PositionAdjusted(ACCOUNT, "", PERP, D(0), D(1), ""),
        e.PositionAdjusted(ACCOUNT, "", "DOGE-USDT", D(1), D(1), ""),
    ):
        assert core.state.apply(lsn, core.state.ts_ns, entry) is None
    assert core.state.digest() == before


# -- money ---------------------------------------------------------------------------------------


def test_the_instances_of_an_account_are_netted_as_the_venue_does(tmp_path: Path) -> None:
    with Core(tmp_path, instruments=[instrument(), LINEAR], instances=("mm", "other")) as core:
        core.get_ready()
        state = core.state
        for name, side, price in [("mm", BUY, "100"), ("other", SELL, "110")]:
            request = msgspec.structs.replace(limit(side, price, "1"), symbol=PERP)
            client_id = core.place(request, name)
            report = OrderFilled(
                client_id, PERP, side, f"t-{name}", D(price), D(1), D(0), "USDT", Liquidity.MAKER, START_NS
            )
            core.say(report)
        assert (state.position("mm", PERP).qty, state.position("other", PERP).qty) == (1, -1)
        assert state.account_qty(ACCOUNT, PERP) == 0
        assert state.balances[ACCOUNT]["USDT"] == D(100_010)  # the venue sees a round trip


def test_fills_that_no_instance_made_belong_to_the_account_and_count_once(core: Core) -> None:
    for _ in range(2):
        core.record(e.FillAdopted(fill("2", "100")), START_NS)
    assert core.state.account_qty(ACCOUNT, BTC) == 2
    assert core.state.balances[ACCOUNT] == {"USDT": D(99_800), "BTC": D(52)}
    assert core.state.holding(INSTANCE, BTC).qty == 0


def test_profit_in_the_venues_balances_is_not_counted_again(core: Core) -> None:
    core.record(e.FillAdopted(fill("1", "100", PERP)), START_NS)
    balances = (Balance("USDT", D(100_001)), Balance("BTC", D(50)))
    position = VenuePosition(PERP, D(1), D(101))  # told in another order, the same fills made this
    core.record(e.AccountReported(ACCOUNT, AccountSnapshot(balances, (position,), START_NS)), START_NS)
    core.record(e.FillAdopted(fill("1", "101", PERP, trade_id="t2", side=SELL)), START_NS)
    assert core.state.balances[ACCOUNT]["USDT"] == D(100_001)


# -- orders --------------------------------------------------------------------------------------


def test_the_answer_to_an_earlier_amend_does_not_end_the_one_in_flight(core: Core) -> None:
    bid, _ = core.quoted()
    core.quote(both(98.0, 101.0, "2"))
    core.say(OrderAmended(bid.client_id, D("98.5"), D("1.5"), START_NS))
    assert (bid.status, bid.price, bid.qty) == (S.PENDING_AMEND, D("98.5"), D("1.5"))
    assert (bid.pending_price, bid.pending_qty) == (D(98), D(2))
    assert len(core.sent()) == 2  # the two amends of the quote, and none because of that answer
    core.fill(bid, "1.8")
    assert bid.filled == D("1.8")
    assert core.alerts() == []


def test_a_fill_up_to_the_wanted_quantity_is_taken_while_an_amend_is_in_flight(core: Core) -> None:
    bid, _ = core.quoted()
    core.quote(both(99.0, 101.0, "2"))
    core.fill(bid, "2")
    assert (bid.status, bid.filled) == (S.FILLED, D(2))


def test_an_amend_down_to_what_was_filled_ends_the_order(core: Core) -> None:
    bid, _ = core.quoted(qty="2")
    core.quote(both(99.0, 101.0, "1"))
    core.fill(bid, "1")
    assert core.state.orders[bid.client_id].status is S.PENDING_AMEND
    core.say(OrderAmended(bid.client_id, D(99), D(1), START_NS))
    assert bid.status is S.FILLED


def test_a_restart_puts_every_live_order_in_doubt(tmp_path: Path) -> None:
    with Core(tmp_path) as core:
        core.quoted()
        core.place(limit(BUY, "95", "1"))
        done = core.rest(price="94")
        core.say(OrderCancelled(done.client_id, START_NS))
    with Core(tmp_path) as core:
        assert {order.status for order in core.state.orders.values()} == {S.UNKNOWN}
        assert len(core.state.orders) == 3
        assert core.state.retired[done.client_id].status is S.CANCELLED


def test_only_the_latest_finished_orders_are_kept(core: Core, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(state_module, "RETIRED_LIMIT", 2)
    ids = []
    for _ in range(3):
        order = core.rest()
        core.say(OrderCancelled(order.client_id, START_NS))
        ids.append(order.client_id)
    assert list(core.state.retired) == ids[1:]


def test_an_order_found_alive_again_is_not_kept_as_finished(core: Core) -> None:
    order = core.rest()
    core.fill(order, "0.4")
    core.say(OrderCancelled(order.client_id, START_NS))
    revived = msgspec.structs.replace(order, status=S.UNKNOWN)
    core.record(e.OrderAdopted(revived), START_NS)
    assert order.client_id not in core.state.retired
    assert core.state.orders[order.client_id].trade_ids == ["t1"]


def test_the_journals_record_of_an_adopted_order_does_not_change_with_the_order(core: Core) -> None:
    gtc = TimeInForce.GTC
    found = Order("tdt9i1n1", INSTANCE, ACCOUNT, BTC, BUY, OrderType.LIMIT, gtc, D(99), D(1), S.OPEN)
    core.record(e.OrderAdopted(found), START_NS)
    core.say(filled("tdt9i1n1", BUY, "0.5", "99", "t1"))
    assert (found.filled, len(found.trade_ids)) == (D(0), 0)


# -- one state from the same entries -------------------------------------------------------------


def busy(core: Core) -> None:
    """Lead a life that touches every part of the state."""
    bid, ask = core.quoted()
    core.fill(bid, "0.4")
    core.quote(both(98.0, 102.0))
    core.say(OrderAmended(ask.client_id, D(102), D(1), START_NS))
    core.record(e.FillAdopted(fill("2", "100", PERP)), START_NS)
    core.record(e.KillSwitchSet("symbol:X", True, "test"), START_NS)
    core.record(e.StrategyStateSaved(INSTANCE, 1, b"x"), START_NS)
    core.record(e.EquityMarked(ACCOUNT, INSTANCE, BTC, D(100), D("0.4"), D(0), D(0), D(0), D("-5")), START_NS)
    order = core.rest(price="95")
    core.say(OrderCancelled(order.client_id, START_NS))
    core.say(account(START_NS))


def test_the_fold_of_the_journal_is_the_live_state(core: Core) -> None:
    busy(core)
    assert core.refolded().digest() == core.state.digest()


def test_looking_at_a_holding_does_not_change_the_digest(core: Core) -> None:
    before = core.state.digest()
    core.state.holding("somebody", "ETH-USDT")
    assert core.state.digest() == before


def test_a_snapshot_reads_back_as_the_same_state_and_goes_on_alike(core: Core) -> None:
    busy(core)
    copy = TradingState.decode(core.state.encode())
    assert copy == core.state
    order = next(iter(core.state.orders.values()))
    entry = e.Reported(ACCOUNT, view(order, START_NS, S.OPEN))
    copy.apply(99, START_NS, entry)
    core.state.apply(99, START_NS, entry)
    assert copy.digest() == core.state.digest()


def test_a_digest_tells_different_states_apart(core: Core) -> None:
    before = core.state.digest()
    core.rest()
    assert core.state.digest() != before


def test_a_fold_counts_a_fill_once_however_often_it_is_in_the_journal(core: Core) -> None:
    order = core.rest()
    entry = e.Reported(ACCOUNT, filled(order.client_id, BUY, "0.4", "99", "t1"))
    for _ in range(2):
        core.record(entry, START_NS)
    assert order.filled == D("0.4")
    assert core.state.holding(INSTANCE, BTC).qty == D("0.4")


def test_a_view_with_less_quantity_than_was_filled_is_older_than_what_we_know(core: Core) -> None:
    order = core.rest(qty="2")
    core.fill(order, "1.5")
    core.record(e.Reported(ACCOUNT, view(order, START_NS, S.OPEN, qty=D(1))), START_NS)
    assert (order.status, order.qty) == (S.PARTIALLY_FILLED, D(2))
