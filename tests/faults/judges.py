"""Judges of what a killed node left behind: whatever they find wrong fails the test."""

from collections.abc import Iterable
from decimal import Decimal

from host.api import Order, OrderStatus, RejectReason, Side
from tests.faults.truths import JournalTruth, TradeKey, VenueTruth, counted
from venue.ledger import OrderEnded

__all__ = [
    "ALARMING",
    "assert_agreement",
    "assert_no_wrong",
    "assert_settled",
    "assert_stopped_in_agreement",
    "assert_strategies_counted",
]

ROUNDING = Decimal("1E-8")
"""How exactly venues book the profit of a perpetual's fill; see `host/core/drift.py`."""

ALARMING = ("account_drift", "order_adopted", "fill_adopted", "order_forgotten", "overfill", "quarantined")
_ZERO = Decimal(0)


def assert_agreement(journal: JournalTruth, venue: VenueTruth) -> int:
    """Hold the node to the venue at every moment that can be compared; return how many those were.

    Each is compared once, however often this is called.
    """
    moments = list(journal.moments)
    journal.moments.clear()
    for ts_ns, ours in moments:
        theirs = venue.moments.pop(ts_ns)
        assert ours.fills == theirs.fills, f"fills differ: {sorted(ours.fills ^ theirs.fills)}"
        assert ours.positions == {symbol: qty for symbol, qty in theirs.positions.items() if qty}
        _assert_cash(ours.cash, theirs.cash, ours.fills)
        if ours.is_recovery:
            assert ours.open == theirs.open
    return len(moments)


def assert_no_wrong(journal: JournalTruth, venue: VenueTruth) -> None:
    """Hold the node to what must be so at every moment: no order lost or doubled, nothing to alarm."""
    unknown = [client_id for client_id in venue.accepted if client_id not in journal.orders]
    assert not unknown, f"the venue has orders that the journal has not: {unknown}"
    assert not [text for text in venue.refused if "duplicate_id" in text], "an order was sent twice"
    assert journal.state.anomalies == {}
    assert not journal.in_doubt_at_start
    assert not [alert for alert in journal.alerts if alert.kind in ALARMING], journal.alerts


def assert_strategies_counted(journal: JournalTruth) -> None:
    """Hold each saved state to the journal: what it has not counted is kept for it, and nothing else.

    A stopped strategy has not heard the fills that came while its cancels were under way.
    """
    for name, record in journal.state.instances.items():
        missed = [news.fill for news in journal.state.unheard.get(name, ()) if news.fill is not None]
        count, traded = counted(record.strategy_state) if record.strategy_state else (0, _ZERO)
        count += len(missed)
        traded += sum((fill.qty if fill.side is Side.BUY else -fill.qty for fill in missed), _ZERO)
        assert (count, traded) == journal.counts(name), name


def assert_stopped_in_agreement(journal: JournalTruth, venue: VenueTruth) -> None:
    """Hold a stopped node to the venue's log: nothing lost, nothing doubled, nothing left open."""
    assert_agreement(journal, venue)
    assert_no_wrong(journal, venue)
    assert_strategies_counted(journal)
    assert_settled(journal, venue)


def assert_settled(journal: JournalTruth, venue: VenueTruth, fee_step: Decimal = _ZERO) -> None:
    """Hold a stopped node to the venue's log: no order is left, each ended as it says, and so did the money.

    `fee_step` is to how much the wire protocol rounds the fees that it tells.
    """
    assert not venue.open, f"left open at the venue: {sorted(venue.open)}"
    assert not journal.state.orders, f"left open in the journal: {sorted(journal.state.orders)}"
    for client_id, order in journal.orders.items():
        assert order.status.is_terminal, f"{client_id} is {order.status}"
        assert order.filled == venue.filled(client_id), client_id
        ended = venue.ended.get(client_id)
        is_known = client_id in venue.accepted and not _was_turned_away(order, ended)
        assert is_known == (order.status is not OrderStatus.REJECTED), f"{client_id} is {order.status}"
        if is_known:
            assert order.status is (OrderStatus.FILLED if ended is None else ended.status), client_id
    assert journal.fills.keys() == venue.fills.keys()
    for key, fill in journal.fills.items():
        theirs = venue.fills[key].fill
        assert (fill.side, fill.price, fill.qty, fill.fee_currency) == (
            theirs.side,
            theirs.price,
            theirs.qty,
            theirs.fee_currency,
        )
        assert abs(fill.fee - theirs.fee) <= fee_step, f"trade {key}: ours {fill.fee}, theirs {theirs.fee}"
    _assert_cash(journal.cash(), venue.cash, journal.fills, fee_step)


def _was_turned_away(order: Order, ended: OrderEnded | None) -> bool:
    """Return whether the venue took an order in before it saw that it would take, which its owner forbade.

    OKX and Bybit accept such an order and end it at once; to the host it is rejected like elsewhere.
    """
    reason = str(RejectReason.WOULD_TAKE)
    if ended is None or not order.reason.startswith(reason):
        return False
    return ended.reason == reason and not ended.filled and order.status is OrderStatus.REJECTED


def _assert_cash(
    ours: dict[str, Decimal],
    theirs: dict[str, Decimal],
    fills: Iterable[TradeKey],
    fee_step: Decimal = _ZERO,
) -> None:
    assert ours.keys() == theirs.keys()
    rounded = sum((ROUNDING * symbol.endswith("-PERP") + fee_step for symbol, _ in fills), _ZERO)
    for currency, amount in ours.items():
        off = abs(amount - theirs[currency])
        assert off <= rounded, f"{currency}: ours {amount}, the venue's {theirs[currency]}"
