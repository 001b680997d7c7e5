"""Column types that lose nothing on either database."""

from decimal import Decimal
from typing import Any

from sqlalchemy import BigInteger, Dialect, Integer, Numeric, Text
from sqlalchemy.types import TypeDecorator, TypeEngine

__all__ = ["BigInt", "ExactDecimal", "FreeText"]

BigInt = BigInteger().with_variant(Integer, "sqlite")
"""64-bit integer. SQLite's INTEGER is 64-bit too, and only under that name a primary key is the rowid."""


class ExactDecimal(TypeDecorator[Decimal]):
    """A `Decimal` kept digit for digit: NUMERIC in PostgreSQL, text in SQLite.

    SQLite's NUMERIC is a float beyond 15 digits, so there the value is its plain notation
    (`0.00000001`, never `1E-8`). Compare and sort such columns with `CAST(x AS REAL)` in SQL, or
    in Python where it must be exact.
    """

    impl = Numeric
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        """Return the database's own type for it."""
        return dialect.type_descriptor(Text() if dialect.name == "sqlite" else Numeric(asdecimal=True))

    def process_bind_param(self, value: Decimal | None, dialect: Dialect) -> Any:
        """Return what the driver stores."""
        if value is None or dialect.name != "sqlite":
            return value
        return format(value, "f")

    def process_result_value(self, value: Any, dialect: Dialect) -> Decimal | None:
        """Return the `Decimal` that was stored."""
        return None if value is None else Decimal(value)


class FreeText(TypeDecorator[str]):
    """Text from outside. PostgreSQL cannot hold NUL, and one such message must not stop the projection."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        """Return the text with NUL made visible as U+FFFD."""
        return value.replace("\0", "\ufffd") if value and "\0" in value else value
