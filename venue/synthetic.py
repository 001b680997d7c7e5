"""A seeded crowd that makes a market worth trading in: makers, takers, bursts, trends.

The crowd acts at clustered times around a fair value that only it knows. Makers keep several
levels around that value and pull quotes that have become wrong; informed takers hit those that
are too slow; noise takers trade for reasons of their own, in runs of one direction. Spread,
depth, volatility clustering and sweeps come out of their interplay and are not scripted.
`docs/recordings.md` describes the result.
"""

import math
from decimal import Decimal
from random import Random

from msgspec import Struct

from host.api import Instrument, InstrumentKind, OrderType, Side, TimeInForce
from venue.arrivals import HawkesArrivals
from venue.fair_value import FairValue, FairValueParams
from venue.participants import Action, BookView, CancelResting, SubmitOrder

__all__ = ["PRESETS", "SyntheticCrowd", "SyntheticParams"]

_LADDER_LEVELS = 20
"""Levels that makers put up at once on a side that is empty."""
_JUMP_EXCITEMENT = 40.0
"""A jump makes the market as busy as this many arrivals at once."""


class SyntheticParams(Struct, frozen=True, kw_only=True):
    """One symbol's crowd. The defaults give about 150 market events per second."""

    fair: FairValueParams
    arrivals_per_s: float = 85.0
    """Mean rate at which somebody acts. An arrival causes about two market events."""
    branching: float = 0.65
    """Further arrivals that one arrival sets off, on average; 0 is a Poisson process."""
    burst_decay_per_s: float = 6.0
    """How fast a burst calms down."""
    half_spread_ticks: float = 1.2
    """What makers keep between the fair value and their best price in quiet times."""
    burst_widening: float = 0.7
    """By how much of `half_spread_ticks` makers widen per multiple of the mean arrival rate."""
    depth_ticks: float = 25.0
    """Mean distance of the deeper levels from the best one."""
    resting_orders: int = 240
    """How many orders the crowd keeps in the book, roughly."""
    qty: float
    """Median size of a maker's order, in base units."""
    taker_share: float = 0.12
    """Share of arrivals that are noise takers."""
    taker_qty: float = 0.6
    """Median size of a noise taker's order, as a multiple of `qty`; the tail is heavy."""


