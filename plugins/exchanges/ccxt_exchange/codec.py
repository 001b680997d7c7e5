"""ccxt's orders, trades, balances and books, as the host's. Raises `BadData` for what is not as documented."""

from collections.abc import Mapping
from decimal import Decimal
from typing import Any, Final

from host.api import Balance, Level, Liquidity, OrderFilled, OrderSnapshot, OrderStatus, Side, VenuePosition

from .numbers import BadData, decimal_of, number_of
from .params import EXCHANGE
from .products import Listing

__all__ = [
    "MS",
    "Row",
    "balances_of",
    "fill_of",
    "filled_of",
    "is_live",
    "levels_of",
    "position_of",
    "price_of",
    "qty_of",
    "snapshot_of",
    "status_of",
]

MS: Final = 1_000_000
"""Nanoseconds of a millisecond."""
Row = Mapping[str, Any]
"""One of ccxt's unified structures (docs.ccxt.com, "Order Structure" and the like)."""

_ENDED: Final = {
    "canceled": OrderStatus.CANCELLED,
    "canceling": OrderStatus.CANCELLED,
    "expired": OrderStatus.EXPIRED,
    "rejected": OrderStatus.REJECTED,
}
_ZERO: Final = Decimal(0)


def qty_of(listing: Listing, order: Row) -> Decimal:
    """Return an order's whole quantity."""
    return listing.qty(decimal_of(order.get("amount"), "an order's amount"), "an order's amount")


def filled_of(listing: Listing, order: Row) -> Decimal:
    """Return how much of an order is filled."""
    return listing.qty(order.get("filled"), "what is filled of an order")


def price_of(order: Row) -> Decimal | None:
    """Return an order's limit, None for a market order."""
    return None if order.get("type") == "market" else decimal_of(order.get("price"), "an order's price")


def status_of(listing: Listing, order: Row) -> OrderStatus:
    """Return an order's state."""
    status = order.get("status")
    filled = filled_of(listing, order)
    if status == "open":
        return OrderStatus.PARTIALLY_FILLED if filled else OrderStatus.OPEN
    if status == "closed":  # what is not filled was taken back
        return OrderStatus.FILLED if filled >= qty_of(listing, order) else OrderStatus.CANCELLED
    try:
        ended = _ENDED[str(status)]
    except KeyError:
        raise BadData(f"{EXCHANGE}: an order's status should be one of ccxt's, was {status!r}") from None
    return OrderStatus.CANCELLED if filled and ended is OrderStatus.REJECTED else ended


def is_live(listing: Listing, order: Row) -> bool:
    """Return whether an order may still trade."""
    return not status_of(listing, order).is_terminal


def snapshot_of(listing: Listing, order: Row, client_id: str, asked_ns: int) -> OrderSnapshot:
    """Return the venue's view of an order, as true as of when it was asked for."""
    return OrderSnapshot(
        client_id,
        str(order["id"]),
        listing.symbol,
        _side(order),
        price_of(order),
        qty_of(listing, order),
        filled_of(listing, order),
        status_of(listing, order),
        asked_ns,
    )


def fill_of(listing: Listing, trade: Row, client_id: str) -> OrderFilled:
    """Return one of our trades as a fill of our order `client_id`."""
    trade_id, fee = trade.get("id"), trade.get("fee") or {}
    if not trade_id:
        raise BadData(f"{EXCHANGE}: a trade has no id, so that it could be told twice")
    qty = listing.qty(decimal_of(trade.get("amount"), "a trade's amount"), "a trade's amount")
    price = decimal_of(trade.get("price"), "a trade's price")
    if qty <= _ZERO or price <= _ZERO:
        raise BadData(f"{EXCHANGE}: a trade should have price and amount above 0, was {price} and {qty}")
    return OrderFilled(
        client_id,
        listing.symbol,
        _side(trade),
        str(trade_id),
        price,
        qty,
        number_of(fee.get("cost"), "a fee"),
        str(fee.get("currency") or listing.instrument.settle),
        Liquidity.MAKER if trade.get("takerOrMaker") == "maker" else Liquidity.TAKER,
        int(trade.get("timestamp") or 0) * MS,
        str(trade.get("order") or ""),
    )


def balances_of(balance: Row) -> tuple[Balance, ...]:
    """Return what the account holds of each currency, without the profit of open positions where that is told."""
    used = balance.get("used") or {}
    wallets = _wallets(balance.get("info"))
    return tuple(
        Balance(
            currency,
            decimal_of(wallets.get(currency, total), f"the balance of {currency}"),
            number_of(used.get(currency), f"what is used of {currency}"),
        )
        for currency, total in (balance.get("total") or {}).items()
        if total is not None
    )


def _wallets(info: Any) -> dict[str, Any]:
    """Return the wallet balances of Binance's futures: ccxt's totals of those hold the profit of open positions."""
    assets = info.get("assets") if isinstance(info, Mapping) else None
    return {
        row["asset"]: row["walletBalance"]
        for row in (assets if isinstance(assets, list) else ())
        if isinstance(row, Mapping) and row.get("asset") and row.get("walletBalance") is not None
    }


def position_of(listing: Listing, position: Row) -> VenuePosition | None:
    """Return a position with its sign, None for one that is closed."""
    size = listing.qty(position.get("contracts"), "a position's contracts")
    if not size:
        return None
    if position.get("hedged"):
        raise BadData(
            f"{EXCHANGE}: {listing.symbol}: positions must be in one-way mode, were hedged; change it at the venue"
        )
    signed = -abs(size) if position.get("side") == "short" else size
    entry_price = number_of(position.get("entryPrice"), "an entry price")
    liquidation_price = number_of(position.get("liquidationPrice"), "a liquidation price")
    return VenuePosition(listing.symbol, signed, entry_price, max(liquidation_price, _ZERO))


def levels_of(listing: Listing, levels: Any, most: int) -> tuple[Level, ...]:
    """Return the best `most` levels of one side of a book."""
    size = float(listing.per_contract)
    try:
        found = tuple((float(level[0]), float(level[1]) * size) for level in levels[:most])
    except (TypeError, ValueError, IndexError) as error:
        raise BadData(
            f"{EXCHANGE}: {listing.symbol}: a level of the book is not two numbers: {error}"
        ) from error
    if not all(0 < price < float("inf") and 0 < qty < float("inf") for price, qty in found):
        raise BadData(f"{EXCHANGE}: {listing.symbol}: a level of the book is out of range")
    return found


def _side(row: Row) -> Side:
    side = row.get("side")
    if side not in ("buy", "sell"):
        raise BadData(f"{EXCHANGE}: a side should be buy or sell, was {side!r}")
    return Side(side)
