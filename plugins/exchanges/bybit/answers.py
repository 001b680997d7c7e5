"""What Bybit answers: the envelope of every REST answer and order-entry reply, and what is in it."""

from decimal import Decimal
from typing import Any, Final

import msgspec
from msgspec import Struct

from host.api import Balance, VenuePosition

from .frames import ExecutionRow, Frame, OrderRow, decode
from .order_codec import amount
from .products import InstrumentRow, Listings, Product

__all__ = [
    "Answer",
    "ExecutionPage",
    "InstrumentPage",
    "OrderPage",
    "OrderReply",
    "Outcome",
    "PositionPage",
    "balances_of",
    "near_liquidation",
    "order_reply",
    "positions_of",
    "read_answer",
    "read_executions",
    "read_fees",
    "read_instruments",
    "read_orders",
    "read_outcomes",
    "read_positions",
    "read_time_ns",
    "read_wallet",
]


class Answer(Struct, rename="camel"):
    """The envelope of a REST answer. `time` is the venue's, in milliseconds."""

    ret_code: int
    ret_msg: str = ""
    result: msgspec.Raw = msgspec.Raw(b"{}")
    ret_ext_info: msgspec.Raw = msgspec.Raw(b"{}")
    time: int = 0


class Outcome(Struct):
    """What became of one order of a batch: a code as that of a single request."""

    code: int
    msg: str = ""


class _Outcomes(Struct):
    list: tuple[Outcome, ...] = ()


class OrderReply(Struct, rename="camel"):
    """A reply on the order-entry WebSocket; one to a login or a ping has no data that matters."""

    op: str = ""
    ret_code: int = 0
    ret_msg: str = ""
    req_id: str = ""
    ret_ext_info: msgspec.Raw = msgspec.Raw(b"{}")
    header: dict[str, str] = {}
    """The rate limit of this kind of request: `X-Bapi-Limit`, `-Status`, `-Reset-Timestamp`."""


class InstrumentPage(Struct, rename="camel"):
    """`GET /v5/market/instruments-info`."""

    list: tuple[InstrumentRow, ...]
    next_page_cursor: str = ""


class OrderPage(Struct, rename="camel"):
    """`GET /v5/order/realtime` and `/v5/order/history`."""

    list: tuple[OrderRow, ...]
    next_page_cursor: str = ""


class ExecutionPage(Struct, rename="camel"):
    """`GET /v5/execution/list`, newest first."""

    list: tuple[ExecutionRow, ...]
    next_page_cursor: str = ""


class _CoinRow(Struct, rename="camel"):
    coin: str
    wallet_balance: str = ""
    locked: str = ""
    total_order_im: str = msgspec.field(name="totalOrderIM", default="")
    total_position_im: str = msgspec.field(name="totalPositionIM", default="")


class _WalletRow(Struct):
    coin: tuple[_CoinRow, ...]


class Wallet(Struct):
    """`GET /v5/account/wallet-balance`."""

    list: tuple[_WalletRow, ...]


class PositionRow(Struct, rename="camel"):
    """One position. In hedge mode a symbol has two, told apart by `position_idx`."""

    symbol: str
    side: str
    size: str
    avg_price: str = ""
    mark_price: str = ""
    liq_price: str = ""
    position_idx: int = 0


class PositionPage(Struct, rename="camel"):
    """`GET /v5/position/list`."""

    list: tuple[PositionRow, ...]
    next_page_cursor: str = ""


class _FeeRow(Struct, rename="camel"):
    symbol: str
    maker_fee_rate: Decimal
    taker_fee_rate: Decimal


class _FeePage(Struct):
    list: tuple[_FeeRow, ...]


class _Time(Struct, rename="camel"):
    time_nano: int


def _reader(kind: type[Any]) -> Any:
    # Not strict: some of the venue's numbers come as text in one place and as numbers in another.
    return msgspec.json.Decoder(kind, strict=False)


