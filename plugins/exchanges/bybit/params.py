"""How an account at Bybit is configured, and where the venue is."""

from decimal import Decimal
from typing import Final, Literal

import msgspec

from host.api import ExchangeError, Fraction, Params, Positive, Seconds, Secret

from .._shared.channel import Heartbeat
from .conversation import HEARTBEAT_TEXT
from .products import EXCHANGE, Product

__all__ = ["BybitParams"]

_REST: Final = {"live": "https://api.bybit.com", "testnet": "https://api-testnet.bybit.com"}
_SOCKETS: Final = {"live": "wss://stream.bybit.com", "testnet": "wss://stream-testnet.bybit.com"}


class BybitParams(Params, frozen=True):
    """One unified account, in one-way position mode."""

    api_key: Secret | None = None
    api_secret: Secret | None = None
    environment: Literal["live", "testnet"] = "live"
    url: str = ""
    """`http://host:port` of a venue that serves everything in one place, such as `tandem venue --bybit`."""
    products: tuple[Product, ...] = tuple(Product)
    """What is listed and asked about: `spot`, `linear`, `inverse`."""
    depth: Literal[50, 200, 1000] = 50
    """Levels of each side of a book. More levels come less often: 50 every 20 ms, 200 every 100 ms."""
    trades: bool = True
    """Whether public trades are followed (`on_trade`)."""
    ticker: bool = True
    """Whether the day's summary is followed (`on_ticker`)."""
    order_entry: Literal["websocket", "rest"] = "websocket"
    """REST is taken all the same while the WebSocket is down."""
    leverage: dict[str, Decimal] = msgspec.field(default_factory=dict)
    """Set for these perpetuals when they are followed; others keep what the account has."""
    margin_mode: Literal["", "cross", "isolated"] = ""
    """Set for the whole account when it connects; empty: as it is."""
    has_disconnect_cancel: bool = False
    """Whether the account may have the venue cancel everything when its private connection is lost.

    The venue offers that to institutional accounts only. It is Bybit's dead man's switch.
    """
    liquidation_alarm: Fraction = 0.1
    """Log an error when the mark price is within this share of a position's liquidation price."""
    connect_timeout_s: Seconds = 10.0
    answer_timeout_ms: Positive = 1000.0
    """After this long without an answer an order's request is reported as unanswered."""
    query_timeout_s: Seconds = 10.0
    clock_error_ms: Positive = 250.0
    """While the venue's clock is known no better than this, orders are refused."""
    clock_every_s: Seconds = 30.0
    """How often the venue's clock is measured."""
    ping_after_s: Seconds = 5.0
    """The venue is pinged so often (it cuts who is silent for ten minutes), ..."""
    lost_after_s: Seconds = 15.0
    """... and after so long without any message a connection counts as lost."""
    renew_after_h: Positive = 23.0
    """Connections are replaced after so long, the new one first: none grows old enough to be cut."""
    instruments_every_s: Seconds = 3600.0
    """How often the venue's list of instruments is read again."""

    @property
    def rest_url(self) -> str:
        """Return where REST requests go; raise `ExchangeError` for a bad `url`."""
        return self._own_url("http") if self.url else _REST[self.environment]

    @property
    def socket_url(self) -> str:
        """Return where the WebSockets are, without a path; raise `ExchangeError` for a bad `url`."""
        return self._own_url("ws") if self.url else _SOCKETS[self.environment]

    @property
    def heartbeat(self) -> Heartbeat:
        """Return how connections are watched."""
        return Heartbeat(self.ping_after_s, self.lost_after_s, HEARTBEAT_TEXT, is_regular=True)

    @property
    def renew_after_s(self) -> float:
        """Return after how long a connection is replaced."""
        return self.renew_after_h * 3600

    def _own_url(self, scheme: str) -> str:
        found, separator, rest = self.url.rstrip("/").partition("://")
        if not separator or found not in ("http", "https") or not rest:
            raise ExchangeError(f"{EXCHANGE}: url must be http://host:port or https://..., was {self.url!r}")
        return f"{scheme}{'s' if found == 'https' else ''}://{rest}"
