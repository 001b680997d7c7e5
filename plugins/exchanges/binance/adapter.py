"""The adapters: connections, queries and order entry of one account, put together."""

import asyncio
import logging
from collections.abc import Sequence
from decimal import Decimal
from typing import Any, ClassVar, Final, TypeVar

import msgspec

from host.api import (
    AmendOrder,
    AmendSupport,
    CancelOrder,
    Command,
    ConnectionChanged,
    ExchangeAdapter,
    ExchangeError,
    Instrument,
    PlaceOrder,
)

from .._shared.channel import Channel, Heartbeat
from .._shared.rest import RestPool
from .._shared.signing import require
from .._shared.symbols import SymbolTable
from .._shared.venue_clock import VenueClock
from .._shared.websocket import NotConnected, WebSocket
from .answers import decode_server_time
from .commands import window_params
from .instruments import ExchangeInfo, decode_exchange_info, instruments_of
from .market_stream import MarketStream
from .order_entry import ApiFrame, OrderEntry, decode_api_frame
from .params import BinanceParams, BinanceUsdmParams
from .perpetual import DeadMan, account_fees, prepare, watch_liquidation
from .products import SPOT, USDM, Product
from .queries import OrderIds, Queries
from .rest_calls import RestCalls, Spending, VenueRefused
from .signed import RequestSigner
from .user_stream import ListenKeyStream, UserEvents

__all__ = ["BinanceSpot", "BinanceUsdm"]

_log = logging.getLogger("tandem.exchange")
_CLOCK_SAMPLES: Final = 3
_SUBSCRIBE_WINDOW_MS: Final = 5000

P = TypeVar("P", bound=BinanceParams)


