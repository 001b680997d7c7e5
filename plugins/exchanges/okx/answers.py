"""What OKX answers over REST: the envelope, and the rows in it."""

from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import Any, Final

import msgspec
from msgspec import Struct

from host.api import Balance, InstrumentKind, VenuePosition

from .frames import BadFrame, ExecutionRow, Frame, OrderRow, Reply, amount, decode
from .order_codec import time_ns
from .products import InstrumentRow, Listing, Listings

__all__ = [
    "AccountConfig",
    "Answer",
    "Fees",
    "PositionRow",
    "balances_of",
    "near_liquidation",
    "no_fees",
    "positions_of",
    "read_answer",
    "read_balances",
    "read_config",
    "read_executions",
    "read_fees",
    "read_instruments",
    "read_orders",
    "read_positions",
    "read_replies",
    "read_time_ns",
    "rows",
]


class Answer(Struct):
    """The envelope of a REST answer: `code` "0" all well, "1" all failed, "2" a batch partly well."""

    code: str
    msg: str = ""
    data: tuple[msgspec.Raw, ...] = ()


class AccountConfig(Struct, rename="camel"):
    """`GET /api/v5/account/config`."""

    pos_mode: str = ""
    """`net_mode` or `long_short_mode`."""
    acct_lv: str = ""
    """"1" spot only, "2" futures, "3" multi-currency margin, "4" portfolio margin."""


class _CoinRow(Struct, rename="camel"):
    ccy: str
    cash_bal: str = ""
    avail_bal: str = ""


class _BalanceRow(Struct, rename="camel"):
    details: tuple[_CoinRow, ...]


class PositionRow(Struct, rename="camel"):
    """One position of `GET /api/v5/account/positions`; `pos` is signed in net mode."""

    inst_id: str
    pos: str
    pos_side: str = ""
    avg_px: str = ""
    mark_px: str = ""
    liq_px: str = ""
    mgn_mode: str = ""


class _FeeGroup(Struct, rename="camel"):
    group_id: str
    maker: str
    taker: str


class _FeeRow(Struct, rename="camel"):
    maker: str = ""
    taker: str = ""
    maker_u: str = msgspec.field(name="makerU", default="")
    taker_u: str = msgspec.field(name="takerU", default="")
    maker_usdc: str = msgspec.field(name="makerUSDC", default="")
    taker_usdc: str = msgspec.field(name="takerUSDC", default="")
    fee_group: tuple[_FeeGroup, ...] = ()


class _TimeRow(Struct):
    ts: str


def _reader(kind: Any) -> Any:
    return msgspec.json.Decoder(kind)


_ANSWER: Final = _reader(Answer)
_INSTRUMENT: Final = _reader(InstrumentRow)
_ORDER: Final = _reader(OrderRow)
_EXECUTION: Final = _reader(ExecutionRow)
_BALANCE: Final = _reader(_BalanceRow)
_POSITION: Final = _reader(PositionRow)
_CONFIG: Final = _reader(AccountConfig)
_FEE: Final = _reader(_FeeRow)
_TIME: Final = _reader(_TimeRow)
_REPLY: Final = _reader(Reply)


def read_answer(body: Frame) -> Answer:
    """Read the envelope of a REST answer; raise `BadFrame`."""
    answer: Answer = decode(_ANSWER, body, "answer")
    return answer


def rows(decoder: Any, data: Iterable[msgspec.Raw], what: str) -> list[Any]:
    """Read the rows of an answer or a push; raise `BadFrame` if one of them is not as it should be."""
    return [decode(decoder, raw, what) for raw in data]


def read_instruments(data: Iterable[msgspec.Raw]) -> tuple[list[InstrumentRow], list[BadFrame]]:
    """Read the instruments; what cannot be read is left out and returned beside."""
    good: list[InstrumentRow] = []
    bad: list[BadFrame] = []
    for raw in data:
        try:
            good.append(decode(_INSTRUMENT, raw, "instrument"))
        except BadFrame as error:
            bad.append(error)
    return good, bad


def read_orders(data: Iterable[msgspec.Raw]) -> list[OrderRow]:
    """Read orders; raise `BadFrame`."""
    return rows(_ORDER, data, "order")


def read_executions(data: Iterable[msgspec.Raw]) -> list[ExecutionRow]:
    """Read fills; raise `BadFrame`."""
    return rows(_EXECUTION, data, "fill")


