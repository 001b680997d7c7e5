"""Trading state: a fold over journal entries, and nothing else.

`TradingState.apply` is the only code that changes orders, holdings and balances. The live node,
crash recovery, the SQL projection and a standby call it with the same entries and so hold the same
state. It decides nothing and never raises on what a venue said: what cannot be is kept out and
named in `Outcome.anomaly`.
"""

import hashlib
from collections.abc import Callable
from decimal import Decimal, DecimalException
from typing import Any, Final

import msgspec
from msgspec import Struct

from host.api import (
    AmendRejected,
    CancelRejected,
    Fill,
    Instrument,
    InstrumentKind,
    Order,
    OrderAccepted,
    OrderAmended,
    OrderCancelled,
    OrderExpired,
    OrderFilled,
    OrderNotFound,
    OrderRejected,
    OrderSnapshot,
    OrderStatus,
    Position,
    RejectReason,
    RequestUnanswered,
    Side,
    VenuePosition,
)
from host.core import entries as e
from host.core.accounting import (
    AccountingError,
    Holding,
    apply_fill,
    average_price,
    balance_changes,
    exact_add,
    signed_value,
    start_day,
)
from host.core.hand import is_hand
from host.core.lifecycle import TRANSITIONS, OrderEvent, next_status
from host.core.risk_limits import RiskOverride

__all__ = [
    "REQUESTS_KEPT",
    "RETIRED_LIMIT",
    "InstanceRecord",
    "News",
    "Outcome",
    "PluginRecord",
    "ServedRequest",
    "TradingState",
    "fill_of",
    "request_key",
]

RETIRED_LIMIT: Final = 4096
"""How many finished orders are kept for late reports; older ones live on in the store."""
ADOPTED_LIMIT: Final = 1024
"""How many trades of unknown orders are remembered per account, so that none is counted twice."""

REFUSED_LIMIT: Final = 64
"""How many refused versions of one plugin are remembered."""
ROLLBACKS_KEPT: Final = 16

REQUESTS_KEPT: Final = 1024
REQUEST_AGE_NS: Final = 3600 * 1_000_000_000
"""For how many answered requests, and how long, a repetition is known as one."""

_ZERO: Final = Decimal(0)
_NOT_A_NUMBER: Final = Decimal("NaN")
_NOBODY: Final = ""
"""Stands for the instance where a fill or position belongs to none of ours."""


def fill_of(report: OrderFilled, instance: str, account: str) -> Fill:
    """Return the fill that a report tells of, as an execution of an order of `instance`."""
    return Fill(
        report.client_id,
        instance,
        account,
        report.symbol,
        report.side,
        report.price,
        report.qty,
        report.fee,
        report.fee_currency,
        report.liquidity,
        report.trade_id,
        report.ts_ns,
    )


class InstanceRecord(Struct):
    """What the journal says of one instance."""

    instance: str
    number: int
    plugin: str
    digest: str
    account: str
    symbols: tuple[str, ...]
    params: bytes
    state: e.InstanceState = e.InstanceState.LOADED
    reason: str = ""
    by: str = ""
    """What of the scheduler put it there; empty: something else."""
    is_paused: bool = False
    """It was paused, not by the scheduler, and nobody has resumed or stopped it since: in quarantine too, and where
    its node ended before it was there again."""
    strategy_state: bytes = b""
    state_version: int = 0
    state_lsn: int = 0


class PluginRecord(Struct):
    """What the journal says of the versions of one plugin, by digest."""

    plugin: str
    permanent: str = ""
    active: str = ""
    staged: str = ""
    refused: dict[str, str] = {}
    """Why versions were refused or rolled back, the latest last."""
    rollbacks_ns: list[int] = []
    is_auto: bool = True
    trial_from_ns: int = 0
    trial_until_ns: int = 0
    """When versions traded that had not earned their place yet; until is 0 while they do, from is 0 where
    none did since the permanent one."""


class ServedRequest(Struct, frozen=True):
    """The answer to a control request, for when it is asked again."""

    method: str
    digest: str
    response: bytes
    ts_ns: int


