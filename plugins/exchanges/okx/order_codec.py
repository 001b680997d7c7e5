"""Order and execution rows of OKX, into what the host calls them."""

from decimal import Decimal
from typing import Final

from host.api import InstrumentKind, Liquidity, OrderFilled, OrderSnapshot, OrderStatus, Side

from .frames import BadFrame, ExecutionRow, OrderRow, amount
from .market_codec import MS
from .products import Listing

__all__ = [
    "ends_by_itself",
    "execution_of",
    "fill_of",
    "is_live",
    "is_trade",
    "price_of",
    "side_of",
    "snapshot_of",
    "time_ns",
]

_SIDES: Final = {"buy": Side.BUY, "sell": Side.SELL}
_STATES: Final = {
    "live": OrderStatus.OPEN,
    "partially_filled": OrderStatus.PARTIALLY_FILLED,
    "filled": OrderStatus.FILLED,
    "canceled": OrderStatus.CANCELLED,
    "mmp_canceled": OrderStatus.CANCELLED,
}
_LIQUIDITY: Final = {"M": Liquidity.MAKER, "T": Liquidity.TAKER}
_UNPRICED: Final = frozenset({"market", "optimal_limit_ioc"})
_NEVER_REST: Final = frozenset({"market", "optimal_limit_ioc", "ioc", "fok"})
_NO_TRADE: Final = frozenset({"", "0"})


def side_of(text: str) -> Side:
    """Return which side; raise `BadFrame` for neither."""
    try:
        return _SIDES[text]
    except KeyError:
        raise BadFrame("bad side", f"expected buy or sell, was {text!r}") from None


def is_live(row: OrderRow) -> bool:
    """Return whether the order may still trade; raise `BadFrame` for a state that is not known."""
    return not _status(row).is_terminal


def _status(row: OrderRow) -> OrderStatus:
    try:
        return _STATES[row.state]
    except KeyError:
        raise BadFrame(
            "unknown order state", f"expected one of {', '.join(_STATES)}, was {row.state!r}"
        ) from None


def ends_by_itself(row: OrderRow) -> bool:
    """Return whether it is of a type that never rests: what is not filled at once is cancelled."""
    return row.ord_type in _NEVER_REST


def price_of(row: OrderRow) -> Decimal | None:
    """Return an order's limit; None for a market order. Raises `BadFrame`."""
    return None if row.ord_type in _UNPRICED or not row.px else amount(row.px)


def time_ns(text: str) -> int:
    """Read the venue's milliseconds as nanoseconds; 0 where it sends none. Raises `BadFrame`."""
    if not text:
        return 0
    if not (text.isascii() and text.isdigit()):
        raise BadFrame("bad time", f"expected milliseconds, was {text!r}")
    return int(text) * MS


def snapshot_of(listing: Listing, row: OrderRow, asked_ns: int) -> OrderSnapshot:
    """Return the venue's view of an order, as true as of when it was asked for. Raises `BadFrame`."""
    filled = listing.qty(row.acc_fill_sz)
    status = _status(row)
    if not status.is_terminal:
        status = OrderStatus.PARTIALLY_FILLED if filled > 0 else OrderStatus.OPEN
    return OrderSnapshot(
        row.cl_ord_id,
        row.ord_id,
        listing.symbol,
        side_of(row.side),
        price_of(row),
        filled if row.tgt_ccy == "quote_ccy" else listing.qty(row.sz),  # `sz` is money then
        filled,
        status,
        asked_ns,
    )


def is_trade(row: OrderRow) -> bool:
    """Return whether a push tells of a trade."""
    return row.trade_id not in _NO_TRADE and amount(row.fill_sz) > 0


def fill_of(listing: Listing, row: OrderRow, ts_ns: int) -> OrderFilled:
    """Return the trade that a push tells of; raise `BadFrame`. The venue's fee is negative when paid."""
    side = side_of(row.side)
    fee, currency = row.fill_fee, row.fill_fee_ccy
    if not fee and amount(row.acc_fill_sz) == amount(row.fill_sz):
        fee, currency = row.fee, row.fee_ccy  # the first trade: the order's total is this trade's
    return _filled(listing, row.cl_ord_id, row.ord_id, side, row.trade_id, row.fill_px, row.fill_sz,
                   fee, currency, row.exec_type, ts_ns)  # fmt: skip


def execution_of(listing: Listing, row: ExecutionRow, ts_ns: int) -> OrderFilled:
    """Return one listed execution as a fill. Raises `BadFrame`."""
    return _filled(listing, row.cl_ord_id, row.ord_id, side_of(row.side), row.trade_id, row.fill_px,
                   row.fill_sz, row.fee, row.fee_ccy, row.exec_type, ts_ns)  # fmt: skip


def _filled(
    listing: Listing,
    client_id: str,
    venue_id: str,
    side: Side,
    trade_id: str,
    price: str,
    size: str,
    fee: str,
    currency: str,
    exec_type: str,
    ts_ns: int,
) -> OrderFilled:
    qty, at = listing.qty(size), amount(price)
    if not (qty > 0 and at > 0):
        raise BadFrame("bad fill", f"{trade_id}: expected price and size above 0, was {price!r}, {size!r}")
    return OrderFilled(
        client_id,
        listing.symbol,
        side,
        trade_id,
        at,
        qty,
        -amount(fee),
        currency or _usual_fee_currency(listing, side),
        _LIQUIDITY.get(exec_type, Liquidity.TAKER),
        ts_ns,
        venue_id,
    )


def _usual_fee_currency(listing: Listing, side: Side) -> str:
    """Return what a fee is paid in where the venue does not say: spot takes it from what one gets."""
    instrument = listing.instrument
    if instrument.kind is InstrumentKind.SPOT:
        return instrument.base if side is Side.BUY else instrument.quote
    return instrument.settle
