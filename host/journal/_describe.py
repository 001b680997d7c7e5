"""Records for people and for other programs: plain dicts with field names, and one-line text."""

import json
from datetime import UTC, datetime
from decimal import Decimal
from enum import Enum
from typing import Any

from msgspec import Struct, structs

from host.core.entries import Record

__all__ = ["describe", "render"]


def describe(record: Record) -> dict[str, Any]:
    """Return a record as plain data that `json.dumps` takes.

    Decimals are strings, so that nothing is rounded. Bytes are the JSON that they hold, or hex.
    """
    return {"lsn": record.lsn, "ts_ns": record.ts_ns, "time": _time(record.ts_ns), **_plain(record.entry)}


def render(record: Record) -> str:
    """Return a record as one line: LSN, UTC time, kind, then its fields; empty ones are left out."""
    fields = _plain(record.entry)
    kind = fields.pop("entry")
    words = [f"{record.lsn:>8}", _time(record.ts_ns), f"{kind:<20}", *_words(fields)]
    return " ".join(words).rstrip()


def _time(ts_ns: int) -> str:
    seconds, rest = divmod(ts_ns, 1_000_000_000)
    try:
        return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{rest:09d}Z"
    except (OverflowError, ValueError, OSError):
        return f"{ts_ns}ns"  # not a date that a calendar has


def _plain(value: Any) -> Any:
    if isinstance(value, Struct):
        config = value.__struct_config__
        fields = {name: _plain(field) for name, field in structs.asdict(value).items()}
        return {config.tag_field: config.tag, **fields} if config.tag_field else fields
    if isinstance(value, Decimal):
        return str(value)
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, bytes):
        return _plain_bytes(value)
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    return value


def _plain_bytes(value: bytes) -> Any:
    try:
        return json.loads(value.decode("utf-8"), parse_constant=_refuse)
    except ValueError:
        return value.hex()


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")


def _words(fields: dict[str, Any]) -> list[str]:
    words = []
    for name, value in fields.items():
        if value is None or value is False or value in ("", []):
            continue
        if isinstance(value, dict) and "message" in value:
            words += [str(value["message"]), *_words({k: v for k, v in value.items() if k != "message"})]
        elif value is True:
            words.append(name)
        elif isinstance(value, dict | list):
            words.append(f"{name}={_quoted(value)}")
        else:
            text = str(value)
            is_plain = text.isprintable() and " " not in text
            words.append(f"{name}={text if is_plain else _quoted(text)}")
    return words


def _quoted(value: Any) -> str:
    # A venue's text may hold line breaks or terminal escapes: those are shown, not obeyed.
    text = json.dumps(value, separators=(",", ":"), ensure_ascii=False)
    return text if text.isprintable() else json.dumps(value, separators=(",", ":"))
