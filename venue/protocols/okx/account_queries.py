"""Private questions and settings: orders, fills, balances, positions, leverage, fees."""

from collections.abc import Callable, Iterable, Mapping
from decimal import Decimal, InvalidOperation
from typing import Any, Final

from host.api import OrderFilled, OrderStatus
from venue.protocols.front import Desk
from venue.protocols.okx.ledger_view import LedgerView
from venue.protocols.okx.market_queries import MarketQueries
from venue.protocols.okx.members import Member
from venue.protocols.okx.names import PRODUCTS, Listing, Symbols, text
from venue.protocols.okx.refusals import Refused
from venue.protocols.okx.rows import group_of
from venue.records import OrderRecord

__all__ = ["AccountQueries"]

_MS: Final = 1_000_000
_PAGE: Final = 100
_DONE_STATES: Final = {
    "filled": (OrderStatus.FILLED,),
    "canceled": (OrderStatus.CANCELLED, OrderStatus.EXPIRED),
}
_Answer = Callable[[Member, Mapping[str, Any]], list[Any]]


class AccountQueries:
    """Answers what an account may ask about itself."""

    def __init__(self, desk: Desk, symbols: Symbols, ledger: LedgerView, market: MarketQueries) -> None:
        self._desk: Final = desk
        self._symbols: Final = symbols
        self._ledger: Final = ledger
        self._answers: Final[Mapping[str, _Answer]] = {
            "GET /api/v5/trade/order": self._order,
            "GET /api/v5/trade/orders-pending": self._open_orders,
            "GET /api/v5/trade/orders-history": self._done_orders,
            "GET /api/v5/trade/orders-history-archive": self._done_orders,
            "GET /api/v5/trade/fills": self._fills,
            "GET /api/v5/trade/fills-history": self._fills,
            "GET /api/v5/account/balance": self._balance,
            "GET /api/v5/account/positions": self._positions,
            "GET /api/v5/account/config": self._config,
            "GET /api/v5/account/instruments": lambda _, params: market.instruments(params),
            "GET /api/v5/account/trade-fee": self._fees,
            "GET /api/v5/account/leverage-info": self._leverage,
            "GET /api/v5/asset/currencies": lambda _member, _params: self._currencies(),
            "POST /api/v5/account/set-leverage": self._set_leverage,
            "POST /api/v5/account/set-position-mode": self._set_position_mode,
        }

    def answer(self, method: str, member: Member, params: Mapping[str, Any]) -> list[Any]:
        """Return the rows that answer a call; raise `Refused`."""
        answer = self._answers.get(method)
        if answer is None:
            raise Refused("50404", f"this venue does not serve {method}", status=404)
        return answer(member, params)

    # -- orders and fills ------------------------------------------------------------------------

    def _order(self, member: Member, params: Mapping[str, Any]) -> list[Any]:
        listing = self._listing(params)
        order_id, client_id = str(params.get("ordId") or ""), str(params.get("clOrdId") or "")
        if not order_id and not client_id:
            raise Refused("51003", "Either client order ID or order ID is required")
        record = self._ledger.find(member.wallet, listing, order_id, client_id)
        if record is None:
            raise Refused("51603", "Order does not exist")
        return self._ledger.order_rows(member.wallet, [record])

    def _open_orders(self, member: Member, params: Mapping[str, Any]) -> list[Any]:
        return self._page_of_orders(member, params, lambda record: record.order.is_open)

    def _done_orders(self, member: Member, params: Mapping[str, Any]) -> list[Any]:
        state = params.get("state")
        wanted = (
            _DONE_STATES.get(str(state)) if state else (*_DONE_STATES["filled"], *_DONE_STATES["canceled"])
        )
        if wanted is None:
            raise Refused("51000", "Parameter state error")
        return self._page_of_orders(
            member, params, lambda record: not record.order.is_open and record.status in wanted
        )

    def _page_of_orders(
        self, member: Member, params: Mapping[str, Any], wants: Callable[[OrderRecord], bool]
    ) -> list[Any]:
        found = (
            record
            for record in self._ledger.orders(member.wallet)
            if wants(record) and self._is_wanted(self._symbols.of(record.order.symbol), params)
        )
        return _page(self._ledger.order_rows(member.wallet, found), params, "ordId")

    def _fills(self, member: Member, params: Mapping[str, Any]) -> list[Any]:
        begin, end = _whole(params.get("begin")), _whole(params.get("end"))
        order_id = str(params.get("ordId") or "")

        def is_wanted(fill: OrderFilled, listing: Listing) -> bool:
            at_ms = self._desk.shown_ns(fill.ts_ns) // _MS
            return (
                (begin is None or at_ms >= begin)
                and (end is None or at_ms <= end)
                and self._is_wanted(listing, params)
            )

        rows = self._ledger.executions(member.wallet, is_wanted)
        return _page([row for row in rows if not order_id or row["ordId"] == order_id], params, "billId")

    # -- money -----------------------------------------------------------------------------------

    def _balance(self, member: Member, params: Mapping[str, Any]) -> list[Any]:
        row = self._ledger.balance(member.wallet, self._now_ms())
        wanted = str(params.get("ccy") or "")
        if wanted:
            row["details"] = [item for item in row["details"] if item["ccy"] in wanted.split(",")]
        return [row]

    def _positions(self, member: Member, params: Mapping[str, Any]) -> list[Any]:
        wanted = str(params.get("instId") or "")
        rows = self._ledger.positions(member, self._now_ms())
        return [row for row in rows if not wanted or row["instId"] in wanted.split(",")]

    def _currencies(self) -> list[Any]:
        return [
            {
                "ccy": currency,
                "name": currency,
                "chain": f"{currency}-Simulated",
                "canDep": False,
                "canWd": False,
                "canInternal": False,
                "mainNet": True,
                "minFee": "0",
                "maxFee": "0",
                "minWd": "0",
                "maxWd": "0",
                "wdTickSz": "8",
                "logoLink": "",
            }
            for currency in sorted(self._symbols.currencies)
        ]

    # -- settings --------------------------------------------------------------------------------

    def _config(self, member: Member, _params: Mapping[str, Any]) -> list[Any]:
        return [
            {
                "uid": member.name,
                "mainUid": member.name,
                "acctLv": "2",
                "posMode": "net_mode",
                "autoLoan": False,
                "greeksType": "PA",
                "level": "Lv1",
                "levelTmp": "",
                "ctIsoMode": "automatic",
                "mgnIsoMode": "automatic",
                "perm": "read_only,trade",
                "roleType": "0",
                "opAuth": "1",
                "ip": "",
                "label": member.name,
                "kycLv": "3",
            }
        ]

    def _fees(self, _member: Member, params: Mapping[str, Any]) -> list[Any]:
        product = str(params.get("instType") or "")
        if product not in PRODUCTS:
            raise Refused("51000", "Parameter instType error")
        rates: dict[str, tuple[str, str]] = {}
        family = str(params.get("instFamily") or params.get("uly") or "")
        for listing in self._symbols.in_product(product):
            if family not in ("", listing.family):
                continue
            item = listing.instrument
            rates.setdefault(group_of(listing), (text(-item.maker_fee), text(-item.taker_fee)))
        none = ("", "")
        maker, taker = rates.get("3" if product == "SWAP" else "1", none)
        maker_u, taker_u = rates.get("2", none)
        return [
            {
                "category": "1",
                "delivery": "",
                "exercise": "",
                "instType": product,
                "level": "Lv1",
                "maker": maker,
                "taker": taker,
                "makerU": maker_u,
                "takerU": taker_u,
                "makerUSDC": "",
                "takerUSDC": "",
                "feeGroup": [
                    {"groupId": group, "maker": each[0], "taker": each[1]} for group, each in rates.items()
                ],
                "fiat": [],
                "ts": str(self._now_ms()),
            }
        ]

    def _leverage(self, member: Member, params: Mapping[str, Any]) -> list[Any]:
        mode, account = str(params.get("mgnMode") or "cross"), self._desk.exchange.account(member.wallet)
        listings = [self._listing({"instId": name}) for name in str(params.get("instId") or "").split(",")]
        return [_leverage_row(each.name, mode, account.leverage_of(each.symbol)) for each in listings]

    def _set_leverage(self, member: Member, params: Mapping[str, Any]) -> list[Any]:
        listing, mode = self._listing(params), str(params.get("mgnMode") or "")
        if mode not in ("cross", "isolated"):
            raise Refused("51000", "Parameter mgnMode error")
        try:
            leverage = Decimal(str(params.get("lever")))
        except InvalidOperation:
            raise Refused("51000", "Parameter lever error") from None
        if not (leverage.is_finite() and 0 < leverage <= 100):
            raise Refused("59102", "Leverage exceeds the maximum limit")
        self._desk.exchange.account(member.wallet).set_leverage(listing.symbol, leverage)
        return [_leverage_row(listing.name, mode, leverage)]

    def _set_position_mode(self, _member: Member, params: Mapping[str, Any]) -> list[Any]:
        if params.get("posMode") != "net_mode":
            raise Refused("51000", "Parameter posMode error: this venue has net positions alone")
        return [{"posMode": "net_mode"}]

    # -- inside ----------------------------------------------------------------------------------

    def _listing(self, params: Mapping[str, Any]) -> Listing:
        listing = self._symbols.find(params.get("instId"))
        if listing is None:
            raise Refused("51001", "Instrument ID doesn't exist.")
        return listing

    def _is_wanted(self, listing: Listing, params: Mapping[str, Any]) -> bool:
        product, name = params.get("instType"), params.get("instId")
        return product in (None, "", "ANY", listing.product) and name in (None, "", listing.name)

    def _now_ms(self) -> int:
        return self._desk.now_ns() // _MS


def _leverage_row(name: str, mode: str, leverage: Decimal) -> dict[str, str]:
    return {"instId": name, "mgnMode": mode, "posSide": "net", "lever": text(leverage)}


def _page(rows: Iterable[dict[str, Any]], params: Mapping[str, Any], cursor: str) -> list[dict[str, Any]]:
    """Return one page of rows, newest first: those older than `after`, newer than `before`."""
    after, before, most = (_whole(params.get(name)) for name in ("after", "before", "limit"))
    wanted = [
        row
        for row in rows
        if (after is None or int(row[cursor]) < after) and (before is None or int(row[cursor]) > before)
    ]
    return wanted[: _PAGE if most is None else min(most, _PAGE)]


def _whole(value: object) -> int | None:
    digits = str(value)
    return int(digits) if digits.isascii() and digits.isdecimal() and len(digits) < 25 else None
