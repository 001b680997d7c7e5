"""What perpetuals need beside orders: settings of a symbol, the dead man's switch, the liquidation alarm."""

import asyncio
import logging
from collections.abc import Sequence
from decimal import Decimal
from typing import Final

import msgspec
from msgspec import Struct

from host.api import AdapterContext, ExchangeError

from .._shared.symbols import SymbolTable
from .answers import PositionView
from .params import BinanceUsdmParams
from .products import Endpoint
from .queries import Queries
from .rest_calls import RestCalls, VenueRefused
from .signed import Params

__all__ = ["DeadMan", "account_fees", "liquidation_distance", "prepare", "watch_liquidation"]

_log = logging.getLogger("tandem.exchange")
_POSITION_MODE: Final = Endpoint("GET", "/fapi/v1/positionSide/dual", 30)
_LEVERAGE: Final = Endpoint("POST", "/fapi/v1/leverage")
_MARGIN_TYPE: Final = Endpoint("POST", "/fapi/v1/marginType")
_COMMISSION: Final = Endpoint("GET", "/fapi/v1/commissionRate", 20)
_COUNTDOWN: Final = Endpoint("POST", "/fapi/v1/countdownCancelAll", 10)
_NO_CHANGE_NEEDED: Final = -4046
_USUAL_FEES: Final = (Decimal("0.0002"), Decimal("0.0005"))
"""What an account without discounts pays."""


class _PositionMode(Struct):
    dualSidePosition: bool  # noqa: N815


class _Commission(Struct):
    makerCommissionRate: Decimal  # noqa: N815
    takerCommissionRate: Decimal  # noqa: N815


_decode_mode = msgspec.json.Decoder(_PositionMode).decode
_decode_commission = msgspec.json.Decoder(_Commission).decode


async def account_fees(calls: RestCalls, wire: str, now_ns: int) -> tuple[Decimal, Decimal]:
    """Return the account's maker and taker rates as they are for one symbol; the usual ones where not told."""
    try:
        rates = _decode_commission(await calls.signed(_COMMISSION, {"symbol": wire}, now_ns))
    except (VenueRefused, msgspec.MsgspecError) as error:
        _log.warning("the account's fees are not told, the usual ones are taken: %s", error)
        return _USUAL_FEES
    return rates.makerCommissionRate, rates.takerCommissionRate


async def prepare(
    calls: RestCalls, table: SymbolTable, params: BinanceUsdmParams, symbols: Sequence[str], now_ns: int
) -> None:
    """Bring leverage and margin mode of symbols to what the parameters say; raise `ExchangeError`.

    The account has to be in one-way mode: positions are signed, and reduce-only means what it says.
    """
    if _decode_mode(await calls.signed(_POSITION_MODE, {}, now_ns)).dualSidePosition:
        raise ExchangeError(
            "binance_usdm: the account is in hedge mode, one-way mode is needed; "
            "change it at the venue while there are no positions"
        )
    for symbol in symbols:
        wire = table.to_venue(symbol)
        if params.margin_mode:
            mode = {"cross": "CROSSED", "isolated": "ISOLATED"}[params.margin_mode]
            try:
                await calls.signed(_MARGIN_TYPE, {"marginType": mode, "symbol": wire}, now_ns)
            except VenueRefused as refused:
                if refused.code != _NO_CHANGE_NEEDED:
                    raise
        if params.leverage is not None:
            await calls.signed(_LEVERAGE, {"leverage": params.leverage, "symbol": wire}, now_ns)


class DeadMan:
    """Keeps the venue's countdown running for the symbols that we have placed orders in.

    If nobody winds it up again within `timeout_s`, the venue cancels all orders of the symbol. It is wound
    up with the first order of a process, so a dead predecessor's countdown never ends the new orders,
    and it is left to run out when we go: there are no orders then, or nobody to look after them.
    """

    def __init__(self, ctx: AdapterContext, calls: RestCalls, table: SymbolTable, timeout_s: float) -> None:
        self._ctx: Final = ctx
        self._calls: Final = calls
        self._table: Final = table
        self._timeout_s: Final = timeout_s
        self._symbols: Final[set[str]] = set()
        self.wound_up = 0
        """How often a countdown was started anew."""

    def placing(self, symbol: str) -> None:
        """Start the countdown of a symbol before its first order; no effect for later ones."""
        if self._timeout_s <= 0 or symbol in self._symbols:
            return
        self._symbols.add(symbol)
        self._ctx.spawn(self._keep(symbol), f"dead man's switch of {symbol}")

    async def _keep(self, symbol: str) -> None:
        # A third of the time, so that two attempts may fail.
        every_s = self._timeout_s / 3
        while True:
            params: Params = {
                "countdownTime": round(self._timeout_s * 1000),
                "symbol": self._table.to_venue(symbol),
            }
            try:
                await self._calls.signed(_COUNTDOWN, params, self._ctx.now_ns(), is_urgent=True)
                self.wound_up += 1
            except ExchangeError as error:
                _log.error(
                    "account %s: the dead man's switch of %s was not wound up: %s",
                    self._ctx.account,
                    symbol,
                    error,
                )
            await asyncio.sleep(every_s)


def liquidation_distance(position: PositionView) -> float | None:
    """Return how far the mark price is from the liquidation price, as a share of the mark price.

    None without a position, or where the venue names no liquidation price.
    """
    if not position.positionAmt or position.liquidationPrice <= 0 or position.markPrice <= 0:
        return None
    return float(abs(position.markPrice - position.liquidationPrice) / position.markPrice)


async def watch_liquidation(ctx: AdapterContext, queries: Queries, alarm: float, every_s: float) -> None:
    """Look at the positions now and then, for ever, and say so when one comes near its liquidation."""
    while True:
        await asyncio.sleep(every_s)
        try:
            positions = await queries.positions(ctx.now_ns())
        except (ExchangeError, msgspec.MsgspecError, ValueError) as error:
            _log.warning("account %s: the positions could not be looked at: %s", ctx.account, error)
            continue
        for position in positions:
            distance = liquidation_distance(position)
            if distance is not None and distance < alarm:
                _log.error(
                    "account %s: %s: the mark price %s is %.1f %% from liquidation at %s",
                    ctx.account,
                    position.symbol,
                    position.markPrice,
                    distance * 100,
                    position.liquidationPrice,
                )