def read_replies(data: Iterable[msgspec.Raw]) -> list[Reply]:
    """Read what became of each order of a request; raise `BadFrame`."""
    return rows(_REPLY, data, "reply")


def read_config(data: Iterable[msgspec.Raw]) -> AccountConfig:
    """Read the account's settings; raise `BadFrame`."""
    config: AccountConfig = _only(rows(_CONFIG, data, "account configuration"), "account configuration")
    return config


def read_time_ns(data: Iterable[msgspec.Raw]) -> int:
    """Return the venue's time; raise `BadFrame`."""
    row: _TimeRow = _only(rows(_TIME, data, "time"), "time")
    return time_ns(row.ts)


def read_balances(data: Iterable[msgspec.Raw]) -> list[_CoinRow]:
    """Read what the account holds of each coin; raise `BadFrame`."""
    return [coin for row in rows(_BALANCE, data, "balance") for coin in row.details]


def read_positions(data: Iterable[msgspec.Raw]) -> list[PositionRow]:
    """Read the positions; raise `BadFrame`."""
    return rows(_POSITION, data, "position")


class Fees:
    """The rates of one product for this account; the venue writes what is paid as negative."""

    def __init__(self, row: _FeeRow) -> None:
        self._row = row
        self._groups: Mapping[str, _FeeGroup] = {group.group_id: group for group in row.fee_group}

    def of(self, listing: Listing) -> tuple[Decimal, Decimal]:
        """Return (maker, taker), positive when paid. Raises `BadFrame`."""
        row, group = self._row, self._groups.get(listing.group)
        if group is not None:
            maker, taker = group.maker, group.taker
        elif listing.instrument.kind is InstrumentKind.LINEAR and listing.instrument.quote == "USDC":
            maker, taker = row.maker_usdc or row.maker, row.taker_usdc or row.taker
        elif listing.instrument.kind is InstrumentKind.LINEAR:
            maker, taker = row.maker_u or row.maker, row.taker_u or row.taker
        else:
            maker, taker = row.maker, row.taker
        return -amount(maker), -amount(taker)


def read_fees(data: Iterable[msgspec.Raw]) -> Fees:
    """Read the rates of one product; raise `BadFrame`."""
    return Fees(_only(rows(_FEE, data, "fee rates"), "fee rates"))


def no_fees() -> Fees:
    """Return rates of zero, for an account that was not told its own."""
    return Fees(_FeeRow())


def balances_of(coins: Iterable[_CoinRow]) -> tuple[Balance, ...]:
    """Return the balances. Raises `BadFrame`.

    The total is the cash balance: money that is there, without the profit of open positions. Locked is
    what of it cannot be used; `frozenBal` says more than there is where the venue would lend the rest.
    """
    out = []
    for coin in coins:
        total = amount(coin.cash_bal)
        free = amount(coin.avail_bal) if coin.avail_bal else total
        out.append(Balance(coin.ccy, total, max(total - free, Decimal(0))))
    return tuple(out)


def positions_of(listings: Listings, positions: Iterable[PositionRow]) -> tuple[VenuePosition, ...]:
    """Return the open positions, signed; what is not listed here is left out. Raises `BadFrame`."""
    out = []
    for row in positions:
        listing = listings.find(row.inst_id)
        if listing is None or listing.is_spot:
            continue
        qty = listing.qty(row.pos)
        if row.pos_side == "short":
            qty = -abs(qty)
        if qty:
            liquidation = max(amount(row.liq_px), Decimal(0))
            out.append(VenuePosition(listing.symbol, qty, amount(row.avg_px), liquidation))
    return tuple(out)


def near_liquidation(row: PositionRow, share: float) -> bool:
    """Return whether a position's mark price is within this share of its liquidation price. Raises `BadFrame`."""
    if not row.liq_px or not row.mark_px:
        return False  # the venue names none: there is no position, or nothing could end it
    mark, liquidation = amount(row.mark_px), amount(row.liq_px)
    if not amount(row.pos) or mark <= 0 or liquidation <= 0:
        return False
    return abs(mark - liquidation) <= liquidation * Decimal(repr(share))


def _only(found: list[Any], what: str) -> Any:
    if not found:
        raise BadFrame(f"no {what}", "expected one row, was none")
    return found[0]
