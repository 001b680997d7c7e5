"""The base class of exchange adapters: commands go down, market events and reports come up.

An adapter serves one account at one venue. It never waits in `send`: whatever the venue answers
comes back later as a report, and an answer that never comes is itself reported
(`RequestUnanswered`). Queries are commands like any other, so that recovery and takeover are
plain, replayable message exchanges.
"""

import asyncio
from collections.abc import Coroutine, Sequence
from decimal import Decimal
from enum import StrEnum
from typing import Any, ClassVar, Generic, Protocol, TypeVar

from msgspec import Struct

from host.api.account import Balance
from host.api.market import Instrument, MarketEvent
from host.api.orders import Liquidity, OrderStatus, OrderType, Side, TimeInForce
from host.api.params import NoParams, Params, adopt_params_type

__all__ = [
    "AccountSnapshot",
    "AdapterContext",
    "AmendOrder",
    "AmendRejected",
    "AmendSupport",
    "CancelOrder",
    "CancelRejected",
    "Command",
    "ConnectionChanged",
    "DeadManTerms",
    "ExchangeAdapter",
    "FillsSnapshot",
    "OpenOrdersSnapshot",
    "OrderAccepted",
    "OrderAmended",
    "OrderCancelled",
    "OrderExpired",
    "OrderFilled",
    "OrderNotFound",
    "OrderRejected",
    "OrderSnapshot",
    "PlaceOrder",
    "QueryAccount",
    "QueryFills",
    "QueryOpenOrders",
    "QueryOrder",
    "RejectReason",
    "Report",
    "RequestUnanswered",
    "SteppedAdapter",
    "VenuePosition",
]

P = TypeVar("P", bound=Params)


class RejectReason(StrEnum):
    """Why a venue said no, the same words for every venue."""

    INSUFFICIENT_FUNDS = "insufficient_funds"
    WOULD_TAKE = "would_take"
    """A post-only order would have crossed."""
    NOT_FILLABLE = "not_fillable"
    """A fill-or-kill order could not be filled whole, or a market order met an empty book."""
    REDUCE_ONLY = "reduce_only"
    DUPLICATE_ID = "duplicate_id"
    UNKNOWN_ORDER = "unknown_order"
    INVALID_PRICE = "invalid_price"
    INVALID_QTY = "invalid_qty"
    MIN_NOTIONAL = "min_notional"
    PRICE_BAND = "price_band"
    SELF_TRADE = "self_trade"
    RATE_LIMIT = "rate_limit"
    EXPIRED_REQUEST = "expired_request"
    """The request arrived after its own validity window."""
    UNKNOWN_SYMBOL = "unknown_symbol"
    UNAVAILABLE = "unavailable"
    OTHER = "other"


class _Message(Struct, frozen=True, array_like=True, tag_field="message", gc=False):
    """Base of commands and reports: encoded as [tag, field, ...], so fields are only ever appended."""


# -- commands ------------------------------------------------------------------------------------


class PlaceOrder(_Message, frozen=True, tag="place"):
    """Send a new order. `price` is None for a market order."""

    client_id: str
    symbol: str
    side: Side
    type: OrderType
    time_in_force: TimeInForce
    price: Decimal | None
    qty: Decimal
    post_only: bool
    reduce_only: bool


class AmendOrder(_Message, frozen=True, tag="amend"):
    """Change price and total quantity (filled part included) of a resting order."""

    client_id: str
    symbol: str
    side: Side
    price: Decimal
    qty: Decimal
    venue_id: str = ""


class CancelOrder(_Message, frozen=True, tag="cancel"):
    """Cancel one order."""

    client_id: str
    symbol: str
    venue_id: str = ""


class QueryOrder(_Message, frozen=True, tag="query_order"):
    """Ask for one order by client id; answered by `OrderSnapshot` or `OrderNotFound`."""

    client_id: str
    symbol: str


class QueryOpenOrders(_Message, frozen=True, tag="query_open_orders"):
    """Ask for all open orders of the account; answered by `OpenOrdersSnapshot`."""


class QueryFills(_Message, frozen=True, tag="query_fills"):
    """Ask for the account's fills at or after `since_ns`; answered by `FillsSnapshot`."""

    since_ns: int


class QueryAccount(_Message, frozen=True, tag="query_account"):
    """Ask for balances and positions; answered by `AccountSnapshot`."""


Command = PlaceOrder | AmendOrder | CancelOrder | QueryOrder | QueryOpenOrders | QueryFills | QueryAccount


# -- reports -------------------------------------------------------------------------------------


class OrderAccepted(_Message, frozen=True, tag="accepted"):
    """The order is in the venue's book (or was, before the fills that follow)."""

    client_id: str
    venue_id: str
    ts_ns: int


