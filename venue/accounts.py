"""What an account owns at the venue: balances, what its orders lock, positions and margin.

All money is exact. Where a division cannot be (inverse contracts, the cost of part of a position)
its result is rounded once, to `MONEY_QUANTUM`, and the rest stays on the books, so that nothing is
ever lost or made: when a position is flat again its realised profit is exactly the sum of the cash
that went through it.

Margin is cross and one-way: a symbol needs the larger of what its position would be worth if all
bids, or all asks, were filled, divided by the leverage. There is no liquidation, and unrealised
profit is not counted as funds.
"""

from collections.abc import Mapping
from decimal import Decimal
from typing import Final

from msgspec import Struct

from host.api import AccountSnapshot, Balance, Instrument, InstrumentKind, Side, VenuePosition
from venue.market import VenueOrder

__all__ = ["MONEY_QUANTUM", "Account"]

MONEY_QUANTUM: Final = Decimal("1e-12")
"""The smallest amount of any currency: finer than any venue's, and leaves 16 digits for the whole part."""

_ZERO = Decimal(0)
_ONE = Decimal(1)


class _Holding(Struct):
    """A perpetual position and the open orders of its symbol, all values in settlement currency."""

    instrument: Instrument
    qty: Decimal = _ZERO
    """Signed: positive is long."""
    cost: Decimal = _ZERO
    """What the open quantity was worth when it was opened; never negative."""
    bids: Decimal = _ZERO
    asks: Decimal = _ZERO

    def margin(self, leverage: Decimal, bids: Decimal, asks: Decimal) -> Decimal:
        """Return the initial margin with these open order values."""
        long, short = (self.cost, _ZERO) if self.qty >= 0 else (_ZERO, self.cost)
        exposure = max(long + max(bids - short, _ZERO), short + max(asks - long, _ZERO))
        return (exposure / leverage).quantize(MONEY_QUANTUM)

    def entry_price(self) -> Decimal:
        """Return the average price of the open quantity, zero when flat."""
        if not self.qty:
            return _ZERO
        size = abs(self.qty) * self.instrument.contract_size
        return size / self.cost if self.instrument.kind is InstrumentKind.INVERSE else self.cost / size


class _Lock(Struct, frozen=True):
    """What one open order ties up: spot money, or a share of its symbol's margin."""

    amount: Decimal
    currency: str


