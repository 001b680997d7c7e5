"""Bybit's private REST calls that place no orders: lists, balances, positions, settings."""

from collections.abc import Callable
from decimal import Decimal, InvalidOperation
from typing import Any, Final

from host.api import OrderFilled
from venue.protocols.bybit.account_rows import fee_row, position_row
from venue.protocols.bybit.keys import whole
from venue.protocols.bybit.ledger_view import LedgerView
from venue.protocols.bybit.members import Member
from venue.protocols.bybit.names import Listing, Product, Symbols, number_of
from venue.protocols.bybit.refusals import BAD_PARAMETER, NO_ROUTE, Refused
from venue.protocols.front import Desk
from venue.records import OrderRecord

__all__ = ["AccountQueries"]

_MS: Final = 1_000_000
_WEEK_MS: Final = 7 * 24 * 3_600_000
_RECENT_ENDED: Final = 500
"""How many orders that ended the list of present orders still shows."""
_ALREADY: Final = {
    "leverage": (110043, "leverage not modified"),
    "margin": (110026, "Cross/isolated margin mode is not modified"),
}
_MODE_UNCHANGED: Final = (110025, "Position mode is not modified")
_MARGIN_MODES: Final = ("REGULAR_MARGIN", "ISOLATED_MARGIN", "PORTFOLIO_MARGIN")
_DCP: Final = ("SPOT", "DERIVATIVES", "OPTIONS")

Call = Callable[[Member, dict[str, Any]], dict[str, Any]]


