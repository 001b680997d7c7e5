"""The exchange as a client sees it: requests, verdicts, reports, queries and faults."""

from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from venue_tools import NEVER, Venue, amend, cancel, instrument, place

from host.api import (
    AccountSnapshot,
    AmendRejected,
    CancelRejected,
    Command,
    Depth,
    FillsSnapshot,
    InstrumentKind,
    Liquidity,
    OpenOrdersSnapshot,
    OrderAccepted,
    OrderAmended,
    OrderCancelled,
    OrderExpired,
    OrderFilled,
    OrderNotFound,
    OrderRejected,
    OrderSnapshot,
    OrderStatus,
    PlaceOrder,
    PriceBand,
    QueryAccount,
    QueryFills,
    QueryOpenOrders,
    QueryOrder,
    RejectReason,
    Side,
    TimeInForce,
)
from venue.accounts import Account
from venue.delivery import Faults, Latency
from venue.market import VenueOrder
from venue.records import CLOSED_ORDERS, IDS_PER_GENERATION, Records

D = Decimal
PERP = "BTC-USDT-PERP"


def reasons(reports: list[object]) -> list[RejectReason]:
    refusals = (OrderRejected, AmendRejected, CancelRejected)
    return [report.reason for report in reports if isinstance(report, refusals)]


def test_crossing_orders_are_accepted_filled_and_charged() -> None:
    venue = Venue()
    venue.send("a", place("m", Side.SELL, "100", "1"))

    accepted, fill = venue.send("b", place("t", Side.BUY, "101", "1"))

    assert isinstance(accepted, OrderAccepted)
    assert isinstance(fill, OrderFilled)
    assert (fill.price, fill.fee, fill.fee_currency, fill.liquidity) == (
        D(100),
        D("0.2"),
        "USDT",
        Liquidity.TAKER,
    )
    maker_fill = venue.reports["a"][-1]
    assert isinstance(maker_fill, OrderFilled) and maker_fill.fee == D("0.1")
    assert venue.exchange.account("a").balances == {"USDT": D("10099.9"), "BTC": D(99)}
    assert venue.exchange.account("b").balances == {"USDT": D("9899.8"), "BTC": D(101)}


@pytest.mark.parametrize(
    ("command", "reason"),
    [
        (place("x", Side.BUY, "100.3", "1"), RejectReason.INVALID_PRICE),
        (place("x", Side.BUY, "-1", "1"), RejectReason.INVALID_PRICE),
        (place("x", Side.BUY, "NaN", "1"), RejectReason.INVALID_PRICE),
        (place("x", Side.BUY, "100", "0.15"), RejectReason.INVALID_QTY),
        (place("x", Side.BUY, "100", "0"), RejectReason.INVALID_QTY),
        (place("x", Side.BUY, "100", "1e40"), RejectReason.INVALID_QTY),
        (place("x", Side.BUY, "100", "200"), RejectReason.INVALID_QTY),
        (place("x", Side.BUY, "100", "0.1"), RejectReason.MIN_NOTIONAL),
        (place("x", Side.BUY, "121", "1"), RejectReason.PRICE_BAND),
        (place("x", Side.SELL, "79", "1"), RejectReason.PRICE_BAND),
        (place("x", Side.SELL, "100", "101"), RejectReason.INSUFFICIENT_FUNDS),
        (place("x", Side.BUY, "110", "1", post_only=True), RejectReason.WOULD_TAKE),
        (place("x", Side.BUY, "110", "50", tif=TimeInForce.FOK), RejectReason.NOT_FILLABLE),
        (place("x", Side.SELL, None, "1"), RejectReason.NOT_FILLABLE),
        (place("x", Side.BUY, "100", "1", reduce_only=True), RejectReason.REDUCE_ONLY),
        (place("x", Side.BUY, "100", "1", symbol="NO-SUCH"), RejectReason.UNKNOWN_SYMBOL),
        (place("m", Side.BUY, "100", "1"), RejectReason.DUPLICATE_ID),
        (cancel("x"), RejectReason.UNKNOWN_ORDER),
        (amend("x", "100", "1"), RejectReason.UNKNOWN_ORDER),
        (amend("m", "100.3", "1"), RejectReason.INVALID_PRICE),
        (amend("m", "110", "100.1"), RejectReason.INSUFFICIENT_FUNDS),
    ],
)
def test_each_refusal_has_its_reason_and_changes_nothing(command: Command, reason: RejectReason) -> None:
    band = PriceBand(D("0.8"), D("1.2"))
    venue = Venue(instrument(max_qty=D(150), min_notional=D(20), price_band=band))
    venue.send("a", place("m", Side.SELL, "100", "1"))
    balances = dict(venue.exchange.account("a").balances)

    reports = venue.send("a", command)

    assert reasons(list(reports)) == [reason]
    assert venue.exchange.account("a").balances == balances
    assert venue.exchange.account("a").locked("BTC") == 1


