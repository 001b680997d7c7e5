"""Signatures of Bybit's v5 API: HMAC-SHA256 in lower-case hex."""

from host.api import Secret

from .._shared.signing import HmacSigner, mask

__all__ = ["Signer"]

_LOGIN_TEXT = b"GET/realtime"
"""What every WebSocket login signs, followed by its expiry."""


class Signer:
    """Signs for one API key. It neither shows nor hands out the secret."""

    __slots__ = ("_hmac", "api_key")

    def __init__(self, api_key: Secret, secret: Secret) -> None:
        self.api_key = api_key
        self._hmac = HmacSigner(secret)

    def request(self, timestamp_ms: int, window_ms: int, payload: str) -> str:
        """Sign a REST request; `payload` is the query string or the JSON body, byte for byte as sent."""
        return self._hmac.hex(f"{timestamp_ms}{self.api_key.reveal()}{window_ms}{payload}".encode())

    def login(self, expires_ms: int) -> str:
        """Sign a WebSocket login that the venue accepts until `expires_ms` (its clock)."""
        return self._hmac.hex(b"%b%d" % (_LOGIN_TEXT, expires_ms))

    def headers(self, timestamp_ms: int, window_ms: int, payload: str) -> dict[str, str]:
        """Return the headers that make a REST request a signed one."""
        return {
            "X-BAPI-API-KEY": self.api_key.reveal(),
            "X-BAPI-TIMESTAMP": str(timestamp_ms),
            "X-BAPI-RECV-WINDOW": str(window_ms),
            "X-BAPI-SIGN": self.request(timestamp_ms, window_ms, payload),
        }

    def masked(self, text: str) -> str:
        """Return what the venue said without the API key: to a wrong signature it answers with what it signed."""
        return mask(text, self.api_key)
