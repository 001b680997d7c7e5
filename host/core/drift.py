"""How far an account's balances and positions at the venue are from ours, and what sets them right."""

from collections.abc import Iterator
from decimal import Decimal
from typing import Final

from host.api import AccountSnapshot, InstrumentKind
from host.core.accounting import Holding, average_price, signed_value
from host.core.entries import PositionAdjusted
from host.core.state import TradingState

__all__ = ["adjustments", "drift"]

_ZERO: Final = Decimal(0)
VENUE_ROUNDING: Final = Decimal("1E-8")
"""Venues book the profit of each derivative fill rounded to this; we book it exactly."""


def drift(state: TradingState, account: str, snapshot: AccountSnapshot) -> list[str]:
    """Say in words what differs; an account that the journal has never seen has no balances to differ.

    Where positions settle, balances are compared less the cost of what is open: fills that were told
    in another order than they happened move profit between the two, but nothing is missing.
    """
    texts = []
    if account in state.balances:
        ours = state.balances[account]
        venue = {balance.currency: balance.total for balance in snapshot.balances}
        excess = _cost_beyond(state, account, snapshot)
        tolerated = _rounding(state, account)
        for currency in sorted(ours.keys() | venue.keys()):
            mine, theirs = ours.get(currency, _ZERO), venue.get(currency, _ZERO)
            missing = mine - theirs - excess.get(currency, _ZERO)
            if abs(missing) > tolerated.get(currency, _ZERO):
                texts.append(f"balance {currency}: ours {mine}, the venue's {theirs}")
    for symbol, mine, theirs in _positions(state, account, snapshot):
        texts.append(f"position {symbol}: ours {mine}, the venue's {theirs}")
    return texts


def _cost_beyond(state: TradingState, account: str, snapshot: AccountSnapshot) -> dict[str, Decimal]:
    """Return by how much the cost of our open positions exceeds the venue's, by settlement currency."""
    venue = {position.symbol: position for position in snapshot.positions}
    excess: dict[str, Decimal] = {}
    for symbol, net in state.net_holdings.get(account, {}).items():
        instrument = state.instruments[account][symbol]
        cost, position = net.open_cost, venue.get(symbol)
        if position is not None and position.entry_price > _ZERO:
            cost -= signed_value(instrument, position.entry_price, position.qty)
        excess[instrument.settle] = excess.get(instrument.settle, _ZERO) + cost
    return excess


def adjustments(state: TradingState, account: str, snapshot: AccountSnapshot) -> list[PositionAdjusted]:
    """Return the entries that make our positions the venue's.

    A position that the venue does not have is closed at what it cost us: how it was closed is in the
    balances that the venue reports, and would otherwise be counted twice.
    """
    entry_prices = {position.symbol: position.entry_price for position in snapshot.positions}
    entries = []
    for symbol, mine, theirs in _positions(state, account, snapshot):
        price = entry_prices.get(symbol, _ZERO)
        if not price.is_finite() or price <= _ZERO:
            net = state.net_holdings.get(account, {}).get(symbol, Holding())
            price = average_price(net, state.instruments[account][symbol])
        reason = f"the venue's position is {theirs}, ours was {mine}"
        entries.append(PositionAdjusted(account, "", symbol, theirs - mine, price, reason))
    return entries


def _positions(
    state: TradingState, account: str, snapshot: AccountSnapshot
) -> Iterator[tuple[str, Decimal, Decimal]]:
    """Yield (symbol, ours, the venue's) where they differ; spot holdings are balances."""
    venue = {position.symbol: position.qty for position in snapshot.positions}
    for symbol, instrument in state.instruments.get(account, {}).items():
        if instrument.kind is InstrumentKind.SPOT:
            continue
        mine, theirs = state.account_qty(account, symbol), venue.get(symbol, _ZERO)
        if mine != theirs:
            yield symbol, mine, theirs


def _rounding(state: TradingState, account: str) -> dict[str, Decimal]:
    """Return how far each currency's balance may be off by the venue's rounding alone.

    That is one unit of `VENUE_ROUNDING` for the profit of each fill, and for the average price of
    what is open, which is also given rounded.
    """
    tolerated: dict[str, Decimal] = {}
    for symbol, net in state.net_holdings.get(account, {}).items():
        instrument = state.instruments[account][symbol]
        price = average_price(net, instrument)
        units = net.fills + (abs(net.open_cost) / price if price else _ZERO)
        tolerated[instrument.settle] = tolerated.get(instrument.settle, _ZERO) + units * VENUE_ROUNDING
    return tolerated