def request_key(who: str, request_id: str) -> str:
    """Return what a caller's request is known by; a request id has no spaces."""
    return f"{request_id} {who}"


class Outcome(Struct, frozen=True):
    """What one entry did to an order: the order after it, its fill, or why it could not be."""

    order: Order | None = None
    fill: Fill | None = None
    anomaly: str | None = None
    before: OrderStatus | None = None


class News(Struct, frozen=True):
    """That an order changed, and the fill that changed it, if one did."""

    client_id: str
    fill: Fill | None = None


class TradingState(Struct):
    """Everything that must survive: what a node knows when it has read its whole journal."""

    node: str = ""
    cell: str = ""
    epoch: int = 0
    lsn: int = 0
    ts_ns: int = 0
    instances: dict[str, InstanceRecord] = {}
    orders: dict[str, Order] = {}
    """Every order that may still trade, by client id."""
    retired: dict[str, Order] = {}
    """The latest finished orders, oldest first."""
    holdings: dict[str, dict[str, Holding]] = {}
    """By instance, then symbol."""
    instruments: dict[str, dict[str, Instrument]] = {}
    """By account, then symbol."""
    balances: dict[str, dict[str, Decimal]] = {}
    """By account, then currency: the venue's last word plus the fills since."""
    venue_positions: dict[str, dict[str, VenuePosition]] = {}
    kill_switches: dict[str, str] = {}
    """Reasons, by scope."""
    flattening: dict[str, str] = {}
    """Scopes whose positions are being closed, and why."""
    risk_overrides: dict[str, RiskOverride] = {}
    """Limits that were set by hand, by scope."""
    net_holdings: dict[str, dict[str, Holding]] = {}
    """What all fills of an account add up to, by account, then derivative symbol."""
    adopted_trades: dict[str, list[str]] = {}
    """The latest trades of orders that the journal does not know, by account."""
    fills_booked: dict[str, int] = {}
    """How many fills each account's balances count."""
    last_fill_ns: dict[str, int] = {}
    """Venue time of the newest fill known, by account."""
    last_fill_lsn: int = 0
    """The entry that booked the latest fill."""
    plugins: dict[str, PluginRecord] = {}
    unheard: dict[str, list[News]] = {}
    """What happened to each instance's orders since its strategy's state was saved, oldest first.

    Whoever restores that state hands this over. It is part of the state, and so of a snapshot: the
    journal before a snapshot is not read again, and an instance out of service saves nothing."""
    api_instances: dict[str, bytes] = {}
    """The instances that the control API made, each with its section of a configuration as JSON."""
    held: dict[str, str] = {}
    """The instances that an operator stopped, and who did."""
    isolated: dict[str, str] = {}
    """The instances that were moved to worker processes, and for which version of their plugins."""
    maintenance: str = ""
    """Who ordered that no node takes over by itself; empty where nobody did."""
    requests: dict[str, ServedRequest] = {}
    """The latest control requests that were carried out, by `request_key`, oldest first."""
    anomalies: dict[str, int] = {}
    next_instance_number: int = 1

    def apply(self, lsn: int, ts_ns: int, entry: e.Entry) -> Outcome | None:
        """Take one entry in; entries come in LSN order, each once."""
        self.lsn = lsn
        self.ts_ns = ts_ns
        outcome = _APPLY[type(entry)](self, entry)
        if outcome is not None and outcome.anomaly is not None:
            kind = outcome.anomaly.partition(":")[0]
            self.anomalies[kind] = self.anomalies.get(kind, 0) + 1
        return outcome

    def holding(self, instance: str, symbol: str) -> Holding:
        """Return what `instance` holds in `symbol`; a new, empty holding is remembered."""
        by_symbol = self.holdings.get(instance)
        if by_symbol is None:
            by_symbol = self.holdings[instance] = {}
        holding = by_symbol.get(symbol)
        if holding is None:
            holding = by_symbol[symbol] = Holding()
        return holding

    def position(self, instance: str, symbol: str) -> Position:
        """Return `instance`'s position in `symbol`, as plugins and people see it."""
        record = self.instances.get(instance)
        account = record.account if record is not None else ""
        holding = self.holdings.get(instance, {}).get(symbol)
        if holding is None:
            return Position(account, symbol)
        instrument = self.instruments[account][symbol]
        return Position(account, symbol, holding.qty, average_price(holding, instrument), holding.realised)

    def account_qty(self, account: str, symbol: str) -> Decimal:
        """Return the sum of all instances' holdings of `symbol` in `account`."""
        total = _ZERO
        for instance, by_symbol in self.holdings.items():
            record = self.instances.get(instance)
            owner = record.account if record is not None else instance.partition("@")[2]
            if owner == account and symbol in by_symbol:
                total += by_symbol[symbol].qty
        return total

    def digest(self) -> str:
        """Return a SHA-256 over the whole state, equal wherever the same entries were applied."""
        # Looking at a holding creates it, and nobody journals a look: empty ones do not count.
        kept = {
            owner: held
            for owner, by_symbol in self.holdings.items()
            if (held := {symbol: holding for symbol, holding in by_symbol.items() if holding != _EMPTY})
        }
        return hashlib.sha256(_SORTED.encode(msgspec.structs.replace(self, holdings=kept))).hexdigest()

    def encode(self) -> bytes:
        """Return the state as a snapshot's data."""
        return _ENCODER.encode(self)

    @classmethod
    def decode(cls, data: bytes) -> "TradingState":
        """Return the state that `encode` wrote; raise `msgspec.DecodeError` for anything else."""
        return _DECODER.decode(data)

    # -- node and plugins ------------------------------------------------------------------------

    def _node_started(self, entry: e.NodeStarted) -> None:
        self.node, self.cell, self.epoch = entry.node, entry.cell, entry.epoch
        # Whatever was in flight when the last process ended may or may not have reached the venue.
        for order in self.orders.values():
            order.status = OrderStatus.UNKNOWN

    def _version_moved(self, entry: e.VersionMoved) -> None:
        record = self.plugin(entry.plugin)
        match entry.state:
            case e.VersionState.STAGED:
                record.staged = entry.digest
                if record.active == entry.digest:  # the node stopped while it was on probation
                    record.active = record.permanent
            case e.VersionState.ACTIVE:
                if record.active == record.permanent:
                    record.trial_from_ns, record.trial_until_ns = self.ts_ns, 0
                record.active, record.staged = entry.digest, ""
            case e.VersionState.PERMANENT:
                record.permanent = record.active = entry.digest
                record.trial_from_ns = record.trial_until_ns = 0
            case e.VersionState.REFUSED | e.VersionState.ROLLED_BACK:
                record.refused.pop(entry.digest, None)
                record.refused[entry.digest] = entry.reason
                if len(record.refused) > REFUSED_LIMIT:
                    del record.refused[next(iter(record.refused))]
                if entry.state is e.VersionState.ROLLED_BACK:
                    record.active = record.permanent
                    record.trial_until_ns = self.ts_ns
                    record.rollbacks_ns = [*record.rollbacks_ns, self.ts_ns][-ROLLBACKS_KEPT:]

    def plugin(self, name: str) -> PluginRecord:
        """Return what is known of a plugin's versions; a new, empty record is remembered."""
        record = self.plugins.get(name)
        if record is None:
            record = self.plugins[name] = PluginRecord(name)
        return record

    def _instance_revised(self, entry: e.InstanceRevised) -> None:
        self.instances[entry.instance].digest = entry.digest

    def _auto_reload_set(self, entry: e.AutoReloadSet) -> None:
        record = self.plugin(entry.plugin)
        record.is_auto = entry.is_on
        if entry.is_on:
            record.rollbacks_ns = []

    def _instance_added(self, entry: e.InstanceAdded) -> None:
        known = self.instances.get(entry.instance)
        if known is None:
            known = self.instances[entry.instance] = InstanceRecord(
                entry.instance,
                entry.number,
                entry.plugin,
                entry.digest,
                entry.account,
                entry.symbols,
                entry.params,
            )
        known.plugin, known.digest, known.params = entry.plugin, entry.digest, entry.params
        known.account, known.symbols = entry.account, entry.symbols
        self.next_instance_number = max(self.next_instance_number, entry.number + 1)

    def _instance_changed(self, entry: e.InstanceChanged) -> None:
        record = self.instances[entry.instance]
        record.state, record.reason, record.by = entry.state, entry.reason, entry.by
        if entry.state in (e.InstanceState.PAUSED, e.InstanceState.RUNNING, e.InstanceState.STOPPED):
            record.is_paused = entry.state is e.InstanceState.PAUSED and not entry.by

    def _params_changed(self, entry: e.ParamsChanged) -> None:
        self.instances[entry.instance].params = entry.params

    def _instance_configured(self, entry: e.InstanceConfigured) -> None:
        self.api_instances[entry.instance] = entry.section

    def _instance_removed(self, entry: e.InstanceRemoved) -> None:
        self.api_instances.pop(entry.instance, None)
        self.held.pop(entry.instance, None)
        self.isolated.pop(entry.instance, None)

    def _instance_held(self, entry: e.InstanceHeld) -> None:
        if entry.is_held:
            self.held[entry.instance] = entry.who
        else:
            self.held.pop(entry.instance, None)

    def _instance_isolated(self, entry: e.InstanceIsolated) -> None:
        if entry.digest:
            self.isolated[entry.instance] = entry.digest
        else:
            self.isolated.pop(entry.instance, None)

    def _maintenance_set(self, entry: e.MaintenanceSet) -> None:
        self.maintenance = entry.by if entry.is_on else ""

    def _request_served(self, entry: e.RequestServed) -> None:
        known = self.requests
        key = request_key(entry.who, entry.request_id)
        known.pop(key, None)
        known[key] = ServedRequest(entry.method, entry.digest, entry.response, self.ts_ns)
        while len(known) > REQUESTS_KEPT or self.ts_ns - known[next(iter(known))].ts_ns > REQUEST_AGE_NS:
            del known[next(iter(known))]

    def _strategy_state_saved(self, entry: e.StrategyStateSaved) -> None:
        record = self.instances[entry.instance]
        record.strategy_state = entry.data
        record.state_version = entry.state_version
        record.state_lsn = self.lsn
        unheard = self.unheard.get(entry.instance, [])
        if 0 <= entry.heard < len(unheard):
            del unheard[: entry.heard]
        else:
            self.unheard.pop(entry.instance, None)

    def _instrument_set(self, entry: e.InstrumentSet) -> None:
        self.instruments.setdefault(entry.account, {})[entry.instrument.symbol] = entry.instrument

    # -- orders ----------------------------------------------------------------------------------

    def _place_sent(self, entry: e.PlaceSent) -> Outcome:
        order = Order(
            entry.client_id,
            entry.instance,
            entry.account,
            entry.symbol,
            entry.side,
            entry.type,
            entry.time_in_force,
            entry.price,
            entry.qty,
            OrderStatus.PENDING_NEW,
            post_only=entry.post_only,
            reduce_only=entry.reduce_only,
            slot=entry.slot,
            placed_by=entry.by,
            created_ns=self.ts_ns,
            updated_ns=self.ts_ns,
        )
        self.orders[entry.client_id] = order
        return Outcome(order)

    def _amend_sent(self, entry: e.AmendSent) -> Outcome | None:
        ts_ns, orders = self.ts_ns, self.orders
        for change in entry.changes:
            order = orders[change.client_id]
            if order.status not in _AMENDABLE:
                return self._move(order, OrderEvent.AMEND_SENT)  # says which move is illegal
            order.status = _PENDING_AMEND
            order.pending_price = change.price
            order.pending_qty = change.qty
            order.updated_ns = ts_ns
        return None

    def _cancel_sent(self, entry: e.CancelSent) -> Outcome:
        return self._move(self.orders[entry.client_id], OrderEvent.CANCEL_SENT)

    def _command_refused(self, entry: e.CommandRefused) -> Outcome | None:
        order = self.orders.get(entry.client_id)
        if order is None:
            return None
        reason = f"{entry.reason}: {entry.detail}"
        if entry.action == "place":
            return self._noted(self._move(order, OrderEvent.REJECTED, reason))
        if entry.action == "amend":
            return self._noted(self._amend_refused(order, reason))
        return self._noted(self._move(order, OrderEvent.CANCEL_REFUSED, reason))

    def _order_resolved(self, entry: e.OrderResolved) -> Outcome | None:
        order = self.orders.get(entry.client_id)
        if order is None:
            return None
        before = order.status
        self._set_status(order, entry.status, entry.proof)
        return self._noted(Outcome(order, before=before))

    def _order_adopted(self, entry: e.OrderAdopted) -> Outcome:
        # A copy: the journal's record must not change with the live order.
        order = msgspec.structs.replace(entry.order, trade_ids=list(entry.order.trade_ids))
        self.retired.pop(order.client_id, None)
        self.orders[order.client_id] = order
        return self._noted(Outcome(order))

    def _fill_adopted(self, entry: e.FillAdopted) -> Outcome:
        fill = entry.fill
        known = self.adopted_trades.setdefault(fill.account, [])
        name = f"{fill.symbol} {fill.trade_id}"
        if name in known:
            return Outcome()
        fault = self._account_for(fill)
        if fault is not None:
            return Outcome(anomaly=fault)
        known.append(name)
        del known[:-ADOPTED_LIMIT]
        return self._noted(Outcome(fill=fill))

    def _reported(self, entry: e.Reported) -> Outcome:
        report = entry.report
        order = self.orders.get(report.client_id)
        if order is None:
            order = self.retired.get(report.client_id)
            if order is None:
                return Outcome(anomaly=f"unknown_order: {report.client_id} is in no journal entry")
        return self._noted(_REPORTED[type(report)](self, order, report))

    def _noted(self, outcome: Outcome) -> Outcome:
        """Keep what a strategy is to hear until its saved state has taken it in."""
        order, fill = outcome.order, outcome.fill
        if fill is not None:
            owner, client_id = fill.instance, fill.client_id
        elif order is not None and outcome.anomaly is None:
            owner, client_id = order.instance, order.client_id
        else:
            return outcome
        if owner and not is_hand(owner):  # people hear of their orders when they ask
            self.unheard.setdefault(owner, []).append(News(client_id, fill))
        return outcome

    def _accepted(self, order: Order, report: OrderAccepted) -> Outcome:
        if report.venue_id:
            order.venue_id = report.venue_id
        return self._move(order, OrderEvent.ACCEPTED)

    def _rejected(self, order: Order, report: OrderRejected) -> Outcome:
        return self._move(order, OrderEvent.REJECTED, f"{report.reason}: {report.text}")

    def _filled(self, order: Order, report: OrderFilled) -> Outcome:
        if report.trade_id in order.trade_ids:
            return Outcome(order, before=order.status)
        limit = order.qty if order.pending_qty is None else max(order.qty, order.pending_qty)
        said = f"trade {report.trade_id} of {order.client_id} says {report.qty}"
        try:
            filled = exact_add(order.filled, report.qty)
        except DecimalException:
            filled = _NOT_A_NUMBER
        if not filled.is_finite() or report.qty <= _ZERO:
            return Outcome(order, anomaly=f"bad_fill: {said}")
        if filled > limit:
            return Outcome(order, anomaly=f"overfill: {said}, filled is {order.filled} of {limit}")
        fill = fill_of(report, order.instance, order.account)
        if fill.symbol != order.symbol or fill.side is not order.side:
            return Outcome(
                order,
                anomaly=f"bad_fill: {order.client_id} is to {order.side} {order.symbol}, "
                f"and trade {fill.trade_id} is a {fill.side} of {fill.symbol}",
            )
        fault = self._account_for(fill)
        if fault is not None:
            return Outcome(order, anomaly=fault)
        order.filled = filled
        order.trade_ids.append(report.trade_id)
        if report.venue_id:
            order.venue_id = report.venue_id
        # While an amend is in flight, `limit` may be more than the venue ends up allowing: the
        # order is done only when both quantities are used up.
        event = OrderEvent.FILLED_ALL if filled == limit else OrderEvent.FILLED_PART
        return self._move(order, event, fill=fill)

    def _cancelled(self, order: Order, report: OrderCancelled) -> Outcome:
        return self._move(order, OrderEvent.CANCELLED, report.reason)

    def _expired(self, order: Order, report: OrderExpired) -> Outcome:
        return self._move(order, OrderEvent.EXPIRED, report.reason)

    def _amended(self, order: Order, report: OrderAmended) -> Outcome:
        if order.status is OrderStatus.PENDING_AMEND and (
            report.price != order.pending_price or report.qty != order.pending_qty
        ):
            # The answer to an earlier amend that was given up on: the one in flight is still to come.
            order.price, order.qty = report.price, report.qty
            return Outcome(order, before=order.status)
        outcome = self._move(order, OrderEvent.AMENDED)
        if outcome.anomaly is None and not order.status.is_terminal:
            order.price, order.qty = report.price, report.qty
            order.pending_price = order.pending_qty = None
            if order.filled >= order.qty:  # the part that was to stay filled meanwhile
                self._set_status(order, OrderStatus.FILLED, "amended to what was filled")
        return outcome

    def _amend_rejected(self, order: Order, report: AmendRejected) -> Outcome:
        reason = f"{report.reason}: {report.text}"
        if report.reason is RejectReason.UNKNOWN_ORDER:
            return self._move(order, OrderEvent.ORDER_GONE, reason)
        return self._amend_refused(order, reason)

    def _amend_refused(self, order: Order, reason: str) -> Outcome:
        outcome = self._move(order, OrderEvent.AMEND_REFUSED, reason)
        order.pending_price = order.pending_qty = None
        if order.filled >= order.qty and not order.status.is_terminal:
            self._set_status(order, OrderStatus.FILLED, "amend refused, all filled")
        return outcome

    def _cancel_rejected(self, order: Order, report: CancelRejected) -> Outcome:
        gone = report.reason is RejectReason.UNKNOWN_ORDER
        event = OrderEvent.ORDER_GONE if gone else OrderEvent.CANCEL_REFUSED
        return self._move(order, event, f"{report.reason}: {report.text}")

    def _unanswered(self, order: Order, report: RequestUnanswered) -> Outcome:
        return self._move(order, OrderEvent.UNANSWERED, report.text)

    def _snapshot(self, order: Order, report: OrderSnapshot) -> Outcome:
        if report.venue_id:
            order.venue_id = report.venue_id
        if report.status.is_terminal:
            before = order.status
            if not before.is_terminal:
                if report.qty >= order.filled:  # an amend may have taken effect that we heard nothing of
                    order.price, order.qty = report.price, report.qty
                    order.pending_price = order.pending_qty = None
                if report.filled <= order.filled:  # else its fills are asked for first: host/core/doubts.py
                    self._set_status(order, report.status, "asked by client id")
            return Outcome(order, before=before)
        if report.qty <= order.filled:
            return Outcome(order, before=order.status)  # taken before the fills that we know
        outcome = self._move(order, OrderEvent.FOUND_OPEN)
        if order.status in (OrderStatus.OPEN, OrderStatus.PARTIALLY_FILLED):
            order.price, order.qty = report.price, report.qty
            order.pending_price = order.pending_qty = None
        return outcome

    def _not_found(self, order: Order, _report: OrderNotFound) -> Outcome:
        return Outcome(order, before=order.status)  # proves nothing by itself: see host/core/doubts.py

    def _move(self, order: Order, event: OrderEvent, reason: str = "", fill: Fill | None = None) -> Outcome:
        before = order.status
        after = next_status(before, event, order.filled)
        if after is None:
            return Outcome(
                order, fill, f"illegal_move: {order.client_id} is {before}, {event.name} came", before
            )
        self._set_status(order, after, reason)
        return Outcome(order, fill, None, before)

    def _set_status(self, order: Order, status: OrderStatus, reason: str) -> None:
        was_live = not order.status.is_terminal
        order.status = status
        order.updated_ns = self.ts_ns
        if reason:
            order.reason = reason
        if was_live and status.is_terminal:
            self.orders.pop(order.client_id, None)
            self.retired[order.client_id] = order
            if len(self.retired) > RETIRED_LIMIT:
                del self.retired[next(iter(self.retired))]

    # -- accounts --------------------------------------------------------------------------------

    def _account_for(self, fill: Fill) -> str | None:
        """Book a fill; or change nothing and return why it cannot be booked."""
        instrument = self.instruments.get(fill.account, {}).get(fill.symbol)
        if instrument is None:
            return f"unknown_instrument: trade {fill.trade_id} is in {fill.symbol}, never listed before"
        owner = fill.instance or f"{_NOBODY}@{fill.account}"
        touched = [self.holding(owner, fill.symbol)]
        if instrument.kind is not InstrumentKind.SPOT:
            # Venues net the instances of one account: the profit that they pay out is the net one's.
            touched.append(self._net_holding(fill.account, fill.symbol))
        booked = [msgspec.structs.replace(holding, fees=dict(holding.fees)) for holding in touched]
        balances = self.balances.setdefault(fill.account, {})
        side, price, qty, fee, fee_currency = fill.side, fill.price, fill.qty, fill.fee, fill.fee_currency
        try:
            for holding in booked:
                realised = apply_fill(holding, instrument, side, price, qty, fee, fee_currency)
            changes = balance_changes(instrument, side, price, qty, fee, fee_currency, realised)
            after = {
                currency: exact_add(balances.get(currency, _ZERO), change)
                for currency, change in changes.items()
            }
        except (AccountingError, DecimalException) as error:
            return f"bad_fill: trade {fill.trade_id} of {fill.client_id}: {error}"
        for holding, new in zip(touched, booked, strict=True):
            for name in Holding.__struct_fields__:
                setattr(holding, name, getattr(new, name))
        balances.update(after)
        self.fills_booked[fill.account] = self.fills_booked.get(fill.account, 0) + 1
        if fill.ts_ns > self.last_fill_ns.get(fill.account, 0):
            self.last_fill_ns[fill.account] = fill.ts_ns
        self.last_fill_lsn = self.lsn
        return None

    def _net_holding(self, account: str, symbol: str) -> Holding:
        return self.net_holdings.setdefault(account, {}).setdefault(symbol, Holding())

    def _account_reported(self, entry: e.AccountReported) -> None:
        self.balances[entry.account] = {b.currency: b.total for b in entry.snapshot.balances}
        self.venue_positions[entry.account] = {p.symbol: p for p in entry.snapshot.positions}
        for position in entry.snapshot.positions:
            net = self.net_holdings.get(entry.account, {}).get(position.symbol)
            if net is not None and net.qty == position.qty:
                instrument = self.instruments[entry.account][position.symbol]
                if not _is_about(average_price(net, instrument), position.entry_price):
                    # Fills were told in another order than they happened. The profit that is in these
                    # balances must not be counted again when the position is closed.
                    net.open_cost = signed_value(instrument, position.entry_price, position.qty)

    def _position_adjusted(self, entry: e.PositionAdjusted) -> Outcome | None:
        instrument = self.instruments.get(entry.account, {}).get(entry.symbol)
        if instrument is None or not entry.qty:
            return None
        owner = entry.instance or f"{_NOBODY}@{entry.account}"
        side = Side.BUY if entry.qty > _ZERO else Side.SELL
        qty = entry.qty.copy_abs()
        try:
            apply_fill(self.holding(owner, entry.symbol), instrument, side, entry.price, qty)
            apply_fill(self._net_holding(entry.account, entry.symbol), instrument, side, entry.price, qty)
        except AccountingError as error:
            return Outcome(anomaly=f"bad_adjustment: {error}")
        return None

    def _equity_marked(self, entry: e.EquityMarked) -> None:
        # The first mark of a UTC day is where that day's profit starts from.
        start_day(self.holding(entry.instance, entry.symbol), self.ts_ns, entry.total)

    def _kill_switch_set(self, entry: e.KillSwitchSet) -> None:
        if entry.is_on:
            self.kill_switches[entry.scope] = entry.reason
        else:
            self.kill_switches.pop(entry.scope, None)

    def _flatten_set(self, entry: e.FlattenSet) -> None:
        if entry.is_on:
            self.flattening[entry.scope] = entry.reason
        else:
            self.flattening.pop(entry.scope, None)

    def _risk_limits_set(self, entry: e.RiskLimitsSet) -> None:
        if entry.limits:
            self.risk_overrides[entry.scope] = RiskOverride(
                entry.limits, entry.configured, entry.by, self.ts_ns
            )
        else:
            self.risk_overrides.pop(entry.scope, None)

    def _no_change(self, _entry: e.Entry) -> None:
        return None


