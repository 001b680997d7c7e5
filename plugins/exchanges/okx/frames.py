"""What OKX sends, as it is: the messages of its WebSockets, typed, and decoding them.

Nearly every number of OKX is text, and one that does not apply is empty text. What the venue never
leaves empty is decoded into a number at once; what it may leave empty stays text here.
"""

from decimal import Decimal, InvalidOperation
from typing import Any, Final, TypeVar

import msgspec
from msgspec import Struct

from host.api import ExchangeError

__all__ = [
    "BadFrame",
    "ExecutionRow",
    "Frame",
    "LevelRow",
    "MarketFrame",
    "MarketRow",
    "OrderRow",
    "PrivateFrame",
    "PublicHead",
    "Reply",
    "amount",
    "decode",
    "read_market_frame",
    "read_private_frame",
]

Frame = bytes | bytearray | memoryview
T = TypeVar("T")


class BadFrame(ExchangeError):  # noqa: N818 - it says what is the case, like `OrderRefused`
    """A message that is not what the venue documents. `kind` is a short phrase, `detail` what was wrong."""

    def __init__(self, kind: str, detail: str) -> None:
        super().__init__(f"{kind}: {detail}")
        self.kind = kind
        self.detail = detail


class PublicHead(Struct, rename={"inst_id": "instId", "inst_type": "instType"}):
    """The `arg` of a message: which subscription it belongs to."""

    channel: str = ""
    inst_id: str = ""
    inst_type: str = ""


class LevelRow(Struct, array_like=True, gc=False):
    """One level of a book; the venue adds two counts, which are left out."""

    price: float
    size: float


class MarketRow(Struct, rename="camel", gc=False):
    """One row of market data, of whichever channel: what the others have is None."""

    asks: tuple[LevelRow, ...] | None = None
    bids: tuple[LevelRow, ...] | None = None
    ts: int = 0
    """Milliseconds, venue time."""
    seq_id: int | None = None
    prev_seq_id: int = -1
    checksum: int = 0
    inst_id: str = ""
    trade_id: int | None = None
    px: float | None = None
    sz: float | None = None
    side: str = ""
    last: float | None = None
    open24h: float | None = None
    high24h: float | None = None
    low24h: float | None = None
    vol24h: float | None = None
    vol_ccy24h: float | None = msgspec.field(name="volCcy24h", default=None)


class MarketFrame(Struct):
    """A message of the public WebSocket: a push (`data`), or what became of a request (`event`)."""

    arg: PublicHead = msgspec.field(default_factory=PublicHead)
    data: tuple[MarketRow, ...] = ()
    action: str = ""
    event: str = ""
    code: str = ""
    msg: str = ""


class OrderRow(Struct, rename="camel"):
    """One order, as the `orders` channel pushes it and as the order lists of REST show it.

    A push that tells of a trade holds that trade as well: `fill_px`, `fill_sz`, `trade_id`.
    """

    inst_id: str
    ord_id: str
    cl_ord_id: str
    side: str
    ord_type: str
    state: str
    sz: str
    px: str = ""
    acc_fill_sz: str = ""
    td_mode: str = ""
    tgt_ccy: str = ""
    avg_px: str = ""
    fill_px: str = ""
    fill_sz: str = ""
    fill_time: str = ""
    fill_fee: str = ""
    fill_fee_ccy: str = ""
    fee: str = ""
    fee_ccy: str = ""
    rebate: str = ""
    rebate_ccy: str = ""
    trade_id: str = ""
    exec_type: str = ""
    cancel_source: str = ""
    cancel_source_reason: str = ""
    amend_result: str = ""
    req_id: str = ""
    code: str = ""
    msg: str = ""
    tag: str = ""
    u_time: str = ""
    c_time: str = ""


class ExecutionRow(Struct, rename="camel"):
    """One fill, as `GET /api/v5/trade/fills` and `/fills-history` list it."""

    inst_id: str
    trade_id: str
    ord_id: str
    cl_ord_id: str
    fill_px: str
    fill_sz: str
    side: str
    ts: str
    exec_type: str = ""
    fee: str = ""
    fee_ccy: str = ""
    bill_id: str = ""


class Reply(Struct, rename="camel"):
    """What became of one order of a request: `s_code` "0" says that it was taken in, no more."""

    ord_id: str = ""
    cl_ord_id: str = ""
    s_code: str = "0"
    s_msg: str = ""
    req_id: str = ""


class PrivateFrame(Struct):
    """A message of the private WebSocket: a push, an answer to an order operation, or an `event`."""

    arg: PublicHead = msgspec.field(default_factory=PublicHead)
    data: tuple[msgspec.Raw, ...] = ()
    id: str = ""
    op: str = ""
    event: str = ""
    code: str = ""
    msg: str = ""


_MARKET: Final = msgspec.json.Decoder(MarketFrame, strict=False)
_PRIVATE: Final = msgspec.json.Decoder(PrivateFrame)


def read_market_frame(frame: Frame) -> MarketFrame:
    """Read a message of the public WebSocket; raise `BadFrame`."""
    return decode(_MARKET, frame, "market message")


def read_private_frame(frame: Frame) -> PrivateFrame:
    """Read a message of the private WebSocket; raise `BadFrame`."""
    return decode(_PRIVATE, frame, "private message")


def decode(decoder: "msgspec.json.Decoder[T]", frame: Any, what: str) -> T:
    """Decode a message or a part of one; raise `BadFrame` where it is no JSON or lacks what it must have."""
    try:
        return decoder.decode(frame)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadFrame(f"bad {what}", str(error)) from error


def amount(text: str) -> Decimal:
    """Read a number that the venue may leave empty; empty is zero. Raises `BadFrame`."""
    if not text:
        return Decimal(0)
    try:
        value = Decimal(text)
    except InvalidOperation:
        raise BadFrame("bad number", f"expected a decimal, was {text!r}") from None
    if not value.is_finite():
        raise BadFrame("bad number", f"expected a finite decimal, was {text!r}")
    return value
