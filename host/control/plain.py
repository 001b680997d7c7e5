"""Between protobuf messages and plain data: for the audit log, for parameters, for times."""

from collections.abc import Mapping
from decimal import Decimal
from typing import Any, Final

from google.protobuf.duration_pb2 import Duration
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.message import Message
from google.protobuf.struct_pb2 import ListValue, Struct, Value
from google.protobuf.timestamp_pb2 import Timestamp

__all__ = ["duration", "duration_ns", "plain", "struct", "timestamp", "to_struct"]

SECOND_NS: Final = 1_000_000_000
# By type, because `isinstance` with a union is ten times slower, and each change of parameters asks it often.
_SCALARS: Final = frozenset({str, int, float, bool})


def plain(message: Message) -> dict[str, Any]:
    """Return the fields of a message that are set, as JSON can hold them; enums are numbers."""
    found: dict[str, Any] = {}
    for field, value in message.ListFields():
        if type(value) in _SCALARS:
            found[field.name] = value
        elif field.message_type is not None and field.message_type.GetOptions().map_entry:
            found[field.name] = {str(key): _plain(one) for key, one in value.items()}
        elif isinstance(value, Message):
            found[field.name] = _plain(value)
        else:
            found[field.name] = [_plain(one) for one in value]
    return found


def _plain(value: Any) -> Any:
    if isinstance(value, Struct):
        return struct(value)
    if isinstance(value, FieldMask):
        return list(value.paths)
    if isinstance(value, Timestamp | Duration):
        # Not `ToJsonString`, which raises for what is no date: a client may send any number.
        return f"{value.seconds + value.nanos / SECOND_NS:.9f} s"
    return plain(value) if isinstance(value, Message) else value


def struct(message: Struct) -> dict[str, Any]:
    """Return a JSON object as Python has it; a number without a fraction is an int."""
    return {key: _value(one) for key, one in message.fields.items()}


def _value(value: Value) -> Any:
    match value.WhichOneof("kind"):
        case "number_value":
            number = value.number_value
            return int(number) if number.is_integer() and abs(number) < 1 << 53 else number
        case "string_value":
            return value.string_value
        case "bool_value":
            return value.bool_value
        case "struct_value":
            return struct(value.struct_value)
        case "list_value":
            return [_value(one) for one in value.list_value.values]
        case _:
            return None


def to_struct(table: Mapping[str, Any], target: Struct) -> None:
    """Put plain data into a message; decimal numbers become text, as nothing else keeps every digit."""
    for key, value in table.items():
        _put(value, target.fields[key])


def _put(value: Any, target: Value) -> None:
    kind = type(value)
    if kind is float or kind is int:
        target.number_value = value
    elif kind is str:
        target.string_value = value
    elif value is None:
        target.null_value = 0  # type: ignore[assignment]
    elif isinstance(value, bool):
        target.bool_value = value
    elif isinstance(value, int | float):
        target.number_value = value
    elif isinstance(value, Mapping):
        target.struct_value.SetInParent()
        to_struct(value, target.struct_value)
    elif isinstance(value, list | tuple | set | frozenset):
        target.list_value.SetInParent()
        _put_all(value, target.list_value)
    elif isinstance(value, Decimal):
        target.string_value = f"{value:f}"
    else:
        target.string_value = str(value)


def _put_all(values: Any, target: ListValue) -> None:
    for value in values:
        _put(value, target.values.add())


def timestamp(ns: int) -> Timestamp:
    """Return a time given in nanoseconds since the Unix epoch."""
    seconds, nanos = divmod(ns, SECOND_NS)
    return Timestamp(seconds=seconds, nanos=nanos)


def duration(ns: int) -> Duration:
    """Return a length of time of 0 ns or more."""
    seconds, nanos = divmod(ns, SECOND_NS)
    return Duration(seconds=seconds, nanos=nanos)


def duration_ns(value: Duration) -> int:
    """Return a length of time in nanoseconds; whatever a client wrote, so it may be negative."""
    return value.seconds * SECOND_NS + value.nanos
