"""Spot user data on the WebSocket API: sessions, subscriptions, and events to whose they are."""

from typing import Any, ClassVar

import orjson

from venue.protocols.accounts import KeyedAccount
from venue.protocols.binance.errors import BinanceRefusal
from venue.protocols.binance.params import Params
from venue.protocols.binance.product import Product
from venue.protocols.binance.security import check_signature, check_time, frame_payload, key_owner
from venue.protocols.binance.sessions import Session, SessionKind
from venue.protocols.connection import Connection
from venue.protocols.front import Desk
from venue.protocols.requests import Request

__all__ = ["UserData"]


class UserData:
    """Who listens to which account, and how they came to."""

    METHODS: ClassVar = frozenset(
        {
            "userDataStream.subscribe",
            "userDataStream.subscribe.signature",
            "userDataStream.unsubscribe",
            "session.logon",
            "session.logout",
            "session.status",
        }
    )

    def __init__(self, desk: Desk, product: Product) -> None:
        self._desk = desk
        self._product = product
        self._listeners: dict[Connection, None] = {}

    def control(self, request: Request, params: Params, connection: Connection, session: Session) -> Any:
        """Carry out a frame about the session or its subscriptions; raises `BinanceRefusal`."""
        if request.method == "session.logon":
            return self._log_on(request, params, session)
        if request.method == "session.logout":
            session.logged_in = session.authorized_ms = None
            return self._status(session)
        if request.method == "session.status":
            return self._status(session)
        if session.kind is not SessionKind.SPOT_API or request.method not in self.METHODS:
            raise BinanceRefusal(-1000, f"Unknown method {request.method!r}.")
        if request.method == "userDataStream.unsubscribe":
            return self._unsubscribe(params, connection, session)
        account = session.logged_in
        if request.method == "userDataStream.subscribe.signature":
            account = self._owner(request, params)
        if account is None:
            raise BinanceRefusal(-2015, "Invalid API-key, IP, or permissions for action.", status=401)
        return self._subscribe(account, connection, session)

    def tell(self, account: str, event: dict[str, Any], symbol: str) -> None:
        """Send an event to every subscription of an account."""
        for connection in self._listeners:
            for number, owner in connection.state.subscriptions.items():
                if owner.name == account:
                    told = orjson.dumps({"subscriptionId": number, "event": event})
                    connection.account = account
                    connection.push(told, "private", symbol)

    def closed(self, connection: Connection) -> None:
        """Forget a connection."""
        self._listeners.pop(connection, None)

    def _subscribe(self, account: KeyedAccount, connection: Connection, session: Session) -> Any:
        if any(owner.name == account.name for owner in session.subscriptions.values()):
            raise BinanceRefusal(-2035, "User data stream subscription already active.")
        self._product.open_wallet(account)
        number = session.next_subscription
        session.next_subscription += 1
        session.subscriptions[number] = account
        connection.account = account.name
        self._listeners[connection] = None
        return {"subscriptionId": number}

    def _unsubscribe(self, params: Params, connection: Connection, session: Session) -> Any:
        number = params.integer("subscriptionId")
        if number is None:
            session.subscriptions.clear()
        else:
            session.subscriptions.pop(number, None)
        if not session.subscriptions:
            self._listeners.pop(connection, None)
        return {}

    def _log_on(self, request: Request, params: Params, session: Session) -> Any:
        account = key_owner(self._desk.accounts, params.text("apiKey"))
        if not account.public_key:
            raise BinanceRefusal(-4056, "HMAC_SHA256 API key is not supported.")
        session.logged_in = self._owner(request, params)
        session.authorized_ms = self._desk.now_ns() // 1_000_000
        return self._status(session)

    def _owner(self, request: Request, params: Params) -> KeyedAccount:
        account = key_owner(self._desk.accounts, params.text("apiKey"))
        params.required("timestamp")
        check_signature(account, *frame_payload(request.params))
        check_time(request, params, self._desk.arrived_ns(request))
        return account

    def _status(self, session: Session) -> dict[str, Any]:
        return {
            "apiKey": None if session.logged_in is None else session.logged_in.api_key,
            "authorizedSince": session.authorized_ms,
            "connectedSince": session.connected_ms,
            "returnRateLimits": session.is_limits_shown,
            "serverTime": self._desk.now_ns() // 1_000_000,
            "userDataStream": bool(session.subscriptions),
        }
