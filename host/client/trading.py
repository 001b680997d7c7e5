"""`TradingClient`: a program of its own that trades an instance with `isolation = "client"`.

It runs a strategy class (`run`), or trades call by call (`subscribe`, `buy_limit`, `events`). The page
for its users is `docs/trading-client.md`; what it says to the host is `docs/strategy-protocol.md`.
"""

import logging
import secrets
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import msgspec

from host.api import (
    BookTop,
    Candle,
    Depth,
    Fill,
    Instrument,
    Order,
    OrderRequest,
    OrderStatus,
    Params,
    Position,
    Quote,
    Strategy,
    StrategyContext,
    Ticker,
    Trade,
)
from host.client.attachment import Attachment
from host.client.trading_errors import ClientRefused, NoHost, StrategyFailed, TradingClientError
from host.wire import Codec, codec_named
from host.wire.stage import Stage, StageRefused

__all__ = ["TradingClient"]

_log = logging.getLogger("tandem.client")
HELLO_EVERY_S: Final = 0.02
SILENT_S: Final = 2.0
"""Without a word from the host for so long it is given up: it says something four times a second."""
LOOK_EVERY_S: Final = 0.25
"""How long is waited at a time: that the connection has ended is seen in between. An idle host speaks as often."""
TAKEN_WITHIN_S: Final = 1.0
"""How long one that goes waits for the host to acknowledge more of what it said."""
LOOK_FOR_ACK_S: Final = 0.02
NEXT_ADDRESS_S: Final = 1.0
"""How long one of several addresses has to answer before the next one is asked."""
KINDS: Final = ("book", "depth", "trade", "ticker", "candle")
FILLS_KNOWN: Final = 10_000
"""Fills that a client remembers to have heard of."""
_BEGIN_ANEW: Final = ("GAP", "LATE")

Heard = BookTop | Depth | Trade | Ticker | Candle | Order | Fill


