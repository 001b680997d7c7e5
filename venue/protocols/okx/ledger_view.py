"""An account's orders, fills, balances and positions, as OKX's lists show them."""

from collections.abc import Callable, Iterable
from decimal import Decimal
from typing import Any, Final

from host.api import OrderFilled
from venue.exchange import Exchange
from venue.perpetuals import liquidation_price, position_value, unrealised_profit
from venue.protocols.market_feed import MarketFeed
from venue.protocols.okx.members import Member
from venue.protocols.okx.names import Listing, Symbols, number_of
from venue.protocols.okx.rows import (
    OrderView,
    PositionView,
    Terms,
    balance_row,
    execution_row,
    order_row,
    position_row,
    view_of_record,
)
from venue.records import OrderRecord

__all__ = ["LedgerView", "fee_currency"]


class LedgerView:
    """Reads one exchange for OKX. `to_ms` turns market time into what this protocol shows."""

    def __init__(
        self, exchange: Exchange, symbols: Symbols, feed: MarketFeed, to_ms: Callable[[int], int]
    ) -> None:
        self._exchange: Final = exchange
        self._symbols: Final = symbols
        self._feed: Final = feed
        self._to_ms: Final = to_ms

    # -- orders ----------------------------------------------------------------------------------

    def find(self, wallet: str, listing: Listing, order_id: str, client_id: str) -> OrderRecord | None:
        """Return an order by the venue's id, which wins, or by the client's; None when it is unknown."""
        if order_id:
            number = number_of(order_id)
            record = None if number is None else self._exchange.find_order(wallet, order_id=number)
        else:
            record = self._exchange.find_order(wallet, client_id=client_id) if client_id else None
        return record if record is not None and record.order.symbol == listing.symbol else None

    def orders(self, wallet: str) -> list[OrderRecord]:
        """Return every order that is remembered, newest first."""
        return list(reversed(self._exchange.records(wallet).all()))

    def order_rows(self, wallet: str, records: Iterable[OrderRecord]) -> list[dict[str, Any]]:
        """Return the rows of some orders, each with its latest trade."""
        fills: dict[str, list[OrderFilled]] = {}
        for fill in self._exchange.records(wallet).fills_since(0):
            fills.setdefault(fill.venue_id, []).append(fill)
        return [self._row(record, fills.get(str(record.order.order_id), [])) for record in records]

    def _row(self, record: OrderRecord, fills: list[OrderFilled]) -> dict[str, Any]:
        listing = self._symbols.of(record.order.symbol)
        view = view_of_record(listing, record, self._to_ms(record.updated_ns))
        fee = sum((fill.fee for fill in fills), Decimal(0))
        return order_row(view, fee, fee_currency(view), fills[-1] if fills else None)

    # -- fills -----------------------------------------------------------------------------------

    def executions(self, wallet: str, wants: Callable[[OrderFilled, Listing], bool]) -> list[dict[str, Any]]:
        """Return the rows of the fills that are wanted, newest first."""
        rows = []
        for fill in self._exchange.records(wallet).fills_since(0):
            listing = self._symbols.of(fill.symbol)
            if wants(fill, listing):
                record = self._exchange.find_order(wallet, order_id=int(fill.venue_id))
                kept = record.terms if record is not None else None
                terms = kept if isinstance(kept, Terms) else Terms(fill.client_id)
                rows.append(execution_row(listing, fill, terms, self._to_ms(fill.ts_ns)))
        return rows[::-1]

    # -- money -----------------------------------------------------------------------------------

    def balance(self, wallet: str, at_ms: int) -> dict[str, Any]:
        """Return the account with its currencies."""
        balances = self._exchange.account(wallet).snapshot(0).balances
        dollars = next((row for row in balances if row.currency == "USDT"), None)
        total = "0" if dollars is None else f"{dollars.total:f}"
        unused = ("adjEq", "imr", "mgnRatio", "mmr", "notionalUsd", "ordFroz", "upl", "borrowFroz")
        return {
            **dict.fromkeys(unused, ""),
            "details": [balance_row(balance, at_ms) for balance in balances],
            "isoEq": "0",
            "totalEq": total,
            "uTime": str(at_ms),
        }

    def positions(self, member: Member, at_ms: int) -> list[dict[str, Any]]:
        """Return the open positions."""
        held = self._exchange.account(member.wallet).snapshot(0).positions
        return [self.position(member, self._symbols.of(item.symbol), at_ms) for item in held]

    def position(self, member: Member, listing: Listing, at_ms: int) -> dict[str, Any]:
        """Return the position in one instrument, an empty one included."""
        account, instrument = self._exchange.account(member.wallet), listing.instrument
        qty, entry = account.position(listing.symbol), account.entry_price(listing.symbol)
        mark = Decimal(repr(self._feed[listing.symbol].mark))
        balance = account.balances.get(instrument.settle, Decimal(0))
        view = PositionView(
            listing,
            qty,
            entry,
            mark,
            account.leverage_of(listing.symbol),
            position_value(instrument, qty, mark) if mark else Decimal(0),
            account.margins(listing.symbol)[0],
            liquidation_price(instrument, qty, entry, balance),
            unrealised_profit(instrument, qty, entry, mark),
        )
        return position_row(view, "cross", at_ms)


def fee_currency(view: OrderView) -> str:
    """Return what an order's fees are paid in: spot takes them from what one gets."""
    item = view.listing.instrument
    if view.listing.is_spot:
        return item.base if view.side.value == "buy" else item.quote
    return item.settle
