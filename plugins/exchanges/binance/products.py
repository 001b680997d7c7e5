"""What spot and USDⓈ-M call things, and where they are: one table for each."""

from typing import Final

from msgspec import Struct

from host.api import InstrumentKind

__all__ = ["SPOT", "USDM", "Endpoint", "Place", "Product"]


class Endpoint(Struct, frozen=True):
    """One REST request: what it is called, and its weight."""

    method: str
    path: str
    weight: int = 1


class Place(Struct, frozen=True):
    """Where one environment of a product is reached, without a trailing slash."""

    rest: str
    stream: str
    api: str
    """Order entry over WebSocket."""


class Product(Struct, frozen=True):
    """What differs between the two products."""

    name: str
    kind: InstrumentKind
    places: dict[str, Place]
    api_path: str
    market_path: str
    """Streams of quotes, depth and trades."""
    ticker_path: str
    """Streams of the day's summary."""
    amend_method: str
    depth_limit: int
    """Levels of a side in a whole book. More are to be had on spot, at five times the weight."""
    default_weight: int
    """Weight per minute, until exchangeInfo says."""
    time: Endpoint
    exchange_info: Endpoint
    depth: Endpoint
    place: Endpoint
    amend: Endpoint | None
    """None: orders are not amended there."""
    cancel: Endpoint
    order: Endpoint
    open_orders: Endpoint
    my_trades: Endpoint
    account: Endpoint
    history_ns: int
    """How much time one question for own trades may span."""

    @property
    def is_spot(self) -> bool:
        """Return whether this is spot."""
        return self.kind is InstrumentKind.SPOT


_HOUR_NS: Final = 3_600_000_000_000

SPOT: Final = Product(
    name="binance",
    kind=InstrumentKind.SPOT,
    places={
        "live": Place(
            "https://api.binance.com", "wss://stream.binance.com:9443", "wss://ws-api.binance.com:443"
        ),
        "testnet": Place(
            "https://testnet.binance.vision",
            "wss://stream.testnet.binance.vision",
            "wss://ws-api.testnet.binance.vision",
        ),
        "demo": Place(
            "https://demo-api.binance.com",
            "wss://demo-stream.binance.com:9443",
            "wss://demo-ws-api.binance.com",
        ),
    },
    api_path="/ws-api/v3",
    market_path="/stream",
    ticker_path="/stream",
    amend_method="",  # see `BinanceSpot`
    depth_limit=1000,
    default_weight=6000,
    time=Endpoint("GET", "/api/v3/time"),
    exchange_info=Endpoint("GET", "/api/v3/exchangeInfo", 20),
    depth=Endpoint("GET", "/api/v3/depth", 50),
    place=Endpoint("POST", "/api/v3/order"),
    amend=None,
    cancel=Endpoint("DELETE", "/api/v3/order"),
    order=Endpoint("GET", "/api/v3/order", 4),
    open_orders=Endpoint("GET", "/api/v3/openOrders", 80),
    my_trades=Endpoint("GET", "/api/v3/myTrades", 20),
    account=Endpoint("GET", "/api/v3/account", 20),
    history_ns=24 * _HOUR_NS,
)

USDM: Final = Product(
    name="binance_usdm",
    kind=InstrumentKind.LINEAR,
    places={
        "live": Place("https://fapi.binance.com", "wss://fstream.binance.com", "wss://ws-fapi.binance.com"),
        "testnet": Place(
            "https://testnet.binancefuture.com",
            "wss://fstream.binancefuture.com",
            "wss://testnet.binancefuture.com",
        ),
        "demo": Place(
            "https://demo-fapi.binance.com",
            "wss://fstream.binancefuture.com",
            "wss://testnet.binancefuture.com",
        ),
    },
    api_path="/ws-fapi/v1",
    market_path="/public/stream",
    ticker_path="/market/stream",
    amend_method="order.modify",
    depth_limit=1000,
    default_weight=2400,
    time=Endpoint("GET", "/fapi/v1/time"),
    exchange_info=Endpoint("GET", "/fapi/v1/exchangeInfo"),
    depth=Endpoint("GET", "/fapi/v1/depth", 20),
    place=Endpoint("POST", "/fapi/v1/order", 0),
    amend=Endpoint("PUT", "/fapi/v1/order", 0),
    cancel=Endpoint("DELETE", "/fapi/v1/order"),
    order=Endpoint("GET", "/fapi/v1/order"),
    open_orders=Endpoint("GET", "/fapi/v1/openOrders", 40),
    my_trades=Endpoint("GET", "/fapi/v1/userTrades", 5),
    account=Endpoint("GET", "/fapi/v3/account", 5),
    history_ns=7 * 24 * _HOUR_NS,
)
