"""Bybit v5: spot, linear and inverse perpetuals of one unified account."""

from collections.abc import Sequence
from typing import Final

from host.api import (
    AmendOrder,
    CancelOrder,
    Command,
    ConnectionChanged,
    DeadManTerms,
    ExchangeAdapter,
    ExchangeError,
    Instrument,
    MarketEvent,
    PlaceOrder,
    Report,
)

from .._shared.channel import Channel
from .._shared.rest import RestPool
from .._shared.signing import require
from .._shared.venue_clock import VenueClock
from .account_queries import AccountQueries
from .limits import BybitLimits
from .listing_loader import ListingLoader
from .market_stream import MarketStream
from .order_codec import MS
from .order_entry import OrderEntry
from .order_tracker import OrderTracker
from .params import BybitParams
from .private_stream import PrivateStream
from .products import EXCHANGE, Listing, Listings, Product
from .rest_client import RestClient
from .settings import AccountSettings
from .signing import Signer

__all__ = ["Bybit"]

_TRADING = (PlaceOrder, AmendOrder, CancelOrder)
_DISCONNECT_CANCEL: Final = DeadManTerms(least_ms=3_000, most_ms=300_000, step_ms=1_000)
_MEASUREMENTS: Final = 3
"""Of the first few looks at the venue's clock the quickest counts: the first one also dials."""


