"""Orders over the WebSocket API, or over REST while that is down; and the answers to them."""

import logging
from collections.abc import Callable
from typing import Final

import msgspec
from msgspec import Struct

from host.api import (
    AdapterContext,
    AmendOrder,
    AmendRejected,
    CancelOrder,
    CancelRejected,
    ExchangeError,
    OrderAccepted,
    OrderAmended,
    OrderCancelled,
    OrderRejected,
    PlaceOrder,
    RejectReason,
    RequestUnanswered,
)

from .._shared.bad_frames import BadFrames
from .._shared.channel import Channel
from .._shared.numbers import require_finite
from .._shared.pending import PendingRequests
from .._shared.rate_limit import OverLimit
from .._shared.rest import RestUnanswered
from .._shared.symbols import SymbolTable
from .._shared.venue_clock import ClockUnsure, VenueClock, Window
from .._shared.verdicts import Action
from .answers import STATUSES, OrderView, decode_order
from .commands import amend_params, cancel_params, place_params
from .errors import ERRORS
from .instruments import RateLimit
from .products import Endpoint, Product
from .queries import OrderIds
from .rest_calls import RestCalls, Spending, VenueRefused
from .signed import Params, RequestSigner

__all__ = ["ApiFrame", "OrderCommand", "OrderEntry"]

_log = logging.getLogger("tandem.exchange")
_MS: Final = 1_000_000
_CANCEL_WINDOW_MS: Final = 5000

OrderCommand = PlaceOrder | AmendOrder | CancelOrder


class _ErrorData(Struct):
    retryAfter: int = 0  # noqa: N815
    serverTime: int = 0  # noqa: N815


class _ApiError(Struct):
    code: int
    msg: str = ""
    data: _ErrorData | None = None


class ApiFrame(Struct):
    """What comes over the WebSocket API: an answer (`id`), or an event of the user data stream."""

    id: int | str | None = None
    status: int = 0
    result: msgspec.Raw = msgspec.Raw()
    error: _ApiError | None = None
    rateLimits: list[RateLimit] = []  # noqa: N815
    event: msgspec.Raw = msgspec.Raw()
    """Empty where there is none."""


class _Placed(Struct):
    orderId: int  # noqa: N815
    transactTime: int = 0  # noqa: N815
    updateTime: int = 0  # noqa: N815


decode_api_frame = msgspec.json.Decoder(ApiFrame).decode
_decode_placed = msgspec.json.Decoder(_Placed, strict=False).decode


