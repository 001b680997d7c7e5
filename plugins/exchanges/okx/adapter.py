"""OKX v5: spot and perpetual swaps of one trading account."""

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

from .._shared.rest import RestPool
from .._shared.signing import require
from .._shared.venue_clock import VenueClock
from .account_queries import AccountQueries
from .dead_man import LEAST_S, MOST_S, arm
from .limits import OkxLimits
from .listing_loader import ListingLoader
from .market_codec import MS
from .market_stream import MarketStream
from .order_entry import OrderEntry
from .order_tracker import OrderTracker
from .params import OkxParams, rest_url
from .price_limits import PriceLimits
from .private_stream import PrivateStream
from .products import EXCHANGE, Listing, Listings
from .rest_client import RestClient
from .settings import AccountSettings
from .signing import Signer

__all__ = ["Okx"]

_TRADING = (PlaceOrder, AmendOrder, CancelOrder)
_QUESTION_TIMEOUT_S: Final = 10.0
"""Lists may be long; an order's answer is not waited for so long."""
_MEASUREMENTS: Final = 3
"""Of the first few looks at the venue's clock the quickest counts: the first one also dials."""


class Okx(ExchangeAdapter[OkxParams]):
    """Trades one account at OKX."""

    dead_man = DeadManTerms(least_ms=LEAST_S * 1000, most_ms=MOST_S * 1000, step_ms=1000, is_tagged=True)

    def __init__(self, params: OkxParams) -> None:
        super().__init__(params)
        self._listings = Listings()
        self._price_limits = PriceLimits()
        self._markets: list[MarketStream] = []
        self._down: set[int] = set()
        self._is_closed = False
        self._pool: RestPool | None = None
        self._private: PrivateStream | None = None
        self._orders: OrderEntry | None = None

    # -- life ------------------------------------------------------------------------------------

    async def connect(self) -> Sequence[Instrument]:
        """Measure the venue's clock, check the key, and return what is listed; raise `ExchangeError`."""
        params, ctx = self.params, self.ctx
        is_demo = params.environment == "demo"
        self._signer = Signer(
            require(EXCHANGE, "api_key", params.api_key),
            require(EXCHANGE, "api_secret", params.api_secret),
            require(EXCHANGE, "passphrase", params.passphrase),
            is_demo=is_demo,
        )
        self._clock = VenueClock(EXCHANGE, ctx.now_ns, round(params.max_clock_error_ms * MS))
        self._limits = OkxLimits(ctx.shared)
        pool = self._pool = RestPool(EXCHANGE, rest_url(params), _QUESTION_TIMEOUT_S)
        self._rest = RestClient(
            pool,
            self._signer,
            self._clock,
            self._limits,
            ctx.now_ns,
            is_demo=is_demo,
            order_timeout_s=params.answer_timeout_ms / 1e3,
        )
        self._loader = ListingLoader(self._rest, self._listings)
        self._settings = AccountSettings(self._rest, params)
        self._queries = AccountQueries(
            self._rest,
            self._listings,
            ctx.now_ns,
            self._host_ns,
            self._venue_ms,
            self._hand_report,
            params.liquidation_alarm,
        )
        try:
            for _ in range(_MEASUREMENTS):
                await self._clock.measure(self._rest.time_ns)
            await self._settings.read()
            await self._loader.load()
        except BaseException:
            await pool.close()
            raise
        return self._listings.instruments

    async def subscribe(self, symbols: Sequence[str]) -> None:
        """Start the market data of `symbols`, the private stream and order entry; raise `ExchangeError`."""
        listings = [self._listings.listed(symbol) for symbol in symbols]
        await self._settings.prepare(listings)
        if self._private is None:
            await self._open_private()
        await self._follow(listings)

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
        for market in self._markets:
            market.resync(listing)

    async def arm_dead_man(self, after_ms: int, *, symbol: str = "", tag: str = "") -> None:
        """Have the venue cancel the orders with this tag in `after_ms`; raise `ExchangeError`."""
        await arm(self._rest, after_ms, tag)

    async def close(self) -> None:
        """Close every connection; nothing is handed over after that."""
        self._is_closed = True
        for market in self._markets:
            market.close()
        if self._orders is not None:
            self._orders.close()
        if self._private is not None:
            self._private.channel.close()
        if self._pool is not None:
            await self._pool.close()

    # -- connections -----------------------------------------------------------------------------

    async def _open_private(self) -> None:
        params, ctx = self.params, self.ctx
        orders = OrderEntry(
            params,
            self._listings,
            self._clock,
            self._limits,
            self._rest,
            OrderTracker(),
            ctx.now_ns,
            self._hand_report,
            ctx.spawn,
            self._send_private,
            self._price_limits,
        )
        private = PrivateStream(
            params,
            self._listings,
            self._signer,
            self._clock,
            ctx.now_ns,
            orders.on_order,
            orders.on_answer,
            self._private_changed,
        )
        self._private, self._orders = private, orders
        try:
            await private.channel.open()
        except BaseException:
            self._private = self._orders = None
            raise
        ctx.spawn(private.channel.run(), "private stream")
        ctx.spawn(self._clock.keep(self._rest.time_ns, params.measure_clock_every_s), "venue clock")
        ctx.spawn(self._loader.keep(params.reload_instruments_every_s, self._hand_list), "instruments")

    def _send_private(self, payload: bytes) -> None:
        assert self._private is not None, "opened before the first order"
        self._private.channel.send(payload)

    async def _follow(self, listings: Sequence[Listing]) -> None:
        waiting = [each for each in listings if not any(market.follows(each) for market in self._markets)]
        while waiting:
            market = next((market for market in self._markets if market.room), None)
            is_new = market is None
            if market is None:
                market = self._new_market(len(self._markets))
            part, waiting = waiting[: market.room], waiting[market.room :]
            await market.follow(part)
            if is_new:
                self._markets.append(market)
                self.ctx.spawn(market.channel.run(), f"market data {len(self._markets)}")

    def _new_market(self, number: int) -> MarketStream:
        return MarketStream(
            number + 1,
            self.params,
            self._listings,
            self.ctx.now_ns,
            self._hand_event,
            lambda is_up, text: self._market_changed(number, is_up, text),
            self._price_limits,
        )

    def _market_changed(self, number: int, is_up: bool, text: str) -> None:
        """Tell of market data as one: it is there when every connection is."""
        was_down = bool(self._down)
        if is_up:
            self._down.discard(number)
        else:
            self._down.add(number)
        if is_up and not self._down:
            self._changed("market", True, text)
        elif not is_up and not was_down:
            self._changed("market", False, text)

    def _private_changed(self, is_up: bool, text: str) -> None:
        orders = self._orders
        if not is_up and orders is not None:
            orders.on_down(text)
        # One connection is both; while it is down, orders go over REST.
        self._changed("private", is_up, text)
        self._changed("orders", is_up, text)

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