def test_duplicate_id_is_refused_even_after_the_order_was_refused_or_closed() -> None:
    venue = Venue()
    venue.send("a", place("x", Side.BUY, "100", "0.15"))
    venue.send("a", place("y", Side.BUY, "100", "1"), cancel("y"))

    reports = venue.send("a", place("x", Side.BUY, "100", "1"), place("y", Side.BUY, "100", "1"))

    assert reasons(list(reports)) == [RejectReason.DUPLICATE_ID] * 2


def test_request_after_its_deadline_is_refused() -> None:
    venue = Venue(latency=Latency(base_ns=500))

    reports = venue.send("a", place("x", Side.BUY, "100", "1"), deadline_ns=venue.now_ns + 499)

    assert reasons(list(reports)) == [RejectReason.EXPIRED_REQUEST]
    assert venue.send("a", QueryOrder("x", "BTC-USDT"))[0] == OrderNotFound("x", 2500)


def test_requests_arrive_in_order_after_the_latency() -> None:
    venue = Venue(latency=Latency(base_ns=1_000, jitter_ns=900))
    ids = [f"o{number}" for number in range(50)]

    reports = venue.send("a", *(place(each, Side.BUY, "100", "0.1") for each in ids))

    assert [report.client_id for report in reports if isinstance(report, OrderAccepted)] == ids
    assert all(isinstance(r, OrderAccepted) and 2_000 <= r.ts_ns <= 2_900 for r in reports)


def test_unfilled_ioc_expires_and_a_market_order_stops_at_its_protection() -> None:
    venue = Venue()
    venue.send("a", place("m1", Side.SELL, "100", "1"), place("m2", Side.SELL, "200", "1"))

    ioc = venue.send("b", place("i", Side.BUY, "99", "1", tif=TimeInForce.IOC))
    market = venue.send("b", place("t", Side.BUY, None, "2"))

    assert [type(report) for report in ioc] == [OrderAccepted, OrderExpired]
    assert [type(report) for report in market] == [OrderAccepted, OrderFilled, OrderExpired]
    assert market[-1] == OrderExpired("t", venue.now_ns, "not_fillable", D(1))
    assert venue.exchange.account("b").locked("USDT") == 0


def test_amend_reports_the_new_terms_and_moves_the_lock() -> None:
    venue = Venue()
    venue.send("a", place("x", Side.BUY, "100", "1"))

    reports = venue.send("a", amend("x", "50", "1"))

    assert reports == [OrderAmended("x", D(50), D(1), venue.now_ns)]
    assert venue.exchange.account("a").locked("USDT") == D("50.1")


def test_amend_below_what_is_filled_is_refused() -> None:
    venue = Venue()
    venue.send("a", place("x", Side.BUY, "100", "2"))
    venue.send("b", place("t", Side.SELL, "100", "1"))

    assert reasons(list(venue.send("a", amend("x", "100", "1")))) == [RejectReason.INVALID_QTY]


def test_post_only_amend_that_would_take_cancels_the_order() -> None:
    venue = Venue()
    venue.send("b", place("m", Side.SELL, "101", "1"))
    venue.send("a", place("x", Side.BUY, "100", "1", post_only=True))

    reports = venue.send("a", amend("x", "101", "1"))

    assert reports == [OrderCancelled("x", venue.now_ns, "would_take", D(0))]
    assert venue.exchange.account("a").locked("USDT") == 0


def test_order_that_meets_its_own_account_expires() -> None:
    venue = Venue()
    venue.send("a", place("m", Side.SELL, "100", "1"))

    reports = venue.send("a", place("t", Side.BUY, "100", "1"))

    assert [type(report) for report in reports] == [OrderAccepted, OrderExpired]
    assert isinstance(reports[-1], OrderExpired) and reports[-1].reason == "self_trade"


def test_queries_tell_orders_fills_and_account() -> None:
    venue = Venue()
    venue.send("a", place("m", Side.SELL, "100", "2"), place("c", Side.BUY, "50", "1"), cancel("c"))
    venue.send("b", place("t", Side.BUY, "100", "0.5"))

    partly, gone, opened, fills, account = venue.send(
        "a",
        QueryOrder("m", "BTC-USDT"),
        QueryOrder("c", "BTC-USDT"),
        QueryOpenOrders(),
        QueryFills(0),
        QueryAccount(),
    )

    assert isinstance(partly, OrderSnapshot) and isinstance(gone, OrderSnapshot)
    assert (partly.status, partly.filled) == (OrderStatus.PARTIALLY_FILLED, D("0.5"))
    assert gone.status is OrderStatus.CANCELLED
    assert isinstance(opened, OpenOrdersSnapshot) and opened.orders == (partly,)
    assert isinstance(fills, FillsSnapshot) and [fill.client_id for fill in fills.fills] == ["m"]
    assert isinstance(account, AccountSnapshot)
    assert {b.currency: (b.total, b.locked) for b in account.balances} == {
        "BTC": (D("99.5"), D("1.5")),
        "USDT": (D("10049.95"), D(0)),
    }
    assert venue.send("a", QueryFills(venue.now_ns + 1)) == [FillsSnapshot((), venue.now_ns)]