class _Binance(ExchangeAdapter[P]):
    """What spot and USDⓈ-M have in common."""

    product: ClassVar[Product]

    def __init__(self, params: P) -> None:
        super().__init__(params)
        self._table = SymbolTable(self.product.name)
        self._ids = OrderIds()
        self._subscribed = False
        self._market: MarketStream | None = None
        self._api: Channel | None = None
        self._pool: RestPool | None = None
        self._orders: OrderEntry | None = None
        self._answers: dict[str, asyncio.Future[ApiFrame]] = {}
        self._asked = 0

    # -- life ------------------------------------------------------------------------------------

    async def connect(self) -> Sequence[Instrument]:
        """Measure the venue's clock and return what it lists; raise `ExchangeError`."""
        params, product = self.params, self.product
        key = require(product.name, "api_key", params.api_key)
        secret = require(product.name, "api_secret", params.api_secret)
        self._place = params.place(product)
        self._signer = RequestSigner(key, secret)
        pool = self._pool = RestPool(product.name, self._place.rest, params.query_timeout_s)
        self._clock = VenueClock(product.name, self.ctx.now_ns, round(params.clock_error_ms * 1e6))
        self._spending = Spending(product, self.ctx.shared)
        self._calls = RestCalls(product, pool, self._signer, self._clock, self._spending)
        self._queries = Queries(product, self.ctx, self._calls, self._table, self._ids)
        for _ in range(_CLOCK_SAMPLES):
            await self._clock.measure(self._ask_time)
        info = await self._exchange_info()
        self._fees = await self._account_fees(info)
        self._take_over(info)
        self._orders = OrderEntry(
            product,
            self.ctx,
            self._signer,
            self._clock,
            self._spending,
            self._calls,
            self._table,
            self._ids,
            params.answer_timeout_ms / 1000,
        )
        self._orders.on_other = self._on_session_answer
        return list(self._table)

    async def subscribe(self, symbols: Sequence[str]) -> None:
        """Start private events, order entry and the market data of `symbols`; raise `ExchangeError`."""
        for symbol in symbols:
            self._table.instrument(symbol)
        await self._prepare(symbols)
        self._queries.symbols += [symbol for symbol in symbols if symbol not in self._queries.symbols]
        if not self._subscribed:
            self._subscribed = True
            self.ctx.spawn(self._clock.keep(self._ask_time, self.params.clock_every_s), "venue clock")
            self.ctx.spawn(self._keep_instruments(), "instruments")
            self._market = MarketStream(
                self.product,
                self._place.stream,
                self.ctx,
                self._calls,
                self._table,
                heartbeat=self._heartbeat,
                renew_after_s=self._renew_after_s,
                streams_per_connection=self.params.streams_per_connection,
                with_ticker=self.params.ticker,
                on_state=lambda is_up, text: self._report(("market",), is_up, text),
            )
            await self._open_private()
        assert self._market is not None, "made above"
        await self._market.add(symbols)

    def send(self, command: Command, deadline_ns: int) -> None:
        """Send one command; raise `ExchangeError` when nothing was sent."""
        orders = self._orders
        if orders is None:
            raise ExchangeError(f"{self.product.name}: not connected yet, nothing was sent")
        if isinstance(command, PlaceOrder | AmendOrder | CancelOrder):
            orders.send(command, deadline_ns)
        else:
            self.ctx.spawn(self._queries.answer(command), type(command).__name__)

    def resync(self, symbol: str) -> None:
        """Fetch the whole book of a symbol."""
        if self._market is not None:
            self._market.resync(symbol)

    async def close(self) -> None:
        """Close all connections; nothing is reported any more."""
        if self._market is not None:
            self._market.close()
        if self._api is not None:
            self._api.close()
        if self._orders is not None:
            self._orders.close()
        if self._pool is not None:
            await self._pool.close()

    # -- what the products do differently --------------------------------------------------------

    async def _account_fees(self, info: ExchangeInfo) -> tuple[Decimal, Decimal]:
        raise NotImplementedError

    async def _prepare(self, symbols: Sequence[str]) -> None:
        """Make ready to trade these symbols."""

    async def _open_private(self) -> None:
        raise NotImplementedError

    def _on_user_event(self, event: msgspec.Raw) -> None:
        raise NotImplementedError

    # -- inside ----------------------------------------------------------------------------------

    @property
    def _heartbeat(self) -> Heartbeat:
        return Heartbeat(self.params.ping_after_s, self.params.lost_after_s)

    @property
    def _renew_after_s(self) -> float:
        return self.params.renew_after_h * 3600

    def _report(self, channels: Sequence[str], is_up: bool, text: str) -> None:
        for channel in channels:
            self.ctx.report(ConnectionChanged(channel, is_up, text, self.ctx.now_ns()))

    def _doubt_private(self, text: str) -> None:
        """Have the host ask the venue for what a private event may have said."""
        self._report(("private",), False, text)
        self._report(("private",), True, "what was missed is asked for")

    async def _ask_time(self) -> int:
        return decode_server_time(await self._calls.public(self.product.time, {}, self.ctx.now_ns()))

    async def _exchange_info(self) -> ExchangeInfo:
        body = await self._calls.public(self.product.exchange_info, {}, self.ctx.now_ns())
        try:
            return decode_exchange_info(body)
        except msgspec.MsgspecError as error:
            raise ExchangeError(f"{self.product.name}: exchangeInfo cannot be read: {error}") from error

    def _take_over(self, info: ExchangeInfo) -> list[str]:
        self._spending.listed(info.rateLimits)
        return self._table.replace(instruments_of(info, self.product.kind, *self._fees))

    async def _keep_instruments(self) -> None:
        while True:
            await asyncio.sleep(self.params.instruments_every_s)
            try:
                changes = self._take_over(await self._exchange_info())
            except ExchangeError as error:
                _log.warning("the list of instruments could not be read again: %s", error)
                continue
            for change in changes:
                _log.warning("account %s: %s: %s", self.ctx.account, self.product.name, change)
            self.ctx.listed(tuple(self._table))

    def _own_fees(self, told: tuple[Decimal, Decimal]) -> tuple[Decimal, Decimal]:
        maker, taker = self.params.maker_fee, self.params.taker_fee
        return told[0] if maker is None else maker, told[1] if taker is None else taker

    def _make_api(self, on_open: Any, channels: Sequence[str]) -> Channel:
        assert self._orders is not None, "made by connect"
        orders = self._orders

        async def url() -> str:
            return self._place.api + self.product.api_path

        def on_down(text: str) -> None:
            orders.lost(f"the connection was lost: {text}")
            self._report(channels, False, text)

        channel = self._api = orders.channel = Channel(
            f"{self.product.name} orders",
            url=url,
            on_message=self._on_api_message,
            on_open=on_open,
            on_up=lambda text: self._report(channels, True, text),
            on_down=on_down,
            heartbeat=self._heartbeat,
            renew_after_s=self._renew_after_s,
            drops_unsent=True,
        )
        return channel

    def _on_api_message(self, message: memoryview) -> None:
        assert self._orders is not None, "made by connect"
        try:
            frame = decode_api_frame(message)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            self._orders.bad.note(type(error).__name__, message, error)
            # It may have been the answer to an order, which is given up when its time is over, or an event.
            self._doubt_private(f"a message cannot be read: {error}")
            return
        if frame.event:
            self._on_user_event(frame.event)
        else:
            self._orders.on_frame(frame, message)

    def _on_session_answer(self, request_id: str, frame: ApiFrame) -> None:
        waiting = self._answers.pop(request_id, None)
        if waiting is not None and not waiting.done():
            waiting.set_result(frame)

    async def _ask_api(self, websocket: WebSocket, method: str) -> ApiFrame:
        """Send a signed request that has no parameters, and return the answer."""
        self._asked += 1
        request_id = f"s{self._asked}"
        answer: asyncio.Future[ApiFrame] = asyncio.get_running_loop().create_future()
        self._answers[request_id] = answer
        window = window_params(self._clock.loose_window(_SUBSCRIBE_WINDOW_MS))
        try:
            websocket.send(self._signer.ws_request(request_id, method, window))
            return await answer
        finally:
            self._answers.pop(request_id, None)


