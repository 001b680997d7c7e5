"""The accounts behind the protocols: names, keys, and the wallets they own at the exchange.

An account has one wallet per product that its venue keeps apart (Binance: spot and USDⓈ-M) and per
protocol. A wallet is an account of the exchange, named `NAME/WALLET`, opened when it is first used.
"""

from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import Final

from msgspec import Struct, field

from host.api import TandemError
from venue.exchange import Exchange

__all__ = ["DEMO_ACCOUNTS", "AccountError", "Accounts", "KeyedAccount"]

DEFAULT_BALANCES: Final = {"USDT": Decimal(1_000_000), "USD": Decimal(1_000_000)}
OTHER_BALANCE: Final = Decimal(1_000)
"""What a wallet gets of every other currency of its product."""


class AccountError(TandemError):
    """The accounts contradict each other: a name or a key appears twice."""


class KeyedAccount(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One account with its credentials. Simulated money only: these secrets protect nothing."""

    name: str
    api_key: str
    secret: str = ""
    """For HMAC signatures."""
    passphrase: str = ""
    """OKX asks for one."""
    public_key: str = ""
    """An Ed25519 public key in PEM; with one, signatures are Ed25519 (Binance)."""
    balances: dict[str, Decimal] = field(default_factory=dict)
    """What each wallet starts with; empty for a million of USDT and a thousand of everything else."""
    can_trade: bool = True


DEMO_ACCOUNTS: Final = (
    KeyedAccount(name="demo", api_key="demo-key", secret="demo-secret", passphrase="demo-pass"),
    KeyedAccount(name="other", api_key="other-key", secret="other-secret", passphrase="other-pass"),
)
"""Who can trade where no accounts are configured."""


class Accounts:
    """Finds accounts by key and opens their wallets. Raises `AccountError` for doubles."""

    def __init__(self, exchange: Exchange, accounts: Iterable[KeyedAccount] = DEMO_ACCOUNTS) -> None:
        self._exchange = exchange
        self._by_key: dict[str, KeyedAccount] = {}
        self._by_name: dict[str, KeyedAccount] = {}
        self._opened: set[str] = set()
        for account in accounts:
            if account.name in self._by_name or account.api_key in self._by_key:
                raise AccountError(
                    f"account {account.name!r}: its name or its key appears twice; give each account its own"
                )
            if "/" in account.name or not account.name:
                raise AccountError(f"an account's name must be a word without '/', was {account.name!r}")
            self._by_name[account.name] = account
            self._by_key[account.api_key] = account

    def by_key(self, api_key: str) -> KeyedAccount | None:
        """Return the account with this key, None where nobody has it."""
        return self._by_key.get(api_key)

    def names(self) -> tuple[str, ...]:
        """Return the name of every account."""
        return tuple(self._by_name)

    def listed(self) -> tuple[KeyedAccount, ...]:
        """Return every account."""
        return tuple(self._by_name.values())

    def wallet(
        self,
        name: str,
        wallet: str,
        currencies: Iterable[str],
        *,
        is_fee_in_base: bool = False,
        leverage: Decimal = Decimal(10),
    ) -> str:
        """Return the exchange's name of a wallet, opened with its balances where it is new."""
        wallet_name = f"{name}/{wallet}"
        if wallet_name not in self._opened:
            # One that came back from the exchange's log keeps its money and takes over the terms.
            self._opened.add(wallet_name)
            balances = dict(self._by_name[name].balances) or _default_balances(currencies)
            self._exchange.open_account(
                wallet_name, balances, is_fee_in_base=is_fee_in_base, leverage=leverage
            )
        return wallet_name

    @staticmethod
    def owner(wallet_name: str) -> tuple[str, str]:
        """Return account and wallet of an exchange account's name; both empty for the house's own."""
        name, separator, wallet = wallet_name.rpartition("/")
        return (name, wallet) if separator else ("", "")


def _default_balances(currencies: Iterable[str]) -> Mapping[str, Decimal]:
    return {currency: DEFAULT_BALANCES.get(currency, OTHER_BALANCE) for currency in sorted(set(currencies))}
