"""Bring the accounts of a venue back from its log."""

from collections.abc import Mapping
from decimal import Decimal

from msgspec import Struct

from host.api import AmendOrder, Instrument, OrderStatus, PlaceOrder
from venue.accounts import Account
from venue.client import Client
from venue.ledger import (
    AccountOpened,
    Funded,
    Ledger,
    LedgerError,
    LedgerLine,
    OrderEnded,
    RequestSeen,
    Traded,
)
from venue.market import VenueOrder
from venue.records import OrderRecord

__all__ = ["RESTARTED", "Restored", "restore"]

RESTARTED = "venue restarted"
"""Why the orders that were open when the venue died are expired.

The market they rested in is gone, and a new one may trade anywhere: putting them back could fill
them at prices that nobody offered.
"""

_ACCEPTED = "accepted"


class Restored(Struct):
    """What a log leads to. `last_prices` holds the price of each symbol's latest fill."""

    clients: dict[str, Client]
    last_order_id: int = 0
    last_trade_id: int = 0
    last_prices: dict[str, Decimal] = {}


def restore(ledger: Ledger, instruments: Mapping[str, Instrument], now_ns: int) -> Restored:
    """Fold the log into accounts, orders, fills and used ids, and expire what was left open.

    Raises `LedgerError` at a line that is damaged or that names an account or symbol which is not
    there.
    """
    restored = Restored({})
    for line in ledger.history():
        try:
            _apply(restored, line, instruments)
        except KeyError as error:
            raise LedgerError(
                f"{ledger.path}: a line of kind {type(line).__name__} names {error}, which this venue does not "
                f"have; list the symbol again or move the file away to start an empty venue"
            ) from error
    for name, client in restored.clients.items():
        for record in client.records.open():
            order = record.order
            order.is_open = False
            client.records.close(order.client_id, OrderStatus.EXPIRED, now_ns)
            ledger.write(
                OrderEnded(now_ns, name, order.client_id, OrderStatus.EXPIRED, RESTARTED, order.filled)
            )
    ledger.flush()
    return restored


def _apply(
    restored: Restored,
    line: LedgerLine,
    instruments: Mapping[str, Instrument],
) -> None:
    if isinstance(line, AccountOpened):
        restored.clients[line.account] = Client(Account(line.account, line.balances))
        return
    client = restored.clients[line.account]
    if isinstance(line, RequestSeen):
        _apply_request(restored, client, line)
    elif isinstance(line, Funded):
        client.account.pay(line.currency, line.amount)
    elif isinstance(line, Traded):
        fill = line.fill
        instrument = instruments[fill.symbol]
        realised = client.account.apply_fill(
            instrument, fill.side, fill.price, fill.qty, fill.fee, fill.fee_currency
        )
        client.records.add_fill(fill, realised)
        restored.last_trade_id = max(restored.last_trade_id, int(fill.trade_id))
        restored.last_prices[fill.symbol] = fill.price
        record = _open(client, fill.client_id)
        record.order.filled += fill.qty
        record.booked += fill.qty
        record.quote_filled += fill.price * fill.qty
        if record.order.filled == record.order.qty:
            record.order.is_open = False
            client.records.close(fill.client_id, None, fill.ts_ns)
    else:
        _open(client, line.client_id).order.is_open = False
        client.records.close(line.client_id, line.status, line.ts_ns)


def _apply_request(restored: Restored, client: Client, line: RequestSeen) -> None:
    command = line.command
    if isinstance(command, PlaceOrder):
        if not client.records.is_used(command.client_id):
            client.records.use(command.client_id)
        if line.verdict == _ACCEPTED:
            client.records.add(_order_of(line, command))
            restored.last_order_id = max(restored.last_order_id, line.order_id)
    elif isinstance(command, AmendOrder) and line.verdict == _ACCEPTED:
        order = _open(client, command.client_id).order
        order.price = command.price
        order.qty = command.qty


def _order_of(line: RequestSeen, place: PlaceOrder) -> VenueOrder:
    return VenueOrder(
        line.order_id,
        line.account,
        place.client_id,
        place.symbol,
        place.side,
        place.type,
        place.time_in_force,
        place.price,
        place.qty,
        post_only=place.post_only,
        reduce_only=place.reduce_only,
        created_ns=line.ts_ns,
    )


def _open(client: Client, client_id: str) -> OrderRecord:
    record = client.records.find_open(client_id)
    if record is None:
        raise KeyError(client_id)
    return record
