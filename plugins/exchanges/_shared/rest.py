"""HTTP requests over a warm pool of connections."""

import socket
import struct
import time
from collections.abc import Mapping
from typing import Any, Final

import aiohttp
from msgspec import Struct
from yarl import URL

from host.api import ExchangeError

__all__ = ["RestAnswer", "RestPool", "RestUnanswered"]

KEEPALIVE_S: Final = 60.0


class RestAnswer(Struct, frozen=True):
    """What the venue answered, whatever its status. Header names are in lower case."""

    status: int
    body: bytes
    headers: Mapping[str, str]


class RestUnanswered(ExchangeError):  # noqa: N818 - it says what is the case, like `OrderRefused`
    """No answer came. Whether the request had its effect is not known, unless `is_unsent`."""

    def __init__(self, text: str, *, is_unsent: bool) -> None:
        super().__init__(text)
        self.is_unsent = is_unsent


class RestPool:
    """Keeps connections to one host open and sends requests over them.

    Nothing is encoded, followed or tried again here: what is signed is what is sent, byte for byte.
    """

    def __init__(self, exchange: str, base_url: str, timeout_s: float, most_connections: int = 8) -> None:
        self._exchange: Final = exchange
        self._base_url: Final = base_url.rstrip("/")
        self._timeout_s: Final = timeout_s
        self._most_connections: Final = most_connections
        self._session: aiohttp.ClientSession | None = None
        self._is_closed = False

    async def request(
        self,
        method: str,
        target: str,
        *,
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
        timeout_s: float | None = None,
    ) -> RestAnswer:
        """Send one request and return the answer; raise `RestUnanswered`. `target` is path and query."""
        if self._is_closed:
            raise RestUnanswered(
                f"{self._exchange}: the connections are closed, nothing was sent", is_unsent=True
            )
        session = self._session = self._session or self._open()
        where = target.partition("?")[0]
        started_s = time.monotonic()
        try:
            async with session.request(
                method,
                URL(self._base_url + target, encoded=True),
                data=body,
                headers=dict(headers or {}),
                allow_redirects=False,
                timeout=aiohttp.ClientTimeout(total=timeout_s or self._timeout_s),
            ) as response:
                content = await response.read()
                answered = {name.lower(): value for name, value in response.headers.items()}
                return RestAnswer(response.status, content, answered)
        except aiohttp.ClientConnectorError as error:
            raise RestUnanswered(
                f"{self._exchange}: cannot connect to {self._base_url}: {error.os_error}", is_unsent=True
            ) from error
        except TimeoutError as error:
            waited_s = time.monotonic() - started_s
            raise RestUnanswered(
                f"{self._exchange}: {method} {where}: no answer within {waited_s:.1f} s", is_unsent=False
            ) from error
        except aiohttp.ClientError as error:
            raise RestUnanswered(
                f"{self._exchange}: {method} {where}: no answer: {type(error).__name__}", is_unsent=False
            ) from error

    async def close(self) -> None:
        """Close the connections. No effect twice."""
        self._is_closed = True
        if self._session is not None:
            await self._session.close()

    def _open(self) -> aiohttp.ClientSession:
        connector = aiohttp.TCPConnector(
            limit=self._most_connections, keepalive_timeout=KEEPALIVE_S, socket_factory=_drops_unsent
        )
        return aiohttp.ClientSession(connector=connector)


def _drops_unsent(address: tuple[Any, ...]) -> socket.socket:
    """Make a socket whose unsent bytes the kernel drops when this process is killed: it may carry orders."""
    family, kind, protocol, _, _ = address
    sock = socket.socket(family, kind, protocol)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    return sock
