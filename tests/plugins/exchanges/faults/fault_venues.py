"""The venues of the fault matrix: how each is served, configured and read."""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol

from binance_venue import binance_venue
from bybit_venue import bybit_venue
from msgspec import Struct, field
from okx_venue import okx_venue

from host.api import OrderFilled
from venue.exchange import Exchange
from venue.protocols.accounts import DEMO_ACCOUNTS
from venue.protocols.bybit.names import Product
from venue.protocols.bybit.order_rows import execution_id
from venue.protocols.server import ProtocolServer

__all__ = ["VENUES", "FaultVenue", "Served", "Trading"]

DEMO = DEMO_ACCOUNTS[0]


class Served(Protocol):
    """A venue that is being served in this process."""

    server: ProtocolServer
    exchange: Exchange

    def cut(self) -> None:
        """Break every connection."""


class Trading(Struct, frozen=True):
    """One account of the node: the wallet that it is at the venue, and how much it trades of what."""

    wallet: str
    qty: dict[str, str]
    """The quantity of one order, by symbol. Spot first."""


def _as_it_is(_exchange: Exchange, fill: OrderFilled) -> str:
    return fill.trade_id


def _bybit_trade(exchange: Exchange, fill: OrderFilled) -> str:
    return execution_id(Product(exchange.instrument(fill.symbol).kind.value), fill.trade_id)


class FaultVenue(Struct, frozen=True, kw_only=True):
    """One protocol, and the accounts that the node has there, by adapter."""

    protocol: str
    accounts: dict[str, Trading]
    serve: Callable[[], AbstractAsyncContextManager[Any]]
    clock_error: str
    """The parameter that says how well the venue's clock must be known."""
    params: str = ""
    has_passphrase: bool = False
    trade_id: Callable[[Exchange, OrderFilled], str] = _as_it_is
    """The name under which the protocol tells of a trade."""
    has_batches: bool = True
    """Whether the adapter sends several orders or cancels in one request."""
    excluded: dict[str, str] = field(default_factory=dict)
    """Faults that this venue cannot have, and why."""

    def excuse(self, fault: str) -> str:
        """Return why this venue cannot have a fault; empty where it can."""
        if "batch" in fault and not self.has_batches:
            return "the adapter sends no batches there"
        return self.excluded.get(fault, "")

    @property
    def symbols(self) -> dict[str, str]:
        """Return every symbol with the account that trades it."""
        return {symbol: account for account, trading in self.accounts.items() for symbol in trading.qty}

    def account_section(self, account: str, url: str) -> str:
        """Return the part of a configuration that declares one account."""
        passphrase = 'passphrase = "secret:passphrase"\n' if self.has_passphrase else ""
        return f"""
[[account]]
name = "{account}"
exchange = "{account}"
[account.params]
url = "{url}"
api_key = "secret:key"
api_secret = "secret:secret"
answer_timeout_ms = 250
{self.clock_error} = 2000
{passphrase}{self.params}"""


_ID_IS_FREE = (
    "a client id is free again once its order is done, so that a proxy which repeats an order that was filled "
    "at once makes a second one; tried with resting orders alone"
)

VENUES = {
    "binance": FaultVenue(
        protocol="binance",
        accounts={
            "binance": Trading("demo/spot", {"BTC-USDT": "0.01"}),
            "binance_usdm": Trading("demo/usdm", {"BTC-USDT-PERP": "0.01"}),
        },
        serve=binance_venue,
        clock_error="clock_error_ms",
        params="ping_after_s = 0.5\nlost_after_s = 3\n",
        has_batches=False,
        excluded={"doubled place": _ID_IS_FREE},
    ),
    "okx": FaultVenue(
        protocol="okx",
        accounts={
            "okx": Trading(
                "demo/trading", {"BTC-USDT": "0.01", "BTC-USDT-PERP": "0.01", "BTC-USD-PERP": "100"}
            )
        },
        serve=okx_venue,
        clock_error="max_clock_error_ms",
        has_passphrase=True,
    ),
    "bybit": FaultVenue(
        protocol="bybit",
        accounts={
            "bybit": Trading(
                "demo/unified", {"BTC-USDT": "0.01", "BTC-USDT-PERP": "0.01", "BTC-USD-PERP": "100"}
            )
        },
        serve=bybit_venue,
        clock_error="clock_error_ms",
        params="ping_after_s = 0.5\nlost_after_s = 3\n",
        trade_id=_bybit_trade,
    ),
}
