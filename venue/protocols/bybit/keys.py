"""Who sends a request, and whether it still counts: key, signature, time."""

import hashlib
import hmac

from venue.protocols.accounts import Accounts, KeyedAccount
from venue.protocols.bybit.refusals import BAD_KEY, BAD_PARAMETER, BAD_SIGN, BAD_TIME, Refused
from venue.protocols.requests import Raw

__all__ = ["DEFAULT_WINDOW_MS", "check_login", "check_time", "signed_by", "whole"]

DEFAULT_WINDOW_MS = 5_000
_AHEAD_MS = 1_000
"""A request may be stamped with a time this far in the venue's future."""


def whole(text: object) -> int | None:
    """Return a whole number that came as text or as a number; None for anything else."""
    if isinstance(text, int) and not isinstance(text, bool):
        return text
    return int(text) if isinstance(text, str) and text.strip().isdecimal() else None


def check_time(timestamp_ms: int | None, window_ms: int, now_ms: int) -> None:
    """Raise `Refused` unless `server - recv_window <= timestamp < server + 1000`."""
    if timestamp_ms is None:
        raise Refused(BAD_PARAMETER, "Invalid timestamp")
    if not now_ms - window_ms <= timestamp_ms < now_ms + _AHEAD_MS:
        raise Refused(
            BAD_TIME,
            "invalid request, please check your server timestamp or recv_window param. "
            f"req_timestamp[{timestamp_ms}],server_timestamp[{now_ms}],recv_window[{window_ms}]",
        )


def signed_by(accounts: Accounts, raw: Raw) -> KeyedAccount:
    """Return whose request it is, by a signature over the bytes that came. Raises `Refused`."""
    headers = raw.headers
    account = accounts.by_key(headers.get("x-bapi-api-key", ""))
    if account is None:
        raise Refused(BAD_KEY, "API key is invalid.")
    payload = raw.query if raw.method == "GET" else raw.body.decode(errors="replace")
    stamp, window = headers.get("x-bapi-timestamp", ""), headers.get("x-bapi-recv-window", "")
    text = f"{stamp}{account.api_key}{window}{payload}"
    if not _is_signature(account, text, headers.get("x-bapi-sign", "")):
        raise Refused(BAD_SIGN, f"error sign! origin_string[{text}]")
    return account


def check_login(accounts: Accounts, args: object, now_ms: int) -> KeyedAccount:
    """Return who logs in on a WebSocket; raise `Refused`. The expiry must lie in the future."""
    if not isinstance(args, list) or len(args) != 3:
        raise Refused(BAD_PARAMETER, "Params Error")
    key, expires, signature = args
    account = accounts.by_key(str(key))
    if account is None:
        raise Refused(BAD_KEY, "API key is invalid.")
    expires_ms = whole(expires)
    if expires_ms is None or expires_ms <= now_ms:
        raise Refused(BAD_SIGN, "Params Error: expires must be in the future")
    if not _is_signature(account, f"GET/realtime{expires}", str(signature)):
        raise Refused(BAD_SIGN, "Invalid sign")
    return account


def _is_signature(account: KeyedAccount, text: str, signature: str) -> bool:
    expected = hmac.new(account.secret.encode(), text.encode(), hashlib.sha256).hexdigest()
    return hmac.compare_digest(expected.encode(), signature.encode())
