"""Who sends a request, and whether it still counts: key, passphrase, signature, time."""

import base64
import hashlib
import hmac
from datetime import UTC, datetime
from typing import Any, Final

from venue.protocols.accounts import Accounts, KeyedAccount
from venue.protocols.okx.refusals import Refused
from venue.protocols.requests import Raw

__all__ = ["MOST_APART_NS", "check_login", "check_time", "signed_by", "time_of", "whole_ms"]

MOST_APART_NS: Final = 30_000_000_000
"""A request may be stamped with a time this far from the venue's."""
_UNAUTHORIZED: Final = 401
_HEADERS: Final = {
    "ok-access-key": ("50103", 'Request header "OK-ACCESS-KEY" can\'t be empty.'),
    "ok-access-passphrase": ("50104", 'Request header "OK-ACCESS-PASSPHRASE" can\'t be empty.'),
    "ok-access-sign": ("50106", 'Request header "OK-ACCESS-SIGN" can\'t be empty.'),
    "ok-access-timestamp": ("50107", 'Request header "OK-ACCESS-TIMESTAMP" can\'t be empty.'),
}


def time_of(stamp: str) -> int | None:
    """Read the time of a request's header, in nanoseconds; None for anything else."""
    try:
        moment = datetime.fromisoformat(stamp.replace("Z", "+00:00"))
    except ValueError:
        return None
    if moment.tzinfo is None:
        return None
    passed = moment - datetime(1970, 1, 1, tzinfo=UTC)
    return (passed.days * 86_400 + passed.seconds) * 1_000_000_000 + passed.microseconds * 1_000


def whole_ms(value: object) -> int | None:
    """Return milliseconds that came as text or as a number; None for anything else."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    is_digits = isinstance(value, str) and value.isascii() and value.isdecimal()
    return int(str(value)) if is_digits and len(str(value)) < 20 else None


def check_time(timestamp_ns: int | None, now_ns: int) -> None:
    """Raise `Refused` unless the time of a request is near the venue's."""
    if timestamp_ns is None:
        raise Refused("50112", "Invalid OK-ACCESS-TIMESTAMP", status=_UNAUTHORIZED)
    if abs(now_ns - timestamp_ns) > MOST_APART_NS:
        raise Refused("50102", "Timestamp request expired", status=_UNAUTHORIZED)


def signed_by(accounts: Accounts, raw: Raw) -> KeyedAccount:
    """Return whose request it is, by a signature over the bytes that came. Raises `Refused`."""
    headers = raw.headers
    for name, (code, words) in _HEADERS.items():
        if not headers.get(name):
            raise Refused(code, words, status=_UNAUTHORIZED)
    account = accounts.by_key(headers["ok-access-key"])
    if account is None:
        raise Refused("50111", "Invalid OK-ACCESS-KEY", status=_UNAUTHORIZED)
    if headers["ok-access-passphrase"] != account.passphrase:
        raise Refused("50105", 'Request header "OK-ACCESS-PASSPHRASE" incorrect.', status=_UNAUTHORIZED)
    target = f"{raw.path}?{raw.query}" if raw.query else raw.path
    payload = f"{headers['ok-access-timestamp']}{raw.method}{target}".encode() + raw.body
    if not _is_signature(account, payload, headers["ok-access-sign"]):
        raise Refused("50113", "Invalid Sign", status=_UNAUTHORIZED)
    return account


def check_login(accounts: Accounts, login: Any, now_ns: int) -> KeyedAccount:
    """Return who logs in on a WebSocket; raise `Refused`. Its time is in seconds, as text or a number."""
    if not isinstance(login, dict):
        raise Refused("60013", "Invalid args")
    account = accounts.by_key(str(login.get("apiKey")))
    if account is None:
        raise Refused("60005", "Invalid apiKey")
    if str(login.get("passphrase")) != account.passphrase:
        raise Refused("60024", "Wrong passphrase")
    stamp = str(login.get("timestamp"))
    try:
        stamp_ns = int(float(stamp) * 1e9)
    except (ValueError, OverflowError):
        raise Refused("60004", "Invalid timestamp") from None
    if abs(now_ns - stamp_ns) > MOST_APART_NS:
        raise Refused("60006", "Timestamp request expired")
    if not _is_signature(account, f"{stamp}GET/users/self/verify".encode(), str(login.get("sign"))):
        raise Refused("60007", "Invalid sign")
    return account


def _is_signature(account: KeyedAccount, payload: bytes, signature: str) -> bool:
    digest = hmac.new(account.secret.encode(), payload, hashlib.sha256).digest()
    return hmac.compare_digest(base64.b64encode(digest), signature.encode())
