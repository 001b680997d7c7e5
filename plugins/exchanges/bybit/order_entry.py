"""Orders on their way out: over the order-entry WebSocket, or over REST while that is down.

An answer that says yes means that the request was taken in; what becomes of it is pushed on the
private stream. An answer that says no is the end of the request. No answer, or one that does not
say, is told as unanswered: the host asks by client id.
"""

import logging
from collections.abc import Callable, Coroutine
from typing import Any, Final

import msgspec
from msgspec import Struct

from host.api import (
    AmendOrder,
    AmendRejected,
    CancelOrder,
    CancelRejected,
    ExchangeError,
    OrderRejected,
    PlaceOrder,
    RejectReason,
    Report,
    RequestUnanswered,
    Side,
)

from .._shared.bad_frames import BadFrames
from .._shared.channel import Channel
from .._shared.pending import PendingRequests
from .._shared.rest import RestUnanswered
from .._shared.venue_clock import ClockUnsure, VenueClock, Window
from .._shared.websocket import WebSocket
from .answers import OrderReply, order_reply
from .conversation import Conversation
from .errors import OK_CODE
from .frames import BadFrame, Head
from .limits import AMEND, CANCEL, CREATE, BybitLimits
from .order_tracker import OrderTracker
from .params import BybitParams
from .products import EXCHANGE, Listing, Listings, Product
from .requests import amend_fields, cancel_fields, place_fields
from .rest_client import RestClient, Unknown, VenueRefused
from .signing import Signer

__all__ = ["OrderCommand", "OrderEntry"]

_log = logging.getLogger("tandem.bybit")
_CANCEL_WINDOW_MS: Final = 5_000
_ENCODER: Final = msgspec.json.Encoder()

OrderCommand = PlaceOrder | AmendOrder | CancelOrder


class _Sent(Struct, frozen=True):
    """A request that waits for its answer."""

    kind: str
    product: Product
    client_id: str