def test_reduce_only_never_grows_a_position_and_goes_when_the_position_goes() -> None:
    venue = Venue(instrument(InstrumentKind.LINEAR))
    venue.send("b", place("ask", Side.SELL, "100", "2", symbol=PERP))
    venue.send("a", place("open", Side.BUY, "100", "2", symbol=PERP))

    too_much = venue.send("a", place("r1", Side.SELL, "120", "2.1", symbol=PERP, reduce_only=True))
    resting = venue.send("a", place("r2", Side.SELL, "120", "2", symbol=PERP, reduce_only=True))
    second = venue.send("a", place("r3", Side.SELL, "121", "0.1", symbol=PERP, reduce_only=True))
    venue.send("b", place("bid", Side.BUY, "100", "1", symbol=PERP))
    trimmed = venue.send("a", place("close", Side.SELL, "100", "1", symbol=PERP))

    assert reasons(list(too_much)) == [RejectReason.REDUCE_ONLY]
    assert isinstance(resting[0], OrderAccepted)
    assert reasons(list(second)) == [RejectReason.REDUCE_ONLY]
    assert trimmed[-1] == OrderCancelled("r2", venue.now_ns, "reduce_only", D(0))


def test_public_data_tells_the_same_book_as_a_snapshot() -> None:
    venue = Venue()
    venue.send("a", place("m1", Side.SELL, "100", "2"), place("m2", Side.SELL, "101", "1"))
    venue.send("b", place("t", Side.BUY, "100.5", "2"), place("b", Side.BUY, "99", "3"), cancel("b"))
    venue.send("b", place("b2", Side.BUY, "98", "3"))
    book: dict[bool, dict[float, float]] = {True: {}, False: {}}
    last_seq = 0
    for event in venue.market:
        if isinstance(event, Depth):
            assert event.first_seq == last_seq + 1
            last_seq = event.seq
            for is_bid, levels in ((True, event.bids), (False, event.asks)):
                book[is_bid].update(levels)
    rebuilt = [tuple((p, s) for p, s in side.items() if s) for side in book.values()]
    snapshot = venue.exchange.snapshot("BTC-USDT")

    assert rebuilt == [snapshot.bids, snapshot.asks] == [((98.0, 3.0),), ((101.0, 1.0),)]
    assert snapshot.seq == last_seq


def test_reports_are_lost_while_disconnected_but_the_order_lives_on() -> None:
    venue = Venue(latency=Latency(base_ns=10))
    venue.send("a", place("m", Side.SELL, "100", "1"))
    venue.exchange.disconnect("a")
    venue.send("b", place("t", Side.BUY, "100", "1"))
    venue.exchange.connect("a")

    assert not any(isinstance(report, OrderFilled) for report in venue.reports["a"])
    [answer] = venue.send("a", QueryFills(0))
    assert isinstance(answer, FillsSnapshot) and len(answer.fills) == 1


def test_unanswered_request_is_carried_out_all_the_same() -> None:
    venue = Venue(faults=Faults(unanswered=1.0))

    assert venue.send("a", place("m", Side.SELL, "100", "1")) == []
    venue.send("b", place("t", Side.BUY, "100", "1"))

    assert [type(report) for report in venue.reports["a"]] == [OrderFilled]


def test_faults_drop_duplicate_and_reorder_reports() -> None:
    orders = [place(f"o{number}", Side.BUY, "100", "0.1") for number in range(200)]
    sent = [order.client_id for order in orders]

    def heard(faults: Faults) -> list[str]:
        reports = Venue(faults=faults).send("a", *orders)
        return [report.client_id for report in reports if isinstance(report, OrderAccepted)]

    dropped = heard(Faults(drop_report=0.5))
    doubled = heard(Faults(duplicate_report=0.5))
    mixed = heard(Faults(reorder_report=0.5))

    assert 0 < len(dropped) < 200 and set(dropped) < set(sent)
    assert len(doubled) > 200 and set(doubled) == set(sent)
    assert mixed != sent and sorted(mixed) == sorted(sent)
    assert heard(Faults(drop_report=0.5)) == dropped