_ANSWER: Final = _reader(Answer)
_REPLY: Final = _reader(OrderReply)
_OUTCOMES: Final = _reader(_Outcomes)
_INSTRUMENTS: Final = _reader(InstrumentPage)
_ORDERS: Final = _reader(OrderPage)
_EXECUTIONS: Final = _reader(ExecutionPage)
_WALLET: Final = _reader(Wallet)
_POSITIONS: Final = _reader(PositionPage)
_FEES: Final = _reader(_FeePage)
_TIME: Final = _reader(_Time)

_ZERO: Final = Decimal(0)


def read_answer(body: Frame) -> Answer:
    """Read the envelope of a REST answer; raise `BadFrame`."""
    answer: Answer = decode(_ANSWER, body, "answer")
    return answer


def order_reply(frame: Frame) -> OrderReply:
    """Read a reply of the order-entry WebSocket; raise `BadFrame`."""
    reply: OrderReply = decode(_REPLY, frame, "order reply")
    return reply


def read_outcomes(extra: Frame) -> tuple[Outcome, ...]:
    """Read the outcomes of a batch, in the order of its orders, out of `retExtInfo`; raise `BadFrame`."""
    outcomes: _Outcomes = decode(_OUTCOMES, extra, "list of outcomes")
    return outcomes.list


def read_instruments(result: Frame) -> InstrumentPage:
    """Read a page of instruments; raise `BadFrame`."""
    page: InstrumentPage = decode(_INSTRUMENTS, result, "list of instruments")
    return page


def read_orders(result: Frame) -> OrderPage:
    """Read a page of orders; raise `BadFrame`."""
    page: OrderPage = decode(_ORDERS, result, "list of orders")
    return page


def read_executions(result: Frame) -> ExecutionPage:
    """Read a page of executions; raise `BadFrame`."""
    page: ExecutionPage = decode(_EXECUTIONS, result, "list of executions")
    return page


def read_wallet(result: Frame) -> Wallet:
    """Read the balances; raise `BadFrame`."""
    wallet: Wallet = decode(_WALLET, result, "wallet")
    return wallet


def read_positions(result: Frame) -> PositionPage:
    """Read a page of positions; raise `BadFrame`."""
    page: PositionPage = decode(_POSITIONS, result, "list of positions")
    return page


def read_fees(product: Product, result: Frame) -> dict[str, tuple[Decimal, Decimal]]:
    """Return (maker, taker) rates by the venue's symbol; raise `BadFrame`."""
    page: _FeePage = decode(_FEES, result, f"fee rates of {product}")
    return {row.symbol: (row.maker_fee_rate, row.taker_fee_rate) for row in page.list}


def read_time_ns(result: Frame) -> int:
    """Return the venue's time; raise `BadFrame`."""
    time: _Time = decode(_TIME, result, "time")
    return time.time_nano


def balances_of(wallet: Wallet) -> tuple[Balance, ...]:
    """Return what the account holds of each coin. Raises `BadFrame`.

    The total is the wallet's balance: money that is there, without the profit of open positions.
    """
    return tuple(
        Balance(row.coin, amount(row.wallet_balance), _locked(row))
        for part in wallet.list
        for row in part.coin
    )


def _locked(row: _CoinRow) -> Decimal:
    return amount(row.locked) + amount(row.total_order_im) + amount(row.total_position_im)


def near_liquidation(row: PositionRow, share: float) -> bool:
    """Return whether a position's mark price is within this share of its liquidation price. Raises `BadFrame`."""
    mark, liquidation = amount(row.mark_price), amount(row.liq_price)
    if not amount(row.size) or mark <= _ZERO or liquidation <= _ZERO:
        return False
    return abs(mark - liquidation) <= liquidation * Decimal(repr(share))


def positions_of(listings: Listings, product: Product, page: PositionPage) -> tuple[VenuePosition, ...]:
    """Return the open positions of a page, signed; what is not listed here is left out. Raises `BadFrame`."""
    positions = []
    for row in page.list:
        listing, size = listings.find(product, row.symbol), amount(row.size)
        if listing is not None and size > _ZERO:
            signed = size if row.side == "Buy" else -size
            liquidation = max(amount(row.liq_price), _ZERO)
            positions.append(VenuePosition(listing.symbol, signed, amount(row.avg_price), liquidation))
    return tuple(positions)
