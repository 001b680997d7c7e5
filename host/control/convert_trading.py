"""Orders, fills, positions, balances and books as messages; and what a request says, as ours."""

import re
from collections.abc import Mapping
from decimal import Decimal
from typing import Final, TypeVar

from google.protobuf.timestamp_pb2 import Timestamp

from host.api import Instrument, Liquidity, Order, OrderStatus, OrderType, Side, TimeInForce
from host.control.etags import etag_of
from host.control.plain import SECOND_NS, timestamp
from host.control.reasons import Refused
from host.core.accounting import Holding, average_price, unrealised
from host.core.books import Book
from host.runtime.fill_history import BookedFill
from tandem.v1 import common_pb2
from tandem.v1 import trading_pb2 as pb

__all__ = [
    "MAX_DIGITS",
    "SIDES",
    "STATUSES",
    "TIMES_IN_FORCE",
    "TYPES",
    "balance_message",
    "book_message",
    "decimal_of",
    "enum_of",
    "fill_message",
    "order_etag",
    "order_message",
    "position_message",
    "time_ns",
]

MAX_DIGITS: Final = 40
"""As many characters as any price or quantity of any venue needs; more is an attack on our arithmetic."""
_NUMBER: Final = re.compile(r"-?[0-9]+(\.[0-9]+)?")

SIDES: Final = {Side.BUY: common_pb2.SIDE_BUY, Side.SELL: common_pb2.SIDE_SELL}
TYPES: Final = {OrderType.LIMIT: pb.ORDER_TYPE_LIMIT, OrderType.MARKET: pb.ORDER_TYPE_MARKET}
TIMES_IN_FORCE: Final = {
    TimeInForce.GTC: pb.TIME_IN_FORCE_GTC,
    TimeInForce.IOC: pb.TIME_IN_FORCE_IOC,
    TimeInForce.FOK: pb.TIME_IN_FORCE_FOK,
}
STATUSES: Final = {status: pb.OrderStatus.Value(f"ORDER_STATUS_{status.name}") for status in OrderStatus}
_LIQUIDITIES: Final = {Liquidity.MAKER: pb.LIQUIDITY_MAKER, Liquidity.TAKER: pb.LIQUIDITY_TAKER}
T = TypeVar("T")


# -- what a request says -------------------------------------------------------------------------


def decimal_of(field: str, text: str) -> Decimal | None:
    """Return a number that is written in a request, None for none; raise `Refused`."""
    if not text:
        return None
    # Not whatever `Decimal` takes: NaN, other scripts' digits and huge exponents are nothing to trade with.
    if len(text) > MAX_DIGITS or not _NUMBER.fullmatch(text):
        raise Refused.field(
            field, f'expected a decimal number such as "0.01", was {text[: MAX_DIGITS + 1]!r}'
        )
    return Decimal(text)


def enum_of(field: str, number: int, known: Mapping[T, int], unset: T | None = None) -> T:
    """Return what an enum's number stands for; `unset` where it is unspecified. Raises `Refused`."""
    if number == 0 and unset is not None:
        return unset
    for ours, theirs in known.items():
        if theirs == number:
            return ours
    numbers = ", ".join(f"{theirs} ({ours})" for ours, theirs in known.items())
    raise Refused.field(field, f"expected one of {numbers}, was {number}")


def time_ns(value: Timestamp) -> int:
    """Return a time in nanoseconds since the Unix epoch."""
    return value.seconds * SECOND_NS + value.nanos


# -- what an answer says -------------------------------------------------------------------------


def order_etag(order: Order) -> str:
    """Return what changes whenever anything of an order does."""
    return etag_of(order)


def order_message(order: Order) -> pb.Order:
    """Return an order as a message."""
    return pb.Order(
        name=f"orders/{order.client_id}",
        client_id=order.client_id,
        instance=f"instances/{order.instance}",
        account=f"accounts/{order.account}",
        symbol=order.symbol,
        side=SIDES[order.side],
        type=TYPES[order.type],
        time_in_force=TIMES_IN_FORCE[order.time_in_force],
        price=_text(order.price),
        qty=_text(order.qty),
        filled=_text(order.filled),
        status=STATUSES[order.status],
        post_only=order.post_only,
        reduce_only=order.reduce_only,
        level=order.slot,
        venue_id=order.venue_id,
        pending_price=_text(order.pending_price),
        pending_qty=_text(order.pending_qty),
        create_time=timestamp(order.created_ns),
        update_time=timestamp(order.updated_ns),
        reason=order.reason,
        placed_by=order.placed_by,
        etag=order_etag(order),
    )


def fill_message(booked: BookedFill) -> pb.Fill:
    """Return a fill as a message."""
    fill = booked.fill
    return pb.Fill(
        name=f"fills/{fill.trade_id}",
        order=f"orders/{fill.client_id}",
        instance=f"instances/{fill.instance}" if fill.instance else "",
        account=f"accounts/{fill.account}",
        symbol=fill.symbol,
        side=SIDES[fill.side],
        price=_text(fill.price),
        qty=_text(fill.qty),
        fee=_text(fill.fee),
        fee_currency=fill.fee_currency,
        liquidity=_LIQUIDITIES[fill.liquidity],
        trade_id=fill.trade_id,
        time=timestamp(fill.ts_ns),
        lsn=booked.lsn,
    )


def position_message(
    instance: str, account: str, instrument: Instrument, holding: Holding, mark: Decimal | None
) -> pb.Position:
    """Return what an instance holds in one symbol as a message; `mark` is what it is valued at."""
    return pb.Position(
        name=f"instances/{instance}/positions/{instrument.symbol}",
        instance=f"instances/{instance}",
        account=f"accounts/{account}",
        symbol=instrument.symbol,
        qty=_text(holding.qty),
        average_price=_text(average_price(holding, instrument)),
        mark_price=_text(mark),
        realised=_text(holding.realised),
        unrealised="" if mark is None else _text(unrealised(holding, instrument, mark)),
        fees={currency: _text(fee) for currency, fee in holding.fees.items()},
        currency=instrument.settle,
    )


def balance_message(account: str, currency: str, total: Decimal) -> pb.Balance:
    """Return a balance as a message."""
    return pb.Balance(
        name=f"accounts/{account}/balances/{currency}",
        account=f"accounts/{account}",
        currency=currency,
        total=_text(total),
    )


def book_message(account: str, book: Book, instrument: Instrument | None, depth: int) -> pb.Book:
    """Return up to `depth` levels of each side of a book as a message.

    Where its depth cannot be trusted only the best of each side is in it, and `fault` says so.
    """
    message = pb.Book(
        name=f"accounts/{account}/books/{book.symbol}",
        account=f"accounts/{account}",
        symbol=book.symbol,
        fault=book.top_fault or (book.depth_fault if depth > 1 else ""),
    )
    if instrument is not None:
        message.tick_size, message.lot_size = _text(instrument.tick_size), _text(instrument.lot_size)
    top = book.top
    if top is not None:
        if top.ts_event:
            message.event_time.CopyFrom(timestamp(top.ts_event))
        message.receive_time.CopyFrom(timestamp(top.ts_recv))
    bids, asks = book.levels(depth)
    if top is not None and (depth == 1 or not bids or not asks or book.depth_fault):
        bids, asks = [(top.bid, top.bid_size)], [(top.ask, top.ask_size)]
    for levels, target in ((bids, message.bids), (asks, message.asks)):
        for price, size in levels:
            target.add(price=price, size=size)
    return message


def _text(value: Decimal | None) -> str:
    """Return a number in plain notation, empty for none."""
    return "" if value is None else f"{value:f}"
