"""How an account at a venue of ccxt is configured."""

from collections.abc import Sequence
from enum import StrEnum
from typing import Any, Final, Literal

import msgspec

from host.api import Params, Positive, PositiveInt, Seconds, Secret

__all__ = ["EXCHANGE", "NATIVE_AMENDS", "CcxtParams", "Product"]

EXCHANGE: Final = "ccxt"
NATIVE_AMENDS: Final = frozenset({"binanceusdm", "bybit", "okx"})
"""Venues of which it was tried that an amended order keeps both of its ids. ccxt does not say, and elsewhere its
`edit_order` may be a cancel and a new order."""


class Product(StrEnum):
    """What the account trades: ccxt asks for one at a time."""

    SPOT = "spot"
    LINEAR = "linear"
    INVERSE = "inverse"


class CcxtParams(Params, frozen=True):
    """One account at one venue, for one product, in one-way position mode."""

    venue: str = ""
    """ccxt's name of it, such as `kraken`; `python -c "import ccxt; print(ccxt.exchanges)"` lists them."""
    product: Product = Product.SPOT
    api_key: Secret | None = None
    api_secret: Secret | None = None
    passphrase: Secret | None = None
    """What ccxt calls `password`."""
    uid: Secret | None = None
    wallet_address: Secret | None = None
    private_key: Secret | None = None
    sandbox: bool = False
    """Use the venue's test site."""
    url: str = ""
    """`http://host:port` of a venue that serves everything in one place, such as `tandem venue`."""
    options: dict[str, Any] = msgspec.field(default_factory=dict)
    """ccxt's own options of this venue."""
    streams: bool = True
    """Whether WebSockets are used where ccxt has them; otherwise everything is asked for again and again."""
    depth: PositiveInt | None = None
    """Levels of a book; None is what the venue gives by itself. Venues offer certain numbers only."""
    trades: bool = True
    """Whether public trades are followed (`on_trade`)."""
    amend: Literal["auto", "native", "none"] = "auto"
    """Whether orders are amended in place. `auto`: where that was tried; `none`: cancelled and placed again."""
    unfenced_in_pair: bool = False
    """Let a node of a pair trade here, though the venue may take an order of a node that has lost its lead."""
    rate_limit: bool = True
    """Whether requests are paced by what ccxt knows of the venue's limits. Turn it off at a venue of your own only."""
    request_timeout_s: Seconds = 5.0
    """After this long without an answer a request is reported as unanswered, and asked about."""
    book_every_ms: Positive = 1000.0
    """How often a book is asked for that is not streamed."""
    account_every_ms: Positive = 1000.0
    """How often open orders and own trades are asked for while orders are open. Streams only make it quicker."""
    lost_after_s: Seconds = 15.0
    """A stream that is silent for so long is checked by asking for the book."""
    instruments_every_s: Seconds = 3600.0
    """How often the venue's list of instruments is read again."""

    @property
    def secrets(self) -> Sequence[Secret | None]:
        """Return every credential, to keep them out of what is said."""
        return (
            self.api_key,
            self.api_secret,
            self.passphrase,
            self.uid,
            self.wallet_address,
            self.private_key,
        )
