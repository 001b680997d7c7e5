"""The live market: what it publishes, and that equal seeds trade equally."""

from decimal import Decimal
from itertools import pairwise

from venue_tools import instrument

from host.api import BookTop, Depth, OrderType, Side, TimeInForce, Trade
from venue.calm import CalmParticipants
from venue.catalog import INSTRUMENTS, synthetic_market
from venue.live_market import LiveMarket
from venue.market import Execution, MarketOutput, VenueOrder

D = Decimal


def calm(seed: int = 1) -> LiveMarket:
    return LiveMarket(instrument(), CalmParticipants(instrument(), seed, D(100), every_ns=10))


def order(side: Side, price: str, qty: str, owner: str = "a") -> VenueOrder:
    return VenueOrder(1, owner, "c", "BTC-USDT", side, OrderType.LIMIT, TimeInForce.GTC, D(price), D(qty))


def rebuild(outputs: list[MarketOutput]) -> tuple[list[tuple[float, float]], list[tuple[float, float]]]:
    bids: dict[float, float] = {}
    asks: dict[float, float] = {}
    for output in outputs:
        if isinstance(output, Depth):
            bids.update(output.bids)
            asks.update(output.asks)
    return (
        sorted(((p, s) for p, s in bids.items() if s), reverse=True),
        sorted((p, s) for p, s in asks.items() if s),
    )


def test_changes_without_gaps_lead_to_the_snapshot() -> None:
    crowded = synthetic_market(INSTRUMENTS["ETH-USDT"], 3, 0)
    for market, end_ns in ((calm(), 20_000), (crowded, 5_000_000_000)):
        outputs = market.step(end_ns)
        seq = 0
        for output in outputs:
            if isinstance(output, Depth):
                assert output.first_seq == seq + 1 and output.seq >= output.first_seq
                seq = output.seq
        snapshot = market.snapshot(end_ns)

        assert rebuild(outputs) == (list(snapshot.bids), list(snapshot.asks))
        assert snapshot.seq == seq and snapshot.is_snapshot


def test_each_top_differs_from_the_one_before_and_the_last_is_the_book() -> None:
    market = calm()
    tops = [output for output in market.step(20_000) if isinstance(output, BookTop)]
    sizes = [(top.bid, top.bid_size, top.ask, top.ask_size) for top in tops]
    bid, ask = market.best()

    assert len(tops) > 100
    assert all(one != other for one, other in pairwise(sizes))
    assert bid is not None and ask is not None
    assert (tops[-1].bid, tops[-1].ask) == (float(bid), float(ask))


def test_same_seed_trades_the_same_way_in_any_steps() -> None:
    whole = synthetic_market(INSTRUMENTS["BTC-USDT"], 5, 0).step(3_000_000_000)
    in_steps: list[MarketOutput] = []
    market = synthetic_market(INSTRUMENTS["BTC-USDT"], 5, 0)
    for now_ns in range(0, 3_000_000_001, 7_000_000):
        in_steps += market.step(now_ns)
    in_steps += market.step(3_000_000_000)

    assert in_steps == whole
    assert whole != synthetic_market(INSTRUMENTS["BTC-USDT"], 6, 0).step(3_000_000_000)


def test_account_order_trades_with_the_crowd() -> None:
    market = calm()
    market.step(0)
    _, ask = market.best()
    taker = order(Side.BUY, str(ask), "0.1")

    outputs = market.submit(taker, 5)

    [execution] = [output for output in outputs if isinstance(output, Execution)]
    assert execution.taker is taker and execution.price == ask
    assert [type(output) for output in outputs] == [Execution, Trade, BookTop, Depth]


def test_trades_among_the_crowd_are_public_only() -> None:
    outputs = calm().step(20_000)

    assert any(isinstance(output, Trade) for output in outputs)
    assert not any(isinstance(output, Execution) for output in outputs)
