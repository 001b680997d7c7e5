"""Signed requests, as the WebSocket API and as REST want them.

Both sign the same text: `name=value` joined by `&`. The WebSocket API demands the names in order and
the key among them; REST takes any order. So parameters are always made in order, and never sorted.
"""

from collections.abc import Mapping
from typing import Final
from urllib.parse import quote

import orjson

from host.api import Secret

from .._shared.signing import HmacSigner

__all__ = ["Params", "RequestSigner", "query", "ws_text"]

Params = dict[str, str | int]
"""Parameters of a request in the order of their names (code points). Booleans are "true" and "false"."""


def query(params: Mapping[str, str | int]) -> str:
    """Return parameters as a query string; what is not a letter, digit or one of `-._~` is escaped."""
    return "&".join([f"{name}={quote(str(value), safe='')}" for name, value in params.items()])


def ws_text(params: Mapping[str, str | int]) -> str:
    """Return what the WebSocket API has signed: all parameters in the order of their names, not escaped."""
    return "&".join([f"{name}={value}" for name, value in params.items()])


class RequestSigner:
    """Signs the requests of one key."""

    def __init__(self, api_key: Secret, api_secret: Secret) -> None:
        self._key: Final = api_key
        self._signer: Final = HmacSigner(api_secret)

    @property
    def headers(self) -> dict[str, str]:
        """The header that REST requests carry."""
        return {"X-MBX-APIKEY": self._key.reveal()}

    def rest_query(self, params: Params) -> str:
        """Return the query string of a signed REST request: parameters and, last, their signature."""
        payload = query(params)
        return f"{payload}&signature={self._signer.hex(payload.encode())}"

    def ws_request(self, request_id: str, method: str, params: Params) -> bytes:
        """Return a signed request of the WebSocket API."""
        signed: Params = {"apiKey": self._key.reveal(), **params}
        signed["signature"] = self._signer.hex(ws_text(signed).encode())
        return orjson.dumps({"id": request_id, "method": method, "params": signed})