class AccountQueries:
    """Answers for one account. Each call returns the `result` or raises `Refused`."""

    def __init__(self, desk: Desk, symbols: Symbols, ledger: LedgerView) -> None:
        self._desk: Final = desk
        self._symbols: Final = symbols
        self._ledger: Final = ledger
        self._calls: Final[dict[str, Call]] = {
            "GET /v5/user/query-api": self._key,
            "GET /v5/account/info": self._info,
            "GET /v5/account/wallet-balance": self._wallet,
            "GET /v5/account/fee-rate": self._fees,
            "GET /v5/account/query-dcp-info": self._dcp_info,
            "GET /v5/asset/coin/query-info": self._coins,
            "GET /v5/position/list": self._positions,
            "GET /v5/order/realtime": self._present_orders,
            "GET /v5/order/history": self._past_orders,
            "GET /v5/execution/list": self._executions,
            "POST /v5/position/set-leverage": self._set_leverage,
            "POST /v5/position/switch-mode": self._set_position_mode,
            "POST /v5/position/switch-isolated": self._set_isolated,
            "POST /v5/account/set-margin-mode": self._set_margin_mode,
            "POST /v5/order/disconnected-cancel-all": self._set_dcp,
        }

    def answer(self, method: str, member: Member, params: dict[str, Any]) -> dict[str, Any]:
        """Answer one call, named `VERB /path`. Raises `Refused`."""
        call = self._calls.get(method)
        if call is None:
            raise Refused(NO_ROUTE, f"Route not found: {method}")
        return call(member, params)

    # -- lists -----------------------------------------------------------------------------------

    def _present_orders(self, member: Member, params: dict[str, Any]) -> dict[str, Any]:
        product = self._product(params)
        is_named = bool(params.get("orderId") or params.get("orderLinkId"))
        if product is Product.LINEAR and not any(
            params.get(key) for key in ("symbol", "baseCoin", "settleCoin", "orderId", "orderLinkId")
        ):
            raise Refused(BAD_PARAMETER, "params error: symbol, baseCoin or settleCoin is required")
        # Asked for by id, an order is shown although it ended lately; `openOnly` 1 lists those too.
        shows_ended = is_named or str(params.get("openOnly") or "0") == "1"
        found = [
            record for record in self._orders(member, product, params) if shows_ended or record.order.is_open
        ]
        return self._page(member, product, found[:_RECENT_ENDED], params)

    def _past_orders(self, member: Member, params: dict[str, Any]) -> dict[str, Any]:
        product = self._product(params)
        found = [record for record in self._orders(member, product, params) if not record.order.is_open]
        status = str(params.get("orderStatus") or "")
        page = self._page(member, product, found, params)
        if status:
            page["list"] = [row for row in page["list"] if row["orderStatus"] == status]
        return page

    def _orders(self, member: Member, product: Product, params: dict[str, Any]) -> list[OrderRecord]:
        order_id, link_id = str(params.get("orderId") or ""), str(params.get("orderLinkId") or "")
        number = number_of(order_id) if order_id else None
        found = []
        for record in self._ledger.orders(member.wallet):
            listing = self._symbols.of(record.order.symbol)
            if not self._is_wanted(listing, product, params):
                continue
            if order_id and record.order.order_id != number:
                continue
            if link_id and not order_id and self._ledger.view(record).terms.link_id != link_id:
                continue
            found.append(record)
        return found

    def _page(
        self, member: Member, product: Product, records: list[OrderRecord], params: dict[str, Any]
    ) -> dict[str, Any]:
        start, limit = whole(params.get("cursor")) or 0, min(whole(params.get("limit")) or 20, 50)
        part = records[start : start + limit]
        following = str(start + limit) if start + limit < len(records) else ""
        rows = self._ledger.order_rows(member.wallet, part)
        return {"category": product.value, "list": rows, "nextPageCursor": following}

    def _executions(self, member: Member, params: dict[str, Any]) -> dict[str, Any]:
        product = self._product(params)
        start_ms, end_ms = self._span(params)
        order_id, link_id = str(params.get("orderId") or ""), str(params.get("orderLinkId") or "")
        number = number_of(order_id) if order_id else None

        def is_wanted(fill: OrderFilled, listing: Listing) -> bool:
            at_ms = self._desk.shown_ns(fill.ts_ns) // _MS
            return (
                self._is_wanted(listing, product, params)
                and start_ms <= at_ms <= end_ms
                and (not order_id or fill.venue_id == str(number))
                and (not link_id or bool(order_id) or fill.client_id == link_id)
            )

        rows = self._ledger.executions(member.wallet, is_wanted)
        if not order_id and not link_id and str(params.get("execType") or "Funding") == "Funding":
            paid = [
                row
                for ts_ns, listing, row in self._ledger.funding(member.wallet)
                if self._is_wanted(listing, product, params)
                and start_ms <= self._desk.shown_ns(ts_ns) // _MS <= end_ms
            ]
            rows = sorted([*rows, *paid], key=lambda row: int(row["execTime"]), reverse=True)
        if params.get("execType"):
            rows = [row for row in rows if row["execType"] == params["execType"]]
        start, limit = whole(params.get("cursor")) or 0, min(whole(params.get("limit")) or 50, 100)
        following = str(start + limit) if start + limit < len(rows) else ""
        return {"category": product.value, "list": rows[start : start + limit], "nextPageCursor": following}

    def _span(self, params: dict[str, Any]) -> tuple[int, int]:
        now_ms = self._desk.now_ns() // _MS
        start_ms, end_ms = whole(params.get("startTime")), whole(params.get("endTime"))
        if start_ms is None:
            start_ms = (now_ms if end_ms is None else end_ms) - _WEEK_MS
        if end_ms is None:
            end_ms = start_ms + _WEEK_MS
        if end_ms - start_ms > _WEEK_MS:
            raise Refused(BAD_PARAMETER, "params error: startTime and endTime must be at most 7 days apart")
        return start_ms, end_ms

    def _positions(self, member: Member, params: dict[str, Any]) -> dict[str, Any]:
        product = self._product(params)
        if product is Product.SPOT:
            raise Refused(BAD_PARAMETER, "params error: category invalid")
        if params.get("symbol"):
            listing = self._symbols.find(product, str(params["symbol"]))
            listings = [] if listing is None else [listing]
        elif product is Product.LINEAR and not params.get("settleCoin"):
            raise Refused(BAD_PARAMETER, "params error: symbol or settleCoin is required")
        else:
            held = self._ledger.open_positions(member.wallet, product)
            listings = [listing for listing in held if self._is_wanted(listing, product, params)]
        at_ms = self._desk.now_ns() // _MS
        rows = [position_row(self._ledger.position(member.wallet, listing, at_ms)) for listing in listings]
        return {"category": product.value, "list": rows, "nextPageCursor": ""}

    # -- the account -----------------------------------------------------------------------------

    def _key(self, member: Member, _params: dict[str, Any]) -> dict[str, Any]:
        return {
            "id": "1",
            "note": member.name,
            "apiKey": "",
            "readOnly": 0,
            "secret": "",
            "permissions": {"ContractTrade": ["Order", "Position"], "Spot": ["SpotTrade"], "Wallet": []},
            "ips": ["*"],
            "type": 1,
            "userID": 1,
            "uta": 1,
            "isMaster": True,
            "unified": 0,
            "vipLevel": "No VIP",
            "mktMakerLevel": "0",
        }

    def _info(self, member: Member, _params: dict[str, Any]) -> dict[str, Any]:
        return {
            "marginMode": member.margin_mode,
            "unifiedMarginStatus": 5,
            "isMasterTrader": False,
            "spotHedgingStatus": "OFF",
            "dcpStatus": "ON" if member.disconnect_s else "OFF",
            "timeWindow": max(member.disconnect_s.values(), default=10),
            "smpGroup": 0,
            "updatedTime": str(self._desk.now_ns() // _MS),
        }

    def _wallet(self, member: Member, params: dict[str, Any]) -> dict[str, Any]:
        if params.get("accountType") != "UNIFIED":
            raise Refused(BAD_PARAMETER, "accountType only support UNIFIED.")
        row = self._ledger.wallet(member.wallet)
        coins = [coin for coin in str(params.get("coin") or "").split(",") if coin]
        if coins:
            row["coin"] = [coin for coin in row["coin"] if coin["coin"] in coins]
        return {"list": [row]}

    def _fees(self, _member: Member, params: dict[str, Any]) -> dict[str, Any]:
        product = self._product(params)
        listed = self._symbols.in_product(product)
        rows = [fee_row(listing) for listing in listed if self._is_wanted(listing, product, params)]
        return {"category": product.value, "list": rows}

    def _coins(self, _member: Member, _params: dict[str, Any]) -> dict[str, Any]:
        return {
            "rows": [
                {"name": coin, "coin": coin, "remainAmount": "0", "chains": []}
                for coin in sorted(self._symbols.currencies)
            ]
        }

    def _dcp_info(self, member: Member, _params: dict[str, Any]) -> dict[str, Any]:
        rows = [
            {"product": name, "dcpStatus": "ON", "timeWindow": str(seconds)}
            for name, seconds in member.disconnect_s.items()
        ]
        return {"dcpInfos": rows}

    # -- settings --------------------------------------------------------------------------------

    def _set_leverage(self, member: Member, params: dict[str, Any]) -> dict[str, Any]:
        listing = self._symbols.find(self._product(params), str(params.get("symbol") or ""))
        if listing is None or listing.is_spot:
            raise Refused(BAD_PARAMETER, "params error: symbol invalid")
        try:
            leverage = Decimal(str(params.get("buyLeverage")))
        except InvalidOperation:
            raise Refused(BAD_PARAMETER, "params error: buyLeverage invalid") from None
        if not Decimal(1) <= leverage <= Decimal(100) or str(params.get("sellLeverage")) != str(
            params["buyLeverage"]
        ):
            raise Refused(BAD_PARAMETER, "params error: buyLeverage invalid")
        account = self._desk.exchange.account(member.wallet)
        if account.leverage_of(listing.symbol) == leverage:
            raise Refused(*_ALREADY["leverage"])
        account.set_leverage(listing.symbol, leverage)
        return {}

    def _set_position_mode(self, _member: Member, params: dict[str, Any]) -> dict[str, Any]:
        if str(params.get("mode")) == "0":
            raise Refused(*_MODE_UNCHANGED)
        raise Refused(110029, "Hedge mode is not supported for this symbol.")

    def _set_isolated(self, _member: Member, params: dict[str, Any]) -> dict[str, Any]:
        if str(params.get("tradeMode")) == "0":
            raise Refused(*_ALREADY["margin"])
        raise Refused(100028, "The API cannot be accessed by unified account users.")

    def _set_margin_mode(self, member: Member, params: dict[str, Any]) -> dict[str, Any]:
        mode = str(params.get("setMarginMode") or "")
        if mode not in _MARGIN_MODES:
            raise Refused(BAD_PARAMETER, "params error: setMarginMode invalid")
        member.margin_mode = mode
        return {"reasons": []}

    def _set_dcp(self, member: Member, params: dict[str, Any]) -> dict[str, Any]:
        seconds, product = whole(params.get("timeWindow")), str(params.get("product") or "OPTIONS")
        if seconds is None or not 3 <= seconds <= 300 or product not in _DCP:
            raise Refused(BAD_PARAMETER, "params error: timeWindow must be 3 to 300")
        member.disconnect_s[product] = seconds
        return {}

    # -- inside ----------------------------------------------------------------------------------

    def _product(self, params: dict[str, Any]) -> Product:
        category = str(params.get("category") or "")
        if category not in set(Product):
            raise Refused(BAD_PARAMETER, "params error: category invalid")
        return Product(category)

    def _is_wanted(self, listing: Listing, product: Product, params: dict[str, Any]) -> bool:
        symbol, coin, base = (str(params.get(key) or "") for key in ("symbol", "settleCoin", "baseCoin"))
        return (
            listing.product is product
            and (not symbol or listing.name == symbol)
            and (not coin or listing.is_spot or listing.instrument.settle == coin)
            and (not base or listing.instrument.base == base)
        )