class Bybit(ExchangeAdapter[BybitParams]):
    """Trades one unified account at Bybit."""

    def __init__(self, params: BybitParams) -> None:
        super().__init__(params)
        self._listings = Listings()
        self._markets: dict[Product, MarketStream] = {}
        self._down: set[Product] = set()
        self._tracker = OrderTracker()
        self._is_closed = False
        self._pool: RestPool | None = None
        self._private: PrivateStream | None = None
        self._orders: OrderEntry | None = None
        if params.has_disconnect_cancel:
            self.dead_man = _DISCONNECT_CANCEL  # type: ignore[misc]  # only some accounts may have it

    # -- life ------------------------------------------------------------------------------------

    async def connect(self) -> Sequence[Instrument]:
        """Measure the venue's clock, check the key, and return what is listed; raise `ExchangeError`."""
        params, ctx = self.params, self.ctx
        signer = Signer(
            require(EXCHANGE, "api_key", params.api_key), require(EXCHANGE, "api_secret", params.api_secret)
        )
        self._clock = VenueClock(EXCHANGE, ctx.now_ns, round(params.clock_error_ms * MS))
        self._limits = BybitLimits(ctx.shared)
        pool = self._pool = RestPool(EXCHANGE, params.rest_url, params.query_timeout_s)
        self._rest = RestClient(
            pool, signer, self._clock, self._limits, ctx.now_ns, params.answer_timeout_ms / 1e3
        )
        self._signer = signer
        self._loader = ListingLoader(self._rest, self._listings, params.products)
        self._settings = AccountSettings(self._rest, params)
        self._queries = AccountQueries(
            self._rest,
            self._listings,
            params.products,
            ctx.now_ns,
            self._host_ns,
            self._venue_ms,
            self._hand_report,
            params.liquidation_alarm,
        )
        try:
            for _ in range(_MEASUREMENTS):
                await self._clock.measure(self._rest.time_ns)
            await self._loader.load()
            await self._settings.set_margin_mode()
        except BaseException:
            await pool.close()
            raise
        return self._listings.instruments

    async def subscribe(self, symbols: Sequence[str]) -> None:
        """Start the market data of `symbols`, the private stream and order entry; raise `ExchangeError`."""
        listings = [self._listings.listed(symbol) for symbol in symbols]
        await self._settings.check_one_way(listings)
        await self._settings.set_leverage(listings)
        if self._private is None:
            await self._open_private()
        for product in Product:
            wanted = [listing for listing in listings if listing.product is product]
            if wanted:
                await self._follow(product, wanted)

    def send(self, command: Command, deadline_ns: int) -> None:
        """Hand one command over without waiting; raise `ExchangeError` when nothing was sent."""
        if isinstance(command, _TRADING):
            if self._orders is None:
                raise ExchangeError(f"{EXCHANGE}: not subscribed yet, nothing was sent")
            self._orders.send(command, deadline_ns)
        else:
            self.ctx.spawn(self._queries.answer(command), f"answers {type(command).__name__}")

    def resync(self, symbol: str) -> None:
        """Have the book of `symbol` begin anew with a snapshot."""
        listing = self._listings.known(symbol)
        market = self._markets.get(listing.product)
        if market is not None:
            market.resync(listing)

    async def arm_dead_man(self, after_ms: int, *, symbol: str = "", tag: str = "") -> None:
        """Have the venue cancel everything `after_ms` after the private connection is lost; 0 disarms.

        Not a timer: while the connection is there, nothing runs out. Raises `ExchangeError`.
        """
        if self._private is None:
            raise ExchangeError(f"{EXCHANGE}: not subscribed yet, nothing is armed")
        if after_ms:
            await self._settings.set_disconnect_cancel(-(-after_ms // 1_000))
        self._private.watch(after_ms > 0)

    async def close(self) -> None:
        """Close every connection; nothing is handed over after that."""
        self._is_closed = True
        channels: list[Channel] = [market.channel for market in self._markets.values()]
        if self._orders is not None:
            self._orders.close()
            channels.append(self._orders.channel)
        if self._private is not None:
            self._private.close()
        for channel in channels:
            channel.close()
        if self._pool is not None:
            await self._pool.close()

    # -- connections -----------------------------------------------------------------------------

    async def _open_private(self) -> None:
        params, ctx = self.params, self.ctx
        private = PrivateStream(
            params,
            self._listings,
            self._signer,
            self._clock,
            self._tracker,
            self._host_ns,
            self._hand_report,
            lambda is_up, text: self._changed("private", is_up, text),
        )
        orders = OrderEntry(
            params,
            self._listings,
            self._signer,
            self._clock,
            self._limits,
            self._rest,
            self._tracker,
            ctx.now_ns,
            self._hand_report,
            ctx.spawn,
            lambda is_up, text: self._changed("orders", is_up, text),
        )
        await private.channel.open()
        ctx.spawn(private.channel.run(), "private stream")
        self._private = private
        if params.order_entry == "websocket":
            await orders.channel.open()
            ctx.spawn(orders.channel.run(), "order entry")
        else:
            self._changed("orders", True, "over REST")
        self._orders = orders
        ctx.spawn(self._clock.keep(self._rest.time_ns, params.clock_every_s), "venue clock")
        ctx.spawn(self._loader.keep(params.instruments_every_s, self._hand_list), "instruments")

    async def _follow(self, product: Product, listings: Sequence[Listing]) -> None:
        market = self._markets.get(product)
        if market is not None:
            await market.follow(listings)
            return
        market = MarketStream(
            product,
            self.params,
            self._listings,
            self.ctx.now_ns,
            self._hand_event,
            lambda is_up, text: self._market_changed(product, is_up, text),
        )
        await market.follow(listings)
        self._markets[product] = market
        self.ctx.spawn(market.channel.run(), f"{product} market data")

    def _market_changed(self, product: Product, is_up: bool, text: str) -> None:
        """Tell of market data as one: it is there when every product's is."""
        was_down = bool(self._down)
        if is_up:
            self._down.discard(product)
        else:
            self._down.add(product)
        if is_up and not self._down:
            self._changed("market", True, text)
        elif not is_up and not was_down:
            self._changed("market", False, f"{product}: {text}")

    def _changed(self, channel: str, is_up: bool, text: str) -> None:
        self._hand_report(ConnectionChanged(channel, is_up, text, self.ctx.now_ns()))

    def _hand_report(self, report: Report) -> None:
        if not self._is_closed:
            self.ctx.report(report)

    def _hand_list(self, instruments: Sequence[Instrument]) -> None:
        if not self._is_closed:
            self.ctx.listed(instruments)

    def _hand_event(self, event: MarketEvent) -> None:
        if not self._is_closed:
            self.ctx.market(event)

    # -- time ------------------------------------------------------------------------------------

    def _host_ns(self, venue_ns: int) -> int:
        """Return the host's time when it was `venue_ns` at the venue."""
        now_ns = self.ctx.now_ns()
        return venue_ns - (self._clock.time_ns(now_ns) - now_ns)

    def _venue_ms(self, host_ns: int) -> int:
        """Return the venue's time when it is `host_ns` here."""
        return self._clock.time_ns(host_ns) // MS
