"""Orders on their way out: over the private WebSocket, or over REST while that is down.

An answer that says yes means that the request was taken in; what became of it is pushed as the whole
order, and that push is what a request waits for. An answer that says no is its end. Neither within the
time, or an answer that does not say, is told as unanswered: the host asks by client id.
"""

import logging
from collections.abc import Callable, Coroutine
from typing import Any, Final

from msgspec import Struct

from host.api import (
    AmendOrder,
    AmendRejected,
    CancelOrder,
    CancelRejected,
    OrderRejected,
    PlaceOrder,
    RejectReason,
    Report,
    RequestUnanswered,
)

from .._shared.gathering import Gathering
from .._shared.pending import PendingRequests
from .._shared.rest import RestUnanswered
from .._shared.venue_clock import ClockUnsure, VenueClock
from .._shared.verdicts import Action
from .._shared.websocket import NotConnected
from .answers import read_replies
from .dead_man import tag_of
from .errors import ERRORS, OK, code_number, is_instrument_code
from .frames import BadFrame, OrderRow, PrivateFrame, Reply
from .limits import AMEND, BATCH_CANCEL, BATCH_PLACE, CANCEL, PLACE, OkxLimits
from .order_codec import is_live
from .order_tracker import OrderTracker
from .params import OkxParams
from .price_limits import PriceLimits
from .products import EXCHANGE, Listing, Listings
from .requests import MOST_IN_BATCH, amend_fields, cancel_fields, named, place_fields, ws_request
from .rest_client import RestClient, Unknown, VenueRefused

__all__ = ["OrderCommand", "OrderEntry"]

_log = logging.getLogger("tandem.okx")
OrderCommand = PlaceOrder | AmendOrder | CancelOrder

_OPS: Final = {
    PLACE: "order",
    AMEND: "amend-order",
    CANCEL: "cancel-order",
    BATCH_PLACE: "batch-orders",
    BATCH_CANCEL: "batch-cancel-orders",
}
_PATHS: Final = {
    PLACE: "/api/v5/trade/order",
    AMEND: "/api/v5/trade/amend-order",
    CANCEL: "/api/v5/trade/cancel-order",
    BATCH_PLACE: "/api/v5/trade/batch-orders",
    BATCH_CANCEL: "/api/v5/trade/cancel-batch-orders",
}
_SINGLE: Final = {BATCH_PLACE: PLACE, BATCH_CANCEL: CANCEL}
"""What each order of a batch is."""
_PLACED_ALONE: Final = 2
"""Both sides of a quote leave at once; further orders of the same turn, as of a ladder, leave together."""


class _Part(Struct, frozen=True):
    """One order's part of a request, and the end of its window by the venue's clock; None: it has none."""

    listing: Listing
    fields: dict[str, Any]
    client_id: str
    last_ms: int | None


class _Sent(Struct, frozen=True):
    """A request that waits for what becomes of it."""

    kind: str
    listing: Listing
    client_id: str
    request_id: str

    @property
    def key(self) -> str:
        return _key(self.kind, self.client_id)


def _key(kind: str, client_id: str) -> str:
    return f"{_SINGLE.get(kind, kind)} {client_id}"


