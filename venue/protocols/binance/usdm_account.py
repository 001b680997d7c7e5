"""USDⓈ-M account data and settings: balances, positions, leverage, margin type."""

from collections import deque
from collections.abc import Callable
from decimal import Decimal
from typing import Any, Final

from host.api import Instrument
from venue.accounts import Account
from venue.perpetuals import FundingPayment
from venue.protocols.binance.errors import BinanceRefusal, missing
from venue.protocols.binance.limits import Limits
from venue.protocols.binance.product import Call, Endpoint, Security
from venue.protocols.binance.symbols import Listing, fixed
from venue.protocols.binance.usdm_positions import PositionView
from venue.protocols.front import Desk
from venue.protocols.requests import Kind

__all__ = ["UsdmAccount"]

MAX_LEVERAGE: Final = 125
MAX_PAYMENTS: Final = 1000
"""Funding payments of a wallet that `income` still tells."""
_MARGIN_TYPES: Final = {"CROSSED": "cross", "ISOLATED": "isolated"}
_ZERO = Decimal(0)


class UsdmAccount:
    """The account endpoints. `on_leverage` is told of every change: (account, symbol, leverage)."""

    def __init__(
        self,
        desk: Desk,
        listing: Listing,
        limits: Limits,
        on_leverage: Callable[[str, str, int], None],
    ) -> None:
        self._desk = desk
        self._listing = listing
        self._limits = limits
        self._on_leverage = on_leverage
        self._margin_types: dict[tuple[str, str], str] = {}
        self._payments: dict[str, deque[FundingPayment]] = {}

    def endpoints(self) -> tuple[Endpoint, ...]:
        """Return what can be asked for."""
        signed, query, setting = Security.SIGNED, Kind.QUERY, Kind.SETTING
        return (
            Endpoint("v2/account.status", query, signed, self._account, 5, ("GET /fapi/v3/account",)),
            Endpoint("account.status", query, signed, self._account_v2, 5, ("GET /fapi/v2/account",)),
            Endpoint(
                "v2/account.balance",
                query,
                signed,
                self._balance,
                5,
                ("GET /fapi/v3/balance", "GET /fapi/v2/balance"),
            ),
            Endpoint("v2/account.position", query, signed, self._risk, 5, ("GET /fapi/v3/positionRisk",)),
            Endpoint("account.position", query, signed, self._risk_v2, 5, ("GET /fapi/v2/positionRisk",)),
            Endpoint(
                "accountConfig", query, signed, self._account_config, 5, ("GET /fapi/v1/accountConfig",)
            ),
            Endpoint("symbolConfig", query, signed, self._symbol_config, 5, ("GET /fapi/v1/symbolConfig",)),
            Endpoint("commissionRate", query, signed, self._commission, 20, ("GET /fapi/v1/commissionRate",)),
            Endpoint("leverageBracket", query, signed, self._brackets, 1, ("GET /fapi/v1/leverageBracket",)),
            Endpoint("income", query, signed, self._income, 30, ("GET /fapi/v1/income",)),
            Endpoint("orderLimits", query, signed, self._order_counts, 1, ("GET /fapi/v1/rateLimit/order",)),
            Endpoint("leverage", setting, signed, self._set_leverage, 1, ("POST /fapi/v1/leverage",)),
            Endpoint("marginType", setting, signed, self._set_margin_type, 1, ("POST /fapi/v1/marginType",)),
            Endpoint("hedge", query, signed, self._hedge_mode, 30, ("GET /fapi/v1/positionSide/dual",)),
            Endpoint(
                "hedge.set", setting, signed, self._set_hedge_mode, 1, ("POST /fapi/v1/positionSide/dual",)
            ),
            Endpoint(
                "multiAssets", query, signed, self._multi_assets, 30, ("GET /fapi/v1/multiAssetsMargin",)
            ),
        )

    def view(self, wallet: str, instrument: Instrument) -> PositionView:
        """Return a wallet's position in one symbol."""
        mark = Decimal(str(self._desk.feed[instrument.symbol].mark))
        margin_type = self._margin_types.get((wallet, instrument.symbol), "cross")
        name = self._listing.name_of(instrument.symbol)
        return PositionView.of(self._desk.exchange.account(wallet), instrument, name, mark, margin_type)

    def note_funding(self, payment: FundingPayment) -> None:
        """Keep what was paid, for `income`."""
        self._payments.setdefault(payment.account, deque(maxlen=MAX_PAYMENTS)).append(payment)

    # -- what is there ---------------------------------------------------------------------------

    async def _account(self, call: Call) -> Any:
        views = [view for view in self._views(call) if view.qty or any(view.order_values)]
        rows = [view.account_row(self._now_ms()) for view in views]
        return {**self._totals(call.wallet), "positions": rows}

    async def _account_v2(self, call: Call) -> Any:
        rows = [view.account_row_v2(self._now_ms()) for view in self._views(call)]
        config = await self._account_config(call)
        return {**config, **self._totals(call.wallet, is_v2=True), "positions": rows}

    def _totals(self, wallet: str, *, is_v2: bool = False) -> dict[str, Any]:
        account = self._desk.exchange.account(wallet)
        assets = [self._asset(account, wallet, each) for each in sorted(account.balances)]
        # Every contract settles in USDT: other assets are no margin and count for nothing.
        usdt = next((each for each in assets if each["asset"] == "USDT"), None) or self._asset(
            account, wallet, "USDT"
        )
        totals = {
            "totalInitialMargin": usdt["initialMargin"],
            "totalMaintMargin": usdt["maintMargin"],
            "totalWalletBalance": usdt["walletBalance"],
            "totalUnrealizedProfit": usdt["unrealizedProfit"],
            "totalMarginBalance": usdt["marginBalance"],
            "totalPositionInitialMargin": usdt["positionInitialMargin"],
            "totalOpenOrderInitialMargin": usdt["openOrderInitialMargin"],
            "totalCrossWalletBalance": usdt["crossWalletBalance"],
            "totalCrossUnPnl": usdt["crossUnPnl"],
            "availableBalance": usdt["availableBalance"],
            "maxWithdrawAmount": usdt["maxWithdrawAmount"],
        }
        if is_v2:
            assets = [{**each, "marginAvailable": True} for each in assets]
        return {**totals, "assets": assets}

    def _asset(self, account: Account, wallet: str, asset: str) -> dict[str, Any]:
        views = [self.view(wallet, each) for each in self._listing.by_name.values() if each.settle == asset]
        balance = account.balances.get(asset, _ZERO)
        profit = sum((view.profit for view in views), _ZERO)
        positions = sum((view.position_margin for view in views), _ZERO)
        orders = sum((view.order_margin for view in views), _ZERO)
        available = max(account.free(asset), _ZERO)
        return {
            "asset": asset,
            "walletBalance": fixed(balance),
            "unrealizedProfit": fixed(profit),
            "marginBalance": fixed(balance + profit),
            "maintMargin": fixed(sum((view.maintenance for view in views), _ZERO)),
            "initialMargin": fixed(positions + orders),
            "positionInitialMargin": fixed(positions),
            "openOrderInitialMargin": fixed(orders),
            "crossWalletBalance": fixed(balance),
            "crossUnPnl": fixed(profit),
            "availableBalance": fixed(available),
            "maxWithdrawAmount": fixed(available),
            "updateTime": self._now_ms(),
        }

    async def _balance(self, call: Call) -> Any:
        account = self._desk.exchange.account(call.wallet)
        rows = []
        for asset in sorted(account.balances):
            row = self._asset(account, call.wallet, asset)
            rows.append(
                {
                    "accountAlias": "SgsR",
                    "asset": asset,
                    "balance": row["walletBalance"],
                    "crossWalletBalance": row["crossWalletBalance"],
                    "crossUnPnl": row["crossUnPnl"],
                    "availableBalance": row["availableBalance"],
                    "maxWithdrawAmount": row["maxWithdrawAmount"],
                    "marginAvailable": True,
                    "updateTime": row["updateTime"],
                }
            )
        return rows

    async def _risk(self, call: Call) -> Any:
        named = "symbol" in call.params
        views = [view for view in self._views(call) if named or view.qty or any(view.order_values)]
        return [view.risk_row(self._now_ms()) for view in views]

    async def _risk_v2(self, call: Call) -> Any:
        return [view.risk_row_v2(self._now_ms()) for view in self._views(call)]

    def _views(self, call: Call) -> list[PositionView]:
        if "symbol" in call.params:
            return [self.view(call.wallet, self._listing.instrument(call.params))]
        return [self.view(call.wallet, each) for each in self._listing.by_name.values()]

    async def _account_config(self, call: Call) -> Any:
        return {
            "feeTier": 0,
            "canTrade": call.account is not None and call.account.can_trade,
            "canDeposit": False,
            "canWithdraw": False,
            "dualSidePosition": False,
            "updateTime": 0,
            "multiAssetsMargin": False,
            "tradeGroupId": -1,
        }

    async def _symbol_config(self, call: Call) -> Any:
        return [
            {
                "symbol": view.name,
                "marginType": "ISOLATED" if view.margin_type == "isolated" else "CROSSED",
                "isAutoAddMargin": False,
                "leverage": int(view.leverage),
                "maxNotionalValue": "1000000000",
            }
            for view in self._views(call)
        ]

    async def _commission(self, call: Call) -> Any:
        instrument = self._listing.instrument(call.params)
        return {
            "symbol": self._listing.name_of(instrument.symbol),
            "makerCommissionRate": f"{instrument.maker_fee:f}",
            "takerCommissionRate": f"{instrument.taker_fee:f}",
        }

    async def _brackets(self, call: Call) -> Any:
        bracket = {
            "bracket": 1,
            "initialLeverage": MAX_LEVERAGE,
            "notionalCap": 1_000_000_000,
            "notionalFloor": 0,
            "maintMarginRatio": 0.005,
            "cum": 0.0,
        }
        return [
            {"symbol": view.name, "notionalCoef": 1.0, "brackets": [bracket]} for view in self._views(call)
        ]

    async def _income(self, call: Call) -> Any:
        if call.params.text("incomeType", "FUNDING_FEE") != "FUNDING_FEE":
            return []  # profits and commissions are in userTrades
        symbol = self._listing.instrument(call.params).symbol if "symbol" in call.params else ""
        return [
            {
                "symbol": self._listing.name_of(payment.symbol),
                "incomeType": "FUNDING_FEE",
                "income": fixed(payment.amount),
                "asset": payment.currency,
                "info": "FUNDING_FEE",
                "time": self._desk.shown_ns(payment.ts_ns) // 1_000_000,
                "tranId": number,
                "tradeId": "",
            }
            for number, payment in enumerate(self._payments.get(call.wallet, ()), start=1)
            if symbol in ("", payment.symbol)
        ]

    async def _order_counts(self, call: Call) -> Any:
        name = "" if call.account is None else call.account.name
        return self._limits.orders_used(name, self._desk.now_ns())

    # -- settings --------------------------------------------------------------------------------

    async def _set_leverage(self, call: Call) -> Any:
        instrument = self._listing.instrument(call.params)
        leverage = call.params.integer("leverage")
        if leverage is None:
            raise missing("leverage")
        if not 1 <= leverage <= MAX_LEVERAGE:
            raise BinanceRefusal(-4028, f"Leverage {leverage} is not valid")
        self._desk.exchange.account(call.wallet).set_leverage(instrument.symbol, Decimal(leverage))
        name = self._listing.name_of(instrument.symbol)
        if call.account is not None:
            self._on_leverage(call.account.name, name, leverage)
        return {"leverage": leverage, "maxNotionalValue": "1000000000", "symbol": name}

    async def _set_margin_type(self, call: Call) -> Any:
        instrument = self._listing.instrument(call.params)
        wanted = _MARGIN_TYPES.get(call.params.required("marginType"))
        if wanted is None:
            raise BinanceRefusal(-1130, "Data sent for parameter 'marginType' is not valid.")
        key = (call.wallet, instrument.symbol)
        if self._margin_types.get(key, "cross") == wanted:
            raise BinanceRefusal(-4046, "No need to change margin type.")
        view = self.view(call.wallet, instrument)
        if view.qty:
            raise BinanceRefusal(-4048, "Margin type cannot be changed if there exists position.")
        if any(view.order_values):
            raise BinanceRefusal(-4047, "Margin type cannot be changed if there exists open orders.")
        self._margin_types[key] = wanted
        return {"code": 200, "msg": "success"}

    async def _hedge_mode(self, call: Call) -> Any:
        return {"dualSidePosition": False}

    async def _set_hedge_mode(self, call: Call) -> Any:
        if not call.params.boolean("dualSidePosition"):
            raise BinanceRefusal(-4059, "No need to change position side.")
        raise BinanceRefusal(-1000, "Hedge mode is not served here.")

    async def _multi_assets(self, call: Call) -> Any:
        return {"multiAssetsMargin": False}

    def _now_ms(self) -> int:
        return self._desk.now_ns() // 1_000_000
