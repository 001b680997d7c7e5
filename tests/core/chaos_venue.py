"""A venue whose every move a test decides: when requests arrive, what trades, which reports get through.

It keeps exact books of its own, in fractions, so that nothing of the core's arithmetic is repeated here.
"""

from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction

from msgspec import Struct

from host.api import (
    AccountSnapshot,
    AmendOrder,
    AmendRejected,
    AmendSupport,
    Balance,
    CancelOrder,
    CancelRejected,
    Command,
    ExchangeAdapter,
    FillsSnapshot,
    Liquidity,
    NoParams,
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
    OrderType,
    PlaceOrder,
    QueryFills,
    QueryOpenOrders,
    QueryOrder,
    RejectReason,
    Report,
    Side,
    TimeInForce,
    VenuePosition,
)

D = Decimal
FEE_RATE = D("0.001")
MARKET_PRICE = D(100)
LOT = D("0.1")


class VenueOrder(Struct):
    """One of our orders as the venue has it."""

    place: PlaceOrder
    price: Decimal | None
    qty: Decimal
    venue_id: str
    filled: Decimal = D(0)
    status: OrderStatus = OrderStatus.OPEN

    @property
    def is_open(self) -> bool:
        """Return whether it rests."""
        return not self.status.is_terminal


class ChaosVenue(ExchangeAdapter[NoParams]):
    """Holds requests and reports in transit until it is told what becomes of them.

    `now_ns` is the test's clock. Symbols that end in `-PERP` are linear perpetuals, all others spot.
    """

    def __init__(self, now_ns: Callable[[], int], balances: dict[str, Decimal]) -> None:
        super().__init__(NoParams())
        self.now = now_ns
        self.requests: list[tuple[Command, int]] = []
        self.reports: list[Report] = []
        self.orders: dict[str, VenueOrder] = {}
        self.fills: list[OrderFilled] = []
        self.balances = {currency: Fraction(total) for currency, total in balances.items()}
        self.positions: dict[str, tuple[Fraction, Fraction]] = {}
        """Quantity and cost, by perpetual."""
        self.rejects_next = False

    def send(self, command: Command, deadline_ns: int) -> None:
        """Take a request into transit."""
        self.requests.append((command, deadline_ns))

    def open(self) -> list[VenueOrder]:
        """Return the orders that rest."""
        return [order for order in self.orders.values() if order.is_open]

    # -- what a test decides ---------------------------------------------------------------------

    def arrive(self, *, is_answered: bool = True) -> None:
        """Let the oldest request arrive; without an answer, only what it caused later is told."""
        if not self.requests:
            return
        command, deadline_ns = self.requests.pop(0)
        before = len(self.reports)
        self._handle(command, deadline_ns)
        if not is_answered:
            del self.reports[before : before + 1]

    def trade(self, order: VenueOrder, lots: int) -> None:
        """Execute so many lots of a resting order, at most what is left."""
        qty = min(order.qty - order.filled, lots * LOT)
        place = order.place
        price = order.price if order.price is not None else MARKET_PRICE
        is_perp = place.symbol.endswith("-PERP")
        fee, fee_currency = qty * price * FEE_RATE, "USDT"
        if not is_perp and len(self.fills) % 3 == 0:
            fee, fee_currency = qty * FEE_RATE, "BTC"
        fill = OrderFilled(
            place.client_id,
            place.symbol,
            place.side,
            f"t{len(self.fills)}",
            price,
            qty,
            fee,
            fee_currency,
            Liquidity.MAKER,
            self.now(),
            order.venue_id,
        )
        order.filled += qty
        if order.filled == order.qty:
            order.status = OrderStatus.FILLED
        self.fills.append(fill)
        self._book(fill, is_perp)
        self.reports.append(fill)

    def end(self, order: VenueOrder) -> None:
        """End a resting order by the venue's own terms."""
        order.status = OrderStatus.EXPIRED
        self.reports.append(OrderExpired(order.place.client_id, self.now(), "maintenance", order.filled))

    # -- inside ----------------------------------------------------------------------------------

    def _book(self, fill: OrderFilled, is_perp: bool) -> None:
        qty, price = Fraction(fill.qty), Fraction(fill.price)
        signed = qty if fill.side is Side.BUY else -qty
        self.balances[fill.fee_currency] -= Fraction(fill.fee)
        if not is_perp:
            self.balances["BTC"] += signed
            self.balances["USDT"] -= signed * price
            return
        held, cost = self.positions.get(fill.symbol, (Fraction(0), Fraction(0)))
        after = held + signed
        if held * signed >= 0:
            cost += signed * price
        elif held * after >= 0:
            released = cost * signed / held
            self.balances["USDT"] += -released * -1 - signed * price
            cost += released
        else:
            self.balances["USDT"] += held * price - cost
            cost = after * price
        self.positions[fill.symbol] = (after, cost)

    def _handle(self, command: Command, deadline_ns: int) -> None:
        now_ns = self.now()
        if isinstance(command, PlaceOrder):
            self._place(command, deadline_ns)
        elif isinstance(command, AmendOrder):
            self._amend(command, deadline_ns)
        elif isinstance(command, CancelOrder):
            self._cancel(command, deadline_ns)
        elif isinstance(command, QueryOrder):
            order = self.orders.get(command.client_id)
            found = OrderNotFound(command.client_id, now_ns) if order is None else self._view(order)
            self.reports.append(found)
        elif isinstance(command, QueryOpenOrders):
            views = tuple(self._view(order) for order in self.open())
            self.reports.append(OpenOrdersSnapshot(views, now_ns))
        elif isinstance(command, QueryFills):
            fills = tuple(fill for fill in self.fills if fill.ts_ns >= command.since_ns)
            self.reports.append(FillsSnapshot(fills, now_ns))
        else:
            self.reports.append(self._account())

    def _refusal(self, deadline_ns: int) -> RejectReason | None:
        is_refused, self.rejects_next = self.rejects_next, False
        if self.now() > deadline_ns:
            return RejectReason.EXPIRED_REQUEST
        return RejectReason.UNAVAILABLE if is_refused else None

    def _place(self, place: PlaceOrder, deadline_ns: int) -> None:
        refusal, now_ns = self._refusal(deadline_ns), self.now()
        assert place.client_id not in self.orders, "an order id was used twice"
        if refusal is not None:
            self.reports.append(OrderRejected(place.client_id, refusal, "", now_ns))
            return
        order = VenueOrder(place, place.price, place.qty, f"v{len(self.orders)}")
        self.orders[place.client_id] = order
        self.reports.append(OrderAccepted(place.client_id, order.venue_id, now_ns))
        if place.type is OrderType.MARKET or place.time_in_force is TimeInForce.IOC:
            self.trade(order, 3)
            if order.is_open:
                self.end(order)

    def _amend(self, amend: AmendOrder, deadline_ns: int) -> None:
        refusal, now_ns = self._refusal(deadline_ns), self.now()
        order = self.orders.get(amend.client_id)
        if refusal is None and (order is None or not order.is_open):
            refusal = RejectReason.UNKNOWN_ORDER
        elif refusal is None and order is not None and amend.qty <= order.filled:
            refusal = RejectReason.INVALID_QTY
        if refusal is not None or order is None:
            reason = refusal or RejectReason.OTHER
            self.reports.append(AmendRejected(amend.client_id, reason, "", now_ns))
            return
        order.price, order.qty = amend.price, amend.qty
        self.reports.append(OrderAmended(amend.client_id, amend.price, amend.qty, now_ns))

    def _cancel(self, cancel: CancelOrder, deadline_ns: int) -> None:
        refusal, now_ns = self._refusal(deadline_ns), self.now()
        order = self.orders.get(cancel.client_id)
        if refusal is None and (order is None or not order.is_open):
            refusal = RejectReason.UNKNOWN_ORDER
        if refusal is not None or order is None:
            reason = refusal or RejectReason.OTHER
            self.reports.append(CancelRejected(cancel.client_id, reason, "", now_ns))
            return
        order.status = OrderStatus.CANCELLED
        told = order.filled if len(self.orders) % 2 else None
        self.reports.append(OrderCancelled(cancel.client_id, now_ns, "", told))

    def _view(self, order: VenueOrder) -> OrderSnapshot:
        place, status = order.place, order.status
        if status is OrderStatus.OPEN and order.filled:
            status = OrderStatus.PARTIALLY_FILLED
        return OrderSnapshot(
            place.client_id,
            order.venue_id,
            place.symbol,
            place.side,
            order.price,
            order.qty,
            order.filled,
            status,
            self.now(),
        )

    def _account(self) -> AccountSnapshot:
        balances = tuple(Balance(currency, _decimal(total)) for currency, total in self.balances.items())
        positions = tuple(
            VenuePosition(symbol, _decimal(held), _decimal(cost / held))
            for symbol, (held, cost) in self.positions.items()
            if held
        )
        return AccountSnapshot(balances, positions, self.now())


class ChaosWithoutAmends(ChaosVenue):
    """The same, where an order can only be cancelled and placed anew."""

    amend_support = AmendSupport.NONE


def _decimal(value: Fraction) -> Decimal:
    return (D(value.numerator) / D(value.denominator)).quantize(D("1E-10")).normalize()