class OrderEntry:
    """Sends order commands and reports what becomes of them."""

    def __init__(
        self,
        params: OkxParams,
        listings: Listings,
        clock: VenueClock,
        limits: OkxLimits,
        rest: RestClient,
        tracker: OrderTracker,
        now_ns: Callable[[], int],
        report: Callable[[Report], None],
        spawn: Callable[[Coroutine[Any, Any, None], str], object],
        send: Callable[[bytes], None],
        price_limits: PriceLimits,
    ) -> None:
        self._params: Final = params
        self._listings: Final = listings
        self._clock: Final = clock
        self._limits: Final = limits
        self._rest: Final = rest
        self._tracker: Final = tracker
        self._now_ns: Final = now_ns
        self._report: Final = report
        self._spawn: Final = spawn
        self._send: Final = send
        self._price_limits: Final = price_limits
        self._pending: Final = PendingRequests[_Sent](params.answer_timeout_ms / 1e3, self._unanswered)
        self._by_request: Final[dict[str, list[_Sent]]] = {}
        self._number = 0
        self._only_rest: Final[set[str]] = set()
        """Instruments whose name the WebSocket did not take."""
        self._places: Final = Gathering[_Part](
            _PLACED_ALONE, lambda parts: self._go_together(BATCH_PLACE, parts)
        )
        self._cancels: Final = Gathering[_Part](1, lambda parts: self._go_together(BATCH_CANCEL, parts))

    # -- out -------------------------------------------------------------------------------------

    def send(self, command: OrderCommand, deadline_ns: int) -> None:
        """Send one command, to be carried out until `deadline_ns` or not at all.

        Raises `ExchangeError` when nothing was sent. Of several cancels in one turn of the loop the first, and of
        several new orders the first two, go out alone, and the others together right after the turn.
        """
        if isinstance(command, PlaceOrder):
            # Only what is listed at present is traded; what rests of an instrument that vanished can be cancelled.
            listing = self._listings.listed(command.symbol)
            self._price_limits.check(listing, command.side, command.price)
            last_ms = self._clock.window(deadline_ns).last_ms
            fields = place_fields(listing, command, self._params.margin_mode, tag_of(command.client_id))
            self._add(self._places, PLACE, BATCH_PLACE, _Part(listing, fields, command.client_id, last_ms))
        elif isinstance(command, AmendOrder):
            listing = self._listings.known(command.symbol)
            self._price_limits.check(listing, command.side, command.price)
            last_ms = self._clock.window(deadline_ns).last_ms
            self._limits.take_order(AMEND, listing.inst_id, self._now_ns())
            self._place_first(command.client_id)
            self._tracker.amend_sent(command)
            self._go(AMEND, [_Part(listing, amend_fields(listing, command), command.client_id, last_ms)])
        else:
            listing = self._listings.known(command.symbol)
            self._place_first(command.client_id)
            part = _Part(listing, cancel_fields(command), command.client_id, self._cancel_window(deadline_ns))
            self._add(self._cancels, CANCEL, BATCH_CANCEL, part)

    def _add(self, gathering: Gathering[_Part], single: str, batch: str, part: _Part) -> None:
        """Send an order's part of this turn, by itself or with others; raise `OverLimit`, with nothing sent."""
        is_alone = gathering.is_alone()
        self._limits.take_order(single if is_alone else batch, part.listing.inst_id, self._now_ns())
        if is_alone:
            self._go(single, [part])
        else:
            gathering.add(part)

    def _place_first(self, client_id: str) -> None:
        """Have an order go out before what is to change it."""
        if self._places.waits(lambda part: part.client_id == client_id):
            self._places.flush()

    def _cancel_window(self, deadline_ns: int) -> int | None:
        try:
            return self._clock.window(deadline_ns).last_ms
        except ClockUnsure:
            return None  # a late cancel does no harm: ids are never used again

    def _go_together(self, kind: str, parts: list[_Part]) -> None:
        for start in range(0, len(parts), MOST_IN_BATCH):
            self._go(kind, parts[start : start + MOST_IN_BATCH])

    def _go(self, kind: str, parts: list[_Part]) -> None:
        self._number += 1
        request_id = str(self._number)
        # None of a batch may be carried out later than it was allowed to be by itself.
        last_ms = min((part.last_ms for part in parts if part.last_ms is not None), default=None)
        sent = [_Sent(kind, part.listing, part.client_id, request_id) for part in parts]
        by_rest = self._params.order_entry == "rest" or any(
            part.listing.inst_id in self._only_rest for part in parts
        )
        if not by_rest:
            args = [named(part.listing, part.fields, by_code=True) for part in parts]
            try:
                self._send(ws_request(request_id, _OPS[kind], args, last_ms))
            except NotConnected:
                by_rest = True
        if by_rest:
            body = [named(part.listing, part.fields, by_code=False) for part in parts]
            self._spawn(
                self._over_rest(kind, body if kind in _SINGLE else body[0], last_ms, sent),
                f"{kind} over REST",
            )
        self._by_request[request_id] = sent
        for each in sent:
            self._pending.add(each.key, each)

    async def _over_rest(self, kind: str, body: Any, last_ms: int | None, sent: list[_Sent]) -> None:
        try:
            answer = await self._rest.send_orders(_PATHS[kind], body, last_ms)
            replies = read_replies(answer.data)
        except RestUnanswered as error:
            for each in sent:
                if error.is_unsent:
                    self._end(each, RejectReason.UNAVAILABLE, str(error))
                else:
                    self._give_up(each, str(error))
        except VenueRefused as error:
            for each in sent:
                self._no(each, error.code, error.text)
        except (Unknown, BadFrame) as error:
            for each in sent:
                self._give_up(each, str(error))
        else:
            self._on_replies(sent[0].request_id, replies)

    # -- back ------------------------------------------------------------------------------------

    def on_answer(self, frame: PrivateFrame) -> None:
        """Take the answer to an operation; raise `BadFrame`."""
        replies, code = read_replies(frame.data), code_number(frame.code)
        if replies:
            self._on_replies(frame.id, replies)
        elif code != OK:
            for each in self._by_request.get(frame.id, []):
                self._no(each, code, frame.msg)

    def _on_replies(self, request_id: str, replies: list[Reply]) -> None:
        sent = self._by_request.pop(request_id, [])
        named_ = {each.client_id: each for each in sent}
        for at, reply in enumerate(replies):
            each = named_.get(reply.cl_ord_id) or (sent[at] if at < len(sent) else None)
            code = code_number(reply.s_code)
            if each is not None and code != OK:
                self._no(each, code, reply.s_msg)

    def on_order(self, listing: Listing, row: OrderRow) -> None:
        """Take a push of the `orders` channel; raise `BadFrame`."""
        reports = self._tracker.reports(listing, row, self._now_ns())
        client_id, take = row.cl_ord_id, self._settle
        take(PLACE, client_id)
        live = is_live(row)
        if not live:
            take(CANCEL, client_id)
        if not live or row.amend_result:
            take(AMEND, client_id)
        for report in reports:
            self._report(report)

    def on_down(self, text: str) -> None:
        """Tell of every request as unanswered: the connection that would bring its outcome is lost."""
        self._pending.give_up_all(text)

    def close(self) -> None:
        """Tell of nothing more."""
        self._pending.close()
        self._places.close()
        self._cancels.close()

    # -- outcomes --------------------------------------------------------------------------------

    def _settle(self, kind: str, client_id: str) -> None:
        sent = self._pending.take(_key(kind, client_id))
        if sent is not None:
            self._forget(sent)

    def _forget(self, sent: _Sent) -> None:
        """Forget a request once nothing of it waits: the answer to a batch may come after some of its outcomes."""
        together = self._by_request.get(sent.request_id, [])
        if not any(each.key in self._pending for each in together):
            self._by_request.pop(sent.request_id, None)

    def _give_up(self, sent: _Sent, text: str) -> None:
        if self._pending.take(sent.key) is not None:
            self._unanswered(sent, text)

    def _unanswered(self, sent: _Sent, text: str) -> None:
        self._forget(sent)
        self._report(RequestUnanswered(sent.client_id, text, self._now_ns()))

    def _no(self, sent: _Sent, code: int, text: str) -> None:
        """Tell that the venue refused a request, or that it does not say."""
        verdict = ERRORS.verdict(code, text)
        if verdict.is_clock:
            self._clock.doubt()
        if verdict.is_limit:
            self._limits.refused_order(sent.kind, sent.listing.inst_id, self._now_ns())
        if is_instrument_code(code, text) and sent.listing.inst_id not in self._only_rest:
            self._only_rest.add(sent.listing.inst_id)
            _log.warning(
                "%s: the WebSocket does not know %s by the code that the venue publishes (%s %s); "
                "its orders go over REST from here on",
                EXCHANGE,
                sent.listing.inst_id,
                code,
                text,
            )
        if verdict.action is Action.UNKNOWN:
            self._give_up(sent, f"{code} {text}")
        else:
            self._end(sent, verdict.reason, f"{code} {text}".strip())

    def _end(self, sent: _Sent, reason: RejectReason, text: str) -> None:
        self._pending.take(sent.key)
        now_ns = self._now_ns()
        if sent.kind in (PLACE, BATCH_PLACE):
            self._report(OrderRejected(sent.client_id, reason, text, now_ns))
        elif sent.kind == AMEND:
            self._report(AmendRejected(sent.client_id, reason, text, now_ns))
        else:
            self._report(CancelRejected(sent.client_id, reason, text, now_ns))
