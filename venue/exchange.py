"""The exchange: several accounts and symbols behind one door, in virtual time.

Commands go in with the time they were sent and arrive after a delay; public market data and the
accounts' reports come out of `step` in time order. Nothing happens outside `submit` and `step`,
and equal calls give equal results.
"""

import heapq
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from typing import Any

from msgspec import Struct

from host.api import (
    AmendOrder,
    AmendRejected,
    CancelOrder,
    CancelRejected,
    Command,
    Depth,
    FillsSnapshot,
    Instrument,
    MarketEvent,
    OpenOrdersSnapshot,
    OrderAccepted,
    OrderAmended,
    OrderNotFound,
    OrderRejected,
    OrderStatus,
    OrderType,
    PlaceOrder,
    QueryFills,
    QueryOpenOrders,
    QueryOrder,
    RejectReason,
    Report,
    TimeInForce,
)
from venue.accounts import Account
from venue.admission import new_order, refuse_amend, refuse_place
from venue.booking import Booking
from venue.client import Client
from venue.dead_man import REASON, DeadManSwitches
from venue.delivery import NO_FAULTS, Delivery, Faults, Latency
from venue.execution import HOUSE_RULES, Answer, EntryRules, ExecType, ExecutionReport, report_of
from venue.funding import Funding
from venue.ledger import AccountOpened, Ledger, RequestSeen
from venue.market import Ended, Market, MarketOutput, VenueOrder
from venue.records import OrderRecord, Records
from venue.restore import restore
from venue.validation import Refusal

__all__ = ["Exchange", "Output"]

Output = tuple[str | None, MarketEvent | Report]
"""Who it is for (None: everybody) and what."""


class _Request(Struct, frozen=True):
    """A command on its way."""

    account: str
    command: Command
    sent_ns: int
    deadline_ns: int
    rules: EntryRules = HOUSE_RULES
    terms: Any = None
    on_answer: Callable[[Answer], None] | None = None