class TradingClient:
    """Attaches to one instance of a node, and attaches again whenever that node or the way to it was gone.

    `address` is `ipc://DATA_DIR/clients/NAME` or `tcp://HOST:PORT`; several are those of the nodes of a cell,
    asked in turn. `token` is the instance's. Nothing is sent before `run`, `connect` or the first order. One
    thread at a time; `stop` alone may be called from any other, and from a signal's handler.
    """

    def __init__(
        self,
        address: str | Sequence[str],
        token: str,
        *,
        server_key: str = "",
        name: str = "python",
        encoding: str = "msgpack",
        answer_s: float = 10.0,
    ) -> None:
        self._addresses: Final = (address,) if isinstance(address, str) else tuple(address)
        self._token: Final = token.strip().encode()
        self._server_key: Final = server_key.strip().encode()
        self._name: Final = name
        self._codec: Final[Codec] = codec_named(encoding)
        self._answer_s: Final = answer_s
        self._stopped: Final = threading.Event()
        self._attempt = 0
        self._attachment: Attachment | None = None
        self._stage: Stage | None = None
        self._began_s = self._heard_s = self._said_hello_s = 0.0
        self._why_silent: TradingClientError = TradingClientError("the host was not asked yet")
        self._kinds: set[str] = {"book"}
        self._inbox: deque[Heard] = deque()
        self._fills: dict[tuple[str, str], None] = {}
        """The latest fills that came, by order and trade: a host that does not know that they did tells them again."""
        self._unsure: dict[str, Order] = {}
        """Orders sent before it had to begin anew, of which no host has said anything."""
        self._strategy: type[Strategy[Any]] = Strategy
        self._params: Params | None = None

    @classmethod
    def of(cls, data_dir: str | Path, instance: str, **options: Any) -> Self:
        """Return a client of an instance of a node on this machine, by the files in its `data_dir`.

        Raises `NoHost` where there are none: the node has not run yet with this instance.
        """
        base = Path(data_dir).absolute() / "clients" / instance
        try:
            token = base.with_name(f"{instance}.token").read_text(encoding="ascii")
        except FileNotFoundError as error:
            raise NoHost(
                f'{error.filename} is not there: start the node once with instance "{instance}" and its '
                'isolation = "client"'
            ) from None
        return cls(f"ipc://{base}", token, **options)

    # -- a strategy class ------------------------------------------------------------------------

    def run(self, strategy: type[Strategy[Any]], params: Params | None = None, *, stay: bool = True) -> None:
        """Run a strategy until `stop`, an interrupt, or, without `stay`, until the host stops the instance.

        Each beginning constructs it anew, with the state that the host saved and the parameters of the instance,
        or `params` where they are given; a client that is attached begins anew. Raises `NoHost` or `TokenRefused`
        where the host does not answer at first (later it is waited for), `ClientRefused`, and `StrategyFailed` from
        what the strategy raised.
        """
        if self._stage is not None:
            self.close()
        self._strategy, self._params = strategy, params
        try:
            self._wait_until_welcome()
            while not self._stopped.is_set():
                self._step(1.0)
                if self._stage is not None and self._stage.is_over:
                    self._drop(has_said_bye=True)
                    if not stay:
                        return
                    _log.info("the host stopped the instance; waiting until it starts again")
        finally:
            self.close()
            self._stopped.clear()

    def stop(self) -> None:
        """Have `run` say bye and return, or `events` end, within a second; or a `run` that is still to begin."""
        self._stopped.set()

    # -- call by call ----------------------------------------------------------------------------

    def subscribe(self, *kinds: str) -> None:
        """Choose what `events` yields of the market: `book`, `depth`, `trade`, `ticker`, `candle`.

        A client that is attached begins anew.
        """
        for kind in kinds:
            if kind not in KINDS:
                raise TradingClientError(f'there are {", ".join(KINDS)} to subscribe to, was "{kind}"')
        self._kinds = set(kinds)
        if self._stage is not None:
            self.close()
            self.connect()

    def connect(self) -> None:
        """Attach, unless it is attached: raises `NoHost`, `TokenRefused` or `ClientRefused`."""
        if self._stage is None:
            self._strategy, self._params = _inbox_class(self._put, self._kinds), _AnyParams()
            self._stopped.clear()
        if not self._is_attached():
            self._wait_until_welcome()

    def events(self, wait_s: float | None = None) -> Iterator[Heard]:
        """Yield what happens, until nothing has for `wait_s` (0: what is there), or `stop`; go on to stay attached.

        Who asks for nothing for the instance's `deadline_ms` is gone for the host. An order change or a fill that
        came together with the last one yielded may not be told again once the program has ended: look at
        `open_orders` and `position` first. Raises what `connect` raises, but waits for a host that was there before.
        """
        self.connect()
        quiet_s = time.monotonic()
        while not self._stopped.is_set():
            if self._inbox:
                yield self._inbox.popleft()
                quiet_s = time.monotonic()
                continue
            left_s = 1.0 if wait_s is None else wait_s - (time.monotonic() - quiet_s)
            self._step(max(min(left_s, 1.0), 0.0))
            if left_s <= 0 and not self._inbox:
                return

    def send_order(self, order: OrderRequest) -> str:
        """Send an order and return its client order id. What the host refuses comes as a `REJECTED` order.

        Raises `OrderRefused` for a symbol that is not the instance's, and `StrategyFailed` for what is no number
        where one belongs and cannot be sent: its instance is quarantined for it, as for what a strategy raises.
        """
        client_id = self._context().place(order)
        self._flush()
        return client_id

    def buy_limit(self, symbol: str, qty: Decimal, price: Decimal, **options: Any) -> str:
        """Buy `qty` at `price` or better; `options` are those of `Strategy.buy_limit`."""
        return self._sent(self._trader().buy_limit(symbol, qty, price, **options))

    def sell_limit(self, symbol: str, qty: Decimal, price: Decimal, **options: Any) -> str:
        """Sell `qty` at `price` or better; `options` are those of `Strategy.sell_limit`."""
        return self._sent(self._trader().sell_limit(symbol, qty, price, **options))

    def buy_market(self, symbol: str, qty: Decimal, *, reduce_only: bool = False) -> str:
        """Buy `qty` at once."""
        return self._sent(self._trader().buy_market(symbol, qty, reduce_only=reduce_only))

    def sell_market(self, symbol: str, qty: Decimal, *, reduce_only: bool = False) -> str:
        """Sell `qty` at once."""
        return self._sent(self._trader().sell_market(symbol, qty, reduce_only=reduce_only))

    def cancel_order(self, client_id: str) -> None:
        """Ask the venue to cancel one of the instance's orders."""
        self._context().cancel(client_id)
        self._flush()

    def quote(self, symbol: str, *quotes: Quote) -> None:
        """Want these quotes in the market, best level first; with none, pull them."""
        self._context().quote(symbol, quotes)
        self._flush()

    def open_orders(self, symbol: str | None = None) -> list[Order]:
        """Return the instance's orders that may still trade, those of an earlier run included."""
        return self._context().open_orders(symbol)

    def position(self, symbol: str) -> Position:
        """Return what the instance holds in `symbol`."""
        return self._context().position(symbol)

    def book(self, symbol: str) -> BookTop | None:
        """Return the latest top of book that can be trusted."""
        return self._context().book(symbol)

    def instrument(self, symbol: str) -> Instrument:
        """Return what the venue allows for `symbol`: tick, lot, least and most."""
        return self._context().instrument(symbol)

    def close(self) -> None:
        """Say bye; the instance's orders are pulled or kept, as the node is configured."""
        stage = self._stage
        if stage is not None and self._attachment is not None:
            stage.leave("the client ends")
            if stage.failure is not None:
                _log.error("the strategy raised %r; its instance is quarantined", stage.failure)
        self._drop(has_said_bye=stage is not None)

    def __enter__(self) -> Self:
        self.connect()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # -- inside ----------------------------------------------------------------------------------

    def _trader(self) -> Strategy[Any]:
        self.connect()
        if self._stage is None or self._stage.strategy is None:
            raise TradingClientError("the client was stopped while it waited for the host")
        return self._stage.strategy

    def _context(self) -> StrategyContext:
        return self._trader().ctx

    def _sent(self, client_id: str) -> str:
        self._flush()
        return client_id

    def _flush(self) -> None:
        assert self._stage is not None
        self._stage.on_time()
        self._raise_failure(self._stage)

    def _is_attached(self) -> bool:
        return self._stage is not None and self._stage.is_welcome and not self._stage.is_over

    def _wait_until_welcome(self) -> None:
        """Raise what keeps the host from answering, where it does not in time."""
        ends_s = time.monotonic() + self._answer_s
        while not self._is_attached() and not self._stopped.is_set():
            self._step(HELLO_EVERY_S)
            if time.monotonic() > ends_s and not self._is_attached():
                self._drop(has_said_bye=False)
                raise self._why_silent

    def _step(self, wait_s: float) -> None:
        """Take in what comes within `wait_s`, and do what is due; begin anew where that is called for."""
        stage, attachment = self._stage, self._attachment
        if stage is not None and stage.is_over:
            self._drop(has_said_bye=True)  # the host stopped the instance
            stage = None
        if stage is None or attachment is None:
            stage, attachment = self._begin()
        now_s = time.monotonic()
        if not stage.is_welcome:
            wait_s = min(wait_s, HELLO_EVERY_S)
            if now_s - self._said_hello_s >= HELLO_EVERY_S:
                self._said_hello_s = now_s
                stage.say_hello()
        bodies: list[bytes] = []
        has_more = stage.has_more and not self._inbox
        if not has_more:
            if not self._inbox:
                stage.idle()  # what was yielded meanwhile is handled by now
            due_ns = stage.next_timer_ns()
            wait_s = min(wait_s, LOOK_EVERY_S)
            bodies = attachment.receive(wait_s if due_ns is None else min(wait_s, due_ns / 1e9))
        try:
            if has_more:
                stage.go_on()
            for body in bodies:
                stage.receive(body)
            stage.on_time()
            if not self._inbox:
                stage.idle()
        except StageRefused as refused:
            self._drop(has_said_bye=False)
            if refused.reason not in _BEGIN_ANEW:
                raise ClientRefused(refused.reason, str(refused)) from None
            _log.warning("%s", refused)
            return
        if self._unsure and stage.is_briefed:
            self._tell_lost(stage)
        self._raise_failure(stage)
        self._look_for_host(stage, attachment, has_more or bool(bodies))

    def _raise_failure(self, stage: Stage) -> None:
        raised = stage.failure
        if raised is not None:
            self._drop(has_said_bye=True)
            raise StrategyFailed(f"the strategy raised {raised!r}; its instance is quarantined") from raised

    def _look_for_host(self, stage: Stage, attachment: Attachment, has_spoken: bool) -> None:
        """Begin anew where the host is gone, and elsewhere where it does not answer."""
        now_s = time.monotonic()
        if has_spoken:
            self._heard_s = now_s
        elif stage.is_welcome and (attachment.has_hung_up() or now_s - self._heard_s > SILENT_S):
            _log.warning("the host at %s is gone; attaching anew", attachment.address)
            self._drop(has_said_bye=False)
        elif len(self._addresses) > 1 and not stage.is_welcome and now_s - self._began_s > NEXT_ADDRESS_S:
            self._drop(has_said_bye=False)

    def _begin(self) -> tuple[Stage, Attachment]:
        address = self._addresses[self._attempt % len(self._addresses)]
        self._attempt += 1
        attachment = self._attachment = Attachment(address, self._token, self._server_key)
        stage = self._stage = Stage(
            self._strategy,
            self._construct,
            self._codec,
            attachment.send,
            run=secrets.token_hex(8),
            client=self._name,
            # An event counts as handled when the program has asked for the next one, not when it came: who takes
            # long over each is slow then, and gets fewer of them, instead of seeming to hang after a burst.
            is_ready=self._has_taken_all if isinstance(self._params, _AnyParams) else None,
        )
        self._began_s = self._heard_s = time.monotonic()
        # The market is told anew; what became of orders only where the host does not know that it was told.
        reports = [event for event in self._inbox if isinstance(event, Order | Fill)]
        self._inbox.clear()
        self._inbox.extend(reports)
        return stage, attachment

    def _has_taken_all(self) -> bool:
        return not self._inbox

    def _tell_lost(self, stage: Stage) -> None:
        """Say which orders never came to the host: by now it has told of all that it knows."""
        known = {order.client_id for order in stage.open_orders()}
        for order in self._unsure.values():
            if order.client_id not in known:
                reason = (
                    "NOT_TAKEN: the connection ended, and the host that answers now does not know the order"
                )
                self._inbox.append(msgspec.structs.replace(order, status=OrderStatus.REJECTED, reason=reason))
        self._unsure.clear()

    def _put(self, event: Heard) -> None:
        if isinstance(event, Order | Fill):
            self._unsure.pop(event.client_id, None)
        if isinstance(event, Fill):
            key = (event.client_id, event.trade_id)
            if key in self._fills:
                return
            self._fills[key] = None
            if len(self._fills) > FILLS_KNOWN:
                del self._fills[next(iter(self._fills))]
        self._inbox.append(event)

    def _construct(self, told: Mapping[str, object]) -> Strategy[Any]:
        params = self._params
        if params is None:
            params = msgspec.convert(told, self._strategy.params_type)
        return self._strategy(params)

    def _drop(self, *, has_said_bye: bool) -> None:
        stage, attachment = self._stage, self._attachment
        self._stage = self._attachment = None
        if stage is not None and isinstance(self._params, _AnyParams):
            self._unsure |= {
                order.client_id: order
                for order in stage.open_orders()
                if order.status is OrderStatus.PENDING_NEW
            }
        if attachment is not None:
            try:
                if has_said_bye and stage is not None:
                    _wait_until_taken(stage, attachment)
            finally:
                self._why_silent = attachment.why_silent()
                attachment.close(has_said_bye=has_said_bye)