class OrderEntry:
    """Sends order commands and reports the answers that end them."""

    def __init__(
        self,
        params: BybitParams,
        listings: Listings,
        signer: Signer,
        clock: VenueClock,
        limits: BybitLimits,
        rest: RestClient,
        tracker: OrderTracker,
        now_ns: Callable[[], int],
        report: Callable[[Report], None],
        spawn: Callable[[Coroutine[Any, Any, None], str], object],
        on_change: Callable[[bool, str], None],
    ) -> None:
        self._params: Final = params
        self._listings: Final = listings
        self._signer: Final = signer
        self._clock: Final = clock
        self._limits: Final = limits
        self._rest: Final = rest
        self._tracker: Final = tracker
        self._now_ns: Final = now_ns
        self._report: Final = report
        self._spawn: Final = spawn
        self._on_change: Final = on_change
        self._number = 0
        self._pending: Final = PendingRequests[_Sent](params.answer_timeout_ms / 1e3, self._unanswered)
        self._conversation: Final = Conversation(f"{EXCHANGE} order entry")
        self._bad: Final = BadFrames(_log, f"{EXCHANGE} order entry")
        self.channel: Final = Channel(
            f"{EXCHANGE} order entry",
            url=self._url,
            on_message=self._on_message,
            on_open=self._on_open,
            on_up=lambda text: on_change(True, text),
            on_down=self._on_down,
            heartbeat=params.heartbeat,
            timeout_s=params.connect_timeout_s,
            renew_after_s=params.renew_after_s,
            drops_unsent=True,
        )

    def send(self, command: OrderCommand, deadline_ns: int) -> None:
        """Send one command, to be carried out until `deadline_ns` or not at all.

        Raises `ExchangeError` when nothing was sent.
        """
        if isinstance(command, PlaceOrder):
            # Only what is listed at present is traded; what rests of a symbol that vanished can be cancelled.
            listing = self._listings.listed(command.symbol)
            kind, fields = CREATE, _placed(listing, command)
        elif isinstance(command, AmendOrder):
            listing = self._listings.known(command.symbol)
            kind, fields = AMEND, amend_fields(listing, command)
        else:
            listing = self._listings.known(command.symbol)
            kind, fields = CANCEL, cancel_fields(listing, command)
        window = self._window(kind, deadline_ns)
        sent = _Sent(kind, listing.product, command.client_id)
        is_http = self._params.order_entry == "rest" or not self.channel.is_up
        self._limits.take_order(listing.product, kind, self._now_ns(), is_http=is_http)
        if is_http:
            self._spawn(self._post(sent, fields, window), f"{kind} {command.client_id}")
        else:
            self._send(sent, fields, window)
        if isinstance(command, AmendOrder):
            self._tracker.amend_sent(command)

    def close(self) -> None:
        """Tell of nothing more."""
        self._pending.close()

    def _window(self, kind: str, deadline_ns: int) -> Window:
        try:
            return self._clock.window(deadline_ns)
        except ClockUnsure:
            if kind != CANCEL:
                raise
            # A cancel does no harm late: it goes out by the best guess of the venue's time.
            return self._clock.loose_window(_CANCEL_WINDOW_MS)

    # -- over the WebSocket ----------------------------------------------------------------------

    async def _url(self) -> str:
        return f"{self._params.socket_url}/v5/trade"

    async def _on_open(self, socket: WebSocket) -> None:
        await self._conversation.log_in(socket, self._signer, self._clock)

    def _on_down(self, text: str) -> None:
        self._pending.give_up_all(f"the order connection was lost: {text}")
        self._on_change(False, text)

    def _send(self, sent: _Sent, fields: dict[str, Any], window: Window) -> None:
        self._number += 1
        request_id = f"{self._number:x}"
        self.channel.send(
            _ENCODER.encode(
                {
                    "reqId": request_id,
                    "header": {
                        "X-BAPI-TIMESTAMP": str(window.sent_ms),
                        "X-BAPI-RECV-WINDOW": str(window.width_ms),
                    },
                    "op": _OPS[sent.kind],
                    "args": [fields],
                }
            )
        )
        self._pending.add(request_id, sent)

    def _on_message(self, frame: memoryview) -> None:
        try:
            reply = order_reply(frame)
        except BadFrame as error:
            self._bad.note(error.kind, frame, error.detail)
            return
        sent = self._pending.take(reply.req_id) if reply.req_id else None
        if sent is not None:
            self._on_reply(sent, reply)
        elif reply.op == "auth":
            self._conversation.take(Head(op="auth", ret_code=reply.ret_code, ret_text=reply.ret_msg))

    def _on_reply(self, sent: _Sent, reply: OrderReply) -> None:
        headers = {name.lower(): value for name, value in reply.header.items()}
        self._limits.told(sent.product, sent.kind, headers, self._now_ns())
        if reply.ret_code != OK_CODE:
            self._failed(sent, self._rest.refusal(_OPS[sent.kind], reply.ret_code, reply.ret_msg))

    # -- over REST -------------------------------------------------------------------------------

    async def _post(self, sent: _Sent, fields: dict[str, Any], window: Window) -> None:
        try:
            await self._rest.post(_PATHS[sent.kind], fields, window)
        except (VenueRefused, Unknown, RestUnanswered) as error:
            self._failed(sent, error)

    # -- what became of it -----------------------------------------------------------------------

    def _failed(self, sent: _Sent, error: ExchangeError) -> None:
        if isinstance(error, VenueRefused):
            self._refused(sent, error.verdict.reason, f"{error.code} {error.text}")
        elif isinstance(error, RestUnanswered) and error.is_unsent:
            self._refused(sent, RejectReason.UNAVAILABLE, f"nothing was sent: {error}")
        else:
            self._unanswered(sent, str(error))

    def _refused(self, sent: _Sent, reason: RejectReason, text: str) -> None:
        now_ns = self._now_ns()
        if sent.kind == CREATE:
            self._report(OrderRejected(sent.client_id, reason, text, now_ns))
        elif sent.kind == AMEND:
            self._tracker.amend_refused(sent.client_id)
            self._report(AmendRejected(sent.client_id, reason, text, now_ns))
        else:
            self._report(CancelRejected(sent.client_id, reason, text, now_ns))

    def _unanswered(self, sent: _Sent, text: str) -> None:
        self._report(RequestUnanswered(sent.client_id, text, self._now_ns()))


_OPS: Final = {CREATE: "order.create", AMEND: "order.amend", CANCEL: "order.cancel"}
_PATHS: Final = {CREATE: "/v5/order/create", AMEND: "/v5/order/amend", CANCEL: "/v5/order/cancel"}


def _placed(listing: Listing, place: PlaceOrder) -> dict[str, Any]:
    if place.reduce_only and listing.product is Product.SPOT and place.side is Side.BUY:
        raise ExchangeError(
            f"{EXCHANGE}: {place.symbol}: on spot reduce-only means to sell; nothing was sent"
        )
    return place_fields(listing, place)
