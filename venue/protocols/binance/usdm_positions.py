"""USDⓈ-M positions as Binance writes them: in two versions of two answers, and in events."""

from decimal import Decimal
from typing import Any

from msgspec import Struct

from host.api import Instrument
from venue.accounts import Account
from venue.perpetuals import MAINTENANCE_RATE, liquidation_price, position_value, unrealised_profit
from venue.protocols.binance.symbols import decimals_of, fixed

__all__ = ["PositionView"]

_ZERO = Decimal(0)


class PositionView(Struct, frozen=True):
    """One symbol of one account, with all that positions are told by."""

    instrument: Instrument
    name: str
    qty: Decimal
    entry: Decimal
    mark: Decimal
    position_margin: Decimal
    order_margin: Decimal
    order_values: tuple[Decimal, Decimal]
    leverage: Decimal
    margin_type: str
    """`cross` or `isolated`: what the client set. The margin itself is always cross."""
    balance: Decimal

    @staticmethod
    def of(
        account: Account, instrument: Instrument, name: str, mark: Decimal, margin_type: str
    ) -> "PositionView":
        """Return the view of an account's position as it is now."""
        symbol = instrument.symbol
        position, orders = account.margins(symbol)
        return PositionView(
            instrument,
            name,
            account.position(symbol),
            account.entry_price(symbol),
            mark,
            position,
            orders,
            account.order_values(symbol),
            account.leverage_of(symbol),
            margin_type,
            account.balances.get(instrument.settle, _ZERO),
        )

    @property
    def profit(self) -> Decimal:
        """Return the unrealised profit."""
        return unrealised_profit(self.instrument, self.qty, self.entry, self.mark)

    @property
    def maintenance(self) -> Decimal:
        """Return the maintenance margin."""
        return abs(position_value(self.instrument, self.qty, self.mark)) * MAINTENANCE_RATE

    def risk_row(self, updated_ms: int) -> dict[str, Any]:
        """Return a row of `/fapi/v3/positionRisk`, with what version 2 had besides."""
        value = position_value(self.instrument, self.qty, self.mark)
        return {
            "symbol": self.name,
            "positionSide": "BOTH",
            "positionAmt": self._size(),
            "entryPrice": self._entry(),
            "breakEvenPrice": self._entry(),
            "markPrice": fixed(self.mark),
            "unRealizedProfit": fixed(self.profit),
            "liquidationPrice": fixed(
                liquidation_price(self.instrument, self.qty, self.entry, self.balance), 8
            ),
            "isolatedMargin": fixed(_ZERO),
            "notional": fixed(value),
            "marginAsset": self.instrument.quote,
            "isolatedWallet": "0",
            "initialMargin": fixed(self.position_margin + self.order_margin),
            "maintMargin": fixed(self.maintenance),
            "positionInitialMargin": fixed(self.position_margin),
            "openOrderInitialMargin": fixed(self.order_margin),
            "adl": 0,
            "bidNotional": fixed(self.order_values[0]),
            "askNotional": fixed(self.order_values[1]),
            "updateTime": updated_ms,
        }

    def risk_row_v2(self, updated_ms: int) -> dict[str, Any]:
        """Return a row of `/fapi/v2/positionRisk`: with the settings that moved to `symbolConfig` since."""
        row = self.risk_row(updated_ms)
        kept = (
            "symbol positionSide positionAmt entryPrice breakEvenPrice markPrice unRealizedProfit "
            "liquidationPrice isolatedMargin notional isolatedWallet updateTime"
        )
        return {
            **{key: row[key] for key in kept.split()},
            "leverage": f"{self.leverage:f}",
            "maxNotionalValue": "1000000000",
            "marginType": self.margin_type,
            "isAutoAddMargin": "false",
        }

    def account_row(self, updated_ms: int) -> dict[str, Any]:
        """Return a row of the account's `positions`, with the settings that version 2 had besides."""
        row = self.risk_row(updated_ms)
        return {
            "symbol": self.name,
            "positionSide": "BOTH",
            "positionAmt": row["positionAmt"],
            "unrealizedProfit": row["unRealizedProfit"],
            "isolatedMargin": row["isolatedMargin"],
            "notional": row["notional"],
            "isolatedWallet": "0",
            "initialMargin": row["initialMargin"],
            "maintMargin": row["maintMargin"],
            "updateTime": updated_ms,
        }

    def account_row_v2(self, updated_ms: int) -> dict[str, Any]:
        """Return a row of `/fapi/v2/account`."""
        row = self.risk_row(updated_ms)
        return {
            **self.account_row(updated_ms),
            "positionInitialMargin": row["positionInitialMargin"],
            "openOrderInitialMargin": row["openOrderInitialMargin"],
            "leverage": f"{self.leverage:f}",
            "isolated": self.margin_type == "isolated",
            "entryPrice": row["entryPrice"],
            "breakEvenPrice": row["breakEvenPrice"],
            "maxNotional": "1000000000",
            "bidNotional": row["bidNotional"],
            "askNotional": row["askNotional"],
        }

    def event_row(self, realised: Decimal) -> dict[str, Any]:
        """Return a row of an `ACCOUNT_UPDATE`; `realised` is the profit since the position was opened."""
        return {
            "s": self.name,
            "pa": self._size(),
            "ep": self._entry(),
            "bep": self._entry(),
            "cr": fixed(realised),
            "up": fixed(self.profit),
            "mt": self.margin_type,
            "iw": "0",
            "ps": "BOTH",
        }

    def _size(self) -> str:
        return fixed(self.qty, decimals_of(self.instrument.lot_size))

    def _entry(self) -> str:
        return fixed(self.entry, decimals_of(self.instrument.tick_size) + 3)
