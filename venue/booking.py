"""What follows from what a market did: money moves, orders end, reports leave, the log is written."""

from collections.abc import Mapping, Sequence
from decimal import Decimal

from host.api import (
    Instrument,
    Liquidity,
    MarketEvent,
    OrderCancelled,
    OrderExpired,
    OrderFilled,
    OrderStatus,
    RejectReason,
    Report,
)
from venue.client import Client
from venue.delivery import Delivery
from venue.execution import ExecType, ExecutionReport, report_of
from venue.ledger import Ledger, OrderEnded, Traded
from venue.market import Ended, Execution, Market, MarketOutput, VenueOrder

__all__ = ["Booking"]


class Booking:
    """Books the outputs of markets on the accounts, and publishes the rest."""

    def __init__(self, clients: Mapping[str, Client], delivery: Delivery, ledger: Ledger | None) -> None:
        self.published: list[MarketEvent] = []
        """Public market data in order; whoever reads it clears it."""
        self.executions: list[ExecutionReport] = []
        """What happened to orders, in order; whoever reads it clears it."""
        self.is_reporting = False
        """Whether anybody reads `executions`; off, none are written."""
        self.last_trade_id = 0
        self._clients = clients
        self._delivery = delivery
        self._ledger = ledger

    def absorb(
        self, market: Market, outputs: Sequence[MarketOutput], now_ns: int, changed: VenueOrder | None = None
    ) -> None:
        """Book and publish `outputs`; `changed` is the order whose placing or amending led to them."""
        touched: dict[int, VenueOrder] = {} if changed is None else {changed.order_id: changed}
        for output in outputs:
            if isinstance(output, Execution):
                self._trade(market.instrument, output, touched)
            elif isinstance(output, Ended):
                self._end(market.instrument, output)
            else:
                self.published.append(output)
        if touched:
            self._settle(market, touched, now_ns)

    def take_out(
        self, client: Client, market: Market, order: VenueOrder, reason: str, now_ns: int, *, is_answer: bool
    ) -> None:
        """Cancel an open order, by request (`is_answer`) or by the venue's own rules."""
        outputs = market.cancel(order, now_ns)
        self._close(market.instrument, order, OrderStatus.CANCELLED, reason, now_ns)
        cancelled = OrderCancelled(order.client_id, now_ns, reason, order.filled)
        self._post(client.account.name, cancelled, now_ns, is_answer=is_answer)
        self.absorb(market, outputs, now_ns)

    def _settle(self, market: Market, touched: Mapping[int, VenueOrder], now_ns: int) -> None:
        # After the whole batch: an order may trade several times in one, and its `filled` is the
        # final one already when the first of its executions is booked.
        for order in touched.values():
            records = self._clients[order.owner].records
            record = records.find_open(order.client_id)
            if record is None or record.order is not order:
                continue  # it ended in this batch, and was closed then
            self._clients[order.owner].account.lock(market.instrument, order)
            if not order.is_open:
                records.close(order.client_id, None, now_ns)
        for owner in dict.fromkeys(order.owner for order in touched.values()):
            client = self._clients[owner]
            for order in client.uncovered(market.instrument):
                self.take_out(client, market, order, RejectReason.REDUCE_ONLY, now_ns, is_answer=False)

    def _trade(self, instrument: Instrument, execution: Execution, touched: dict[int, VenueOrder]) -> None:
        self.last_trade_id += 1
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
                str(self.last_trade_id),
                price,
                qty,
                fee,
                currency,
                liquidity,
                execution.ts_ns,
                str(order.order_id),
            )
            realised = client.account.apply_fill(instrument, fill.side, price, qty, fee, currency)
            client.records.add_fill(fill, realised)
            self._report_fill(client, order, fill, realised)
            if self._ledger is not None:
                self._ledger.write(Traded(order.owner, fill))
            self._post(order.owner, fill, execution.ts_ns)

    def _report_fill(self, client: Client, order: VenueOrder, fill: OrderFilled, realised: Decimal) -> None:
        record = client.records.find_by_order_id(order.order_id)
        assert record is not None, "an order that trades is on record"
        record.booked += fill.qty
        record.quote_filled += fill.price * fill.qty
        record.updated_ns = fill.ts_ns
        if self.is_reporting:
            status = OrderStatus.FILLED if record.booked >= order.qty else OrderStatus.PARTIALLY_FILLED
            self.executions.append(
                report_of(ExecType.TRADE, record, status, fill.ts_ns, fill=fill, realised=realised)
            )

    def _end(self, instrument: Instrument, ended: Ended) -> None:
        order, reason, now_ns = ended.order, str(ended.reason), ended.ts_ns
        if ended.reason is RejectReason.WOULD_TAKE:
            # An amend would have made a post-only order take: it is withdrawn, not run out.
            self._close(instrument, order, OrderStatus.CANCELLED, reason, now_ns)
            cancelled = OrderCancelled(order.client_id, now_ns, reason, order.filled)
            self._post(order.owner, cancelled, now_ns, is_answer=True)
        else:
            self._close(instrument, order, OrderStatus.EXPIRED, reason, now_ns)
            self._post(order.owner, OrderExpired(order.client_id, now_ns, reason, order.filled), now_ns)

    def _close(
        self, instrument: Instrument, order: VenueOrder, status: OrderStatus, reason: str, now_ns: int
    ) -> None:
        client = self._clients[order.owner]
        client.account.lock(instrument, order)
        record = client.records.find_open(order.client_id)
        client.records.close(order.client_id, status, now_ns)
        if self._ledger is not None:
            self._ledger.write(OrderEnded(now_ns, order.owner, order.client_id, status, reason, order.filled))
        if self.is_reporting and record is not None:
            kind = ExecType.CANCELED if status is OrderStatus.CANCELLED else ExecType.EXPIRED
            self.executions.append(report_of(kind, record, status, now_ns, reason=reason))

    def _post(self, account: str, report: Report, now_ns: int, *, is_answer: bool = False) -> None:
        self._delivery.post(account, report, now_ns, is_answer=is_answer, is_query=False)
