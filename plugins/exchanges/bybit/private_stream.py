"""The private stream: what became of our orders, and their executions."""

import logging
from collections.abc import Callable
from typing import Final

import msgspec
from msgspec import Struct

from host.api import Report

from .._shared.bad_frames import BadFrames
from .._shared.channel import Channel
from .._shared.venue_clock import VenueClock
from .._shared.websocket import WebSocket
from .conversation import Conversation
from .fill_watch import FillWatch
from .frames import BadFrame, ExecutionRow, Frame, Head, OrderRow, decode
from .order_codec import MS, fill_of, is_trade, snapshot_of
from .order_tracker import OrderTracker
from .params import BybitParams
from .products import EXCHANGE, Listing, Listings, Product
from .signing import Signer

__all__ = ["PrivateStream"]

_log = logging.getLogger("tandem.bybit")
_TOPICS: Final = ("order", "execution")
_BY_THE_VENUE: Final = ("AdlTrade", "BustTrade")
"""Deleveraging and liquidation."""


class _OrderFrame(Struct):
    data: tuple[OrderRow, ...]


class _ExecutionFrame(Struct):
    data: tuple[ExecutionRow, ...]


_HEAD: Final = msgspec.json.Decoder(Head, strict=False)
_ORDERS: Final = msgspec.json.Decoder(_OrderFrame, strict=False)
_EXECUTIONS: Final = msgspec.json.Decoder(_ExecutionFrame, strict=False)


class PrivateStream:
    """Logs in and turns pushes into reports. `report` gets each; `on_change` hears of the connection."""

    def __init__(
        self,
        params: BybitParams,
        listings: Listings,
        signer: Signer,
        clock: VenueClock,
        tracker: OrderTracker,
        host_ns: Callable[[int], int],
        report: Callable[[Report], None],
        on_change: Callable[[bool, str], None],
    ) -> None:
        self._params: Final = params
        self._listings: Final = listings
        self._signer: Final = signer
        self._clock: Final = clock
        self._tracker: Final = tracker
        self._host_ns: Final = host_ns
        self._report: Final = report
        self._on_change: Final = on_change
        self._fills: Final = FillWatch(report)
        self._watched: Final = _watched_topics(params.products)
        self._is_watched = False
        self._conversation: Final = Conversation(f"{EXCHANGE} private stream")
        self._bad: Final = BadFrames(_log, f"{EXCHANGE} private stream")
        self.channel: Final = Channel(
            f"{EXCHANGE} private stream",
            url=self._url,
            on_message=self._on_message,
            on_open=self._on_open,
            on_up=lambda text: on_change(True, text),
            on_down=lambda text: on_change(False, text),
            heartbeat=params.heartbeat,
            timeout_s=params.connect_timeout_s,
            renew_after_s=params.renew_after_s,
        )

    def watch(self, is_watched: bool) -> None:
        """Have the venue take the loss of this connection for that of the account, or not any more.

        Raises `NotConnected` when it cannot be told now; the next connection is as was said last.
        """
        if is_watched != self._is_watched:
            self._is_watched = is_watched
            self.channel.send(
                self._conversation.request("subscribe" if is_watched else "unsubscribe", self._watched)
            )

    def close(self) -> None:
        """Close the connection; nothing is told of after that."""
        self._fills.close()
        self.channel.close()

    @property
    def bad_frames(self) -> dict[str, int]:
        """Return how many messages could not be understood, by kind."""
        return dict(self._bad.counts)

    async def _url(self) -> str:
        return f"{self._params.socket_url}/v5/private"

    async def _on_open(self, socket: WebSocket) -> None:
        await self._conversation.log_in(socket, self._signer, self._clock)
        watched = self._watched if self._is_watched else ()
        await self._conversation.subscribe(socket, [*_TOPICS, *watched])

    def _on_message(self, frame: memoryview) -> None:
        try:
            head = decode(_HEAD, frame, "private frame")
            if head.topic.startswith("order"):
                self._on_orders(frame)
            elif head.topic.startswith("execution"):
                self._on_executions(frame)
            elif head.topic:
                self._bad.note("unknown topic", frame, head.topic)
            else:
                self._conversation.take(head)
        except BadFrame as error:
            self._bad.note(error.kind, frame, error.detail)
            # What it would have said of our orders is not known: the host asks after every break.
            self._on_change(False, f"a message could not be read: {error.kind}")
            self._on_change(True, "what was missed is asked for")

    def _on_orders(self, frame: Frame) -> None:
        for row in decode(_ORDERS, frame, "order frame").data:
            listing = self._listing_of(row.category, row.symbol)
            if listing is None:
                continue
            ts_ns = self._host_ns(row.updated_time * MS)
            for report in self._tracker.reports(row, ts_ns):
                self._report(report)
            if row.order_link_id:
                self._fills.order(snapshot_of(listing, row, ts_ns))

    def _on_executions(self, frame: Frame) -> None:
        for row in decode(_EXECUTIONS, frame, "execution frame").data:
            listing = self._listing_of(row.category, row.symbol)
            if listing is None or not is_trade(row):
                continue
            if row.exec_type in _BY_THE_VENUE:
                _log.error(
                    "%s: the venue itself traded %s %s: %s", EXCHANGE, row.exec_qty, row.symbol, row.exec_type
                )
            if row.order_link_id:
                fill = fill_of(listing, row, self._host_ns(row.exec_time * MS))
                self._fills.fill(fill.client_id, fill.trade_id, fill.qty)
                self._report(fill)

    def _listing_of(self, category: str, symbol: str) -> Listing | None:
        """Return what a row is about; None for a product or symbol that is not traded here."""
        if category not in self._params.products:
            return None
        return self._listings.find(Product(category), symbol)


def _watched_topics(products: tuple[Product, ...]) -> list[str]:
    topics = []
    if Product.SPOT in products:
        topics.append("dcp.spot")
    if Product.LINEAR in products or Product.INVERSE in products:
        topics.append("dcp.future")
    return topics