class OrderEntry:
    """Sends orders and turns the venue's answers into reports."""

    def __init__(
        self,
        product: Product,
        ctx: AdapterContext,
        signer: RequestSigner,
        clock: VenueClock,
        spending: Spending,
        calls: RestCalls,
        table: SymbolTable,
        ids: OrderIds,
        answer_timeout_s: float,
    ) -> None:
        self._product: Final = product
        self._ctx: Final = ctx
        self._signer: Final = signer
        self._clock: Final = clock
        self._spending: Final = spending
        self._calls: Final = calls
        self._table: Final = table
        self._ids: Final = ids
        self._pending: Final[PendingRequests[OrderCommand]] = PendingRequests(
            answer_timeout_s, self._unanswered
        )
        self._sent = 0
        self.bad: Final = BadFrames(_log, f"{product.name} orders")
        self.channel: Channel | None = None
        """The WebSocket API, once it is opened."""
        self.on_other: Callable[[str, ApiFrame], None] = self._ignore
        """Takes answers to requests that are not orders', by their id."""

    # -- the way out -----------------------------------------------------------------------------

    def send(self, command: OrderCommand, deadline_ns: int) -> None:
        """Sign and hand one command to the socket; raise `ExchangeError` when nothing was sent."""
        wire = self._table.to_venue(command.symbol)
        now_ns = self._ctx.now_ns()
        is_cancel = isinstance(command, CancelOrder)
        try:
            window = self._clock.window(deadline_ns)
        except ClockUnsure:
            if not is_cancel:
                raise
            # A cancel that arrives late does no harm, and one that is not sent may.
            window = self._clock.loose_window(_CANCEL_WINDOW_MS)
        if isinstance(command, PlaceOrder):
            self._table.instrument(command.symbol)  # it may be gone since we subscribed
            method, endpoint = "order.place", self._product.place
            params = place_params(command, wire, window, is_spot=self._product.is_spot)
        elif isinstance(command, AmendOrder):
            if self._product.amend is None:
                raise ExchangeError(
                    f"{self._product.name}: the venue changes no order in place, nothing was sent; "
                    "cancel it and place another"
                )
            method, endpoint = self._product.amend_method, self._product.amend
            params = amend_params(command, wire, window)
        else:
            method, endpoint = "order.cancel", self._product.cancel
            params = cancel_params(command, wire, window)
        # A place or cancel that succeeds weighs nothing; what fails is in the counts that come with the answer.
        self._spending.take(0, now_ns, orders=0 if is_cancel else 1, is_urgent=is_cancel)
        channel = self.channel
        if channel is not None and channel.is_up:
            self._sent += 1
            request_id = f"o{self._sent}"
            channel.send(self._signer.ws_request(request_id, method, params))
            self._pending.add(request_id, command)
        else:
            self._ctx.spawn(
                self._send_by_rest(command, endpoint, params, window), f"{method} {command.client_id}"
            )

    async def _send_by_rest(
        self, command: OrderCommand, endpoint: Endpoint, params: Params, window: Window
    ) -> None:
        now_ns = self._ctx.now_ns()
        try:
            body = await self._calls.signed(
                endpoint, params, now_ns, window=window, is_urgent=isinstance(command, CancelOrder)
            )
            self._done(command, body)
        except VenueRefused as refused:
            self._refused(command, refused.code, refused.message)
        except OverLimit as over:
            self._reject(command, RejectReason.RATE_LIMIT, str(over))
        except RestUnanswered as error:
            if error.is_unsent:
                self._reject(command, RejectReason.UNAVAILABLE, str(error))
            else:
                self._unanswered(command, str(error))

    # -- the way back ----------------------------------------------------------------------------

    def on_frame(self, frame: ApiFrame, raw: memoryview) -> None:
        """Take an answer of the WebSocket API."""
        now_ns = self._ctx.now_ns()
        if frame.rateLimits:
            self._spending.told(frame.rateLimits, now_ns)
        error = frame.error
        if error is not None and frame.status in (418, 429):
            data = error.data
            until_ns = data.retryAfter * _MS if data is not None and data.retryAfter else 0
            wait_ns = until_ns - self._clock.time_ns(now_ns)
            self._spending.stop(frame.status, max(wait_ns, 0) / 1e9, now_ns)
        request_id = str(frame.id)
        command = self._pending.take(request_id)
        if command is None:
            if frame.id is None:
                self.bad.note("answer without an id", raw)
            elif not request_id.startswith("o"):
                self.on_other(request_id, frame)
            return  # an order's: its answer was given up, and its fate is being asked for
        if error is not None:
            if frame.status >= 500:
                self._unanswered(command, f"{frame.status} {error.code} {error.msg}")
            else:
                self._refused(command, error.code, error.msg)
        else:
            self._done(command, bytes(frame.result))

    def lost(self, text: str) -> None:
        """Take note that the connection is gone, and with it the answers that were due on it."""
        self._pending.give_up_all(text)

    def close(self) -> None:
        """Report nothing more."""
        self._pending.close()

    def _done(self, command: OrderCommand, body: bytes) -> None:
        try:
            if isinstance(command, PlaceOrder):
                placed = _decode_placed(body)
                self._ids.learn(placed.orderId, command.client_id)
                at_ns = (placed.transactTime or placed.updateTime) * _MS or self._ctx.now_ns()
                self._ctx.report(OrderAccepted(command.client_id, str(placed.orderId), at_ns))
            else:
                self._changed(command, decode_order(body))
        except (msgspec.MsgspecError, ValueError) as error:
            self.bad.note("answer to an order", body, error)
            self._unanswered(command, f"the answer cannot be read: {error}")

    def _changed(self, command: AmendOrder | CancelOrder, view: OrderView) -> None:
        require_finite(f"order {view.orderId}", price=view.price, qty=view.origQty, filled=view.executedQty)
        at_ns = (view.transactTime or view.updateTime) * _MS or self._ctx.now_ns()
        status = STATUSES.get(view.status)
        if isinstance(command, CancelOrder):
            self._ctx.report(OrderCancelled(command.client_id, at_ns, "", view.executedQty))
        elif status is None or status.is_terminal:
            # Amended to what is filled already, or into the book's other side: its end is told by the stream.
            self._unanswered(command, f"the amend left the order {view.status}")
        else:
            self._ctx.report(OrderAmended(command.client_id, view.price, view.origQty, at_ns))

    def _refused(self, command: OrderCommand, code: int, message: str) -> None:
        verdict = ERRORS.verdict(code, message)
        text = f"{code} {message}"
        if verdict.is_clock:
            self._clock.doubt()
        if verdict.action is Action.FATAL:
            _log.error("account %s: %s refused for good: %s", self._ctx.account, type(command).__name__, text)
        is_there = isinstance(command, PlaceOrder) and verdict.reason is RejectReason.DUPLICATE_ID
        if verdict.action is Action.UNKNOWN or is_there:
            # An order of this id is open: ours, from a request whose answer was lost.
            self._unanswered(command, text)
        else:
            self._reject(command, verdict.reason, text)

    def _reject(self, command: OrderCommand, reason: RejectReason, text: str) -> None:
        rejected = (
            OrderRejected
            if isinstance(command, PlaceOrder)
            else AmendRejected
            if isinstance(command, AmendOrder)
            else CancelRejected
        )
        self._ctx.report(rejected(command.client_id, reason, text, self._ctx.now_ns()))

    def _unanswered(self, command: OrderCommand, text: str) -> None:
        self._ctx.report(
            RequestUnanswered(command.client_id, f"{type(command).__name__}: {text}", self._ctx.now_ns())
        )

    def _ignore(self, request_id: str, frame: ApiFrame) -> None:
        self.bad.note("answer to nothing", request_id)
