"""How an account at Binance is configured."""

from decimal import Decimal
from typing import Annotated, Literal

from msgspec import Meta

from host.api import ExchangeError, Fraction, NonNegative, Params, Positive, PositiveInt, Seconds, Secret

from .products import Place, Product

__all__ = ["BinanceParams", "BinanceUsdmParams"]


class BinanceParams(Params, frozen=True):
    """An account at Binance spot, and where the venue is."""

    api_key: Secret | None = None
    api_secret: Secret | None = None
    environment: Literal["live", "testnet", "demo"] = "live"
    url: str = ""
    """`http://host:port` of a venue that serves everything in one place, such as `tandem venue --binance`."""
    socket_url: str = ""
    """`ws://host:port` of its WebSockets, where they are not at `url`, such as behind a relay."""
    maker_fee: Decimal | None = None
    """Rates of the notional for every symbol; None: what the venue says of the account."""
    taker_fee: Decimal | None = None
    answer_timeout_ms: Positive = 1000.0
    """After this long without an answer an order's request is reported as unanswered."""
    query_timeout_s: Seconds = 10.0
    clock_error_ms: Positive = 250.0
    """While the venue's clock is known no better than this, orders are refused."""
    clock_every_s: Seconds = 30.0
    """How often the venue's clock is measured."""
    ping_after_s: Seconds = 5.0
    """After so long without a message from the venue it is pinged, ..."""
    lost_after_s: Seconds = 15.0
    """... and after so long a connection counts as lost."""
    renew_after_h: Positive = 23.0
    """Connections are replaced before the venue cuts them after 24 h."""
    ticker: bool = True
    """Follow the day's summary (`on_ticker`) as well."""
    streams_per_connection: Annotated[int, Meta(ge=4, le=1024)] = 200
    instruments_every_s: Seconds = 3600.0
    """How often the venue's list of instruments is read again."""

    def place(self, product: Product) -> Place:
        """Return where the venue is; raise `ExchangeError` for a bad `url`."""
        if not self.url:
            return product.places[self.environment]
        base = self.url.rstrip("/")
        scheme, separator, rest = base.partition("://")
        if not separator or scheme not in ("http", "https") or not rest:
            raise ExchangeError(
                f"{product.name}: url must be http://host:port or https://..., was {self.url!r}"
            )
        socket = self.socket_url.rstrip("/") or f"{'wss' if scheme == 'https' else 'ws'}://{rest}"
        return Place(base, socket, socket)


class BinanceUsdmParams(BinanceParams, frozen=True):
    """An account at Binance USDⓈ-M, with what is special to perpetuals."""

    leverage: PositiveInt | None = None
    """Set for each traded symbol; None leaves it as it is."""
    margin_mode: Literal["", "cross", "isolated"] = ""
    """Set for each traded symbol; empty leaves it as it is."""
    dead_man_s: NonNegative = 60.0
    """The venue cancels a symbol's orders when it has not heard from us for so long; 0: never."""
    liquidation_alarm: Fraction = 0.1
    """Log an error when the mark price is within this share of a position's liquidation price."""
    liquidation_every_s: Seconds = 15.0
    """How often that is looked at."""