_PENDING_AMEND: Final = OrderStatus.PENDING_AMEND
_AMENDABLE: Final = tuple(
    status for status, row in TRANSITIONS.items() if row.get(OrderEvent.AMEND_SENT) is _PENDING_AMEND
)
"""The table's column for the most frequent move of a market maker: this is where it starts from."""


def _is_about(ours: Decimal, theirs: Decimal) -> bool:
    """Return whether an average price is the venue's, which may be rounded or not told at all."""
    return theirs <= _ZERO or abs(ours - theirs) <= theirs * _SAME_PRICE


_SAME_PRICE: Final = Decimal("1E-6")
_EMPTY: Final = Holding()
_ENCODER = msgspec.msgpack.Encoder(decimal_format="string")
_SORTED = msgspec.msgpack.Encoder(decimal_format="string", order="deterministic")
_DECODER = msgspec.msgpack.Decoder(TradingState)

_APPLY: Final[dict[type[Any], Callable[[TradingState, Any], Outcome | None]]] = {
    e.NodeStarted: TradingState._node_started,
    e.NodeStopped: TradingState._no_change,
    e.PluginLoaded: TradingState._no_change,
    e.StageReported: TradingState._no_change,
    e.VersionMoved: TradingState._version_moved,
    e.InstanceRevised: TradingState._instance_revised,
    e.AutoReloadSet: TradingState._auto_reload_set,
    e.InstanceAdded: TradingState._instance_added,
    e.InstanceChanged: TradingState._instance_changed,
    e.TriggerFired: TradingState._no_change,
    e.ParamsChanged: TradingState._params_changed,
    e.InstanceConfigured: TradingState._instance_configured,
    e.InstanceRemoved: TradingState._instance_removed,
    e.InstanceHeld: TradingState._instance_held,
    e.InstanceIsolated: TradingState._instance_isolated,
    e.MaintenanceSet: TradingState._maintenance_set,
    e.RequestServed: TradingState._request_served,
    e.ConfigApplied: TradingState._no_change,
    e.StrategyStateSaved: TradingState._strategy_state_saved,
    e.InstrumentSet: TradingState._instrument_set,
    e.PlaceSent: TradingState._place_sent,
    e.AmendSent: TradingState._amend_sent,
    e.CancelSent: TradingState._cancel_sent,
    e.CommandRefused: TradingState._command_refused,
    e.Reported: TradingState._reported,
    e.OrderResolved: TradingState._order_resolved,
    e.OrderAdopted: TradingState._order_adopted,
    e.FillAdopted: TradingState._fill_adopted,
    e.AccountReported: TradingState._account_reported,
    e.PositionAdjusted: TradingState._position_adjusted,
    e.EquityMarked: TradingState._equity_marked,
    e.KillSwitchSet: TradingState._kill_switch_set,
    e.FlattenSet: TradingState._flatten_set,
    e.RiskLimitsSet: TradingState._risk_limits_set,
    e.ConnectionReported: TradingState._no_change,
    e.Alert: TradingState._no_change,
    e.AuditAnchored: TradingState._no_change,
    e.StateDigest: TradingState._no_change,
}

_REPORTED: Final[dict[type[Any], Callable[[TradingState, Order, Any], Outcome]]] = {
    OrderAccepted: TradingState._accepted,
    OrderRejected: TradingState._rejected,
    OrderFilled: TradingState._filled,
    OrderCancelled: TradingState._cancelled,
    OrderExpired: TradingState._expired,
    OrderAmended: TradingState._amended,
    AmendRejected: TradingState._amend_rejected,
    CancelRejected: TradingState._cancel_rejected,
    RequestUnanswered: TradingState._unanswered,
    OrderSnapshot: TradingState._snapshot,
    OrderNotFound: TradingState._not_found,
}
