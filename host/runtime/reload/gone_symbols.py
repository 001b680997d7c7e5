"""Symbols that a venue trades no more: whether a new version of an adapter can do without them."""

from collections.abc import Collection, Mapping
from typing import Final

from host.api import Instrument
from host.core.state import TradingState
from host.runtime.relisting import is_gone
from host.runtime.reload.revision import RevisionFailed

__all__ = ["check_listed", "check_nothing_is_left"]

_UNTIL_READ: Final = (
    "if the venue has changed that, the version that runs takes it over when it reads the list again (alert "
    "instrument_gone, instrument_changed or instrument_back); `tandem ctl reload` it then"
)


def check_listed(
    state: TradingState, account: str, symbols: Collection[str], listed: Mapping[str, Instrument]
) -> frozenset[str]:
    """Return which of the symbols in use a new version does without, as the journal says they are gone.

    Raises `RevisionFailed` where it lists another one on other terms than those of the journal: the version that
    runs is believed in that, because the new one may be what is wrong.
    """
    known = state.instruments.get(account, {})
    gone = set()
    for symbol in symbols:
        was, found = known.get(symbol), listed.get(symbol)
        if was is not None and not was.is_trading and is_gone(was, found):
            gone.add(symbol)
        elif found is None:
            raise RevisionFailed(
                f"account {account}: it does not list {symbol}, which is in use; {_UNTIL_READ}"
            )
        elif found != was:
            raise RevisionFailed(
                f"account {account}: {symbol} is in use as {was}, was listed as {found}; {_UNTIL_READ}"
            )
    check_nothing_is_left(state, account, gone)
    return frozenset(gone)


def check_nothing_is_left(state: TradingState, account: str, gone: Collection[str]) -> None:
    """Raise `RevisionFailed` for a symbol of which something of ours is left, or that is traded again.

    A version that connects after the symbol is gone knows nothing of it, and could not cancel an order in it nor
    read what the venue says of one.
    """
    known = state.instruments.get(account, {})
    for symbol in sorted(gone):
        if known[symbol].is_trading:
            raise RevisionFailed(
                f"account {account}: {symbol} is traded again by now; `tandem ctl reload` it"
            )
        if left := _left(state, account, symbol):
            raise RevisionFailed(
                f"account {account}: the venue does not trade {symbol} any more, and {left}, of which a version that "
                "connects now would know nothing; see that it is cancelled or settled at the venue and `tandem ctl "
                "reload` it then, or restart the node"
            )


def _left(state: TradingState, account: str, symbol: str) -> str:
    orders = [o.client_id for o in state.orders.values() if o.account == account and o.symbol == symbol]
    if orders:
        return f"{', '.join(orders)} may still rest there"
    for owner, by_symbol in state.holdings.items():
        record, holding = state.instances.get(owner), by_symbol.get(symbol)
        its_account = owner.partition("@")[2] if record is None else record.account
        if holding is not None and holding.qty and its_account == account:
            return f"{owner} holds {holding.qty} of it"
    position = state.venue_positions.get(account, {}).get(symbol)
    if position is not None and position.qty:
        return f"the account has a position of {position.qty} in it"
    return ""
