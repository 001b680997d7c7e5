"""The exchange: several accounts and symbols behind one door, in virtual time.

Commands go in with the time they were sent and arrive after a delay; public market data and the
accounts' reports come out of `step` in time order. Nothing happens outside `submit` and `step`,
and equal calls give equal results.
"""

import heapq
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Final

from host.api import (
    AmendOrder,
    AmendRejected,
    CancelOrder,
    CancelRejected,
    Command,
    Depth,
    FillsSnapshot,
    Instrument,
    InstrumentKind,
    Liquidity,
    MarketEvent,
    OpenOrdersSnapshot,
    OrderAccepted,
    OrderAmended,
    OrderCancelled,
    OrderExpired,
    OrderFilled,
    OrderNotFound,
    OrderRejected,
    OrderStatus,
    OrderType,
    PlaceOrder,
    QueryAccount,
    QueryFills,
    QueryOpenOrders,
    QueryOrder,
    RejectReason,
    Report,
    Side,
    TimeInForce,
)
from venue.accounts import Account
from venue.delivery import NO_FAULTS, Delivery, Faults, Latency
from venue.ledger import AccountOpened, Ledger, OrderEnded, RequestSeen, Traded
from venue.market import Ended, Execution, Market, MarketOutput, VenueOrder
from venue.records import Records
from venue.validation import Refusal, check_order, mid_price

__all__ = ["Exchange", "Output"]

Output = tuple[str | None, MarketEvent | Report]
"""Who it is for (None: everybody) and what."""

MARKET_ORDER_PROTECTION: Final = Decimal("0.05")
"""A market order trades up to this fraction beyond the best price; the rest expires."""

_ZERO = Decimal(0)
_ONE = Decimal(1)


class _Request:
    """A command on its way."""

    __slots__ = ("account", "command", "deadline_ns", "sent_ns")

    def __init__(self, account: str, command: Command, sent_ns: int, deadline_ns: int) -> None:
        self.account = account
        self.command = command
        self.sent_ns = sent_ns
        self.deadline_ns = deadline_ns


class _Client:
    """Everything the exchange keeps per account."""

    __slots__ = ("account", "is_connected", "records")

    def __init__(self, account: Account) -> None:
        self.account = account
        self.records = Records()
        self.is_connected = True


