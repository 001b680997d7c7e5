"""Pages of a list that changes meanwhile: each goes on after the last key sent, wherever that was.

What was there all the time is sent exactly once; what comes or goes between two pages may be missed.
"""

import base64
import binascii
import hashlib
from collections.abc import Sequence
from typing import Any, Final, Protocol, TypeVar

import msgspec

from host.control.reasons import Refused

__all__ = ["DEFAULT_PAGE_SIZE", "MAX_PAGE_SIZE", "page_of", "page_size_of"]

DEFAULT_PAGE_SIZE: Final = 100
MAX_PAGE_SIZE: Final = 1000

Key = TypeVar("Key", str, tuple[int, str])


class _Paged(Protocol):
    page_size: int
    page_token: str


def page_size_of(page_size: int) -> int:
    """Return how many items a page is to have; raise `Refused` for a size out of bounds."""
    if not 0 <= page_size <= MAX_PAGE_SIZE:
        raise Refused.field("page_size", f"expected 1 to {MAX_PAGE_SIZE}, or 0 for 100, was {page_size}")
    return page_size or DEFAULT_PAGE_SIZE


def page_of(
    keys: Sequence[Key], request: _Paged, *filters: Any, descending: bool = False
) -> tuple[list[Key], str]:
    """Return the keys of the page that a request asks for, and the token of the next.

    `keys` may come in any order; pages go up, or with `descending` down. A token holds for the
    `filters` that it came with. Raises `Refused`.
    """
    size = page_size_of(request.page_size)
    ordered = sorted(keys, reverse=descending)
    asked = _digest(filters)
    if request.page_token:
        last = _last_key(request.page_token, asked, str if ordered and isinstance(ordered[0], str) else tuple)
        ordered = [key for key in ordered if (key < last if descending else key > last)]
    page = ordered[:size]
    more = len(ordered) > size
    return page, _token(asked, page[-1]) if more else ""


def _digest(filters: Sequence[Any]) -> str:
    return hashlib.blake2b(repr(filters).encode(), digest_size=6).hexdigest()


def _token(asked: str, last: Any) -> str:
    return base64.urlsafe_b64encode(msgspec.msgpack.encode((asked, last))).decode()


def _last_key(token: str, asked: str, kind: type) -> Any:
    try:
        data = base64.b64decode(token.encode("ascii", "replace"), altchars=b"-_", validate=True)
        came_with, last = msgspec.msgpack.decode(data, type=tuple[str, str | tuple[int, str]])
        if not isinstance(last, kind):
            came_with = ""  # nobody was given that
    except (binascii.Error, msgspec.MsgspecError) as error:
        text = "expected a next_page_token of this call, was something else"
        raise Refused.field("page_token", text, "INVALID_PAGE_TOKEN") from error
    if came_with != asked:
        text = "this token is of a list with other filters; ask with the same ones, or without a token"
        raise Refused.field("page_token", text, "INVALID_PAGE_TOKEN")
    return last
