"""How an account at OKX is configured, and where the venue is."""

from decimal import Decimal
from typing import Final, Literal

import msgspec

from host.api import Fraction, Params, Positive, Seconds, Secret

from .._shared.channel import Heartbeat
from .conversation import PING

__all__ = ["OkxParams", "heartbeat", "renew_after_s", "rest_url", "ws_url"]

_REST: Final = {
    "live": "https://www.okx.com",
    "demo": "https://www.okx.com",
    "live-eea": "https://eea.okx.com",
    "live-us": "https://us.okx.com",
}
_WS: Final = {
    "live": "wss://ws.okx.com:8443",
    "demo": "wss://wspap.okx.com:8443",
    "live-eea": "wss://wseea.okx.com:8443",
    "live-us": "wss://wsus.okx.com:8443",
}


class OkxParams(Params, frozen=True):
    """One trading account, in net position mode."""

    api_key: Secret | None = None
    api_secret: Secret | None = None
    passphrase: Secret | None = None
    """The one that was chosen when the key was made."""
    environment: Literal["live", "demo", "live-eea", "live-us"] = "demo"
    """Demo trading has keys of its own."""
    url: str = ""
    """Where REST and WebSockets are, instead of the environment's; `http://127.0.0.1:7712` for
    `tandem venue --okx`."""
    trades: bool = True
    """Whether public trades are subscribed."""
    tickers: bool = True
    """Whether 24-hour summaries are subscribed."""
    price_limits: bool = True
    """Whether the venue's limits on prices are followed, and orders beyond them not sent."""
    check_books: bool = False
    """Verify the checksum of every book; of no use at OKX itself, which sends none since June 2026."""
    order_entry: Literal["websocket", "rest"] = "websocket"
    """REST is taken all the same while the WebSocket is down."""
    margin_mode: Literal["cross", "isolated"] = "cross"
    """For swaps."""
    leverage: dict[str, Decimal] = msgspec.field(default_factory=dict)
    """Set for these perpetuals when they are subscribed; others keep what the account has."""
    renew_after_h: Positive = 23.0
    """Connections are replaced after so long, the new one first: none grows old enough to be cut."""
    ping_after_s: Seconds = 10.0
    """After so long without a message from the venue it is pinged (it cuts who is silent for 30 s), ..."""
    lost_after_s: Seconds = 25.0
    """... and after so long a connection counts as lost."""
    liquidation_alarm: Fraction = 0.1
    """Log an error when the mark price is within this share of a position's liquidation price."""
    connect_timeout_s: Seconds = 10.0
    answer_timeout_ms: Positive = 1500.0
    """After this long without an answer a request is reported as unanswered."""
    max_clock_error_ms: Positive = 250.0
    """While the venue's time is not known better than this, orders are refused."""
    measure_clock_every_s: Seconds = 30.0
    reload_instruments_every_s: Seconds = 3600.0


def heartbeat(params: OkxParams) -> Heartbeat:
    """Return how connections are watched."""
    return Heartbeat(params.ping_after_s, params.lost_after_s, PING)


def renew_after_s(params: OkxParams) -> float:
    """Return after how long a connection is replaced."""
    return params.renew_after_h * 3600


def rest_url(params: OkxParams) -> str:
    """Return where REST requests go."""
    return params.url.rstrip("/") or _REST[params.environment]


def ws_url(params: OkxParams) -> str:
    """Return where WebSockets are, without a path."""
    own = params.url.rstrip("/")
    return own.replace("http", "ws", 1) if own else _WS[params.environment]