class Exchange:
    """A venue with accounts and markets.

    Set it up in this order: list instruments, `restore` if there is a log, open accounts, add
    markets. Without `ledger` nothing outlives the process. `delivery` holds the faults, which may
    be changed at any time.
    """

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
        self._clients: dict[str, Client] = {}
        self._booking = Booking(self._clients, self.delivery, ledger)
        self._last_prices: dict[str, Decimal] = {}
        self.funding = Funding(self._at, self._clients, self._markets, ledger)
        """Nothing is paid until it is scheduled."""
        self._requests: list[tuple[int, int, _Request | Callable[[int], None]]] = []
        self._request_number = 0
        self._switches = DeadManSwitches(self._at, self._run_out)
        self._order_id = 0
        self._now_ns = 0
        # When the next market moves: asked once per move, not once per look at the time.
        self._market_due_ns: int | None = None

    # -- setting up ------------------------------------------------------------------------------

    def list_instrument(self, instrument: Instrument) -> None:
        """Make a symbol known; its orders are refused as unavailable until it has a market."""
        self._instruments[instrument.symbol] = instrument

    def restore(self, now_ns: int) -> None:
        """Take accounts, orders and fills from the log; orders left open there are expired.

        Raises `LedgerError` where the log cannot be read or names a symbol that is not listed.
        """
        if self._ledger is None:
            return
        restored = restore(self._ledger, self._instruments, now_ns)
        self._clients.update(restored.clients)
        self._order_id = restored.last_order_id
        self._booking.last_trade_id = restored.last_trade_id
        self._last_prices = restored.last_prices

    def open_account(
        self,
        name: str,
        balances: Mapping[str, Decimal],
        *,
        leverage: Decimal = Decimal(10),
        is_fee_in_base: bool = False,
    ) -> None:
        """Create an account. One that exists keeps its money and only takes over the terms."""
        client = self._clients.get(name)
        if client is None:
            client = self._clients[name] = Client(Account(name, balances))
            if self._ledger is not None:
                self._ledger.write(AccountOpened(name, dict(balances)))
        client.account.leverage = leverage
        client.account.is_fee_in_base = is_fee_in_base

    def add_market(self, market: Market) -> None:
        """Open trading in one symbol."""
        self._instruments[market.instrument.symbol] = market.instrument
        self._markets[market.instrument.symbol] = market
        self._note_market_due()

    @property
    def instruments(self) -> tuple[Instrument, ...]:
        """Return every listed instrument."""
        return tuple(self._instruments.values())

    def has_market(self, symbol: str) -> bool:
        """Return whether `symbol` trades."""
        return symbol in self._markets

    def last_price(self, symbol: str) -> Decimal | None:
        """Return the price of the last fill in the restored log, to let a market go on from there."""
        return self._last_prices.get(symbol)

    def account(self, name: str) -> Account:
        """Return the money of an account, to read; raise KeyError where it is not open."""
        return self._clients[name].account

    def has_account(self, name: str) -> bool:
        """Return whether an account is open."""
        return name in self._clients

    # -- the wire --------------------------------------------------------------------------------

    def submit(
        self,
        account: str,
        command: Command,
        sent_ns: int,
        deadline_ns: int,
        *,
        rules: EntryRules = HOUSE_RULES,
        terms: Any = None,
        on_answer: Callable[[Answer], None] | None = None,
    ) -> None:
        """Send a command at `sent_ns`; it arrives after the latency, in order per account.

        An order, amend or cancel that arrives after `deadline_ns` is refused as
        `EXPIRED_REQUEST`. Raises KeyError for an account that was never opened.

        A protocol says by which `rules` the order comes in, what it wants to remember of it
        (`terms`), and takes the answer by `on_answer`, called at the moment of the decision: it
        must not call the exchange back.
        """
        if account not in self._clients:
            raise KeyError(f"account {account!r} is not open at this venue, open it first")
        arrival_ns = self.delivery.arrival_ns(account, max(sent_ns, self._now_ns))
        request = _Request(account, command, sent_ns, deadline_ns, rules, terms, on_answer)
        self._at(arrival_ns, request)

    def arm_dead_man(
        self, account: str, tag: str, after_ns: int, sent_ns: int, on_armed: Callable[[], None]
    ) -> None:
        """Arm a dead man's switch of an account: see `DeadManSwitches`.

        It travels as a command does, and in order with them; `on_armed` is called when it has arrived, and must not
        call the exchange back. Raises KeyError for an account that was never opened.
        """
        if account not in self._clients:
            raise KeyError(f"account {account!r} is not open at this venue, open it first")

        def arrive(now_ns: int) -> None:
            self._switches.arm(account, tag, after_ns, now_ns)
            on_armed()

        self._at(self.delivery.arrival_ns(account, max(sent_ns, self._now_ns)), arrive)

    def _at(self, due_ns: int, what: "_Request | Callable[[int], None]") -> None:
        """Have a request handled, or something else done, at a time."""
        self._request_number += 1
        heapq.heappush(self._requests, (due_ns, self._request_number, what))

    def _run_out(self, account: str, tag: str, now_ns: int) -> None:
        client = self._clients[account]
        for record in client.records.open():
            order = record.order
            if order.is_open and order.client_id.startswith(tag):
                self._booking.take_out(
                    client, self._markets[order.symbol], order, REASON, now_ns, is_answer=False
                )

    def disconnect(self, account: str) -> None:
        """Break the account's connection: reports on their way and to come are lost, orders stay."""
        self._clients[account].is_connected = False
        self.delivery.lose(account)

    def connect(self, account: str) -> None:
        """Deliver reports again; what was lost meanwhile can be queried."""
        self._clients[account].is_connected = True

    def report_executions(self) -> None:
        """Write execution reports from now on, for `take_executions`."""
        self._booking.is_reporting = True

    def take_executions(self) -> list[ExecutionReport]:
        """Return what happened to orders since the last call, in order."""
        taken = self._booking.executions
        if taken:
            self._booking.executions = []
        return taken

    def find_order(
        self, account: str, *, client_id: str = "", order_id: int | None = None
    ) -> OrderRecord | None:
        """Return an order by the venue's number or, without one, by client id; None if unknown."""
        records = self._clients[account].records
        return records.find(client_id) if order_id is None else records.find_by_order_id(order_id)

    def records(self, account: str) -> Records:
        """Return the orders and fills of an account, to read."""
        return self._clients[account].records

    def instrument(self, symbol: str) -> Instrument:
        """Return a listed instrument; raise KeyError for one that is not."""
        return self._instruments[symbol]

    def best(self, symbol: str) -> tuple[Decimal | None, Decimal | None]:
        """Return the best bid and ask of `symbol`; raise KeyError where it has no market."""
        return self._markets[symbol].best()

    def snapshot(self, symbol: str) -> Depth:
        """Return the whole book of `symbol` now; its `seq` continues into the public changes."""
        return self._markets[symbol].snapshot(self._now_ns)

    def next_time_ns(self) -> int | None:
        """Return when something next happens, None when nothing ever will without a command."""
        due_ns = self.delivery.next_time_ns()
        if self._requests and (due_ns is None or self._requests[0][0] < due_ns):
            due_ns = self._requests[0][0]
        if self._market_due_ns is not None and (due_ns is None or self._market_due_ns < due_ns):
            due_ns = self._market_due_ns
        return due_ns

    def step(self, now_ns: int) -> list[Output]:
        """Do everything due at or before `now_ns` and return what came out, in time order."""
        out: list[Output] = []
        while (due_ns := self.next_time_ns()) is not None and due_ns <= now_ns:
            self._now_ns = max(self._now_ns, due_ns)
            self._run_instant(self._now_ns, out)
        if self._ledger is not None:
            self._ledger.flush()
        return out

    def _run_instant(self, now_ns: int, out: list[Output]) -> None:
        # The market moves before requests of the same instant arrive: a quote is never faster
        # than the news that it answers.
        if self._market_due_ns is not None and self._market_due_ns <= now_ns:
            for market in self._markets.values():
                market_ns = market.next_time_ns()
                if market_ns is not None and market_ns <= now_ns:
                    self._booking.absorb(market, market.step(now_ns), now_ns)
            self._note_market_due()
        while self._requests and self._requests[0][0] <= now_ns:
            what = heapq.heappop(self._requests)[2]
            if isinstance(what, _Request):
                self._handle(what, now_ns)
            else:
                what(now_ns)
        published = self._booking.published
        for event in published:
            out.append((None, event))  # noqa: PERF401 - mostly one: a generator costs more than it saves
        published.clear()
        for account, report in self.delivery.due(now_ns):
            if self._clients[account].is_connected:
                out.append((account, report))

    def _note_market_due(self) -> None:
        soonest_ns: int | None = None
        for market in self._markets.values():
            due_ns = market.next_time_ns()
            if due_ns is not None and (soonest_ns is None or due_ns < soonest_ns):
                soonest_ns = due_ns
        self._market_due_ns = soonest_ns

    # -- requests --------------------------------------------------------------------------------

    def _handle(self, request: _Request, now_ns: int) -> None:
        client = self._clients[request.account]
        command = request.command
        already = len(self._booking.executions)
        refusal: Refusal | None = None
        record: OrderRecord | None = None
        if isinstance(command, PlaceOrder):
            refusal, record = self._place(client, request, command, now_ns)
        elif isinstance(command, AmendOrder):
            refusal, record = self._amend(client, request, command, now_ns)
        elif isinstance(command, CancelOrder):
            refusal, record = self._cancel(client, request, command, now_ns)
        else:
            self._log(request, "accepted", now_ns)
            answer = _answer(client, command, now_ns)
            self.delivery.post(request.account, answer, now_ns, is_answer=True, is_query=True)
        if request.on_answer is not None:
            order = None if record is None else record.order
            executions = tuple(e for e in self._booking.executions[already:] if e.order is order)
            request.on_answer(Answer(now_ns, refusal, record, executions))

    def _place(
        self, client: Client, request: _Request, place: PlaceOrder, now_ns: int
    ) -> tuple[Refusal | None, OrderRecord | None]:
        refusal = self._refuse(request, place, now_ns)
        if refusal is None and _is_duplicate(client, place.client_id, request.rules):
            refusal = RejectReason.DUPLICATE_ID, f"client id {place.client_id} was used before"
        if not client.records.is_used(place.client_id):
            client.records.use(place.client_id)
        refusal = refusal or self._refuse_by_fault()
        if refusal is None:
            refusal = refuse_place(client, self._markets[place.symbol], place)
        if refusal is not None:
            self._reject_place(request, place, refusal, now_ns)
            return refusal, None
        market = self._markets[place.symbol]
        self._order_id += 1
        order = new_order(client, market, place, self._order_id, now_ns)
        outputs = market.submit(order, now_ns)
        refused = _refused_on_entry(order, outputs)
        if refused is not None and refused.reason in request.rules.refused:
            refusal = refused.reason, f"{place.symbol}: the book does not allow it now"
            self._reject_place(request, place, refusal, now_ns)
            outputs.remove(refused)
            self._booking.absorb(market, outputs, now_ns)
            return refusal, None
        self._log(request, "accepted", now_ns, order_id=order.order_id)
        record = client.records.add(order, request.terms)
        self._answer(request, OrderAccepted(place.client_id, str(order.order_id), now_ns), now_ns)
        self._report(ExecType.NEW, record, OrderStatus.OPEN, now_ns)
        self._booking.absorb(market, outputs, now_ns, order)
        return None, record

    def _amend(
        self, client: Client, request: _Request, amend: AmendOrder, now_ns: int
    ) -> tuple[Refusal | None, OrderRecord | None]:
        refusal = self._refuse(request, amend, now_ns)
        record = _find_open(client, amend)
        if refusal is None and record is None:
            refusal = _unknown(amend)
        refusal = refusal or self._refuse_by_fault()
        if refusal is None and record is not None:
            refusal = refuse_amend(client, self._markets[amend.symbol], record.order, amend)
        if refusal is not None or record is None:
            reason, text = refusal or _unknown(amend)
            self._log(request, reason, now_ns, text)
            self._answer(request, AmendRejected(amend.client_id, reason, text, now_ns), now_ns)
            return (reason, text), record
        market = self._markets[amend.symbol]
        keeps_place = request.rules.amend_keeps_place
        outputs = market.amend(record.order, amend.price, amend.qty, now_ns, keeps_place=keeps_place)
        record.updated_ns = now_ns
        self._log(request, "accepted", now_ns)
        if not any(isinstance(out, Ended) and out.reason is RejectReason.WOULD_TAKE for out in outputs):
            self._answer(request, OrderAmended(amend.client_id, amend.price, amend.qty, now_ns), now_ns)
            status = OrderStatus.PARTIALLY_FILLED if record.booked else OrderStatus.OPEN
            self._report(ExecType.REPLACED, record, status, now_ns)
        self._booking.absorb(market, outputs, now_ns, record.order)
        return None, record

    def _cancel(
        self, client: Client, request: _Request, cancel: CancelOrder, now_ns: int
    ) -> tuple[Refusal | None, OrderRecord | None]:
        refusal = self._refuse(request, cancel, now_ns)
        record = _find_open(client, cancel)
        if refusal is not None or record is None:
            reason, text = refusal or _unknown(cancel)
            self._log(request, reason, now_ns, text)
            self._answer(request, CancelRejected(cancel.client_id, reason, text, now_ns), now_ns)
            return (reason, text), record
        self._log(request, "accepted", now_ns)
        market = self._markets[cancel.symbol]
        self._booking.take_out(client, market, record.order, "", now_ns, is_answer=True)
        return None, record

    def _report(self, kind: ExecType, record: OrderRecord, status: OrderStatus, now_ns: int) -> None:
        if self._booking.is_reporting:
            self._booking.executions.append(report_of(kind, record, status, now_ns))

    def _refuse(
        self, request: _Request, command: PlaceOrder | AmendOrder | CancelOrder, now_ns: int
    ) -> Refusal | None:
        if now_ns > request.deadline_ns:
            late_ms = (now_ns - request.deadline_ns) / 1e6
            return RejectReason.EXPIRED_REQUEST, f"arrived {late_ms:.3f} ms after its deadline"
        symbol = command.symbol
        if symbol not in self._instruments:
            return RejectReason.UNKNOWN_SYMBOL, f"{symbol} is not listed here"
        if symbol not in self._markets:
            return RejectReason.UNAVAILABLE, f"{symbol} does not trade at the moment"
        return None

    def _refuse_by_fault(self) -> Refusal | None:
        if self.delivery.is_refused():
            return RejectReason.UNAVAILABLE, "the venue is busy, try again"
        return None

    def _reject_place(self, request: _Request, place: PlaceOrder, refusal: Refusal, now_ns: int) -> None:
        reason, text = refusal
        self._log(request, reason, now_ns, text)
        self._answer(request, OrderRejected(place.client_id, reason, text, now_ns), now_ns)

    def _answer(self, request: _Request, report: Report, now_ns: int) -> None:
        self.delivery.post(request.account, report, now_ns, is_answer=True, is_query=False)

    def _log(self, request: _Request, verdict: str, now_ns: int, text: str = "", order_id: int = 0) -> None:
        if self._ledger is None:
            return
        command = request.command
        client_id = getattr(command, "client_id", "")
        self._ledger.write(
            RequestSeen(
                now_ns,
                request.account,
                client_id,
                command,
                request.sent_ns,
                request.deadline_ns,
                str(verdict),
                order_id,
                text,
            )
        )


def _answer(client: Client, query: Command, now_ns: int) -> Report:
    records = client.records
    if isinstance(query, QueryOrder):
        record = records.find(query.client_id)
        if record is None:
            return OrderNotFound(query.client_id, now_ns)
        return record.snapshot(now_ns)
    if isinstance(query, QueryOpenOrders):
        return OpenOrdersSnapshot(tuple(record.snapshot(now_ns) for record in records.open()), now_ns)
    if isinstance(query, QueryFills):
        return FillsSnapshot(records.fills_since(query.since_ns), now_ns)
    return client.account.snapshot(now_ns)


def _find_open(client: Client, command: AmendOrder | CancelOrder) -> OrderRecord | None:
    record = client.records.find_open(command.client_id)
    return record if record is not None and record.order.symbol == command.symbol else None


def _is_duplicate(client: Client, client_id: str, rules: EntryRules) -> bool:
    if rules.is_id_unique_ever:
        return client.records.is_used(client_id)
    return client.records.find_open(client_id) is not None


def _unknown(command: AmendOrder | CancelOrder) -> Refusal:
    return RejectReason.UNKNOWN_ORDER, f"no open order {command.client_id} in {command.symbol}"


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
