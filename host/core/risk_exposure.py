"""What is at stake in each scope: positions, resting orders, inventory value, order rate.

Everything here follows from the live orders and holdings alone, so that a rebuilt engine equals one
that was fed step by step; the order rate, which looks back one second, is the one exception.
"""

from collections import deque
from decimal import Decimal
from math import fsum

from host.api import BookTop, Instrument, InstrumentKind, Order
from host.core.accounting import EXACT
from host.core.risk_limits import Action, Limits, Refusal, RiskReason

__all__ = ["Exposure", "Inventory", "Market", "OwnOrders", "RateWindow", "Scope", "exposed_qty", "mid_of"]

_SECOND_NS = 1_000_000_000
_ZERO = Decimal(0)
_add, _subtract = EXACT.add, EXACT.subtract


def exposed_qty(order: Order) -> Decimal:
    """Return the most that may still trade: the larger of what rests and what a pending amend asks."""
    qty, pending = order.qty, order.pending_qty
    if pending is not None and pending > qty:
        qty = pending
    return _subtract(qty, order.filled)


def mid_of(top: BookTop | None) -> float | None:
    """Return the mid, or None where one side is missing or not a price."""
    if top is None or not (0.0 < top.bid < _INFINITY and 0.0 < top.ask < _INFINITY):
        return None
    return (top.bid + top.ask) * 0.5


_INFINITY = float("inf")


class Market:
    """The latest top of book of one symbol at one account, shared by its lanes."""

    __slots__ = ("top",)

    def __init__(self) -> None:
        self.top: BookTop | None = None


class RateWindow:
    """Allows at most `limit` events in any window of one second: it keeps the last `limit` times."""

    __slots__ = ("_times", "limit")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._times = deque([-_SECOND_NS] * limit, maxlen=limit)

    def take(self, now_ns: int) -> bool:
        """Note one event and return True, or return False where it would be one too many."""
        times = self._times
        if now_ns - times[0] < _SECOND_NS:
            return False
        times.append(now_ns)
        return True

    def take_two(self, now_ns: int) -> bool:
        """Note two events and return True, or note none and return False where there is no room for both."""
        times = self._times
        if self.limit < 2 or now_ns - times[1] < _SECOND_NS:
            return False
        times.append(now_ns)
        times.append(now_ns)
        return True

    def give_back(self) -> None:
        """Forget the event noted last: it was not sent after all."""
        self._times.pop()
        self._times.appendleft(-_SECOND_NS)

    def with_limit(self, limit: int) -> "RateWindow":
        """Return a window that allows another number, and counts what this one counted."""
        other = RateWindow(limit)
        other._times.extend(self._times)
        return other


class Inventory:
    """The value of a scope's exposures in one quote currency, gross of sign."""

    __slots__ = ("exposures", "total", "unpriced")

    def __init__(self) -> None:
        self.exposures: list[Exposure] = []
        self.total = 0.0
        self.unpriced: set[str] = set()
        """Symbols with exposure but no price yet: while there are any, `total` is too small."""

    def revalue(self) -> None:
        """Value every exposure at its latest mid; the sum does not depend on the order of events."""
        for exposure in self.exposures:
            exposure.value()
        self.total = fsum(exposure.notional for exposure in self.exposures)


