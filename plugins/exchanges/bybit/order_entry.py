"""Orders on their way out: over the order-entry WebSocket, or over REST while that is down.

An answer that says yes means that the request was taken in; what becomes of it is pushed on the
private stream. An answer that says no is the end of the request. No answer, or one that does not
say, is told as unanswered: the host asks by client id.
"""

import logging
from collections.abc import Callable, Coroutine
from contextlib import suppress
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
from .._shared.gathering import Gathering
from .._shared.pending import PendingRequests
from .._shared.rest import RestUnanswered
from .._shared.venue_clock import ClockUnsure, VenueClock, Window
from .._shared.websocket import NotConnected, WebSocket
from .answers import OrderReply, order_reply, read_outcomes
from .conversation import Conversation
from .errors import OK_CODE
from .frames import BadFrame, Head
from .limits import AMEND, CANCEL, CREATE, BybitLimits
from .order_tracker import OrderTracker
from .params import BybitParams
from .products import EXCHANGE, Listing, Listings, Product
from .requests import amend_fields, batch_limit, batch_of, cancel_fields, place_fields
from .rest_client import RestClient, Unknown, VenueRefused
from .signing import Signer

__all__ = ["OrderCommand", "OrderEntry"]

_log = logging.getLogger("tandem.bybit")
_CANCEL_WINDOW_MS: Final = 5_000
_PLACED_ALONE: Final = 2
"""Both sides of a quote leave at once; further orders of the same turn, as of a ladder, leave together."""
_ENCODER: Final = msgspec.json.Encoder()

OrderCommand = PlaceOrder | AmendOrder | CancelOrder


class _Sent(Struct, frozen=True):
    """A request that waits for its answer."""

    kind: str
    product: Product
    client_id: str


class _Part(Struct, frozen=True):
    """One order's part of a request, and when it may be carried out."""

    sent: _Sent
    fields: dict[str, Any]
    window: Window


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
        self._pending: Final = PendingRequests[tuple[_Sent, ...]](
            params.answer_timeout_ms / 1e3, self._unanswered
        )
        self._places: Final = Gathering[_Part](_PLACED_ALONE, self._go_together)
        self._cancels: Final = Gathering[_Part](1, self._go_together)
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

        Raises `ExchangeError` when nothing was sent. Of several cancels in one turn of the loop the first, and of
        several new orders the first two, go out alone, and the others together right after the turn.
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
        part = _Part(_Sent(kind, listing.product, command.client_id), fields, window)
        self._limits.take_order(listing.product, kind, self._now_ns(), is_http=self._is_http)
        if kind != CREATE and self._places.waits(lambda each: each.sent.client_id == command.client_id):
            self._places.flush()  # an order goes out before what is to change it
        gathering = {CREATE: self._places, CANCEL: self._cancels}.get(kind)
        if gathering is None or gathering.is_alone():
            self._go([part])
        else:
            gathering.add(part)
        if isinstance(command, AmendOrder):
            self._tracker.amend_sent(command)

    def close(self) -> None:
        """Tell of nothing more."""
        self._pending.close()
        self._places.close()
        self._cancels.close()

    @property
    def _is_http(self) -> bool:
        return self._params.order_entry == "rest" or not self.channel.is_up

    def _go_together(self, parts: list[_Part]) -> None:
        for product in Product:
            some = [part for part in parts if part.sent.product is product]
            most = batch_limit(product)
            for start in range(0, len(some), most):
                self._go(some[start : start + most])

    def _go(self, parts: list[_Part]) -> None:
        """Send one request: an order's own, or a batch of one kind and product."""
        sent = tuple(part.sent for part in parts)
        fields = parts[0].fields if len(parts) == 1 else batch_of([part.fields for part in parts])
        # None of a batch may be carried out later than it was allowed to be by itself.
        window = min((part.window for part in parts), key=lambda window: window.last_ms)
        if not self._is_http:
            with suppress(NotConnected):
                self._send(sent, fields, window)
                return
        self._spawn(self._post(sent, fields, window), f"{sent[0].kind} {sent[0].client_id}")

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

    def _send(self, sent: tuple[_Sent, ...], fields: dict[str, Any], window: Window) -> None:
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
                    "op": _op(sent),
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

    def _on_reply(self, sent: tuple[_Sent, ...], reply: OrderReply) -> None:
        if len(sent) == 1:  # it is not confirmed that what is left of a batch's limit is left of this one
            headers = {name.lower(): value for name, value in reply.header.items()}
            self._limits.told(sent[0].product, sent[0].kind, headers, self._now_ns())
        if reply.ret_code != OK_CODE:
            self._failed(sent, self._rest.refusal(_op(sent), reply.ret_code, reply.ret_msg))
        elif len(sent) > 1:
            self._on_outcomes(sent, reply.ret_ext_info)

    def _on_outcomes(self, sent: tuple[_Sent, ...], extra: msgspec.Raw) -> None:
        """Tell each order of a batch what the answer says of it; what it does not tell is in doubt."""
        try:
            outcomes = read_outcomes(extra)
        except BadFrame as error:
            self._bad.note(error.kind, extra, error.detail)
            outcomes = ()
        for each, outcome in zip(sent, outcomes, strict=False):
            if outcome.code != OK_CODE:
                self._failed((each,), self._rest.refusal(_op(sent), outcome.code, outcome.msg))
        if len(outcomes) < len(sent):
            self._unanswered(sent[len(outcomes) :], "the answer to the batch does not tell")

    # -- over REST -------------------------------------------------------------------------------

    async def _post(self, sent: tuple[_Sent, ...], fields: dict[str, Any], window: Window) -> None:
        try:
            answer = await self._rest.post(_path(sent), fields, window)
        except (VenueRefused, Unknown, RestUnanswered) as error:
            self._failed(sent, error)
        else:
            if len(sent) > 1:
                self._on_outcomes(sent, answer.ret_ext_info)

    # -- what became of it -----------------------------------------------------------------------

    def _failed(self, sent: tuple[_Sent, ...], error: ExchangeError) -> None:
        if isinstance(error, VenueRefused):
            for each in sent:
                self._refused(each, error.verdict.reason, f"{error.code} {error.text}")
        elif isinstance(error, RestUnanswered) and error.is_unsent:
            for each in sent:
                self._refused(each, RejectReason.UNAVAILABLE, f"nothing was sent: {error}")
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

    def _unanswered(self, sent: tuple[_Sent, ...], text: str) -> None:
        for each in sent:
            self._report(RequestUnanswered(each.client_id, text, self._now_ns()))


_VERBS: Final = {CREATE: "create", AMEND: "amend", CANCEL: "cancel"}


def _verb(sent: tuple[_Sent, ...]) -> str:
    return _VERBS[sent[0].kind] + ("-batch" if len(sent) > 1 else "")


def _op(sent: tuple[_Sent, ...]) -> str:
    return f"order.{_verb(sent)}"


def _path(sent: tuple[_Sent, ...]) -> str:
    return f"/v5/order/{_verb(sent)}"


def _placed(listing: Listing, place: PlaceOrder) -> dict[str, Any]:
    if place.reduce_only and listing.product is Product.SPOT and place.side is Side.BUY:
        raise ExchangeError(
            f"{EXCHANGE}: {place.symbol}: on spot reduce-only means to sell; nothing was sent"
        )
    return place_fields(listing, place)