class OrderRejected(_Message, frozen=True, tag="rejected"):
    """The venue refused the order: it never was and never will be live."""

    client_id: str
    reason: RejectReason
    text: str
    ts_ns: int


class OrderFilled(_Message, frozen=True, tag="filled"):
    """One execution. `trade_id` is unique per account and symbol; `fee` is positive when paid."""

    client_id: str
    symbol: str
    side: Side
    trade_id: str
    price: Decimal
    qty: Decimal
    fee: Decimal
    fee_currency: str
    liquidity: Liquidity
    ts_ns: int
    venue_id: str = ""


class OrderCancelled(_Message, frozen=True, tag="cancelled"):
    """The order is out of the book. `filled` is its executed total, None where not told."""

    client_id: str
    ts_ns: int
    reason: str = ""
    filled: Decimal | None = None


class OrderExpired(_Message, frozen=True, tag="expired"):
    """The venue ended the order by its own terms (time in force, maintenance)."""

    client_id: str
    ts_ns: int
    reason: str = ""
    filled: Decimal | None = None


class OrderAmended(_Message, frozen=True, tag="amended"):
    """The order now has this price and this total quantity."""

    client_id: str
    price: Decimal
    qty: Decimal
    ts_ns: int


class AmendRejected(_Message, frozen=True, tag="amend_rejected"):
    """The amend was refused; the order is as it was, unless `reason` is `UNKNOWN_ORDER`."""

    client_id: str
    reason: RejectReason
    text: str
    ts_ns: int


class CancelRejected(_Message, frozen=True, tag="cancel_rejected"):
    """The cancel was refused; with `UNKNOWN_ORDER` the order is done and its last report is due."""

    client_id: str
    reason: RejectReason
    text: str
    ts_ns: int


class RequestUnanswered(_Message, frozen=True, tag="unanswered"):
    """No usable answer came (timeout, 5xx, lost connection): the outcome is not known."""

    client_id: str
    text: str
    ts_ns: int


class OrderSnapshot(_Message, frozen=True, tag="order"):
    """The venue's view of one order at `ts_ns`."""

    client_id: str
    venue_id: str
    symbol: str
    side: Side
    price: Decimal | None
    qty: Decimal
    filled: Decimal
    status: OrderStatus
    ts_ns: int


class OrderNotFound(_Message, frozen=True, tag="not_found"):
    """The venue does not know this client id."""

    client_id: str
    ts_ns: int


class OpenOrdersSnapshot(_Message, frozen=True, tag="open_orders"):
    """Every open order of the account at `ts_ns`, ours and others'."""

    orders: tuple[OrderSnapshot, ...]
    ts_ns: int


class FillsSnapshot(_Message, frozen=True, tag="fills"):
    """Fills at or after the time asked for, oldest first."""

    fills: tuple[OrderFilled, ...]
    ts_ns: int


class VenuePosition(Struct, frozen=True):
    """The venue's view of one derivative position (spot holdings are balances)."""

    symbol: str
    qty: Decimal
    entry_price: Decimal
    liquidation_price: Decimal = Decimal(0)
    """The price at which the venue would close it by force, quote per base; 0 where it names none."""


class AccountSnapshot(_Message, frozen=True, tag="account"):
    """Balances and positions of the account at `ts_ns`."""

    balances: tuple[Balance, ...]
    positions: tuple[VenuePosition, ...]
    ts_ns: int


class ConnectionChanged(_Message, frozen=True, tag="connection"):
    """A channel (`market`, `private`, `orders`) came up or went down."""

    channel: str
    is_up: bool
    text: str
    ts_ns: int


Report = (
    OrderAccepted
    | OrderRejected
    | OrderFilled
    | OrderCancelled
    | OrderExpired
    | OrderAmended
    | AmendRejected
    | CancelRejected
    | RequestUnanswered
    | OrderSnapshot
    | OrderNotFound
    | OpenOrdersSnapshot
    | FillsSnapshot
    | AccountSnapshot
    | ConnectionChanged
)


# -- the adapter ---------------------------------------------------------------------------------


class AmendSupport(StrEnum):
    """What the venue can do to a resting order."""

    NATIVE = "native"
    """Price and quantity change in place, the client id stays."""
    NONE = "none"
    """Only cancel and place again."""


class DeadManTerms(Struct, frozen=True, kw_only=True):
    """What a venue's dead man's switch covers, and which times it takes.

    Such a switch is a timer at the venue: unless it is armed again in time, the venue cancels the orders that it
    covers.
    """

    least_ms: int
    most_ms: int
    step_ms: int = 1
    is_per_symbol: bool = False
    """Each symbol has a timer of its own; otherwise the account has."""
    is_tagged: bool = False
    """Each tag has a timer of its own, which covers the orders whose client ids begin with it. Without tags a
    timer covers the orders of everybody who trades on the account."""


