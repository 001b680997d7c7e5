"""A small venue in this process: prices follow a random walk, orders fill when the price meets them.

It shows what every adapter owes the host: instruments from `connect`, market events and reports
through `ctx`, and an answer (or `RequestUnanswered`) to every command. Replace the inside by your
venue's protocol; an adapter that speaks to a real network derives from `ExchangeAdapter` instead
and works in tasks started with `ctx.spawn`.

Check this file with `tandem plugin check FILE`, then name it in the configuration:

    [[account]]
    name = "toy"
    exchange = "example"
"""

import heapq
import itertools
import random
from collections.abc import Callable, Sequence
from decimal import Decimal

from host.api import (
    AccountSnapshot,
    AmendOrder,
    AmendRejected,
    AmendSupport,
    Balance,
    BookTop,
    CancelOrder,
    CancelRejected,
    Command,
    ExchangeError,
    FillsSnapshot,
    Instrument,
    InstrumentKind,
    Liquidity,
    OpenOrdersSnapshot,
    OrderAccepted,
    OrderCancelled,
    OrderExpired,
    OrderFilled,
    OrderNotFound,
    OrderRejected,
    OrderSnapshot,
    OrderStatus,
    Params,
    PlaceOrder,
    Positive,
    PositiveInt,
    QueryAccount,
    QueryFills,
    QueryOpenOrders,
    QueryOrder,
    RejectReason,
    Side,
    SteppedAdapter,
    TimeInForce,
)


class ExampleParams(Params, frozen=True):
    """What an operator can set for an account at this venue."""

    seed: int = 1
    start_price: Positive = 60_000.0
    tick_every_ms: PositiveInt = 100
    latency_ms: PositiveInt = 5
    """From `send` to the venue's answer."""


