"""Whether what an adapter hands over has the types that its class declares.

Python does not look at them, and the journal cannot read back what is something else: a report with a price of
None, once journaled, would keep the node from starting ever after.
"""

import typing
from decimal import Decimal
from functools import cache
from types import NoneType, UnionType
from typing import Any, Final

from msgspec import Struct
from msgspec.structs import fields

from host.api import TandemError

__all__ = ["NotAsDeclared", "check_declared"]

_MOST_TEXT: Final = 80


class NotAsDeclared(TandemError):  # noqa: N818 - the fact, in the words authors see
    """A field has another type than its class says, or a number that is none."""


def check_declared(value: Any, kinds: tuple[type, ...]) -> None:
    """Raise `NotAsDeclared` unless `value` is of one of `kinds`, and all that it is made of is as declared."""
    if type(value) not in kinds:
        names = (
            kinds[0].__name__ if len(kinds) == 1 else f"one of {', '.join(kind.__name__ for kind in kinds)}"
        )
        raise NotAsDeclared(f"a {names} is expected, was {_shown(value)}")
    _check_fields(value)


def _check_fields(value: Struct) -> None:
    for name, allowed, parts in _declared(type(value)):
        found: Any = getattr(value, name)
        if not isinstance(found, allowed) or (type(found) is Decimal and not found.is_finite()):
            wanted = " or ".join("None" if kind is NoneType else kind.__name__ for kind in allowed)
            text = f"{type(value).__name__}.{name} should be {wanted}, was {_shown(found)}"
            raise NotAsDeclared(text)
        if parts:
            for part in typing.cast("tuple[Any, ...]", found):
                check_declared(part, parts)
        elif isinstance(found, Struct):
            _check_fields(found)


@cache
def _declared(cls: type[Struct]) -> tuple[tuple[str, tuple[type, ...], tuple[type, ...]], ...]:
    """Return name, types and, of a tuple, the types of its parts, of each field."""
    hints = typing.get_type_hints(cls)
    return tuple((field.name, *_kinds(hints[field.name])) for field in fields(cls))


def _kinds(hint: Any) -> tuple[tuple[type, ...], tuple[type, ...]]:
    if typing.get_origin(hint) is tuple:
        return (tuple, list), typing.get_args(hint)[:1]
    return typing.get_args(hint) if isinstance(hint, UnionType) else (hint,), ()


def _shown(value: object) -> str:
    text = repr(value)
    return f"{type(value).__name__} {text if len(text) <= _MOST_TEXT else text[:_MOST_TEXT] + '…'}"