class AdapterContext(Protocol):
    """The host's side of an adapter."""

    account: str
    data_dir: str
    """Folder of this node's data, for what an adapter must keep across restarts."""
    shared: dict[str, Any]
    """What the versions of this account's adapter have in common, for as long as the account is
    there: one leaves something, such as what it spent of a rate limit, and the next one finds it.
    Plain data, or objects of installed packages; never of a plugin's own classes, which would
    keep an old version's code alive."""

    def now_ns(self) -> int:
        """Return the host's time: nanoseconds since the Unix epoch; replayed time in a replay."""

    def market(self, event: MarketEvent) -> None:
        """Hand over one market event; strategies have reacted when this returns."""

    def report(self, report: Report) -> None:
        """Hand over one report; state and strategies are up to date when this returns.

        Raises a `TandemError` that names the field where one has another type than its class declares.
        """

    def listed(self, instruments: Sequence[Instrument]) -> None:
        """Hand over the venue's whole list as it is now, each time it was read again.

        What is in it trades; of what is missing the quotes are pulled. Orders and checks go by the new terms when
        this returns.
        """

    def spawn(self, work: Coroutine[Any, Any, None], name: str) -> "asyncio.Task[None]":
        """Run a coroutine that the host ends when the adapter retires."""


class ExchangeAdapter(Generic[P]):
    """Connects one account at one venue.

    Life: `connect`, then `subscribe`, then any number of `send`; `close` ends it. Nothing is
    handed to `ctx` after `close` returns. Read the venue's list of instruments again now and then, daily at
    least, and hand it to `ctx.listed`.

    When its code changes, the new version is connected beside the old one and both are there for a
    while, the old one for the answers to what it has sent. `ctx.market` and `ctx.report` lead
    elsewhere after such a change: look them up at each call, do not keep them.
    """

    params_type: ClassVar[type[Params]] = NoParams
    amend_support: ClassVar[AmendSupport] = AmendSupport.NATIVE
    dead_man: ClassVar[DeadManTerms | None] = None
    """The venue's dead man's switch; None where it has none. `arm_dead_man` arms it."""
    is_fenced: ClassVar[bool] = True
    """Whether the venue refuses an order that reaches it after the deadline of `send`.

    Where it does not, an order of a node that has lost its lead may still be taken, and the nodes of a pair do not
    trade there.
    """
    params: P
    ctx: AdapterContext

    def __init__(self, params: P) -> None:
        self.params = params

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        adopt_params_type(cls)

    async def connect(self) -> Sequence[Instrument]:
        """Connect and return the instruments of the venue; raise `ExchangeError`."""
        raise NotImplementedError

    async def subscribe(self, symbols: Sequence[str]) -> None:
        """Start the market data of `symbols` and the account's private reports.

        Called once more, with further symbols alone, when an instance that trades them is added.
        """
        raise NotImplementedError

    def send(self, command: Command, deadline_ns: int) -> None:
        """Encode, sign and hand one command to the socket, without waiting.

        The venue must not accept an order later than `deadline_ns` (host time). Raises
        `ExchangeError` when nothing was sent; the caller then knows that the order is not live.
        """
        raise NotImplementedError

    def resync(self, symbol: str) -> None:
        """Fetch a fresh depth snapshot of `symbol`: the host found a gap."""
        raise NotImplementedError

    async def arm_dead_man(self, after_ms: int, *, symbol: str = "", tag: str = "") -> None:
        """Have the venue cancel orders in `after_ms` unless this is called again before; 0 disarms.

        Replaces what was armed before for the same `symbol` (given if `dead_man.is_per_symbol`) and `tag`
        (given if `dead_man.is_tagged`), by whichever process. Returns once the venue has confirmed it; raises
        `ExchangeError` where it refused or did not answer. Where the venue acts on a lost connection instead of a
        timer, arming it again costs nothing and changes nothing.

        Called for adapters with `dead_man` alone.
        """
        raise NotImplementedError

    async def close(self) -> None:
        """Stop handing over events, close connections and files."""
        raise NotImplementedError


class SteppedAdapter(ExchangeAdapter[P]):
    """An adapter that runs in this process and in the host's time: the paper venue and replays.

    The host asks when its next event is due and calls `step` at that time, so that the same code
    runs live, at ten times the speed, and as fast as it can.
    """

    def next_time_ns(self) -> int | None:
        """Return when the next event is due, or None at the end of the market."""
        raise NotImplementedError

    def step(self, now_ns: int) -> None:
        """Hand over everything due at or before `now_ns`, in order."""
        raise NotImplementedError
