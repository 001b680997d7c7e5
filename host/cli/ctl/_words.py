"""Between what people write and what the API calls it."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, Final

import click
from google.protobuf.duration_pb2 import Duration
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message
from google.protobuf.struct_pb2 import Struct
from google.protobuf.timestamp_pb2 import Timestamp

__all__ = [
    "as_json",
    "clock",
    "enum_named",
    "full_name",
    "moment",
    "money",
    "plain_struct",
    "scope_of",
    "short",
    "span",
    "word",
]

_COLLECTIONS: Final = {"account": "accounts", "instance": "instances", "symbol": "symbols"}
"""What `tandem node` and the journal call a scope, and what the API does."""


def as_json(message: Message) -> dict[str, Any]:
    """Return a message as grpcurl shows it, with the fields that have their defaults too."""
    return MessageToDict(message, always_print_fields_with_no_presence=True)


def full_name(text: str, collection: str) -> str:
    """Return `mm-btc` as `instances/mm-btc`; a name that is complete stays as it is."""
    return text if text.startswith(f"{collection}/") else f"{collection}/{text}"


def short(name: str) -> str:
    """Return what is behind the collection: `mm-btc` for `instances/mm-btc`."""
    return name.partition("/")[2] or name


def scope_of(text: str) -> str:
    """Return a scope as the API writes it; `instance:mm-btc`, as the journal has it, will do too."""
    kind, colon, name = text.partition(":")
    if colon and kind in _COLLECTIONS:
        return f"{_COLLECTIONS[kind]}/{name}"
    if text == "node" or text.partition("/")[0] in _COLLECTIONS.values():
        return text
    hint = "" if "/" in text or colon else f"; an instance of that name is instances/{text}"
    raise click.BadParameter(
        f'expected node, accounts/NAME, instances/NAME or symbols/NAME, was "{text}"{hint}',
        param_hint="SCOPE",
    )


def word(enum: Any, value: int) -> str:
    """Return the value of an enum without its prefix: `RUNNING`; `-` where nothing is said."""
    name: str = enum.Name(value)
    text = name.removeprefix(_prefix(enum))
    return "-" if text == "UNSPECIFIED" else text


def enum_named(enum: Any, text: str) -> int:
    """Return the value of an enum that `word` would show as `text`, in upper or lower case."""
    number: int = enum.Value(_prefix(enum) + text.upper().replace("-", "_"))
    return number


def _prefix(enum: Any) -> str:
    """Return what every value of an enum begins with: that of `INSTANCE_STATE_UNSPECIFIED`, the first."""
    first: str = enum.Name(0)
    return first.removesuffix("UNSPECIFIED")


def clock(time: Timestamp) -> str:
    """Return a time of day in UTC to the millisecond; empty where none is set."""
    if not time.seconds:
        return ""
    return f"{datetime.fromtimestamp(time.seconds, UTC):%H:%M:%S}.{time.nanos // 1_000_000:03}"


def moment(time: Timestamp) -> str:
    """Return a date and time in UTC to the second; empty where none is set."""
    return f"{datetime.fromtimestamp(time.seconds, UTC):%Y-%m-%d %H:%M:%S}" if time.seconds else ""


def money(amount: str) -> str:
    """Return an amount as people read it, to eight places; `--json` has every digit."""
    if not amount:
        return "-"
    text = f"{round(Decimal(amount), 8):f}"
    return (text.rstrip("0").rstrip(".") if "." in text else text) or "0"


def span(duration: Duration | float) -> str:
    """Return a length of time as people say it: `84 µs`, `1.3 ms`, `12 s`, `3:04:05`."""
    seconds = duration if isinstance(duration, float | int) else duration.seconds + duration.nanos / 1e9
    if seconds >= 60:
        return str(timedelta(seconds=int(seconds)))
    for unit, factor in (("s", 1.0), ("ms", 1e3)):
        if seconds * factor >= 1:
            return f"{seconds * factor:.3g} {unit}"
    return f"{seconds * 1e6:.0f} µs"


def plain_struct(message: Struct) -> str:
    """Return parameters on one line: `half_spread_bps=0.2 size=0.01`."""
    return " ".join(f"{key}={_plain(value)}" for key, value in sorted(MessageToDict(message).items()))


def _plain(value: Any) -> str:
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value).lower() if isinstance(value, bool) else str(value)
