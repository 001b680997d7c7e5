"""What one batch of journal entries will write: each row once, however often it changed."""

from decimal import Decimal
from typing import Any, Final

from msgspec.structs import asdict
from sqlalchemy import Connection, Table, delete

from host.api import Balance, Order
from host.core import entries as e
from host.core.state import Outcome, TradingState
from host.store import schema
from host.store.rows import fill_row, instance_row, instrument_row, order_row, position_row
from host.store.statements import Row, insert_new, upsert

__all__ = ["Batch"]

_ZERO: Final = Decimal(0)
_ANOMALY: Final = "anomaly"


class _OrderChange:
    __slots__ = ("done_lsn", "first_lsn", "lsn", "order")

    def __init__(self, order: Order, lsn: int) -> None:
        self.order = order
        self.first_lsn = lsn
        self.done_lsn: int | None = None
        self.lsn = lsn


class Batch:
    """Collects the changes of consecutive records and writes them in a handful of statements.

    `locked` is what the venues last said is locked, by account and currency; it is kept up to date.
    """

    def __init__(self, state: TradingState, locked: dict[tuple[str, str], Decimal]) -> None:
        self._state = state
        self._locked = locked
        self._orders: dict[str, _OrderChange] = {}
        self._holdings: dict[tuple[str, str], int] = {}
        self._instances: dict[str, int] = {}
        self._instruments: dict[tuple[str, str], int] = {}
        self._balances: dict[str, int] = {}
        self._appended: dict[Table, list[Row]] = {}

    def add(self, record: e.Record, outcome: Outcome | None) -> None:
        """Take in what the state made of `record`."""
        entry, lsn = record.entry, record.lsn
        if outcome is not None:
            self._add_outcome(record, outcome)
        match entry:
            case e.InstanceAdded() | e.InstanceChanged():
                self._instances[entry.instance] = lsn
                if isinstance(entry, e.InstanceAdded):
                    self._add_params(record, entry.instance, entry.params, "config")
                else:
                    self._add_event(record, entry.instance, code=entry.state, text=entry.reason)
            case e.ParamsChanged():
                self._instances[entry.instance] = lsn
                self._add_params(record, entry.instance, entry.params, entry.who)
            case e.AmendSent():
                for change in entry.changes:
                    self._add_order(self._state.orders[change.client_id], lsn)
            case e.InstrumentSet():
                self._instruments[entry.account, entry.instrument.symbol] = lsn
            case e.AccountReported():
                self._add_balances(record, entry.account, entry.snapshot.balances)
            case e.PositionAdjusted():
                owner = entry.instance or f"@{entry.account}"
                self._holdings[owner, entry.symbol] = lsn
                text = f"{entry.qty} at {entry.price}: {entry.reason}"
                self._add_event(record, entry.instance, entry.account, entry.symbol, text=text)
            case e.EquityMarked():
                self._holdings[entry.instance, entry.symbol] = lsn  # it may open the holding's day
                self._append(schema.equity, {"lsn": lsn, "ts_ns": record.ts_ns, **asdict(entry)})
            case _:
                self._add_notice(record)

    def add_everything(self, lsn: int) -> None:
        """Take in the whole state as of entry `lsn`, for tables that start from a snapshot."""
        state = self._state
        for order in state.retired.values():
            self._orders[order.client_id] = change = _OrderChange(order, lsn)
            change.done_lsn = lsn
        for order in state.orders.values():
            self._orders[order.client_id] = _OrderChange(order, lsn)
        for instance, by_symbol in state.holdings.items():
            self._holdings.update({(instance, symbol): lsn for symbol in by_symbol})
        self._instances.update(dict.fromkeys(state.instances, lsn))
        for account, instruments in state.instruments.items():
            self._instruments.update({(account, symbol): lsn for symbol in instruments})
        self._balances.update(dict.fromkeys(state.balances, lsn))

    def write(self, connection: Connection) -> None:
        """Write everything in the caller's transaction."""
        state = self._state
        changes = self._orders.values()
        upsert(
            connection,
            schema.orders,
            [order_row(change.order, change.first_lsn, change.done_lsn, change.lsn) for change in changes],
        )
        upsert(
            connection,
            schema.positions,
            [
                position_row(state, instance, symbol, lsn)
                for (instance, symbol), lsn in self._holdings.items()
            ],
        )
        upsert(
            connection,
            schema.instances,
            [instance_row(state.instances[name], lsn) for name, lsn in self._instances.items()],
        )
        upsert(
            connection,
            schema.instruments,
            [
                instrument_row(account, state.instruments[account][symbol], lsn)
                for (account, symbol), lsn in self._instruments.items()
            ],
        )
        self._write_balances(connection)
        for table, rows in self._appended.items():
            insert_new(connection, table, rows)

    def _write_balances(self, connection: Connection) -> None:
        for account, lsn in self._balances.items():
            table = schema.balances
            totals = self._state.balances.get(account, {})
            gone = delete(table).where(table.c.account == account, table.c.currency.not_in(list(totals)))
            connection.execute(gone)
            rows = [
                {
                    "account": account,
                    "currency": currency,
                    "total": total,
                    "locked": self._locked.get((account, currency), _ZERO),
                    "lsn": lsn,
                }
                for currency, total in totals.items()
            ]
            upsert(connection, table, rows)

    def _add_outcome(self, record: e.Record, outcome: Outcome) -> None:
        order, fill, lsn = outcome.order, outcome.fill, record.lsn
        if order is not None:
            self._add_order(order, lsn)
        if fill is not None:
            self._append(schema.fills, fill_row(fill, lsn))
            self._holdings[fill.instance or f"@{fill.account}", fill.symbol] = lsn
            self._balances[fill.account] = lsn
        if outcome.anomaly is not None:
            code, _, text = outcome.anomaly.partition(": ")
            row = self._event(record, _ANOMALY, code=code, text=text)
            if order is not None:
                row.update(instance=order.instance, account=order.account, symbol=order.symbol)
            self._append(schema.events, row)

    def _add_order(self, order: Order, lsn: int) -> None:
        change = self._orders.get(order.client_id)
        if change is None:
            change = self._orders[order.client_id] = _OrderChange(order, lsn)
        change.lsn = lsn
        if change.done_lsn is None and order.status.is_terminal:
            change.done_lsn = lsn

    def _add_params(self, record: e.Record, instance: str, params: bytes, who: str) -> None:
        row = {"lsn": record.lsn, "ts_ns": record.ts_ns, "instance": instance}
        self._append(schema.params_history, {**row, "params": params.decode(), "who": who})

    def _add_balances(self, record: e.Record, account: str, balances: tuple[Balance, ...]) -> None:
        self._balances[account] = record.lsn
        for key in [key for key in self._locked if key[0] == account]:
            del self._locked[key]
        for balance in balances:
            self._locked[account, balance.currency] = balance.locked
            row = {"lsn": record.lsn, "account": account, "ts_ns": record.ts_ns, **asdict(balance)}
            self._append(schema.balance_history, row)

    def _add_notice(self, record: e.Record) -> None:
        match record.entry:
            case e.NodeStarted() as entry:
                # Every order that was in flight when the last process ended became unknown.
                for order in self._state.orders.values():
                    self._add_outcome(record, Outcome(order))
                text = f"node {entry.node}, cell {entry.cell}, version {entry.host_version}"
                self._add_event(record, code=str(entry.epoch), text=text)
            case e.NodeStopped() as entry:
                self._add_event(record, text=entry.reason)
            case e.PluginLoaded() as entry:
                self._add_event(record, code=entry.plugin, text=f"{entry.path} {entry.digest}")
            case e.StageReported() as entry:
                text = f"{entry.digest[:12]} {entry.stage} {entry.outcome} in {entry.duration_us} µs: {entry.detail}"
                self._add_event(record, code=entry.plugin, text=text)
            case e.VersionMoved() as entry:
                text = f"{entry.digest[:12]} is {entry.state}: {entry.reason}"
                self._add_event(record, code=entry.plugin, text=text)
            case e.InstanceRevised() as entry:
                self._instances[entry.instance] = record.lsn
                self._add_event(record, entry.instance, code=entry.digest[:12], text=entry.reason)
            case e.AutoReloadSet() as entry:
                state = "on" if entry.is_on else "off"
                self._add_event(record, code=entry.plugin, text=f"automatic reload {state}: {entry.reason}")
            case e.InstanceConfigured() | e.InstanceRemoved() as entry:
                what = "configured" if isinstance(entry, e.InstanceConfigured) else "removed"
                self._add_event(record, entry.instance, code=entry.who, text=f"{what} by the control API")
            case e.InstanceHeld() as entry:
                text = "stopped until it is started" if entry.is_held else "may start"
                self._add_event(record, entry.instance, code=entry.who, text=text)
            case e.InstanceIsolated() as entry:
                self._add_event(record, entry.instance, code=entry.digest[:12], text=entry.reason)
            case e.TriggerFired() as entry:
                self._add_event(record, entry.instance, code=entry.trigger)
            case e.MaintenanceSet() as entry:
                self._add_event(record, code=entry.by, text=f"maintenance {'on' if entry.is_on else 'off'}")
            case e.ConfigApplied() as entry:
                self._add_event(record, text="; ".join(entry.changes))
            case e.CommandRefused() as entry:
                text = f"{entry.action} {entry.client_id}".rstrip() + f": {entry.detail}"
                self._add_event(record, entry.instance, entry.account, entry.symbol, entry.reason, text)
            case e.OrderResolved() as entry:
                self._add_event(record, code=entry.status, text=f"{entry.client_id}: {entry.proof}")
            case e.KillSwitchSet() as entry:
                text = f"{'on' if entry.is_on else 'off'}: {entry.reason}"
                self._add_event(record, code=entry.scope, text=text)
            case e.FlattenSet() as entry:
                text = f"{'begun' if entry.is_on else 'over'}: {entry.reason}"
                self._add_event(record, code=entry.scope, text=text)
            case e.RiskLimitsSet() as entry:
                limits = entry.limits.decode() or "as configured"
                self._add_event(record, code=entry.scope, text=f"{limits} by {entry.by}")
            case e.ConnectionReported() as entry:
                change = entry.change
                text = f"{'up' if change.is_up else 'down'}: {change.text}"
                self._add_event(record, account=entry.account, code=change.channel, text=text)
            case e.Alert() as entry:
                self._add_event(record, entry.instance, code=entry.kind, text=entry.text)
            case _:
                pass  # orders came with their outcome; strategy state and digests have no rows

    def _add_event(
        self,
        record: e.Record,
        instance: str = "",
        account: str = "",
        symbol: str = "",
        code: str = "",
        text: str = "",
    ) -> None:
        kind = str(record.entry.__struct_config__.tag)
        row = self._event(record, kind, instance, account, symbol, code, text)
        self._append(schema.events, row)

    @staticmethod
    def _event(
        record: e.Record,
        kind: str,
        instance: str = "",
        account: str = "",
        symbol: str = "",
        code: str = "",
        text: str = "",
    ) -> Row:
        return {
            "lsn": record.lsn,
            "ts_ns": record.ts_ns,
            "kind": kind,
            "instance": instance,
            "account": account,
            "symbol": symbol,
            "code": code,
            "text": text,
        }

    def _append(self, table: Table, row: dict[str, Any]) -> None:
        rows = self._appended.get(table)
        if rows is None:
            rows = self._appended[table] = []
        rows.append(row)
