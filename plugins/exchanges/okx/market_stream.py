"""Market data over the public WebSocket: one connection for up to a hundred instruments.

Top, book, trades and ticker of an instrument come over one connection. While it is replaced (make
before break) both the old and the new one hand messages over; what was told already is dropped then.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Final

from host.api import BookTop, Depth, MarketEvent, Trade

from .._shared.backoff import Backoff
from .._shared.bad_frames import BadFrames
from .._shared.channel import Channel
from .._shared.websocket import NotConnected, WebSocket
from .checksum import BookTexts, read_texts
from .conversation import PONG, Conversation, subscription
from .frames import BadFrame, MarketFrame, read_market_frame
from .market_codec import BOOKS, TICKERS, TOPS, TRADES, is_read, market_events
from .params import OkxParams, heartbeat, renew_after_s, ws_url
from .price_limits import PRICE_LIMITS, PriceLimits
from .products import EXCHANGE, Listing, Listings
from .usual_frames import usual_events

__all__ = ["MOST_INSTRUMENTS", "MarketStream"]

_log = logging.getLogger("tandem.okx")
MOST_INSTRUMENTS: Final = 100
_OVERLAP_S: Final = 2.0
_RECONNECT_SOON: Final = "64008"
"""A notice: this connection will be closed for a service upgrade."""
_SETTLED_S: Final = 60.0
"""A book that needed no new start for so long gets one at once when it does."""


class _Renewal:
    """When a book may be asked for anew: less often the more often it is."""

    def __init__(self) -> None:
        self.backoff: Final = Backoff(0.05, 30.0)
        self.timer: asyncio.TimerHandle | None = None
        self.last_s = 0.0


class MarketStream:
    """The market data of some instruments."""

    def __init__(
        self,
        number: int,
        params: OkxParams,
        listings: Listings,
        now_ns: Callable[[], int],
        hand_over: Callable[[MarketEvent], None],
        on_change: Callable[[bool, str], None],
        price_limits: PriceLimits,
    ) -> None:
        name = f"{EXCHANGE} market data {number}"
        self._params: Final = params
        self._listings: Final = listings
        self._now_ns: Final = now_ns
        self._hand_over: Final = hand_over
        self._on_change: Final = on_change
        self._price_limits: Final = price_limits
        self._conversation: Final = Conversation(name)
        self._bad: Final = BadFrames(_log, name)
        self._usual_event: Final = usual_events(listings.market_names)
        self._followed: Final[dict[str, Listing]] = {}
        self._tops: Final[dict[str, BookTop]] = {}
        self._book_seqs: Final[dict[str, int]] = {}
        self._last_trades: Final[dict[str, int]] = {}
        self._texts: Final[dict[str, BookTexts]] = {}
        self._renewals: Final[dict[str, _Renewal]] = {}
        self._overlaps_until_s = 0.0
        self.channel: Final = Channel(
            name,
            url=self._url,
            on_message=self._on_message,
            on_open=self._on_open,
            on_up=lambda text: on_change(True, text),
            on_down=self._on_down,
            heartbeat=heartbeat(params),
            timeout_s=params.connect_timeout_s,
            renew_after_s=renew_after_s(params),
            overlap_s=_OVERLAP_S,
        )

    @property
    def room(self) -> int:
        """Return how many more instruments it takes."""
        return MOST_INSTRUMENTS - len(self._followed)

    @property
    def bad_frames(self) -> dict[str, int]:
        """Return how many messages could not be understood, by kind."""
        return dict(self._bad.counts)

    def follows(self, listing: Listing) -> bool:
        """Return whether an instrument's data comes over this connection."""
        return listing.inst_id in self._followed

    async def follow(self, listings: Sequence[Listing]) -> None:
        """Subscribe further instruments; the first time, connect. Raises `ExchangeError`."""
        new = [listing for listing in listings if not self.follows(listing)]
        is_first = not self._followed
        self._followed.update((listing.inst_id, listing) for listing in new)
        if is_first:
            await self.channel.open()
        elif self.channel.is_up and new:
            # The answer is not waited for: what is refused shows as a symbol without data.
            self.channel.send(subscription("subscribe", [arg for each in new for arg in self._args(each)]))

    def resync(self, listing: Listing) -> None:
        """Have an instrument's book begin anew; without a connection, the next one does that."""
        if not self.follows(listing):
            return
        renewal = self._renewals.setdefault(listing.inst_id, _Renewal())
        if renewal.timer is not None:
            return
        loop = asyncio.get_running_loop()
        if loop.time() - renewal.last_s > _SETTLED_S:
            renewal.backoff.reset()
        renewal.timer = loop.call_later(renewal.backoff.next_s(), self._renew, listing, renewal)

    def close(self) -> None:
        """Close the connection; nothing is handed over after that."""
        for renewal in self._renewals.values():
            if renewal.timer is not None:
                renewal.timer.cancel()
        self.channel.close()

    # -- inside ----------------------------------------------------------------------------------

    async def _url(self) -> str:
        return f"{ws_url(self._params)}/ws/v5/public"

    def _args(self, listing: Listing) -> list[dict[str, str]]:
        channels = [TOPS, BOOKS]
        if self._params.trades:
            channels.append(TRADES)
        if self._params.tickers:
            channels.append(TICKERS)
        if self._params.price_limits:
            channels.append(PRICE_LIMITS)
        return [{"channel": channel, "instId": listing.inst_id} for channel in channels]

    async def _on_open(self, socket: WebSocket) -> None:
        if self.channel.is_up:  # the old connection goes on for a moment
            self._overlaps_until_s = asyncio.get_running_loop().time() + _OVERLAP_S + 1.0
        args = [arg for listing in self._followed.values() for arg in self._args(listing)]
        await self._conversation.subscribe(socket, args)

    def _on_down(self, text: str) -> None:
        self._price_limits.forget(self._followed)
        self._on_change(False, text)

    def _renew(self, listing: Listing, renewal: _Renewal) -> None:
        renewal.timer = None
        renewal.last_s = asyncio.get_running_loop().time()
        args = [{"channel": BOOKS, "instId": listing.inst_id}]
        try:
            self.channel.send(subscription("unsubscribe", args))
            self.channel.send(subscription("subscribe", args))
        except NotConnected:
            _log.info("%s: %s: not connected; the next connection begins anew", EXCHANGE, listing.inst_id)

    def _on_message(self, data: memoryview) -> None:
        event = self._usual_event(data, self._now_ns())
        if event is not None and not (self._params.check_books and type(event) is Depth):
            self._pass_on(event)
            return
        if len(data) == len(PONG) and bytes(data) == PONG:
            return
        try:
            frame = read_market_frame(data)
        except BadFrame as error:
            self._bad.note(error.kind, data, error.detail)
            if b'"books' in bytes(data[:200]):
                self.channel.drop("a book's message could not be read")
            return
        if frame.event:
            self._on_event(frame, data)
            return
        try:
            if frame.arg.channel == PRICE_LIMITS:
                self._price_limits.take(data)
                return
            if not is_read(frame.arg.channel):
                self._bad.note("unknown channel", data, frame.arg.channel)
                return
            events = market_events(self._listings, frame, self._now_ns())
            is_right = not self._params.check_books or self._is_as_the_venue_says(frame, data)
        except BadFrame as error:
            self._bad.note(error.kind, data, error.detail)
            self._distrust(frame)
            return
        for event in events:
            self._pass_on(event)
        if not is_right:
            self._bad.note("wrong checksum", data, "the book is asked for anew")
            self._distrust(frame)

    def _on_event(self, frame: MarketFrame, data: memoryview) -> None:
        if frame.code == _RECONNECT_SOON:
            _log.info("%s: the venue will close the connection: %s; it is replaced", EXCHANGE, frame.msg)
            self.channel.renew()
        elif not self._conversation.take(frame):
            self._bad.note(f"event {frame.event}", data, f"{frame.code} {frame.msg}")

    def _pass_on(self, event: MarketEvent) -> None:
        kind = type(event)
        if kind is BookTop:
            self._tops[event.symbol] = event  # type: ignore[assignment]  # the test above
            self._hand_over(event)
        elif kind is Depth:
            self._pass_book_on(event)  # type: ignore[arg-type]  # the test above
        elif kind is not Trade or self._is_news(event):  # type: ignore[arg-type]
            self._hand_over(event)

    def _pass_book_on(self, depth: Depth) -> None:
        symbol = depth.symbol
        if not depth.is_snapshot and self._overlaps and depth.prev_seq != self._book_seqs.get(symbol):
            return  # the other connection's: its numbers are the same, it is only behind or ahead
        self._book_seqs[symbol] = depth.seq
        self._hand_over(depth)
        top = self._tops.get(symbol)
        if top is not None and top.ts_event > depth.ts_event:
            # Books come each 100 ms, tops each 10: the host has just taken an older one for the newest.
            self._hand_over(top)

    def _is_news(self, trade: Trade) -> bool:
        last = self._last_trades.get(trade.symbol, 0)
        if trade.trade_id <= last and self._overlaps:
            return False
        self._last_trades[trade.symbol] = trade.trade_id
        return True

    @property
    def _overlaps(self) -> bool:
        until_s = self._overlaps_until_s
        return until_s > 0.0 and asyncio.get_running_loop().time() < until_s

    def _is_as_the_venue_says(self, frame: MarketFrame, data: memoryview) -> bool:
        if frame.arg.channel != BOOKS:
            return True
        return self._texts.setdefault(frame.arg.inst_id, BookTexts()).apply(read_texts(data))

    def _distrust(self, frame: MarketFrame) -> None:
        listing = self._listings.find(frame.arg.inst_id)
        if listing is not None and frame.arg.channel == BOOKS:
            self.resync(listing)