class Exposure:
    """One scope's position in one symbol if all its resting buys, or all its sells, were to fill.

    `longest` = position + open buys, `shortest` = position − open sells; both exact.
    """

    __slots__ = (
        "_rate",
        "inventory",
        "long_estimate",
        "longest",
        "market",
        "notional",
        "short_estimate",
        "shortest",
        "symbol",
        "worst",
    )

    def __init__(self, instrument: Instrument, market: Market, inventory: Inventory | None) -> None:
        self.symbol = instrument.symbol
        self.market = market
        self.longest = _ZERO
        self.shortest = _ZERO
        self.inventory = inventory
        self.long_estimate = 0.0
        self.short_estimate = 0.0
        self.worst = 0.0
        """The larger of |longest| and |shortest|: the floats are kept only where inventory is limited."""
        self.notional = 0.0
        # Value of one unit in quote currency: size × mid, or the size alone for inverse contracts.
        size = float(instrument.contract_size)
        self._rate = (size, 0.0) if instrument.kind is InstrumentKind.INVERSE else (0.0, size)
        if inventory is not None:
            inventory.exposures.append(self)

    def move(self, buys: Decimal, sells: Decimal) -> None:
        """Add to what buys, and to what sells, may still do; a fill of the position is both."""
        inventory = self.inventory
        if buys:
            self.longest = _add(self.longest, buys)
            if inventory is not None:
                self.long_estimate = float(self.longest)
        if sells:
            self.shortest = _add(self.shortest, sells)
            if inventory is not None:
                self.short_estimate = float(self.shortest)
        if inventory is not None:
            before = self.notional
            self.worst = max(abs(self.long_estimate), abs(self.short_estimate))
            self.value()
            inventory.total += self.notional - before

    def value(self) -> None:
        """Set `notional` from the latest mid; without one it keeps what it was."""
        inventory = self.inventory
        if inventory is None:
            return
        mid = mid_of(self.market.top)
        if mid is not None or not self.worst:
            self.notional = self.worst and self.worst * self.unit_value(mid or 0.0)
            inventory.unpriced.discard(self.symbol)
        elif not self.notional:
            inventory.unpriced.add(self.symbol)

    def unit_value(self, mid: float) -> float:
        """Return the value of one unit at `mid`, in quote currency."""
        fixed, per_mid = self._rate
        return fixed + per_mid * mid


class OwnOrders:
    """Our resting orders on one account and symbol, for the self-trade check.

    It holds the live orders and looks at their prices only when it is asked, for an order that may
    take: so a quote that moves costs nothing here.
    """

    __slots__ = ("buys", "sells")

    def __init__(self) -> None:
        self.buys: dict[str, Order] = {}
        self.sells: dict[str, Order] = {}

    @property
    def best_bid(self) -> Decimal | None:
        """Return the highest price at which a buy of ours may rest."""
        return max((price for order in self.buys.values() for price in _prices(order)), default=None)

    @property
    def best_ask(self) -> Decimal | None:
        """Return the lowest price at which a sell of ours may rest."""
        return min((price for order in self.sells.values() for price in _prices(order)), default=None)


def _prices(order: Order) -> list[Decimal]:
    """Return where an order may rest: until an amend is answered that is two prices."""
    return [price for price in (order.price, order.pending_price) if price is not None]


class Scope:
    """One scope with limits: its counters are shared by all lanes inside it."""

    __slots__ = ("exposures", "inventories", "key", "limits", "loss_fault", "open_orders", "rate", "title")

    def __init__(self, key: str, limits: Limits) -> None:
        kind, _, name = key.partition(":")
        self.key = key
        self.title = f"{kind} {name}" if name else "the node"
        self.rate: RateWindow | None = None
        self.loss_fault: tuple[RiskReason, str] | None = None
        """Why orders that add risk are refused since the last look at the day's profit."""
        self.take_limits(limits)

    def take_limits(self, limits: Limits) -> None:
        """Hold to these limits and count anew, all but the orders of the last second."""
        self.limits = limits
        self.open_orders = 0
        self.exposures: dict[str, Exposure] = {}
        self.inventories: dict[str, Inventory] = {}
        per_second = limits.max_orders_per_second
        if per_second is None:
            self.rate = None
        elif self.rate is None:
            self.rate = RateWindow(per_second)
        elif self.rate.limit != per_second:
            self.rate = self.rate.with_limit(per_second)
        if limits.max_daily_loss is None:
            self.loss_fault = None

    @property
    def counts_inventory(self) -> bool:
        """Return whether a limit needs the value of the scope's exposures."""
        return self.limits.max_inventory_notional is not None or self.limits.max_concentration is not None

    def exposure(self, instrument: Instrument, market: Market) -> Exposure:
        """Return the exposure to one symbol, made on first use."""
        exposure = self.exposures.get(instrument.symbol)
        if exposure is None:
            inventory = None
            if self.counts_inventory:
                inventory = self.inventories.setdefault(instrument.quote, Inventory())
            exposure = self.exposures[instrument.symbol] = Exposure(instrument, market, inventory)
        return exposure

    def refuse(self, reason: RiskReason, detail: str, instance: str = "", symbol: str = "") -> Refusal:
        """Return the refusal of a breached limit of this scope, with its configured action."""
        action: Action = self.limits.action(reason)
        return Refusal(reason, self.key, detail, action, instance, symbol)
