"""The matching engine: price, then time, and nothing lost or made."""

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from host.api import OrderType, RejectReason, Side, TimeInForce
from venue.market import Ended, Execution, VenueOrder
from venue.matching import MatchingBook, SelfTrade

D = Decimal


class Orders:
    """Makes orders with rising ids."""

    def __init__(self) -> None:
        self._id = 0

    def __call__(
        self,
        side: Side,
        price: int | None,
        qty: int,
        *,
        owner: str = "",
        tif: TimeInForce = TimeInForce.GTC,
        post_only: bool = False,
    ) -> VenueOrder:
        self._id += 1
        kind = OrderType.MARKET if price is None else OrderType.LIMIT
        limit = None if price is None else D(price)
        return VenueOrder(
            self._id, owner, f"c{self._id}", "X-Y", side, kind, tif, limit, D(qty), post_only=post_only
        )


@pytest.fixture
def order() -> Orders:
    return Orders()


@pytest.fixture
def book() -> MatchingBook:
    return MatchingBook()


def executions(events: list[Execution | Ended]) -> list[tuple[Decimal, Decimal]]:
    return [(event.price, event.qty) for event in events if isinstance(event, Execution)]


def test_better_price_trades_first_and_the_maker_sets_the_price(book: MatchingBook, order: Orders) -> None:
    book.submit(order(Side.SELL, 102, 1), 0)
    book.submit(order(Side.SELL, 101, 1), 0)

    events = book.submit(order(Side.BUY, 105, 2), 1)

    assert executions(events) == [(D(101), D(1)), (D(102), D(1))]


def test_earlier_order_trades_first_at_one_price(book: MatchingBook, order: Orders) -> None:
    first, second = order(Side.BUY, 100, 1), order(Side.BUY, 100, 1)
    book.submit(first, 0)
    book.submit(second, 0)

    book.submit(order(Side.SELL, 100, 1), 1)

    assert (first.filled, second.filled) == (D(1), D(0))
    assert not first.is_open and second.is_open


def test_post_only_order_that_would_take_is_refused(book: MatchingBook, order: Orders) -> None:
    book.submit(order(Side.SELL, 100, 1), 0)
    taker = order(Side.BUY, 100, 1, post_only=True)

    assert book.submit(taker, 1) == [Ended(taker, RejectReason.WOULD_TAKE, 1)]
    assert book.asks.size_at(D(100)) == 1


def test_ioc_remainder_ends_instead_of_resting(book: MatchingBook, order: Orders) -> None:
    book.submit(order(Side.SELL, 100, 1), 0)
    taker = order(Side.BUY, 100, 3, tif=TimeInForce.IOC)

    events = book.submit(taker, 1)

    assert executions(events) == [(D(100), D(1))]
    assert events[-1] == Ended(taker, RejectReason.NOT_FILLABLE, 1)
    assert book.bids.best() is None


def test_fok_trades_whole_or_not_at_all(book: MatchingBook, order: Orders) -> None:
    book.submit(order(Side.SELL, 100, 1), 0)
    book.submit(order(Side.SELL, 101, 1), 0)

    refused = book.submit(order(Side.BUY, 100, 2, tif=TimeInForce.FOK), 1)
    filled = book.submit(order(Side.BUY, 101, 2, tif=TimeInForce.FOK), 2)

    assert executions(refused) == []
    assert executions(filled) == [(D(100), D(1)), (D(101), D(1))]


def test_market_order_stops_at_its_protective_price(book: MatchingBook, order: Orders) -> None:
    book.submit(order(Side.SELL, 100, 1), 0)
    book.submit(order(Side.SELL, 200, 1), 0)
    taker = order(Side.BUY, None, 2)
    taker.price = D(105)

    events = book.submit(taker, 1)

    assert executions(events) == [(D(100), D(1))]
    assert not taker.is_open and book.bids.best() is None


def test_less_quantity_at_the_same_price_keeps_the_place_in_the_queue(
    book: MatchingBook, order: Orders
) -> None:
    first, second = order(Side.BUY, 100, 3), order(Side.BUY, 100, 3)
    book.submit(first, 0)
    book.submit(second, 0)

    book.amend(first, D(100), D(2), 1)
    book.submit(order(Side.SELL, 100, 2), 2)

    assert (first.filled, second.filled) == (D(2), D(0))
    assert book.bids.size_at(D(100)) == 3


@pytest.mark.parametrize(("price", "qty"), [(100, 4), (101, 3)])
def test_more_quantity_or_another_price_goes_to_the_end_of_the_queue(
    book: MatchingBook, order: Orders, price: int, qty: int
) -> None:
    first, second = order(Side.BUY, 100, 3), order(Side.BUY, price, 3)
    book.submit(first, 0)
    book.submit(second, 0)

    book.amend(first, D(price), D(qty), 1)
    book.submit(order(Side.SELL, 100, 3), 2)

    assert (first.filled, second.filled) == (D(0), D(3))


def test_amend_across_the_spread_trades(book: MatchingBook, order: Orders) -> None:
    book.submit(order(Side.SELL, 101, 1), 0)
    bid = order(Side.BUY, 99, 2)
    book.submit(bid, 0)

    events = book.amend(bid, D(101), D(2), 1)

    assert executions(events) == [(D(101), D(1))]
    assert bid.is_open and book.bids.size_at(D(101)) == 1