class SyntheticCrowd:
    """Keeps the `Participants` contract. The same instrument, params and seed trade the same way."""

    def __init__(self, instrument: Instrument, params: SyntheticParams, seed: int, start_ns: int = 0) -> None:
        self._params = params
        self._tick = instrument.tick_size
        self._lot = instrument.lot_size
        self._tick_float = float(instrument.tick_size)
        self._lot_float = float(instrument.lot_size)
        self._rng = Random(seed)
        self._fair = FairValue(params.fair, self._rng)
        self._arrivals = HawkesArrivals(
            self._rng, params.arrivals_per_s, params.branching, params.burst_decay_per_s
        )
        self._now_ns = start_ns
        self._next_ns = start_ns + 1
        self._taker_side = Side.BUY
        self._fair_ticks = 0.0
        self._half_spread = params.half_spread_ticks

    @property
    def fair_value(self) -> float:
        """Return what the crowd believes in, in quote currency; tests compare the market with it."""
        return self._fair.value

    def next_time_ns(self) -> int:
        """Return when somebody acts next."""
        return self._next_ns

    def act(self, book: BookView, now_ns: int) -> list[Action]:
        """Let one participant, or all makers at once after a shock, do something."""
        params, rng = self._params, self._rng
        jump = self._fair.advance((now_ns - self._now_ns) * 1e-9)
        if jump:
            self._arrivals.excite(_JUMP_EXCITEMENT)
        self._now_ns = now_ns
        self._next_ns = now_ns + max(1, int(self._arrivals.next_gap_s() * 1e9))
        self._fair_ticks = self._fair.value / self._tick_float
        # Bursts are when makers get run over, so they step back.
        busy = max(0.0, self._arrivals.intensity_ratio - 1.0)
        self._half_spread = params.half_spread_ticks * (1.0 + params.burst_widening * min(busy, 6.0))

        bid, ask = book.best_bid(), book.best_ask()
        actions: list[Action] = []
        if bid is None:
            actions.extend(self._ladder(Side.BUY))
        if ask is None:
            actions.extend(self._ladder(Side.SELL))
        if bid is None or ask is None:
            return actions

        bid_ticks, ask_ticks = int(bid / self._tick), int(ask / self._tick)
        if bid_ticks > self._fair_ticks - 0.5:
            return self._on_mispriced(Side.BUY, book)
        if ask_ticks < self._fair_ticks + 0.5:
            return self._on_mispriced(Side.SELL, book)

        draw = rng.random()
        if draw < params.taker_share:
            return self._noise_taker(bid_ticks, ask_ticks)
        crowding = len(book.own_orders) / params.resting_orders
        if draw < params.taker_share + 0.4 * crowding * (1.0 - params.taker_share):
            return self._pull_one(book)
        return self._quote_one(bid_ticks, ask_ticks)

    # -- makers ----------------------------------------------------------------------------------

    def _quote_one(self, bid_ticks: int, ask_ticks: int) -> list[Action]:
        """Add an order, first of all where the best price is further away than makers like."""
        rng = self._rng
        bid_gap = self._fair_ticks - bid_ticks
        ask_gap = ask_ticks - self._fair_ticks
        near = self._half_spread + 1.0
        widest = max(bid_gap, ask_gap)
        if widest > near and rng.random() < 0.8:
            # The emptier the place, the more makers want it.
            makers = min(4, int(widest / near))
            side = Side.BUY if bid_gap > ask_gap else Side.SELL
            return [self._maker_order(side, 2.0 * maker) for maker in range(makers)]
        side = rng.choice((Side.BUY, Side.SELL))
        distance = 0.0 if rng.random() < 0.3 else rng.expovariate(1.0 / self._params.depth_ticks)
        return [self._maker_order(side, distance)]

    def _maker_order(self, side: Side, distance: float) -> SubmitOrder:
        away = self._half_spread * (0.7 + 0.6 * self._rng.random()) + distance
        fair = self._fair_ticks
        ticks = math.floor(fair - away) if side is Side.BUY else math.ceil(fair + away)
        # Deeper levels are bigger: patience is cheap far from the price.
        median = self._params.qty * (1.0 + distance / self._params.depth_ticks)
        return SubmitOrder(side, OrderType.LIMIT, self._price(ticks), self._qty(median, 0.7), post_only=True)

    def _ladder(self, side: Side) -> list[Action]:
        """Put up a whole side at once: the opening, or after somebody took everything."""
        step = 2.0 * self._params.depth_ticks / _LADDER_LEVELS
        return [self._maker_order(side, level * step) for level in range(_LADDER_LEVELS)]

    def _pull_one(self, book: BookView) -> list[Action]:
        """Cancel an order at random, the far ones rather than the near ones."""
        orders = book.own_orders
        if not orders:
            return []
        picks = [orders[self._rng.randrange(len(orders))] for _ in range(3)]
        furthest = max(picks, key=lambda order: abs(self._ticks(order.price) - self._fair_ticks))
        return [CancelResting(furthest)]

    def _on_mispriced(self, side: Side, book: BookView) -> list[Action]:
        """The best price of `side` is beyond the fair value: makers race takers to it."""
        rng = self._rng
        if rng.random() < 0.45:
            return self._informed_taker(side.opposite)
        is_buy = side is Side.BUY
        actions: list[Action] = []
        for order in book.own_orders:
            if order.side is side:
                ticks = self._ticks(order.price)
                gap = self._fair_ticks - ticks if is_buy else ticks - self._fair_ticks
                if gap < 0.5:
                    actions.append(CancelResting(order))
        actions.append(self._maker_order(side, 0.0))
        return actions

    # -- takers ----------------------------------------------------------------------------------

    def _informed_taker(self, side: Side) -> list[Action]:
        """Take everything on the wrong side of the fair value, up to a limited appetite."""
        fair = self._fair_ticks
        ticks = math.floor(fair) if side is Side.BUY else math.ceil(fair)
        qty = self._qty(self._params.qty * 3.0, 0.8)
        return [SubmitOrder(side, OrderType.LIMIT, self._price(ticks), qty, time_in_force=TimeInForce.IOC)]

    def _noise_taker(self, bid_ticks: int, ask_ticks: int) -> list[Action]:
        """Cross the spread. Big orders are cut up, so the side tends to repeat, leaning with the trend."""
        rng = self._rng
        if rng.random() < 0.25:
            lean = 0.5 + 0.15 * math.tanh(self._fair.drift_bps / max(self._params.fair.trend_bps, 1e-9))
            self._taker_side = Side.BUY if rng.random() < lean else Side.SELL
        slip = int(rng.expovariate(1.0 / 6.0))
        ticks = ask_ticks + slip if self._taker_side is Side.BUY else bid_ticks - slip
        qty = self._qty(self._params.qty * self._params.taker_qty, 1.3)
        return [
            SubmitOrder(
                self._taker_side, OrderType.LIMIT, self._price(ticks), qty, time_in_force=TimeInForce.IOC
            )
        ]

    # -- the grid --------------------------------------------------------------------------------

    def _price(self, ticks: int) -> Decimal:
        return max(ticks, 1) * self._tick

    def _ticks(self, price: Decimal | None) -> int:
        assert price is not None, "a resting order has a price"
        return int(price / self._tick)

    def _qty(self, median: float, sigma: float) -> Decimal:
        lots = round(self._rng.lognormvariate(0.0, sigma) * median / self._lot_float)
        return max(lots, 1) * self._lot


def _preset(base: str, tick: str, lot: str, price: float, qty: float) -> tuple[Instrument, SyntheticParams]:
    instrument = Instrument(
        symbol=f"{base}-USDT",
        kind=InstrumentKind.SPOT,
        base=base,
        quote="USDT",
        tick_size=Decimal(tick),
        lot_size=Decimal(lot),
        min_qty=Decimal(lot),
        min_notional=Decimal(5),
        # The rates of a mid-size account at a large venue.
        maker_fee=Decimal("0.0002"),
        taker_fee=Decimal("0.0005"),
    )
    return instrument, SyntheticParams(fair=FairValueParams(start=price), qty=qty)


PRESETS: dict[str, tuple[Instrument, SyntheticParams]] = {
    "BTC-USDT": _preset("BTC", "0.1", "0.00001", 61_800.0, 0.05),
    "ETH-USDT": _preset("ETH", "0.01", "0.0001", 2_680.0, 1.0),
}
"""Ready markets by symbol: an instrument and the crowd that trades it."""
