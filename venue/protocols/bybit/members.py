"""The accounts as Bybit has them: one unified wallet each, and what it is set to."""

from decimal import Decimal
from typing import Final

from msgspec import Struct, field

from venue.protocols.accounts import Accounts
from venue.protocols.bybit.names import Symbols

__all__ = ["Member", "Members"]

_WALLET: Final = "unified"
_USUAL_LEVERAGE: Final = Decimal(10)


class Member(Struct):
    """One account's own settings."""

    name: str
    wallet: str
    """The exchange's name of its wallet."""
    margin_mode: str = "REGULAR_MARGIN"
    disconnect_s: dict[str, int] = field(default_factory=dict)
    """Seconds after which a lost private connection cancels everything, by product group; none: never."""


class Members:
    """Opens the accounts' wallets when they are first used."""

    def __init__(self, accounts: Accounts, symbols: Symbols) -> None:
        self._accounts: Final = accounts
        self._symbols: Final = symbols
        self._members: Final[dict[str, Member]] = {}

    def __getitem__(self, name: str) -> Member:
        member = self._members.get(name)
        if member is None:
            wallet = self._accounts.wallet(
                name, _WALLET, self._symbols.currencies, is_fee_in_base=True, leverage=_USUAL_LEVERAGE
            )
            member = self._members[name] = Member(name, wallet)
        return member

    def is_mine(self, wallet: str) -> bool:
        """Return whether a wallet is one of this protocol's."""
        return wallet == _WALLET
