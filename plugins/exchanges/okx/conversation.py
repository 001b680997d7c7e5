"""Requests on a WebSocket that is being opened: logging in, subscribing, and waiting for the answers."""

import asyncio
from collections.abc import Sequence
from typing import Final, Protocol

import orjson

from host.api import ExchangeError

from .._shared.venue_clock import VenueClock
from .._shared.verdicts import Action
from .._shared.websocket import NotConnected, WebSocket
from .errors import ERRORS, OK, code_number
from .frames import PublicHead
from .signing import Signer

__all__ = ["PING", "PONG", "Conversation", "EventMessage", "subscription"]

PING: Final = b"ping"
PONG: Final = b"pong"
_MOST_ARGS: Final = 100
"""Subscriptions in one request, which may be 64 KB long."""
_S: Final = 1_000_000_000


class EventMessage(Protocol):
    """What both kinds of message have that tells of a request."""

    event: str
    code: str
    msg: str
    arg: PublicHead


def subscription(op: str, args: Sequence[dict[str, str]]) -> bytes:
    """Encode a `subscribe` or an `unsubscribe`."""
    return orjson.dumps({"op": op, "args": list(args)})


class Conversation:
    """Asks on a connection and waits for the answers, which carry no ids: one kind at a time."""

    def __init__(self, name: str) -> None:
        self._name: Final = name
        self._login: asyncio.Future[EventMessage] | None = None
        self._missing: set[tuple[str, str]] = set()
        """Subscriptions that are not confirmed: channel and instrument."""
        self._subscribed: asyncio.Future[str] | None = None

    def take(self, message: EventMessage) -> bool:
        """Take an answer; return False when it is none, or one that nobody waits for."""
        event = message.event
        if event == "login" or (event == "error" and self._waits_for_login):
            if self._login is None or self._login.done():
                return False
            self._login.set_result(message)
            return True
        if self._subscribed is None or self._subscribed.done():
            return event in ("subscribe", "unsubscribe")
        if event == "subscribe":
            self._missing.discard((message.arg.channel, message.arg.inst_id))
            if not self._missing:
                self._subscribed.set_result("")
            return True
        if event == "error":
            self._subscribed.set_result(f"{message.code} {message.msg}")
            return True
        return event == "unsubscribe"

    @property
    def _waits_for_login(self) -> bool:
        return self._login is not None and not self._login.done()

    async def log_in(self, socket: WebSocket, signer: Signer, clock: VenueClock, now_ns: int) -> None:
        """Log in; raise `NotConnected`, or `ExchangeError` where the key will not do."""
        self._login = asyncio.get_running_loop().create_future()
        login = signer.login(clock.time_ns(now_ns) // _S)
        socket.send(orjson.dumps({"op": "login", "args": [login]}))
        answer = await self._login
        code = code_number(answer.code)
        if answer.event == "login" and code == OK:
            return
        text = f"{self._name}: the login was refused: {answer.code} {answer.msg}"
        verdict = ERRORS.verdict(code)
        if verdict.is_clock:
            clock.doubt()
        if verdict.action is Action.FATAL:
            raise ExchangeError(
                f"{text}; correct params.api_key, params.api_secret, params.passphrase and params.environment"
            )
        raise NotConnected(text)

    async def subscribe(self, socket: WebSocket, args: Sequence[dict[str, str]]) -> None:
        """Subscribe; raise `NotConnected` where the venue refuses one."""
        for start in range(0, len(args), _MOST_ARGS):
            part = args[start : start + _MOST_ARGS]
            self._missing = {(arg["channel"], arg.get("instId", "")) for arg in part}
            self._subscribed = asyncio.get_running_loop().create_future()
            socket.send(subscription("subscribe", part))
            refused = await self._subscribed
            if refused:
                raise NotConnected(f"{self._name}: a subscription was refused: {refused}")