class Exchange:
    """A venue with accounts and markets. Open accounts and add markets before the first command."""

    def __init__(
        self,
        *,
        seed: int = 0,
        latency: Latency | None = None,
        faults: Faults = NO_FAULTS,
        ledger: Ledger | None = None,
    ) -> None:
        self.delivery = Delivery(seed, latency or Latency(), faults)
        self._ledger = ledger
        self._instruments: dict[str, Instrument] = {}
        self._markets: dict[str, Market] = {}
        self._clients: dict[str, _Client] = {}
        self._requests: list[tuple[int, int, _Request]] = []
        self._request_number = 0
        self._order_id = 0
        self._trade_id = 0
        self._now_ns = 0
        self._out: list[Output] = []

    # -- setting up ------------------------------------------------------------------------------

    def list_instrument(self, instrument: Instrument) -> None:
        """Make a symbol known; its orders are refused as unavailable until it has a market."""
        self._instruments[instrument.symbol] = instrument

    def add_market(self, market: Market) -> None:
        """Open trading in one symbol."""
        self._instruments[market.instrument.symbol] = market.instrument
        self._markets[market.instrument.symbol] = market

    def open_account(
        self,
        name: str,
        balances: Mapping[str, Decimal],
        *,
        leverage: Decimal = Decimal(10),
        is_fee_in_base: bool = False,
    ) -> None:
        """Create an account; no effect where it exists, as after a restart from a log."""
        if name in self._clients:
            return
        self._clients[name] = _Client(
            Account(name, balances, leverage=leverage, is_fee_in_base=is_fee_in_base)
        )
        if self._ledger is not None:
            self._ledger.write(AccountOpened(name, dict(balances)))

    @property
    def instruments(self) -> Sequence[Instrument]:
        """Return every listed instrument."""
        return tuple(self._instruments.values())

    def has_market(self, symbol: str) -> bool:
        """Return whether `symbol` trades."""
        return symbol in self._markets

    def account(self, name: str) -> Account:
        """Return the money side of an account, to read."""
        return self._clients[name].account

    # -- the wire --------------------------------------------------------------------------------

    def submit(self, account: str, command: Command, sent_ns: int, deadline_ns: int) -> None:
        """Send a command at `sent_ns`; it arrives after the latency, in order per account.

        An order, amend or cancel that arrives after `deadline_ns` is refused as
        `EXPIRED_REQUEST`. Raises KeyError for an account that was never opened.
        """
        if account not in self._clients:
            raise KeyError(f"account {account!r} is not open at this venue, open it first")
        arrival_ns = self.delivery.arrival_ns(account, max(sent_ns, self._now_ns))
        self._request_number += 1
        request = _Request(account, command, sent_ns, deadline_ns)
        heapq.heappush(self._requests, (arrival_ns, self._request_number, request))

    def disconnect(self, account: str) -> None:
        """Break the account's connection: reports on their way and to come are lost, orders stay."""
        self._clients[account].is_connected = False
        self.delivery.lose(account)

    def connect(self, account: str) -> None:
        """Deliver reports again; what was lost meanwhile can be queried."""
        self._clients[account].is_connected = True

    def snapshot(self, symbol: str) -> Depth:
        """Return the whole book of `symbol` now; its `seq` continues into the public changes."""
        return self._markets[symbol].snapshot(self._now_ns)

    def next_time_ns(self) -> int | None:
        """Return when something next happens, None when nothing ever will without a command."""
        due = self.delivery.next_time_ns()
        if self._requests and (due is None or self._requests[0][0] < due):
            due = self._requests[0][0]
        for market in self._markets.values():
            market_ns = market.next_time_ns()
            if market_ns is not None and (due is None or market_ns < due):
                due = market_ns
        return due

    def step(self, now_ns: int) -> list[Output]:
        """Do everything due at or before `now_ns` and return what came out, in time order."""
        out = self._out = []
        while (due_ns := self.next_time_ns()) is not None and due_ns <= now_ns:
            self._now_ns = max(self._now_ns, due_ns)
            self._run_instant(self._now_ns)
        if self._ledger is not None:
            self._ledger.flush()
        return out

    def _run_instant(self, now_ns: int) -> None:
        # The market moves before requests of the same instant arrive: a quote is never faster
        # than the news that it answers.
        for market in self._markets.values():
            market_ns = market.next_time_ns()
            if market_ns is not None and market_ns <= now_ns:
                self._absorb(market.instrument, market.step(now_ns))
        while self._requests and self._requests[0][0] <= now_ns:
            _, _, request = heapq.heappop(self._requests)
            self._handle(request, now_ns)
        for account, report in self.delivery.due(now_ns):
            if self._clients[account].is_connected:
                self._out.append((account, report))

    # -- requests --------------------------------------------------------------------------------

    def _handle(self, request: _Request, now_ns: int) -> None:
        client = self._clients[request.account]
        match request.command:
            case PlaceOrder() as place:
                self._place(client, request, place, now_ns)
            case AmendOrder() as amend:
                self._amend(client, request, amend, now_ns)
            case CancelOrder() as cancel:
                self._cancel(client, request, cancel, now_ns)
            case QueryOrder(client_id=client_id):
                record = client.records.find(client_id)
                found = OrderNotFound(client_id, now_ns) if record is None else record.snapshot(now_ns)
                self._answer_query(request, client_id, found, now_ns)
            case QueryOpenOrders():
                orders = tuple(record.snapshot(now_ns) for record in client.records.open())
                self._answer_query(request, "", OpenOrdersSnapshot(orders, now_ns), now_ns)
            case QueryFills(since_ns=since_ns):
                fills = client.records.fills_since(since_ns)
                self._answer_query(request, "", FillsSnapshot(fills, now_ns), now_ns)
            case QueryAccount():
                self._answer_query(request, "", client.account.snapshot(now_ns), now_ns)

    def _place(self, client: _Client, request: _Request, place: PlaceOrder, now_ns: int) -> None:
        refusal = self._refuse_place(client, request, place, now_ns)
        if not client.records.is_used(place.client_id):
            client.records.use(place.client_id)
        if refusal is not None:
            self._reject_place(request, place, refusal, now_ns)
            return
        market = self._markets[place.symbol]
        order = self._new_order(client, place, now_ns)
        outputs = market.submit(order, now_ns)
        refused = _refused_on_entry(order, outputs)
        if refused is not None:
            text = f"{place.symbol}: the book did not allow it ({refused.reason})"
            self._reject_place(request, place, (refused.reason, text), now_ns)
            self._absorb(market.instrument, [output for output in outputs if output is not refused])
            return
        self._log_request(request, place.client_id, "accepted", now_ns, order_id=order.order_id)
        client.records.add(order)
        accepted = OrderAccepted(place.client_id, str(order.order_id), now_ns)
        self._post(request.account, accepted, now_ns, is_answer=True)
        self._absorb(market.instrument, outputs, order)

    def _refuse_place(
        self, client: _Client, request: _Request, place: PlaceOrder, now_ns: int
    ) -> Refusal | None:
        refusal = self._refuse_any(request, place.symbol, now_ns)
        if refusal is not None:
            return refusal
        if client.records.is_used(place.client_id):
            return RejectReason.DUPLICATE_ID, f"client id {place.client_id} was used before"
        if self.delivery.is_refused():
            return RejectReason.UNAVAILABLE, "the venue is busy, try again"
        is_market = place.type is OrderType.MARKET
        if (place.price is None) is not is_market:
            return RejectReason.INVALID_PRICE, f"a {place.type} order with price {place.price}"
        if place.post_only and (is_market or place.time_in_force is not TimeInForce.GTC):
            return RejectReason.OTHER, "post-only goes with a good-till-cancelled limit order only"
        market = self._markets[place.symbol]
        instrument = market.instrument
        refusal = check_order(instrument, place.price, place.qty, mid_price(*market.best()))
        if refusal is not None:
            return refusal
        if is_market and self._protective_price(market, place.side) is None:
            return RejectReason.NOT_FILLABLE, f"{place.symbol}: nobody to trade with"
        if place.reduce_only and not self._does_reduce(client, instrument, place.side, place.qty):
            return RejectReason.REDUCE_ONLY, f"{place.symbol}: {place.side} {place.qty} would not only reduce"
        probe = self._venue_order(client, place, now_ns, order_id=0)
        assert probe.price is not None, "checked above"
        return self._check_funds(client, instrument, probe, probe.price, place.qty)

    def _amend(self, client: _Client, request: _Request, amend: AmendOrder, now_ns: int) -> None:
        refusal = self._refuse_amend(client, request, amend, now_ns)
        if refusal is not None:
            reason, text = refusal
            self._log_request(request, amend.client_id, reason, now_ns, text)
            rejected = AmendRejected(amend.client_id, reason, text, now_ns)
            self._post(request.account, rejected, now_ns, is_answer=True)
            return
        record = client.records.find_open(amend.client_id)
        assert record is not None, "checked above"
        market = self._markets[record.order.symbol]
        outputs = market.amend(record.order, amend.price, amend.qty, now_ns)
        record.updated_ns = now_ns
        self._log_request(request, amend.client_id, "accepted", now_ns)
        would_take = any(isinstance(o, Ended) and o.reason is RejectReason.WOULD_TAKE for o in outputs)
        if not would_take:
            amended = OrderAmended(amend.client_id, amend.price, amend.qty, now_ns)
            self._post(request.account, amended, now_ns, is_answer=True)
        self._absorb(market.instrument, outputs, record.order)

    def _refuse_amend(
        self, client: _Client, request: _Request, amend: AmendOrder, now_ns: int
    ) -> Refusal | None:
        refusal = self._refuse_any(request, amend.symbol, now_ns)
        if refusal is not None:
            return refusal
        record = client.records.find_open(amend.client_id)
        if record is None or record.order.symbol != amend.symbol:
            return RejectReason.UNKNOWN_ORDER, f"no open order {amend.client_id} in {amend.symbol}"
        if self.delivery.is_refused():
            return RejectReason.UNAVAILABLE, "the venue is busy, try again"
        order = record.order
        market = self._markets[order.symbol]
        refusal = check_order(market.instrument, amend.price, amend.qty, mid_price(*market.best()))
        if refusal is not None:
            return refusal
        if amend.qty <= order.filled:
            return RejectReason.INVALID_QTY, f"total quantity {amend.qty}, but {order.filled} is filled"
        added = amend.qty - order.qty
        if order.reduce_only and not self._does_reduce(client, market.instrument, order.side, added):
            return RejectReason.REDUCE_ONLY, f"{amend.symbol}: {amend.qty} would not only reduce"
        return self._check_funds(client, market.instrument, order, amend.price, amend.qty - order.filled)

    def _cancel(self, client: _Client, request: _Request, cancel: CancelOrder, now_ns: int) -> None:
        refusal = self._refuse_any(request, cancel.symbol, now_ns)
        record = client.records.find_open(cancel.client_id)
        if refusal is None and (record is None or record.order.symbol != cancel.symbol):
            text = f"no open order {cancel.client_id} in {cancel.symbol}"
            refusal = RejectReason.UNKNOWN_ORDER, text
        if refusal is not None or record is None:
            assert refusal is not None, "an unknown order was refused above"
            reason, text = refusal
            self._log_request(request, cancel.client_id, reason, now_ns, text)
            rejected = CancelRejected(cancel.client_id, reason, text, now_ns)
            self._post(request.account, rejected, now_ns, is_answer=True)
            return
        self._log_request(request, cancel.client_id, "accepted", now_ns)
        self._take_out(client, record.order, "", now_ns, is_answer=True)

    def _refuse_any(self, request: _Request, symbol: str, now_ns: int) -> Refusal | None:
        if now_ns > request.deadline_ns:
            late_ms = (now_ns - request.deadline_ns) / 1e6
            return RejectReason.EXPIRED_REQUEST, f"arrived {late_ms:.3f} ms after its deadline"
        if symbol not in self._instruments:
            return RejectReason.UNKNOWN_SYMBOL, f"{symbol} is not listed here"
        if symbol not in self._markets:
            return RejectReason.UNAVAILABLE, f"{symbol} does not trade at the moment"
        return None

    def _check_funds(
        self, client: _Client, instrument: Instrument, order: VenueOrder, price: Decimal, qty: Decimal
    ) -> Refusal | None:
        missing = client.account.shortfall(instrument, order, price, qty)
        if not missing:
            return None
        return RejectReason.INSUFFICIENT_FUNDS, f"{order.symbol}: {missing.normalize():f} too little is free"

    def _does_reduce(self, client: _Client, instrument: Instrument, side: Side, added: Decimal) -> bool:
        """Return whether `added` more reduce-only quantity on `side` stays within the position."""
        if instrument.kind is InstrumentKind.SPOT:
            return side is Side.SELL  # a spot sale is limited by the holding itself
        position = client.account.position(instrument.symbol)
        reducible = position if side is Side.SELL else -position
        resting = sum(
            (order.remaining for order in _reduce_only(client, instrument.symbol) if order.side is side),
            _ZERO,
        )
        return resting + added <= reducible

    # -- orders ----------------------------------------------------------------------------------

    def _new_order(self, client: _Client, place: PlaceOrder, now_ns: int) -> VenueOrder:
        self._order_id += 1
        return self._venue_order(client, place, now_ns, self._order_id)

    def _venue_order(self, client: _Client, place: PlaceOrder, now_ns: int, order_id: int) -> VenueOrder:
        price = place.price
        if price is None:
            price = self._protective_price(self._markets[place.symbol], place.side)
        return VenueOrder(
            order_id,
            client.account.name,
            place.client_id,
            place.symbol,
            place.side,
            place.type,
            place.time_in_force,
            price,
            place.qty,
            post_only=place.post_only,
            reduce_only=place.reduce_only,
            created_ns=now_ns,
        )

    def _protective_price(self, market: Market, side: Side) -> Decimal | None:
        """Return the worst price that a market order accepts, None where nobody is on the other side."""
        bid, ask = market.best()
        if side is Side.BUY:
            if ask is None:
                return None
            return market.instrument.price_ceil(ask * (_ONE + MARKET_ORDER_PROTECTION))
        if bid is None:
            return None
        lowest = market.instrument.price_floor(bid * (_ONE - MARKET_ORDER_PROTECTION))
        return max(lowest, market.instrument.tick_size)

    def _absorb(
        self, instrument: Instrument, outputs: Sequence[MarketOutput], order: VenueOrder | None = None
    ) -> None:
        """Publish what a market put out and book it on the accounts. `order` is whose request it was."""
        touched: dict[int, VenueOrder] = {} if order is None else {order.order_id: order}
        for output in outputs:
            if isinstance(output, Execution):
                self._trade_id += 1
                self._book_execution(instrument, output, touched)
            elif isinstance(output, Ended):
                self._end_order(instrument, output)
                touched.pop(output.order.order_id, None)
            else:
                self._out.append((None, output))
        if not touched:
            return
        # Locks and records follow the final state of a batch: an order may trade several times in
        # one, and its `filled` is the final one already at the first.
        for changed in touched.values():
            client = self._clients[changed.owner]
            client.account.lock(instrument, changed)
            if not changed.is_open:
                client.records.close(changed.client_id, None, self._now_ns)
        for owner in dict.fromkeys(changed.owner for changed in touched.values()):
            self._trim_reduce_only(self._clients[owner], instrument)

    def _book_execution(
        self, instrument: Instrument, execution: Execution, touched: dict[int, VenueOrder]
    ) -> None:
        sides = (
            (execution.maker, Liquidity.MAKER, instrument.maker_fee),
            (execution.taker, Liquidity.TAKER, instrument.taker_fee),
        )
        for order, liquidity, rate in sides:
            if order is None or not order.owner:
                continue
            touched[order.order_id] = order
            client = self._clients[order.owner]
            price, qty = execution.price, execution.qty
            fee, currency = client.account.fee_for(instrument, order.side, price, qty, rate)
            fill = OrderFilled(
                order.client_id,
                order.symbol,
                order.side,
                str(self._trade_id),
                price,
                qty,
                fee,
                currency,
                liquidity,
                execution.ts_ns,
                str(order.order_id),
            )
            self._book_fill(client, instrument, fill)
            if self._ledger is not None:
                self._ledger.write(Traded(order.owner, fill))
            self._post(order.owner, fill, execution.ts_ns)

    def _book_fill(self, client: _Client, instrument: Instrument, fill: OrderFilled) -> None:
        client.account.apply_fill(instrument, fill.side, fill.price, fill.qty, fill.fee, fill.fee_currency)
        client.records.add_fill(fill)

    def _end_order(self, instrument: Instrument, ended: Ended) -> None:
        order, reason, now_ns = ended.order, str(ended.reason), ended.ts_ns
        client = self._clients[order.owner]
        # A post-only order that an amend would make take is withdrawn, not run out.
        is_cancel = ended.reason is RejectReason.WOULD_TAKE
        status = OrderStatus.CANCELLED if is_cancel else OrderStatus.EXPIRED
        self._close(client, instrument, order, status, reason, now_ns)
        report_type = OrderCancelled if is_cancel else OrderExpired
        self._post(order.owner, report_type(order.client_id, now_ns, reason, order.filled), now_ns)

    def _close(
        self,
        client: _Client,
        instrument: Instrument,
        order: VenueOrder,
        status: OrderStatus,
        reason: str,
        now_ns: int,
    ) -> None:
        client.account.lock(instrument, order)
        client.records.close(order.client_id, status, now_ns)
        if self._ledger is not None:
            line = OrderEnded(now_ns, order.owner, order.client_id, status, reason, order.filled)
            self._ledger.write(line)

    def _take_out(
        self, client: _Client, order: VenueOrder, reason: str, now_ns: int, *, is_answer: bool
    ) -> None:
        market = self._markets[order.symbol]
        outputs = market.cancel(order, now_ns)
        self._close(client, market.instrument, order, OrderStatus.CANCELLED, reason, now_ns)
        cancelled = OrderCancelled(order.client_id, now_ns, reason, order.filled)
        self._post(order.owner, cancelled, now_ns, is_answer=is_answer)
        self._absorb(market.instrument, outputs)

    def _trim_reduce_only(self, client: _Client, instrument: Instrument) -> None:
        """Cancel the newest reduce-only orders that the position no longer covers."""
        if instrument.kind is InstrumentKind.SPOT:
            return
        position = client.account.position(instrument.symbol)
        covered = {Side.SELL: max(position, _ZERO), Side.BUY: max(-position, _ZERO)}
        for order in _reduce_only(client, instrument.symbol):
            if order.remaining <= covered[order.side]:
                covered[order.side] -= order.remaining
            else:
                self._take_out(client, order, RejectReason.REDUCE_ONLY, self._now_ns, is_answer=False)

    # -- reports ---------------------------------------------------------------------------------

    def _post(self, account: str, report: Report, now_ns: int, *, is_answer: bool = False) -> None:
        self.delivery.post(account, report, now_ns, is_answer=is_answer, is_query=False)

    def _answer_query(self, request: _Request, client_id: str, report: Report, now_ns: int) -> None:
        self._log_request(request, client_id, "accepted", now_ns)
        self.delivery.post(request.account, report, now_ns, is_answer=True, is_query=True)

    def _reject_place(self, request: _Request, place: PlaceOrder, refusal: Refusal, now_ns: int) -> None:
        reason, text = refusal
        self._log_request(request, place.client_id, reason, now_ns, text)
        rejected = OrderRejected(place.client_id, reason, text, now_ns)
        self._post(request.account, rejected, now_ns, is_answer=True)

    def _log_request(
        self,
        request: _Request,
        client_id: str,
        verdict: str,
        now_ns: int,
        text: str = "",
        order_id: int = 0,
    ) -> None:
        if self._ledger is not None:
            self._ledger.write(
                RequestSeen(
                    now_ns,
                    request.account,
                    client_id,
                    request.command,
                    request.sent_ns,
                    request.deadline_ns,
                    str(verdict),
                    order_id,
                    text,
                )
            )


def _reduce_only(client: _Client, symbol: str) -> list[VenueOrder]:
    return [
        record.order
        for record in client.records.open()
        if record.order.reduce_only and record.order.symbol == symbol
    ]


def _refused_on_entry(order: VenueOrder, outputs: Sequence[MarketOutput]) -> Ended | None:
    """Return how a new order ended if that counts as a refusal: it never traded and never could.

    An unfilled IOC order was a valid order that expired; post-only that would take, fill-or-kill
    that cannot fill and a market order that met nobody are refused.
    """
    if order.is_open or order.filled:
        return None
    for output in outputs:
        if isinstance(output, Ended) and output.order is order:
            is_all_or_nothing = order.type is OrderType.MARKET or order.time_in_force is TimeInForce.FOK
            if output.reason is RejectReason.WOULD_TAKE:
                return output
            if output.reason is RejectReason.NOT_FILLABLE and is_all_or_nothing:
                return output
    return None
