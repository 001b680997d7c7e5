"""Listen keys of the futures' user data: made, kept alive, run out, and who listens by them."""

from secrets import token_hex
from typing import Any, Final

import orjson

from venue.protocols.accounts import KeyedAccount
from venue.protocols.binance.errors import BinanceRefusal
from venue.protocols.binance.product import Call, Endpoint, Security
from venue.protocols.binance.sessions import Session
from venue.protocols.connection import Connection
from venue.protocols.front import Desk
from venue.protocols.requests import Kind

__all__ = ["ListenKeys"]

LIFE_NS: Final = 60 * 60 * 1_000_000_000
"""A key that is not kept alive runs out after this."""


class ListenKeys:
    """One key per account; asking again returns the same one and extends it."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._keys: dict[str, tuple[str, int]] = {}
        self._listeners: dict[Connection, None] = {}

    def endpoints(self) -> tuple[Endpoint, ...]:
        """Return what can be asked for: with the key alone, unsigned."""
        key, login, path = Security.KEY, Kind.LOGIN, "/fapi/v1/listenKey"
        return (
            Endpoint("userDataStream.start", login, key, self._start, 1, (f"POST {path}",)),
            Endpoint("userDataStream.ping", login, key, self._keep_alive, 1, (f"PUT {path}",)),
            Endpoint("userDataStream.stop", login, key, self._stop, 1, (f"DELETE {path}",)),
        )

    def listen(self, connection: Connection, key: str) -> None:
        """Send a connection what belongs to a key, as long as the key lives."""
        self._listeners[connection] = None
        account = self._account_of(key)
        if account:
            connection.account = account

    def change(self, connection: Connection, keys: list[str], *, is_added: bool) -> None:
        """Listen by more keys on a connection, or by fewer."""
        session: Session = connection.state
        others = [key for key in session.listen_keys if key not in keys]
        session.listen_keys = [*others, *keys] if is_added else others
        for key in session.listen_keys:
            self.listen(connection, key)

    def forget(self, connection: Connection) -> None:
        """Send a connection nothing more."""
        self._listeners.pop(connection, None)

    def tell(self, account: str, event: dict[str, Any], symbol: str) -> None:
        """Send an event to everybody who listens to an account."""
        if not self._listeners:
            return
        self._expire()
        key, _ = self._keys.get(account, ("", 0))
        if not key:
            return
        plain = orjson.dumps(event)
        for connection in self._listeners:
            session: Session = connection.state
            if key in session.listen_keys:
                wrapped = b'{"stream":"%s","data":%s}' % (key.encode(), plain)
                connection.push(wrapped if session.is_combined else plain, "private", symbol)

    async def _start(self, call: Call) -> Any:
        assert call.account is not None, "the endpoint asks for a key"
        self._expire()
        key, _ = self._keys.get(call.account.name, (token_hex(32), 0))
        self._keys[call.account.name] = (key, self._desk.now_ns() + LIFE_NS)
        return {"listenKey": key}

    async def _keep_alive(self, call: Call) -> Any:
        key = self._own(call.account)
        assert call.account is not None, "the endpoint asks for a key"
        self._keys[call.account.name] = (key, self._desk.now_ns() + LIFE_NS)
        return {"listenKey": key}

    async def _stop(self, call: Call) -> Any:
        self._own(call.account)
        assert call.account is not None, "the endpoint asks for a key"
        del self._keys[call.account.name]
        return {}

    def _own(self, account: KeyedAccount | None) -> str:
        self._expire()
        key, _ = self._keys.get("" if account is None else account.name, ("", 0))
        if not key:
            raise BinanceRefusal(-1125, "This listenKey does not exist.")
        return key

    def _account_of(self, key: str) -> str:
        return next((name for name, (known, _) in self._keys.items() if known == key), "")

    def _expire(self) -> None:
        now_ns = self._desk.now_ns()
        for name, (key, until_ns) in list(self._keys.items()):
            if now_ns < until_ns:
                continue
            del self._keys[name]
            event = {"e": "listenKeyExpired", "E": now_ns // 1_000_000, "listenKey": key}
            for connection in self._listeners:
                if key in connection.state.listen_keys:
                    connection.push(orjson.dumps(event), "private")