def test_reject_burst_refuses_requests_in_a_row() -> None:
    venue = Venue(faults=Faults(reject=0.05, reject_burst=3))

    reports = venue.send("a", *(place(f"o{n}", Side.BUY, "100", "0.1") for n in range(60)))

    refused = [isinstance(report, OrderRejected) for report in reports]
    assert any(refused[n : n + 3] == [True] * 3 for n in range(58)) and not all(refused)
    assert set(reasons(list(reports))) == {RejectReason.UNAVAILABLE}


def test_closed_orders_and_used_ids_are_kept_within_their_bounds() -> None:
    records = Records()
    venue = Venue()
    venue.send("a", place("x", Side.BUY, "100", "1"))
    order = records.add(_order("first")).order
    records.close("first", OrderStatus.CANCELLED, 1)
    for number in range(CLOSED_ORDERS):
        records.add(_order(f"o{number}", 2 + number))
        records.close(f"o{number}", OrderStatus.CANCELLED, 1)
    for number in range(2 * IDS_PER_GENERATION + 1):
        records.use(f"u{number}")

    assert order.client_id == "first" and records.find("first") is None
    assert records.find("o0") is not None
    assert records.is_used(f"u{IDS_PER_GENERATION + 1}") and not records.is_used("u0")


def _order(client_id: str, order_id: int = 1) -> VenueOrder:
    command = place(client_id, Side.BUY, "100", "1")
    return VenueOrder(
        order_id, "a", client_id, "BTC-USDT", Side.BUY, command.type, command.time_in_force, D(100), D(1)
    )


_numbers = st.integers(0, 12)
_symbols = st.sampled_from(["BTC-USDT", PERP])
_commands = st.one_of(
    st.builds(
        lambda n, side, price, qty, symbol, tif, flags: PlaceOrder(
            f"c{n}",
            symbol,
            side,
            place("", side, None if price is None else "1", "1").type,
            TimeInForce.IOC if price is None else tif,
            None if price is None else D(price) / 2,
            D(qty) / 10,
            flags[0],
            flags[1],
        ),
        _numbers,
        st.sampled_from(Side),
        st.one_of(st.none(), st.integers(190, 210)),
        st.integers(1, 60),
        _symbols,
        st.sampled_from(TimeInForce),
        st.tuples(st.booleans(), st.booleans()),
    ),
    st.builds(
        lambda n, price, qty, symbol: amend(f"c{n}", str(D(price) / 2), str(D(qty) / 10), symbol=symbol),
        _numbers,
        st.integers(190, 210),
        st.integers(1, 60),
        _symbols,
    ),
    st.builds(lambda n, symbol: cancel(f"c{n}", symbol=symbol), _numbers, _symbols),
)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["a", "b"]), _commands), max_size=40))
def test_account_is_the_fold_of_its_fills_whatever_is_sent(steps: list[tuple[str, Command]]) -> None:
    start = {"USDT": D(500), "BTC": D(5)}
    spot, perpetual = instrument(), instrument(InstrumentKind.LINEAR)
    venue = Venue(spot, perpetual, latency=Latency(base_ns=5, jitter_ns=20), balances=start)
    for sender, command in steps:
        venue.exchange.submit(sender, command, venue.now_ns, NEVER)
        venue.now_ns += 10
        venue.run()
        for name in ("a", "b"):
            # Perpetual fees and losses may eat into what is locked; spot funds never run dry.
            assert venue.exchange.account(name).balances["BTC"] >= 0

    for name, reports in venue.reports.items():
        account = venue.exchange.account(name)
        folded = Account(name, start)
        filled: dict[str, Decimal] = {}
        for report in reports:
            if isinstance(report, OrderFilled):
                market = spot if report.symbol == spot.symbol else perpetual
                folded.apply_fill(
                    market, report.side, report.price, report.qty, report.fee, report.fee_currency
                )
                filled[report.client_id] = filled.get(report.client_id, D(0)) + report.qty
        assert account.balances == folded.balances
        assert account.snapshot(0).positions == folded.snapshot(0).positions

        [opened] = venue.send(name, QueryOpenOrders())
        assert isinstance(opened, OpenOrdersSnapshot)
        for order in opened.orders:
            assert order.filled == filled.get(order.client_id, D(0)) < order.qty
        venue.send(name, *(cancel(order.client_id, symbol=order.symbol) for order in opened.orders))
        assert account.locked("BTC") == 0
        worth = sum((abs(p.qty) * p.entry_price for p in account.snapshot(0).positions), D(0))
        assert account.locked("USDT") == pytest.approx(worth / account.leverage)

    a, b = venue.exchange.account("a"), venue.exchange.account("b")
    assert a.balances["BTC"] + b.balances["BTC"] == 2 * start["BTC"]
    assert a.position(PERP) == -b.position(PERP)
