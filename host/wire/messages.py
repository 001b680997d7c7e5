"""Every message between the host and a strategy in another process.

Each is an object whose `type` says which. Fields, with a default, and events are only ever added; what else
changes raises `PROTOCOL`. Times are nanoseconds since the Unix epoch; `Decimal`s are text. This module and
`docs/strategy-protocol.md` say the same: a test compares them.
"""

from typing import Annotated, Any, Final

from msgspec import Meta, Raw, Struct

from host.api import (
    BookTop,
    Candle,
    Depth,
    Fill,
    Instrument,
    Order,
    OrderRequest,
    Position,
    Quote,
    Ticker,
    Trade,
)

__all__ = [
    "MOST_LOG_TEXT",
    "NO_STATE",
    "PROTOCOL",
    "Ack",
    "Book",
    "BookLost",
    "Bye",
    "Cancel",
    "CandleEvent",
    "DepthEvent",
    "Event",
    "Events",
    "Failed",
    "FillEvent",
    "FromHost",
    "FromStrategy",
    "Heartbeat",
    "Held",
    "Hello",
    "IdRange",
    "Instruments",
    "Log",
    "Missed",
    "OrderEvent",
    "OrderRefusal",
    "ParamsEvent",
    "Place",
    "Positions",
    "PutQuotes",
    "Refused",
    "Report",
    "Reports",
    "Request",
    "Save",
    "Start",
    "Stop",
    "TickerEvent",
    "TimerEvent",
    "TradeEvent",
    "Turn",
    "Unknown",
    "Welcome",
]

PROTOCOL: Final = 1
"""Version of the protocol; a peer of another one is refused."""

NO_STATE: Final = Raw(b"")
"""Stands where a message carries no state."""

MOST_LOG_TEXT: Final = 2_000
"""Characters of a line of a strategy's log that are kept."""


_Version = Annotated[int, Meta(ge=0, le=2**31 - 1)]
_Length = Annotated[int, Meta(ge=0, le=2**53)]
"""Of time. JSON has numbers of any length, which neither the journal nor who asks for the figures can hold."""


class _Message(Struct, frozen=True, tag_field="type", omit_defaults=True):
    pass


# -- what the strategy says ----------------------------------------------------------------------


class Hello(_Message, frozen=True, tag="hello", kw_only=True):
    """Ask to be let in; repeated until `welcome` or `refused` comes. Its encoding is that of the session."""

    protocol: int
    client: str = ""
    """What the peer calls itself, for people."""
    run: str = ""
    """Made up anew for each beginning: by it the host tells a repetition from a peer that starts again."""
    state_version: _Version = 1
    """The version of the states that it will send."""
    subscribe: tuple[str, ...] = ("book",)
    """What it wants to hear of the market: `book`, `depth`, `trade`, `ticker`, `candle`."""


class PutQuotes(_Message, frozen=True, tag="quote"):
    """State the wanted quotes of a symbol, best level first; none pulls them."""

    symbol: str
    quotes: tuple[Quote, ...] = ()


class Place(_Message, frozen=True, tag="place"):
    """Send one order. `client_id` is the next one of the range that the host handed out."""

    client_id: str
    order: OrderRequest


class Cancel(_Message, frozen=True, tag="cancel"):
    """Ask the venue to cancel one order."""

    client_id: str


class Log(_Message, frozen=True, tag="log"):
    """Write a line to the host's log. `level` is one of `debug`, `info`, `warning`, `error`."""

    level: str
    text: str


Request = PutQuotes | Place | Cancel | Log


class Turn(_Message, frozen=True, tag="turn", kw_only=True):
    """What the strategy did: the host takes all of it in at once, or not at all.

    `handled` says up to which event everything is handled. What the requests ask for is what came of that.
    """

    seq: int
    """One more than in the last turn; the first is 1. Sent again after `ack` asked for it."""
    handled: int
    requests: tuple[Request, ...] = ()
    state: Raw = NO_STATE
    """The strategy's state after that, any plain data; absent where it is what it was."""
    slowest_us: _Length = 0
    """The longest that one event took since the last turn."""
    busy_ns: _Length = 0
    """How long the events took together since then."""


class Failed(_Message, frozen=True, tag="failed"):
    """The strategy's code raised: its instance is quarantined."""

    where: str
    error: str
    run: str = ""
    """That of the hello that began this; empty: whoever is in."""


class Bye(_Message, frozen=True, tag="bye"):
    """The peer goes, having handled `stop` or of its own will; nothing of it comes after this."""

    reason: str = ""
    run: str = ""
    """That of the hello that began this; empty: whoever is in."""


FromStrategy = Hello | Turn | Failed | Bye


# -- what happened -------------------------------------------------------------------------------


class Book(_Message, frozen=True, tag="book"):
    """A new best bid and ask."""

    data: BookTop


class DepthEvent(_Message, frozen=True, tag="depth"):
    """A change of the book, or all of it (`is_snapshot`), which takes the place of what was before."""

    data: Depth


class TradeEvent(_Message, frozen=True, tag="trade"):
    """A public trade."""

    data: Trade


class TickerEvent(_Message, frozen=True, tag="ticker"):
    """The venue's 24-hour summary."""

    data: Ticker


