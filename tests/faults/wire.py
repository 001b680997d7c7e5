"""How a wire protocol tells what the venue's own log holds."""

from collections.abc import Callable
from decimal import Decimal

from msgspec import Struct

__all__ = ["Wire"]


class Wire(Struct, frozen=True):
    """What differs between the venue's log and what a node hears; in the house protocol nothing does."""

    account: str
    """What the log calls the account that the nodes trade."""
    fee_step: Decimal = Decimal(0)
    """To how much fees are rounded."""
    trade_id: Callable[[str], str] = str
    """Returns what the protocol calls a trade of this id in the log."""
