"""Requests on a WebSocket that are answered by id: logging in, subscribing, unsubscribing."""

import asyncio
from collections.abc import Sequence
from typing import Any, Final

import msgspec

from host.api import ExchangeError

from .._shared.venue_clock import VenueClock
from .._shared.verdicts import Action
from .._shared.websocket import NotConnected, WebSocket
from .errors import ERRORS
from .frames import Head
from .signing import Signer

__all__ = ["HEARTBEAT_TEXT", "MOST_TOPICS", "Conversation"]

HEARTBEAT_TEXT: Final = b'{"op":"ping"}'
MOST_TOPICS: Final = 10
"""Topics of one subscription: spot takes no more."""
_LOGIN_VALID_MS: Final = 10_000


class Conversation:
    """Asks on a connection that is being opened, and waits for the answers.

    The venue repeats the id of a request, but for logins: their answer is told by its `op`.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._number = 0
        self._waiting: dict[str, asyncio.Future[Head]] = {}

    def take(self, head: Head) -> None:
        """Hand an answer to whoever waits for it; one that nobody waits for is dropped."""
        waiting = self._waiting.get(head.req_id or head.op)
        if waiting is not None and not waiting.done():
            waiting.set_result(head)

    async def log_in(self, socket: WebSocket, signer: Signer, clock: VenueClock) -> None:
        """Log in; raise `NotConnected`, or `ExchangeError` where the key will not do."""
        expires_ms = clock.loose_window(_LOGIN_VALID_MS).last_ms
        args = [signer.api_key.reveal(), expires_ms, signer.login(expires_ms)]
        head = await self._ask(socket, {"op": "auth", "args": args}, "auth")
        if head.success is False or head.ret_code:
            text = f"{self._name}: the login was refused: {head.ret_code} {head.ret_msg or head.ret_text}"
            verdict = ERRORS.verdict(head.ret_code)
            if verdict.is_clock:
                clock.doubt()
            if verdict.action is Action.FATAL:
                raise ExchangeError(f"{text}; correct params.api_key and params.api_secret")
            raise NotConnected(text)

    async def subscribe(self, socket: WebSocket, topics: Sequence[str]) -> None:
        """Subscribe to topics; raise `NotConnected` where the venue refuses one."""
        for start in range(0, len(topics), MOST_TOPICS):
            part = list(topics[start : start + MOST_TOPICS])
            self._number += 1
            request_id = f"s{self._number}"
            head = await self._ask(
                socket, {"req_id": request_id, "op": "subscribe", "args": part}, request_id
            )
            if head.success is False:
                raise NotConnected(f"{self._name}: {', '.join(part)} was refused: {head.ret_msg}")

    def request(self, op: str, topics: Sequence[str]) -> bytes:
        """Return a request whose answer nobody waits for."""
        self._number += 1
        return msgspec.json.encode({"req_id": f"r{self._number}", "op": op, "args": list(topics)})

    async def _ask(self, socket: WebSocket, message: dict[str, Any], key: str) -> Head:
        waiting: asyncio.Future[Head] = asyncio.get_running_loop().create_future()
        self._waiting[key] = waiting
        try:
            socket.send(msgspec.json.encode(message))
            return await waiting
        finally:
            if self._waiting.get(key) is waiting:
                del self._waiting[key]
