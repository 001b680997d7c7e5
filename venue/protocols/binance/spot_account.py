"""Spot account data: balances, commission, order counts, and what left the API in 2026."""

from typing import Any

from venue.protocols.binance.errors import BinanceRefusal
from venue.protocols.binance.limits import Limits
from venue.protocols.binance.product import Call, Endpoint, Security
from venue.protocols.binance.symbols import Listing, fixed
from venue.protocols.front import Desk
from venue.protocols.requests import Kind

__all__ = ["SpotAccount"]


class SpotAccount:
    """The account endpoints."""

    def __init__(self, desk: Desk, listing: Listing, limits: Limits) -> None:
        self._desk = desk
        self._listing = listing
        self._limits = limits

    def endpoints(self) -> tuple[Endpoint, ...]:
        """Return what can be asked for."""
        signed, query = Security.SIGNED, Kind.QUERY
        gone = tuple(f"{verb} /api/v3/userDataStream" for verb in ("POST", "PUT", "DELETE"))
        return (
            Endpoint("account.status", query, signed, self._account, 20, ("GET /api/v3/account",)),
            Endpoint(
                "account.commission", query, signed, self._commission, 20, ("GET /api/v3/account/commission",)
            ),
            Endpoint(
                "account.rateLimits.orders",
                query,
                signed,
                self._order_counts,
                40,
                ("GET /api/v3/rateLimit/order",),
            ),
            Endpoint(
                "capital.coins", query, signed, self._coins, 10, ("GET /sapi/v1/capital/config/getall",)
            ),
            Endpoint(
                "margin.listed",
                query,
                Security.NONE,
                self._no_margin,
                1,
                tuple(
                    f"GET /sapi/v1/margin/{what}" for what in ("allPairs", "allAssets", "isolated/allPairs")
                ),
            ),
            Endpoint("userDataStream", Kind.LOGIN, Security.NONE, self._no_listen_key, 2, gone),
            Endpoint("userDataStream.start", Kind.LOGIN, Security.NONE, self._no_listen_key, 2),
            Endpoint("userDataStream.ping", Kind.LOGIN, Security.NONE, self._no_listen_key, 2),
            Endpoint("userDataStream.stop", Kind.LOGIN, Security.NONE, self._no_listen_key, 2),
        )

    async def _account(self, call: Call) -> Any:
        instrument = next(iter(self._listing.by_name.values()))
        maker, taker = instrument.maker_fee, instrument.taker_fee
        snapshot = self._desk.exchange.account(call.wallet).snapshot(self._desk.clock.now_ns())
        return {
            "makerCommission": int(maker * 10_000),
            "takerCommission": int(taker * 10_000),
            "buyerCommission": 0,
            "sellerCommission": 0,
            "commissionRates": {
                "maker": fixed(maker),
                "taker": fixed(taker),
                "buyer": fixed(0.0),
                "seller": fixed(0.0),
            },
            "canTrade": call.account is not None and call.account.can_trade,
            "canWithdraw": False,
            "canDeposit": False,
            "brokered": False,
            "requireSelfTradePrevention": False,
            "preventSor": False,
            "updateTime": self._desk.shown_ns(snapshot.ts_ns) // 1_000_000,
            "accountType": "SPOT",
            "balances": [
                {
                    "asset": each.currency,
                    "free": fixed(each.total - each.locked),
                    "locked": fixed(each.locked),
                }
                for each in snapshot.balances
            ],
            "permissions": ["SPOT"],
            "uid": 1_000_000 + sum(map(ord, call.account.name if call.account else "")),
        }

    async def _commission(self, call: Call) -> Any:
        instrument = self._listing.instrument(call.params)
        none = {side: fixed(0.0) for side in ("maker", "taker", "buyer", "seller")}
        return {
            "symbol": self._listing.name_of(instrument.symbol),
            "standardCommission": {
                **none,
                "maker": fixed(instrument.maker_fee),
                "taker": fixed(instrument.taker_fee),
            },
            "specialCommission": none,
            "taxCommission": none,
            "discount": {
                "enabledForAccount": False,
                "enabledForSymbol": False,
                "discountAsset": "BNB",
                "discount": fixed(0.0),
            },
        }

    async def _order_counts(self, call: Call) -> Any:
        name = "" if call.account is None else call.account.name
        return self._limits.orders_used(name, self._desk.now_ns())

    async def _coins(self, call: Call) -> Any:
        # Wallet administration is no part of trading; clients ask for it while they load markets.
        return [
            {
                "coin": currency,
                "depositAllEnable": False,
                "withdrawAllEnable": False,
                "name": currency,
                "free": fixed(0.0),
                "locked": fixed(0.0),
                "freeze": fixed(0.0),
                "withdrawing": fixed(0.0),
                "ipoing": fixed(0.0),
                "ipoable": fixed(0.0),
                "storage": fixed(0.0),
                "isLegalMoney": False,
                "trading": True,
                "networkList": [],
            }
            for currency in sorted(self._listing.currencies())
        ]

    async def _no_margin(self, call: Call) -> Any:
        return []  # nothing trades on margin here

    async def _no_listen_key(self, call: Call) -> Any:
        # Shut off on 2026-02-20: user data comes by `userDataStream.subscribe` on the WebSocket API.
        raise BinanceRefusal(
            -1000, "This endpoint has been removed. Please use userDataStream.subscribe.", status=410
        )