class CandleEvent(_Message, frozen=True, tag="candle"):
    """A completed candle."""

    data: Candle


class BookLost(_Message, frozen=True, tag="book_lost"):
    """The best bid and ask of a symbol cannot be trusted until the next `book`."""

    symbol: str


class Missed(_Message, frozen=True, tag="missed"):
    """Events of one symbol that were left out, because the strategy was too slow for all of them.

    The newest `book` and `ticker`, and a whole `depth`, follow; the trades are summed up here.
    """

    symbol: str
    books: int = 0
    depths: int = 0
    tickers: int = 0
    trades: int = 0
    bought: float = 0.0
    """Sum of the trades whose taker bought, in base units."""
    sold: float = 0.0


class OrderEvent(_Message, frozen=True, tag="order"):
    """A change of one of the instance's orders."""

    data: Order


class FillEvent(_Message, frozen=True, tag="fill"):
    """An execution of one of the instance's orders."""

    data: Fill


Report = OrderEvent | FillEvent


class OrderRefusal(_Message, frozen=True, tag="order_refused"):
    """The host did not do what a request asked for; `client_id` names the order where there is one."""

    symbol: str
    reason: str
    detail: str
    client_id: str = ""
    action: str = "place"


class Held(Struct, frozen=True):
    """What the instance holds of one symbol, and that as a share of its limit, −1 to 1."""

    position: Position
    inventory_ratio: float


class Reports(_Message, frozen=True, tag="reports"):
    """What the venue did to the instance's orders, in order: heard as a whole, or not at all."""

    reports: tuple[Report, ...]
    held: tuple[Held, ...] = ()
    """What the instance holds of each symbol of which it holds something else by that."""


class Positions(_Message, frozen=True, tag="positions"):
    """What the instance holds of each of its symbols, where it changed without a report."""

    data: tuple[Held, ...]


class Instruments(_Message, frozen=True, tag="instruments"):
    """What the venue allows for these symbols is this from here on; the others stay as they are."""

    data: tuple[Instrument, ...]


class TimerEvent(_Message, frozen=True, tag="timer"):
    """A trigger of the instance's schedule is due; timers of its own a strategy runs by itself."""

    name: str


class ParamsEvent(_Message, frozen=True, tag="params"):
    """The parameters are others from here on."""

    data: dict[str, Any]


class Start(_Message, frozen=True, tag="start"):
    """Begin: events follow. `takes_over` says that another node traded this instance before."""

    takes_over: bool = False


class Stop(_Message, frozen=True, tag="stop"):
    """End: handle this, send a last turn and `bye`."""

    reason: str = ""


class Save(_Message, frozen=True, tag="save"):
    """Send your state with the turn that says this is handled: somebody is about to go on from it."""


class Heartbeat(_Message, frozen=True, tag="heartbeat"):
    """Nothing happened for a while. It is handled like any other event: progress is the only pulse."""

    ts_ns: int


Event = (
    Book
    | DepthEvent
    | TradeEvent
    | TickerEvent
    | CandleEvent
    | BookLost
    | Missed
    | Reports
    | OrderRefusal
    | Positions
    | Instruments
    | TimerEvent
    | ParamsEvent
    | Start
    | Stop
    | Save
    | Heartbeat
)


class Unknown(Struct, frozen=True):
    """Takes the place, among `Events`, of one that only a later host knows: counted like the others, passed over."""

    type: str


# -- what the host says --------------------------------------------------------------------------


class IdRange(Struct, frozen=True):
    """Client order ids: `stem` and a number from `first` to `last` in lower-case hexadecimal."""

    stem: str
    first: int
    last: int


class Welcome(_Message, frozen=True, tag="welcome", kw_only=True):
    """The peer is let in, and this is how things are; `start` is the first event that follows."""

    protocol: int
    instance: str
    account: str
    symbols: tuple[str, ...]
    now_ns: int
    params: dict[str, Any]
    state_version: int
    state: Raw = NO_STATE
    """The state that was last saved; absent where there is none. With MessagePack, as it was sent."""
    instruments: tuple[Instrument, ...]
    held: tuple[Held, ...]
    orders: tuple[Order, ...]
    books: tuple[BookTop, ...]
    ids: IdRange
    next_turn: int = 1
    deadline_ms: int = 0
    """A peer that handles nothing for so long, though there is something to handle, is given up."""
    run: str = ""
    """That of the `hello` which this answers."""


class Refused(_Message, frozen=True, tag="refused"):
    """The peer is not let in, or is let in no more. `reason` is a stable code."""

    reason: str
    detail: str
    run: str = ""
    """That of the `hello` of whom it is said to."""


class Ack(_Message, frozen=True, tag="ack"):
    """Turns up to `seq` are in the journal. Where `resend` is set, those after it did not arrive."""

    seq: int
    resend: bool = False
    ids: IdRange | None = None
    """More client order ids, to follow those handed out before."""


class Events(_Message, frozen=True, tag="events"):
    """What happened, in order. `seq` is the number of the last one; they are counted from 1."""

    seq: int
    events: tuple[Event, ...]


FromHost = Welcome | Refused | Ack | Events
