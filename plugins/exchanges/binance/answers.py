"""What Binance answers to queries, as reports of ours. Field names are the venue's."""

from collections.abc import Callable, Iterable
from decimal import Decimal
from typing import Final

import msgspec
from msgspec import Struct

from host.api import (
    AccountSnapshot,
    Balance,
    Liquidity,
    OrderFilled,
    OrderSnapshot,
    OrderStatus,
    Side,
    VenuePosition,
)

from .._shared.numbers import require_finite

__all__ = [
    "STATUSES",
    "AccountView",
    "OrderView",
    "PositionView",
    "TradeView",
    "VenueError",
    "account_snapshot",
    "decode_account",
    "decode_error",
    "decode_listen_key",
    "decode_order",
    "decode_orders",
    "decode_positions",
    "decode_server_time",
    "decode_trades",
    "fill",
    "order_snapshot",
]

_MS: Final = 1_000_000
_ZERO: Final = Decimal(0)

STATUSES: Final = {
    "NEW": OrderStatus.OPEN,
    "PENDING_NEW": OrderStatus.OPEN,
    "PARTIALLY_FILLED": OrderStatus.PARTIALLY_FILLED,
    "PENDING_CANCEL": OrderStatus.OPEN,
    "FILLED": OrderStatus.FILLED,
    "CANCELED": OrderStatus.CANCELLED,
    "REJECTED": OrderStatus.REJECTED,
    "EXPIRED": OrderStatus.EXPIRED,
    "EXPIRED_IN_MATCH": OrderStatus.EXPIRED,
}
SIDES: Final = {"BUY": Side.BUY, "SELL": Side.SELL}


class VenueError(Struct):
    """A proper error of the venue."""

    code: int
    msg: str = ""


class OrderView(Struct):
    """An order as REST and the WebSocket API show it."""

    symbol: str
    orderId: int  # noqa: N815
    clientOrderId: str  # noqa: N815
    price: Decimal
    origQty: Decimal  # noqa: N815
    executedQty: Decimal  # noqa: N815
    status: str
    side: str
    type: str = ""
    time: int = 0
    updateTime: int = 0  # noqa: N815
    transactTime: int = 0  # noqa: N815
    origClientOrderId: str = ""  # noqa: N815


class TradeView(Struct):
    """One of the account's executions."""

    symbol: str
    id: int
    orderId: int  # noqa: N815
    price: Decimal
    qty: Decimal
    commission: Decimal
    commissionAsset: str  # noqa: N815
    time: int
    isBuyer: bool | None = None  # noqa: N815
    isMaker: bool | None = None  # noqa: N815
    buyer: bool | None = None
    maker: bool | None = None


class _SpotBalance(Struct):
    asset: str
    free: Decimal
    locked: Decimal


class _Rates(Struct):
    maker: Decimal
    taker: Decimal


class _Asset(Struct):
    asset: str
    walletBalance: Decimal  # noqa: N815
    initialMargin: Decimal = _ZERO  # noqa: N815


class AccountView(Struct):
    """The account of either product: spot has `balances`, USDⓈ-M `assets`."""

    balances: list[_SpotBalance] | None = None
    assets: list[_Asset] | None = None
    commissionRates: _Rates | None = None  # noqa: N815
    canTrade: bool = True  # noqa: N815


class PositionView(Struct):
    """One USDⓈ-M position."""

    symbol: str
    positionAmt: Decimal  # noqa: N815
    entryPrice: Decimal  # noqa: N815
    liquidationPrice: Decimal = _ZERO  # noqa: N815
    markPrice: Decimal = _ZERO  # noqa: N815
    positionSide: str = "BOTH"  # noqa: N815


class _Time(Struct):
    serverTime: int  # noqa: N815


class _ListenKey(Struct):
    listenKey: str  # noqa: N815


