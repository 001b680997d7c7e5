"""The public stream of one product: every symbol's book, best prices, trades and summary on one connection."""

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Final

import msgspec

from host.api import MarketEvent

from .._shared.bad_frames import BadFrames
from .._shared.channel import Channel
from .._shared.websocket import NotConnected, WebSocket
from .conversation import MOST_TOPICS, Conversation
from .frames import BadFrame, Head
from .market_codec import BEST_ONLY, MarketCodec, book_topic, ticker_topic, trade_topic
from .params import BybitParams
from .products import EXCHANGE, Listing, Listings, Product

__all__ = ["MarketStream"]

_log = logging.getLogger("tandem.bybit")
_SNAPSHOT_DUE_S: Final = 5.0
"""A topic that was subscribed again and brings no snapshot for so long is taken for a broken line."""
_HEAD: Final = msgspec.json.Decoder(Head, strict=False)


class MarketStream:
    """Keeps one product's topics flowing, and every book right or known to be wrong.

    `hand_over` gets each event; `on_change(is_up, text)` hears when the connection comes and goes.
    """

    def __init__(
        self,
        product: Product,
        params: BybitParams,
        listings: Listings,
        now_ns: Callable[[], int],
        hand_over: Callable[[MarketEvent], None],
        on_change: Callable[[bool, str], None],
    ) -> None:
        self._product: Final = product
        self._params: Final = params
        self._now_ns: Final = now_ns
        self._hand_over: Final = hand_over
        self._on_change: Final = on_change
        self._topics: Final[dict[str, None]] = {}
        self._renewing: Final[dict[str, asyncio.TimerHandle]] = {}
        """Topics that were subscribed anew and have no snapshot yet, with the timers of when it is due."""
        self._conversation: Final = Conversation(f"{EXCHANGE} {product}")
        self._codec: Final = MarketCodec(product, listings.symbols_of(product))
        self._bad: Final = BadFrames(_log, f"{EXCHANGE} {product}")
        self.channel: Final = Channel(
            f"{EXCHANGE} {product} market data",
            url=self._url,
            on_message=self._on_message,
            on_open=self._on_open,
            on_up=lambda text: on_change(True, text),
            on_down=self._on_down,
            heartbeat=params.heartbeat,
            timeout_s=params.connect_timeout_s,
            renew_after_s=params.renew_after_s,
        )

    @property
    def bad_frames(self) -> dict[str, int]:
        """Return how many messages could not be understood, by kind."""
        return dict(self._bad.counts)

    async def follow(self, listings: Sequence[Listing]) -> None:
        """Subscribe further symbols; the first time, connect. Raises `ExchangeError`."""
        new = [
            topic for listing in listings for topic in self._topics_of(listing) if topic not in self._topics
        ]
        is_first = not self._topics
        self._topics.update(dict.fromkeys(new))
        if is_first:
            await self.channel.open()
        elif self.channel.is_up and new:
            # Their answer is not waited for: what is refused shows as a symbol without data.
            for start in range(0, len(new), MOST_TOPICS):
                self.channel.send(self._conversation.request("subscribe", new[start : start + MOST_TOPICS]))

    def resync(self, listing: Listing) -> None:
        """Have a symbol's book begin anew; without a connection, the next one does that."""
        self._start_over(book_topic(self._params.depth, listing.venue_symbol))

    # -- inside ----------------------------------------------------------------------------------

    def _topics_of(self, listing: Listing) -> list[str]:
        symbol = listing.venue_symbol
        topics = [book_topic(BEST_ONLY, symbol), book_topic(self._params.depth, symbol)]
        if self._params.trades:
            topics.append(trade_topic(symbol))
        if self._params.ticker:
            topics.append(ticker_topic(symbol))
        return topics

    async def _url(self) -> str:
        return f"{self._params.socket_url}/v5/public/{self._product}"

    async def _on_open(self, socket: WebSocket) -> None:
        await self._conversation.subscribe(socket, list(self._topics))

    def _on_down(self, text: str) -> None:
        self._codec.start_over()
        self._on_change(False, text)

    def _on_message(self, frame: memoryview) -> None:
        now_ns = self._now_ns()
        top = self._codec.usual_top(frame, now_ns)
        if top is not None:
            self._hand_over(top)
            return
        try:
            events = self._codec.events(frame, now_ns)
        except BadFrame as error:
            self._bad.note(error.kind, frame, error.detail)
            return
        if self._renewing:
            self._note_snapshots()
        if events:
            for event in events:
                self._hand_over(event)
        elif not self._codec.lost:
            self._on_answer(frame)
        for topic in self._codec.take_lost():
            _log.warning("%s: %s: a push is missing; the topic is subscribed again", EXCHANGE, topic)
            self._start_over(topic)

    def _on_answer(self, frame: memoryview) -> None:
        try:
            head = _HEAD.decode(frame)
        except msgspec.DecodeError:
            return  # the codec has looked at it
        if head.op:
            self._conversation.take(head)
            if head.success is False:
                self._bad.note(f"{head.op} refused", frame, head.ret_msg)

    def _start_over(self, topic: str) -> None:
        if topic in self._renewing or not self.channel.is_up:
            return
        self._codec.forget(topic)
        loop = asyncio.get_running_loop()
        self._renewing[topic] = loop.call_later(_SNAPSHOT_DUE_S, self._not_renewed, topic)
        try:
            for op in ("unsubscribe", "subscribe"):
                self.channel.send(self._conversation.request(op, [topic]))
        except NotConnected:
            _log.info("%s: %s: the connection was lost meanwhile, the next one begins anew", EXCHANGE, topic)

    def _note_snapshots(self) -> None:
        for topic in [topic for topic in self._renewing if self._codec.is_started(topic)]:
            self._renewing.pop(topic).cancel()

    def _not_renewed(self, topic: str) -> None:
        del self._renewing[topic]
        if not self._codec.is_started(topic):
            self.channel.drop(f"{topic}: no snapshot within {_SNAPSHOT_DUE_S:g} s of its subscription")