class Account:
    """One account's money. `leverage` holds for the perpetuals that have none of their own.

    Fees are paid in the settlement currency of a perpetual and the quote currency of a spot pair;
    with `is_fee_in_base`, spot buys pay theirs in the base currency they receive.
    """

    def __init__(
        self,
        name: str,
        balances: Mapping[str, Decimal],
        *,
        leverage: Decimal = Decimal(10),
        is_fee_in_base: bool = False,
    ) -> None:
        self.name = name
        self.leverage = leverage
        self.is_fee_in_base = is_fee_in_base
        self.balances: dict[str, Decimal] = dict(balances)
        self._locked: dict[str, Decimal] = {}
        self._locks: dict[int, _Lock] = {}
        self._holdings: dict[str, _Holding] = {}
        self._leverages: dict[str, Decimal] = {}

    # -- what is there ---------------------------------------------------------------------------

    def position(self, symbol: str) -> Decimal:
        """Return the signed perpetual position in `symbol`."""
        holding = self._holdings.get(symbol)
        return _ZERO if holding is None else holding.qty

    def entry_price(self, symbol: str) -> Decimal:
        """Return the average price of the position in `symbol`, zero when flat."""
        holding = self._holdings.get(symbol)
        return _ZERO if holding is None else holding.entry_price()

    def leverage_of(self, symbol: str) -> Decimal:
        """Return the leverage of a perpetual."""
        return self._leverages.get(symbol, self.leverage)

    def set_leverage(self, symbol: str, leverage: Decimal) -> None:
        """Give a perpetual a leverage of its own. The margin of what is open changes with it."""
        self._leverages[symbol] = leverage

    def margins(self, symbol: str) -> tuple[Decimal, Decimal]:
        """Return what the position in `symbol` ties up, and what its open orders do beyond that."""
        holding = self._holdings.get(symbol)
        if holding is None:
            return _ZERO, _ZERO
        leverage = self.leverage_of(symbol)
        position = holding.margin(leverage, _ZERO, _ZERO)
        return position, holding.margin(leverage, holding.bids, holding.asks) - position

    def order_values(self, symbol: str) -> tuple[Decimal, Decimal]:
        """Return what the open bids and asks of a perpetual are worth."""
        holding = self._holdings.get(symbol)
        return (_ZERO, _ZERO) if holding is None else (holding.bids, holding.asks)

    def pay(self, currency: str, amount: Decimal) -> None:
        """Add an amount (negative: take it away) that no trade caused: funding."""
        self._add(currency, amount)

    def locked(self, currency: str) -> Decimal:
        """Return what open orders and positions tie up in `currency`."""
        margin = sum(
            (
                holding.margin(self.leverage_of(holding.instrument.symbol), holding.bids, holding.asks)
                for holding in self._holdings.values()
                if holding.instrument.settle == currency
            ),
            _ZERO,
        )
        return self._locked.get(currency, _ZERO) + margin

    def free(self, currency: str) -> Decimal:
        """Return what new orders may use of `currency`."""
        return self.balances.get(currency, _ZERO) - self.locked(currency)

    def snapshot(self, now_ns: int) -> AccountSnapshot:
        """Return every balance and every open position."""
        return AccountSnapshot(
            tuple(
                Balance(currency, total, self.locked(currency))
                for currency, total in sorted(self.balances.items())
            ),
            tuple(
                VenuePosition(symbol, holding.qty, holding.entry_price())
                for symbol, holding in sorted(self._holdings.items())
                if holding.qty
            ),
            now_ns,
        )

    # -- what orders tie up ----------------------------------------------------------------------

    def shortfall(self, instrument: Instrument, order: VenueOrder, price: Decimal, qty: Decimal) -> Decimal:
        """Return how much is missing to have `order` open for `qty` more at `price`; zero if affordable.

        What the order already locks counts as available. An order that lowers the margin is always
        affordable, so that a position can be closed whatever the balance.
        """
        wanted = self._lock_for(instrument, order.side, price, qty)
        held = self._locks.get(order.order_id)
        held_amount = held.amount if held is not None else _ZERO
        if instrument.kind is InstrumentKind.SPOT:
            needed = wanted.amount - held_amount
        else:
            holding = self._holding(instrument)
            change = wanted.amount - held_amount
            bids = holding.bids + (change if order.side is Side.BUY else _ZERO)
            asks = holding.asks + (change if order.side is Side.SELL else _ZERO)
            leverage = self.leverage_of(instrument.symbol)
            before = holding.margin(leverage, holding.bids, holding.asks)
            needed = holding.margin(leverage, bids, asks) - before
        if needed <= 0:
            return _ZERO
        return max(needed - self.free(wanted.currency), _ZERO)

    def lock(self, instrument: Instrument, order: VenueOrder) -> None:
        """Make what `order` ties up match its price and remaining quantity; nothing once it is done."""
        old = self._locks.pop(order.order_id, None)
        new = None
        if order.is_open:
            assert order.price is not None, "an order has a price, market orders a protective one"
            new = self._lock_for(instrument, order.side, order.price, order.remaining)
            self._locks[order.order_id] = new
        change = (new.amount if new else _ZERO) - (old.amount if old else _ZERO)
        if not change:
            return
        if instrument.kind is InstrumentKind.SPOT:
            currency = instrument.quote if order.side is Side.BUY else instrument.base
            self._locked[currency] = self._locked.get(currency, _ZERO) + change
        elif order.side is Side.BUY:
            self._holding(instrument).bids += change
        else:
            self._holding(instrument).asks += change

    # -- what fills do ---------------------------------------------------------------------------

    def fee_for(
        self, instrument: Instrument, side: Side, price: Decimal, qty: Decimal, rate: Decimal
    ) -> tuple[Decimal, str]:
        """Return the fee of a fill at `rate` and its currency; negative for a rebate."""
        if instrument.kind is InstrumentKind.SPOT and side is Side.BUY and self.is_fee_in_base:
            return (qty * rate).quantize(MONEY_QUANTUM), instrument.base
        fee = (_value(instrument, price, qty) * rate).quantize(MONEY_QUANTUM)
        return fee, instrument.settle

    def apply_fill(
        self,
        instrument: Instrument,
        side: Side,
        price: Decimal,
        qty: Decimal,
        fee: Decimal,
        fee_currency: str,
    ) -> Decimal:
        """Book one fill: move the money of a spot trade, or the position of a perpetual.

        Return the profit that it realised, zero on spot.
        """
        realised = _ZERO
        if instrument.kind is InstrumentKind.SPOT:
            direction = 1 if side is Side.BUY else -1
            self._add(instrument.base, direction * qty)
            self._add(instrument.quote, -direction * price * qty)
        else:
            realised = self._trade(self._holding(instrument), side, price, qty)
            self._add(instrument.settle, realised)
        self._add(fee_currency, -fee)
        return realised

    def _trade(self, holding: _Holding, side: Side, price: Decimal, qty: Decimal) -> Decimal:
        """Change a position and return the realised profit."""
        instrument = holding.instrument
        signed = qty if side is Side.BUY else -qty
        value = _value(instrument, price, qty)
        if holding.qty * signed >= 0:
            holding.qty += signed
            holding.cost += value
            return _ZERO
        open_qty = abs(holding.qty)
        closed = min(open_qty, qty)
        closed_cost, closed_value = holding.cost, value
        if closed < open_qty:
            closed_cost = (holding.cost * closed / open_qty).quantize(MONEY_QUANTUM)
        if closed < qty:
            closed_value = (value * closed / qty).quantize(MONEY_QUANTUM)
        # A long gains as the linear value rises. An inverse value is the base currency that the
        # contracts are worth, which falls as the price rises: hence the second sign.
        direction = 1 if holding.qty > 0 else -1
        sign = -1 if instrument.kind is InstrumentKind.INVERSE else 1
        holding.qty += signed
        holding.cost += value - closed_value - closed_cost
        return direction * sign * (closed_value - closed_cost)

    def _add(self, currency: str, amount: Decimal) -> None:
        self.balances[currency] = self.balances.get(currency, _ZERO) + amount

    def _holding(self, instrument: Instrument) -> _Holding:
        holding = self._holdings.get(instrument.symbol)
        if holding is None:
            holding = self._holdings[instrument.symbol] = _Holding(instrument)
        return holding

    def _lock_for(self, instrument: Instrument, side: Side, price: Decimal, qty: Decimal) -> _Lock:
        if instrument.kind is not InstrumentKind.SPOT:
            return _Lock(_value(instrument, price, qty), instrument.settle)
        if side is Side.SELL:
            return _Lock(qty, instrument.base)
        rate = _ZERO if self.is_fee_in_base else max(instrument.maker_fee, instrument.taker_fee, _ZERO)
        return _Lock(price * qty * (_ONE + rate), instrument.quote)


def _value(instrument: Instrument, price: Decimal, qty: Decimal) -> Decimal:
    """Return what `qty` is worth at `price`, in settlement currency."""
    if instrument.kind is InstrumentKind.INVERSE:
        return (qty * instrument.contract_size / price).quantize(MONEY_QUANTUM)
    return price * qty * instrument.contract_size
