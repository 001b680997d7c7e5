"""The checksum of OKX books: CRC32 over the best 25 levels of each side, as text, as sent.

OKX itself sends 0 since about June 2026, which says nothing; venues that speak its protocol still
send real ones. Checking needs the texts, so it keeps a second copy of the book and is an option.
"""

import zlib
from collections.abc import Sequence
from decimal import Decimal
from typing import Final

import msgspec
from msgspec import Struct

from .frames import Frame, PublicHead, decode

__all__ = ["BookTexts", "TextFrame", "read_texts"]

_LEVELS: Final = 25


class _TextRow(Struct, rename="camel"):
    asks: tuple[tuple[str, ...], ...]
    bids: tuple[tuple[str, ...], ...]
    checksum: int = 0


class TextFrame(Struct):
    """A push of a book channel with its levels as text."""

    arg: PublicHead
    data: tuple[_TextRow, ...] = ()
    action: str = ""


_TEXTS: Final = msgspec.json.Decoder(TextFrame)


def read_texts(frame: Frame) -> TextFrame:
    """Read a book push as text; raise `BadFrame`."""
    return decode(_TEXTS, frame, "book")


class BookTexts:
    """The levels of one book as the venue wrote them."""

    def __init__(self) -> None:
        self._bids: dict[Decimal, tuple[str, str]] = {}
        self._asks: dict[Decimal, tuple[str, str]] = {}

    def apply(self, frame: TextFrame) -> bool:
        """Take over a push; return whether the book is as the venue says (a checksum of 0 says nothing)."""
        is_right = True
        for row in frame.data:
            if frame.action != "update":
                self._bids.clear()
                self._asks.clear()
            _merge(self._bids, row.bids)
            _merge(self._asks, row.asks)
            is_right = row.checksum in (0, self.checksum())
        return is_right

    def checksum(self) -> int:
        """Return the signed CRC32 of `bid:size:ask:size:...` over the best levels."""
        bids = [self._bids[price] for price in sorted(self._bids, reverse=True)[:_LEVELS]]
        asks = [self._asks[price] for price in sorted(self._asks)[:_LEVELS]]
        parts: list[str] = []
        for at in range(max(len(bids), len(asks))):
            parts += bids[at] if at < len(bids) else ()
            parts += asks[at] if at < len(asks) else ()
        crc = zlib.crc32(":".join(parts).encode())
        return crc - (1 << 32) if crc >= 1 << 31 else crc


def _merge(levels: dict[Decimal, tuple[str, str]], rows: Sequence[tuple[str, ...]]) -> None:
    for price, size, *_ in rows:
        if Decimal(size):
            levels[Decimal(price)] = (price, size)
        else:
            levels.pop(Decimal(price), None)
