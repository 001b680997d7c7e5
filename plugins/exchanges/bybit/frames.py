"""The frames that Bybit pushes, typed: only the fields that are read, in whatever order they come."""

from decimal import Decimal
from typing import TypeVar

import msgspec
from msgspec import Struct

from host.api import TandemError

T = TypeVar("T")
Frame = bytes | memoryview
"""One message as it came; a memoryview is valid only while it is being handled."""

__all__ = [
    "BadFrame",
    "BookFrame",
    "ExecutionRow",
    "Frame",
    "Head",
    "OrderRow",
    "TickerFrame",
    "TradeFrame",
    "decode",
]


class BadFrame(TandemError):  # noqa: N818 - it says what came, not what failed
    """A frame that cannot be what it should be. `kind` names the sort of fault, for counting."""

    def __init__(self, kind: str, detail: str) -> None:
        super().__init__(f"{kind}: {detail}")
        self.kind = kind
        self.detail = detail


class Head(Struct):
    """What tells a frame's sort. Pushes have a topic, answers an `op`; both may carry a request's id."""

    topic: str = ""
    op: str = ""
    type: str = ""
    success: bool | None = None
    ret_msg: str = ""
    ret_code: int = msgspec.field(name="retCode", default=0)
    ret_text: str = msgspec.field(name="retMsg", default="")
    req_id: str = ""


class _BookData(Struct):
    b: tuple[tuple[float, float], ...]
    a: tuple[tuple[float, float], ...]
    u: int
    seq: int


class BookFrame(Struct):
    """`orderbook.*`: levels as (price, size); `ts` is the push's time, `cts` the matching engine's."""

    topic: str
    type: str
    ts: int
    data: _BookData
    cts: int = 0


class _TradeRow(Struct):
    T: int
    s: str
    S: str
    v: float
    p: float
    i: str
    BT: bool = False


class TradeFrame(Struct):
    """`publicTrade.*`: one or more trades, oldest first."""

    topic: str
    data: tuple[_TradeRow, ...]


class _TickerData(Struct, rename="camel"):
    symbol: str
    last_price: float | None = None
    prev_price24h: float | None = msgspec.field(name="prevPrice24h", default=None)
    high_price24h: float | None = msgspec.field(name="highPrice24h", default=None)
    low_price24h: float | None = msgspec.field(name="lowPrice24h", default=None)
    volume24h: float | None = msgspec.field(name="volume24h", default=None)
    turnover24h: float | None = msgspec.field(name="turnover24h", default=None)


class TickerFrame(Struct):
    """`tickers.*`: a snapshot, or (derivatives) only what changed."""

    topic: str
    type: str
    ts: int
    data: _TickerData


class OrderRow(Struct, rename="camel"):
    """One order, as the `order` topic pushes it and as the order lists of REST show it."""

    symbol: str
    order_id: str
    order_link_id: str
    side: str
    order_type: str
    order_status: str
    qty: Decimal
    price: str = ""
    cum_exec_qty: str = ""
    category: str = ""
    """Absent in REST rows: there the answer names it once."""
    cancel_type: str = ""
    reject_reason: str = ""
    updated_time: int = 0
    """Milliseconds, venue time."""


class ExecutionRow(Struct, rename="camel"):
    """One execution, as the `execution` topic pushes it and as `GET /v5/execution/list` shows it."""

    symbol: str
    order_id: str
    order_link_id: str
    side: str
    exec_id: str
    exec_price: Decimal
    exec_qty: Decimal
    exec_fee: str
    exec_type: str
    exec_time: int
    is_maker: bool
    category: str = ""
    fee_currency: str = ""


def decode(decoder: msgspec.json.Decoder[T], frame: Frame, what: str) -> T:
    """Decode a frame; raise `BadFrame` where it is no JSON or lacks what it must have."""
    try:
        return decoder.decode(frame)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BadFrame(f"bad {what}", str(error)) from error