def _wait_until_taken(stage: Stage, attachment: Attachment) -> None:
    """Stay until the host has what was said: of more than it lets wait the rest would end with the connection."""
    ends_s, left = time.monotonic() + TAKEN_WITHIN_S, stage.unacknowledged
    while left and not attachment.has_hung_up():
        if time.monotonic() > ends_s:
            _log.warning("the host has not acknowledged the last %d turns; some may be lost", left)
            return
        try:
            for body in attachment.receive(LOOK_FOR_ACK_S):
                stage.receive(body)
        except StageRefused as refused:
            _log.warning("%s", refused)
            return
        if stage.unacknowledged < left:
            ends_s, left = time.monotonic() + TAKEN_WITHIN_S, stage.unacknowledged


class _AnyParams(Params, frozen=True, forbid_unknown_fields=False):
    """What a client that trades call by call makes of parameters: nothing."""


def _inbox_class(put: Callable[[Heard], None], kinds: set[str]) -> type[Strategy[Any]]:
    """Return a strategy that hands everything that it hears of to `put`."""

    def hear(_self: Strategy[Any], event: Heard) -> None:
        put(event)

    heard = [f"on_{kind}" for kind in KINDS if kind in kinds] + ["on_order", "on_fill"]
    body = {**dict.fromkeys(heard, hear), "params_type": _AnyParams}
    return type("Inbox", (Strategy,), body)
