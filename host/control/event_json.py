"""Journal entries as JSON objects with field names, for clients that know none of our types."""

import re
from decimal import Decimal
from enum import Enum
from typing import Any, Final

import msgspec
from msgspec import Raw, Struct

from host.core import entries as e

__all__ = ["event_json", "instance_numbers", "instances_of"]

_AS_IT_IS: Final = frozenset({str, int, float, bool, type(None), Decimal})
_encode = msgspec.json.Encoder(decimal_format="string").encode
_NUMBER: Final = re.compile(r"t[0-9a-f]+i([0-9a-f]+)n[0-9a-f]+$")
"""The instance's number in a client order id (`host/core/client_id.py`)."""

_fields: dict[type[Struct], tuple[str, ...]] = {}
_messages: dict[type[Struct], str] = {}


def event_json(entry: e.Entry) -> str:
    """Return an entry's fields as a JSON object. Decimal numbers are text; bytes the JSON they hold, or hex."""
    return _encode(_named(entry, is_entry=True)).decode()


def _named(value: Struct, *, is_entry: bool = False) -> dict[str, Any]:
    kind = type(value)
    fields = _fields.get(kind)
    if fields is None:
        fields = _fields[kind] = kind.__struct_fields__
        tag = kind.__struct_config__.tag
        _messages[kind] = str(tag) if tag is not None else ""
    named: dict[str, Any] = {}
    if not is_entry and _messages[kind]:
        named["message"] = _messages[kind]
    for field in fields:
        one = getattr(value, field)
        named[field] = one if type(one) in _AS_IT_IS else _plain(one)
    return named


def _plain(value: Any) -> Any:
    if isinstance(value, Struct):
        return _named(value)
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, bytes):
        return _json_or_hex(value)
    if isinstance(value, tuple | list):
        return [one if type(one) in _AS_IT_IS else _plain(one) for one in value]
    if isinstance(value, dict):
        return {key: one if type(one) in _AS_IT_IS else _plain(one) for key, one in value.items()}
    return value


def _json_or_hex(data: bytes) -> Any:
    if data[:1] in (b"{", b"["):
        try:
            msgspec.json.decode(data)
        except msgspec.DecodeError:
            return data.hex()
        return Raw(data)
    return data.hex()


def instances_of(entry: Any) -> str | int:
    """Return whose entry this is: an instance's name, or its number, or an empty name for nobody's.

    Reports of a venue know the order alone; its client id holds the instance's number.
    """
    owner = getattr(entry, "instance", None)
    if owner is not None:
        return str(owner)
    match entry:
        case e.OrderAdopted():
            return entry.order.instance
        case e.FillAdopted():
            return entry.fill.instance
        case e.Reported():
            client_id = entry.report.client_id
        case e.CancelSent() | e.OrderResolved():
            client_id = entry.client_id
        case e.AmendSent():
            client_id = entry.changes[0].client_id
        case _:
            return ""
    found = _NUMBER.search(client_id)
    return int(found[1], 16) if found else ""


def instance_numbers(instances: dict[str, Any], name: str) -> frozenset[str | int]:
    """Return what `instances_of` may call the instance `name`, given the journal's records of instances."""
    record = instances.get(name)
    return frozenset({name} if record is None else {name, record.number})
