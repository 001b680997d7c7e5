"""The accounts as OKX has them: one trading wallet each."""

from decimal import Decimal
from typing import Final

from msgspec import Struct

from venue.protocols.accounts import Accounts
from venue.protocols.okx.names import Symbols

__all__ = ["Member", "Members"]

_WALLET: Final = "trading"
_USUAL_LEVERAGE: Final = Decimal(10)


class Member(Struct, frozen=True):
    """One account."""

    name: str
    wallet: str
    """The exchange's name of its wallet."""


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
