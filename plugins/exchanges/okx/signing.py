"""Signatures of OKX's v5 API: HMAC-SHA256 in base64."""

from datetime import UTC, datetime
from typing import Final

from host.api import Secret

from .._shared.signing import HmacSigner

__all__ = ["Signer", "iso_time"]

_LOGIN_TARGET: Final = "GET/users/self/verify"
"""What every WebSocket login signs, after its time."""


def iso_time(time_ms: int) -> str:
    """Write a time as the REST headers have it: `2026-11-21T01:51:12.875Z`."""
    moment = datetime.fromtimestamp(time_ms // 1000, UTC)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{time_ms % 1000:03d}Z"


class Signer:
    """Signs for one API key. It neither shows nor hands out the secret."""

    __slots__ = ("_hmac", "_is_demo", "_passphrase", "api_key")

    def __init__(self, api_key: Secret, secret: Secret, passphrase: Secret, *, is_demo: bool = False) -> None:
        self.api_key = api_key
        self._passphrase = passphrase
        self._hmac = HmacSigner(secret)
        self._is_demo = is_demo

    def request(self, time: str, method: str, target: str, body: bytes = b"") -> str:
        """Sign a REST request; `target` is path and query, all byte for byte as sent."""
        return self._hmac.base64(f"{time}{method}{target}".encode() + body)

    def headers(self, time_ms: int, method: str, target: str, body: bytes = b"") -> dict[str, str]:
        """Return the headers that make a REST request a signed one, at `time_ms` of the venue's clock."""
        time = iso_time(time_ms)
        headers = {
            "OK-ACCESS-KEY": self.api_key.reveal(),
            "OK-ACCESS-SIGN": self.request(time, method, target, body),
            "OK-ACCESS-TIMESTAMP": time,
            "OK-ACCESS-PASSPHRASE": self._passphrase.reveal(),
        }
        if self._is_demo:
            headers["x-simulated-trading"] = "1"
        if body:
            headers["Content-Type"] = "application/json"
        return headers

    def login(self, time_s: int) -> dict[str, str]:
        """Return the argument of a WebSocket login, at `time_s` of the venue's clock."""
        return {
            "apiKey": self.api_key.reveal(),
            "passphrase": self._passphrase.reveal(),
            "timestamp": str(time_s),
            "sign": self._hmac.base64(f"{time_s}{_LOGIN_TARGET}".encode()),
        }

    def __repr__(self) -> str:
        return "Signer(***)"
