"""Parameters of a request, from query and body or from a frame, and the words for bad ones."""

import re
from collections.abc import Mapping
from decimal import Decimal
from enum import Enum
from typing import Any, Final, TypeVar
from urllib.parse import parse_qsl

from venue.protocols.binance.errors import BinanceRefusal, illegal, missing

__all__ = ["Params", "from_frame", "from_http"]

DECIMAL: Final = r"^([0-9]{1,20})(\.[0-9]{1,20})?$"
INTEGER: Final = r"^[0-9]{1,20}$"
_decimal = re.compile(DECIMAL)
_integer = re.compile(INTEGER)
_BOOLS: Final = {"true": True, "false": False}

E = TypeVar("E", bound=Enum)


class Params:
    """One request's parameters by name, all of them texts as they were sent."""

    def __init__(self, values: Mapping[str, str]) -> None:
        self.values = dict(values)

    def __contains__(self, name: str) -> bool:
        return bool(self.values.get(name))

    def text(self, name: str, default: str = "") -> str:
        """Return a text, `default` where it was not sent."""
        return self.values.get(name) or default

    def required(self, name: str) -> str:
        """Return a text that must be there."""
        value = self.values.get(name)
        if not value:
            raise missing(name)
        return value

    def decimal(self, name: str) -> Decimal | None:
        """Return a number without sign or exponent, None where it was not sent."""
        value = self.values.get(name)
        if value is None:
            return None
        if not value:
            raise BinanceRefusal(-1105, f"Parameter '{name}' was empty.")
        if not _decimal.match(value):
            raise illegal(name, DECIMAL)
        return Decimal(value)

    def required_decimal(self, name: str) -> Decimal:
        """Return a number that must be there."""
        value = self.decimal(name)
        if value is None:
            raise missing(name)
        return value

    def integer(self, name: str, default: int | None = None) -> int | None:
        """Return a whole number, `default` where it was not sent."""
        value = self.values.get(name)
        if not value:
            return default
        if not _integer.match(value):
            raise illegal(name, INTEGER)
        return int(value)

    def boolean(self, name: str, default: bool = False) -> bool:
        """Return true or false, in any case."""
        value = self.values.get(name)
        if not value:
            return default
        found = _BOOLS.get(value.lower())
        if found is None:
            raise BinanceRefusal(-1130, f"Data sent for parameter '{name}' is not valid.")
        return found

    def choice(self, name: str, choices: type[E], refusal: BinanceRefusal) -> E:
        """Return one of an enum's values; raise `refusal` for another one."""
        value = self.required(name)
        try:
            return choices(value)
        except ValueError:
            raise refusal from None

    def client_id(self, name: str, legal: "re.Pattern[str]") -> str:
        """Return a client's own id, empty where none was sent."""
        value = self.values.get(name) or ""
        if value and not legal.match(value):
            raise illegal(name, legal.pattern)
        return value

    def logged(self) -> dict[str, str]:
        """Return what the request log keeps: all but keys and signatures."""
        return {name: value for name, value in self.values.items() if name not in ("signature", "apiKey")}


def from_http(query: str, body: bytes) -> Params:
    """Return the parameters of query and body; where both have one, the query's counts."""
    pairs = parse_qsl(body.decode(errors="replace"), keep_blank_values=True)
    pairs += parse_qsl(query, keep_blank_values=True)
    return Params(dict(pairs))


def from_frame(params: Mapping[str, Any]) -> Params:
    """Return the parameters of a frame, each as the text that is signed for it."""
    return Params({name: text_of(value) for name, value in params.items() if value is not None})


def text_of(value: Any) -> str:
    """Return a JSON value as Binance signs it: booleans in lower case, texts as they are."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)
