"""A value that is used and never shown, such as the key of an exchange account."""

import hmac
from typing import Any, Final, NoReturn

__all__ = ["Secret"]

_SHOWN: Final = "Secret(***)"


class Secret:
    """Holds text that must not reach a log, a journal, an error message or a screen.

    It prints as `Secret(***)`; it cannot be encoded or pickled. `reveal` gives the text, for signing.
    An adapter declares `api_secret: Secret | None = None`; an account's configuration says
    `api_secret = "secret:NAME"`, and `tandem secret set NAME` stores it.
    """

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        """Return the text itself. Use it where it is needed, and keep no copy."""
        return self._text

    def __repr__(self) -> str:
        return _SHOWN

    __str__ = __repr__

    def __format__(self, spec: str) -> str:
        return format(_SHOWN, spec)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and hmac.compare_digest(self._text.encode(), other._text.encode())

    def __hash__(self) -> int:
        return hash((Secret, self._text))

    def __copy__(self) -> "Secret":
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> "Secret":
        return self

    def __reduce__(self) -> NoReturn:
        raise TypeError("a Secret is not pickled: it would leave this process as plain text")