# Numbers of orders, trades and times are numbers; a few senders write them as text.
decode_order: Final = msgspec.json.Decoder(OrderView, strict=False).decode
decode_orders: Final = msgspec.json.Decoder(list[OrderView], strict=False).decode
decode_trades: Final = msgspec.json.Decoder(list[TradeView], strict=False).decode
decode_account: Final = msgspec.json.Decoder(AccountView, strict=False).decode
decode_positions: Final = msgspec.json.Decoder(list[PositionView], strict=False).decode
decode_error: Final = msgspec.json.Decoder(VenueError, strict=False).decode
_decode_time: Final = msgspec.json.Decoder(_Time).decode
_decode_listen_key: Final = msgspec.json.Decoder(_ListenKey).decode


def decode_server_time(body: bytes) -> int:
    """Return the venue's time in nanoseconds; it tells milliseconds."""
    return _decode_time(body).serverTime * _MS


def decode_listen_key(body: bytes) -> str:
    """Return the key of a user data stream."""
    return _decode_listen_key(body).listenKey


def order_snapshot(view: OrderView, symbol: str, asked_ns: int) -> OrderSnapshot:
    """Return the venue's view of an order as of `asked_ns`.

    Raises `ValueError` for an unknown status or side, or a number that is none.

    The time is that of the question, not of the answer: what happened on the way back is not in it.
    """
    require_finite(f"order {view.orderId}", price=view.price, qty=view.origQty, filled=view.executedQty)
    try:
        status, side = STATUSES[view.status], SIDES[view.side]
    except KeyError as error:
        raise ValueError(f"order {view.orderId}: unknown status or side {error}") from None
    if status is OrderStatus.OPEN and view.executedQty > _ZERO:
        status = OrderStatus.PARTIALLY_FILLED
    return OrderSnapshot(
        view.origClientOrderId or view.clientOrderId,
        str(view.orderId),
        symbol,
        side,
        view.price if view.price > _ZERO and view.type != "MARKET" else None,
        view.origQty,
        view.executedQty,
        status,
        asked_ns,
    )


def fill(view: TradeView, client_id: str, symbol: str) -> OrderFilled:
    """Return one of the account's executions as a report; raise `ValueError` for a number that is none."""
    require_finite(f"trade {view.id}", price=view.price, qty=view.qty, commission=view.commission)
    is_buyer = view.isBuyer if view.isBuyer is not None else bool(view.buyer)
    is_maker = view.isMaker if view.isMaker is not None else bool(view.maker)
    return OrderFilled(
        client_id,
        symbol,
        Side.BUY if is_buyer else Side.SELL,
        str(view.id),
        view.price,
        view.qty,
        view.commission,
        view.commissionAsset,
        Liquidity.MAKER if is_maker else Liquidity.TAKER,
        view.time * _MS,
        str(view.orderId),
    )


def account_snapshot(
    account: AccountView,
    positions: Iterable[PositionView],
    to_tandem: Callable[[str], str | None],
    asked_ns: int,
) -> AccountSnapshot:
    """Return balances and positions; what is zero is left out.

    Locked on spot is what backs open orders, on USDⓈ-M the initial margin of orders and positions.
    Raises `ValueError` for a number that is none.
    """
    positions = list(positions)
    for held in account.balances or ():
        require_finite(held.asset, free=held.free, locked=held.locked)
    for asset in account.assets or ():
        require_finite(asset.asset, wallet=asset.walletBalance, margin=asset.initialMargin)
    for position in positions:
        require_finite(
            position.symbol,
            qty=position.positionAmt,
            entry=position.entryPrice,
            liquidation=position.liquidationPrice,
        )
    balances = [
        Balance(item.asset, item.free + item.locked, item.locked)
        for item in account.balances or ()
        if item.free or item.locked
    ]
    balances += [
        Balance(item.asset, item.walletBalance, item.initialMargin)
        for item in account.assets or ()
        if item.walletBalance or item.initialMargin
    ]
    open_positions = [
        VenuePosition(symbol, item.positionAmt, item.entryPrice, max(item.liquidationPrice, Decimal(0)))
        for item in positions
        if item.positionAmt and (symbol := to_tandem(item.symbol)) is not None
    ]
    return AccountSnapshot(tuple(balances), tuple(open_positions), asked_ns)
