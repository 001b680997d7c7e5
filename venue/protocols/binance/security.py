"""Who sent a request, and whether it is theirs and in time: keys, signatures, timestamps."""

import base64
import binascii
import hmac
from collections.abc import Mapping
from hashlib import sha256
from typing import Any, Final
from urllib.parse import unquote

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from venue.protocols.accounts import Accounts, KeyedAccount
from venue.protocols.binance.errors import BinanceRefusal, bad_signature, missing
from venue.protocols.binance.params import Params, text_of
from venue.protocols.requests import Raw, Request

__all__ = ["DEFAULT_WINDOW_MS", "check_time", "frame_payload", "http_payload", "key_owner", "read_times"]

DEFAULT_WINDOW_MS: Final = 5000
MAX_WINDOW_MS: Final = 60_000
AHEAD_NS: Final = 1_000_000_000
"""A timestamp may lie less than this in the venue's future."""
_MICROSECONDS: Final = 10**15
"""A timestamp from here on counts microseconds: in milliseconds it would be the year 33658."""


def key_owner(accounts: Accounts, api_key: str) -> KeyedAccount:
    """Return whose key this is; raise for no key and for one that nobody has."""
    if not api_key:
        raise BinanceRefusal(-2014, "API-key format invalid.", status=401)
    account = accounts.by_key(api_key)
    if account is None:
        raise BinanceRefusal(-2015, "Invalid API-key, IP, or permissions for action.", status=401)
    return account


def check_signature(account: KeyedAccount, payload: bytes, signature: str) -> None:
    """Raise unless `signature` is the account's for `payload`."""
    if not signature:
        raise missing("signature")
    if account.public_key:
        key = load_pem_public_key(account.public_key.encode())
        try:
            assert isinstance(key, Ed25519PublicKey), "settings hold Ed25519 keys"
            key.verify(base64.b64decode(signature, validate=True), payload)
        except (InvalidSignature, binascii.Error):
            raise bad_signature() from None
        return
    expected = hmac.new(account.secret.encode(), payload, sha256).hexdigest()
    if not hmac.compare_digest(expected.encode(), signature.lower().encode()):
        raise bad_signature()


def http_payload(raw: Raw) -> tuple[bytes, str]:
    """Return the signed bytes of an HTTP request, query then body, and the signature they carry."""
    query, in_query = _without_signature(raw.query)
    body, in_body = _without_signature(raw.body.decode(errors="surrogateescape"))
    return (query + body).encode(errors="surrogateescape"), unquote(in_query or in_body)


def frame_payload(params: Mapping[str, Any]) -> tuple[bytes, str]:
    """Return the signed bytes of a frame's parameters, sorted by name, and their signature."""
    signed = "&".join(f"{name}={text_of(params[name])}" for name in sorted(params) if name != "signature")
    return signed.encode(), text_of(params.get("signature", ""))


def read_times(request: Request, params: Params) -> None:
    """Note in `request` which time and validity window it carries, where they can be read."""
    timestamp = params.text("timestamp")
    if not timestamp.isdigit():
        return
    value = int(timestamp)
    request.timestamp_ns = value * 1_000 if value >= _MICROSECONDS else value * 1_000_000
    try:
        window_ms = float(params.text("recvWindow", str(DEFAULT_WINDOW_MS)))
    except ValueError:
        return
    request.valid_ns = int(window_ms * 1e6)


def check_time(request: Request, params: Params, now_ns: int) -> None:
    """Raise unless the request's timestamp is there and `now_ns` lies within its window."""
    params.required("timestamp")
    window = params.decimal("recvWindow")
    if window is not None and window > MAX_WINDOW_MS:
        raise BinanceRefusal(-1131, "recvWindow must be less than 60000")
    timestamp_ns, valid_ns = request.timestamp_ns, request.valid_ns
    if timestamp_ns is None or valid_ns is None:
        raise missing("timestamp")
    if timestamp_ns >= now_ns + AHEAD_NS:
        raise BinanceRefusal(-1021, "Timestamp for this request was 1000ms ahead of the server's time.")
    if now_ns > timestamp_ns + valid_ns:
        raise late()


def late() -> BinanceRefusal:
    """Return the refusal of a request whose window has passed."""
    return BinanceRefusal(-1021, "Timestamp for this request is outside of the recvWindow.")


def _without_signature(text: str) -> tuple[str, str]:
    if "signature=" not in text:
        return text, ""
    parts = text.split("&")
    signature = next((part.removeprefix("signature=") for part in parts if part.startswith("signature=")), "")
    return "&".join(part for part in parts if not part.startswith("signature=")), signature