class BinanceSpot(_Binance[BinanceParams]):
    """Trades one account at Binance spot.

    The venue can only make an order smaller in place; a change of price is a new order under a new id.
    So the host cancels and places again.
    """

    product = SPOT
    amend_support = AmendSupport.NONE

    async def _account_fees(self, info: ExchangeInfo) -> tuple[Decimal, Decimal]:
        told = await self._queries.account_fees()
        return self._own_fees(told or (Decimal("0.001"), Decimal("0.001")))

    async def _open_private(self) -> None:
        self._events = UserEvents(
            self.ctx,
            self._table,
            self._ids,
            f"{self.product.name} private",
            self._doubt_private,
            self._on_end,
            self._on_shutdown,
        )
        channel = self._make_api(self._subscribe_events, ("orders", "private"))
        await channel.open()
        self.ctx.spawn(channel.run(), f"{self.product.name} orders")

    async def _subscribe_events(self, websocket: WebSocket) -> None:
        frame = await self._ask_api(websocket, "userDataStream.subscribe.signature")
        error = frame.error
        if error is None:
            return
        text = f"{self.product.name}: private events refused: {error.code} {error.msg}"
        if error.code == -1021:
            self._clock.doubt()
            raise NotConnected(text)
        if frame.status >= 500 or frame.status in (418, 429):
            raise NotConnected(text)
        raise ExchangeError(f"{text}; check the key and what it may do")

    def _on_user_event(self, event: msgspec.Raw) -> None:
        self._events.take(event)

    def _on_end(self, text: str) -> None:
        if self._api is not None:
            self._api.drop(text)

    def _on_shutdown(self) -> None:
        if self._api is not None:
            self._api.renew()


class BinanceUsdm(_Binance[BinanceUsdmParams]):
    """Trades one account at Binance USDⓈ-M perpetuals, in one-way mode."""

    product = USDM
    amend_support = AmendSupport.NATIVE

    def __init__(self, params: BinanceUsdmParams) -> None:
        super().__init__(params)
        self._private: ListenKeyStream | None = None
        self._dead_man: DeadMan | None = None

    def send(self, command: Command, deadline_ns: int) -> None:
        """Send one command; raise `ExchangeError` when nothing was sent."""
        if self._dead_man is not None and isinstance(command, PlaceOrder):
            self._dead_man.placing(command.symbol)
        super().send(command, deadline_ns)

    async def close(self) -> None:
        """Close all connections; the dead man's switch is left to run out."""
        if self._private is not None:
            self._private.channel.close()
        await super().close()

    async def _account_fees(self, info: ExchangeInfo) -> tuple[Decimal, Decimal]:
        wire = next((item.symbol for item in info.symbols if item.status == "TRADING"), "BTCUSDT")
        return self._own_fees(await account_fees(self._calls, wire, self.ctx.now_ns()))

    async def _prepare(self, symbols: Sequence[str]) -> None:
        try:
            await prepare(self._calls, self._table, self.params, symbols, self.ctx.now_ns())
        except (VenueRefused, msgspec.MsgspecError) as error:
            raise ExchangeError(f"{self.product.name}: the account cannot be made ready: {error}") from error

    async def _open_private(self) -> None:
        self._events = UserEvents(
            self.ctx,
            self._table,
            self._ids,
            f"{self.product.name} private",
            self._doubt_private,
            self._on_end,
            self._on_shutdown,
        )
        private = self._private = ListenKeyStream(
            self.product.name,
            self._place.stream,
            self.ctx,
            self._calls,
            self._events,
            self._heartbeat,
            self._renew_after_s,
            lambda text: self._report(("private",), True, text),
            lambda text: self._report(("private",), False, text),
        )
        orders = self._make_api(self._nothing_to_say, ("orders",))
        for channel in (private.channel, orders):
            await channel.open()
            self.ctx.spawn(channel.run(), channel.name)
        self.ctx.spawn(private.keep_alive(), "listen key")
        self._dead_man = DeadMan(self.ctx, self._calls, self._table, self.params.dead_man_s)
        if self.params.liquidation_alarm > 0:
            self.ctx.spawn(
                watch_liquidation(
                    self.ctx, self._queries, self.params.liquidation_alarm, self.params.liquidation_every_s
                ),
                "liquidation",
            )

    async def _nothing_to_say(self, websocket: WebSocket) -> None:
        """Each request is signed; the connection itself needs no login."""

    def _on_user_event(self, event: msgspec.Raw) -> None:
        """Take what comes beside answers: the venue's notice that it will close the connection."""
        self._events.take(event)

    def _on_end(self, text: str) -> None:
        if self._private is not None:
            self._private.channel.drop(text)

    def _on_shutdown(self) -> None:
        if self._api is not None:
            self._api.renew()
        if self._private is not None:
            self._private.channel.renew()