def test_post_only_amend_that_would_take_takes_the_order_out(book: MatchingBook, order: Orders) -> None:
    book.submit(order(Side.SELL, 101, 1), 0)
    bid = order(Side.BUY, 99, 2, post_only=True)
    book.submit(bid, 0)

    assert book.amend(bid, D(101), D(2), 1) == [Ended(bid, RejectReason.WOULD_TAKE, 1)]
    assert not bid.is_open and book.bids.best() is None


def test_self_trade_cancels_the_taker_by_default(book: MatchingBook, order: Orders) -> None:
    mine = order(Side.SELL, 101, 1, owner="a")
    book.submit(order(Side.SELL, 100, 1, owner="b"), 0)
    book.submit(mine, 0)
    taker = order(Side.BUY, 101, 2, owner="a")

    events = book.submit(taker, 1)

    assert executions(events) == [(D(100), D(1))]
    assert events[-1] == Ended(taker, RejectReason.SELF_TRADE, 1)
    assert mine.is_open and mine.filled == 0


def test_self_trade_can_cancel_the_maker_instead(order: Orders) -> None:
    book = MatchingBook(SelfTrade.CANCEL_MAKER)
    mine = order(Side.SELL, 100, 1, owner="a")
    book.submit(mine, 0)
    book.submit(order(Side.SELL, 101, 1, owner="b"), 0)

    events = book.submit(order(Side.BUY, 101, 1, owner="a"), 1)

    assert events[0] == Ended(mine, RejectReason.SELF_TRADE, 1)
    assert executions(events) == [(D(101), D(1))]


def test_cancel_of_a_done_order_changes_nothing(book: MatchingBook, order: Orders) -> None:
    bid = order(Side.BUY, 100, 1)
    book.submit(bid, 0)

    assert book.cancel(bid) and not book.cancel(bid)
    assert book.bids.levels() == []


_submits = st.tuples(
    st.just("submit"),
    st.sampled_from(Side),
    st.one_of(st.none(), st.integers(95, 105)),
    st.integers(1, 5),
    st.sampled_from(TimeInForce),
    st.booleans(),
    st.sampled_from(["", "a", "b"]),
)
_changes = st.tuples(
    st.sampled_from(["cancel", "amend"]), st.integers(0, 30), st.integers(95, 105), st.integers(1, 8)
)


@given(st.lists(st.one_of(_submits, _submits, _changes), max_size=40), st.sampled_from(list(SelfTrade)))
def test_any_sequence_keeps_price_time_priority_and_conserves_quantity(
    steps: list[tuple[object, ...]], self_trade: SelfTrade
) -> None:
    book = MatchingBook(self_trade)
    make = Orders()
    queue: list[VenueOrder] = []  # every open order, oldest arrival first: the naive model
    sent: list[VenueOrder] = []
    traded: dict[int, Decimal] = {}
    for now_ns, step in enumerate(steps):
        if step[0] == "submit":
            _, side, price, qty, tif, post_only, owner = step
            incoming = make(side, price, qty, owner=owner, tif=tif, post_only=post_only)  # type: ignore[arg-type]
            sent.append(incoming)
            queue.append(incoming)
            _check(book.submit(incoming, now_ns), incoming, queue, traded)
        elif queue:
            action, index, new_price, new_qty = step
            target = queue[index % len(queue)]  # type: ignore[operator]
            if action == "cancel":
                assert book.cancel(target)
            elif D(new_qty) > target.filled:  # type: ignore[arg-type]
                price_now, qty_now = D(new_price), D(new_qty)  # type: ignore[arg-type]
                if not (price_now == target.price and qty_now <= target.qty):
                    queue.remove(target)
                    queue.append(target)
                _check(book.amend(target, price_now, qty_now, now_ns), target, queue, traded)
        queue = [resting for resting in queue if resting.is_open]
        _check_book(book, queue)
    for order in sent:
        assert order.filled == traded.get(order.order_id, 0) <= order.qty


def _check(
    events: list[Execution | Ended],
    taker: VenueOrder,
    queue: list[VenueOrder],
    traded: dict[int, Decimal],
) -> None:
    """Check each trade: maker's price, within the taker's limit, and nobody better was waiting."""
    for event in events:
        if not isinstance(event, Execution):
            continue
        maker = event.maker
        assert maker is not None and event.taker is taker
        assert event.price == maker.price and event.qty > 0
        sign = 1 if taker.side is Side.BUY else -1
        if taker.price is not None:
            assert sign * (taker.price - event.price) >= 0
        assert not (maker.owner and maker.owner == taker.owner)
        for part in (maker, taker):
            traded[part.order_id] = traded.get(part.order_id, D(0)) + event.qty
        assert maker.price is not None
        for other in queue:
            if other is maker:
                break
            # Older and on the maker's side: it must have been worse priced, or used up.
            if other.is_open and other.side is maker.side and other is not taker:
                assert other.price is not None and sign * (other.price - maker.price) > 0
        for other in queue:
            if other.is_open and other.side is maker.side and other is not maker and other is not taker:
                assert other.price is not None and sign * (other.price - maker.price) >= 0


def _check_book(book: MatchingBook, queue: list[VenueOrder]) -> None:
    for side in Side:
        sizes: dict[Decimal, Decimal] = {}
        for order in queue:
            if order.side is side and order.price is not None:
                sizes[order.price] = sizes.get(order.price, D(0)) + order.remaining
        best_first = sorted(sizes.items(), reverse=side is Side.BUY)
        assert book.side(side).levels() == best_first
    bid, ask = book.bids.best(), book.asks.best()
    assert bid is None or ask is None or bid.price < ask.price