class Example(SteppedAdapter[ExampleParams]):
    """One symbol, BTC-USDT; whole fills only; no fees."""

    amend_support = AmendSupport.NONE  # the host then cancels and places again

    def __init__(self, params: ExampleParams) -> None:
        super().__init__(params)
        self._random = random.Random(params.seed)
        self._price = params.start_price
        self._orders: dict[str, PlaceOrder] = {}
        self._status: dict[str, OrderStatus] = {}
        self._fills: list[OrderFilled] = []
        self._balances = {"BTC": Decimal(10), "USDT": Decimal(1_000_000)}
        self._ids = itertools.count(1)
        # What is still to happen: (time, order of arrival, action), the earliest first.
        self._agenda: list[tuple[int, int, Callable[[int], None]]] = []

    async def connect(self) -> Sequence[Instrument]:
        """Return what the venue trades."""
        return [
            Instrument(
                symbol="BTC-USDT",
                kind=InstrumentKind.SPOT,
                base="BTC",
                quote="USDT",
                tick_size=Decimal("0.01"),
                lot_size=Decimal("0.00001"),
            )
        ]

    async def subscribe(self, symbols: Sequence[str]) -> None:
        """Start the market."""
        if unknown := sorted(set(symbols) - {"BTC-USDT"}):
            raise ExchangeError(f"this venue trades BTC-USDT, was asked for {', '.join(unknown)}")
        self._at(self.ctx.now_ns(), self._tick)

    def send(self, command: Command, deadline_ns: int) -> None:
        """Let the command arrive after the latency, unless its validity window is over by then."""
        arrival_ns = self.ctx.now_ns() + self.params.latency_ms * 1_000_000
        self._at(arrival_ns, lambda now_ns: self._handle(command, deadline_ns, now_ns))

    def resync(self, symbol: str) -> None:
        """Do nothing: this venue publishes no depth, so there is no gap to close."""

    async def close(self) -> None:
        """Stop handing over events."""
        self._agenda.clear()

    def next_time_ns(self) -> int | None:
        """Return when the next event is due."""
        return self._agenda[0][0] if self._agenda else None

    def step(self, now_ns: int) -> None:
        """Hand over everything due, in order."""
        while self._agenda and self._agenda[0][0] <= now_ns:
            due_ns, _, action = heapq.heappop(self._agenda)
            action(due_ns)

    # -- the venue's side ------------------------------------------------------------------------

    def _at(self, when_ns: int, action: Callable[[int], None]) -> None:
        heapq.heappush(self._agenda, (when_ns, next(self._ids), action))

    def _tick(self, now_ns: int) -> None:
        self._price *= 1.0 + self._random.gauss(0.0, 1e-4)
        self._at(now_ns + self.params.tick_every_ms * 1_000_000, self._tick)
        bid, ask = float(self._bid), float(self._ask)
        self.ctx.market(BookTop("BTC-USDT", bid, 1.0, ask, 1.0, ts_event=now_ns, ts_recv=now_ns))
        for order in self._open():
            if self._crosses(order):
                self._fill(order, Liquidity.MAKER, now_ns)

    @property
    def _bid(self) -> Decimal:
        return Decimal(f"{self._price * 0.9999:.2f}")

    @property
    def _ask(self) -> Decimal:
        return Decimal(f"{self._price * 1.0001:.2f}")

    def _crosses(self, order: PlaceOrder) -> bool:
        if order.price is None:
            return True
        return order.price >= self._ask if order.side is Side.BUY else order.price <= self._bid

    def _open(self) -> list[PlaceOrder]:
        return [order for order in self._orders.values() if self._status[order.client_id] is OrderStatus.OPEN]

    def _handle(self, command: Command, deadline_ns: int, now_ns: int) -> None:
        report = self.ctx.report
        match command:
            case PlaceOrder():
                self._place(command, deadline_ns, now_ns)
            case AmendOrder(client_id=client_id):
                text = "this venue cannot amend"
                report(AmendRejected(client_id, RejectReason.UNAVAILABLE, text, now_ns))
            case CancelOrder(client_id=client_id):
                if self._status.get(client_id) is OrderStatus.OPEN:
                    self._status[client_id] = OrderStatus.CANCELLED
                    report(OrderCancelled(client_id, now_ns, filled=Decimal(0)))
                else:
                    report(CancelRejected(client_id, RejectReason.UNKNOWN_ORDER, "not open", now_ns))
            case QueryOrder(client_id=client_id):
                known = client_id in self._orders
                report(self._snapshot(client_id, now_ns) if known else OrderNotFound(client_id, now_ns))
            case QueryOpenOrders():
                orders = tuple(self._snapshot(order.client_id, now_ns) for order in self._open())
                report(OpenOrdersSnapshot(orders, now_ns))
            case QueryFills(since_ns=since_ns):
                fills = tuple(fill for fill in self._fills if fill.ts_ns >= since_ns)
                report(FillsSnapshot(fills, now_ns))
            case QueryAccount():
                balances = tuple(Balance(currency, total) for currency, total in self._balances.items())
                report(AccountSnapshot(balances, (), now_ns))

    def _place(self, order: PlaceOrder, deadline_ns: int, now_ns: int) -> None:
        refusal = self._refusal(order, deadline_ns, now_ns)
        if refusal is not None:
            self.ctx.report(OrderRejected(order.client_id, refusal, "", now_ns))
            return
        self._orders[order.client_id] = order
        self._status[order.client_id] = OrderStatus.OPEN
        self.ctx.report(OrderAccepted(order.client_id, order.client_id, now_ns))
        if self._crosses(order):
            self._fill(order, Liquidity.TAKER, now_ns)
        elif order.time_in_force is not TimeInForce.GTC:
            self._status[order.client_id] = OrderStatus.EXPIRED
            self.ctx.report(OrderExpired(order.client_id, now_ns, "nothing to match", Decimal(0)))

    def _refusal(self, order: PlaceOrder, deadline_ns: int, now_ns: int) -> RejectReason | None:
        price = order.price or self._ask
        if now_ns > deadline_ns:
            return RejectReason.EXPIRED_REQUEST
        if order.symbol != "BTC-USDT":
            return RejectReason.UNKNOWN_SYMBOL
        if order.client_id in self._orders:
            return RejectReason.DUPLICATE_ID
        if order.post_only and self._crosses(order):
            return RejectReason.WOULD_TAKE
        if order.side is Side.BUY and self._balances["USDT"] < price * order.qty:
            return RejectReason.INSUFFICIENT_FUNDS
        if order.side is Side.SELL and self._balances["BTC"] < order.qty:
            return RejectReason.INSUFFICIENT_FUNDS
        return None

    def _fill(self, order: PlaceOrder, liquidity: Liquidity, now_ns: int) -> None:
        touch = self._ask if order.side is Side.BUY else self._bid
        price = order.price if order.price is not None and liquidity is Liquidity.MAKER else touch
        sign = 1 if order.side is Side.BUY else -1
        self._balances["BTC"] += sign * order.qty
        self._balances["USDT"] -= sign * order.qty * price
        self._status[order.client_id] = OrderStatus.FILLED
        fill = OrderFilled(
            client_id=order.client_id,
            symbol=order.symbol,
            side=order.side,
            trade_id=str(next(self._ids)),
            price=price,
            qty=order.qty,
            fee=Decimal(0),
            fee_currency="USDT",
            liquidity=liquidity,
            ts_ns=now_ns,
        )
        self._fills.append(fill)
        self.ctx.report(fill)

    def _snapshot(self, client_id: str, now_ns: int) -> OrderSnapshot:
        order, status = self._orders[client_id], self._status[client_id]
        return OrderSnapshot(
            client_id=client_id,
            venue_id=client_id,
            symbol=order.symbol,
            side=order.side,
            price=order.price,
            qty=order.qty,
            filled=order.qty if status is OrderStatus.FILLED else Decimal(0),
            status=status,
            ts_ns=now_ns,
        )
